"""A policy at the edge: size, start and latency of the exported runtime, and what its end of the link takes.

    python -m benchmarks.edge [--quick] [--json]

A 64x64 network on 32 features, conditioned on two objectives. Rivals: the platform's own engine in this process with
its write-ahead log (the same decision without HTTP), and onnxruntime alone on the same graph. The runtime is measured
in a process that cannot import rlaas; each decision is checked, computed and stored.
"""

from __future__ import annotations

import hmac
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, SECRET, deployment, make_bench

from benchmarks.harness import Row, parse_arguments, report
from rlaas.lake import Committer, Lake, WriteAheadLog
from rlaas.serving.decision_ids import uuid7_hex
from rlaas.serving.edge import EdgeSync, Receipts, device_key, export_edge

_ALONE = """
import json, sys, time
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1] + "/policy.onnx", options, ["CPUExecutionProvider"])
golden = json.load(open(sys.argv[1] + "/golden.json"))["inputs"]
feed = {name: np.float32(rows[:1]) for name, rows in golden.items()}
spent = []
for _ in range(int(sys.argv[2])):
    started = time.perf_counter_ns()
    session.run(["action"], feed)
    spent.append(time.perf_counter_ns() - started)
print(sorted(spent)[len(spent) // 2] / 1000)
"""


def engine_latency(root: Path, bundle: Path, count: int) -> tuple[float, float]:
    """Median and 99 % of a decision of the platform's engine, in microseconds."""
    bench = make_bench(root, {("toy", 1): bundle}, deployment("toy", [{"name": "champion", "version": 1, "weight": 1}]))
    body = json.dumps({"observation": [0.1] * 32}).encode()
    spent = []
    for _ in range(count):
        started = time.perf_counter_ns()
        bench.engine.decide(PRINCIPAL, "toy", body)
        spent.append((time.perf_counter_ns() - started) / 1000)
    spent.sort()
    return statistics.median(spent), spent[int(len(spent) * 0.99)]


def sync_rate(root: Path, bundle: Path, batches: int, *, again: bool) -> float:
    """Records a second that the platform takes from one device, fresh ones or the same ones again from the lake."""
    decisions = WriteAheadLog(root / "wal", "decisions", "edge")
    outcomes = WriteAheadLog(root / "wal", "outcomes", "edge")
    sync = EdgeSync(
        secret=SECRET,
        decisions=decisions,
        outcomes=outcomes,
        receipts=Receipts(root / "wal", lambda: Lake(root / "lake"), "default"),
        locks=root / "locks",
        bundle=lambda _policy, _version: bundle,
    )
    state = make_bench(
        root / "state", {("toy", 1): bundle}, deployment("toy", [{"name": "champion", "version": 1, "weight": 1}])
    ).engine.state
    key = bytes.fromhex(device_key(SECRET, "till7", tenant="default"))

    def send(records: list[dict[str, Any]]) -> float:
        message = {"device": "till7", "nonce": "", "version": 1, "int8": False, "records": records}
        body = json.dumps(message).encode()
        signature = hmac.new(key, b"toy\0" + body, "sha256").hexdigest()
        started = time.perf_counter()
        answer = json.loads(sync.sync(PRINCIPAL, "toy", signature, body, state).body)
        assert len(answer["accepted"]) == len(records)
        return time.perf_counter() - started

    now = time.time_ns() // 1000
    made = [
        [
            {
                "kind": "decision",
                "id": f"{uuid7_hex()}-1",
                "time_us": now,
                "version": 1,
                "observation": [0.1] * 32,
                "action": 1,
            }
            for _ in range(500)
        ]
        for _ in range(batches)
    ]
    spent = sum(map(send, made))
    if again:
        decisions.seal()
        Committer(Lake(root / "lake"), root / "wal").run_once()
        spent = sum(map(send, made))
    decisions.close()
    outcomes.close()
    return 500 * batches / spent


def main() -> None:
    arguments = parse_arguments("edge")
    count, batches = (300, 2) if arguments.quick else (20_000, 20)
    rows: list[Row] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rlaas-bench-") as scratch:
        root = Path(scratch)
        bundle = policy_bundle(root / "bundle", features=32, hidden=64, actions=8)
        whole = sum(path.stat().st_size for path in bundle.iterdir())
        median, late = engine_latency(root, bundle, count)
        for int8 in (False, True):
            name = "int8" if int8 else "float32"
            made = export_edge(bundle, root / name, policy="toy", version=1, int8=int8, decisions=count)
            alone = subprocess.run(
                [sys.executable, "-I", "-c", _ALONE, str(root / name), str(count)],
                capture_output=True,
                text=True,
                check=True,
            )
            latency = made.latency
            rows += [
                Row(f"folder, {name}", "bytes", sum(made.files.values()), "the bundle", whole, better="lower"),
                Row(
                    f"decision, stored, {name}: median",
                    "us",
                    latency["median_us"],
                    "the engine with its log",
                    median,
                    better="lower",
                ),
                Row(
                    f"decision, stored, {name}: 99 %",
                    "us",
                    latency["p99_us"],
                    "the engine with its log",
                    late,
                    better="lower",
                ),
                Row(
                    f"decision, stored, {name}: median",
                    "us",
                    latency["median_us"],
                    "onnxruntime alone, same graph",
                    float(alone.stdout),
                    better="lower",
                ),
                Row(f"start, {name}", "ms", latency["start_ms"]),
            ]
            if made.agreement is not None:
                notes.append(f"int8 and float on the golden batch: {made.agreement}")
        rows += [
            Row("sync, fresh records", "records/s", sync_rate(root / "fresh", bundle, batches, again=False)),
            Row("sync, all in the lake already", "records/s", sync_rate(root / "again", bundle, batches, again=True)),
        ]
    report("edge", rows, arguments.json, notes)


if __name__ == "__main__":
    main()
