"""Logs of exploring versions in a real lake, with outcomes of which the truth is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rlaas.bundles import BundlePolicy
from rlaas.lake import Lake
from rlaas.lake.joins import update_transitions
from rlaas.lake.records import DecisionRecord, OutcomeRecord
from rlaas.lake.rows import decision_rows, outcome_rows

HOUR_US = 3_600_000_000
Effect = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Mean throughput [n] of observations [n, n_features] and actions [n, ...]."""


def favours(good: BundlePolicy, bad: BundlePolicy | None = None) -> Effect:
    """40 Mbit/s; 30 more where the choice is what ``good`` takes, 30 less where it is what ``bad`` takes instead."""

    def mean(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        rows = observations.astype(np.float32)
        best = good.act(rows, preference_of(good))[0]
        found = 40 + 30.0 * (actions == best)
        if bad is not None:
            found -= 30.0 * ((actions == bad.act(rows, preference_of(bad))[0]) & (actions != best))
        return np.asarray(found)

    return mean


def preference_of(bundle: BundlePolicy) -> np.ndarray:
    return np.full(len(bundle.objectives), 1 / len(bundle.objectives), dtype=np.float32)


def log(
    lake: Lake,
    bundle: BundlePolicy,
    effect: Effect,
    *,
    n: int = 1500,
    seed: int = 0,
    epsilon: float = 0.6,
    explore: bool = True,
    policy: str = "toy",
    age_us: int = HOUR_US,
    **changes: Any,
) -> np.ndarray:
    """Log ``n`` decisions of a version with their outcomes; returns the observations [n, n_features]."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(n, bundle.n_features))
    rows = observations.astype(np.float32)
    actions, propensities = bundle.act(
        rows, preference_of(bundle), rng=rng if explore else None, epsilon=epsilon if explore else 0.0
    )
    throughput = np.clip(effect(observations, actions) + rng.normal(size=n) * 5, 0, 100)
    latency = np.clip(5 + rng.normal(size=n), 0, 10)
    now = time.time_ns() // 1000 - age_us
    uniform = {o.name: 1 / len(bundle.objectives) for o in bundle.objectives}
    decisions, outcomes = [], []
    for index in range(n):
        name = f"{policy}-{seed}-{index}"
        common = {"tenant": "default", "producer": "kit"}
        decisions.append(
            DecisionRecord(
                **{
                    "receipt_id": name,
                    "decision_id": name,
                    "time_us": now + index,
                    "scenario": "toy",
                    "policy": policy,
                    "version": 1,
                    "variant": "champion",
                    "variant_propensity": 1.0,
                    "observation": rows[index].astype(float).tolist(),
                    "action": np.atleast_1d(actions[index]).astype(float).tolist(),
                    "generation": 1,
                    "action_propensity": None if propensities is None else float(propensities[index]),
                    "preference": uniform,
                    **common,
                    **changes,
                }
            )
        )
        outcomes.append(
            OutcomeRecord(
                receipt_id=f"o-{name}",
                outcome_id=f"o-{name}",
                decision_id=name,
                outcome={"throughput": float(throughput[index]), "latency": float(latency[index])},
                time_us=now + index,
                received_us=now + index,
                policy=policy,
                **common,
            )
        )
    part = f"kit-{policy}-{seed}"
    lake.append_once("bronze.decisions", {part: [(1, lambda: decision_rows(decisions))]})
    lake.append_once("bronze.outcomes", {part: [(1, lambda: outcome_rows(outcomes))]})
    update_transitions(lake)
    return observations
