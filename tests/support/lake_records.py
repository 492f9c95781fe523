"""Records for the lake's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlaas.lake.records import DecisionRecord, OutcomeRecord, encode

START_US = 1_700_000_000_000_000


def decision(name: str, **changes: Any) -> DecisionRecord:
    values: dict[str, Any] = {
        "receipt_id": name,
        "decision_id": name,
        "tenant": "default",
        "time_us": START_US,
        "scenario": "network5g",
        "policy": "network5g",
        "version": 3,
        "variant": "champion",
        "variant_propensity": 0.5,
        "observation": [0.25, -1.0],
        "action": [1.0],
        "generation": 1,
        "producer": "gateway",
    }
    return DecisionRecord(**{**values, **changes})


def outcome(receipt: str, of: str, **changes: Any) -> OutcomeRecord:
    values: dict[str, Any] = {
        "receipt_id": receipt,
        "outcome_id": f"outcome-of-{of}",
        "decision_id": of,
        "tenant": "default",
        "outcome": {"latency": 12.5, "energy": 3.0},
        "time_us": START_US,
        "received_us": START_US,
        "producer": "gateway",
    }
    return OutcomeRecord(**{**values, **changes})


def decisions(prefix: str, count: int) -> list[bytes]:
    return [encode(decision(f"{prefix}{index}", time_us=START_US + index)) for index in range(count)]


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{index}" for index in range(count)]


def outcomes(prefix: str, of: Sequence[str]) -> list[bytes]:
    return [encode(outcome(f"{prefix}{index}", name)) for index, name in enumerate(of)]


def segments_below(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.suffix in {".open", ".seg"})


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 60 s"
        time.sleep(0.01)
