from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlaas.decisions import topsis
from rlaas.errors import InvalidInputError

VALUES = arrays(np.float64, (6, 3), elements=st.floats(-100, 100).map(lambda v: round(v, 3)))
WEIGHTS = arrays(np.float64, 3, elements=st.floats(0.05, 1))
UP = np.array([True, False, True])


def test_example_of_pymcdms_documentation() -> None:
    scores = topsis([[4, 4], [1, 5], [3, 2], [4, 2]], [0.5, 0.5], [True, False], normalisation="minmax")
    np.testing.assert_allclose(scores, [0.6126, 0, 0.7829, 1], atol=5e-5)


def test_classic_by_hand() -> None:
    """Vector normalisation, computed step by step as in Hwang & Yoon (1981)."""
    values = np.array([[250.0, 16, 12], [200, 16, 8], [300, 32, 16], [275, 32, 8]])
    weights = np.array([0.5, 0.25, 0.25])
    weighted = values / np.sqrt((values**2).sum(axis=0)) * weights
    ideal = np.array([weighted[:, 0].min(), weighted[:, 1].max(), weighted[:, 2].max()])
    worst = np.array([weighted[:, 0].max(), weighted[:, 1].min(), weighted[:, 2].min()])
    expected = [
        np.linalg.norm(row - worst) / (np.linalg.norm(row - ideal) + np.linalg.norm(row - worst)) for row in weighted
    ]
    np.testing.assert_allclose(topsis(values, weights, [False, True, True]), expected, rtol=1e-12)


@pytest.mark.parametrize("normalisation", ["vector", "minmax"])
class TestDegenerate:
    def test_one_candidate(self, normalisation: str) -> None:
        assert topsis([[3.0, 0.0]], [1, 1], [True, False], normalisation).tolist() == [1.0]

    def test_identical_candidates(self, normalisation: str) -> None:
        assert topsis([[3.0, 2.0]] * 3, [1, 1], [True, False], normalisation).tolist() == [1.0, 1.0, 1.0]

    def test_constant_objective_changes_nothing(self, normalisation: str) -> None:
        values = np.array([[1.0, 9.0], [2.0, 4.0], [3.0, 1.0]])
        constant = np.column_stack([values, np.full(3, 7.0)])
        without = topsis(values, [1, 2], [True, False], normalisation)
        np.testing.assert_allclose(topsis(constant, [1, 2, 5], [True, False, True], normalisation), without)

    def test_zero_column(self, normalisation: str) -> None:
        assert topsis([[0.0, 1.0], [0.0, 2.0]], [1, 1], [True, True], normalisation).tolist() == [0.0, 1.0]

    def test_difference_in_weightless_objectives_only(self, normalisation: str) -> None:
        assert topsis([[1.0, 2.0], [1.0, 3.0]], [1, 0], [True, True], normalisation).tolist() == [1.0, 1.0]

    def test_huge_values_do_not_overflow(self, normalisation: str) -> None:
        small = topsis([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]], [1, 1], [True, False], normalisation)
        huge = topsis([[1e300, 1.0], [2e300, 3.0], [3e300, 2.0]], [1, 1], [True, False], normalisation)
        np.testing.assert_allclose(huge, small, rtol=1e-9)


@pytest.mark.parametrize("normalisation", ["vector", "minmax"])
@settings(deadline=None)
@given(values=VALUES, weights=WEIGHTS)
def test_scores_are_shares_and_respect_dominance(normalisation: str, values: np.ndarray, weights: np.ndarray) -> None:
    scores = topsis(values, weights, UP, normalisation)
    assert ((scores >= 0) & (scores <= 1)).all()
    better = np.where(UP, values, -values)
    for i in range(len(values)):
        for j in range(len(values)):
            if (better[i] >= better[j]).all():
                assert scores[i] >= scores[j] - 1e-9


@settings(deadline=None)
@given(values=VALUES, weights=WEIGHTS, scale=st.floats(0.1, 10))
def test_units_and_order_do_not_matter(values: np.ndarray, weights: np.ndarray, scale: float) -> None:
    scores = topsis(values, weights, UP)
    np.testing.assert_allclose(topsis(values * [scale, 1, 1], weights * 3, UP), scores, atol=1e-9)
    np.testing.assert_allclose(topsis(values[::-1], weights, UP), scores[::-1], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, np.nan]], [1, 1], [True, True]), r"values\[0, 1\] is nan"),
        (([[1.0, np.inf]], [1, 1], [True, True]), r"values\[0, 1\] is inf"),
        (([], [1, 1], [True, True]), r"expected \[n, m\]"),
        (([[1.0, 2.0]], [1], [True, True]), r"weights has shape \(1,\)"),
        (([[1.0, 2.0]], [1, 1], [True]), r"maximize has shape \(1,\)"),
        (([[1.0, 2.0]], [1, -1], [True, True]), "weights must be finite and >= 0"),
        (([[1.0, 2.0]], [0, 0], [True, True]), "with a positive sum"),
        (([[1.0, 2.0]], [1, 1], [True, True], "sum"), "unknown normalisation 'sum'; allowed: minmax, vector"),
    ],
)
def test_bad_input_names_the_field(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        topsis(*arguments)  # type: ignore[arg-type]
