"""The twin itself: networks in lockstep, whose steps never leave the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.base import seed_list
from rlaas.scenarios.compiled import environment_key
from rlaas.scenarios.network5g.control import ACTION_NAMES, HIGH, LOW
from rlaas.scenarios.network5g.engine import Network, build
from rlaas.scenarios.network5g.objectives import PART_NAMES
from rlaas.scenarios.network5g.twin.accounting import account, add_up, draw_power, finish_episode, observe
from rlaas.scenarios.network5g.twin.links import Adapted, Moves, Settings, adapt, attach, configure, hand_over, measure
from rlaas.scenarios.network5g.twin.service import serve
from rlaas.scenarios.network5g.twin.state import allocate, engine_arrays, forget, from_engine, to_engine
from rlaas.scenarios.network5g.twin.tables import Tables
from rlaas.scenarios.network5g.twin.world import Demand, World

__all__ = ["TorchNetwork5G", "TwinStep"]


class TwinStep(NamedTuple):
    """What a step returns; a row is a cell, cells of a network adjoin.

    Attributes:
        observation: [rows, n_features] float32.
        reward: [rows, n_objectives], larger is better.
        truncated: [rows] bool; the step after it resets.
        numerators, denominators: additive parts [rows, n_parts].
    """

    observation: Tensor
    reward: Tensor
    truncated: Tensor
    numerators: Tensor
    denominators: Tensor


class TorchNetwork5G:
    """The fluid engine of network5g on tensors.

    From equal states one step equals the compiled engine's up to float32 arithmetic, since both draw the same random
    numbers: :meth:`load_state` and :meth:`get_state` speak the engine's format. Networks are independent, reset
    together, and truncate after ``network.episode_steps``; the step after that resets (NEXT_STEP).

    Args:
        network: what they are like: :attr:`~rlaas.scenarios.network5g.Network5G.network` of a scenario.
        environments: how many.
        device: where they live, as torch writes it.
        dtype: of queues, rewards and parts: float64 equals the engine, float32 is smaller.
        seed: spread over the networks, or one each.
        checked: refuse actions out of bounds as the engine does; this waits for the device, so by default only on a
            CPU. Unchecked, settings are clipped, and one that is no number becomes the default's.

    Raises:
        ConfigurationError: the network records delays or simulates slots, or an unknown dtype or device.
        InvalidInputError: fewer than one environment, or impossible seeds.
    """

    def __init__(
        self,
        network: Network,
        environments: int,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float64,
        seed: int | Sequence[int] | None = 0,
        checked: bool | None = None,
    ) -> None:
        if network.histogram:
            raise ConfigurationError("delays: the torch twin records none; load the scenario without", field="delays")
        if network.slots:
            raise ConfigurationError("fidelity: the torch twin has 'fluid' only, not 'slot'", field="fidelity")
        if dtype not in (torch.float32, torch.float64):
            raise ConfigurationError(f"dtype must be torch.float32 or torch.float64, got {dtype}", field="dtype")
        if isinstance(environments, bool) or not isinstance(environments, int | np.integer) or environments < 1:
            raise InvalidInputError(f"environments must be a whole number >= 1, got {environments!r}", field="num_envs")
        try:
            self.device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as problem:
            reason = str(problem).splitlines()[0]
            raise ConfigurationError(f"device {str(device)!r} cannot be used: {reason}", field="device") from problem
        self.network, self.environments, self.dtype = network, int(environments), dtype
        self.cells = network.layout.cells
        self.rows = self.environments * self.cells
        self.checked = self.device.type == "cpu" if checked is None else checked
        constants, maps, links, world = build(network)
        self._padded = maps.sine_below.shape[1]
        self._t = Tables(constants, maps, links, world, self.device, dtype)
        self._world = World(self._t)
        self._s = allocate(constants, self.environments, self._padded, self.device, dtype)
        self._started = False
        self._nobody = torch.zeros(self.rows, dtype=torch.bool, device=self.device)
        self._everybody = ~self._nobody
        self._seed(seed)

    @classmethod
    def in_float32(
        cls, network: Network, environments: int, *, device: str, seed: int | Sequence[int] | None
    ) -> TorchNetwork5G:
        """Networks for training: half the memory, and settings out of bounds are clipped instead of refused."""
        return cls(network, environments, device=device, dtype=torch.float32, seed=seed, checked=False)

    @property
    def rows_per_env(self) -> int:
        """Cells of a network."""
        return self.cells

    @property
    def over(self) -> bool:
        """The last step ended the episodes; the next one begins new ones."""
        return self._s.over

    def _seed(self, seed: int | Sequence[int] | None) -> None:
        keys = [int(environment_key(s)) for s in seed_list(seed, self.environments)]
        self._s.key = torch.tensor(np.array(keys, dtype=np.uint64).view(np.int64), device=self.device)
        self._s.clock = 0

    def reset(self, seed: int | Sequence[int] | None = None) -> Tensor:
        """Start every network anew; without a seed the random streams go on.

        Returns:
            Observation [rows, n_features] float32.

        Raises:
            InvalidInputError: a sequence of the wrong length, or a negative seed.
        """
        if seed is not None:
            self._seed(seed)
        self._started = True
        with torch.no_grad():
            return self._begin().observation

    @torch.no_grad()
    def step(self, actions: Tensor) -> TwinStep:
        """Advance every network by 100 ms.

        Args:
            actions: physical settings [rows, n_components] on the device, see
                :data:`~rlaas.scenarios.network5g.ACTION_NAMES`.

        Raises:
            InvalidInputError: before the first reset, a wrong shape or device, or, where actions are checked, a value
                that is not finite or out of bounds; nothing changed.
        """
        t, s = self._t, self._s
        settings = self._actions(actions)
        if s.over:
            return self._begin()
        demand = self._world.step(s)
        in_force = configure(t, s, settings)
        received = measure(t, s, in_force)
        moves = hand_over(t, s, in_force)
        link = adapt(t, s, in_force, received)
        result = self._finish(in_force, demand, link, moves)
        s.clock += 1
        s.step += 1
        return result

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything the next steps depend on, as ``Engine.get_state`` of the compiled engine would give it."""
        constants = self._t.c
        return to_engine(self._s, engine_arrays(constants, self.environments, self._padded), constants)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of this twin or of the compiled engine.

        Raises:
            InvalidInputError: a state of another network or number of environments, or of networks that are not all
                in the same step.
        """
        constants = self._t.c
        shapes = engine_arrays(constants, self.environments, self._padded)
        self._s = from_engine(state, shapes, constants, self.device, self.dtype)
        self._started = True

    def _actions(self, actions: Tensor) -> Tensor:
        if not self._started:
            raise InvalidInputError("step before reset; call reset first", field="action")
        shape = (self.rows, len(ACTION_NAMES))
        if tuple(actions.shape) != shape:
            raise InvalidInputError(f"action has shape {tuple(actions.shape)}; expected {shape}", field="action")
        if actions.device != self.device:
            raise InvalidInputError(f"action is on {actions.device}; expected {self.device}", field="action")
        values = actions.to(self.dtype)
        if self.checked:
            self._check(values)
        cells = values.reshape(self.environments, self.cells, -1)
        return torch.where(torch.isfinite(cells), cells, self._t.default)

    def _check(self, values: Tensor) -> None:
        t = self._t
        slack = 1e-6 * (t.high - t.low)
        good = (values >= t.low - slack) & (values <= t.high + slack)
        if bool(good.all()):
            return
        row, column = (int(i) for i in (~good).nonzero()[0])
        name = ACTION_NAMES[column]
        raise InvalidInputError(
            f"action {name} of environment {row // self.cells}, cell {row % self.cells} is "
            f"{float(values[row, column]):g}; allowed: [{LOW[column]:g}, {HIGH[column]:g}]",
            field=f"action.{name}",
        )

    def _begin(self) -> TwinStep:
        """Start an episode: place everybody, then look without serving anybody."""
        t, s = self._t, self._s
        s.step, s.over = 0, False
        self._world.place(s)
        forget(s)
        settings = configure(t, s, t.default.expand(self.environments, -1, -1), begin=True)
        received = measure(t, s, settings, first=True)
        moves = attach(s)
        link = adapt(t, s, settings, received)
        nothing = torch.zeros(self.environments, t.users, device=self.device, dtype=self.dtype)
        parts = [nothing[:, part] for part in t.slices]
        result = self._finish(settings, Demand(*parts, *parts), link, moves, begin=True)
        # The look itself leaves no trace.
        forget(s)
        s.clock += 1
        return result

    def _finish(
        self, settings: Settings, demand: Demand, link: Adapted, moves: Moves, *, begin: bool = False
    ) -> TwinStep:
        """Serve everybody, and make of it what a step returns."""
        t, s = self._t, self._s
        hot = (s.users.serving[..., None] == torch.arange(self.cells, device=self.device)).double()
        served = serve(t, s, settings, demand, link, moves, hot)
        power = draw_power(s, settings, served)
        sums = add_up(t, s, hot, served, link, moves)
        observation = observe(t, s, sums, settings, served, self._world.hour(s)).reshape(self.rows, -1)
        if begin:
            nothing = torch.zeros(self.rows, len(PART_NAMES), device=self.device, dtype=self.dtype)
            reward = torch.zeros(self.rows, len(self.network.objectives), device=self.device, dtype=self.dtype)
            return TwinStep(observation, reward, self._nobody, nothing, nothing.clone())
        reward, up, down = account(t, s, sums, power)
        s.over = s.step + 1 >= t.c.episode_steps
        if s.over:
            finish_episode(t, s, hot, up)
        reward, up, down = (values.reshape(self.rows, -1) for values in (reward, up, down))
        return TwinStep(observation, reward, self._everybody if s.over else self._nobody, up, down)
