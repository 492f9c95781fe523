"""Which of the platform's processes wait for which."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["BEHIND_SERVING", "give_way"]

BEHIND_SERVING = 10
"""Niceness of what nobody waits for by the millisecond; the Gateways have 0 (see :mod:`rlaas.serving.environment`)."""


def give_way(niceness: int = BEHIND_SERVING) -> None:
    """Let this process have what the Gateways of the machine leave.

    A commit to the lake keeps two processors busy for a tenth of a second, and a decision must not wait for that. Linux
    keeps a niceness for each thread, so all that there are get it; later ones inherit it. One that is nicer stays so.
    """
    for task in Path("/proc/self/task").iterdir():
        try:
            if os.getpriority(os.PRIO_PROCESS, int(task.name)) < niceness:
                os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)
        except ProcessLookupError:
            continue  # it has ended meanwhile
