"""What acts in a scenario: controllers, the rules to compare with, and families whose numbers a search may tune."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.checks import numbers

__all__ = ["Baseline", "ConstantController", "Controller", "Tunable"]

FloatArray = NDArray[np.floating[Any]]


class Controller(ABC):
    """Chooses actions from observations: baselines, configurations and policies alike."""

    def reset(self, num_rows: int, seed: int) -> None:
        """Forget the last rollout; ``num_rows`` decision makers follow, in lockstep."""

    @abstractmethod
    def act(self, observation: FloatArray) -> NDArray[Any]:
        """Actions [num_rows, ...] of the scenario's action space for observations [num_rows, n_features]."""

    def begin(self, first: NDArray[np.bool_]) -> None:
        """Forget what came before in rows [num_rows] whose next observation is the first of an episode."""

    def learn(self, observation: FloatArray, action: NDArray[Any], reward: FloatArray) -> None:
        """Take in what the last actions brought: rewards [num_rows, n_objectives]. Most controllers do not learn."""


class ConstantController(Controller):
    """Takes the same action always: a static configuration."""

    def __init__(self, action: NDArray[Any] | int) -> None:
        self.action = np.asarray(action)
        self._tiled = self.action[None]

    def reset(self, num_rows: int, seed: int) -> None:
        """Repeat the action for ``num_rows`` decision makers."""
        self._tiled = np.repeat(self.action[None], num_rows, axis=0)

    def act(self, observation: FloatArray) -> NDArray[Any]:
        """The configured action for every row."""
        return self._tiled


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A named rule to compare with.

    Attributes:
        name: identifier.
        description: one sentence.
        make: builds a fresh controller.
    """

    name: str
    description: str
    make: Callable[[], Controller]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunable:
    """A family of controllers with numeric parameters that a search may tune.

    Attributes:
        name: ``static`` (a configuration held fixed) or ``reactive`` (a rule with thresholds).
        parameters: name of each parameter.
        low, high: inclusive bounds, one per parameter.
        integer: true where a parameter takes whole numbers only.
        make: builds the controller for a parameter vector [n_parameters].
        as_static: by parameter, the parameter of ``static`` whose value makes this family behave like that one, or the
            value that does; empty where none do. A search starts from there, so that what can react is never worse
            than what cannot.
    """

    name: str
    parameters: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    integer: tuple[bool, ...]
    make: Callable[[NDArray[np.float64]], Controller]
    as_static: Mapping[str, str | float] = field(default_factory=dict)

    def from_static(self, static: Mapping[str, float]) -> NDArray[np.float64] | None:
        """Values [n_parameters] that behave like a configuration of ``static``, within bounds; None where none do."""
        if not self.as_static:
            return None
        same = [self.as_static[name] for name in self.parameters]
        values = [static[value] if isinstance(value, str) else value for value in same]
        return np.clip(np.array(values, dtype=np.float64), self.low, self.high)

    def controller(self, values: Sequence[float] | NDArray[np.float64]) -> Controller:
        """The controller at ``values``; integer parameters are rounded.

        Raises:
            InvalidInputError: wrong length, no numbers, non-finite or out of bounds, naming the parameter.
        """
        x = numbers(values, self.name).astype(np.float64)
        if x.shape != (len(self.parameters),):
            raise InvalidInputError(
                f"{self.name} configuration has shape {x.shape}; expected ({len(self.parameters)},)", field=self.name
            )
        for name, value, low, high in zip(self.parameters, x, self.low, self.high, strict=True):
            if not low <= value <= high:
                raise InvalidInputError(f"{self.name}.{name} must be in [{low:g}, {high:g}], got {value:g}", field=name)
        return self.make(np.where(self.integer, np.round(x), x))
