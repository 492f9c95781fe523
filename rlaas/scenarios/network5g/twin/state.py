"""The twin's state as tensors, and its exchange with the engine's records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g.engine.arrays import FILTERED, HELD, MARGIN, State, ring_length
from rlaas.scenarios.network5g.engine.arrays import allocate as allocate_engine
from rlaas.scenarios.network5g.engine.constants import Constants

__all__ = [
    "Cells",
    "Fluid",
    "Links",
    "TwinState",
    "Users",
    "allocate",
    "engine_arrays",
    "forget",
    "from_engine",
    "to_engine",
]

_USER_FLOATS = (
    "x",
    "y",
    "vx",
    "vy",
    "left",
    "mean_x",
    "mean_y",
    "loss_db",
    "since",
    "weak",
    "report_db",
    "offset_db",
)
_USER_WHOLE = ("trace", "serving", "previous")
_TOTALS = ("backlog", "arrived", "departed", "served", "active", "late")
_WINDOWS = ("served_ring", "active_ring", "late_ring")


@dataclass(slots=True)
class Users:
    """The engine's ``USER`` records by field [E, U], see there; ``late`` is [WINDOW, E, URLLC users]."""

    x: Tensor
    y: Tensor
    vx: Tensor
    vy: Tensor
    left: Tensor
    mean_x: Tensor
    mean_y: Tensor
    loss_db: Tensor
    since: Tensor
    weak: Tensor
    report_db: Tensor
    offset_db: Tensor
    trace: Tensor
    serving: Tensor
    previous: Tensor
    indoor: Tensor
    late: Tensor


@dataclass(slots=True)
class Links:
    """The rows of the engine's ``links`` [E, U, C]."""

    filtered: Tensor
    margin: Tensor
    held: Tensor


@dataclass(slots=True)
class Fluid:
    """The engine's ``FLUID`` records of a slice by field [E, users]; rings come with their length in front.

    ``ring`` [L, E, users] holds the arrivals.
    """

    backlog: Tensor
    arrived: Tensor
    departed: Tensor
    served: Tensor
    active: Tensor
    late: Tensor
    served_ring: Tensor
    active_ring: Tensor
    late_ring: Tensor
    ring: Tensor

    def clear(self) -> None:
        """Empty the buffers."""
        for name in (*_TOTALS, *_WINDOWS, "ring"):
            getattr(self, name).zero_()


@dataclass(slots=True)
class Cells:
    """The engine's ``CELL`` records by field [E, C]."""

    use: Tensor
    trend: Tensor
    off_steps: Tensor
    off: Tensor


@dataclass(slots=True)
class TwinState:
    """Everything the next steps depend on.

    Attributes:
        key, hour, realisation: by environment [E]. clock, step, over: common to all, on the host.
        users, links, embb, mmtc, cells: see above.
    """

    key: Tensor
    hour: Tensor
    realisation: Tensor
    clock: int
    step: int
    over: bool
    users: Users
    links: Links
    embb: Fluid
    mmtc: Fluid
    cells: Cells


def engine_arrays(c: Constants, environments: int, padded: int) -> State:
    """Zeroed arrays of an engine with the same networks."""
    rings = (ring_length(c.embb_cap, c.embb_deadline), ring_length(c.mmtc_cap, c.mmtc_deadline))
    state, _ = allocate_engine(environments, (c.embb, c.urllc, c.mmtc), c.cells, padded, rings, 1)
    return state


def allocate(c: Constants, environments: int, padded: int, device: torch.device, dtype: torch.dtype) -> TwinState:
    """Zeroed state of as many networks."""
    arrays = engine_arrays(c, environments, padded)
    return from_engine(arrays._asdict(), arrays, c, device, dtype)


def from_engine(
    state: Mapping[str, Any], shapes: State, c: Constants, device: torch.device, dtype: torch.dtype
) -> TwinState:
    """The engine's state as tensors.

    Args:
        state: what ``Engine.get_state`` returned.
        shapes: arrays of the shapes it must have.
        c: the engine's constants.
        device, dtype: where to, and of what the queues are made.

    Raises:
        InvalidInputError: an array is missing or has another shape, or the networks are not in the same step.
    """
    for name, array in shapes._asdict().items():
        if name not in state or np.shape(state[name]) != array.shape:
            raise InvalidInputError(
                f"state.{name} has shape {np.shape(state.get(name, 0.0))}; expected {array.shape}", field="state"
            )
    here = state["environments"]
    for name in ("clock", "step", "over"):
        if np.any(here[name] != here[name][0]):
            raise InvalidInputError(
                f"state.environments.{name} differs between environments; the twin steps all of them together",
                field="state",
            )

    def put(values: NDArray[Any], kind: torch.dtype) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values), device=device, dtype=kind)

    def fluid(records: NDArray[Any], ring: NDArray[Any]) -> Fluid:
        totals = {name: put(records[name], dtype) for name in _TOTALS}
        windows = {name: put(np.moveaxis(records[name], 2, 0), dtype) for name in _WINDOWS}
        return Fluid(**totals, **windows, ring=put(np.moveaxis(ring, 2, 0), dtype))

    users, cells = state["users"], state["cells"]
    links = state["links"][..., : c.cells]
    floats = {name: put(users[name], torch.float32) for name in _USER_FLOATS}
    whole = {name: put(users[name], torch.int64) for name in _USER_WHOLE}
    late = np.moveaxis(users["late"][:, c.embb : c.embb + c.urllc], 2, 0)
    return TwinState(
        key=put(here["key"].view(np.int64), torch.int64),
        hour=put(here["hour"], torch.float64),
        realisation=put(here["realisation"], torch.int64),
        clock=int(here["clock"][0]),
        step=int(here["step"][0]),
        over=bool(here["over"][0]),
        users=Users(**floats, **whole, indoor=put(users["indoor"], torch.bool), late=put(late, torch.float32)),
        links=Links(*(put(links[:, :, row], torch.float32) for row in (FILTERED, MARGIN, HELD))),
        embb=fluid(state["embb"], state["embb_ring"]),
        mmtc=fluid(state["mmtc"], state["mmtc_ring"]),
        cells=Cells(
            use=put(cells["use"], dtype),
            trend=put(cells["trend"], dtype),
            off_steps=put(cells["off_steps"], torch.int64),
            off=put(cells["off"], torch.bool),
        ),
    )


def to_engine(state: TwinState, arrays: State, c: Constants) -> dict[str, NDArray[Any]]:
    """The tensors as the engine's records, written into ``arrays``; padding cells stay as they are there."""

    def take(values: Tensor) -> NDArray[Any]:
        return np.asarray(values.cpu().numpy())

    here, users, cells = arrays.environments, arrays.users, arrays.cells
    here["key"] = take(state.key).view(np.uint64)
    here["hour"], here["realisation"] = take(state.hour), take(state.realisation)
    here["clock"], here["step"], here["over"] = state.clock, state.step, state.over
    for name in (*_USER_FLOATS, *_USER_WHOLE, "indoor"):
        users[name] = take(getattr(state.users, name))
    users["late"][:, c.embb : c.embb + c.urllc] = np.moveaxis(take(state.users.late), 0, 2)
    for row, values in ((FILTERED, state.links.filtered), (MARGIN, state.links.margin), (HELD, state.links.held)):
        arrays.links[:, :, row, : c.cells] = take(values)
    for records, ring, fluid in (
        (arrays.embb, arrays.embb_ring, state.embb),
        (arrays.mmtc, arrays.mmtc_ring, state.mmtc),
    ):
        for name in _TOTALS:
            records[name] = take(getattr(fluid, name))
        for name in _WINDOWS:
            records[name] = np.moveaxis(take(getattr(fluid, name)), 0, 2)
        ring[...] = np.moveaxis(take(fluid.ring), 0, 2)
    for name in ("use", "trend", "off_steps", "off"):
        cells[name] = take(getattr(state.cells, name))
    return arrays._asdict()


def forget(state: TwinState) -> None:
    """Empty queues, windows and counters; places and links stay."""
    state.embb.clear()
    state.mmtc.clear()
    users, cells = state.users, state.cells
    for values in (users.weak, users.offset_db, users.late, cells.use, cells.trend, cells.off_steps):
        values.zero_()
