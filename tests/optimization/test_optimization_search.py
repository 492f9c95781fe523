from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.core.problem import Problem as PymooBase
from pymoo.problems import get_problem

from rlaas.errors import ConfigurationError, InvalidInputError, OperatorError
from rlaas.fronts import non_dominated
from rlaas.optimization import (
    FunctionProblem,
    PymooProblem,
    Seconds,
    TargetHypervolume,
    hypervolume,
    igd,
    minimize,
    reference_directions,
)
from rlaas.optimization.problems import Problem


def _schaffer(X: np.ndarray) -> np.ndarray:
    return np.stack([X[:, 0] ** 2, (X[:, 0] - 2) ** 2], axis=1)


def test_dtlz2_reaches_the_published_distance() -> None:
    problem = get_problem("dtlz2", n_var=12, n_obj=3)
    result = minimize(problem, generations=250, seed=1)
    true_front = problem.pareto_front(reference_directions(3))
    # Deb & Jain 2014, table II: best 1.262e-3, worst 2.114e-3 over 20 runs at 250 generations.
    assert igd(result.F, true_front) < 2.2e-3
    assert result.evaluations == 250 * 91
    assert len(result.history) == result.generations == 250


def test_same_seed_same_result_whoever_evaluates() -> None:
    problem = FunctionProblem(_schaffer, [-5.0], [5.0], n_obj=2)
    first = minimize(problem, generations=8, population=12, seed=4)
    second = minimize(
        problem, generations=8, population=12, seed=4, evaluator=lambda X: np.vstack([_schaffer(x[None]) for x in X])
    )
    other = minimize(problem, generations=8, population=12, seed=5)
    np.testing.assert_array_equal(first.X, second.X)
    np.testing.assert_array_equal(first.F, second.F)
    assert first.history == second.history
    assert first.X.shape != other.X.shape or not np.array_equal(first.X, other.X)


def test_result_is_non_dominated_and_in_bounds() -> None:
    result = minimize(FunctionProblem(_schaffer, [-5.0], [5.0], n_obj=2), generations=30, population=20, seed=0)
    assert non_dominated(result.F).all()
    assert ((result.X >= -0.01) & (result.X <= 2.01)).all()  # the front of Schaffer's problem is [0, 2]
    np.testing.assert_array_equal(_schaffer(result.X), result.F)


def test_integers_stay_whole_and_a_finite_space_is_exhausted() -> None:
    seen: list[np.ndarray] = []

    def count(X: np.ndarray) -> np.ndarray:
        seen.append(X.copy())
        return np.stack([X[:, 0] + X[:, 1], (5 - X[:, 0]) ** 2 + X[:, 1]], axis=1)

    problem = FunctionProblem(count, [0.0, 0.4], [5.0, 2.6], n_obj=2, integer=[True, True])
    result = minimize(problem, generations=60, population=20, seed=2)
    tried = np.vstack(seen)
    assert (tried == np.round(tried)).all()
    assert set(tried[:, 1]) <= {1.0, 2.0}
    # 6 x 2 configurations only; the front is x0 = 0..5 at the least x1.
    assert sorted(result.X[:, 0]) == [0, 1, 2, 3, 4, 5]
    assert (result.X[:, 1] == 1).all()


def test_constraints_of_a_pymoo_problem_are_kept() -> None:
    problem = get_problem("bnh")
    result = minimize(problem, generations=40, population=40, seed=1)
    assert result.G.shape == (len(result.X), 2)
    assert (result.G <= 0).all()
    assert len(result.X) > 10
    true_front = problem.pareto_front()
    reference = true_front.max(axis=0) + 1
    assert hypervolume(result.F, reference) > 0.98 * hypervolume(true_front, reference)


def test_equality_constraints_become_tolerances() -> None:
    class OnTheCircle(PymooBase):
        def __init__(self) -> None:
            super().__init__(n_var=2, n_obj=2, n_eq_constr=1, xl=0.0, xu=1.0)

        def _evaluate(self, x: Any, out: Any, *args: Any, **kwargs: Any) -> None:
            out["F"] = x
            out["H"] = (x**2).sum(axis=1, keepdims=True) - 1

    wrapped = PymooProblem(OnTheCircle())
    assert isinstance(wrapped, Problem)
    values = wrapped.evaluate(np.array([[1.0, 0.0], [0.0, 0.5]]))
    np.testing.assert_allclose(values, [[1, 0, -1e-4], [0, 0.5, 0.75 - 1e-4]])


def test_nothing_feasible_gives_an_empty_result() -> None:
    never = FunctionProblem(
        lambda X: np.hstack([_schaffer(X), np.ones((len(X), 1))]), [0.0], [1.0], n_obj=2, n_constraints=1
    )
    result = minimize(never, generations=3, population=6, seed=0)
    assert result.X.shape == (0, 1)
    assert result.F.shape == (0, 2)
    assert np.isnan(result.history[-1].ideal).all()


def test_unknown_candidates_are_left_out_and_counted() -> None:
    def half_blind(X: np.ndarray) -> np.ndarray:
        F = _schaffer(X)
        F[X[:, 0] > 1] = np.nan
        return F

    result = minimize(FunctionProblem(half_blind, [-5.0], [5.0], n_obj=2), generations=25, population=20, seed=0)
    assert result.unknown > 0
    assert np.isfinite(result.F).all()
    assert (result.X <= 1).all()
    # The known part of the front is found as if the unknown one did not exist: no made-up value bends the search.
    assert hypervolume(result.F, [4.0, 4.0]) > 0.9 * hypervolume(_schaffer(np.linspace(0, 1, 200)[:, None]), [4.0, 4.0])


def test_a_later_generation_may_be_unknown_altogether() -> None:
    calls = 0

    def flaky(X: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return np.full((len(X), 2), np.nan) if calls == 3 else _schaffer(X)

    result = minimize(FunctionProblem(flaky, [-5.0], [5.0], n_obj=2), generations=6, population=10, seed=0)
    assert result.generations == 6
    assert result.unknown == 10
    assert len(result.X) > 0


def test_an_unknown_first_generation_is_an_error() -> None:
    blind = FunctionProblem(lambda X: np.full((len(X), 2), np.nan), [0.0], [1.0], n_obj=2)
    with pytest.raises(OperatorError, match="none of the 10 candidates"):
        minimize(blind, generations=3, population=10, seed=0)


def test_warm_start_evaluates_the_given_candidates_first() -> None:
    first: list[np.ndarray] = []

    def spy(X: np.ndarray) -> np.ndarray:
        first.append(X.copy())
        return _schaffer(X)

    given_rows = np.array([[0.25], [1.75]])
    problem = FunctionProblem(spy, [-5.0], [5.0], n_obj=2)
    minimize(problem, generations=1, population=10, seed=0, initial=given_rows)
    np.testing.assert_array_equal(first[0][:2], given_rows)
    assert len(first[0]) == 10
    with pytest.raises(InvalidInputError, match="outside the bounds"):
        minimize(problem, generations=1, population=10, initial=[[7.0]])
    with pytest.raises(InvalidInputError, match=r"expected \[n, 1\]"):
        minimize(problem, generations=1, population=10, initial=[[0.0, 0.0]])


def test_progress_and_history() -> None:
    steps: list[tuple[int, int]] = []
    result = minimize(
        FunctionProblem(_schaffer, [-5.0], [5.0], n_obj=2),
        generations=15,
        population=10,
        seed=0,
        progress=lambda done, total: steps.append((done, total)),
        reference=[10.0, 10.0],
    )
    assert steps == [(i, 15) for i in range(1, 16)]
    volumes = [g.hypervolume for g in result.history]
    assert volumes[-1] == pytest.approx(hypervolume(result.F, [10.0, 10.0]))
    assert volumes[-1] > volumes[0]
    assert result.history[-1].evaluations == result.evaluations == 150


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(2, 200))
def test_directions_lie_on_the_simplex_within_the_population(n_obj: int, population: int) -> None:
    if population < n_obj:
        with pytest.raises(ConfigurationError, match="at least the number of objectives"):
            reference_directions(n_obj, population)
        return
    directions = reference_directions(n_obj, population)
    assert n_obj <= len(directions) <= population
    np.testing.assert_allclose(directions.sum(axis=1), 1)
    assert (directions >= 0).all()


@pytest.mark.parametrize(("n_obj", "expected"), [(3, 91), (4, 84), (5, 210), (8, 156), (10, 275), (15, 135)])
def test_default_directions_are_the_papers(n_obj: int, expected: int) -> None:
    directions = reference_directions(n_obj)
    assert len(directions) == expected
    np.testing.assert_allclose(directions.sum(axis=1), 1)


def test_bad_requests_name_the_field() -> None:
    problem = FunctionProblem(_schaffer, [0.0], [1.0], n_obj=2)
    with pytest.raises(
        ConfigurationError, match="unknown algorithm 'sgd'; allowed: moead-pbi, moead-tchebycheff, nsga3, unsga3"
    ):
        minimize(problem, algorithm="sgd", generations=3)
    with pytest.raises(ConfigurationError, match="generations must be a whole number >= 1, got 0"):
        minimize(problem, generations=0)
    with pytest.raises(ConfigurationError, match="needs generations or a stop"):
        minimize(problem)
    with pytest.raises(ConfigurationError, match="progress needs generations"):
        minimize(problem, stop=Seconds(1), progress=lambda done, total: None)
    with pytest.raises(ConfigurationError, match="TargetHypervolume needs a reference"):
        minimize(problem, stop=TargetHypervolume(1.0))
    with pytest.raises(ConfigurationError, match="stop 3 is none"):
        minimize(problem, stop=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"seed is -1; expected a whole number >= 0"):
        minimize(problem, generations=1, seed=-1)
    with pytest.raises(ConfigurationError, match=r"population is 2\.5; expected a whole number"):
        minimize(problem, generations=1, population=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"nsga3: .*'theta'"):
        minimize(problem, generations=1, theta=3)
    with pytest.raises(InvalidInputError, match=r"directions have shape \(2, 3\); expected \[n, 2\]"):
        minimize(problem, generations=1, directions=np.ones((2, 3)))
    with pytest.raises(InvalidInputError, match="none of them all zero"):
        minimize(problem, generations=1, directions=[[0.0, 0.0], [1.0, 0.0]])
    with pytest.raises(InvalidInputError, match="reference"):
        minimize(problem, generations=1, reference=[1.0, 1.0, 1.0])
    with pytest.raises(InvalidInputError, match="not a problem: it lacks n_var"):
        minimize(object(), generations=1)
    with pytest.raises(InvalidInputError, match="at least 2 objectives, got 1"):
        minimize(FunctionProblem(_schaffer, [0.0], [1.0], n_obj=1), generations=1)
    with pytest.raises(InvalidInputError, match=r"returned shape \(6, 3\); expected \(6, 2\)"):
        minimize(problem, generations=1, population=6, evaluator=lambda X: np.zeros((len(X), 3)))
    with pytest.raises(InvalidInputError, match="xl <= xu"):
        FunctionProblem(_schaffer, [1.0], [0.0], n_obj=2)
    with pytest.raises(InvalidInputError, match="no whole number between"):
        minimize(FunctionProblem(_schaffer, [0.2], [0.8], n_obj=2, integer=[True]), generations=1)


def test_the_room_loads_no_ray() -> None:
    code = "import sys, rlaas.optimization as o; o.minimize; sys.exit(any(m in sys.modules for m in ('ray', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
