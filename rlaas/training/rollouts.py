"""What runners hand to learners: packed experience, and the sums that make up the progress report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Rollout", "SampledRewards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What ``steps`` steps of ``rows`` decision makers gave.

    Attributes:
        observation: [steps + 1, rows, n_features]; the last is where the next rollout starts.
        preference: [steps + 1, rows, n_objectives]; the last is in force after the last step.
        action: [steps, rows, n_actions] in [-1, 1], or choices [steps, rows, n_components].
        extras: what the module said of its actions, see its ``explore`` [steps, rows, ...].
        reward: [steps, rows, n_objectives + n_constraints], objectives clipped if so configured.
        terminated, truncated, valid: [steps, rows] bool; only valid steps are experience.
        whole: every step is valid.
        memory: of the module before the first step [rows, memory_width].
        final: what each step led to before any reset [steps, rows, n_features]; None where that is
            ``observation[1:]``, as it is with next-step autoreset.
        rows_per_env: decision makers of one environment, whose rows adjoin.
    """

    observation: Tensor
    preference: Tensor
    action: Tensor
    extras: dict[str, Tensor]
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    whole: bool
    memory: Tensor
    final: Tensor | None
    rows_per_env: int

    @property
    def following(self) -> Tensor:
        """What each step led to [steps, rows, n_features]."""
        return self.observation[1:] if self.final is None else self.final

    def rows(self, value: Tensor) -> Tensor:
        """Values of the valid steps [n, ...] from those of all steps [steps, rows, ...]."""
        return value.flatten(0, 1) if self.whole else value[self.valid]

    def context(self) -> Tensor:
        """Mean observation of each row's environment [steps + 1, rows, n_features]."""
        return _pooled(self.observation, self.rows_per_env)

    def following_context(self) -> Tensor:
        """The same of what each step led to [steps, rows, n_features]."""
        return _pooled(self.following, self.rows_per_env)

    def to(self, device: torch.device) -> Rollout:
        """A copy on ``device``; itself where it is there already."""
        if self.observation.device == device:
            return self
        return self._each(lambda value: value.to(device))

    def arrays(self) -> dict[str, Any]:
        """Fields as numpy arrays, which Ray's object store shares between processes without copying."""
        return self._fields(lambda value: value.numpy())

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any]) -> Rollout:
        """The rollout of :meth:`arrays`."""

        def tensor(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                # Shared memory is read-only, and torch warns of that; nothing here writes into a rollout.
                return torch.from_numpy(value if value.flags.writeable else value.copy())
            return {k: tensor(v) for k, v in value.items()} if isinstance(value, dict) else value

        return cls(**{name: tensor(value) for name, value in arrays.items()})

    @classmethod
    def joined(cls, rollouts: Sequence[Rollout]) -> Rollout:
        """Rollouts of the same length side by side."""
        if len(rollouts) == 1:
            return rollouts[0]

        def join(name: str, dim: int) -> Any:
            values = [getattr(rollout, name) for rollout in rollouts]
            return None if values[0] is None else torch.cat(values, dim=dim)

        apart = ("extras", "memory", "rows_per_env", "whole")
        names = [f.name for f in dataclasses.fields(cls) if f.name not in apart]
        return cls(
            whole=all(rollout.whole for rollout in rollouts),
            **{name: join(name, 1) for name in names},
            extras={k: torch.cat([r.extras[k] for r in rollouts], dim=1) for k in rollouts[0].extras},
            memory=join("memory", 0),
            rows_per_env=rollouts[0].rows_per_env,
        )

    def _each(self, change: Any) -> Rollout:
        return Rollout(**self._fields(change))

    def _fields(self, change: Any) -> dict[str, Any]:
        def changed(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            return {k: change(v) for k, v in value.items()} if isinstance(value, dict) else value

        return {f.name: changed(getattr(self, f.name)) for f in dataclasses.fields(self)}


def _pooled(observation: Tensor, rows_per_env: int) -> Tensor:
    if rows_per_env == 1:
        return observation
    steps, rows, width = observation.shape
    means = observation.view(steps, rows // rows_per_env, rows_per_env, width).mean(dim=2, keepdim=True)
    return means.expand(-1, -1, rows_per_env, -1).reshape(steps, rows, width)


@dataclass
class SampledRewards:
    """Running sums since the last report.

    Attributes:
        rows: decisions.
        scalar: sum of their preference-weighted rewards.
        vector: sums of each objective's rewards [n_objectives].
        returns, lengths: of the episodes that ended.
        parts: summed numerator and denominator of each constraint [n_constraints, 2].
    """

    rows: int
    scalar: float
    vector: NDArray[np.float64]
    returns: list[float]
    lengths: list[float]
    parts: NDArray[np.float64]

    @classmethod
    def none(cls, n_objectives: int, n_constraints: int) -> SampledRewards:
        """Nothing yet."""
        return cls(0, 0.0, np.zeros(n_objectives), [], [], np.zeros((n_constraints, 2)))

    def add(self, other: SampledRewards) -> None:
        """Take in another runner's sums."""
        self.rows += other.rows
        self.scalar += other.scalar
        self.vector += other.vector
        self.returns += other.returns
        self.lengths += other.lengths
        self.parts += other.parts
