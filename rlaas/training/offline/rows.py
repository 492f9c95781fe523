"""Logged rows as one matrix of floats: in memory, or spooled to a file and mapped where there are too many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rlaas.errors import InvalidInputError
from rlaas.scenarios import Scenario
from rlaas.training.conditioning import RunningMoments
from rlaas.training.offline.columns import NEEDED, Columns
from rlaas.training.offline.rewards import RewardReader

__all__ = ["Batch", "LoggedRows", "read_rows"]

Float32 = NDArray[np.float32]

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows.

    Attributes:
        observation, following: [n, n_features], raw; where a row has no successor the latter is the former.
        action: of a box, normalised [n, n_actions] in [-1, 1]; or choices [n] int64.
        reward: [n, width], see :class:`~rlaas.training.offline.rewards.RewardReader`.
        bootstraps: 1 where the value of the successor counts [n].
        preference: under which the row was decided [n, n_objectives]; empty where it was not asked for.
        weight: what the row counts in cloning, about 1 [n].
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    bootstraps: Tensor
    preference: Tensor
    weight: Tensor


@dataclass
class LoggedRows:
    """All rows of a fit.

    Attributes:
        matrix: a row each [n, width], float32; a memory-mapped file where there are many.
        complete: rows whose successor is known or that ended for good [n].
        moments: of the observations.
        reward_moments: of the rewards, column by column.
        ended: number of rows that ended for good.
        action_range: smallest and largest logged action, in its own unit [2, n_actions].
        choices: how often each choice was taken [n_choices]; None for a box.
    """

    matrix: Float32
    complete: NDArray[np.bool_]
    moments: RunningMoments
    reward_moments: RunningMoments
    ended: int
    action_range: NDArray[np.float64]
    choices: NDArray[np.int64] | None
    _widths: list[int]
    _discrete: bool
    _spool: Any = field(default=None)

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, index: NDArray[np.int64]) -> Batch:
        """Rows by number [n]."""
        rows = torch.from_numpy(np.ascontiguousarray(self.matrix[index]))
        observation, action, reward, following, bootstraps, preference, weight = torch.split(rows, self._widths, dim=1)
        return Batch(
            observation,
            action.squeeze(1).long() if self._discrete else action,
            reward,
            following,
            bootstraps.squeeze(1),
            preference,
            weight.squeeze(1),
        )

    def close(self) -> None:
        """Give the spool's file back."""
        if self._spool is not None:
            self._spool.close()


def read_rows(
    tables: Iterable[pa.Table],
    scenario: Scenario,
    rewards: RewardReader,
    *,
    preferences: bool = False,
    largest_inverse: float | None = None,
    memory_rows: int = 2_000_000,
) -> LoggedRows:
    """Check tables and turn them into rows.

    Args:
        tables: with the columns ``observation``, ``action`` (lists), ``outcome`` (map), ``next_observation`` (list or
            null), ``terminated``, ``truncated``. A discrete action is a list of one number.
        scenario: what was controlled.
        rewards: what outcomes are worth.
        preferences: keep the preference under which each row was decided.
        largest_inverse: weigh rows by their inverse propensity, relative to its median and bounded by this; None for 1.
        memory_rows: rows held in memory before they are spooled to a file.

    Raises:
        InvalidInputError: no rows, a missing column, or a row of the wrong shape or without an objective, named.
    """
    action = scenario.single_action_space
    discrete = isinstance(action, spaces.Discrete)
    n_features, n_actions = len(scenario.observation_names), 1 if discrete else int(np.prod(action.shape or (1,)))
    m = len(scenario.objectives) if preferences else 0
    widths = [n_features, n_actions, rewards.width, n_features, 1, m, 1]
    store = _Store(sum(widths), memory_rows)
    moments, reward_moments = RunningMoments(n_features), RunningMoments(rewards.width)
    complete: list[NDArray[np.bool_]] = []
    extent = np.array([np.full(n_actions, np.inf), np.full(n_actions, -np.inf)])
    choices = np.zeros(int(action.n), dtype=np.int64) if isinstance(action, spaces.Discrete) else None
    ended = 0
    for columns in _parts(tables):
        observation = columns.matrix("observation", n_features)
        logged = columns.matrix("action", n_actions)
        if largest_inverse is not None and "proposed_action" in columns:
            # Where a shield changed the action, the propensity is still that of what the policy proposed.
            proposed, changed = columns.optional_matrix("proposed_action", n_actions)
            logged = np.where(changed[:, None], proposed, logged)
        successor, known = columns.optional_matrix("next_observation", n_features)
        terminated = columns.flags("terminated")
        reward = rewards.read(columns)
        store.add(
            observation,
            _normalised(columns, logged, action),
            reward,
            np.where(known[:, None], successor, observation),
            (known & ~terminated)[:, None],
            _preferences(columns, scenario) if preferences else np.empty((len(columns), 0)),
            _inverse(columns, discrete)[:, None] if largest_inverse is not None else np.ones((len(columns), 1)),
        )
        moments.update(observation)
        reward_moments.update(reward)
        complete.append(known | terminated)
        ended += int(terminated.sum())
        extent = np.array([np.minimum(extent[0], logged.min(axis=0)), np.maximum(extent[1], logged.max(axis=0))])
        if choices is not None:
            choices += np.bincount(logged[:, 0].astype(np.int64), minlength=len(choices))
    matrix = store.finish()
    if not len(matrix):
        store.close()
        raise InvalidInputError("transitions hold no rows: nothing can be fitted", field="transitions")
    if largest_inverse is not None:
        weight = matrix[:, -1]
        weight /= np.median(weight)
        np.minimum(weight, largest_inverse, out=weight)
    return LoggedRows(
        matrix=matrix,
        complete=np.concatenate(complete),
        moments=moments,
        reward_moments=reward_moments,
        ended=ended,
        action_range=extent,
        choices=choices,
        _widths=widths,
        _discrete=discrete,
        _spool=store,
    )


class _Store:
    """Collects rows; beyond ``memory_rows`` they go to an unnamed file, which is mapped in the end."""

    def __init__(self, width: int, memory_rows: int) -> None:
        self._width, self._memory_rows = width, memory_rows
        self._held: list[Float32] = []
        self._rows = 0
        self._file: Any = None

    def add(self, *columns: NDArray[Any]) -> None:
        """Take in rows, given as matrices side by side."""
        part = np.concatenate(columns, axis=1, dtype=np.float32, casting="unsafe")
        self._rows += len(part)
        self._held.append(part)
        if self._file is None and self._rows > self._memory_rows:
            self._file = tempfile.TemporaryFile(prefix="rlaas-rows-")  # noqa: SIM115  # lives as long as the rows
        if self._file is not None:
            for rows in self._held:
                rows.tofile(self._file)
            self._held = []

    def finish(self) -> Float32:
        """All rows [n, width]."""
        if self._file is None:
            return np.concatenate([np.empty((0, self._width), dtype=np.float32), *self._held])
        self._file.flush()
        return np.memmap(self._file, dtype=np.float32, mode="r+", shape=(self._rows, self._width))

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()


def _parts(tables: Iterable[pa.Table]) -> Iterator[Columns]:
    """Tables in parts of bounded size, their columns checked once each."""
    first = 0
    for table in tables:
        missing = [name for name in NEEDED if name not in table.column_names]
        if missing:
            raise InvalidInputError(
                f"transitions lack the column {missing[0]!r}; needed: {', '.join(NEEDED)}", field=missing[0]
            )
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            part = table.slice(start, ROWS_AT_ONCE)
            yield Columns(part, first)
            first += part.num_rows


def _normalised(rows: Columns, logged: NDArray[np.float64], space: spaces.Space[Any]) -> NDArray[np.float64]:
    """Choices [n, 1], or box actions as shares of their range [n, n_actions] in [-1, 1]."""
    if isinstance(space, spaces.Discrete):
        choice = logged[:, 0]
        outside = (choice != np.floor(choice)) | (choice < 0) | (choice >= int(space.n))
        rows.refuse(
            outside,
            f"transitions {{row}}: action {choice[outside.argmax()]:g} is not a choice from 0 to {int(space.n) - 1}",
            field="action",
        )
        return logged
    assert isinstance(space, spaces.Box)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return np.asarray(np.clip(2.0 * (logged - low) / (high - low) - 1.0, -1.0, 1.0))


def _preferences(rows: Columns, scenario: Scenario) -> NDArray[np.float64]:
    """Logged preferences [n, n_objectives], scaled to sum 1; an objective that is not named weighs 0."""
    names = tuple(o.name for o in scenario.objectives)
    if "preference" not in rows:
        raise InvalidInputError(
            "transitions lack the column 'preference', which cloning for all preferences goes by; "
            "fit for one preference, or use another method",
            field="preference",
        )
    weights = np.nan_to_num(rows.entries("preference", names), nan=0.0)
    total = weights.sum(axis=1)
    rows.refuse(
        ~(total > 0) | (weights < 0).any(axis=1),
        "transitions {row}: preference must weigh an objective, for cloning for all preferences goes by it; "
        "fit for one preference, or use another method",
        field="preference",
    )
    return np.asarray(weights / total[:, None])


def _inverse(rows: Columns, discrete: bool) -> NDArray[np.float64]:
    """The inverse of each row's action propensity [n]."""
    if "action_propensity" not in rows:
        raise InvalidInputError(
            "transitions lack the column 'action_propensity', which inverse_propensity divides by",
            field="action_propensity",
        )
    logged = rows.numbers("action_propensity")
    kind = "a probability above 0" if discrete else "a log-density"
    bad = ~np.isfinite(logged) | ((logged <= 0) | (logged > 1 + 1e-9) if discrete else False)
    rows.refuse(
        bad,
        f"transitions {{row}}: action_propensity must be {kind}, and is null where a deterministic policy decided; "
        "leave those rows out or set inverse_propensity: false",
        field="action_propensity",
    )
    # A density may be tiny at the ends of a box: what the bound cuts off anyway must not overflow first.
    return np.asarray(1.0 / logged if discrete else np.exp(np.clip(-logged, -30.0, 30.0)))
