"""The contract of a scenario: a vector environment, its objectives, modes, baselines and tunables."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Mode, Objective, normalise
from rlaas.scenarios.apart import arrays_apart, set_apart
from rlaas.scenarios.checks import check_num_envs, seed_list
from rlaas.scenarios.choices import Choices
from rlaas.scenarios.controllers import Baseline, Tunable
from rlaas.scenarios.reports import Report, Section
from rlaas.scenarios.tensors import TensorEnv

__all__ = [
    "EvaluationProtocol",
    "FloatArray",
    "LoggedPair",
    "Scenario",
    "VectorScenarioEnv",
    "seed_list",
]

FloatArray = NDArray[np.floating[Any]]

_CHOICES = {"baselines": "baseline", "modes": "mode", "tunables": "tunable"}
"""What one of a scenario's mappings is called."""


class VectorScenarioEnv(gymnasium.vector.VectorEnv):  # type: ignore[type-arg]
    """What ``Scenario.vector_env`` returns: a Gymnasium vector environment in the MO-Gymnasium convention.

    ``step`` returns ``observation [num_envs, n_features]`` float32, ``reward [num_envs, n_objectives]`` float64
    (each objective's step in normalised units, larger is better), ``terminated``, ``truncated`` [num_envs] bool and
    ``infos`` with the additive parts ``numerators`` and ``denominators`` [num_envs, n_parts] float64, from which
    :meth:`Scenario.objective_values` makes objectives. Autoreset mode is NEXT_STEP: in the step after an end the
    action is ignored, the reward and the parts are zero and the observation is the new episode's first. Where users
    return in later episodes, ``infos["user"]`` [num_envs] identifies the one behind the observation just returned: the
    unit that an experiment has to keep in one variant.

    One environment may hold several decision makers in lockstep (the cells of a network): then
    ``num_envs == environments * rows_per_env``, rows of one environment adjoining.

    The same seed gives the same bits, whatever the number of environments stepped together; the random stream of an
    environment does not depend on the actions taken (common random numbers).

    A deep copy or an unpickled one continues with the same bits, and keeps its arrays as far from each other as the
    original does: see :func:`~rlaas.scenarios.apart.separate`.
    """

    reward_space: spaces.Box
    rows_per_env: int

    _FIXED: ClassVar[frozenset[str]] = frozenset(
        {
            "metadata",
            "num_envs",
            "rows_per_env",
            "scenario",
            "single_observation_space",
            "single_action_space",
            "observation_space",
            "action_space",
            "reward_space",
        }
    )

    def __init__(self, scenario: Scenario, environments: int, rows_per_env: int = 1) -> None:
        environments = check_num_envs(environments)
        self.scenario = scenario
        self.rows_per_env = rows_per_env
        self.num_envs = environments * rows_per_env
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
        self.single_observation_space = scenario.single_observation_space
        self.single_action_space = scenario.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.reward_space = spaces.Box(-np.inf, np.inf, (len(scenario.objectives),), np.float64)

    @abstractmethod
    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start every environment anew; a sequence of seeds gives each environment its own."""

    def get_state(self) -> dict[str, Any]:
        """Everything the next steps depend on, random generators included; arrays are copies."""
        return copy.deepcopy({name: value for name, value in vars(self).items() if name not in self._FIXED})

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state` as if nothing had happened in between."""
        vars(self).update(copy.deepcopy(dict(state)))

    def __getstate__(self) -> Any:
        # What copy.deepcopy and pickle go by. An array does not tell its copy where it lay, so they are listed beside.
        return vars(self), arrays_apart(self)

    def __setstate__(self, state: Any) -> None:
        attributes, arrays = state
        vars(self).update(attributes)
        set_apart(self, arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationProtocol:
    """How much is simulated for one evaluation.

    Attributes:
        name: ``short`` or ``full``; stands beside every figure made with it.
        seeds: number of evaluation seeds.
        warmup: steps run first and not counted.
        steps: counted steps.
        replicas: environments per seed, pooled.
    """

    name: str
    seeds: int
    warmup: int
    steps: int
    replicas: int = 1

    def describe(self) -> str:
        """One line for a table's caption."""
        pooled = f" x {self.replicas} environments" if self.replicas > 1 else ""
        return f"{self.name} protocol: {self.seeds} seeds{pooled}, {self.warmup} warm-up + {self.steps} counted steps"


class Scenario(ABC):
    """A problem: vector environment, objectives, modes, baselines, feature names.

    Attributes:
        name: as users write it.
        algorithm: training algorithm that fits its action space (``sac`` or ``ppo``).
        experiment_design: ``switchback`` where units interfere, ``user`` where users are independent.
        targets: wanted relative change against the default by objective, or an absolute share; see :attr:`targets`.
        reference_hash: sha256 (first 16 hex digits) of the frozen reference behind every result.
        regime: name of the part of the reference that it is in, for example ``small/low``; empty where there is one.
        masked_actions: whether the last features of an observation, one for each choice, are 1 where it is allowed and
            0 where it is not.
        env_class: what :meth:`vector_env` builds, where a scenario does not override that method.
        tunables: families of controllers a search may tune. The loop compares policies with the family ``static``,
            whose controllers are :class:`ConstantController`.
        protocols: how it is evaluated: ``full`` for quoted figures, ``short`` for a demonstration.
        training_defaults: fields of the training configuration that suit it, where they differ from the algorithm's.
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
    single_action_space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete  # type: ignore[type-arg]
    masked_actions: bool = False
    targets: Mapping[str, Target] = {}
    reference_hash: str = ""
    regime: str = ""
    options: Mapping[str, Any] = {}
    env_class: ClassVar[type[VectorScenarioEnv]]
    protocols: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "short": EvaluationProtocol(name="short", seeds=8, warmup=20, steps=100),
        "full": EvaluationProtocol(name="full", seeds=30, warmup=100, steps=600),
    }
    training_defaults: ClassVar[Mapping[str, Any]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Whichever dictionary a scenario has these in: whoever asks for a name that is not there learns which are.
        if name in _CHOICES and type(value) is dict:
            value = Choices(_CHOICES[name], value)
        super().__setattr__(name, value)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names under which outcomes carry the parts: ``<part>_num`` and ``<part>_den``, part by part."""
        return tuple(f"{part}_{end}" for part in self.part_names for end in ("num", "den"))

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        """``num_envs`` environments of ``env_class``, to be reset first; a sequence gives each its own seed.

        Raises:
            InvalidInputError: an impossible number of environments, or seeds that are none.
        """
        check_num_envs(num_envs)
        # Before the class sees it, which may hand it to anything.
        seed_list(seed, num_envs)
        env = self.env_class(self, num_envs)
        env.reset(seed=seed)
        return env

    def tensor_env(self, num_envs: int, *, device: str, seed: int | Sequence[int] = 0) -> TensorEnv:
        """``num_envs`` environments as torch tensors on ``device``, for training that never leaves it.

        Raises:
            ConfigurationError: the scenario has none, or none with these options.
            InvalidInputError: as of :meth:`vector_env`.
        """
        raise ConfigurationError(
            f"device: {self.name} has no environments of tensors; leave device out", field="device"
        )

    def objective_values(self, numerators: FloatArray, denominators: FloatArray) -> FloatArray:
        """Objectives [..., n_objectives] from summed parts [..., n_parts]; NaN where a denominator is 0.

        As it stands, for scenarios with one part per objective: the ratio of its sums.
        """
        top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
        return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0))

    def step_rewards(self, numerators: FloatArray, denominators: FloatArray) -> FloatArray:
        """Rewards [n, n_objectives] of single decisions from their own parts [n, n_parts], as logs hold them.

        Normalised, larger is better. As it stands an objective that is undefined in a step counts as the middle of
        its range; a scenario whose environment rewards differently says so by overriding this.
        """
        goodness = normalise(self.objectives, self.objective_values(numerators, denominators))
        return np.where(np.isfinite(goodness), goodness, 0.5)

    def guards(self, numerators: FloatArray, denominators: FloatArray) -> Mapping[str, FloatArray]:
        """Guarded quantities [...] by name, each to be at least its guard's share of the default's."""
        return {}

    guard_shares: Mapping[str, float] = {}

    def calibration(self, data_dir: Path | None = None, *, quick: bool = False) -> Report:
        """How the simulator compares with measurements that it was not fitted to.

        Args:
            data_dir: folder of the measurements; None for the configured one.
            quick: simulate less, for a first look.

        Raises:
            InvalidInputError: nothing has been measured for this scenario.
            ConfigurationError: the measurements are not where they should be.
        """
        raise InvalidInputError(f"{self.name} has no measurements to compare with", field="scenario")

    def capabilities(self, *, quick: bool = False) -> Sequence[Section]:
        """Figures that people of the trade ask about, each in the configuration that it belongs to; none by default.

        Args:
            quick: simulate less, for a first look.
        """
        return ()

    def logs(self, data_dir: Path | None = None) -> Sequence[LoggedPair]:
        """Logs of real choices with their propensities, for off-policy evaluation; none by default.

        Args:
            data_dir: folder of the measurements; None for the configured one.

        Raises:
            ConfigurationError: the logs are not where they should be.
        """
        return ()

    def picture(self, env: VectorScenarioEnv, environment: int = 0) -> NDArray[np.uint8]:
        """What one environment looks like now, as an image [height, width, 3].

        Raises:
            InvalidInputError: the scenario draws no pictures.
        """
        raise InvalidInputError(f"{self.name} draws no pictures", field="scenario")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedPair:
    """Logs of two policies that ran side by side, so that each one's value is known.

    Attributes:
        behaviour: log that an estimator sees, one row per choice: ``item``, ``position``, ``click``, ``propensity``
            [n], ``features`` [n, n_features], ``n_items``, ``n_positions``, ``policy`` and ``campaign``.
        evaluation: log of the policy that is asked about.
        distribution: of the latter [n_positions, n_items]; rows sum to 1.
    """

    behaviour: Any
    evaluation: Any
    distribution: NDArray[np.float64]


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
