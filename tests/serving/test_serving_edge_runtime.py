"""What a device runs: decides as the bundle does, refuses what is damaged, and loses nothing that it gave an id for."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_kit import choices_bundle, exported, loaded
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import MODES, policy_bundle
from support.registry_bundles import build_bundle

from rlaas.bundles import load_bundle
from rlaas.objectives import Preference
from rlaas.serving.edge import edge_files, export_edge
from rlaas.serving.edge.runtime import Edge

SOURCES = Path(__file__).parent.parent.parent / "rlaas" / "serving" / "edge"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    policy_bundle(tmp_path / "v1", features=3, actions=4)
    return exported(tmp_path)


def _edge(folder: Path, **options: Any) -> Any:
    return loaded(folder).Edge(folder, **options)


def _lines(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((folder / "store").glob("*.log")):
        for line in path.read_bytes().splitlines():
            assert int(line[:8], 16) == zlib.crc32(line[9:])
            found.append(json.loads(line[9:]))
    return found


def test_the_runtime_is_short_and_needs_numpy_and_onnxruntime_only() -> None:
    assert len((SOURCES / "runtime.py").read_text().splitlines()) <= 100
    for name, allowed in (("runtime.py", {"numpy", "onnxruntime"}), ("link.py", set())):
        imported = set()
        for node in ast.walk(ast.parse((SOURCES / name).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
        assert imported - set(sys.stdlib_module_names) == allowed, name


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["discrete", "box", "plain", "choices"])
def test_it_decides_as_the_bundle_does(tmp_path: Path, kind: str, seed: int) -> None:
    if kind == "choices":
        choices_bundle(tmp_path / "v1")
    else:
        policy_bundle(
            tmp_path / "v1", kind="box" if kind == "box" else "discrete", conditioned=kind != "plain", seed=seed
        )
    edge, policy = _edge(exported(tmp_path)), load_bundle(tmp_path / "v1")
    rng = np.random.default_rng(seed)
    for row in rng.normal(size=(10, 3)).tolist():
        wish = dict(zip(("latency", "throughput"), rng.uniform(0, 3, 2).tolist(), strict=True))
        for given_, weights in (
            ({}, {"latency": 1, "throughput": 1}),
            ({"mode": "emergency"}, MODES["emergency"]),
            ({"preference": wish}, wish),
            ({"preference": {"latency": 2.0}}, {"latency": 1.0}),
        ):
            wanted, _ = policy.act(policy.check_observations([row]), policy.preference(weights))
            answer = edge.decide(row, **given_)
            np.testing.assert_allclose(answer["action"], wanted[0], atol=1e-6)
            assert isinstance(answer["action"], int if kind in ("discrete", "plain") else list)
            logged = _lines(edge.folder)[-1]
            assert (logged["id"], logged["action"]) == (answer["decision_id"], answer["action"])
            scaled = None if kind == "plain" else Preference.of(policy.objectives, weights).to_dict()
            assert logged["preference"] == (None if scaled is None else pytest.approx(scaled))


def test_box_actions_never_leave_their_bounds(tmp_path: Path) -> None:
    bundle = policy_bundle(tmp_path / "v1", kind="box", actions=3)
    manifest = json.loads((bundle / "bundle.json").read_text())
    low, high = [0.1, -0.3, 1e-3], [0.7, 0.3, 1.1e-3]  # none of them a float32
    manifest["action"] = {"kind": "box", "low": low, "high": high}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    edge = _edge(exported(tmp_path))
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(scale=scale, size=(100, 3)) for scale in (1.0, 30.0, 1000.0)])
    reached = np.array([edge.decide(row)["action"] for row in rows.tolist()])
    assert (reached >= low).all()
    assert (reached <= high).all()
    assert (np.ptp(reached, axis=0) > 0.99 * (np.array(high) - low)).all()


def test_what_cannot_be_decided_is_refused_by_name(folder: Path) -> None:
    edge = _edge(folder)
    for bad in ([1.0, 2.0], [[1.0, 2.0, 3.0]], [1.0, float("nan"), 0.0], [1.0, 1e39, 0.0]):
        with np.errstate(over="ignore"), pytest.raises(ValueError, match="observation must hold 3 finite numbers"):
            edge.decide(bad)
    for options in ({"mode": "panic"}, {"mode": "normal", "preference": {"latency": 1}}):
        with pytest.raises(ValueError, match="allowed: one of"):
            edge.decide([0, 0, 0], **options)
    for weights in (
        {"speed": 1},
        {"latency": -1},
        {"latency": 0},
        {},
        {"latency": float("inf")},
        {"latency": float("nan")},
    ):
        with pytest.raises(ValueError, match="allowed: weights >= 0"):
            edge.decide([0, 0, 0], preference=weights)
    with pytest.raises(TypeError, match="allowed"):
        edge.decide([0, 0, 0], sesion="typo")
    with pytest.raises(ValueError, match="allowed"):
        edge.outcome("0" * 32 + "-1", {"speed": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        edge.outcome("0" * 32 + "-1", {"latency": float("nan")})
    assert _lines(folder) == []


def test_an_output_that_is_not_finite_is_no_action(tmp_path: Path) -> None:
    build_bundle(tmp_path / "v1")
    edge = _edge(exported(tmp_path))
    with pytest.raises(ArithmeticError, match="safe default"):
        edge.decide([3e38, 3e38, 3e38])
    assert _lines(edge.folder) == []


@pytest.mark.parametrize("name", ["policy.onnx", "edge.json", "golden.json", "SHA256SUMS"])
def test_a_changed_file_is_refused_at_the_start(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[10] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises((ValueError, OSError)):
        _edge(folder)


def test_a_model_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    for version in (1, 2):
        policy_bundle(tmp_path / f"b{version}", seed=version)
        export_edge(tmp_path / f"b{version}", tmp_path / f"x{version}", policy="toy", version=1, decisions=1)
    first, second = tmp_path / "x1", tmp_path / "x2"
    sums = (first / "SHA256SUMS").read_text().splitlines()
    shutil.copy(second / "policy.onnx", first / "policy.onnx")
    sums[0] = (second / "SHA256SUMS").read_text().splitlines()[0]
    (first / "SHA256SUMS").write_text("\n".join(sums))
    with pytest.raises(ValueError, match="golden batch disagrees"):
        _edge(first)


def test_ids_are_uuids_of_version_7_with_the_version_that_decided(folder: Path) -> None:
    edge = _edge(folder)
    ids = [edge.decide([0, 0, float(i)])["decision_id"] for i in range(50)]
    for found in ids:
        parsed = uuid.UUID(found[:32])
        assert (parsed.version, parsed.variant, found[32:]) == (7, uuid.RFC_4122, "-1")
        assert abs((parsed.int >> 80) / 1000 - time.time()) < 60
    assert len(set(ids)) == 50


def test_a_full_store_takes_no_more_and_the_device_decides_on(folder: Path) -> None:
    edge = _edge(folder, max_bytes=2000)
    answers = [edge.decide([0.1, 0.2, 0.3], mode="normal") for _ in range(30)]
    kept = [answer["decision_id"] for answer in answers if answer["decision_id"]]
    assert 0 < len(kept) < 30
    assert edge.dropped == 30 - len(kept)
    assert [record["id"] for record in _lines(folder)] == kept
    assert sum(path.stat().st_size for path in (folder / "store").glob("*.log")) <= 2000
    assert len({answer["action"] for answer in answers}) == 1


def test_a_store_that_cannot_be_written_drops_and_says_so(folder: Path) -> None:
    edge = _edge(folder)
    assert edge.decide([0, 0, 0])["decision_id"]
    (folder / "store").rename(folder / "gone")
    assert edge.decide([0, 0, 0])["decision_id"] is None
    (folder / "gone").rename(folder / "store")
    assert edge.decide([0, 0, 0])["decision_id"]
    assert edge.dropped == 1
    assert len(_lines(folder)) == 2


def test_a_long_time_cut_off_makes_segments_of_bounded_size(folder: Path) -> None:
    edge = _edge(folder)
    count = 1500
    ids = [edge.decide([0.1, 0.2, 0.3], session="s" * 100, step=i)["decision_id"] for i in range(count)]
    sizes = [path.stat().st_size for path in sorted((folder / "store").glob("*.log"))]
    assert len(sizes) > 1
    assert max(sizes) < 2**18 + 2000
    assert edge.size == sum(sizes)
    assert [record["id"] for record in _lines(folder)] == ids
    again = loaded(folder).Edge
    with pytest.raises(BlockingIOError):
        again(folder)


@settings(max_examples=25)
@given(cut=st.integers(0, 400))
def test_a_torn_end_costs_that_line_only(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("torn")
    policy_bundle(root / "v1")
    folder = root / "export"
    folder.mkdir()
    for name, content in edge_files(root / "v1", "toy", 1).items():
        (folder / name).write_bytes(content)
    edge = Edge(folder, fsync=True)
    ids = [edge.decide([0, 0, float(i)])["decision_id"] for i in range(5)]
    path = next((folder / "store").glob("*.log"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    os.close(edge.held)
    again = Edge(folder)
    behind = again.decide([1, 1, 1])["decision_id"]  # never written behind the torn line
    lines = [line for file in sorted((folder / "store").glob("*.log")) for line in file.read_bytes().split(b"\n")]
    intact = [json.loads(line[9:])["id"] for line in lines if line[:8] == b"%08x" % zlib.crc32(line[9:])]
    complete = whole[: len(whole) - cut].count(b"\n")
    # Without its newline a line may still be whole.
    assert intact in ([*ids[:complete], behind], [*ids[: complete + 1], behind])
    os.close(again.held)
