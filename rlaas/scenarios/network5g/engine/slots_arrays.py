"""What the slot-by-slot mode keeps beside the arrays of the fluid mode, and the numbers that belong to it alone.

Axes as in :mod:`~rlaas.scenarios.network5g.engine.arrays`; the arrays are empty in a fluid network.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "ANTENNAS",
    "BANDS",
    "CODE_SLOPE",
    "MOST_TRIES",
    "OFFSET_UP_DB",
    "PACE_S",
    "PROCESSES",
    "QUANTILE",
    "QUANTILE_DB",
    "SLOT_CELL",
    "SLOT_CELL_WORK",
    "SLOT_USER",
    "SLOT_USER_WORK",
    "WALKING",
]

BANDS = 8
"""Sub-bands that fade independently. 18 MHz at a delay spread of 0.3 us would have more."""
ANTENNAS = 4
"""Receive antennas of a user, combined by maximum ratio: TS 38.101-1 asks for four in band n78 (3.5 GHz)."""
PROCESSES = 32
"""Room for the blocks of one round trip: 4 ms at 120 kHz."""
CODE_SLOPE = 6.0
"""Slope of the block-error curve in 1/dB on a known channel: 10 % to 1 % within 0.4 dB. The fluid mode's is flatter,
since it stands for the fading inside a step as well."""
OFFSET_UP_DB = 0.5
"""By how much the outer loop backs off after a lost block."""
MOST_TRIES = 4
"""Transmissions of a block before its data go back to the queue."""
PACE_S = 0.1
"""Memory of the scheduler's average rates."""
QUANTILE = 0.01
"""URLLC believes this quantile of its reports, since neighbours go on and off by the slot."""
QUANTILE_DB = 2.0
"""Gain of the estimate: it falls by nearly as much with a report below it and rises by a hundredth with others."""
WALKING = 0.8
"""Least speed of the fading in m/s: around those who stand still others move."""

SLOT_USER = np.dtype(
    [
        ("re", "f4", (BANDS * ANTENNAS,)),  # fading of the serving link, mean power 1 a path
        ("im", "f4", (BANDS * ANTENNAS,)),
        ("report", "f4", (BANDS,)),  # log2(1 + SINR) of the report in use
        ("pending", "f4", (BANDS,)),  # of the report on its way
        ("rate", "f4", (BANDS,)),  # efficiency that the report in use promises
        ("wide_db", "f4"),  # effective SINR of the report in use over all bands
        ("low_db", "f4"),  # low quantile of the reports
        ("x", "f4"),  # where the user was a step ago
        ("y", "f4"),
        ("speed", "f4"),
        ("pace", "f8"),  # average rate that the scheduler sees in Mbit/s; 0 without data
        ("mbit", "f8", (PROCESSES,)),  # blocks in flight: data
        ("sinr", "f4", (PROCESSES,)),  # what has been collected so far, linear
        ("entry", "i2", (PROCESSES,)),
        ("units", "i4", (PROCESSES,)),  # bands (eMBB) or resource blocks (mMTC) they take
        ("tries", "i2", (PROCESSES,)),
    ],
    align=True,
)
SLOT_CELL = np.dtype(
    [
        ("rho", "f4"),  # share of the blocks used in the last slot
        ("taken_s", "f8"),  # of the next step, by URLLC packets of this one
        ("turn", "i8"),  # of the round robin among mMTC users
    ],
    align=True,
)
SLOT_USER_WORK = np.dtype(
    [
        ("signal", "f4"),  # mean received power in mW
        ("memory", "f4"),  # of the fading from slot to slot
        ("shake", "f4"),  # amplitude of what is new
        ("seen", "i8"),  # slot for which present holds
        ("present", "f4", (BANDS,)),  # log2(1 + SINR)
        ("blocked", "i8"),  # slots without service after a handover
        ("queue", "f8"),  # Mbit, in flight or not
        ("flying", "f8"),
        ("carried", "f8"),
        ("delay", "f8"),  # Mbit-seconds, for URLLC packet-seconds
        ("active", "f8"),  # seconds
        ("sent", "i8"),  # new blocks
        ("lost", "i8"),
        ("bands", "i8"),  # in this slot
        ("told", "f8"),  # sums over them
        ("truth", "f8"),
        ("covered", "f8"),  # Mbit that they promise
        ("arrival", "f8"),  # of the next packet, s since the step began
        ("drawn", "i8"),  # packets drawn so far
        ("left", "i8"),  # resource blocks that the packet in service still needs
        ("packets", "f8"),
        ("late", "f8"),
        ("dropped", "f8"),
    ],
    align=True,
)
SLOT_CELL_WORK = np.dtype(
    [
        ("begin", "i8", (4,)),  # where each slice's users begin in Scratch.order
        ("blocks", "i8", (3,)),  # resource blocks, for eMBB bands
        ("used", "i8", (3,)),  # summed over the step, by slot or mini-slot
        ("now", "i8", (3,)),  # in this slot
        ("most", "i8", (3,)),  # largest number in any slot or mini-slot
        ("cycles", "i8"),  # of micro sleep
        ("idle", "i8"),  # that began without work
        ("awake_s", "f8"),  # from when on the cell transmits
        ("minislots", "i8"),  # so far
        ("serving", "i8"),  # URLLC user whose packet is under way, or -1
        ("entry", "i8"),  # of that packet
    ],
    align=True,
)
