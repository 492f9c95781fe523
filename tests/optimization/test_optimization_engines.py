"""The engines against pymoo's parts and against what every one of them has to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga3 import associate_to_niches, get_extreme_points_c, get_nadir_point
from pymoo.operators.crossover.sbx import cross_sbx
from pymoo.operators.mutation.pm import mut_pm
from pymoo.problems import get_problem
from pymoo.util.ref_dirs import get_reference_directions
from scipy.stats import ks_2samp

from rlaas.errors import ConfigurationError, InvalidInputError, OperatorError
from rlaas.optimization import (
    ALGORITHMS,
    FunctionProblem,
    das_dennis,
    energy_directions,
    hypervolume,
    igd,
    layered_directions,
    make_engine,
    minimize,
    reference_directions,
)
from rlaas.optimization.checkpoint import load_state, save_state
from rlaas.optimization.niching import associate
from rlaas.optimization.normalisation import nadir_point, renew_extremes
from rlaas.optimization.nsga3 import NSGA3
from rlaas.optimization.variation import breed

DIRECTIONS = reference_directions(3)


def _points(seed: int, n: int = 60, m: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    F = rng.gamma(2.0, size=(n, m))
    return np.asarray(F / np.linalg.norm(F, axis=1, keepdims=True) * rng.uniform(1, 2, (n, 1)) * [1.0, 10.0, 300.0])


def _told(algorithm: str, F: np.ndarray, order: np.ndarray | None = None, size: int = 30) -> Any:
    """An engine of ``size`` that was told F in one piece."""
    n, m = F.shape
    problem = FunctionProblem(lambda X: F, np.zeros(1), np.ones(1), n_obj=m)
    engine = make_engine(problem, algorithm, population=size, seed=4)
    X = np.arange(n)[:, None] / n
    order = np.arange(n) if order is None else order
    engine.tell(X[order], F[order])
    return engine


@pytest.mark.parametrize("seed", range(6))
def test_normalisation_and_association_are_those_of_pymoo(seed: int) -> None:
    F = _points(seed)
    front = F[moocore.is_nondominated(F)]
    ideal, worst = F.min(axis=0), F.max(axis=0)
    extremes = np.full((3, 3), np.inf)
    scale = front.max(axis=0) - ideal
    renew_extremes(extremes, front, ideal, scale, 1e-3)
    # Pymoo's threshold is absolute: it sees the same where every objective spans 1.
    theirs = get_extreme_points_c((front - ideal) / scale, np.zeros(3)) * scale + ideal
    np.testing.assert_allclose(extremes, theirs)
    nadir = nadir_point(extremes, ideal, worst, front.max(axis=0), worst)
    np.testing.assert_allclose(nadir, get_nadir_point(extremes, ideal, worst, front.max(axis=0), worst))
    unit = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    nearest, along, beside = associate(F, ideal, nadir, np.ascontiguousarray(unit.T))
    niche, their_distance, _ = associate_to_niches(F, DIRECTIONS, ideal, nadir)
    np.testing.assert_array_equal(nearest, niche)
    np.testing.assert_allclose(beside, their_distance, atol=1e-12)
    points = (F - ideal) / (nadir - ideal)
    np.testing.assert_allclose(along**2 + beside**2, (points**2).sum(axis=1))


def test_an_empty_niche_takes_the_candidate_with_the_least_penalised_distance() -> None:
    """By definition: along the line plus the penalty times beside it, but for lines along an axis."""
    rng = np.random.default_rng(5)
    unit = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    axes = {int(np.argmax(unit[:, axis])) for axis in range(3)}
    F = np.abs(rng.normal(size=(3_000, 3)))
    F /= np.linalg.norm(F, axis=1, keepdims=True) ** rng.uniform(0.9, 1.0, (3_000, 1))
    problem = FunctionProblem(lambda X: X, np.zeros(3), np.full(3, 4.0), n_obj=3)
    for penalty in (2.0, 5.0, np.inf):
        engine = NSGA3(problem, DIRECTIONS, len(DIRECTIONS), 1, penalty=penalty)
        engine.tell(F, F)
        state = engine.state()
        points = (F - state["ideal"]) / (state["nadir"] - state["ideal"])
        along = points @ unit.T
        niche = along.argmax(axis=1)
        first = moocore.is_nondominated(F)
        for line in np.unique(niche[first]):
            rivals = np.flatnonzero(first & (niche == line))
            reach = along[rivals, line]
            beside = np.linalg.norm(points[rivals] - reach[:, None] * unit[line], axis=1)
            measure = beside if line in axes or penalty == np.inf else reach + penalty * beside
            kept = (state["X"][:, None] == F[rivals]).all(axis=2).any(axis=0)
            assert kept[measure.argmin()]


@pytest.mark.parametrize("penalty", [0.0, -1.0, np.nan])
def test_a_penalty_that_is_not_above_0_is_refused(penalty: float) -> None:
    problem = FunctionProblem(lambda X: X, np.zeros(3), np.ones(3), n_obj=3)
    with pytest.raises(ConfigurationError, match="allowed: a number above 0"):
        NSGA3(problem, DIRECTIONS, len(DIRECTIONS), 1, penalty=penalty)


def test_a_degenerate_hyperplane_falls_back_to_the_worst_of_the_front() -> None:
    extremes = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = nadir_point(extremes, np.zeros(2), np.array([3.0, 3.0]), np.array([1.0, 2.0]), np.array([3.0, 3.0]))
    assert found.tolist() == [1.0, 2.0]
    flat = nadir_point(extremes, np.zeros(2), np.array([3.0, 0.0]), np.array([1.0, 0.0]), np.array([3.0, 0.0]))
    assert flat.tolist() == [1.0, 1.0]  # an objective without any extent has the box of length 1


def test_offspring_are_distributed_like_pymoos() -> None:
    n = 40_000
    xl, xu = np.array([0.0, -1.0]), np.array([1.0, 3.0])
    parents = np.array([[0.2, 1.5], [0.55, -0.5]])
    mothers, fathers = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64)
    whole = np.zeros(2, dtype=bool)
    ours = breed(parents, mothers, fathers, xl, xu, whole, 15.0, 20.0, 1)
    rng = np.random.default_rng(2)
    couples = np.repeat(parents[:, None], n, axis=1)
    eta, half = np.full((n, 1), 15.0), np.full((n, 1), 0.5)
    crossed = cross_sbx(couples, xl, xu, eta, half, half, random_state=rng).reshape(-1, 2)
    mutated = mut_pm(crossed, xl, xu, np.full(2 * n, 20.0), np.full(2 * n, 0.5), False, random_state=rng)
    theirs = np.where(rng.random((2 * n, 1)) < 0.9, mutated, crossed)  # what pymoo's PM does around it
    for j in range(2):
        assert ks_2samp(ours[:, j], theirs[:, j]).pvalue > 1e-3
    assert ((ours >= xl) & (ours <= xu)).all()
    rounded = breed(parents.round(), mothers, fathers, xl, xu, np.array([False, True]), 15.0, 20.0, 1)
    assert (rounded[:, 1] == np.round(rounded[:, 1])).all()


@pytest.mark.parametrize(("n_obj", "divisions"), [(2, 7), (3, 12), (5, 6), (15, 2)])
def test_das_dennis_is_the_set_of_pymoo(n_obj: int, divisions: int) -> None:
    theirs = get_reference_directions("das-dennis", n_obj, n_partitions=divisions)
    ours = das_dennis(n_obj, divisions)
    assert {tuple(row) for row in (ours * divisions).round()} == {tuple(row) for row in (theirs * divisions).round()}
    assert len(ours) == len(theirs)


def test_layers_and_energy() -> None:
    layers = layered_directions(3, (3, 2), (1.0, 0.4))
    assert len(layers) == 10 + 6
    np.testing.assert_allclose(layers.sum(axis=1), 1)
    np.testing.assert_allclose(layers[10:].min(), 0.2)
    assert len(reference_directions(4, 60, "layered")) <= 60
    energy = energy_directions(3, 17)
    assert energy.shape == (17, 3)
    np.testing.assert_allclose(energy.sum(axis=1), 1)
    assert np.linalg.norm(energy[:, None] - energy[None] + 9 * np.eye(17)[..., None], axis=2).min() > 0.1
    with pytest.raises(ConfigurationError, match="allowed: das-dennis, energy, layered"):
        reference_directions(3, 20, "random")
    with pytest.raises(ConfigurationError, match=r"are 1,391,975,640 directions; allowed: up to 100,000"):
        das_dennis(15, 15 + 5)
    with pytest.raises(ConfigurationError, match=r"one size in \(0, 1\] each"):
        layered_directions(3, (3, 2), (1.0,))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_survival_does_not_depend_on_the_order_or_the_units(seed: int, n_obj: int) -> None:
    F = _points(seed, m=3) if n_obj == 3 else np.random.default_rng(seed).random((60, n_obj))
    rng = np.random.default_rng(seed + 1)
    for algorithm in ("nsga3", "unsga3"):
        kept = {tuple(row) for row in _told(algorithm, F).population.F}
        assert len(kept) == 30
        assert kept == {tuple(row) for row in _told(algorithm, F, rng.permutation(60)).population.F}
        powers = 2.0 ** rng.integers(-20, 20, F.shape[1])
        scaled = {tuple(row) for row in _told(algorithm, F * powers).population.F / powers}
        assert kept == scaled


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(ALGORITHMS))
def test_nothing_dominated_is_returned_and_nothing_made_up(seed: int, algorithm: str) -> None:
    rng = np.random.default_rng(seed)
    F = np.round(rng.random((60, 3)) * 4) if seed % 2 else rng.random((60, 3))
    engine = _told(algorithm, F)
    front = engine.population.front()
    assert moocore.is_nondominated(front.F, keep_weakly=False).all()
    rows = {tuple(row) for row in F}
    assert all(tuple(row) in rows for row in engine.population.F)
    assert len(engine.population) <= 30
    # The best of each objective is never lost.
    if algorithm.endswith("nsga3"):
        best = F[moocore.is_nondominated(F)].min(axis=0)
        assert (engine.population.F.min(axis=0) == best).all() or seed % 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_front_of_dtlz2_is_reached(algorithm: str) -> None:
    problem = get_problem("dtlz2", n_var=12, n_obj=3)
    result = minimize(problem, algorithm=algorithm, generations=250, seed=3)
    true_front = problem.pareto_front(DIRECTIONS)
    if algorithm == "moead-tchebycheff":  # its points do not lie on the reference lines
        reference = np.full(3, 1.2)
        assert hypervolume(result.F, reference) > 0.9 * hypervolume(true_front, reference)
    else:
        assert igd(result.F, true_front) < 3e-3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_constraints_are_kept_in_every_engine(algorithm: str) -> None:
    problem = get_problem("bnh")
    result = minimize(problem, algorithm=algorithm, generations=200, population=60, seed=2)
    assert (result.G <= 0).all()
    true_front = problem.pareto_front()
    low, span = true_front.min(axis=0), np.ptp(true_front, axis=0)
    reached = hypervolume((result.F - low) / span, [1.1, 1.1])
    assert reached > 0.97 * hypervolume((true_front - low) / span, [1.1, 1.1])
    apart = get_problem("c2dtlz2", n_obj=3)  # feasible in islands of the front only
    found = [minimize(apart, algorithm=algorithm, generations=250, seed=seed) for seed in range(1, 6)]
    assert all((one.G <= 0).all() for one in found)
    if algorithm != "moead-tchebycheff":  # its points do not lie on the reference lines
        assert np.median([igd(one.F, apart.pareto_front(DIRECTIONS)) for one in found]) < 5e-3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mixed_variables_and_unequal_units(algorithm: str) -> None:
    def evaluate(X: np.ndarray) -> np.ndarray:
        assert (X[:, 1] == np.round(X[:, 1])).all()
        miss = np.abs(X[:, 1] - 3)
        return np.stack([1e6 * (X[:, 0] ** 2 + miss), 1e-3 * ((X[:, 0] - 2) ** 2 + miss)], axis=1)

    problem = FunctionProblem(evaluate, [-5.0, 0.0], [5.0, 9.0], n_obj=2, integer=[False, True])
    result = minimize(problem, algorithm=algorithm, generations=120, population=30, seed=1)
    assert (result.X[:, 1] == 3).all()
    grid = np.linspace(0, 2, 400)
    ideal = np.stack([grid**2, (grid - 2) ** 2], axis=1)
    # PBI leaves the ends of a convex front thin, in pymoo too.
    share = 0.9 if algorithm == "moead-pbi" else 0.97
    assert hypervolume(result.F / [1e6, 1e-3], [4.5, 4.5]) > share * hypervolume(ideal, [4.5, 4.5])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_state_on_the_disk_goes_on_bit_for_bit(algorithm: str, tmp_path: Path) -> None:
    problem = get_problem("c1dtlz1", n_var=7, n_obj=3)
    target = tmp_path / "search.npz"
    whole = minimize(problem, algorithm=algorithm, generations=24, population=40, seed=9)
    minimize(problem, algorithm=algorithm, generations=11, population=40, seed=9, checkpoint=target)
    resumed = minimize(
        problem, algorithm=algorithm, generations=24, population=40, seed=9, checkpoint=target, resume=True
    )
    np.testing.assert_array_equal(resumed.pop.X, whole.pop.X)
    np.testing.assert_array_equal(resumed.pop.F, whole.pop.F)
    assert [str({**g.to_dict(), "seconds": 0}) for g in resumed.history] == [
        str({**g.to_dict(), "seconds": 0}) for g in whole.history
    ]
    with pytest.raises(ConfigurationError, match="state of another search"):
        minimize(problem, algorithm=algorithm, generations=24, population=40, seed=8, checkpoint=target, resume=True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_at_a_time_and_out_of_order(algorithm: str) -> None:
    """Steady state: some candidates in flight, coming back in any order, some of them never."""
    problem = get_problem("zdt1", n_var=8)
    engine = make_engine(problem, algorithm, population=40, seed=1)
    rng = np.random.default_rng(0)
    flying: list[np.ndarray] = []
    for _ in range(6_000):
        flying.append(engine.ask(1))
        if len(flying) < 12:
            continue
        X = flying.pop(int(rng.integers(len(flying))))
        values = problem.evaluate(X)
        engine.tell(X, np.full_like(values, np.nan) if rng.random() < 0.1 else values)
    front = engine.population.front()
    assert len(engine.population) <= 40
    reference = np.array([1.1, 1.1])
    share = 0.85 if algorithm == "moead-pbi" else 0.97  # thin ends, as above
    assert hypervolume(front.F, reference) > share * hypervolume(problem.pareto_front(), reference)


def test_strangers_are_welcome() -> None:
    problem = get_problem("zdt1", n_var=8)
    best = np.zeros((20, 8))
    best[:, 0] = np.linspace(0, 1, 20)
    for algorithm in ALGORITHMS:
        engine = make_engine(problem, algorithm, population=30, seed=1)
        X = engine.ask()
        engine.tell(X, problem.evaluate(X))
        engine.tell(best, problem.evaluate(best))
        assert len(engine.population.front()) >= 10
        other = make_engine(problem, algorithm, population=30, seed=2)
        other.adopt(engine.share())
        for name, values in other.share().items():
            if name == "ideal":
                np.testing.assert_array_equal(values, engine.share()["ideal"])


def test_told_values_of_the_wrong_shape_change_nothing() -> None:
    problem = get_problem("zdt1", n_var=8)
    engine = make_engine(problem, population=10, seed=1)
    X = engine.ask()
    engine.tell(X, problem.evaluate(X))
    before = engine.population
    with pytest.raises(InvalidInputError, match=r"returned shape \(10, 5\); expected \(10, 2\)"):
        engine.tell(engine.ask(), np.zeros((10, 5)))
    assert engine.population is before


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    target = tmp_path / "state.npz"
    state = {"a": np.arange(3.0), "b": [1, None, "ä"], "c": {"big": 2**100, "x": np.float64(0.1), "n": float("nan")}}
    save_state(target, state)
    found = load_state(target)
    np.testing.assert_array_equal(found["a"], state["a"])
    assert found["b"] == state["b"]
    assert (found["c"]["big"], found["c"]["x"]) == (2**100, 0.1)
    content = target.read_bytes()
    for damaged in (
        content[: len(content) // 2],
        b"",
        b"not a file of arrays",
        content[:60] + b"\0\1\2\3" + content[64:],
    ):
        target.write_bytes(damaged)
        with pytest.raises(OperatorError, match=r"no usable search state in .*state\.npz"):
            load_state(target)
    with pytest.raises(OperatorError, match="no usable search state"):
        load_state(tmp_path / "absent.npz")
    with pytest.raises(TypeError):
        save_state(target, {"x": object()})
