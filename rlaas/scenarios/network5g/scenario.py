"""network5g as a scenario: options, objectives, modes, targets and guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice
from rlaas.objectives import Mode, Preference, Rule
from rlaas.scenarios.base import EvaluationProtocol, Scenario, Target, seed_list
from rlaas.scenarios.network5g.baselines import DEFAULT, make_baselines, make_tunables
from rlaas.scenarios.network5g.control import action_space
from rlaas.scenarios.network5g.env import VectorNetwork5G
from rlaas.scenarios.network5g.layout import SIZES, USERS, layout
from rlaas.scenarios.network5g.objectives import PART_NAMES, SERVED, make_objectives, objective_values, step_rewards
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES, observation_space
from rlaas.scenarios.network5g.reference import LOADS, Reference, reference

__all__ = ["Network5G"]

CONTROLS = ("cell",)
MODES: dict[str, tuple[tuple[float, float, float, float], str]] = {
    # latency, throughput, energy, satisfaction
    "emergency": ((0.6, 0.2, 0.1, 0.1), "Delay first: rescue services share the network"),
    "normal": ((0.25, 0.25, 0.25, 0.25), "All four objectives alike"),
    "energy_saving": ((0.15, 0.1, 0.6, 0.15), "Power first: a quiet night"),
    "throughput": ((0.15, 0.6, 0.1, 0.15), "Rate first: a stadium or a software release"),
}

# Whatever the mode: a network that saves energy by serving nobody is not a choice.
RULES = (Rule(objective="satisfaction", at_least=0.8), Rule(objective="latency", at_most=1.5))


class Network5G(Scenario):
    """A 5G radio network whose cells set power, tilt, handover, slices, fairness and sleep every 100 ms.

    One policy serves any number of cells: each cell is a row with its own observation, action and reward.

    Args:
        size: ``small`` (3 sectors facing each other, 15 users), ``medium`` (7 omnidirectional cells, 70 users,
            wrap-around) or ``large`` (7 three-sector sites, 420 users, wrap-around).
        load: offered load: the default uses 15, 35 or 70 % of the resource blocks at ``low``, ``mid``, ``high``.
        control: ``cell`` (every cell decides for itself).
        episode_steps: steps of 100 ms until truncation.
        hour: hour of the day, 0 to 24; None draws one per episode from eight, weighted by demand. The hour is fixed
            within an episode, which lasts a minute.
        users: number of users instead of the size's. The arrival rate per user stays, so load and default differ from
            the frozen reference, and results are not comparable with it.

    Raises:
        ConfigurationError: an unknown or impossible option value, naming what is allowed.
    """

    name: ClassVar[str] = "network5g"
    algorithm: ClassVar[str] = "sac"
    experiment_design: ClassVar[str] = "switchback"
    protocols: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "short": EvaluationProtocol(name="short", seeds=8, warmup=20, steps=100, replicas=4),
        "full": EvaluationProtocol(name="full", seeds=30, warmup=100, steps=600, replicas=8),
    }

    training_defaults: ClassVar[Mapping[str, Any]] = {
        "steps": 250_000,
        "num_envs": 64,
        "learning_rate": 0.001,
        # A backlog is paid for over some twenty steps; a shorter horizon starves the slow slice.
        "gamma": 0.95,
        # Traffic is bursty: small batches see mostly noise.
        "batch_size": 2048,
        "sac": {"updates_per_step": 0.035, "actor_learning_rate": 0.0005, "buffer_size": 250_000, "tau": 0.005},
    }

    def __init__(
        self,
        *,
        size: str = "small",
        load: str = "mid",
        control: str = "cell",
        episode_steps: int = 700,
        hour: float | None = None,
        users: int | None = None,
    ) -> None:
        ref = reference()
        check_choice(size, SIZES, field="size")
        check_choice(load, LOADS, field="load")
        check_choice(control, CONTROLS, field="control")
        _check_integer("episode_steps", episode_steps, 1)
        if users is not None:
            _check_integer("users", users, 1)
        if hour is not None and (isinstance(hour, bool) or not isinstance(hour, int | float) or not 0 <= hour < 24):
            raise ConfigurationError(f"hour must be a number in [0, 24) or None, got {hour!r}", field="hour")
        self._reference = ref
        self._regime = ref.regimes[size][load]
        self._layout = layout(size, ref.radio.inter_site_m)
        self._users = ref.traffic.users(USERS[size] if users is None else users)
        self._hour = hour
        self._episode_steps = episode_steps
        self.options = {
            "size": size,
            "load": load,
            "control": control,
            "episode_steps": episode_steps,
            "hour": hour,
            "users": users,
        }
        self.objectives = make_objectives(self._regime)
        self.modes = {
            name: Mode(name=name, preference=Preference.of(self.objectives, weights), rules=RULES, description=text)
            for name, (weights, text) in MODES.items()
        }
        self.baselines = make_baselines(ref, self._layout.colour)
        self.tunables = make_tunables(ref, self._layout.colour)
        self.default_baseline = DEFAULT
        self.primary_mode = "normal"
        self.part_names = PART_NAMES
        self.observation_names = OBSERVATION_NAMES
        self.single_observation_space = observation_space()
        self.single_action_space = action_space()
        self.targets = {
            "latency": Target(objective="latency", relative=-0.30),
            "throughput": Target(objective="throughput", relative=0.40),
            "energy": Target(objective="energy", relative=-0.30),
            "satisfaction": Target(objective="satisfaction", absolute=0.95),
        }
        self.guard_shares = {"served": 0.99}
        self.reference_hash = ref.hash

    @property
    def reference(self) -> Reference:
        """The frozen constants, default and ranges."""
        return self._reference

    @property
    def cells(self) -> int:
        """Cells of one network: rows per environment."""
        return self._layout.cells

    @property
    def users(self) -> tuple[int, int, int]:
        """eMBB, URLLC and mMTC users of one network."""
        return self._users

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorNetwork5G:
        """``num_envs`` networks, ``num_envs * cells`` rows; the seed is spread over them, or one each.

        Raises:
            InvalidInputError: no environment, a sequence of the wrong length, or a negative seed.
        """
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise InvalidInputError(f"num_envs must be a whole number >= 1, got {num_envs!r}", field="num_envs")
        return VectorNetwork5G(
            cells=self._layout,
            users=self._users,
            regime=self._regime,
            objectives=self.objectives,
            ref=self._reference,
            hour=self._hour,
            episode_steps=self._episode_steps,
            seeds=seed_list(seed, int(num_envs)),
        )

    def objective_values(
        self, numerators: NDArray[np.floating[Any]], denominators: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Objectives [..., 4] from summed parts [..., n_parts]; NaN where a denominator is 0."""
        return np.asarray(objective_values(numerators, denominators, self._regime), dtype=np.float64)

    def step_rewards(
        self, numerators: NDArray[np.floating[Any]], denominators: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Rewards [n, 4] of single cells' steps: as the environment's, but for the share of the network's mean."""
        n, d = (np.asarray(parts)[:, None, :] for parts in (numerators, denominators))
        return step_rewards(n, d, self._regime, self.objectives)[:, 0]

    def guards(
        self, numerators: NDArray[np.floating[Any]], denominators: NDArray[np.floating[Any]]
    ) -> Mapping[str, NDArray[np.floating[Any]]]:
        """``served``: Mbit served [...], to be at least 99 % of the default's on the same seeds."""
        return {"served": np.asarray(numerators)[..., SERVED]}


def _check_integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigurationError(f"{name} must be a whole number >= {least}, got {value!r}", field=name)
