"""The replay buffer: one preallocated matrix, written as a ring, read by one gather."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["ReplayBuffer", "Transitions"]


@dataclass(frozen=True, slots=True)
class Transitions:
    """Rows of experience; the leading dimension is common.

    Attributes:
        observation, next_observation: [n, n_features], as the environment gave them.
        action: [n, n_actions] in the normalised box [-1, 1].
        reward: [n, n_objectives], one column per objective: preferences are applied when it is read.
        preference: [n, n_objectives] under which the action was taken.
        terminated: [n, 1], 1 where the episode ended for good (a truncated one still bootstraps).
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    preference: Tensor
    terminated: Tensor
    next_observation: Tensor


class ReplayBuffer:
    """A ring of the last ``capacity`` transitions.

    One row holds a whole transition, so that a batch is a single ``index_select`` instead of six.
    """

    def __init__(self, capacity: int, n_features: int, n_actions: int, n_objectives: int) -> None:
        self.capacity = capacity
        self._widths = [n_features, n_actions, n_objectives, n_objectives, 1, n_features]
        self._rows = torch.zeros(capacity, sum(self._widths))
        self._next = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, new: Transitions) -> None:
        """Store rows, over the oldest ones when full."""
        rows = torch.cat(
            (new.observation, new.action, new.reward, new.preference, new.terminated, new.next_observation), dim=1
        )[-self.capacity :]
        first = min(len(rows), self.capacity - self._next)
        self._rows[self._next : self._next + first] = rows[:first]
        self._rows[: len(rows) - first] = rows[first:]
        self._next = (self._next + len(rows)) % self.capacity
        self._size = min(self._size + len(rows), self.capacity)

    def sample(self, n: int, generator: torch.Generator) -> Transitions:
        """``n`` rows drawn uniformly with replacement."""
        index = torch.randint(self._size, (n,), generator=generator)
        return Transitions(*torch.split(self._rows.index_select(0, index), self._widths, dim=1))

    def stored(self) -> Transitions:
        """All rows, in storage order (views)."""
        return Transitions(*torch.split(self._rows[: self._size], self._widths, dim=1))

    def get_state(self) -> dict[str, Any]:
        """The filled part, as a copy."""
        return {"rows": self._rows[: self._size].numpy().copy(), "next": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state` of a buffer of the same shape."""
        rows = torch.from_numpy(state["rows"])
        self._size = len(rows)
        self._rows[: self._size] = rows
        self._next = int(state["next"])
