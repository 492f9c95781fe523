"""Fitting a policy from logged transitions alone, as the lake keeps them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, TrainingError
from rlaas.objectives import Preference
from rlaas.scenarios import Scenario
from rlaas.training.export import export_bundle
from rlaas.training.offline.config import FitSettings, RewardSettings
from rlaas.training.offline.cql import ConservativeQ
from rlaas.training.offline.iql import ImplicitQ
from rlaas.training.offline.methods import AdvantageWeighted, Cloning, OfflineMethod
from rlaas.training.offline.problem import Problem
from rlaas.training.offline.rewards import RewardReader
from rlaas.training.offline.rows import LoggedRows, read_rows
from rlaas.training.results import TrainingRun, write_checkpoint

__all__ = ["METHODS", "fit_offline"]

METHODS: Mapping[str, type[OfflineMethod]] = {
    "cloning": Cloning,
    "advantage_weighted": AdvantageWeighted,
    "iql": ImplicitQ,
    "cql": ConservativeQ,
}

Progress = Callable[[int, int, dict[str, float]], None]


def fit_offline(
    transitions: pa.Table | Iterable[pa.Table],
    scenario: Scenario,
    *,
    preference: Preference | None,
    output: Path,
    settings: FitSettings | None = None,
    reward: RewardSettings | None = None,
    lineage: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> TrainingRun:
    """Fit a policy from ``silver.transitions``.

    Args:
        transitions: a table, or tables one after another (:meth:`LoggedTable.batches`), with the columns
            ``observation``, ``action`` (lists), ``outcome`` (map of objective or measure to value),
            ``next_observation`` (list or null), ``terminated``, ``truncated``; others are ignored but for
            ``preference`` and ``action_propensity`` where the settings ask for them. Observations are without the
            preference. A discrete action is a list of one number.
        scenario: what was controlled: objectives, spaces, names.
        preference: the trade-off to fit for; the reward of a row is its weighted sum of normalised objectives, and the
            bundle takes no preference. None fits one policy for all preferences.
        output: folder for the bundle (``bundle/``) and the checkpoint (``checkpoint/``), from which a training run can
            go on: :attr:`TrainingConfig.warm_start`.
        settings: method and networks; the defaults of :class:`FitSettings`.
        reward: what outcomes are worth; as logged and normalised.
        lineage: goes into the bundle, for example the lake's table version.
        progress: called after each epoch with epochs done, epochs in all and the epoch's losses.

    Raises:
        InvalidInputError: no rows, a missing column, or a row of the wrong shape or without an objective, named.
        ConfigurationError: a reward that cannot be computed.
        TrainingError: a loss became infinite or NaN.
    """
    settings, reward = settings or FitSettings(), reward or RewardSettings()
    conditioned = preference is None and len(scenario.objectives) > 1
    if preference is None and not conditioned:
        preference = Preference.uniform(scenario.objectives)
    rows = read_rows(
        [transitions] if isinstance(transitions, pa.Table) else transitions,
        scenario,
        RewardReader(scenario, reward, preference),
        preferences=conditioned and settings.method == "cloning",
        largest_inverse=settings.largest_inverse if settings.inverse_propensity else None,
        memory_rows=settings.memory_rows,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            problem = Problem(rows, scenario, settings, conditioned=conditioned)
            method = METHODS[settings.method](problem)
        index = _usable(rows, method)
        curve = _run(rows, index, problem, method, progress)
        logged = {"rows": len(rows), "left_out": len(rows) - len(index), "actions": _actions(rows)}
        metrics = _metrics(rows, index, method, scenario) | {"policy_loss": curve[-1]["policy_loss"]}
    finally:
        rows.close()
    bundle = export_bundle(
        problem.policy,
        scenario,
        output / "bundle",
        algorithm=settings.method,
        lineage={
            "seed": settings.seed,
            "epochs": settings.epochs,
            "preference": None if preference is None else preference.to_dict(),
            "reward": reward.model_dump(mode="json", exclude_defaults=True),
            "settings": settings.model_dump(mode="json", exclude_defaults=True),
            **logged,
            **(lineage or {}),
        },
    )
    # A training run takes over what it finds there: nothing may be left of an earlier fit by another method.
    for stale in (output / "checkpoint").glob("*.safetensors"):
        stale.unlink()
    checkpoint = write_checkpoint(
        output / "checkpoint",
        policy=problem.policy.state_dict(),
        **{name: network.state_dict() for name, network in method.critics().items()},
    )
    (checkpoint / "fit.json").write_text(json.dumps(_description(rows, problem), indent=1) + "\n")
    return TrainingRun(
        bundle=bundle, checkpoint=checkpoint, metrics=metrics, curve=curve, front=None, mlflow_run_id=None
    )


def _usable(rows: LoggedRows, method: OfflineMethod) -> NDArray[np.int64]:
    """Numbers of the rows that a method can learn from."""
    if not method.needs_successors:
        return np.arange(len(rows))
    index = np.flatnonzero(rows.complete)
    if not len(index):
        raise InvalidInputError(
            "no transition has a next_observation or is terminated: values cannot be fitted; use method cloning",
            field="next_observation",
        )
    return index


def _run(
    rows: LoggedRows, index: NDArray[np.int64], problem: Problem, method: OfflineMethod, progress: Progress | None
) -> list[dict[str, float]]:
    """All epochs of all stages; the losses of each."""
    settings, curve = problem.settings, list[dict[str, float]]()
    total = method.stages * settings.epochs
    if isinstance(method, ConservativeQ):
        method.plan(settings.epochs * math.ceil(len(index) / settings.batch_size))
    for epoch in range(total):
        method.weight_sums.zero_()
        sums: dict[str, torch.Tensor] = {}
        order = torch.randperm(len(index), generator=problem.generator).numpy()
        parts = np.split(order, range(settings.batch_size, len(order), settings.batch_size))
        for part in parts:
            losses = method.update(problem.step(rows.take(index[part])), epoch // settings.epochs)
            for name, value in losses.items():
                sums[name] = sums[name] + value if name in sums else value
        means = {name: float(value) / len(parts) for name, value in sums.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise TrainingError(f"{name} became {mean}; lower learning_rate or check the outcomes", field=name)
        curve.append({"step": float(epoch + 1), **means})
        if progress is not None:
            progress(epoch + 1, total, means)
    return curve


def _metrics(rows: LoggedRows, index: NDArray[np.int64], method: OfflineMethod, scenario: Scenario) -> dict[str, float]:
    mean = rows.reward_moments.mean
    names = [""] if len(mean) == 1 else [f"_{o.name}" for o in scenario.objectives]
    total, squares = method.weight_sums.tolist()
    return {
        "transitions": float(len(rows)),
        "left_out": float(len(rows) - len(index)),
        **{f"reward_mean{name}": float(value) for name, value in zip(names, mean, strict=True)},
        # Rows of equal weight that would say as much (Kish 1965).
        **({"effective_rows": total**2 / squares} if squares > 0 else {}),
    }


def _actions(rows: LoggedRows) -> dict[str, Any]:
    """What the log says about which actions were tried."""
    if rows.choices is not None:
        return {"never_taken": np.flatnonzero(rows.choices == 0).tolist()}
    return {"low": rows.action_range[0].tolist(), "high": rows.action_range[1].tolist()}


def _description(rows: LoggedRows, problem: Problem) -> dict[str, Any]:
    """What a training run has to know to go on from the networks beside it."""
    moments = rows.moments.get_state()
    return {
        "schema_version": 1,
        "method": problem.settings.method,
        "activation": problem.activation,
        "gamma": problem.settings.gamma,
        "reward_scale": problem.scales.tolist(),
        "utility_scale": problem.utility_scale,
        "moments": {name: value if isinstance(value, float) else value.tolist() for name, value in moments.items()},
    }
