"""The vector environment: every cell of every network is a row, all networks advance in lockstep."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.objectives import Objective
from rlaas.scenarios.base import VectorScenarioEnv, seed_list
from rlaas.scenarios.network5g.accounts import Accounts, Interval
from rlaas.scenarios.network5g.control import Settings, action_space, check_actions, default_action
from rlaas.scenarios.network5g.energy import cell_energy_j
from rlaas.scenarios.network5g.handover import Attachment
from rlaas.scenarios.network5g.layout import Layout
from rlaas.scenarios.network5g.objectives import PART_NAMES, step_rewards
from rlaas.scenarios.network5g.observation import observation_space, observe
from rlaas.scenarios.network5g.physics import Physics
from rlaas.scenarios.network5g.reference import Reference, Regime
from rlaas.scenarios.network5g.world import World

__all__ = ["VectorNetwork5G"]

Float64Array = NDArray[np.float64]


class VectorNetwork5G(VectorScenarioEnv):
    """``envs`` networks of equal layout; row ``env * cells + cell`` is one cell.

    Built by :meth:`Network5G.vector_env`. All networks have episodes of equal length and are reset together.

    Args:
        cells: the layout.
        users: users per slice of one network.
        regime: offered load, frozen default and ranges.
        objectives: normalise the reward.
        ref: the frozen reference.
        hour: hour of the day, or None to draw one per episode, weighted by demand.
        episode_steps: steps until truncation.
        seeds: one per network.
    """

    def __init__(
        self,
        *,
        cells: Layout,
        users: tuple[int, int, int],
        regime: Regime,
        objectives: tuple[Objective, ...],
        ref: Reference,
        hour: float | None,
        episode_steps: int,
        seeds: Sequence[int],
    ) -> None:
        self.environments = len(seeds)
        self.rows_per_env = cells.cells
        self.num_envs = self.environments * cells.cells
        self.single_observation_space = observation_space()
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.reward_space = spaces.Box(-np.inf, np.inf, (len(objectives),), dtype=np.float64)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.layout = cells
        self._regime = regime
        self._objectives = objectives
        self._reference = ref
        self._episode_steps = episode_steps
        self._shape = (self.environments, cells.cells)
        self._world = World(cells, users, regime.scale, hour, ref, _generators(seeds))
        self._physics = Physics(cells, users, ref, self.environments)
        self._accounts = Accounts(cells.cells, users, regime, ref, self.environments)
        self._default = np.broadcast_to(default_action(ref), (*self._shape, len(default_action(ref)))).copy()
        self._attachment: Attachment
        self._off = np.zeros(self._shape, dtype=bool)
        self._step = 0
        self._over = False
        self._started = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start every network anew.

        Args:
            seed: spread over the networks, or one each; None continues the random streams.
            options: not used.

        Raises:
            InvalidInputError: a sequence of the wrong length, or a negative seed.
        """
        if seed is not None:
            self._world.generators = _generators(seed_list(seed, self.environments))
        return self._restart(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], Float64Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Advance every network by 100 ms.

        Args:
            actions: physical settings [rows, n_components], see :data:`~.control.ACTION_NAMES`.

        Returns:
            observation [rows, n_features] float32, reward [rows, 4], terminated [rows] (never), truncated [rows]
            and infos with ``numerators`` and ``denominators`` [rows, n_parts]. The step after a truncation resets.

        Raises:
            InvalidInputError: a wrong shape, or a value that is not finite or out of bounds; nothing changed.
        """
        if not self._started:
            raise InvalidInputError("step before reset; call reset first", field="action")
        values = check_actions(actions, self.num_envs, self.rows_per_env).reshape(*self._shape, -1)
        if self._over:
            zeros = np.zeros((self.num_envs, len(PART_NAMES)))
            infos = {"numerators": zeros, "denominators": zeros.copy()}
            no = np.zeros(self.num_envs, dtype=bool)
            return self._restart(), np.zeros((self.num_envs, len(self._objectives))), no, no.copy(), infos
        settings = Settings.of(values, self._reference.energy)
        index = self._world.draw(self._step)
        self._world.move(index)
        interval = self._physics.interval(
            self._step, self._world, self._world.arrivals(index), self._attachment, settings
        )
        energy = cell_energy_j(
            interval.use,
            interval.idle,
            10 ** (settings.power_db.astype(np.float64) / 10),
            settings.sleep,
            settings.off,
            settings.off != self._off,
            self._reference.energy,
        )
        numerators, denominators = self._accounts.parts(interval, energy, settings)
        reward = step_rewards(numerators, denominators, self._regime, self._objectives)
        observation = self._observe(interval, values)
        self._off = settings.off
        self._step += 1
        self._over = self._step >= self._episode_steps
        if self._over:
            # What is still in the buffers counts the cap; that belongs to no action, so the reward leaves it out.
            numerators = numerators + self._accounts.final(self._physics.missing_delays(self._step - 1), interval)
        infos = {
            "numerators": numerators.reshape(self.num_envs, -1),
            "denominators": denominators.reshape(self.num_envs, -1),
        }
        truncated = np.full(self.num_envs, self._over)
        return observation, reward.reshape(self.num_envs, -1), np.zeros_like(truncated), truncated, infos

    def get_state(self) -> dict[str, Any]:
        """Everything the next steps depend on, as copies."""
        return {
            "world": self._world.state.copy(),
            "generators": [copy.deepcopy(g.bit_generator.state) for g in self._world.generators],
            "attachment": self._attachment.copy() if self._started else None,
            "physics": self._physics.get_state(),
            "off": self._off.copy(),
            "step": self._step,
            "over": self._over,
            "started": self._started,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`.

        Raises:
            InvalidInputError: the state of another number of environments.
        """
        if len(state["generators"]) != self.environments:
            raise InvalidInputError(
                f"state holds {len(state['generators'])} environments; expected {self.environments}", field="state"
            )
        self._world.state = state["world"].copy()
        for generator, saved in zip(self._world.generators, state["generators"], strict=True):
            generator.bit_generator.state = copy.deepcopy(saved)
        if state["started"]:
            self._attachment = state["attachment"].copy()
        self._physics.set_state(state["physics"])
        self._off = state["off"].copy()
        self._step, self._over, self._started = state["step"], state["over"], state["started"]

    def measurements(self) -> dict[str, Any]:
        """Serving cells and queues of every user, for plots and tests; copies, keyed by field name."""
        attachment = {f.name: getattr(self._attachment, f.name).copy() for f in fields(self._attachment)}
        return {**attachment, "position": self._world.state.position.copy(), **self._physics.get_state()}

    def _restart(self) -> NDArray[np.float32]:
        self._world.reset()
        self._physics.clear()
        settings = Settings.of(self._default, self._reference.energy)
        self._attachment = Attachment.start(self._physics.received_dbm(self._world, settings))
        self._off = np.zeros(self._shape, dtype=bool)
        self._step, self._over, self._started = 0, False, True
        nothing = tuple(np.zeros((self.environments, n)) for n in self._world.users)
        idle = self._physics.look(self._world, nothing, self._attachment, settings)
        return self._observe(idle, self._default)

    def _observe(self, interval: Interval, actions: Float64Array) -> NDArray[np.float32]:
        features = self._accounts.features(interval)
        hour = self._world.hours[self._world.state.hour]
        return observe(features, actions, hour, self.layout.neighbours).reshape(self.num_envs, -1)


def _generators(seeds: Sequence[int]) -> list[np.random.Generator]:
    return [np.random.default_rng(np.random.SeedSequence(s)) for s in seeds]
