"""Drive tests: positions and radio measurements of one phone, and positions of any user's own traces.

The public set (Raca et al., "Beyond throughput, the next generation: a 5G dataset with channel and context metrics",
ACM MMSys 2020; github.com/uccmisl/5Gdataset, GPL-3.0) was taken by an Android app in and around Cork in the winter of
2019/20, driving and standing still, while downloading or watching video. What it is and is not:

- 5G means non-standalone: LTE anchors the connection and RSRP, RSRQ and SNR are whatever the phone reported then. In
  3G the same columns hold other quantities, so those rows carry NaN here, and so does the sentinel -200 dBm.
- Rows come once a second, but the position is renewed only about every 100 m driven (and the speed with it). Between
  two renewals the true path is unknown: it is drawn as a straight line at constant speed.
- Two labels are wrong: a "static" trace drives and a "driving" one stands. ``moves`` looks at the positions instead.
- Throughput is what the application asked for; only ``Download`` traces show what the network could give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice
from rlaas.scenarios.network5g.measured.sources import data_directory, read_columns

__all__ = ["DriveTrace", "Trace", "read_drive_tests", "read_traces", "resample", "trace_positions"]

FloatArray = NDArray[np.float64]
AnyTrace = TypeVar("AnyTrace", bound="Trace")

EARTH_RADIUS_M = 6_371_000.0
MAXIMUM_SPEED_M_S = 40.0  # the fastest speed that the phone itself reported is 29
NO_RSRP_DBM = -140.0  # TS 38.133 reports nothing below -156, LTE nothing below -140
_DRIVE_COLUMNS = (
    "trace",
    "timestamp",
    "longitude",
    "latitude",
    "speed_kmh",
    "network_mode",
    "rsrp_dbm",
    "rsrq_db",
    "snr_db",
    "cqi",
    "dl_kbps",
    "raw_cell_id",
)
_TRACE_COLUMNS = ("trace", "time_s", "x_m", "y_m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Where one device was; arrays [rows], times strictly growing from 0."""

    name: str
    time_s: FloatArray
    x_m: FloatArray
    y_m: FloatArray

    @property
    def extent_m(self) -> float:
        """Diagonal of the smallest box around the trace."""
        return float(np.hypot(np.ptp(self.x_m), np.ptp(self.y_m)))

    @property
    def distance_m(self) -> FloatArray:
        """Way driven since the start [rows]."""
        steps = np.hypot(np.diff(self.x_m), np.diff(self.y_m))
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def moves(self) -> bool:
        """True if the device got more than 200 m around: twice the distance at which the app renews a position."""
        return self.extent_m > 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveTrace(Trace):
    """A trace with measurements [rows]; NaN where the phone reported none.

    ``x_m`` points east and ``y_m`` north from one common origin of all traces. ``network`` is ``"5G"``, ``"LTE"`` or
    an older one; ``cell`` identifies the serving cell.
    """

    speed_m_s: FloatArray
    network: NDArray[Any]
    rsrp_dbm: FloatArray
    rsrq_db: FloatArray
    snr_db: FloatArray
    cqi: FloatArray
    downlink_mbit_s: FloatArray
    cell: NDArray[np.int64]

    @property
    def downloads(self) -> bool:
        """True if the application took all that the network could give."""
        return self.name.startswith("Download/")


def read_drive_tests(
    source: str | Path | None = None, *, maximum_gap_s: float = 10.0, minimum_duration_s: float = 60.0
) -> tuple[DriveTrace, ...]:
    """Read and clean the drive tests.

    Of rows with the same second the last one counts. A trace is cut where rows are missing for longer than
    ``maximum_gap_s`` and where the position jumps faster than 40 m/s (a stale first position), and pieces shorter than
    ``minimum_duration_s`` are dropped.

    Args:
        source: the table, or a folder that holds ``drive_traces/train.parquet``; default: ``RLAAS_DATA_DIR``.
        maximum_gap_s: longest time without a row.
        minimum_duration_s: shortest piece kept.

    Raises:
        ConfigurationError: no data, or columns missing.
    """
    path = Path(source) if source is not None else None
    if path is None or path.is_dir():
        path = data_directory(path) / "drive_traces" / "train.parquet"
    table = read_columns(path, _DRIVE_COLUMNS)
    seconds = table["timestamp"].astype("datetime64[s]").astype(np.int64)
    x_m, y_m = _tangent_plane(table["latitude"], table["longitude"])
    traces: list[DriveTrace] = []
    for name, rows in _groups(table["trace"], seconds):
        radio = np.isin(table["network_mode"][rows], ["5G", "LTE"]) & (table["rsrp_dbm"][rows] > NO_RSRP_DBM)

        def measured(column: str, rows: NDArray[np.int64] = rows, valid: NDArray[np.bool_] = radio) -> FloatArray:
            return np.where(valid, table[column][rows], np.nan)

        whole = DriveTrace(
            name=name,
            time_s=(seconds[rows] - seconds[rows[0]]).astype(np.float64),
            x_m=x_m[rows],
            y_m=y_m[rows],
            speed_m_s=table["speed_kmh"][rows] / 3.6,
            network=table["network_mode"][rows],
            rsrp_dbm=measured("rsrp_dbm"),
            rsrq_db=measured("rsrq_db"),
            snr_db=measured("snr_db"),
            cqi=measured("cqi"),
            downlink_mbit_s=table["dl_kbps"][rows] / 1e3,
            cell=table["raw_cell_id"][rows],
        )
        cuts = _cuts(whole, maximum_gap_s)
        traces += [_between_renewals(piece) for piece in _pieces(whole, cuts, minimum_duration_s)]
    return tuple(traces)


def read_traces(path: str | Path, *, maximum_gap_s: float = 10.0, minimum_duration_s: float = 0.0) -> tuple[Trace, ...]:
    """Read any user's traces: a CSV or parquet file with the columns ``trace, time_s, x_m, y_m``.

    Rows may come in any order; of rows with the same time the last one counts. A trace is cut where rows are missing
    for longer than ``maximum_gap_s``.

    Raises:
        ConfigurationError: no such file, missing columns, no rows, or a value that is not a finite number.
    """
    table = read_columns(Path(path), _TRACE_COLUMNS)
    numbers: dict[str, FloatArray] = {}
    for column in _TRACE_COLUMNS[1:]:
        try:
            numbers[column] = table[column].astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{column} of {Path(path).name} holds text; allowed: numbers", field=column
            ) from error
        bad = np.flatnonzero(~np.isfinite(numbers[column]))
        if bad.size:
            raise ConfigurationError(
                f"{column} of {Path(path).name} is not a finite number in data row {bad[0] + 1}", field=column
            )
    if not table["trace"].size:
        raise ConfigurationError(f"{Path(path).name} holds no rows", field="path")
    traces: list[Trace] = []
    for name, rows in _groups(table["trace"], numbers["time_s"]):
        time, x_m, y_m = (numbers[column][rows] for column in _TRACE_COLUMNS[1:])
        whole = Trace(name=name, time_s=time - time[0], x_m=x_m, y_m=y_m)
        cuts = np.flatnonzero(np.diff(whole.time_s) > maximum_gap_s) + 1
        traces += _pieces(whole, cuts, minimum_duration_s)
    return tuple(traces)


def resample(trace: Trace, step_s: float = 0.1) -> NDArray[np.float32]:
    """Positions [steps, 2] in m at even times, on straight lines between the rows.

    Raises:
        ConfigurationError: ``step_s`` is not a positive number.
    """
    if not (np.isfinite(step_s) and step_s > 0.0):
        raise ConfigurationError(f"step_s is {step_s}; allowed: a positive number of seconds", field="step_s")
    # A whole number of steps, not arange with a fractional one: its length must not hang on rounding.
    time = step_s * np.arange(int(np.floor(trace.time_s[-1] / step_s + 1e-9)) + 1)
    both = [np.interp(time, trace.time_s, axis) for axis in (trace.x_m, trace.y_m)]
    return np.ascontiguousarray(np.column_stack(both), dtype=np.float32)


def trace_positions(
    source: str | Path | None = None, *, step_s: float = 0.1, minimum_duration_s: float = 60.0, kind: str = "moving"
) -> list[NDArray[np.float32]]:
    """Positions to replay, one array [steps, 2] in m for each trace.

    Args:
        source: a file of :func:`read_traces`, a folder or a table of :func:`read_drive_tests`, told apart by the
            columns; default: the drive tests under ``RLAAS_DATA_DIR``.
        step_s: time between two positions.
        minimum_duration_s: shorter traces are left out.
        kind: ``"moving"``, ``"static"`` or ``"all"``, by the positions.

    Raises:
        ConfigurationError: as the readers; an unknown ``kind``; no trace is left.
    """
    check_choice(kind, ("moving", "static", "all"), field="kind")
    traces: Sequence[Trace]
    path = Path(source) if source is not None else None
    if path is None or path.is_dir() or _is_drive_table(path):
        traces = read_drive_tests(path, minimum_duration_s=minimum_duration_s)
    else:
        traces = read_traces(path, minimum_duration_s=minimum_duration_s)
    chosen = [trace for trace in traces if kind == "all" or trace.moves == (kind == "moving")]
    if not chosen:
        raise ConfigurationError(
            f"no {'' if kind == 'all' else kind + ' '}trace of at least {minimum_duration_s:g} s in {source}"
            + ("" if kind == "all" else f"; {len(traces)} of other kinds"),
            field="source",
        )
    return [resample(trace, step_s) for trace in chosen]


def _is_drive_table(path: Path) -> bool:
    """True for a table in the drive tests' own columns, False for anything else, which then fails by name."""
    columns = read_columns(path, (), ("longitude", "latitude", "timestamp", "x_m"))
    return {"longitude", "latitude", "timestamp"} <= columns.keys() and "x_m" not in columns


def _tangent_plane(latitude: FloatArray, longitude: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Metres east and north of the median position, on the plane that touches the sphere there."""
    centre = float(np.median(latitude)), float(np.median(longitude))
    east = EARTH_RADIUS_M * np.cos(np.radians(centre[0])) * np.radians(longitude - centre[1])
    return east, EARTH_RADIUS_M * np.radians(latitude - centre[0])


def _groups(names: NDArray[Any], time: NDArray[Any]) -> list[tuple[str, NDArray[np.int64]]]:
    """Rows of each trace in the order of time, the last row of each time."""
    unique, number = np.unique(names.astype(str), return_inverse=True)
    order = np.lexsort((time, number))  # stable: rows of the same time stay in the order of the file
    ends = np.cumsum(np.bincount(number, minlength=unique.size))
    groups = []
    for name, rows in zip(unique.tolist(), np.split(order, ends[:-1]), strict=True):
        last = np.append(np.diff(time[rows]) > 0, True)
        groups.append((name, rows[last]))
    return groups


def _renewals(trace: Trace) -> NDArray[np.int64]:
    """Rows at which the position is a new one, the first included."""
    return np.flatnonzero(np.append(True, (np.diff(trace.x_m) != 0) | (np.diff(trace.y_m) != 0)))


def _cuts(trace: Trace, maximum_gap_s: float) -> NDArray[np.int64]:
    """Rows at which a new piece begins: after a gap in time, and after a jump in position."""
    gaps = np.flatnonzero(np.diff(trace.time_s) > maximum_gap_s) + 1
    rows = _renewals(trace)
    way = np.hypot(np.diff(trace.x_m[rows]), np.diff(trace.y_m[rows]))
    jumps = rows[1:][way > MAXIMUM_SPEED_M_S * np.diff(trace.time_s[rows])]
    return np.union1d(gaps, jumps)


def _pieces(trace: AnyTrace, cuts: NDArray[np.int64], minimum_duration_s: float) -> list[AnyTrace]:
    """The trace cut before the given rows, each piece from time 0, the long ones only."""
    pieces = []
    for rows in np.split(np.arange(trace.time_s.size), cuts):
        time = trace.time_s[rows] - trace.time_s[rows[0]]
        if time[-1] >= minimum_duration_s:
            columns = {f.name: getattr(trace, f.name) for f in fields(trace)}
            cut = {name: values[rows] for name, values in columns.items() if name != "name"}
            pieces.append(replace(trace, **(cut | {"time_s": time})))
    return pieces


def _between_renewals(trace: DriveTrace) -> DriveTrace:
    """Put the rows between two renewed positions on the straight line between them."""
    rows = _renewals(trace)
    x_m, y_m = (np.interp(trace.time_s, trace.time_s[rows], axis[rows]) for axis in (trace.x_m, trace.y_m))
    return replace(trace, x_m=x_m, y_m=y_m)
