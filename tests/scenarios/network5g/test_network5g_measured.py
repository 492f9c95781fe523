"""Readers of measured data: small tables of known content, and the real ones where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.measured import (
    HOURLY_DEMAND,
    hourly_demand,
    read_base_stations,
    read_drive_tests,
    read_traces,
    resample,
    trace_positions,
)


@pytest.fixture
def data_dir(repository: Path) -> Path:
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data"))
    if not (root / "drive_traces").is_dir():
        pytest.skip(f"{root}/drive_traces is missing; set RLAAS_DATA_DIR to the folder of measured data")
    return root


def drive_table(path: Path, seconds, east_m, **columns) -> Path:
    """A drive test on the equator, where a degree is the same both ways."""
    rows = len(seconds)
    degrees = np.degrees(np.asarray(east_m) / 6_371_000.0)
    table = {
        "trace": ["Download/Driving/a"] * rows,
        "timestamp": np.datetime64("2020-01-01T00:00:00", "us") + np.asarray(seconds) * np.timedelta64(1_000_000, "us"),
        "longitude": degrees,
        "latitude": np.zeros(rows),
        "speed_kmh": np.full(rows, 36),
        "network_mode": ["5G"] * rows,
        "rsrp_dbm": np.full(rows, -90),
        "rsrq_db": np.full(rows, -11.0),
        "snr_db": np.full(rows, 7.0),
        "cqi": np.full(rows, 9.0),
        "dl_kbps": np.full(rows, 2500),
        "raw_cell_id": np.ones(rows, dtype=np.int64),
    }
    parquet.write_table(pa.table(table | columns), path)
    return path


def test_rows_between_renewed_positions_lie_on_the_way(tmp_path):
    # A phone at 10 m/s that tells its position every 100 m: 0 to 9 s at 0 m, 10 to 19 s at 100 m, ...
    seconds = np.arange(71)
    trace = read_drive_tests(drive_table(tmp_path / "t.parquet", seconds, 100.0 * (seconds // 10)))[0]
    assert np.diff(trace.x_m) == pytest.approx(10.0, rel=1e-6)
    assert trace.y_m == pytest.approx(0.0)
    assert trace.distance_m[-1] == pytest.approx(700.0, rel=1e-6)
    assert trace.moves
    assert trace.downloads
    assert trace.speed_m_s[0] == pytest.approx(10.0)
    assert trace.downlink_mbit_s[0] == pytest.approx(2.5)


def test_repeated_seconds_count_once_and_the_last_row_wins(tmp_path):
    seconds = [0, 1, 1, *range(2, 80)]
    path = drive_table(tmp_path / "t.parquet", seconds, np.zeros(81), snr_db=np.arange(81.0))
    trace = read_drive_tests(path)[0]
    assert trace.time_s.tolist() == list(range(80))
    assert trace.snr_db[:3].tolist() == [0.0, 2.0, 3.0]
    assert not trace.moves


def test_gaps_and_jumps_cut_a_trace(tmp_path):
    seconds = np.concatenate([np.arange(100), 150 + np.arange(100)])
    east = np.where(np.arange(200) < 2, 0.0, 5000.0)  # a stale first position
    traces = read_drive_tests(drive_table(tmp_path / "t.parquet", seconds, east))
    assert [t.time_s[-1] for t in traces] == [97.0, 99.0]
    assert [t.time_s[0] for t in traces] == [0.0, 0.0]
    assert all(t.extent_m == 0.0 for t in traces)


def test_what_is_no_rsrp_is_not_a_number(tmp_path):
    modes, levels = ["5G", "HSPA+", "LTE", "LTE"] * 20, [-90, -60, -200, -80] * 20
    path = drive_table(tmp_path / "t.parquet", np.arange(80), np.zeros(80), network_mode=modes, rsrp_dbm=levels)
    trace = read_drive_tests(path)[0]
    assert trace.rsrp_dbm[:4] == pytest.approx([-90.0, np.nan, np.nan, -80.0], nan_ok=True)
    assert np.isnan(trace.snr_db[1])
    assert trace.downlink_mbit_s[1] == 2.5


def test_any_table_of_positions_can_be_replayed(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("trace,time_s,x_m,y_m\nb,12,400,0\nb,10,0,0\na,0,0,0\nb,14,400,100\na,4,300,400\n")
    one, two = read_traces(path)
    assert (one.name, two.name) == ("a", "b")
    assert two.time_s.tolist() == [0.0, 2.0, 4.0]
    positions = resample(two, step_s=0.5)
    assert positions.dtype == np.float32
    assert positions.tolist() == [[100.0 * i, 0] for i in range(5)] + [[400, 25.0 * i] for i in range(1, 5)]
    replay = trace_positions(path, step_s=0.1, minimum_duration_s=0.0)
    assert [p.shape for p in replay] == [(41, 2), (41, 2)]
    assert replay[0][-1].tolist() == [300.0, 400.0]
    with pytest.raises(ConfigurationError, match="no static trace"):
        trace_positions(path, minimum_duration_s=0.0, kind="static")


def test_a_gap_cuts_a_users_trace(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("trace,time_s,x_m,y_m\n1,0,0,0\n1,1,1,0\n1,60,5,0\n1,61,6,0\n")
    assert [t.time_s.tolist() for t in read_traces(path)] == [[0.0, 1.0], [0.0, 1.0]]
    assert len(read_traces(path, maximum_gap_s=100.0)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trace,time_s,x\n1,0,0\n", r"mine.csv misses column\(s\) x_m, y_m; required: trace, time_s, x_m, y_m"),
        ("trace,time_s,x_m,y_m\n1,0,0,0\n1,1,nan,0\n", "x_m of mine.csv is not a finite number in data row 2"),
        ("trace,time_s,x_m,y_m\n1,0,0,0\n1,1,,0\n", "x_m of mine.csv is not a finite number in data row 2"),
        ("trace,time_s,x_m,y_m\n1,0,here,0\n", "x_m of mine.csv holds text; allowed: numbers"),
        ("trace,time_s,x_m,y_m\n", "mine.csv holds no rows"),
        ("trace,time_s,x_m,y_m\n1,0\n", "mine.csv cannot be read"),
    ],
)
def test_bad_traces_are_refused_by_column(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_traces(path)


def test_bad_options_are_refused(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("trace,time_s,x_m,y_m\n1,0,0,0\n1,5,900,0\n")
    with pytest.raises(ConfigurationError, match="step_s is 0"):
        resample(read_traces(path)[0], step_s=0.0)
    with pytest.raises(ConfigurationError, match="unknown kind 'fast'; allowed: all, moving, static"):
        trace_positions(path, kind="fast")
    with pytest.raises(ConfigurationError, match="no file"):
        read_traces(tmp_path / "none.csv")
    with pytest.raises(ConfigurationError, match=r"unknown type; allowed: .csv, .parquet"):
        read_traces(Path(__file__))
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_base_stations(tmp_path / "nowhere")


def test_hourly_demand_is_what_the_base_stations_had(data_dir):
    assert np.mean(HOURLY_DEMAND) == pytest.approx(1.0, abs=1e-4)
    assert hourly_demand(data_dir) == pytest.approx(HOURLY_DEMAND, abs=1e-4)


def test_the_real_base_stations(data_dir):
    data = read_base_stations(data_dir)
    assert np.unique(data.cells.station).size == 763
    assert data.loads.saving.shape == (data.loads.load.size, 6)
    # Transmit powers come out at whole dBm, which is why the unit is believed: 46 dBm for most 20 MHz cells.
    dbm = 10 * np.log10(data.cells.maximum_w * 1e3)
    assert np.mean(np.abs(dbm - np.round(dbm)) < 0.03) > 0.85
    assert np.median(dbm[data.cells.bandwidth_mhz == 20]) == pytest.approx(46.0, abs=0.01)


def test_the_real_drive_tests(data_dir):
    traces = read_drive_tests(data_dir)
    for trace in traces:
        assert (np.diff(trace.time_s) > 0).all()
        assert (np.diff(trace.time_s) <= 10.0).all()
        assert (np.diff(trace.distance_m) / np.diff(trace.time_s) <= 40.0 + 1e-6).all()
        assert not (trace.rsrp_dbm <= -140.0).any()
    moving = [trace for trace in traces if trace.moves]
    assert len(moving) >= 40
    assert 450.0 < sum(trace.distance_m[-1] for trace in moving) / 1e3 < 520.0
    positions = trace_positions(data_dir, step_s=1.0)
    assert len(positions) == len(moving)
    assert all(np.isfinite(p).all() for p in positions)
