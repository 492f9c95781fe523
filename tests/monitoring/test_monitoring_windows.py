"""Columns of windows against references: equal to SciPy, whatever the columns hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.monitoring.windows import ColumnReference, chi_square, psi_of_counts

NUMBERS = st.one_of(
    st.floats(-1e6, 1e6), st.integers(-3, 3).map(float), st.sampled_from([0.0, -0.0, 1e-300, 1e100, 2.5])
)
COLUMN = st.integers(2, 300).flatmap(lambda n: arrays(np.float64, n, elements=NUMBERS))


@settings(max_examples=60, deadline=None)
@given(before=COLUMN, now=COLUMN)
def test_distance_and_p_value_are_scipys(before: np.ndarray, now: np.ndarray) -> None:
    (found,) = ColumnReference(before[:, None], workers=1).compare(now[:, None])
    theirs = stats.ks_2samp(before, now, method="asymp")
    assert found.statistic == pytest.approx(theirs.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-12)
    assert found.psi >= 0


@pytest.mark.parametrize("law", ["normal", "few values", "heavy tails", "shifted"])
def test_many_bins_change_nothing(law: str) -> None:
    rng = np.random.default_rng(1)
    draw = {
        "normal": lambda: rng.normal(size=(20_000, 3)),
        "few values": lambda: rng.integers(0, 7, (20_000, 3)).astype(float),
        "heavy tails": lambda: rng.standard_cauchy((20_000, 3)),
        "shifted": lambda: rng.normal(size=(20_000, 3)),
    }[law]
    before, now = draw(), draw()[:15_001] + (0.3 if law == "shifted" else 0.0)
    found = ColumnReference(before, workers=2).compare(np.asfortranarray(now))
    for column, one in enumerate(found):
        theirs = stats.ks_2samp(before[:, column], now[:, column], method="asymp")
        assert (one.statistic, one.p_value) == (
            pytest.approx(theirs.statistic, abs=1e-12),
            pytest.approx(theirs.pvalue, rel=1e-9),
        )
        edges = np.quantile(before[:, column], np.arange(1, 10) / 10)
        if law in ("normal", "shifted"):  # bins of whole shares, give or take a value at each edge
            counts = [np.bincount(np.searchsorted(edges, x[:, column]), minlength=10) for x in (before, now)]
            assert one.psi == pytest.approx(psi_of_counts(*counts), abs=2e-3)
    assert all((one.psi > 0.05) == (law == "shifted") for one in found)


def test_what_is_no_number_is_left_out_and_the_rest_counts() -> None:
    rng = np.random.default_rng(2)
    before, now = rng.normal(size=(500, 2)), rng.normal(size=(400, 2))
    spoiled = np.vstack([now, [[np.nan, 1.0], [np.inf, 2.0], [-np.inf, 3.0]]])
    clean = ColumnReference(before).compare(now)[0]
    assert ColumnReference(before).compare(spoiled)[0] == clean
    with pytest.raises(InvalidInputError, match="column 1 holds no finite number"):
        ColumnReference(before).compare(np.array([[0.0, np.nan]]))
    with pytest.raises(InvalidInputError, match="column 0 holds no finite number"):
        ColumnReference(np.full((3, 1), np.nan))
    with pytest.raises(InvalidInputError, match="window has 1 columns and the reference 2"):
        ColumnReference(before).compare(now[:, :1])
    with pytest.raises(InvalidInputError, match="must be a matrix"):
        ColumnReference(before[:, 0])


def test_a_column_that_never_moved_and_does() -> None:
    reference = ColumnReference(np.ones((100, 1)))
    (same,) = reference.compare(np.ones((50, 1)))
    (moved,) = reference.compare(np.full((50, 1), 2.0))
    assert (same.statistic, same.p_value, same.psi, same.shift) == (0.0, 1.0, 0.0, 0.0)
    assert (moved.statistic, moved.shift) == (1.0, np.inf)
    assert moved.psi > 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=9))
def test_counts_are_compared_as_scipy_does(pairs: list[tuple[int, int]]) -> None:
    before, now = np.array(pairs).T
    seen = (before + now) > 0
    if not before.sum() or not now.sum() or seen.sum() < 2:
        assert chi_square([5, 0], [3, 0]) == (0.0, 1.0)
        return
    theirs = stats.chi2_contingency([before[seen], now[seen]], correction=False)
    assert chi_square(before.tolist(), now.tolist()) == (
        pytest.approx(theirs.statistic, abs=1e-9),
        pytest.approx(theirs.pvalue, rel=1e-9),
    )


def test_the_stability_index_is_its_formula() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    assert psi_of_counts(100 * p, 1000 * q) == pytest.approx(np.sum((q - p) * np.log(q / p)))
    assert psi_of_counts([10, 0], [0, 10]) == pytest.approx(2 * (1 - 1e-4) * np.log(1e4), rel=1e-6)


def test_p_values_of_large_windows_are_scipys_to_a_millionth() -> None:
    rng = np.random.default_rng(11)
    before, now = rng.normal(size=(40_000, 4)), rng.normal([0.0, 0.005, 0.01, 0.02], size=(30_000, 4))
    for column, one in enumerate(ColumnReference(before).compare(now)):
        theirs = stats.ks_2samp(before[:, column], now[:, column], method="asymp")
        assert one.statistic == pytest.approx(theirs.statistic, abs=1e-12)
        assert one.p_value == pytest.approx(theirs.pvalue, abs=2e-6)
