"""Writes a policy as a folder that decides on its own: model, checks, and a runtime that knows no rlaas."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from rlaas.bundles import GOLDEN_TOLERANCE, MANIFEST, MODEL, BoxAction, BundleManifest, BundlePolicy, load_bundle
from rlaas.errors import BundleError, InvalidInputError, OperatorError
from rlaas.files import sha256_of, sync, write_bytes
from rlaas.names import check_name
from rlaas.objectives import Preference
from rlaas.serving.edge.graph import HEADS, quantised, with_action

__all__ = ["EdgeReport", "edge_files", "export_edge", "measure_edge"]

INT8_TOLERANCE = 0.02
"""Integer kernels round at other places from processor to processor: a step of an activation, not of the policy."""

_SOURCES = {"rlaas_edge.py": "runtime.py", "rlaas_link.py": "link.py"}
_FIELDS = {
    "decision": ("version", "action", "observation", "mode", "preference", "session", "step", "unit"),
    "outcome": ("decision_id", "outcome", "outcome_id", "revision", "terminated", "truncated"),
}
_MEASURE = """
import json, sys, time
sys.modules["rlaas"] = None  # importing it fails from here on
sys.path.insert(0, sys.argv[1])
began = time.perf_counter()
import rlaas_edge
edge = rlaas_edge.Edge(sys.argv[1])
loaded = time.perf_counter()
golden = json.load(open(sys.argv[1] + "/golden.json"))["inputs"]["observation"]
spent = []
for index in range(int(sys.argv[2]) + 100):
    row = golden[index % len(golden)]
    started = time.perf_counter_ns()
    answer = edge.decide(row)
    spent.append(time.perf_counter_ns() - started)
    assert answer["decision_id"]
spent = sorted(spent[100:])
print(json.dumps({
    "decisions": len(spent),
    "median_us": spent[len(spent) // 2] / 1000,
    "p99_us": spent[int(len(spent) * 0.99)] / 1000,
    "start_ms": (loaded - began) * 1000,
    "bytes_per_decision": edge.size / (len(spent) + 100),
}))
"""


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """What was exported.

    Attributes:
        folder: where it lies.
        policy, version: which.
        int8: whether its matrices have 8 bits.
        files: bytes by file.
        agreement: of the int8 model with the float model on the golden batch; None without int8.
        latency: of a decision, stored, in a process that has no rlaas; see :func:`measure_edge`.
    """

    folder: Path
    policy: str
    version: int
    int8: bool
    files: dict[str, int]
    agreement: dict[str, float] | None
    latency: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {
            "folder": str(self.folder),
            "policy": self.policy,
            "version": self.version,
            "int8": self.int8,
            "bytes": sum(self.files.values()),
            "files": self.files,
            "agreement": self.agreement,
            "latency": self.latency,
        }


def export_edge(
    bundle: Path,
    output: Path,
    *,
    policy: str,
    version: int,
    int8: bool = False,
    device: Mapping[str, str] | None = None,
    decisions: int = 2000,
) -> EdgeReport:
    """Write the export and measure it.

    Args:
        bundle: folder of the bundle.
        output: a new folder, or an empty one.
        policy: its name.
        version: of the bundle.
        int8: quantise the matrices.
        device: ``device``, ``key`` and ``url`` of the link (``device.json``); None for a device that never syncs.
        decisions: measured for the latency.

    Raises:
        InvalidInputError: the folder holds something, or the policy cannot be exported (see :func:`edge_files`).
        BundleError: the bundle is damaged or cannot be quantised.
        OperatorError: the export does not run.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InvalidInputError(
            f"--output {output} is there already; allowed: a new or an empty folder (an old export may hold decisions "
            "that were not sent yet)",
            field="output",
        )
    files = edge_files(bundle, policy, version, int8=int8)
    here = Path(__file__).parent
    files |= {name: (here / source).read_bytes() for name, source in _SOURCES.items()}
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_bytes(output / name, content)
    if device is not None:
        link = output / "device.json"
        link.touch(mode=0o600)
        link.write_text(json.dumps(dict(device), indent=1) + "\n")
    sync(output)
    return EdgeReport(
        folder=output,
        policy=policy,
        version=version,
        int8=int8,
        files={name: len(content) for name, content in files.items()},
        agreement=json.loads(files["edge.json"])["agreement"],
        latency=measure_edge(output, decisions=decisions),
    )


def edge_files(bundle: Path, policy: str, version: int, *, int8: bool = False) -> dict[str, bytes]:
    """The files of one version: ``policy.onnx``, ``edge.json``, ``golden.json`` and ``SHA256SUMS`` over them.

    Raises:
        InvalidInputError: the policy has a memory, or its name is not a plain one.
        BundleError: the bundle is damaged or cannot be quantised.
    """
    check_name(policy, field="policy")
    loaded = load_bundle(bundle)
    manifest = loaded.manifest
    if manifest.n_state:
        raise InvalidInputError(
            f"{policy} version {version} remembers from step to step, which the edge runtime does not; "
            "train without ppo.memory to export it",
            field="policy",
        )
    model = (bundle / MODEL).read_bytes()
    model = with_action(quantised(model) if int8 else model, manifest.action)
    inputs = {"observation": np.array(manifest.golden.observations, dtype=np.float32)}
    if manifest.golden.preferences is not None:
        inputs["preference"] = np.array(manifest.golden.preferences, dtype=np.float32)
    head = HEADS[manifest.action.kind]
    exact, _ = loaded.act(inputs["observation"], inputs.get("preference"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = dict(zip((head, "action"), session.run([head, "action"], inputs), strict=True))
    # A float export must repeat what the trainer wrote down; an int8 one is a network of its own. Choices are left to
    # their logits: where two are nearly equal, another processor may take the other.
    wanted = {head: found[head] if int8 else np.array(manifest.golden.outputs[head])}
    if isinstance(manifest.action, BoxAction):
        wanted["action"] = found["action"] if int8 else exact
    elif not int8 and not np.array_equal(found["action"], exact):
        raise BundleError("the exported graph acts otherwise than the bundle", field="action")
    golden = {
        "inputs": {name: rows.tolist() for name, rows in inputs.items()},
        "outputs": {name: rows.tolist() for name, rows in wanted.items()},
    }
    about = _about(loaded, policy, version) | {
        "bundle_sha256": sha256_of(bundle / MANIFEST),
        "int8": int8,
        "tolerance": INT8_TOLERANCE if int8 else GOLDEN_TOLERANCE,
        "agreement": _agreement(manifest, exact, found["action"]) if int8 else None,
    }
    files = {
        "policy.onnx": model,
        "edge.json": (json.dumps(about, indent=1, allow_nan=False) + "\n").encode(),
        "golden.json": json.dumps(golden, allow_nan=False).encode(),
    }
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return {**files, "SHA256SUMS": sums.encode()}


def measure_edge(folder: Path, *, decisions: int = 2000) -> dict[str, float]:
    """Decide in a child process that cannot import rlaas, on a copy of the export.

    Returns:
        ``decisions`` measured, ``median_us`` and ``p99_us`` of one (checked, decided, stored), ``start_ms`` from the
        import of numpy to ready, ``bytes_per_decision`` in the store.

    Raises:
        OperatorError: the runtime refuses the export.
    """
    with tempfile.TemporaryDirectory(prefix="rlaas-edge-") as scratch:
        copy = shutil.copytree(folder, Path(scratch) / "export", ignore=shutil.ignore_patterns("store", "device.json"))
        # Isolated: neither PYTHONPATH nor the current folder counts.
        done = subprocess.run(
            [sys.executable, "-I", "-c", _MEASURE, str(copy), str(decisions)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise OperatorError(f"the export does not run: {last}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _about(loaded: BundlePolicy, policy: str, version: int) -> dict[str, Any]:
    """The part of the manifest that a device needs."""
    manifest = loaded.manifest
    modes: dict[str, dict[str, float]] = {mode: {} for mode in ("", *manifest.modes)}
    if manifest.preference_conditioned:
        modes[""] = Preference.uniform(loaded.objectives).to_dict()
        modes |= {mode: Preference.of(loaded.objectives, weights).to_dict() for mode, weights in manifest.modes.items()}
    return {
        "schema_version": 1,
        "policy": policy,
        "version": version,
        "scenario": manifest.scenario,
        "algorithm": manifest.algorithm,
        "created": manifest.created,
        "n_features": loaded.n_features,
        "features": list(manifest.observation.names),
        "action": manifest.action.model_dump(mode="json"),
        "head": HEADS[manifest.action.kind],
        "preference_conditioned": manifest.preference_conditioned,
        "preferences": modes,
        "outcome_fields": list(loaded.outcome_fields),
        "fields": {kind: list(names) for kind, names in _FIELDS.items()},
        "onnxruntime": onnxruntime.__version__,
    }


def _agreement(manifest: BundleManifest, exact: Any, found: Any) -> dict[str, float]:
    """How far the actions of the int8 model are from those of the float model, over the golden rows."""
    if isinstance(manifest.action, BoxAction):
        span = np.array(manifest.action.high) - np.array(manifest.action.low)
        change = np.abs(found - exact) / np.where(span > 0, span, 1.0)
        return {
            "rows": len(exact),
            "largest_change_of_range": float(change.max()),
            "mean_change_of_range": float(change.mean()),
        }
    same = (found == exact).reshape(len(exact), -1).all(axis=1)
    return {"rows": len(exact), "same_action": float(same.mean())}
