"""The calibration report: drives keep to their traces, halves are disjoint, and the page says what does not fit."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaas.errors import ConfigurationError
from rlaas.scenarios import load
from rlaas.scenarios.network5g.capabilities import capacity, urllc_delay
from rlaas.scenarios.network5g.measured import DriveTrace, read_drive_tests
from rlaas.scenarios.network5g.measured.report import cut_path, halves, measured_handovers
from rlaas.scenarios.network5g.measured.simulated import DriveLayout, simulate_drive

URBAN = DriveLayout(propagation="uma", inter_site_m=500.0, load="low")


@pytest.fixture
def data_dir(repository: Path) -> Path:
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data"))
    if not (root / "drive_traces").is_dir():
        pytest.skip(f"{root}/drive_traces is missing; set RLAAS_DATA_DIR to the folder of measured data")
    return root


def _straight(speed_m_s: float, seconds: int) -> np.ndarray:
    return np.stack([0.1 * speed_m_s * np.arange(10 * seconds), np.zeros(10 * seconds)], axis=1).astype(np.float32)


def _trace(name: str, cells: list[int]) -> DriveTrace:
    n = len(cells)
    numbers = np.arange(n, dtype=np.float64)
    return DriveTrace(
        name=name,
        time_s=numbers,
        x_m=100.0 * numbers,
        y_m=np.zeros(n),
        speed_m_s=np.full(n, 100.0),
        network=np.full(n, "5G"),
        rsrp_dbm=np.full(n, -80.0),
        rsrq_db=np.full(n, -10.0),
        snr_db=np.full(n, 5.0),
        cqi=np.full(n, 9.0),
        downlink_mbit_s=np.full(n, 10.0),
        cell=np.array(cells),
    )


def test_phones_drive_as_their_trace_says_even_across_the_edge_of_the_plane() -> None:
    drive = simulate_drive(URBAN, [_straight(20.0, 200)], networks=2, seconds=60, seed=3)
    # 2 networks of 21 cells with 10 users each, a fifth of them machines that stand still.
    phones = 2 * 21 * 8
    assert drive.speed_m_s.size == 60 * phones
    np.testing.assert_allclose(drive.speed_m_s, 20.0, rtol=1e-3)
    assert drive.way_km == pytest.approx(1.2 * phones, rel=1e-3)
    assert len(drive.paths) == phones
    assert all(distance[0] == 0 and distance[-1] == pytest.approx(1200.0, rel=1e-3) for distance, _ in drive.paths)
    assert drive.rsrp_dbm.size == drive.sinr_db.size == 61 * phones
    assert 0 < drive.handovers < drive.way_km * 50


def test_rsrp_is_received_power_per_resource_element() -> None:
    """At most 46 dBm over 51 x 12 subcarriers through the antenna's 8 + 9 dB, and no more than free space lets pass."""
    drive = simulate_drive(URBAN, [_straight(10.0, 100)], networks=1, seconds=20, seed=0)
    nearest_m = math.hypot(10.0, 25.0 - 1.5)
    free_space_db = 32.4 + 20 * math.log10(nearest_m / 1e3) + 20 * math.log10(3500.0)
    assert drive.rsrp_dbm.max() < 46.0 - 10 * math.log10(12 * 51) + 8.0 + 9.03 - free_space_db
    assert drive.rsrp_dbm.min() > -140.0
    assert -110.0 < np.median(drive.rsrp_dbm) < -60.0


def test_sites_farther_apart_are_heard_less() -> None:
    positions = [_straight(10.0, 100)]
    near, far = (
        simulate_drive(replace(URBAN, inter_site_m=distance), positions, networks=1, seconds=20, seed=0)
        for distance in (300.0, 1000.0)
    )
    # NLOS falls by 39 dB per decade: 20 dB for a factor of 3.3; fewer phones see a site that is farther away.
    assert 12.0 < np.median(near.rsrp_dbm) - np.median(far.rsrp_dbm) < 35.0


def test_the_same_seed_drives_the_same_way() -> None:
    first, second = (simulate_drive(URBAN, [_straight(15.0, 60)], networks=1, seconds=5, seed=9) for _ in range(2))
    np.testing.assert_array_equal(first.rsrp_dbm, second.rsrp_dbm)
    assert first.handovers == second.handovers


def test_halves_share_no_drive_and_keep_pieces_together() -> None:
    traces = [_trace(f"drive {i // 2}", [1, 1]) for i in range(40)]
    first, second = halves(traces)
    assert len(first) + len(second) == 40
    assert not {t.name for t in first} & {t.name for t in second}
    with pytest.raises(ConfigurationError, match="cannot be dealt into two halves"):
        halves(traces[:2])


def test_handovers_are_changes_of_cell_by_km() -> None:
    assert measured_handovers([_trace("a", [1, 1, 2, 2, 3, 1]), _trace("b", [4] * 6)]) == pytest.approx(3 / 1.0)


def test_a_way_is_cut_into_pieces_that_begin_at_0() -> None:
    pieces = cut_path((np.arange(11.0) * 10, np.arange(11.0)), 4)
    assert [piece[0].tolist() for piece in pieces] == [[0, 10, 20, 30], [0, 10, 20, 30], [0, 10, 20]]
    assert pieces[1][1].tolist() == [4, 5, 6, 7]


def test_measured_handovers_are_those_of_the_data(data_dir: Path) -> None:
    moving = [trace for trace in read_drive_tests(data_dir) if trace.moves]
    assert measured_handovers(moving) == pytest.approx(3.55, abs=0.01)
    first, second = halves(moving)
    assert min(len(first), len(second)) > 15


def test_the_quick_report_covers_everything_and_says_what_does_not_fit(data_dir: Path, tmp_path: Path) -> None:
    report = load("network5g").calibration(data_dir, quick=True)
    titles = [section.title for section in report.sections]
    assert len(titles) == 5
    energy, demand, layouts, distributions, spatial = report.sections
    # Fits beat EARTH on unseen stations of every type.
    assert all(row[4] < row[7] for row in energy.rows)
    assert [row[0] for row in demand.rows] == list(range(0, 24, 3))
    scores = [row[-1] for row in layouts.rows]
    assert scores == sorted(scores)
    by_name = {row[0]: row for row in distributions.rows}
    assert set(by_name) == {"RSRP", "SINR", "throughput", "speed"}
    for row in by_name.values():
        limit = {"close": 0.15, "rough": 0.35, "does not fit": np.inf}[row[-1]]
        assert row[2] <= limit
        assert f"{row[0]} " in report.summary[1]
    assert ("does not fit" in report.summary[1]) == any(row[-1] == "does not fit" for row in by_name.values())
    assert spatial.rows[-1][0] == "handovers per km"
    page = report.write(tmp_path, "calibration")
    for name in ("energy", "demand", "rsrp", "sinr", "throughput", "speed", "spatial"):
        assert (tmp_path / f"calibration-{name}.png").is_file()
        assert f"calibration-{name}.png" in page.read_text(encoding="utf-8")


def test_missing_measurements_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLAAS_DATA_DIR", raising=False)
    with pytest.raises(ConfigurationError, match="set RLAAS_DATA_DIR"):
        load("network5g").calibration()
    with pytest.raises(ConfigurationError, match=r"cells\.parquet"):
        load("network5g").calibration(tmp_path)


def test_more_blocks_for_urllc_wait_less() -> None:
    few, many = (urllc_delay({"load": "high"}, {"urllc_share": share}, networks=2, steps=40) for share in (0.0625, 1.0))
    assert many.late < few.late
    assert many.mean_ms < few.mean_ms
    assert many.reliable > few.reliable
    assert many.p99_ms <= many.p99999_ms


def test_capacity_grows_with_bandwidth_and_layers() -> None:
    """Peak: 273 blocks of 12 x 30 kHz, 14 symbols in the time of 15, 14 % overhead, 7.4063 bit a symbol, 8/9 of it."""
    shares = {"embb_share": 1.0, "urllc_share": 0.0625, "mmtc_share": 0.0625}
    wide = {"bandwidth_mhz": 100.0, "modulation": "256qam", "cells": 1}
    one = capacity({**wide, "layers": 1}, shares, networks=2, steps=20)
    four = capacity({**wide, "layers": 4}, shares, networks=2, steps=20)
    assert one.peak == pytest.approx(273 * 12 * 0.03 * 14 / 15 * 0.86 * 7.4063 * 8 / 9, rel=1e-3)
    assert four.peak == pytest.approx(4 * one.peak)
    assert one.mean < four.mean
    assert four.busy < one.busy < 1.0 + 1e-6
    assert one.mean <= one.best + 1e-9
