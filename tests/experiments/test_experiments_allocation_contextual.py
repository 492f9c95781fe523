from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.experiments.allocation.contextual import LinearThompson
from rlaas.experiments.allocation.quadrature import probability_best
from rlaas.experiments.allocation.states import allocator_from_dict

ARMS = ("a", "b", "c")
SLOPES = np.array([[1.0, 0.0], [-1.0, 0.3], [0.0, 0.0]])


def _world(n: int, seed: int) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    x, arm = rng.normal(size=(n, 2)), rng.integers(0, 3, n)
    return np.array(ARMS)[arm], x, (x * SLOPES[arm]).sum(axis=1) + 0.2 + rng.normal(0, 0.5, n)


def _fed(n: int, seed: int, **options: Any) -> LinearThompson:
    return LinearThompson(arms=ARMS, n_features=2, **options).updated(*_world(n, seed))


@pytest.mark.parametrize("seed", range(5))
def test_posterior_with_a_weak_prior_is_least_squares_of_statsmodels(seed: int) -> None:
    arm, x, y = _world(120, seed)
    allocator = LinearThompson(arms=ARMS, n_features=2, precision=1e-9, variance=1e-9, degrees=1.0)
    allocator = allocator.updated(arm, x, y)
    point = np.array([0.4, -1.3])
    means = allocator.means(point)
    for index, name in enumerate(ARMS):
        rows = arm == name
        fit = sm.OLS(y[rows], sm.add_constant(x[rows])).fit()
        assert allocator.coefficients()[name] == pytest.approx(fit.params, rel=1e-6)
        predicted = fit.get_prediction(np.array([[1.0, *point]]))
        assert means.location[index] == pytest.approx(predicted.predicted_mean[0], rel=1e-6)
        # Least squares divides by n - d, the posterior by the prior's degrees + n.
        ratio = np.sqrt(fit.df_resid / (rows.sum() + 1.0))
        assert means.scale[index] == pytest.approx(float(predicted.se_mean[0]) * ratio, rel=1e-5)
        assert means.degrees[index] == rows.sum() + 1


def test_prior_is_a_ridge() -> None:
    arm, x, y = _world(60, 3)
    allocator = LinearThompson(arms=ARMS, n_features=2, precision=7.0).updated(arm, x, y)
    rows = arm == "b"
    design = np.column_stack([np.ones(rows.sum()), x[rows]])
    # A ridge is least squares with rows of zeros added.
    more = np.vstack([design, np.sqrt(7.0) * np.eye(3)])
    expected = np.linalg.lstsq(more, np.concatenate([y[rows], np.zeros(3)]), rcond=None)[0]
    assert allocator.coefficients()["b"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_draws_are_near_those_of_quadrature(seed: int) -> None:
    allocator = _fed(30, seed, draws=20_000)
    points = np.random.default_rng(seed).normal(size=(6, 2))
    shares = allocator.allocation().shares(points)
    for row, point in zip(shares, points, strict=True):
        exact = probability_best(allocator.means(point))
        assert (np.abs(row - exact) < 4.5 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4).all()


def test_batches_add_up_and_state_comes_back_bit_for_bit() -> None:
    arm, x, y = _world(200, 1)
    options: dict[str, Any] = {"arms": ARMS, "n_features": 2, "minimum_share": {"a": 0.1}, "draws": 300, "seed": 5}
    whole = LinearThompson(**options).updated(arm, x, y)
    parts = LinearThompson(**options).updated(arm[:80], x[:80], y[:80]).updated(arm[80:], x[80:], y[80:])
    for name in ARMS:
        assert parts.coefficients()[name] == pytest.approx(whole.coefficients()[name], rel=1e-10)
    text = json.dumps(parts.to_dict(), allow_nan=False)
    back = allocator_from_dict(json.loads(text))
    assert isinstance(back, LinearThompson)
    assert back == parts
    assert json.dumps(back.to_dict()) == text
    assert (back.allocation().shares(x) == parts.allocation().shares(x)).all()
    assert (back.allocation().coefficients != whole.allocation().coefficients).any()  # another batch, other draws


def test_minimum_share_is_kept_at_every_context() -> None:
    allocator = _fed(400, 2, minimum_share=0.05)
    shares = allocator.allocation().shares(np.random.default_rng(0).normal(size=(3000, 2)) * 5)
    assert shares.min() >= 0.05
    assert shares.max() <= 0.9 + 1e-12
    assert shares.sum(axis=1) == pytest.approx(np.ones(3000))


def test_slices_of_many_contexts_change_nothing() -> None:
    allocation = _fed(50, 2, draws=10_000).allocation()
    x = np.random.default_rng(0).normal(size=(300, 2))  # in slices of 133
    assert (allocation.shares(x)[[0, 150, 299]] == allocation.shares(x[[0, 150, 299]])).all()


def test_units_get_the_arm_of_their_context() -> None:
    allocation = _fed(600, 4, minimum_share=0.02).allocation()
    right, left = np.array([2.0, 0.0]), np.array([-2.0, 0.0])
    expected = allocation.shares(np.stack([right, left]))
    for context, shares in ((right, expected[0]), (left, expected[1])):
        given = [allocation.assign(f"user {i}", "salt", context) for i in range(2000)]
        counts = np.array([sum(a.variant == arm for a in given) for arm in ARMS])
        assert stats.chisquare(counts, 2000 * shares).pvalue > 1e-3
        assert {a.propensity for a in given} <= set(shares[counts > 0].tolist())
    assert expected[0].argmax() == 0
    assert expected[1].argmax() == 1


@pytest.mark.parametrize("seed", range(5))
def test_learns_the_arm_of_each_context(seed: int) -> None:
    rng = np.random.default_rng(seed)
    allocator = LinearThompson(arms=ARMS, n_features=2, draws=200, seed=seed)
    lost = []
    for _ in range(15):
        x = rng.normal(size=(60, 2))
        shares = allocator.allocation().shares(x)
        arm = np.array([rng.choice(3, p=row / row.sum()) for row in shares])
        mean = x @ SLOPES.T
        lost.append(float((mean.max(axis=1) - mean[np.arange(60), arm]).mean()))
        allocator = allocator.updated(np.array(ARMS)[arm], x, mean[np.arange(60), arm] + rng.normal(0, 0.5, 60))
    fresh = rng.normal(size=(20_000, 2)) @ SLOPES.T
    uniform = float((fresh.max(axis=1) - fresh.mean(axis=1)).mean())
    assert lost[0] > 0.5 * uniform
    assert np.mean(lost[-5:]) < 0.05 * uniform


@pytest.mark.parametrize(
    ("features", "reward", "message"),
    [
        ([[1.0]], [1.0], r"expected \(n, 2\)"),
        ([[1.0, np.inf]], [1.0], "not finite"),
        ([[1.0, 2.0]], [1.0, 2.0], "one per row"),
        ([[1.0, 2.0]], [np.nan], "finite"),
    ],
)
def test_impossible_rows_are_refused(features: Any, reward: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        LinearThompson(arms=ARMS, n_features=2).updated(["a"], features, reward)


def test_impossible_options_are_refused() -> None:
    state = _fed(10, 0).to_dict()
    for change in ({"n_features": 0}, {"n_features": 3}, {"precision": 0.0}, {"degrees": 0.5}, {"regressions": []}):
        with pytest.raises(InvalidInputError):
            allocator_from_dict({**state, "minimum_share": 0.4, **change})
