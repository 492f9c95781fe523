"""The volume clause: how often it alarms where nothing is wrong, and what it finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_lake_validation import append, decided

from rlaas.lake import Lake
from rlaas.lake.rows import decision_rows
from rlaas.lake.validation import TableContract, ValidationConfig, VolumeConfig, validate
from rlaas.lake.validation.volume import HOUR_US, check_volume, robust_z, threshold

NOW_US = 500_000 * HOUR_US + 1234  # a little after a full hour


def times(per_hour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """So many arrivals in each of the hours before now, the oldest first; before them one, and some in this hour."""
    first = 500_000 - len(per_hour)
    hours = np.repeat(np.arange(first, 500_000), per_hour)
    arrivals = hours * HOUR_US + rng.integers(0, HOUR_US, len(hours))
    return np.concatenate([[first * HOUR_US - 1], arrivals, np.full(5, NOW_US)])


@pytest.mark.parametrize("days", [7, 14, 28])
def test_the_threshold_is_exceeded_as_often_as_it_says(days: int) -> None:
    # An oracle that shares nothing with the code but the definition: draw, count.
    rng = np.random.default_rng(days)
    counts = np.rint(rng.normal(1e6, 2e4, (days + 1, 100_000))).astype(np.int64)
    alarms = int((np.abs(robust_z(counts[0], counts[1:])) > threshold(days, 0.01)).sum())
    assert stats.binomtest(alarms, 100_000, 0.01).pvalue > 1e-4
    with_normal_quantile = float((np.abs(robust_z(counts[0], counts[1:])) > stats.norm.isf(0.005)).mean())
    assert with_normal_quantile > 0.015


def test_poisson_traffic_alarms_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(3)
    config = VolumeConfig(days=14, false_alarm_rate=0.05)
    daily = 40 + 30 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    alarms = 0
    for _ in range(200):
        found = check_volume(times(rng.poisson(np.tile(daily, 15)), rng), NOW_US, config)
        assert found.measured is not None
        alarms += not found.passed
    assert alarms <= stats.binom.isf(1e-4, 200, 0.05)


@pytest.mark.parametrize(("factor", "hour"), [(0.3, 5), (0.0, 0), (2.5, 23)])
def test_an_hour_unlike_the_same_hour_of_earlier_days_is_named(factor: float, hour: int) -> None:
    rng = np.random.default_rng(7)
    counts = rng.poisson(1000 + 500 * np.sin(np.tile(np.arange(24), 15) / 24 * 2 * np.pi))
    counts[-24 + hour] = int(counts[-24 + hour] * factor)
    found = check_volume(times(counts, rng), NOW_US, VolumeConfig(days=14))
    assert not found.passed
    assert (found.measured > 0) == (factor > 1)
    assert found.detail.startswith(f"{(500_000 - 24 + hour) % 24:02d}:00 had {counts[-24 + hour]} rows, median of 14 ")


def test_a_daily_cycle_is_no_anomaly() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(np.tile([2000.0] * 8 + [10.0] * 16, 15))
    assert check_volume(times(counts, rng), NOW_US, VolumeConfig(days=14)).passed


@pytest.mark.parametrize("days", [0, 1, 6])
def test_without_enough_days_nothing_is_judged(days: int) -> None:
    rng = np.random.default_rng(1)
    counts = np.full(24 * (days + 1), 100)
    counts[-1] = 0
    found = check_volume(times(counts, rng), NOW_US, VolumeConfig())
    assert (found.passed, found.measured) == (True, None)
    assert f"{days} days of history" in found.detail


def test_the_clause_stands_in_the_report(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rng = np.random.default_rng(5)
    counts = np.full(24 * 9, 3)
    counts[-3:] = 60
    rows = [decided(f"d{i}", time_us=int(at)) for i, at in enumerate(times(counts, rng))]
    append(lake, "bronze.decisions", decision_rows(rows))
    contract = TableContract(volume=VolumeConfig(days=8, false_alarm_rate=0.1))
    (report,) = validate(lake, ValidationConfig(tables={"bronze.decisions": contract}), now_us=NOW_US)
    (volume,) = [check for check in report.checks if check.name == "volume"]
    assert not volume.passed
    assert volume.detail.endswith("had 60 rows, median of 8 days 3")
