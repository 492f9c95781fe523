"""Real Delta tables of the toy's decisions and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rlaas.lake import DecisionRecord, Lake, OutcomeRecord, update_transitions
from rlaas.lake.rows import decision_rows, outcome_rows

DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
PARTS = {"cost_num": 1.0, "cost_den": 1.0, "quality_num": 5.0, "quality_den": 1.0}

Change = Callable[[int], dict[str, Any]]


def log_traffic(
    lake: Lake,
    scenario: str,
    rows: int,
    *,
    first: int = 0,
    decided: Change = lambda i: {},
    observed: Change = lambda i: {},
    without_outcome: Iterable[int] = (),
) -> None:
    """Decisions ``first`` to ``first + rows`` of one session, ten a day, with their outcomes; then the join."""
    numbers = range(first, first + rows)
    decisions = [
        DecisionRecord(
            **{
                "receipt_id": f"{scenario}-{i}",
                "decision_id": f"{scenario}-{i}",
                "tenant": "default",
                "time_us": START_US + i * DAY_US // 10,
                "scenario": scenario,
                "policy": scenario,
                "version": 1 + i // 10,
                "variant": "champion",
                "variant_propensity": 1.0,
                "session": f"{scenario}-session",
                "step": i,
                "observation": [0.5, 1.0],
                "action": [0.25],
                "generation": 1,
                "producer": "gateway",
                **decided(i),
            }
        )
        for i in numbers
    ]
    outcomes = [
        OutcomeRecord(
            **{
                "receipt_id": f"{scenario}-outcome-{i}",
                "outcome_id": f"{scenario}-outcome-{i}",
                "decision_id": f"{scenario}-{i}",
                "tenant": "default",
                "outcome": PARTS,
                "time_us": START_US + i * DAY_US // 10,
                "received_us": START_US + i * DAY_US // 10,
                "producer": "gateway",
                **observed(i),
            }
        )
        for i in numbers
        if i not in set(without_outcome)
    ]
    lake.append_once("bronze.decisions", {f"{scenario}-d{first}": [(1, lambda: decision_rows(decisions))]})
    lake.append_once("bronze.outcomes", {f"{scenario}-o{first}": [(1, lambda: outcome_rows(outcomes))]})
    update_transitions(lake)
