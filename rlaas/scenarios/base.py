"""The contract of a scenario: a vector environment, its objectives, modes, baselines and tunables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.objectives import Mode, Objective

__all__ = ["Baseline", "ConstantController", "Controller", "FloatArray", "Scenario", "Tunable", "VectorScenarioEnv"]

FloatArray = NDArray[np.floating[Any]]


class Controller(ABC):
    """Chooses actions from observations: baselines, configurations and policies alike."""

    def reset(self, num_rows: int, seed: int) -> None:
        """Forget the last rollout; ``num_rows`` decision makers follow, in lockstep."""

    @abstractmethod
    def act(self, observation: FloatArray) -> NDArray[Any]:
        """Actions [num_rows, ...] of the scenario's action space for observations [num_rows, n_features]."""

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
    """

    name: str
    parameters: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    integer: tuple[bool, ...]
    make: Callable[[NDArray[np.float64]], Controller]

    def controller(self, values: Sequence[float] | NDArray[np.float64]) -> Controller:
        """The controller at ``values``; integer parameters are rounded.

        Raises:
            InvalidInputError: wrong length, non-finite or out of bounds, naming the parameter.
        """
        x = np.asarray(values, dtype=np.float64)
        if x.shape != (len(self.parameters),):
            raise InvalidInputError(
                f"{self.name} configuration has shape {x.shape}; expected ({len(self.parameters)},)", field=self.name
            )
        for name, value, low, high in zip(self.parameters, x, self.low, self.high, strict=True):
            if not low <= value <= high:
                raise InvalidInputError(f"{self.name}.{name} must be in [{low:g}, {high:g}], got {value:g}", field=name)
        return self.make(np.where(self.integer, np.round(x), x))


class VectorScenarioEnv(gymnasium.vector.VectorEnv):  # type: ignore[type-arg]
    """What ``Scenario.vector_env`` returns: a Gymnasium vector environment in the MO-Gymnasium convention.

    ``step`` returns ``observation [num_envs, n_features]`` float32, ``reward [num_envs, n_objectives]`` float64
    (each objective's step in normalised units, larger is better), ``terminated``, ``truncated`` [num_envs] bool and
    ``infos`` with the additive parts ``numerators`` and ``denominators`` [num_envs, n_parts] float64, from which
    :meth:`Scenario.objective_values` makes objectives. Autoreset mode is NEXT_STEP: in the step after an end the
    action is ignored, the reward and the parts are zero and the observation is the new episode's first.

    One environment may hold several decision makers in lockstep (the cells of a network): then
    ``num_envs == environments * rows_per_env``, rows of one environment adjoining.

    The same seed gives the same bits, whatever the number of environments stepped together; the random stream of an
    environment does not depend on the actions taken (common random numbers).
    """

    reward_space: spaces.Box
    rows_per_env: int

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Everything the next steps depend on, random generators included; arrays are copies."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state` as if nothing had happened in between."""


class Scenario(ABC):
    """A problem: vector environment, objectives, modes, baselines, feature names.

    Attributes:
        name: as users write it.
        algorithm: training algorithm that fits its action space (``sac`` or ``ppo``).
        experiment_design: ``switchback`` where units interfere, ``user`` where users are independent.
        targets: wanted relative change against the default by objective, or an absolute share; see :attr:`targets`.
        reference_hash: sha256 (first 16 hex digits) of the frozen reference behind every result.
    """

    name: ClassVar[str]
    algorithm: ClassVar[str]
    experiment_design: ClassVar[str]

    objectives: tuple[Objective, ...]
    modes: Mapping[str, Mode]
    baselines: Mapping[str, Baseline]
    tunables: Mapping[str, Tunable]
    default_baseline: str
    primary_mode: str
    part_names: tuple[str, ...]
    observation_names: tuple[str, ...]
    single_observation_space: spaces.Box
    single_action_space: spaces.Box | spaces.Discrete
    targets: Mapping[str, Target]
    reference_hash: str
    options: Mapping[str, Any]

    @abstractmethod
    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        """``num_envs`` environments; a sequence gives each its own seed."""

    @abstractmethod
    def objective_values(self, numerators: FloatArray, denominators: FloatArray) -> FloatArray:
        """Objectives [..., n_objectives] from summed parts [..., n_parts]; NaN where a denominator is 0."""

    def guards(self, numerators: FloatArray, denominators: FloatArray) -> Mapping[str, FloatArray]:
        """Guarded quantities [...] by name, each to be at least its guard's share of the default's."""
        return {}

    guard_shares: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A published target of one objective.

    Attributes:
        objective: its name.
        relative: wanted relative change against the default (``-0.30`` for "30 % less"), or None.
        absolute: wanted bound on the value itself, or None. Exactly one is set.
    """

    objective: str
    relative: float | None = None
    absolute: float | None = None

    def describe(self) -> str:
        """``-30 %`` or ``> 0.95``."""
        if self.relative is not None:
            return f"{self.relative * 100:+.0f} %"
        return f"> {self.absolute:g}"
