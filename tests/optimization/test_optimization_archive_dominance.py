"""Dominance between noisy candidates agrees with scipy's tests and keeps its error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from rlaas.optimization.archive.dominance import compare, differences, p_does_not_dominate, p_dominates

NAN = np.nan


def _pair(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    world = rng.normal(0, 3, (n, 1))
    return world + rng.normal(0, 1, (n, m)), world + rng.normal(0.4, 1, (n, m))


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_paired_p_values_are_scipys(tolerance: float, seed: int) -> None:
    a, b = _pair(9, 3, seed)

    def below(gap: np.ndarray, bound: float) -> np.ndarray:
        return np.asarray(stats.ttest_1samp(gap, bound, alternative="less").pvalue)

    found = differences(a, b)
    assert bool(found.paired)
    expected = max(below(a - b, tolerance).max(), min(1.0, 3 * below(a - b, -tolerance).min()))
    assert p_dominates(found, tolerance) == pytest.approx(expected, rel=1e-9)
    expected = min(1.0, 4 * min(below(b - a, -tolerance).min(), below(b - a, tolerance).max()))
    assert p_does_not_dominate(found, tolerance) == pytest.approx(expected, rel=1e-9)


def test_without_shared_seeds_the_test_is_welchs() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, (7, 1)), rng.normal(0.5, 4, (12, 1))
    first = np.concatenate([a, np.full((12, 1), NAN)])
    second = np.concatenate([np.full((7, 1), NAN), b])
    found = differences(first, second)
    assert not bool(found.paired)
    expected = stats.ttest_ind(a, b, equal_var=False, alternative="less").pvalue[0]
    assert p_dominates(found) == pytest.approx(expected, rel=1e-9)


def test_one_shared_seed_is_left_out_of_welchs_test() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
    first[5:], second[:4] = NAN, NAN
    found = differences(first, second)
    expected = stats.ttest_ind(first[:4], second[5:], equal_var=False, alternative="less")
    np.testing.assert_allclose(found.mean, first[:4].mean(0) - second[5:].mean(0))
    np.testing.assert_allclose(found.degrees, expected.df)


def test_pairing_takes_out_the_worlds() -> None:
    rng = np.random.default_rng(5)
    world, noise = rng.normal(0, 10, (10, 2)), rng.normal(0, 0.1, (10, 2))
    a, b = world, world + 0.5 + noise
    assert compare(a, b, alpha=0.01).verdict == "dominates"
    empty = np.full_like(a, NAN)
    apart = compare(np.concatenate([a, empty]), np.concatenate([empty, b]), alpha=0.01)
    assert (apart.verdict, apart.paired) == ("undecided", False)


@pytest.mark.parametrize(
    ("second", "tolerance", "verdict"),
    [
        ([0.0, 1.0], 0.0, "dominates"),  # equal in one, worse in the other
        ([0.0, -1.0], 0.0, "dominated"),
        ([0.0, 0.0], 0.0, "incomparable"),  # identical
        ([-1.0, 1.0], 0.0, "incomparable"),
        ([-1.0, 1.0], 2.0, "incomparable"),  # too little either way
        ([-0.5, 1.5], 1.0, "dominates"),  # worse within the tolerance, better beyond it
        ([-0.5, 1.0], 1.0, "incomparable"),
    ],
)
def test_differences_without_spread_are_taken_at_face_value(
    second: list[float], tolerance: float, verdict: str
) -> None:
    world = np.random.default_rng(6).integers(-8, 8, (4, 2)).astype(float)
    assert compare(world, world + second, tolerance=tolerance).verdict == verdict


def test_what_rounding_leaves_between_equal_evaluations_is_no_difference() -> None:
    world = np.random.default_rng(7).normal(size=(6, 2))
    almost = world * (1 + 4e-16)
    assert (almost != world).any()
    assert compare(world, almost).verdict == "incomparable"
    assert compare(world, almost).p_incomparable == 0.0


@pytest.mark.parametrize("known", [0, 1])
def test_fewer_than_two_evaluations_decide_nothing(known: int) -> None:
    first, second = np.zeros((5, 2)), np.ones((5, 2))
    first[known:] = NAN
    found = compare(first, second, alpha=0.49)
    assert (found.verdict, found.p_dominates, found.p_incomparable) == ("undecided", 1.0, 1.0)


@given(
    values=hnp.arrays(np.float64, (2, 6, 3), elements=st.floats(-10, 10)),
    tolerance=st.sampled_from([0.0, 0.5]),
    alpha=st.floats(0.001, 0.4),
)
def test_verdicts_are_antisymmetric(values: np.ndarray, tolerance: float, alpha: float) -> None:
    there = compare(values[0], values[1], alpha=alpha, tolerance=tolerance)
    back = compare(values[1], values[0], alpha=alpha, tolerance=tolerance)
    mirrored = {"dominates": "dominated", "dominated": "dominates"}
    assert back.verdict == mirrored.get(there.verdict, there.verdict)
    assert (back.p_dominates, back.p_dominated) == (there.p_dominated, there.p_dominates)
    assert there.p_dominates > alpha or there.p_dominated > alpha
    assert all(0 <= p <= 1 for p in (there.p_dominates, there.p_dominated, there.p_incomparable))


@given(values=hnp.arrays(np.float64, (2, 6, 3), elements=st.floats(-10, 10)))
def test_tables_and_single_pairs_agree(values: np.ndarray) -> None:
    single = differences(values[0], values[1])
    table = differences(np.stack([values[0], values[1]]), values[1])
    np.testing.assert_array_equal(p_dominates(table)[0], p_dominates(single))
    np.testing.assert_array_equal(p_does_not_dominate(table)[0], p_does_not_dominate(single))


REPLICATIONS = 4000
LEVEL = 0.05


def _rejections(p: np.ndarray) -> int:
    return int((p <= LEVEL).sum())


def test_false_dominance_is_as_rare_as_promised() -> None:
    # The least favourable case: better by much in two objectives, equal in one. The p-value is then uniform.
    noise = np.random.default_rng(8).normal(size=(REPLICATIONS, 8, 3))
    p = p_dominates(differences(noise + np.array([0.0, -9.0, -9.0]), np.zeros((8, 3))))
    low, high = stats.binom.ppf([0.001, 0.999], REPLICATIONS, LEVEL)
    assert low <= _rejections(p) <= high


def test_false_dominance_of_equals_is_as_rare_as_promised() -> None:
    # Equal in all, tolerance so large that "worse in none" always holds and "better in one" at its very border.
    noise = np.random.default_rng(9).normal(size=(REPLICATIONS, 8, 3))
    p = p_dominates(differences(noise - 50.0, np.zeros((8, 3))), tolerance=50.0)
    low, high = stats.binom.ppf([0.001, 0.999], REPLICATIONS, 1 - (1 - LEVEL / 3) ** 3)
    assert low <= _rejections(p) <= high


@pytest.mark.parametrize(("means", "tolerance"), [([0.0, 0.0, -1e-6], 0.0), ([1.0, 1.0, -1.0], 1.0)])
def test_false_independence_is_as_rare_as_promised(means: list[float], tolerance: float) -> None:
    # At the border where the first just dominates the second.
    noise = np.random.default_rng(10).normal(size=(REPLICATIONS, 8, 3))
    p = p_does_not_dominate(differences(noise + means, np.zeros((8, 3))), tolerance)
    assert 0 < _rejections(p) <= stats.binom.ppf(0.999, REPLICATIONS, LEVEL)


def test_clear_cases_are_found() -> None:
    noise = np.random.default_rng(11).normal(0, 0.3, size=(200, 8, 3))
    better = differences(noise + np.array([-1.0, -1.0, -1.0]), np.zeros((8, 3)))
    assert (p_dominates(better) <= LEVEL).mean() > 0.99
    traded = differences(noise + np.array([1.0, -1.0, 0.0]), np.zeros((8, 3)))
    assert (p_does_not_dominate(traded) <= LEVEL).mean() > 0.99
    assert (p_dominates(traded) <= LEVEL).mean() == 0
