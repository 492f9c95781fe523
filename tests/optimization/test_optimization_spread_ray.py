"""The ways on a real local Ray, with workers that are killed, hang and return nonsense."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import spread_kit
from spread_kit import VirtualWorkers, same, sphere_problem
from support.local_ray import started_ray

from rlaas.errors import InvalidInputError
from rlaas.optimization import FunctionProblem, Generations, minimize
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.spread import SpreadResult, replay, spread_search
from rlaas.optimization.spread.islands import Archipelago
from rlaas.optimization.spread.recipe import Recipe

pytestmark = pytest.mark.ray

REFERENCE = [2.0, 2.0, 2.0]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with started_ray(cpus=2):
        # The actors' processes cannot import a test module.
        for name in (__name__, spread_kit.__name__):
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
        yield
        for name in (__name__, spread_kit.__name__):
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _search(problem: Any, way: str, **options: Any) -> SpreadResult:
    options = {"generations": 5, "population": 20, "seed": 3, "reference": REFERENCE, "workers": 2, **options}
    return spread_search(problem, way=way, cpus_per_worker=0.5, **options)


def _when(happens: Callable[[np.ndarray], None]) -> Callable[[], FunctionProblem]:
    """The sphere problem; something happens before each evaluation."""

    def build() -> FunctionProblem:
        inner = sphere_problem()

        def evaluate(X: np.ndarray) -> np.ndarray:
            happens(X)
            return inner.evaluate(X)

        return FunctionProblem(evaluate, inner.xl, inner.xu, n_obj=3)

    return build


def _once(marker: Path, after: int, act: Callable[[], None]) -> Callable[[np.ndarray], None]:
    """Acts in the first process that makes ``after`` evaluations."""
    calls = [0]

    def happens(X: np.ndarray) -> None:
        calls[0] += 1
        if calls[0] < after:
            return
        try:
            marker.touch(exist_ok=False)  # one of two processes that come here at once
        except FileExistsError:
            return
        act()

    return happens


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    time.sleep(120)


def test_generations_on_a_pool_are_the_search_on_one() -> None:
    spread = _search(sphere_problem(), "batched", rows_per_call=1)
    alone = minimize(sphere_problem(), generations=5, population=20, seed=3, reference=REFERENCE)
    assert same(spread.found.pop, alone.pop)
    assert spread.found.history == alone.history
    assert spread.usage.calls == 100
    assert _search(sphere_problem(), "batched").usage.calls < 100
    assert 0 < spread.busy_share <= 1


def test_a_flow_is_replayed_though_a_worker_was_killed(tmp_path: Path) -> None:
    spread = _search(
        _when(_once(tmp_path / "killed", 10, _kill_self)), "asynchronous", checkpoint=tmp_path / "run", generations=8
    )
    assert (tmp_path / "killed").exists()
    assert spread.usage.replaced == spread.usage.retried == 1
    assert spread.usage.lost == spread.found.unknown == 0
    assert spread.found.evaluations == spread.usage.calls == 160
    again = replay(tmp_path / "run" / "events.jsonl", reference=REFERENCE)
    assert same(again.pop, spread.found.pop)
    assert again.history == spread.found.history
    assert again.stopped == spread.found.stopped == "8 generations"


def test_what_hangs_once_is_tried_again_and_what_hangs_always_is_unknown(tmp_path: Path) -> None:
    chosen = Recipe(population=20, seed=3).build(sphere_problem()).ask()[7]

    def hangs(X: np.ndarray) -> None:
        if (chosen == X).all(axis=1).any():
            _hang()

    once = _search(_when(_once(tmp_path / "hung", 5, _hang)), "asynchronous", deadline_seconds=2, generations=3)
    assert (once.usage.retried, once.usage.lost, once.found.unknown) == (1, 0, 0)
    always = _search(_when(hangs), "asynchronous", deadline_seconds=2, generations=3)
    assert (always.usage.retried, always.usage.lost, always.found.unknown) == (1, 1, 1)
    assert always.found.evaluations == 60
    assert not (chosen == always.found.pop.X).all(axis=1).any()


def test_islands_are_the_same_though_a_worker_was_killed(tmp_path: Path) -> None:
    problem, recipe = sphere_problem(), Recipe(population=60, seed=3)
    calm = Archipelago(problem, recipe, 60, 2, Ledger(problem, 60, [Generations(60)], REFERENCE), deadline_seconds=9)
    calm.run(VirtualWorkers(problem, 2), lambda: None)
    spread = _search(
        _when(_once(tmp_path / "killed", 30, _kill_self)),
        "islands",
        population=60,
        generations=60,
        checkpoint=tmp_path / "run",
    )
    assert (tmp_path / "killed").exists()
    assert spread.plan.islands == 2
    assert spread.usage.replaced == 1
    assert spread.lost_epochs == 0
    assert same(spread.found.pop, calm.population)
    assert spread.found.evaluations == 3600


@pytest.mark.parametrize("way", ["batched", "asynchronous", "islands"])
def test_a_wrong_shape_is_one_clear_error_and_nothing_is_lost(tmp_path: Path, way: str) -> None:
    mended = tmp_path / "mended"

    def build() -> FunctionProblem:
        inner, rows = sphere_problem(), [0]

        def evaluate(X: np.ndarray) -> np.ndarray:
            rows[0] += len(X)
            # In whichever worker gets that far: islands in their second epoch, of 25 generations of 20.
            broken = rows[0] > (600 if way == "islands" else 50) and not mended.exists()
            return inner.evaluate(X)[:, : 2 if broken else 3]

        return FunctionProblem(evaluate, inner.xl, inner.xu, n_obj=3)

    options: dict[str, Any] = {"checkpoint": tmp_path / "run", "generations": 60 if way == "islands" else 6}
    with pytest.raises(InvalidInputError, match=r"^evaluate returned shape \(\d+, 2\); expected \(\d+, 3\)") as caught:
        _search(build, way, **options)
    assert "\n" not in str(caught.value)
    partial = caught.value.partial
    assert partial.evaluations > 0
    mended.touch()
    resumed = _search(build, way, resume=True, **options)
    assert resumed.found.evaluations == 20 * options["generations"]
    assert resumed.found.history[: len(partial.history)] == partial.history
    if way != "asynchronous":  # whose order of arrival is never the same
        unbroken = _search(build, way, generations=options["generations"])
        assert same(resumed.found.pop, unbroken.found.pop)


def test_slow_evaluations_that_wait_are_spread_and_the_reason_is_said() -> None:
    def waits(X: np.ndarray) -> None:
        time.sleep(0.03 * len(X))

    spread = _search(_when(waits), "auto", generations=2)
    assert spread.plan.way in {"batched", "asynchronous"}
    assert spread.plan.speedups[spread.plan.way] > 1.5
    assert spread.plan.times is not None
    assert spread.plan.times.mean >= 0.03
    assert spread.plan.reason.startswith(f"{spread.plan.way}: an evaluation takes 3")
    assert spread.found.evaluations == 40
