"""Runs the kernels: owns the arrays of many networks and hands them to threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.compiled import Workers, environment_key, separate
from rlaas.scenarios.network5g.engine.arrays import Out, allocate, ring_length
from rlaas.scenarios.network5g.engine.building import Network, build
from rlaas.scenarios.network5g.engine.constants import TRACE
from rlaas.scenarios.network5g.engine.slots import begin_slot_networks, step_slot_networks
from rlaas.scenarios.network5g.engine.stepping import begin_networks, first_bad, step_networks
from rlaas.scenarios.network5g.objectives import PART_NAMES
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES

__all__ = ["Engine"]


class Engine:
    """Steps ``environments`` networks of one description.

    Args:
        network: what they are like.
        environments: how many.
        threads: to use, None for the default.

    Attributes:
        state: everything the next steps depend on; arrays are updated in place.
        out: what the last step returned; arrays are overwritten by the next.
    """

    def __init__(self, network: Network, environments: int, threads: int | None = None) -> None:
        self.network = network
        self.environments = environments
        self.constants, self.maps, self.links, self.world = build(network)
        self._record = self.constants.as_record()
        self._workers = Workers(environments, threads)
        c, cells = self.constants, network.layout.cells
        rings = (ring_length(c.embb_cap, c.embb_deadline), ring_length(c.mmtc_cap, c.mmtc_deadline))
        padded = self.maps.sine_below.shape[1]
        self.state, self.scratch = allocate(
            environments, network.users, cells, padded, rings, self._workers.count, slots=network.slots
        )
        # Two kernels rather than one that asks: who never simulates slots never compiles them.
        self._begin, self._step = (
            (begin_slot_networks, step_slot_networks) if network.slots else (begin_networks, step_networks)
        )
        self.out = Out(
            observation=separate((environments, cells, len(OBSERVATION_NAMES)), np.float32),
            reward=separate((environments, cells, len(network.objectives))),
            numerators=separate((environments, cells, len(PART_NAMES))),
            denominators=separate((environments, cells, len(PART_NAMES))),
        )
        tables = (self._record, self.maps, self.links, self.world)
        self._arguments = (*tables, self.state, self.scratch, self.out)

    def seed(self, seeds: Sequence[int]) -> None:
        """Begin the random streams of ``seeds``, one per environment."""
        self.state.environments["key"] = [environment_key(seed) for seed in seeds]
        self.state.environments["clock"] = 0

    def begin(self) -> Out:
        """Start every network anew."""
        self._workers.run(self._begin, *self._arguments)
        return self.out

    def first_bad(self, actions: NDArray[np.float64]) -> int:
        """Flat index of the first component of actions [rows, components] that is out of bounds, or -1."""
        return int(first_bad(actions))

    def step(self, actions: NDArray[np.float64]) -> Out:
        """Advance every network by one step; ``actions`` [E, C, components] are within bounds."""
        self._workers.run(self._step, *self._arguments, actions)
        return self.out

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays of the state by name; records are structured arrays."""
        return {name: array.copy() for name, array in self.state._asdict().items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`.

        Raises:
            InvalidInputError: an array is missing, has another shape or type, holds what is not finite, or points to a
                cell, a map or a trace that is not there; names it. Nothing changed then.
        """
        mine = self.state._asdict()
        for name, array in mine.items():
            if name not in state or np.shape(state[name]) != array.shape:
                raise InvalidInputError(
                    f"state.{name} has shape {np.shape(state.get(name, 0.0))}; expected {array.shape}", field="state"
                )
            given = np.asarray(state[name])
            if given.dtype != array.dtype:
                raise InvalidInputError(f"state.{name} has type {given.dtype}; expected {array.dtype}", field="state")
            for part in given.dtype.names or (None,):
                values = given if part is None else given[part]
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    full = name if part is None else f"{name}.{part}"
                    raise InvalidInputError(f"state.{full} has values that are not finite", field="state")
        users, environments = np.asarray(state["users"]), np.asarray(state["environments"])
        lengths = self.world.trace_length
        traced = self.constants.mobility == TRACE
        indices = (
            ("users.serving", users["serving"], self.network.layout.cells),
            ("users.previous", users["previous"], self.network.layout.cells),
            ("users.trace", users["trace"], len(lengths)),
            ("environments.realisation", environments["realisation"], self.maps.link_db.shape[0]),
            ("environments.step", environments["step"], self.constants.episode_steps + 1),
        )
        for name, values, count in indices:
            if ((values < 0) | (values >= count)).any():
                raise InvalidInputError(f"state.{name} must be in 0 .. {count - 1}: another network?", field="state")
        if traced and (users["left"] * (users["left"] < 1e8) > lengths[users["trace"]]).any():
            raise InvalidInputError("state.users.left is beyond the end of a trace: another network?", field="state")
        for name, array in mine.items():
            array[...] = state[name]

    @property
    def bytes_per_environment(self) -> int:
        """Memory of one environment's state and outputs."""
        arrays = [*self.state, *self.out]
        return sum(array.nbytes for array in arrays) // self.environments
