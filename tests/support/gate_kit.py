"""Logs of exploring versions in a real lake, with outcomes of which the truth is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import policy_bundle

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.control.gating import GateDeclaration
from rlaas.control.service import ControlService
from rlaas.lake import Lake
from rlaas.lake.joins import update_transitions
from rlaas.lake.records import DecisionRecord, OutcomeRecord
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.registry import Registry
from rlaas.settings import Settings, load_settings

HOUR_US = 3_600_000_000
LOGGED = 600
"""Decisions in the lake of :func:`gated_home`."""
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


def gated_home(root: Path) -> Settings:
    """A registry with toy, of which version 2 is better and 3 worse by what version 1 logged; and another policy."""
    settings = load_settings(home=root / "home")
    registry, bundles = Registry(settings), []
    for seed in (1, 2, 3):
        folder = policy_bundle(root / f"v{seed}", seed=seed)
        registry.register("toy", folder)
        bundles.append(load_bundle(folder))
    registry.register("other", policy_bundle(root / "other", seed=4))
    log(Lake(settings.lake_root), bundles[0], favours(bundles[1], bundles[2]), n=LOGGED)
    return settings


def gated_control(home: Settings, root: Path, declared: GateDeclaration) -> ControlService:
    """Control over a home of :func:`gated_home` with a state of its own: version 1 of toy is live, a gate declared."""
    control = ControlService(home.model_copy(update={"state_url": f"sqlite:///{root / 'state.db'}"}))
    control.promote("toy", 1)
    control.gates.declare("toy", declared)
    return control


def reads_of(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of rows of each read of a table from now on."""
    held: list[int] = []
    read = lake.read_open

    def counted(*args: Any, **options: Any) -> Any:
        rows = read(*args, **options)
        held.append(rows.num_rows)
        return rows

    monkeypatch.setattr(lake, "read_open", counted)
    return held


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
