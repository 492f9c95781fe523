"""Measured networks: hourly load and energy of base stations, drive tests, and comparisons with them."""

from __future__ import annotations

from rlaas.scenarios.network5g.measured.base_stations import HOURLY_DEMAND, hourly_demand, read_base_stations
from rlaas.scenarios.network5g.measured.drive_tests import (
    DriveTrace,
    Trace,
    read_drive_tests,
    read_traces,
    resample,
    trace_positions,
)

__all__ = [
    "HOURLY_DEMAND",
    "DriveTrace",
    "Trace",
    "hourly_demand",
    "read_base_stations",
    "read_drive_tests",
    "read_traces",
    "resample",
    "trace_positions",
]
