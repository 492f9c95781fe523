"""The replay buffer: one preallocated matrix, written as a ring, read by one gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ReplayBuffer", "Transitions"]


@dataclass(frozen=True, slots=True)
class Transitions:
    """Rows of experience; the leading dimension is common.

    Attributes:
        observation, next_observation: [n, n_features], as the environment gave them.
        action: [n, n_actions] in the normalised box [-1, 1], or the number of a choice [n, 1].
        reward: [n, n_rewards], a column per objective and constraint: preferences are applied when it is read.
        preference: [n, n_objectives] under which the action was taken.
        terminated: [n, 1], 1 where the episode ended for good (a truncated one still bootstraps).
        context, next_context: mean observation of the environment's decision makers [n, n_features], or [n, 0].
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    preference: Tensor
    terminated: Tensor
    next_observation: Tensor
    context: Tensor
    next_context: Tensor

    def joined(self) -> Tensor:
        """All fields side by side [n, width]."""
        return torch.cat(
            (
                self.observation,
                self.action,
                self.reward,
                self.preference,
                self.terminated,
                self.next_observation,
                self.context,
                self.next_context,
            ),
            dim=1,
        )


class ReplayBuffer:
    """A ring of the last ``capacity`` transitions.

    One row holds a whole transition, so that a batch is a single ``index_select`` instead of one for each field.

    Attributes:
        total: rows ever added; row k stands at ``k % capacity``.

    Args:
        capacity: transitions kept.
        widths: columns of each field of :class:`Transitions`, in their order.
        device: where the rows lie.
    """

    def __init__(self, capacity: int, widths: Sequence[int], *, device: str = "cpu") -> None:
        self.capacity = capacity
        self._widths = list(widths)
        self._rows = torch.zeros(capacity, sum(self._widths), device=device)
        self.total = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, new: Transitions) -> None:
        """Store rows, over the oldest ones when full."""
        self._write(new.joined())

    def _write(self, rows: Tensor) -> None:
        # Of more rows than fit the last ones are kept, where they belong.
        self.total += max(0, len(rows) - self.capacity)
        rows = rows[-self.capacity :]
        position = self.total % self.capacity
        first = min(len(rows), self.capacity - position)
        self._rows[position : position + first] = rows[:first]
        self._rows[: len(rows) - first] = rows[first:]
        self.total += len(rows)
        self._size = min(self._size + len(rows), self.capacity)

    def sample(self, n: int, generator: torch.Generator) -> Transitions:
        """``n`` rows drawn uniformly with replacement."""
        return Transitions(*torch.split(self.rows(n, generator), self._widths, dim=1))

    def rows(self, n: int, generator: torch.Generator) -> Tensor:
        """The same, with the fields side by side [n, width]."""
        index = torch.randint(self._size, (n,), generator=generator, device=generator.device)
        return self._rows.index_select(0, index)

    def stored(self) -> Transitions:
        """All rows, in storage order (views)."""
        return Transitions(*torch.split(self._rows[: self._size], self._widths, dim=1))

    def rows_since(self, total: int) -> NDArray[np.float32]:
        """Rows added since there were ``total`` of them, oldest first [n, width]; those still kept, as a copy."""
        first = max(total, self.total - self._size)
        index = torch.arange(first, self.total, device=self._rows.device) % self.capacity
        return np.asarray(self._rows.index_select(0, index).cpu().numpy())

    def continue_from(self, rows: NDArray[np.float32], total: int) -> None:
        """Hold ``rows`` [n, width], oldest first, as the last of ``total`` that were added."""
        self.total, self._size = total - len(rows), 0
        self._write(torch.from_numpy(rows).to(self._rows.device))

    def get_state(self) -> dict[str, Any]:
        """The filled part, as a copy."""
        return {"rows": self.rows_since(0), "total": self.total}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state` of a buffer of the same shape."""
        self.continue_from(state["rows"], int(state["total"]))
