"""The kernels: one call advances a chunk of environments by one step, everything of the step inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rlaas.scenarios.recsys.engine.evolution import arrive, evolve_trend, phase_of, renew
from rlaas.scenarios.recsys.engine.observation import observe
from rlaas.scenarios.recsys.engine.page import build_slate
from rlaas.scenarios.recsys.engine.response import add_shocks, respond
from rlaas.scenarios.recsys.engine.state import Outputs, Scratch, State
from rlaas.scenarios.recsys.engine.tables import Constants, Tables

__all__ = ["begin_streams", "look", "step_streams"]

Array = NDArray[Any]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@njit(cache=True, _nrt=False)
def _tell(state: State, constants: Constants, out: Outputs, e: int) -> None:
    out.user[e] = state.user[e]
    out.session[e] = state.visits[e]
    out.day[e] = int(state.clock[e] // 24.0) % constants.lifetime_days


@njit(cache=True, _nrt=False, nogil=True)
def begin_streams(
    first: int, last: int, state: State, constants: Constants, tables: Tables, scratch: Scratch, out: Outputs
) -> None:
    """Begin a new stream in environments ``first`` to ``last``: a new world with a new user."""
    slot = scratch.slot[first]
    for e in range(first, last):
        state.stream_step[e] = 0
        state.ended[e] = False
        state.window_page[e] = 0
        for word in range(state.covered.shape[1]):
            state.covered[e, word] = np.uint64(0)
        for i in range(state.estimate.shape[1]):
            state.estimate[e, i] = _ZERO
            state.precision[e, i] = _ZERO
        evolve_trend(state, constants, e, True, scratch.normal[slot])
        # Trends have been measured for long.
        for k in range(state.trend.shape[1]):
            state.measured[e, k] = state.trend[e, k]
        arrive(state, constants, tables, e, True, scratch.normal[slot])
        state.step[e] += 1
        observe(state, constants, tables, scratch, slot, e, out.observation[e])
        _tell(state, constants, out, e)


@njit(cache=True, _nrt=False, nogil=True)
def look(
    first: int, last: int, state: State, constants: Constants, tables: Tables, scratch: Scratch, out: Outputs
) -> None:
    """Write the observations of environments ``first`` to ``last`` as they stand."""
    slot = scratch.slot[first]
    for e in range(first, last):
        observe(state, constants, tables, scratch, slot, e, out.observation[e])


@njit(cache=True, _nrt=False)
def _clear(out: Outputs, e: int) -> None:
    out.click[e] = -1
    out.order[e] = False
    for j in range(out.slate.shape[1]):
        out.slate[e, j] = -1
    for i in range(out.reward.shape[1]):
        out.reward[e, i] = 0.0
    for i in range(out.numerators.shape[1]):
        out.numerators[e, i] = 0.0
        out.denominators[e, i] = 0.0


@njit(cache=True, _nrt=False, nogil=True)
def step_streams(
    first: int,
    last: int,
    state: State,
    constants: Constants,
    tables: Tables,
    scratch: Scratch,
    out: Outputs,
    actions: Array,
) -> None:
    """Show a page in environments ``first`` to ``last``, or open the next session where the last one ended."""
    slot = scratch.slot[first]
    for e in range(first, last):
        phase = phase_of(tables, state.stream_step[e])
        renew(state, tables, e, phase)
        if state.ended[e]:
            _clear(out, e)
            arrive(state, constants, tables, e, False, scratch.normal[slot])
            out.terminated[e] = False
            out.truncated[e] = False
            _tell(state, constants, out, e)
        else:
            _tell(state, constants, out, e)
            build_slate(state, constants, tables, scratch, slot, e, actions[e], phase)
            left = respond(state, constants, tables, scratch, out, slot, e, tables.parts_a[actions[e], 0], phase)
            out.terminated[e] = left
            out.truncated[e] = not left and state.page[e] >= constants.episode_steps
        evolve_trend(state, constants, e, False, scratch.normal[slot])
        add_shocks(tables, state.stream_step[e], state.trend[e], scratch.other[slot])
        for k in range(state.trend.shape[1]):
            now = scratch.other[slot, k]
            state.measured[e, k] = constants.trend_lag * state.measured[e, k] + (_ONE - constants.trend_lag) * now
        state.ended[e] = out.terminated[e] or out.truncated[e]
        state.step[e] += 1
        state.stream_step[e] += 1
        observe(state, constants, tables, scratch, slot, e, out.observation[e])
