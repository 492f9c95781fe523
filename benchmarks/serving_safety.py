"""What a shield and constraints cost a decision, beside the same decision without them: CPU time of the engine alone.

    python -m benchmarks.serving_safety [--quick] [--json]

32 features, a 64-wide policy over a box of 2, the decision logged to a write-ahead log; a front of 100 candidates. CPU
time of the thread, so that neighbours on the machine weigh little; the rounds of all cases are interleaved and the
median of each case's rounds counts.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Row, parse_arguments, report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, deployment, make_bench

from rlaas.serving.served_front import ServedCandidate, ServedFront, encode_front, front_key

OBSERVATION = [0.1] * 32
BOUNDS = {"bounds": {"low": [0.0, None]}}
FULL = {
    **BOUNDS,
    "max_change": [0.5, 0.5],
    "rules": [
        {"name": f"r{i}", "when": f"x{i} > {i + 1} and x1 < 3", "bounds": {"high": [0.9, None]}} for i in range(5)
    ],
}


def main() -> None:
    """Measure and report."""
    arguments = parse_arguments("serving_safety")
    rounds, number = (5, 100) if arguments.quick else (31, 400)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = {("box", 1): policy_bundle(root / "b", kind="box", features=32, hidden=64, actions=2)}
        paths[front_key("box", 1)] = _front(root / "front.json")
        cases = {
            "plain": _case(root / "plain", paths, None, {}),
            "shield: bounds": _case(root / "bounds", paths, BOUNDS, {}),
            "shield: bounds, max_change, 5 rules": _case(root / "full", paths, FULL, {"session": "s"}),
            "constraints": _case(root / "constraints", paths, None, {"constraints": {"latency": {"max": 5}}}),
        }
        spent: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, decide in cases.items():
                started = time.thread_time()
                for _ in range(number):
                    decide()
                spent[name].append((time.thread_time() - started) / number * 1e6)
    plain = statistics.median(spent.pop("plain"))
    rows = [
        Row(f"decide with {name}", "us", statistics.median(times), "plain decide", plain, better="lower")
        for name, times in spent.items()
    ]
    report("serving_safety", rows, arguments.json)


def _front(path: Path) -> Path:
    points = np.random.default_rng(0).uniform(0, 10, (100, 2))
    candidates = tuple(
        ServedCandidate(name=f"c{i}", mean=(a, b), half_width=(0.1, 0.1), preference={"latency": 1.0})
        for i, (a, b) in enumerate(points.tolist())
    )
    front = ServedFront(version="v", objectives=("latency", "throughput"), candidates=candidates)
    path.write_bytes(encode_front(front))
    return path


def _case(
    root: Path, paths: dict[tuple[str, int], Path], shield: dict[str, Any] | None, more: dict[str, Any]
) -> Callable[[], bytes]:
    one = [{"name": "champion", "version": 1, "weight": 1}]
    bench = make_bench(root, paths, deployment("box", one, shield=shield))
    body = json.dumps({"observation": OBSERVATION, **more}).encode()
    for _ in range(100):
        bench.engine.decide(PRINCIPAL, "box", body)
    return lambda: bench.engine.decide(PRINCIPAL, "box", body)


if __name__ == "__main__":
    main()
