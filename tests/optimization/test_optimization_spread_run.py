"""One call for every way: what does not need Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spread_kit import VirtualWorkers, same, sphere_problem

from rlaas.errors import ConfigurationError, ConflictError, InvalidInputError, NotReadyError, OperatorError
from rlaas.optimization import FunctionProblem, Generations, TargetHypervolume, minimize
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.spread import Plan, SpreadResult, replay, spread_search
from rlaas.optimization.spread.conduct import Conductor
from rlaas.optimization.spread.folder import RunFolder
from rlaas.optimization.spread.recipe import Recipe

REFERENCE = [2.0, 2.0, 2.0]


def _serial(problem: Any = None, **options: Any) -> SpreadResult:
    options = {"way": "serial", "generations": 6, "population": 20, "seed": 3, "reference": REFERENCE, **options}
    return spread_search(sphere_problem() if problem is None else problem, **options)


def _failing(after: int) -> FunctionProblem:
    """The sphere problem, but for a defect in the evaluation after ``after``."""
    inner, calls = sphere_problem(), [0]

    def evaluate(X: np.ndarray) -> np.ndarray:
        calls[0] += 1
        return inner.evaluate(X)[:, : 3 if calls[0] <= after else 2]

    return FunctionProblem(evaluate, inner.xl, inner.xu, n_obj=3)


def _conduct(way: str, folder: Path, problem: Any, workers: Any, generations: int = 6, *, resume: bool = False) -> Any:
    """What ``spread_search`` does, with other workers than Ray's."""
    recipe = Recipe(population=60 if way == "islands" else 20, seed=3)
    plan = Plan(
        way=way, workers=3, islands=3 if way == "islands" else 1, speedups={}, busy={}, times=None, reason="test"
    )
    engine = recipe.build(problem)
    ledger = Ledger(problem, engine.size, [Generations(generations)], REFERENCE)
    return Conductor(
        problem, recipe, engine, plan, ledger, RunFolder(folder, recipe, problem, resume=resume), deadline_seconds=9
    ).run(workers)


def test_the_serial_way_is_minimize() -> None:
    found = _serial()
    alone = minimize(sphere_problem(), generations=6, population=20, seed=3, reference=REFERENCE)
    assert same(found.found.pop, alone.pop)
    assert found.found.history == alone.history
    assert found.found.stopped == alone.stopped == "6 generations"
    assert found.plan.reason == "serial: asked for"
    assert np.isnan(found.busy_share)


def test_a_problem_may_be_given_by_what_builds_it() -> None:
    assert same(_serial(sphere_problem).found.pop, _serial().found.pop)


def test_a_cheap_problem_is_searched_here_and_needs_no_ray() -> None:
    found = _serial(way="auto", workers=16)
    assert found.plan.way == "serial"
    assert found.plan.times is not None
    assert found.plan.times.mean < 1e-3
    assert "too little to be sent away" in found.plan.reason
    assert same(found.found.pop, _serial().found.pop)  # the trial left no trace


def test_a_way_that_needs_ray_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="needs a running Ray"):
        _serial(way="asynchronous", checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_progress_and_watch_hear_of_every_generation_once(tmp_path: Path) -> None:
    heard: list[Any] = []
    watched: list[Any] = []
    _serial(
        generations=4,
        checkpoint=tmp_path / "run",
        progress=lambda done, total: heard.append((done, total)),
        watch=lambda entry, members: watched.append((entry.number, len(members))),
    )
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert watched == [(1, 20), (2, 20), (3, 20), (4, 20)]
    heard.clear()
    _serial(
        generations=6,
        checkpoint=tmp_path / "run",
        resume=True,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(5, 6), (6, 6)]


def test_other_stops_end_it() -> None:
    found = _serial(generations=None, stop=TargetHypervolume(6.9)).found
    assert found.stopped == "hypervolume 6.9"


@pytest.mark.parametrize(
    ("way", "cut", "generations"), [("serial", 2, 6), ("batched", 5, 6), ("islands", 25, 60), ("islands", 50, 60)]
)
def test_a_resumed_run_is_the_unbroken_one_to_the_last_bit(
    tmp_path: Path, way: str, cut: int, generations: int
) -> None:
    problem = sphere_problem()

    def workers(seed: int) -> VirtualWorkers | None:
        return None if way == "serial" else VirtualWorkers(problem, 3, seed)

    unbroken = _conduct(way, tmp_path / "whole", problem, workers(0), generations)
    _conduct(way, tmp_path / "parts", problem, workers(1), cut)
    resumed = _conduct(way, tmp_path / "parts", problem, workers(2), generations, resume=True)
    assert same(resumed.pop, unbroken.pop)
    assert resumed.evaluations == unbroken.evaluations
    assert resumed.history == unbroken.history


@pytest.mark.parametrize("way", ["serial", "batched"])
def test_a_wrong_shape_loses_nothing_and_the_run_goes_on_as_if_it_had_not_been(tmp_path: Path, way: str) -> None:
    broken = _failing(3)
    workers = None if way == "serial" else VirtualWorkers(broken, 3)
    with pytest.raises(InvalidInputError, match=r"evaluate returned shape \(20, 2\); expected \(20, 3\)") as caught:
        _conduct(way, tmp_path / "run", broken, workers)
    partial = caught.value.partial
    assert (partial.generations, partial.evaluations) == (3, 60)
    assert partial.stopped.startswith("failed: evaluate returned shape")
    assert same(partial.pop, _serial(generations=3).found.pop)
    mended = sphere_problem()
    resumed = _conduct(
        way, tmp_path / "run", mended, None if way == "serial" else VirtualWorkers(mended, 3), resume=True
    )
    assert same(resumed.pop, _serial().found.pop)


def test_a_wrong_shape_in_a_flow_loses_nothing(tmp_path: Path) -> None:
    broken = _failing(50)
    with pytest.raises(InvalidInputError, match=r"evaluate returned shape \(1, 2\); expected \(1, 3\)") as caught:
        _conduct("asynchronous", tmp_path / "run", broken, VirtualWorkers(broken, 3))
    assert caught.value.partial.evaluations == 50
    mended = sphere_problem()
    resumed = _conduct("asynchronous", tmp_path / "run", mended, VirtualWorkers(mended, 3), resume=True)
    assert resumed.evaluations == 120
    again = replay(tmp_path / "run" / "events.jsonl", reference=REFERENCE)
    assert same(again.pop, resumed.pop)
    assert again.history == resumed.history
    assert again.stopped == "6 generations"


def test_a_run_whose_first_generation_failed_can_be_taken_up(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _serial(_failing(0), checkpoint=tmp_path / "run")
    assert not hasattr(caught.value, "partial")
    assert same(_serial(checkpoint=tmp_path / "run", resume=True).found.pop, _serial().found.pop)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from spread_kit import VirtualWorkers, sphere_problem
from rlaas.optimization import FunctionProblem
from test_optimization_spread_run import _conduct

inner, calls = sphere_problem(), [0]
def evaluate(X):
    calls[0] += 1
    if calls[0] == 77:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner.evaluate(X)
problem = FunctionProblem(evaluate, inner.xl, inner.xu, n_obj=3)
_conduct("asynchronous", Path({folder!r}), problem, VirtualWorkers(problem, 3))
"""


def test_a_killed_driver_loses_at_most_what_was_not_told(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    problem = sphere_problem()
    workers = VirtualWorkers(problem, 3)
    resumed = _conduct("asynchronous", tmp_path / "run", problem, workers, resume=True)
    assert resumed.evaluations == 120
    assert 120 - 76 <= workers.submitted <= 120 - 76 + 20
    assert same(replay(tmp_path / "run" / "events.jsonl").pop, resumed.pop)


def test_a_folder_keeps_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _serial(checkpoint=folder)
    with pytest.raises(ConflictError, match="holds a run already; resume it, or name another folder"):
        _serial(checkpoint=folder)
    with pytest.raises(ConflictError, match=r"another search: it differs in seed"):
        _serial(checkpoint=folder, resume=True, seed=4)
    with pytest.raises(ConflictError, match="it differs in n_var, xl, xu, integer"):
        _serial(sphere_problem(7), checkpoint=folder, resume=True)
    # What was chosen once is kept: measuring anew might choose otherwise.
    assert _serial(checkpoint=folder, resume=True, way="auto", workers=8).plan.reason == "serial: asked for"
    (folder / "run.json").write_text('{"plan": 3}')
    with pytest.raises(OperatorError, match="is no record of a run that this version can read"):
        _serial(checkpoint=folder, resume=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"way": "parallel"}, ConfigurationError, "unknown way 'parallel'; allowed: asynchronous, auto, batched"),
        ({"way": 3}, ConfigurationError, "unknown way"),
        ({"workers": 0}, ConfigurationError, "workers must be a whole number >= 1, got 0"),
        ({"workers": True}, ConfigurationError, "workers must be a whole number >= 1, got True"),
        ({"workers": 2.5}, ConfigurationError, "workers must be a whole number >= 1"),
        ({"rows_per_call": 0}, ConfigurationError, "rows_per_call must be a whole number >= 1"),
        ({"generations": 0}, ConfigurationError, "generations must be a whole number >= 1"),
        ({"generations": None}, ConfigurationError, "needs generations or a stop"),
        ({"stop": [3]}, ConfigurationError, "stop 3 is none"),
        ({"stop": TargetHypervolume(1), "reference": None}, ConfigurationError, "needs a reference point"),
        ({"generations": None, "stop": TargetHypervolume(1), "progress": print}, ConfigurationError, "progress needs"),
        ({"reference": [1.0, 1.0]}, InvalidInputError, r"reference has shape \(2,\); expected \(3,\)"),
        ({"algorithm": "spea"}, ConfigurationError, "unknown algorithm 'spea'"),
        ({"initial": "ünïcode"}, InvalidInputError, "initial must be an array of numbers, got 'ünïcode'"),
        ({"initial": [[np.nan] * 6]}, InvalidInputError, "outside the bounds"),
        ({"directions": [[1.0, 0.0]]}, InvalidInputError, "directions have shape"),
        ({"seed": -1}, InvalidInputError, "seed"),
        ({"eta": 3}, ConfigurationError, "eta"),
        ({"deadline_seconds": 0, "way": "batched"}, ConfigurationError, "deadline_seconds must be positive"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_done(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _serial(checkpoint=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_what_is_no_problem_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="is not a problem"):
        _serial(3)
    with pytest.raises(InvalidInputError, match="is not a problem"):
        _serial(lambda: "nothing")
