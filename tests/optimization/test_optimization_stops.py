"""When a search ends, what it leaves when it fails, and what pymoo's tools make of the result."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from pymoo.core.callback import Callback
from pymoo.indicators.hv import HV
from pymoo.indicators.igd import IGD
from pymoo.problems import get_problem
from pymoo.visualization.pcp import PCP
from pymoo.visualization.petal import Petal
from pymoo.visualization.scatter import Scatter

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.optimization import (
    DistanceStall,
    Evaluations,
    FunctionProblem,
    HypervolumeStall,
    Search,
    Seconds,
    TargetHypervolume,
    hypervolume,
    igd,
    minimize,
)

PROBLEM = get_problem("zdt1", n_var=6)


def test_each_stop_says_why() -> None:
    corner = [1.1, 1.1]
    whole = minimize(PROBLEM, generations=7, population=20, seed=0)
    assert whole.stopped == "7 generations"
    counted = minimize(PROBLEM, stop=Evaluations(95), population=20, seed=0)
    assert counted.stopped == "95 evaluations"
    assert counted.evaluations == 100
    timed = minimize(PROBLEM, stop=Seconds(0.05), population=20, seed=0)
    assert timed.stopped == "0.05 s"
    assert timed.history[-1].seconds >= 0.05 > timed.history[-2].seconds
    target = minimize(PROBLEM, generations=500, stop=TargetHypervolume(0.7), population=40, seed=0, reference=corner)
    assert target.stopped == "hypervolume 0.7"
    assert target.history[-1].hypervolume >= 0.7 > target.history[-2].hypervolume


@pytest.mark.parametrize("stop", [HypervolumeStall(25, 1e-3), DistanceStall(50, 1e-3)])
def test_a_stalled_search_ends_near_the_front(stop: HypervolumeStall | DistanceStall) -> None:
    result = minimize(PROBLEM, generations=3_000, stop=[stop], population=40, seed=0, reference=[1.1, 1.1])
    assert "generations" in result.stopped
    assert result.generations < 1_000
    true_volume = hypervolume(PROBLEM.pareto_front(), [1.1, 1.1])
    assert result.history[-1].hypervolume > 0.95 * true_volume


def test_a_search_without_a_feasible_candidate_does_not_stall() -> None:
    never = FunctionProblem(lambda X: np.hstack([X, 1 - X, np.ones_like(X)]), [0.0], [1.0], n_obj=2, n_constraints=1)
    result = minimize(
        never, generations=40, stop=[HypervolumeStall(5), DistanceStall(5)], population=6, reference=[2.0, 2.0]
    )
    assert result.stopped == "40 generations"


@pytest.mark.parametrize("stop", [Evaluations, HypervolumeStall, DistanceStall])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_impossible_counts_are_refused(stop: type, value: object) -> None:
    with pytest.raises(ConfigurationError, match="must be a whole number >= 1"):
        stop(value)


@pytest.mark.parametrize("value", [0, float("nan"), float("inf"), "1", True])
def test_impossible_limits_are_refused(value: float) -> None:
    for stop in (Seconds, TargetHypervolume, lambda v: DistanceStall(3, v)):
        with pytest.raises(ConfigurationError, match="must be a finite number > 0"):
            stop(value)


def test_a_failure_loses_nothing(tmp_path: Path) -> None:
    """The fifth evaluation has the wrong shape: what was found until then is there, and the search can go on."""
    calls = 0

    def flaky(X: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        values = PROBLEM.evaluate(X)
        return values[:, :1] if calls == 5 else values

    target = tmp_path / "search.npz"
    with pytest.raises(InvalidInputError, match=r"returned shape \(20, 1\); expected \(20, 2\)") as caught:
        minimize(PROBLEM, generations=9, population=20, seed=3, evaluator=flaky, checkpoint=target)
    partial = caught.value.partial  # type: ignore[attr-defined]
    whole = minimize(PROBLEM, generations=4, population=20, seed=3)
    np.testing.assert_array_equal(partial.F, whole.F)
    assert partial.generations == 4
    assert partial.stopped.startswith("failed: evaluate returned shape")
    resumed = minimize(PROBLEM, generations=9, population=20, seed=3, evaluator=flaky, checkpoint=target, resume=True)
    assert resumed.evaluations == 180
    np.testing.assert_array_equal(resumed.F, minimize(PROBLEM, generations=9, population=20, seed=3).F)


def test_pymoos_callbacks_indicators_and_plots_take_the_result(tmp_path: Path) -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.data["seen"] = []

        def notify(self, algorithm: Search) -> None:  # type: ignore[override]
            assert algorithm.problem is problem
            F, CV = algorithm.pop.get("F", "CV")
            assert len(F) == len(CV) == len(algorithm.pop)
            self.data["seen"].append((algorithm.n_gen, algorithm.evaluator.n_eval, algorithm.opt.get("F").shape[1]))

    problem = get_problem("dtlz2", n_var=7, n_obj=3)
    watch = Watch()
    result = minimize(problem, generations=12, population=28, seed=1, callback=watch, keep_populations=True)
    assert watch.data["seen"] == [(i, 28 * i, 3) for i in range(1, 13)]
    curve = [(entry.evaluator.n_eval, entry.opt.get("F").min(), entry.n_gen) for entry in result.history]
    assert len(curve) == 12
    assert result.exec_time > 0
    assert result.opt.get("X").shape == result.X.shape
    assert (result.CV == 0).all()
    front = problem.pareto_front()
    assert IGD(front)(result.F) == pytest.approx(igd(result.F, front))
    assert HV(ref_point=np.full(3, 2.0))(result.F) == pytest.approx(hypervolume(result.F, np.full(3, 2.0)))
    mpl.use("Agg")
    for i, plot in enumerate((Scatter(), PCP(), Petal(bounds=[np.zeros(3), np.full(3, 3.0)]))):
        plot.add(result.F if i < 2 else result.F[:1])
        plot.save(str(tmp_path / f"{i}.png"))
        assert (tmp_path / f"{i}.png").stat().st_size > 1_000


def test_a_warm_start_takes_an_earlier_result() -> None:
    first = minimize(PROBLEM, generations=60, population=40, seed=0)
    warm = minimize(PROBLEM, generations=1, population=40, seed=1, initial=first)
    cold = minimize(PROBLEM, generations=1, population=40, seed=1)
    corner = [1.1, 7.0]
    assert hypervolume(warm.F, corner) >= hypervolume(first.F, corner) > hypervolume(cold.F, corner)


def test_memory_stays_flat() -> None:
    """Arrays live as long as a generation: after a thousand more the process holds hardly more than records of them."""
    import tracemalloc

    search = Search(get_problem("dtlz2", n_var=7, n_obj=3), population=92, seed=0)
    for _ in range(50):
        search.advance()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(1_000):
        search.advance()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / 1_000 < 1_000  # bytes a generation
