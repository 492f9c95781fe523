"""The arrays a network lives in: what the kernels read, what they carry from step to step, what they write.

Axes: E environments, U users (eMBB first, then URLLC, then mMTC), C cells, P cells padded to a multiple of eight so
that loops over cells vectorise, G grid points of the maps, L length of a ring. What belongs to one user or one cell
stands together in a record, so that a kernel touches few cache lines and passes few pointers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.compiled import separate
from rlaas.scenarios.network5g.control import ACTION_NAMES
from rlaas.scenarios.network5g.engine.slots_arrays import SLOT_CELL, SLOT_CELL_WORK, SLOT_USER, SLOT_USER_WORK
from rlaas.scenarios.network5g.geography.maps import LANES

__all__ = [
    "BINS",
    "FILTERED",
    "HELD",
    "MARGIN",
    "OFFSET",
    "POWER",
    "POWER_SHARE",
    "RHO",
    "RISE",
    "SETS",
    "SINE",
    "WINDOW",
    "LinkTables",
    "MapTables",
    "Out",
    "Scratch",
    "State",
    "WorldTables",
    "allocate",
    "ring_length",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Records = NDArray[np.void]

WINDOW = 10
"""Steps of the trailing second in which satisfaction is judged."""
SETS = 8
"""Sets of working arrays per thread, which uses the first: neighbours would share cache lines with each other."""
BINS = 64
"""Bins of the delay histograms: logarithmic from 0.1 ms to 100 s."""

FILTERED, MARGIN, HELD = 0, 1, 2
"""Rows of ``State.links``: L3-filtered received power in dBm; by how much a cell met the entering condition of A3 in
dB; for how long, in s."""
SINE, POWER, OFFSET, RHO, RISE, POWER_SHARE = range(6)
"""Rows of ``Scratch.pads``: sine of the tilt; transmit power in dBm; cell offset in dB; share of blocks in use; change
of a margin since the last step; share of the maximum power."""

ENVIRONMENT = np.dtype(
    [
        ("key", "u8"),  # of the random numbers
        ("clock", "i8"),  # steps since the stream began, resets included
        ("step", "i8"),  # steps since the reset
        ("hour", "f8"),  # of the day, at the reset
        ("realisation", "i4"),  # of the shadowing maps
        ("over", "u1"),  # after the last step of an episode
    ],
    align=True,
)
USER = np.dtype(
    [
        ("x", "f4"),  # position in m
        ("y", "f4"),
        ("vx", "f4"),  # velocity in m/s
        ("vy", "f4"),
        ("left", "f4"),  # metres to the end of the leg, or row of the trace
        ("mean_x", "f4"),  # mean velocity (Gauss-Markov), or shift of the trace
        ("mean_y", "f4"),
        ("loss_db", "f4"),  # penetration loss, 0 outdoors
        ("since", "f4"),  # seconds since the last handover
        ("weak", "f4"),  # seconds below the failure threshold
        ("report_db", "f4"),  # SINR of the last channel report
        ("offset_db", "f4"),  # outer-loop offset of link adaptation
        ("trace", "i4"),  # followed
        ("serving", "i4"),  # cell
        ("previous", "i4"),  # cell before the last handover
        ("indoor", "u1"),
        ("late", "f4", (WINDOW,)),  # URLLC: probability of a late packet in each of the last steps
    ],
    align=True,
)
FLUID = np.dtype(
    [
        ("backlog", "f8"),  # Mbit
        ("arrived", "f8"),  # Mbit since the reset
        ("departed", "f8"),  # served or discarded
        ("served", "f8"),
        ("active", "f8"),  # seconds with data
        ("late", "f8"),  # Mbit that passed their deadline undelivered
        ("served_ring", "f8", (WINDOW + 1,)),  # the totals after step t at t % length
        ("active_ring", "f8", (WINDOW + 1,)),
        ("late_ring", "f8", (WINDOW + 1,)),
    ],
    align=True,
)
CELL = np.dtype(
    [
        ("use", "f8"),  # share of all resource blocks used in the last step
        ("trend", "f8"),  # slow average of the use
        ("off_steps", "i4"),  # steps since the cell went off
        ("off", "u1"),  # asleep or out of order
    ],
    align=True,
)
USER_WORK = np.dtype(
    [
        ("sinr_db", "f4"),
        ("interference", "f4"),  # over noise, linear
        ("efficiency", "f4"),  # bit/s/Hz
        ("error", "f4"),  # block error rate
        ("next_cell", "i4"),
        ("event", "u1"),  # 1 handover, 2 ping-pong on top, 4 radio-link failure
        ("arrival_rate", "f8"),  # per s
        ("demand", "f8"),  # files or packets that came
        ("rate", "f8"),  # Mbit/s with all blocks of the slice
        ("offered", "f8"),  # Mbit
        ("carried", "f8"),
        ("dropped", "f8"),
        ("packets", "f8"),  # offered
        ("delay_ms", "f8"),  # of those, summed
        ("active_s", "f8"),  # with data
        ("weight", "f8"),  # in the sharing of its cell; 0 for a user that takes no part
        ("finish", "f8"),  # data over rate and weight
        ("happy_s", "f8"),  # satisfied
        ("judged_s", "f8"),
    ],
    align=True,
)
CELL_WORK = np.dtype(
    [
        ("settings", "f8", (len(ACTION_NAMES),)),  # in force
        ("share", "f8", (3,)),  # of the slices, summing to 1
        ("busy", "f8", (3,)),  # share of the step each slice transmits
        ("idle", "f8"),  # share of the step without any transmission
        ("waiting", "f8"),  # eMBB users with data
        ("gain", "f8"),  # of choosing among them
        ("exponent", "f8"),  # of their rates in their alpha-fair shares
        ("load_urllc", "f8"),  # offered: rate x service time, not limited to 1
        ("square_urllc", "f8"),  # rate x squared service time
        ("wait_s", "f8"),  # mean wait of URLLC in the queue
        ("load_mmtc", "f8"),
        ("pause_s", "f8"),  # mean wait of eMBB and mMTC for a sleeping transmitter
        ("kept", "f8"),  # share of URLLC packets that are carried
        ("met", "f8"),  # share of URLLC packets that meet a pause
        ("asleep", "f8"),  # share of the step at sleep power
        ("cycle_s", "f8"),  # of micro sleep
        ("power_w", "f8"),  # mean over the step
        ("model", "i4"),  # row of the power model in force
        ("failed", "u1"),  # out of order
        # Sums over users, by slice where there are three.
        ("packets", "f8", (3,)),
        ("delay_ms", "f8", (3,)),
        ("users", "f8", (3,)),
        ("efficiency", "f8", (3,)),
        ("offered", "f8", (3,)),
        ("carried_embb", "f8"),
        ("carried", "f8"),
        ("active_s", "f8"),
        ("happy_s", "f8"),
        ("judged_s", "f8"),
        ("weak", "f8"),
        ("outage_s", "f8"),
        ("handovers", "f8"),
        ("ping_pongs", "f8"),
        ("failures", "f8"),
        ("noise_rise", "f8"),  # log10
        ("backlog_embb", "f8"),
        ("backlog_mmtc", "f8"),
        ("with_data", "f8"),
        ("errors", "f8"),
        ("leaving", "f8"),
        ("arriving", "f8"),
        ("edge", "f8"),
    ],
    align=True,
)


class MapTables(NamedTuple):
    """Precomputed maps, shared by all environments.

    Attributes:
        link_db: element gain - path loss - shadowing [realisations, 2, G, P], outdoor and indoor.
        sine_below: sine of the angle below the horizon at which a cell sees a grid point [G, P].
        beam_db: gain of the best beam of the codebook [G, P].
    """

    link_db: F32
    sine_below: F32
    beam_db: F32


class LinkTables(NamedTuple):
    """Link adaptation.

    Attributes:
        entry: by SINR, in steps of 1/4 dB from -20 dB; entry 0 is outage.
        efficiency, threshold_db: bit/s/Hz, and the SINR at the target error rate, by entry.
        low_entry, low_efficiency, low_threshold_db: the same for URLLC.
    """

    entry: NDArray[np.int16]
    efficiency: F32
    threshold_db: F32
    low_entry: NDArray[np.int16]
    low_efficiency: F32
    low_threshold_db: F32


class WorldTables(NamedTuple):
    """Everything else that is read only.

    Attributes:
        hours, hour_cdf: hours of the day an episode may have and their cumulative probability.
        demand: demand by hour relative to the daily mean [25]; the last repeats the first.
        neighbours: nearest other cells [C, n].
        power_dbm: transmit power of each cell [C].
        power_rows: power models [models, columns of ``power.ROW_COLUMNS``]; ``power_model`` [C] says which a cell has.
        events: scheduled changes [n, columns of ``events.COLUMNS``].
        trace_xy: positions every 100 ms, all traces behind one another [n, 2].
        trace_first, trace_length: rows of each trace.
        default: settings of the frozen default [C, components].
    """

    hours: F64
    hour_cdf: F64
    demand: F64
    neighbours: I32
    power_dbm: F32
    power_rows: F64
    power_model: I32
    events: F64
    trace_xy: F32
    trace_first: I64
    trace_length: I64
    default: F64


class State(NamedTuple):
    """Everything the next steps depend on.

    Attributes:
        environments [E], users [E, U], embb and mmtc [E, U of the slice], cells [E, C]: records, see above.
        links: by cell [E, U, 3, P], rows ``FILTERED``, ``MARGIN``, ``HELD``.
        embb_ring, mmtc_ring: arrivals since the reset after step t at ``t % L`` [E, U of the slice, L].
        histogram: packets by slice and delay since the reset [E, 3, BINS], where they are recorded.
        slot_users [E, U], slot_cells [E, C]: of the slot-by-slot mode; empty [E, 0] otherwise.
    """

    environments: Records
    users: Records
    links: F32
    embb: Records
    embb_ring: F64
    mmtc: Records
    mmtc_ring: F64
    cells: Records
    histogram: F64
    slot_users: Records
    slot_cells: Records


class Scratch(NamedTuple):
    """One step's working arrays, ``SETS`` per thread, of which it uses the first (first axis T).

    Attributes:
        users [T, U], cells [T, C]: records, see above.
        received: linear received power in mW [T, U, P].
        pads: by cell [T, 6, P], rows ``SINE``, ``POWER``, ``OFFSET``, ``RHO``, ``RISE``, ``POWER_SHARE``.
        leaving: probability of a handover to next_cell within the horizon [T, U and room for whole vectors].
        order: users by cell [T, U] (slot by slot only); first: where each cell's begin, or end [T, C + 1].
        pick, finish, weight: users with data by cell [T, U].
        slot_users [T, U], slot_cells [T, C]: of the slot-by-slot mode; empty [T, 0] otherwise.
    """

    users: Records
    cells: Records
    received: F32
    pads: F32
    leaving: F32
    order: I32
    first: I32
    pick: I32
    finish: F64
    weight: F64
    slot_users: Records
    slot_cells: Records


class Out(NamedTuple):
    """What a step returns: observation [E, C, features], reward [E, C, objectives], parts [E, C, parts]."""

    observation: F32
    reward: F64
    numerators: F64
    denominators: F64


def ring_length(cap: int, deadline: int) -> int:
    """Steps of arrivals to keep for a discard timer and a deadline, both in steps, and the window after it."""
    return max(cap, deadline + WINDOW) + 2


def allocate(
    envs: int,
    users: tuple[int, int, int],
    cells: int,
    padded: int,
    rings: tuple[int, int],
    threads: int,
    slots: bool = False,
) -> tuple[State, Scratch]:
    """Zeroed state of ``envs`` environments and working arrays of ``threads`` threads.

    Args:
        envs: E.
        users: users per slice.
        cells, padded: C and P.
        rings: length of the arrival rings of eMBB and mMTC.
        threads: how many step at the same time.
        slots: with what the slot-by-slot mode needs.
    """
    total, sets = sum(users), SETS * threads
    slot_users, slot_cells = (total, cells) if slots else (0, 0)

    def zeros(kind: Any, *shape: int) -> NDArray[Any]:
        return separate(shape, kind)

    state = State(
        environments=zeros(ENVIRONMENT, envs),
        users=zeros(USER, envs, total),
        links=zeros(np.float32, envs, total, 3, padded),
        embb=zeros(FLUID, envs, users[0]),
        embb_ring=zeros(np.float64, envs, users[0], rings[0]),
        mmtc=zeros(FLUID, envs, users[2]),
        mmtc_ring=zeros(np.float64, envs, users[2], rings[1]),
        cells=zeros(CELL, envs, cells),
        histogram=zeros(np.float64, envs, 3, BINS),
        slot_users=zeros(SLOT_USER, envs, slot_users),
        slot_cells=zeros(SLOT_CELL, envs, slot_cells),
    )
    scratch = Scratch(
        users=zeros(USER_WORK, sets, total),
        cells=zeros(CELL_WORK, sets, cells),
        received=zeros(np.float32, sets, total, padded),
        pads=zeros(np.float32, sets, 6, padded),
        leaving=zeros(np.float32, sets, -(-total // LANES) * LANES),
        order=zeros(np.int32, sets, total),
        first=zeros(np.int32, sets, cells + 1),
        pick=zeros(np.int32, sets, total),
        finish=zeros(np.float64, sets, total),
        weight=zeros(np.float64, sets, total),
        slot_users=zeros(SLOT_USER_WORK, sets, slot_users),
        slot_cells=zeros(SLOT_CELL_WORK, sets, slot_cells),
    )
    return state, scratch
