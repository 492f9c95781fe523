"""Comparisons of distributions and statistics along a way, against closed forms and scipy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import lfilter
from scipy.stats import ks_2samp

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g.measured import read_drive_tests
from rlaas.scenarios.network5g.measured.comparison import QUANTILES, compare, plot_distributions
from rlaas.scenarios.network5g.measured.spatial import rsrp_paths, spatial_statistics, speeds_m_s

samples = arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3, allow_subnormal=False))


def test_a_shifted_sample_is_that_far_away():
    real = np.arange(1001) / 10.0
    found = compare(real + 7.0, real, "RSRP", "dB")
    assert found.wasserstein == pytest.approx(7.0)
    assert found.median_shift == pytest.approx(7.0)
    assert found.shape_iqr == pytest.approx(0.0, abs=1e-9)
    assert found.wasserstein_iqr == pytest.approx(7.0 / 50.0)
    # 70 of 1001 values of one sample lie below all of the other.
    assert found.ks == pytest.approx(70 / 1001)
    assert [q.level for q in found.quantiles] == list(QUANTILES)
    assert all(q.simulated - q.measured == pytest.approx(7.0) for q in found.quantiles)


def test_normals_of_another_width_differ_by_the_closed_form():
    # W1 of N(0, 1) and N(0, 3^2) is |3 - 1| E|Z| = 2 sqrt(2 / pi); the interquartile range of N(0, 1) is 1.34898.
    rng = np.random.default_rng(1)
    found = compare(3.0 * rng.standard_normal(200_000), rng.standard_normal(200_000), "x", "1")
    assert found.wasserstein == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.01)
    assert found.wasserstein_iqr == pytest.approx(2 * np.sqrt(2 / np.pi) / 1.34898, rel=0.015)
    assert found.shape_iqr == pytest.approx(found.wasserstein_iqr, rel=0.01)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:scipy")  # of the p-value, which nobody asked for
@given(first=samples, second=samples)
def test_the_distance_is_a_distance(first, second):
    there, back = compare(first, second, "x", "1"), compare(second, first, "x", "1")
    assert there.wasserstein == pytest.approx(back.wasserstein, abs=1e-9)
    assert there.wasserstein >= abs(np.mean(first) - np.mean(second)) - 1e-6
    assert there.ks == pytest.approx(ks_2samp(first, second, method="asymp").statistic)
    assert compare(first, first, "x", "1").wasserstein == 0.0


def test_a_constant_measured_sample_has_no_range_to_compare_with():
    found = compare([1.0, 2.0], [5.0, 5.0, np.nan], "cqi", "1")
    assert found.wasserstein == pytest.approx(3.5)
    assert (found.wasserstein_iqr, found.shape_iqr, found.n_measured) == (None, None, 2)


@pytest.mark.parametrize(("values", "message"), [([], "holds no values"), ([np.nan], "no values"), ([np.inf], "inf")])
def test_bad_samples_are_refused(values, message):
    with pytest.raises(InvalidInputError, match=message):
        compare([1.0], values, "RSRP", "dBm")
    with pytest.raises(InvalidInputError, match=r"RSRP \(simulated\)"):
        plot_distributions(values, [1.0], "RSRP", "dBm")


def test_the_picture_shows_both_cumulative_distributions(tmp_path):
    figure = plot_distributions([3.0, 1.0, 2.0, np.nan], [2.0, 4.0], "RSRP", "dBm")
    simulated, measured = figure.axes[0].lines
    assert simulated.get_xdata().tolist() == [1.0, 2.0, 3.0]
    assert measured.get_ydata().tolist() == [0.5, 1.0]
    assert figure.axes[0].get_xlabel() == "RSRP [dBm]"
    figure.savefig(tmp_path / "cdf.png")
    assert (tmp_path / "cdf.png").read_bytes().startswith(b"\x89PNG")


def ar1_paths(decorrelation_m: float, sigma: float, paths: int = 40) -> list[tuple[np.ndarray, np.ndarray]]:
    """Shadowing with an exponential correlation, a value each 10 m of 20 km."""
    rng = np.random.default_rng(3)
    rho = np.exp(-10.0 / decorrelation_m)
    steps = rng.standard_normal((paths, 2000)) * sigma * np.sqrt(1 - rho**2)
    steps[:, 0] = sigma * rng.standard_normal(paths)
    values = lfilter([1.0], [1.0, -rho], steps)
    return [(10.0 * np.arange(2000) + 1.0, row) for row in values]


def test_exponential_correlation_is_found_again():
    found = spatial_statistics(ar1_paths(50.0, 6.0))
    assert found.sigma_db == pytest.approx(6.0, rel=0.03)
    assert found.decorrelation_m == pytest.approx(50.0, rel=0.08)
    assert found.correlation[:11] == pytest.approx(np.exp(-found.lag_m[:11] / 50.0), abs=0.03)
    # Differences are normal with variance 2 sigma^2 (1 - r); the median of |N| is 0.6745.
    expected = 0.6745 * 6.0 * np.sqrt(2 * (1 - np.exp(-found.lag_m / 50.0)))
    assert found.change_db == pytest.approx(expected, rel=0.04, abs=1e-9)
    assert found.pairs[:2].tolist() == [40 * 2000, 40 * 1999]


def test_a_trend_is_taken_off():
    paths = [(d, v + 0.05 * d) for d, v in ar1_paths(30.0, 4.0)]
    assert spatial_statistics(paths).decorrelation_m is None, "the slope alone keeps the way correlated"
    flat = spatial_statistics(paths, trend_m=1000.0)
    assert flat.decorrelation_m == pytest.approx(30.0, rel=0.2)
    assert flat.sigma_db == pytest.approx(4.0, rel=0.1)


def test_time_standing_still_counts_once():
    way = np.concatenate([np.zeros(500), 10.0 * np.arange(1, 100)])
    level = np.concatenate([np.full(500, 3.0), np.arange(1, 100) % 2])
    found = spatial_statistics([(way, level)])
    assert found.pairs[0] == 100


def test_nothing_to_correlate_is_refused():
    with pytest.raises(InvalidInputError, match="no path holds two values"):
        spatial_statistics([(np.array([0.0, 5.0]), np.array([np.nan, np.nan]))])


def test_the_real_drives_decorrelate_within_a_block(repository):
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data"))
    if not (root / "drive_traces").is_dir():
        pytest.skip(f"{root}/drive_traces is missing; set RLAAS_DATA_DIR to the folder of measured data")
    moving = [trace for trace in read_drive_tests(root) if trace.moves]
    found = spatial_statistics(rsrp_paths(moving), trend_m=500.0)
    assert 30.0 < found.decorrelation_m < 80.0
    assert 4.0 < found.sigma_db < 8.0
    assert speeds_m_s(moving).min() >= 0.0
    assert speeds_m_s(moving).max() <= 40.0
