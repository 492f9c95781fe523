"""The planner's predictions against a second simulation, and its verdicts where the answer is known."""

from __future__ import annotations

import dataclasses
import heapq
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.optimization import FunctionProblem
from rlaas.optimization.spread import EvaluationTimes, Overheads, Plan, busy_share, measure, plan
from rlaas.optimization.spread.recipe import Recipe
from rlaas.optimization.spread.trial import Clock


def _times(mean: float, cv: float, *, row: float | None = None, cores: float = 0.0, selection: float = 0.002):
    return EvaluationTimes(
        mean=mean,
        cv=cv,
        samples=48,
        row_seconds=mean if row is None else row,
        cores=cores,
        selection_seconds=selection,
    )


def _plan(times: EvaluationTimes, *, workers: int = 16, processors: float = 64, population: int = 92) -> Plan:
    return plan(times, workers=workers, processors=processors, population=population, generations=100)


@pytest.mark.parametrize(("cv", "busy"), [(0.1, 0.93), (0.5, 0.83), (1.0, 0.68), (2.0, 0.48)])
def test_a_generation_of_92_keeps_16_workers_as_busy_as_is_known(cv: float, busy: float) -> None:
    assert busy_share(cv, population=92, workers=16) == pytest.approx(busy, abs=0.015)


@pytest.mark.parametrize(("cv", "population", "workers", "rows"), [(1.0, 92, 16, 1), (0.5, 40, 8, 3), (2.0, 25, 4, 2)])
def test_the_simulation_agrees_with_one_by_events(cv: float, population: int, workers: int, rows: int) -> None:
    rng = np.random.default_rng(12345)
    sigma = np.sqrt(np.log1p(cv**2))
    shares = []
    for _ in range(2000):
        times = rng.lognormal(-(sigma**2) / 2, sigma, population)
        free = [0.0] * workers
        for start in range(0, population, rows):
            heapq.heappush(free, heapq.heappop(free) + times[start : start + rows].sum())
        shares.append(times.sum() / (workers * max(free)))
    expected = np.mean(shares)
    assert busy_share(cv, population=population, workers=workers, rows_per_call=rows) == pytest.approx(
        expected, rel=0.03
    )


def test_uneven_slow_evaluations_flow() -> None:
    chosen = _plan(_times(0.02, 1.0))
    assert chosen.way == "asynchronous"
    assert chosen.workers == 16
    assert chosen.busy["asynchronous"] > 0.9
    assert chosen.speedups["asynchronous"] > 1.3 * chosen.speedups["batched"]
    assert "cv 1.00" in chosen.reason
    assert chosen.reason.startswith("asynchronous: an evaluation takes 20 ms")


def test_even_slow_evaluations_go_in_generations() -> None:
    chosen = _plan(_times(0.02, 0.02))
    assert chosen.way == "batched"
    assert chosen.speedups["batched"] > 0.9 * 16


@pytest.mark.parametrize("mean", [1e-6, 1e-4, 9e-4])
@pytest.mark.parametrize("workers", [2, 64])
def test_evaluations_below_a_millisecond_stay_here(mean: float, workers: int) -> None:
    chosen = _plan(_times(mean, 0.3, cores=1.0), workers=workers)
    assert chosen.way == "serial"
    assert chosen.workers == 1
    assert "too little to be sent away" in chosen.reason


def test_islands_pay_in_a_large_population_of_cheap_candidates_on_processors_of_their_own() -> None:
    cheap = _times(2e-5, 0.1, row=1e-6, cores=1.0, selection=0.3)
    large = _plan(cheap, workers=8, population=2000)
    assert large.way == "islands"
    assert large.islands == large.workers == 8
    assert large.speedups["islands"] > 5
    assert _plan(cheap, workers=8, population=92).way == "serial"
    assert _plan(cheap, workers=8, population=2000, processors=1).way == "serial"


def test_work_that_computes_does_not_go_faster_than_the_processors() -> None:
    computing = _plan(_times(0.02, 0.1, cores=1.0), processors=2)
    assert computing.workers == 2  # more would only take memory
    assert 1.5 < computing.speedups["batched"] <= 2
    assert computing.speedups["asynchronous"] <= 2
    assert "on 2 processors" in computing.reason
    waiting = _plan(_times(0.02, 0.1, cores=0.01), processors=2)
    assert waiting.workers == 16
    assert waiting.speedups["batched"] > 10
    assert _plan(_times(0.02, 0.1, cores=1.0), processors=1).way == "serial"
    assert _plan(_times(0.02, 0.1, cores=4.0), processors=2).way == "serial"  # more threads than there is room for


def test_one_call_of_a_vectorised_problem_is_not_cut_up() -> None:
    """Half a second for a call, a millisecond more for each row: sixteen calls take as long as one."""
    chosen = _plan(_times(0.5, 0.1, row=0.001))
    assert chosen.way == "serial"
    assert chosen.speedups["batched"] < 1.2


def test_one_worker_gains_nothing() -> None:
    assert _plan(_times(0.1, 1.0), workers=1).way == "serial"


def test_costlier_calls_make_spreading_worth_less() -> None:
    times = _times(0.01, 0.1)
    cheap = plan(times, workers=8, processors=64, population=92)
    dear = plan(
        times,
        workers=8,
        processors=64,
        population=92,
        overheads=Overheads(call_seconds=1.0, driver_seconds=0.1, steady_seconds=0.1),
    )
    assert cheap.way != "serial"
    assert dear.way == "serial"


def test_few_generations_do_not_pay_for_the_end_of_a_flow() -> None:
    once = plan(_times(0.02, 2.0), workers=16, processors=64, population=92, generations=1)
    often = plan(_times(0.02, 2.0), workers=16, processors=64, population=92, generations=1000)
    assert once.speedups["asynchronous"] < 0.7 * often.speedups["asynchronous"]


@given(
    mean=st.floats(1e-6, 100),
    cv=st.floats(0, 5),
    vectorised=st.floats(0, 1),
    cores=st.floats(0, 8),
    workers=st.integers(1, 64),
    processors=st.floats(0.5, 256),
    population=st.integers(2, 300),
)
def test_no_plan_promises_more_than_workers_and_processors_can_give(
    mean: float, cv: float, vectorised: float, cores: float, workers: int, processors: float, population: int
) -> None:
    times = _times(mean, cv, row=mean * vectorised, cores=cores)
    first = plan(times, workers=workers, processors=processors, population=population, generations=10)
    assert first == plan(times, workers=workers, processors=processors, population=population, generations=10)
    assert first.speedups["batched"] <= workers * 1.001
    assert 1 <= first.workers <= workers
    assert 1 <= first.rows_per_call <= population
    assert all(0 <= share <= 1 for share in first.busy.values())
    assert Plan.from_dict(first.to_dict()) == first
    if first.way != "serial":
        assert first.speedups[first.way] > 1.1
    assert "\n" not in first.reason


@pytest.mark.parametrize("bad", [0, -1, True, 2.5, None, "2"])
def test_sizes_that_are_none_are_refused(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="workers must be a whole number >= 1"):
        plan(_times(0.1, 1.0), workers=bad, processors=2, population=92)
    if bad is not None:
        with pytest.raises(ConfigurationError, match="generations must be a whole number >= 1"):
            plan(_times(0.1, 1.0), workers=2, processors=2, population=92, generations=bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_processors_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ConfigurationError, match="processors must be a finite number > 0"):
        plan(_times(0.1, 1.0), workers=2, processors=bad, population=92)


@pytest.mark.parametrize("name", ["mean", "cv", "row_seconds", "cores", "selection_seconds"])
@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), True, "1", None])
def test_times_that_are_none_are_refused(name: str, bad: object) -> None:
    with pytest.raises(InvalidInputError, match=name):
        dataclasses.replace(_times(0.1, 1.0), **{name: bad})


class _Made:
    """Time that passes when a problem says so."""

    def __init__(self) -> None:
        self.now = self.computed = 0.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now, processor=lambda: self.computed)

    def problem(self, fixed: float, each: float, *, computes: bool) -> FunctionProblem:
        def evaluate(X: np.ndarray) -> np.ndarray:
            spent = fixed + each * len(X)
            self.now += spent
            self.computed += spent if computes else 0.0
            return X[:, :2]

        return FunctionProblem(evaluate, [0, 0], [1, 1], n_obj=2)


@pytest.mark.parametrize("computes", [True, False])
def test_a_trial_tells_waiting_from_computing(computes: bool) -> None:
    made = _Made()
    times = measure(made.problem(0.0, 0.01, computes=computes), Recipe(population=8), clock=made.clock())
    assert times.mean == pytest.approx(0.01)
    assert times.row_seconds == pytest.approx(0.01)
    assert times.cv == pytest.approx(0.0, abs=1e-9)
    assert times.cores == pytest.approx(1.0 if computes else 0.0)


def test_a_trial_tells_a_vectorised_problem() -> None:
    made = _Made()
    times = measure(made.problem(0.05, 0.001, computes=True), Recipe(population=8), clock=made.clock())
    assert times.mean == pytest.approx(0.051)
    assert times.row_seconds == pytest.approx(0.001)


def test_a_trial_evaluates_candidates_of_the_search_and_only_those() -> None:
    seen: list[np.ndarray] = []

    def note(X: np.ndarray) -> np.ndarray:
        seen.append(X.copy())
        time.sleep(0.002 * len(X))
        return X[:, :2]

    problem = FunctionProblem(note, [0, 0], [1, 1], n_obj=2)
    times = measure(problem, Recipe(population=8, seed=3))
    first = Recipe(population=8, seed=3).build(problem).ask()
    assert all((first == row).all(axis=1).any() for row in np.concatenate(seen))
    assert times.samples == 8


def test_a_trial_of_a_cheap_problem_times_whole_generations() -> None:
    made = _Made()
    times = measure(made.problem(0.0002, 0.000001, computes=True), Recipe(population=40), clock=made.clock())
    assert times.mean == pytest.approx(0.000201)
    assert times.row_seconds == pytest.approx((0.0002 + 40 * 0.000001) / 40)
    assert times.selection_seconds == 0.0  # breeding takes none of the time that this clock knows


def test_a_trial_of_the_wrong_shape_is_refused() -> None:
    problem = FunctionProblem(lambda X: X[:, :1], [0, 0], [1, 1], n_obj=2)
    with pytest.raises(InvalidInputError, match=r"evaluate returned shape \(1, 1\); expected \(1, 2\)"):
        measure(problem, Recipe(population=8))


def test_a_repeatable_search_gets_no_steady_flow() -> None:
    uneven = EvaluationTimes(mean=0.1, cv=1.5, samples=40, row_seconds=0.1, selection_seconds=0.001, cores=0.0)
    free = plan(uneven, workers=16, processors=16, population=92)
    assert free.way == "asynchronous"
    bound = plan(uneven, workers=16, processors=16, population=92, ways=("serial", "batched"))
    assert bound.way == "batched"
    with pytest.raises(ConfigurationError, match="unknown ways 'async'; allowed: asynchronous, batched"):
        plan(uneven, workers=16, processors=16, population=92, ways=("async",))
