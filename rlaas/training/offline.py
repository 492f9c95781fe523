"""Fitting a policy from logged transitions alone, as the lake keeps them.

``advantage_weighted``: a value function is fitted by temporal differences, then actions are cloned with weights
exp(advantage / deviation), clipped (advantage-weighted regression: Peng et al. 2019, arXiv 1910.00177; critic-
regularised regression: Wang et al. 2020, arXiv 2006.15134). ``cloning``: all weights are one.

The fitted policy serves the one preference it was fitted for, so its bundle takes none.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rlaas.errors import InvalidInputError, TrainingError, check_choice
from rlaas.objectives import Preference, normalise
from rlaas.scenarios import Scenario, outcome_parts
from rlaas.training.conditioning import RunningMoments
from rlaas.training.export import LARGEST_SHARE, export_bundle
from rlaas.training.networks import PolicyNetwork, mlp
from rlaas.training.results import TrainingRun, write_checkpoint

__all__ = ["fit_offline"]

Method = Literal["advantage_weighted", "cloning"]

LARGEST_WEIGHT = 20.0
TARGET_STEP = 0.05
# A logged action at the very end of its range would have an infinite value before the tanh.
LOGGED_LIMIT = min(0.999, LARGEST_SHARE)


@dataclass(frozen=True, slots=True)
class _Rows:
    observation: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    bootstraps: Tensor
    complete: Tensor


def fit_offline(
    transitions: pa.Table,
    scenario: Scenario,
    *,
    preference: Preference,
    output: Path,
    method: Method = "advantage_weighted",
    epochs: int = 30,
    seed: int = 1,
    gamma: float = 0.9,
    hidden: tuple[int, ...] = (64, 64),
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    lineage: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> TrainingRun:
    """Fit a policy from ``silver.transitions``.

    Args:
        transitions: columns ``observation``, ``action`` (lists), ``outcome`` (map of objective to value),
            ``next_observation`` (list or null), ``terminated``, ``truncated``; others are ignored. Observations are
            without the preference. A discrete action is a list of one number.
        scenario: what was controlled: objectives, spaces, names.
        preference: the trade-off to fit for; the reward of a row is its weighted sum of normalised objectives.
        output: folder for the bundle (``bundle/``) and the checkpoint.
        method: ``advantage_weighted`` or ``cloning``.
        epochs: passes over the rows, for the value function and again for the policy.
        seed: of the networks' first weights and the order of the rows; the same seed gives the same bits.
        gamma: discount factor.
        hidden: widths of the hidden layers.
        learning_rate: of Adam, for both networks.
        batch_size: rows per gradient update.
        lineage: goes into the bundle, for example the lake's table version.
        progress: called after each epoch with epochs done, epochs in all and metrics.

    Raises:
        InvalidInputError: no rows, a missing column, or a row of the wrong shape or without an objective, named.
        TrainingError: a loss became infinite or NaN.
    """
    check_choice(method, ("advantage_weighted", "cloning"), field="method", error=InvalidInputError)
    if epochs < 1:
        raise InvalidInputError(f"epochs must be at least 1, got {epochs}", field="epochs")
    rows = _read(transitions, scenario, preference)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = _policy(rows, scenario, hidden)
        critic = mlp(policy.n_features, hidden, 1, "tanh", last_gain=1.0)
    observation = policy.normaliser(rows.observation)
    stages = 1 if method == "cloning" else 2
    curve: list[dict[str, float]] = []

    def report(epoch: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(f"{name} became {value}; lower learning_rate or check the outcomes", field=name)
        curve.append({"step": float(epoch), **losses})
        if progress is not None:
            progress(epoch, stages * epochs, losses)

    weight = torch.ones(len(rows.reward))
    if method == "advantage_weighted":
        following = policy.normaliser(rows.following)
        _fit_values(
            critic,
            rows,
            (observation, following),
            gamma=gamma,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            generator=generator,
            report=report,
        )
        weight = _weights(critic, rows, observation, following, gamma)
    offset = epochs if method == "advantage_weighted" else 0
    optimizer = torch.optim.Adam(policy.body.parameters(), lr=learning_rate, fused=True)
    for epoch in range(epochs):
        total, batches = torch.zeros(()), 0
        for index in torch.split(torch.randperm(len(weight), generator=generator), batch_size):
            heads = policy.heads(observation[index])
            loss = (weight[index] * _surprise(policy, heads, rows.action[index])).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total, batches = total + loss.detach(), batches + 1
        report(offset + epoch + 1, {"policy_loss": float(total) / batches})
    metrics = {
        "transitions": float(len(weight)),
        "reward_mean": float(rows.reward.mean()),
        "effective_rows": float(weight.sum() ** 2 / weight.square().sum()),
        "policy_loss": curve[-1]["policy_loss"],
    }
    bundle = export_bundle(
        policy,
        scenario,
        output / "bundle",
        algorithm=method,
        lineage={
            "seed": seed,
            "epochs": epochs,
            "rows": len(weight),
            "preference": preference.to_dict(),
            **(lineage or {}),
        },
    )
    checkpoint = write_checkpoint(output / "checkpoint", policy=policy.state_dict(), critic=critic.state_dict())
    return TrainingRun(
        bundle=bundle, checkpoint=checkpoint, metrics=metrics, curve=curve, front=None, mlflow_run_id=None
    )


def _policy(rows: _Rows, scenario: Scenario, hidden: tuple[int, ...]) -> PolicyNetwork:
    action = scenario.single_action_space
    discrete = isinstance(action, spaces.Discrete)
    policy = PolicyNetwork(
        rows.observation.shape[1],
        0,
        int(action.n) if isinstance(action, spaces.Discrete) else int(action.shape[0]),
        hidden,
        discrete=discrete,
        activation="tanh",
    )
    moments = RunningMoments(policy.n_features)
    moments.update(rows.observation.numpy())
    policy.normaliser.freeze(moments.mean, moments.deviation())
    return policy


def _fit_values(
    critic: torch.nn.Sequential,
    rows: _Rows,
    seen: tuple[Tensor, Tensor],
    *,
    gamma: float,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    generator: torch.Generator,
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """Fit V by one-step temporal differences against a slowly following copy; ``seen`` is normalised (s, s')."""
    observation, following = seen
    target = copy.deepcopy(critic).requires_grad_(False)
    complete = rows.complete.nonzero().squeeze(1)
    if len(complete) == 0:
        raise InvalidInputError(
            "no transition has a next_observation or is terminated: advantages cannot be fitted; use method cloning",
            field="next_observation",
        )
    with torch.no_grad():
        # Start where a policy without influence would be: the discounted mean reward.
        for network in (critic, target):
            last = network[-1]
            assert isinstance(last, torch.nn.Linear)
            last.bias.add_(rows.reward.mean() / (1.0 - gamma))
    optimizer = torch.optim.Adam(critic.parameters(), lr=learning_rate, fused=True)
    online = list(critic.parameters())
    for epoch in range(epochs):
        total, batches = torch.zeros(()), 0
        for part in torch.split(torch.randperm(len(complete), generator=generator), batch_size):
            index = complete[part]
            with torch.no_grad():
                wanted = rows.reward[index] + gamma * rows.bootstraps[index] * target(following[index]).squeeze(1)
            loss = (critic(observation[index]).squeeze(1) - wanted).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            torch._foreach_lerp_(list(target.parameters()), [p.detach() for p in online], TARGET_STEP)
            total, batches = total + loss.detach(), batches + 1
        report(epoch + 1, {"value_loss": float(total) / batches})


def _weights(critic: torch.nn.Module, rows: _Rows, observation: Tensor, following: Tensor, gamma: float) -> Tensor:
    """exp(advantage / deviation), at most 20 [n]; a row whose successor is unknown has no advantage and weighs 0."""
    with torch.no_grad():
        value = critic(observation).squeeze(1)
        advantage = rows.reward + gamma * rows.bootstraps * critic(following).squeeze(1) - value
        known = advantage[rows.complete]
        deviation = known.std(correction=0).clamp_min(1e-6)
        weight = ((advantage - known.mean()) / deviation).exp().clamp_max(LARGEST_WEIGHT)
        return torch.where(rows.complete, weight, torch.zeros(()))


def _surprise(policy: PolicyNetwork, heads: Mapping[str, Tensor], action: Tensor) -> Tensor:
    """Negative log-likelihood of logged actions [n]; for a box up to the tanh's constant Jacobian."""
    if policy.discrete:
        return functional.cross_entropy(heads["logits"], action, reduction="none")
    noise = (action - heads["mean"]) / heads["log_std"].exp()
    return (0.5 * noise.square() + heads["log_std"] + 0.5 * math.log(2 * math.pi)).sum(dim=1)


def _read(table: pa.Table, scenario: Scenario, preference: Preference) -> _Rows:
    """Check the table and turn it into tensors."""
    needed = ("observation", "action", "outcome", "next_observation", "terminated", "truncated")
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise InvalidInputError(
            f"transitions lack the column {missing[0]!r}; needed: {', '.join(needed)}", field=missing[0]
        )
    if table.num_rows == 0:
        raise InvalidInputError("transitions hold no rows: nothing can be fitted", field="transitions")
    n_features = len(scenario.observation_names)
    action = scenario.single_action_space
    discrete = isinstance(action, spaces.Discrete)
    observation = _matrix(table, "observation", n_features)
    logged = _matrix(table, "action", 1 if discrete else int(action.shape[0] if action.shape else 1))
    weights = Preference.of(scenario.objectives, preference.to_dict()).array()
    reward = _goodness(table, scenario) @ weights
    successor = table.column("next_observation").to_pylist()
    terminated = np.array([bool(value) for value in table.column("terminated").to_pylist()])
    known = np.array([row is not None for row in successor])
    following = observation.copy()
    for i in np.flatnonzero(known).tolist():
        if len(successor[i]) != n_features:
            raise InvalidInputError(
                f"transitions row {i}: next_observation has {len(successor[i])} numbers; expected {n_features}",
                field="next_observation",
            )
        following[i] = successor[i]
    return _Rows(
        observation=torch.from_numpy(observation.astype(np.float32)),
        action=_unsquash(logged, action),
        reward=torch.from_numpy(reward.astype(np.float32)),
        following=torch.from_numpy(following.astype(np.float32)),
        bootstraps=torch.from_numpy((known & ~terminated).astype(np.float32)),
        complete=torch.from_numpy(known | terminated),
    )


def _goodness(table: pa.Table, scenario: Scenario) -> NDArray[np.float64]:
    """Normalised rewards [n, n_objectives]: from the logged parts where outcomes carry them, else from objectives.

    Parts come first because a ratio may be undefined in a single step (orders per click, where nothing was clicked).
    """
    outcomes = [dict(outcome or {}) for outcome in table.column("outcome").to_pylist()]
    if any(name in outcomes[0] for name in scenario.measures):
        return np.asarray(scenario.step_rewards(*outcome_parts(scenario, outcomes)), dtype=np.float64)
    objectives = np.empty((len(outcomes), len(scenario.objectives)))
    for i, outcome in enumerate(outcomes):
        for j, objective in enumerate(scenario.objectives):
            value = outcome.get(objective.name)
            if value is None or not math.isfinite(value):
                raise InvalidInputError(
                    f"row {i}: the outcome lacks a finite {objective.name!r}", field=f"outcome.{objective.name}"
                )
            objectives[i, j] = value
    return normalise(scenario.objectives, objectives)


def _matrix(table: pa.Table, column: str, width: int) -> NDArray[np.float64]:
    rows = table.column(column).to_pylist()
    for i, row in enumerate(rows):
        if row is None or len(row) != width or not all(v is not None and math.isfinite(v) for v in row):
            raise InvalidInputError(f"transitions row {i}: {column} must be {width} finite numbers", field=column)
    return np.array(rows, dtype=np.float64)


def _unsquash(logged: NDArray[np.float64], space: spaces.Space[Any]) -> Tensor:
    """Choices [n] int64, or box actions before the tanh [n, n_actions]."""
    if isinstance(space, spaces.Discrete):
        choice = logged[:, 0]
        outside = (choice != np.floor(choice)) | (choice < 0) | (choice >= int(space.n))
        if outside.any():
            row = int(outside.argmax())
            raise InvalidInputError(
                f"transitions row {row}: action {choice[row]:g} is not a choice from 0 to {int(space.n) - 1}",
                field="action",
            )
        return torch.from_numpy(choice.astype(np.int64))
    assert isinstance(space, spaces.Box)
    share = 2.0 * (logged - space.low) / (space.high - space.low) - 1.0
    return torch.from_numpy(np.arctanh(np.clip(share, -LOGGED_LIMIT, LOGGED_LIMIT)).astype(np.float32))
