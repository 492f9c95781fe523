"""All of a lake's housekeeping in one call, for a timer."""

from __future__ import annotations

import datetime
import time

from rlaas.lake.lifecycle import LakePlan
from rlaas.lake.maintenance import Maintained, maintain
from rlaas.lake.retention import Retained, retain
from rlaas.lake.tables import Lake

__all__ = ["keep_up"]


def keep_up(lake: Lake, plan: LakePlan, *, now_s: float | None = None) -> tuple[list[Maintained], list[Retained]]:
    """Do what is due to the tenant's files, and bring old rows to the place of their age.

    It costs little where nothing is due, and may run in several processes at the same time.

    Args:
        lake: the tables.
        plan: what is due when, and where rows go.
        now_s: seconds since 1970; default the clock's.

    Raises:
        LakeError: a table is damaged, or others committed before every attempt.
    """
    now = time.time() if now_s is None else now_s
    moved = retain(lake, plan.retention, today=datetime.datetime.fromtimestamp(now, datetime.UTC).date())
    return maintain(lake, plan.maintenance, now_s=now), moved
