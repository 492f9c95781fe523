"""The kernel: one call advances a chunk of environments by one step, everything of the step inside."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from rlaas.scenarios.compiled import claim, entry_point, inner
from rlaas.scenarios.recsys.engine.evolution import arrive, begin, calendar, evolve_trend, phase_of, renew
from rlaas.scenarios.recsys.engine.observation import observe
from rlaas.scenarios.recsys.engine.page import DIRECTION, MEAN, OTHER, build_slate
from rlaas.scenarios.recsys.engine.response import respond
from rlaas.scenarios.recsys.engine.state import SPACING, Outputs, Scratch, State
from rlaas.scenarios.recsys.engine.tables import Tables

__all__ = ["BEGIN", "LOOK", "STEP", "advance"]

Array = NDArray[Any]

BEGIN, STEP, LOOK = range(3)
"""What :func:`advance` does: begin new streams; show a page, or open the next session where the last one ended; write
the observations as they stand. One kernel does all three, as they share most of their code."""


@inner
def _clear(out: Outputs, e: int) -> None:
    """The outputs of a step that shows no page."""
    out.terminated[e] = False
    out.truncated[e] = False
    out.click[e] = -1
    out.order[e] = False
    for j in range(out.slate.shape[1]):
        out.slate[e, j] = -1
    for i in range(out.reward.shape[1]):
        out.reward[e, i] = 0.0
    for i in range(out.numerators.shape[1]):
        out.numerators[e, i] = 0.0
        out.denominators[e, i] = 0.0


@entry_point
def advance(
    worker: int,
    tickets: Array,
    what: int,
    state: State,
    tables: Tables,
    scratch: Scratch,
    out: Outputs,
    actions: Array,
) -> None:
    """Do ``what`` in environments as long as there are some to claim.

    Args:
        worker, tickets: see :class:`~rlaas.scenarios.compiled.Workers`.
        what: ``BEGIN``, ``STEP`` or ``LOOK``.
        state, tables, scratch, out: see :mod:`~rlaas.scenarios.recsys.engine.state` and ``tables``.
        actions: [E] where a page is shown.
    """
    slot = worker * SPACING
    normal, topics = scratch.normal[slot], scratch.topics[slot]
    first, last = claim(tickets)
    while first < last:
        for e in range(first, last):
            stream = state.streams[e]
            if what == BEGIN:
                begin(state, tables, e, normal)
            if what != LOOK:
                phase = phase_of(tables, stream.stream_step)
                renew(state, tables, e, phase)
                if what == BEGIN or stream.ended:
                    _clear(out, e)
                    arrive(state, tables, e, what == BEGIN, normal)
                    out.patience[e, 0] = stream.patience
                else:
                    build_slate(state, tables, scratch, slot, e, actions[e], phase)
                    left = respond(state, tables, scratch, out, slot, e, tables.parts[actions[e], 0], phase)
                    out.terminated[e] = left
                    out.truncated[e] = not left and stream.page >= tables.constants[0].episode_steps
                out.user[e] = stream.user
                out.session[e] = stream.visits
                out.day[e], _ = calendar(stream.clock, tables.constants[0].lifetime_days)
                stream.ended = 1 if out.terminated[e] or out.truncated[e] else 0
            if what == STEP:
                evolve_trend(state, tables, e, normal, topics[OTHER])
                stream.stream_step += 1
            if what != LOOK:
                stream.step += 1
            observe(state, tables, e, topics[MEAN], topics[DIRECTION], out.observation[e])
        first, last = claim(tickets)
