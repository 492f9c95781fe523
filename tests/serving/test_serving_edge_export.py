"""The export as a folder: complete, checked, measured in a process that has no rlaas, and small by 8 bits."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from edge_kit import choices_bundle
from onnx import TensorProto, helper
from support.bundles import policy_bundle
from support.registry_bundles import build_bundle

from rlaas.bundles import load_bundle
from rlaas.cli.main import app, run
from rlaas.control import StateDatabase
from rlaas.errors import BundleError, InvalidInputError, OperatorError
from rlaas.files import sha256_of
from rlaas.registry import Registry
from rlaas.serving.edge import device_key, edge_files, export_edge, measure_edge
from rlaas.settings import load_settings

FILES = {"policy.onnx", "edge.json", "golden.json", "SHA256SUMS", "rlaas_edge.py", "rlaas_link.py"}


def test_an_export_is_complete_and_says_how_large_and_how_fast(tmp_path: Path) -> None:
    bundle = policy_bundle(tmp_path / "b", features=5)
    report = export_edge(bundle, tmp_path / "x", policy="toy", version=3, decisions=50)
    assert {path.name for path in (tmp_path / "x").iterdir()} == FILES == set(report.files)
    assert report.files == {path.name: path.stat().st_size for path in (tmp_path / "x").iterdir()}
    for line in (tmp_path / "x" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "x" / name).read_bytes()).hexdigest() == digest
    about = json.loads((tmp_path / "x" / "edge.json").read_text())
    assert (about["policy"], about["version"], about["scenario"]) == ("toy", 3, "toy")
    assert about["features"] == [f"x{i}" for i in range(5)]
    assert about["preferences"][""] == {"latency": 0.5, "throughput": 0.5}
    assert about["bundle_sha256"] == hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    assert report.latency["decisions"] == 50
    assert 0 < report.latency["median_us"] <= report.latency["p99_us"]
    assert report.latency["bytes_per_decision"] > 100
    assert report.to_dict()["bytes"] == sum(report.files.values())


@pytest.mark.parametrize("kind", ["discrete", "box", "choices"])
def test_eight_bits_make_it_smaller_and_the_agreement_is_told(tmp_path: Path, kind: str) -> None:
    if kind == "choices":
        bundle = choices_bundle(tmp_path / "b")
    else:
        bundle = policy_bundle(
            tmp_path / "b", kind="box" if kind == "box" else "discrete", features=32, hidden=64, actions=5
        )
    whole = edge_files(bundle, "toy", 1)
    small = export_edge(bundle, tmp_path / "x", policy="toy", version=1, int8=True, decisions=20)
    if kind != "choices":  # a network of some tens of weights is smaller than what describes its quantisation
        assert small.files["policy.onnx"] < 0.6 * len(whole["policy.onnx"])
    policy = load_bundle(bundle)
    golden = policy.manifest.golden
    rows = np.array(golden.observations, dtype=np.float32)
    weights = np.array(golden.preferences, dtype=np.float32)
    exact, _ = policy.act(rows, weights)
    session = onnxruntime.InferenceSession(tmp_path / "x" / "policy.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["action"], {"observation": rows, "preference": weights})
    assert small.agreement is not None
    if kind == "box":
        assert small.agreement["largest_change_of_range"] == pytest.approx(np.abs(found - exact).max())
        assert 0 < small.agreement["mean_change_of_range"] < small.agreement["largest_change_of_range"] < 0.2
    else:
        same = np.mean([np.array_equal(one, other) for one, other in zip(found, exact, strict=True)])
        assert small.agreement["same_action"] == pytest.approx(same)
        assert same >= 0.5


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    bundle = policy_bundle(tmp_path / "b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "store").mkdir()
    with pytest.raises(InvalidInputError, match="decisions that were not sent yet"):
        export_edge(bundle, tmp_path / "full", policy="toy", version=1)
    with pytest.raises(InvalidInputError, match="plain name"):
        edge_files(bundle, "../toy", 1)
    (bundle / "policy.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="sha256"):
        edge_files(bundle, "toy", 1)


def test_a_policy_with_a_memory_is_refused(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path / "b")
    model = onnx.load(bundle / "policy.onnx")
    shape = ["n", 2]
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, shape))
    model.graph.output.append(helper.make_tensor_value_info("next_state", TensorProto.FLOAT, shape))
    model.graph.node.append(helper.make_node("Identity", ["state"], ["next_state"]))
    onnx.save(model, bundle / "policy.onnx")
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["n_state"] = 2
    manifest["golden"]["states"] = [[0.0, 0.0]] * len(manifest["golden"]["observations"])
    manifest["files"]["policy.onnx"] = sha256_of(bundle / "policy.onnx")
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidInputError, match="remembers from step to step"):
        edge_files(bundle, "toy", 1)


def test_a_measurement_says_why_an_export_does_not_run(tmp_path: Path) -> None:
    bundle = policy_bundle(tmp_path / "b")
    export_edge(bundle, tmp_path / "x", policy="toy", version=1, decisions=1)
    (tmp_path / "x" / "golden.json").write_text("{}")
    with pytest.raises(OperatorError, match=r"golden\.json does not match its digest"):
        measure_edge(tmp_path / "x", decisions=1)


def test_the_command_exports_what_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLAAS_HOME", str(tmp_path / "home"))
    registry = Registry(load_settings())
    registry.register("toy", build_bundle(tmp_path / "b"), alias="champion")
    command = ["policies", "export", "toy", "--target", "edge"]
    assert run(app, [*command, "--output", str(tmp_path / "x"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["policy"], report["version"], report["int8"], report["agreement"]) == ("toy", 1, False, None)
    assert set(report["files"]) == FILES
    linked = [*command, "--output", str(tmp_path / "y"), "--int8", "--device", "till7", "--url", "http://here:8000"]
    assert run(app, linked) == 0
    assert "int8 and float" in capsys.readouterr().out
    device = tmp_path / "y" / "device.json"
    assert stat.S_IMODE(device.stat().st_mode) == 0o600
    secret = StateDatabase(load_settings().state_database).secret()
    assert json.loads(device.read_text()) == {
        "device": "till7",
        "url": "http://here:8000",
        "key": device_key(secret, "till7", tenant="default"),
    }
    for arguments, words in (
        (["--output", str(tmp_path / "z"), "--device", "till7"], "--url is missing"),
        (["--output", str(tmp_path / "z"), "--target", "moon"], "allowed: edge"),
        (["--output", str(tmp_path / "z"), "--device", "Till 7", "--url", "u"], "lower-case letters and digits"),
    ):
        assert run(app, [*command, *arguments]) == 2
        assert words in capsys.readouterr().err
