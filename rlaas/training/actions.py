"""What can be acted with: numbers in a box, or one choice of several in each of one or more components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from rlaas.errors import InvalidInputError

__all__ = ["ActionSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """An action space as networks see it.

    Attributes:
        sizes: number of choices of each component; empty for a box.
        n: numbers of a box, or logits of all components together.
        shape: of one action, as the environment takes it.
    """

    sizes: tuple[int, ...]
    n: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, space: spaces.Space[Any]) -> ActionSpec:
        """The specification of a Gymnasium space.

        Raises:
            InvalidInputError: a space that nothing here can act in.
        """
        if isinstance(space, spaces.Discrete):
            return cls(sizes=(int(space.n),), n=int(space.n), shape=())
        if isinstance(space, spaces.MultiDiscrete):
            sizes = tuple(int(n) for n in np.asarray(space.nvec).reshape(-1))
            return cls(sizes=sizes, n=sum(sizes), shape=tuple(space.shape))
        if isinstance(space, spaces.Box) and space.is_bounded() and len(space.shape) == 1:
            return cls(sizes=(), n=int(space.shape[0]), shape=space.shape)
        raise InvalidInputError(
            f"actions must be Discrete, MultiDiscrete or a flat, bounded Box, not {space}", field="action_space"
        )
