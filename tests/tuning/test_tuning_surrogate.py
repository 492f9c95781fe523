"""The model that chooses among children, against scikit-learn's and by hand."""

from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from rlaas.tuning import surrogate
from rlaas.tuning.surrogate import GaussianProcess, levels, volume_gains


def _examples(n: int, features: int = 3) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(5).uniform(size=(n, features))
    return X, np.stack([np.sin(4 * X[:, 0]) + X[:, 1] ** 2, 3 - X.sum(axis=1)], axis=1)


@pytest.mark.parametrize(("length", "noise"), [(0.35, 1e-2), (1.8, 1e-4)])
def test_predictions_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, length: float, noise: float) -> None:
    monkeypatch.setattr(surrogate, "_LENGTHS", (length,))
    monkeypatch.setattr(surrogate, "_NOISES", (noise,))
    X, Y = _examples(40)
    new = np.random.default_rng(6).uniform(size=(10, 3))
    kernel = Matern(length_scale=length * np.sqrt(3), nu=2.5, length_scale_bounds="fixed")
    for column in range(2):
        centred = Y[:, column] - Y[:, column].mean()
        rival = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(X, centred)
        ours = GaussianProcess(X, Y).predict(new)[:, column]
        np.testing.assert_allclose(ours, rival.predict(new) + Y[:, column].mean(), rtol=1e-6, atol=1e-8)


def test_length_and_noise_are_the_likeliest_of_the_grid() -> None:
    X, Y = _examples(40)
    model = GaussianProcess(X, Y)
    for column in range(2):
        centred = Y[:, column] - Y[:, column].mean()
        likelihood = {}
        for length in surrogate._LENGTHS:
            for noise in surrogate._NOISES:
                kernel = Matern(length_scale=length * np.sqrt(3), nu=2.5)(X) + noise * np.eye(len(X))
                variance = centred @ np.linalg.solve(kernel, centred) / len(X)
                likelihood[length] = max(
                    likelihood.get(length, -np.inf),
                    -0.5 * (len(X) * np.log(variance) + np.linalg.slogdet(kernel)[1]),
                )
        best = max(likelihood, key=lambda length: likelihood[length])
        assert model._lengths[column] == pytest.approx(best * np.sqrt(3))


def test_it_predicts_unseen_points_better_than_their_mean() -> None:
    X, Y = _examples(60)
    predicted = GaussianProcess(X[:40], Y[:40]).predict(X[40:])
    assert (((predicted - Y[40:]) ** 2).mean(axis=0) < 0.05 * Y[40:].var(axis=0)).all()


def test_degenerate_data_have_an_answer() -> None:
    one = GaussianProcess(np.array([[0.5, 0.5]]), np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(one.predict(np.array([[0.1, 0.9]])), [[1.0, 2.0]])
    X, _ = _examples(10)
    constant = GaussianProcess(X, np.full((10, 1), 7.0))
    np.testing.assert_allclose(constant.predict(X), 7.0)
    same = GaussianProcess(np.full((6, 2), 0.3), np.arange(6.0)[:, np.newaxis])
    np.testing.assert_allclose(same.predict(np.array([[0.3, 0.3]])), [[2.5]], atol=1e-6)


def test_levels_run_from_best_to_worst_and_survive_a_diverged_trial() -> None:
    F = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [1e9, 5.0]])
    found = levels(F)
    assert found[:, 0].min() == 0.0
    assert found[:, 0].max() == 1.0
    assert np.diff(found[:3, 0]).min() > 0.1, "what the range alone would have pressed together"
    np.testing.assert_array_equal(found[:, 1], found[0, 1])
    assert np.isfinite(levels(np.array([[3.0, 4.0]]))).all()
    np.testing.assert_allclose(levels(np.array([[-1e308], [0.0], [1e308]])), [[0.0], [0.5], [1.0]])


@given(st.lists(st.tuples(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)), min_size=2, max_size=20))
def test_levels_keep_order_and_dominance(points: list[tuple[float, float]]) -> None:
    F = np.array(points)
    found = levels(F)
    assert ((found >= 0) & (found <= 1)).all()
    for column in range(2):
        order = np.argsort(F[:, column], kind="stable")
        assert (np.diff(found[order, column]) >= 0).all()
    # Distinct values keep distinct ranks, so nothing that was dominated stops being so.
    np.testing.assert_array_equal(moocore.is_nondominated(found), moocore.is_nondominated(F))


def test_gains_are_the_volume_that_each_would_add() -> None:
    reached = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.9]])
    candidates = np.array([[0.1, 0.1], [0.5, 0.5], [0.7, 0.9], [2.0, 0.0]])
    gains = volume_gains(reached, candidates)
    assert gains[0] == pytest.approx(1.0 - (0.9 * 0.3 + 0.5 * 0.4))
    assert gains[1] == pytest.approx(0.1 * 0.3)
    np.testing.assert_array_equal(gains[2:], 0.0)
