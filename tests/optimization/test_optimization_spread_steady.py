"""The steady flow on workers in virtual time: bounds, replays, losses, defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from spread_kit import VirtualWorkers, same, sphere_problem

from rlaas.errors import NotFoundError, OperatorError
from rlaas.optimization import FunctionProblem, Generations, Problem, TargetHypervolume, minimize
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.spread import replay
from rlaas.optimization.spread.events import EventLog, Told, read_events
from rlaas.optimization.spread.recipe import Recipe, Shape
from rlaas.optimization.spread.steady import SteadySearch
from rlaas.optimization.spread.workers import Answer

REFERENCE = [2.0, 2.0, 2.0]


def _search(
    problem: Problem, generations: int = 5, *, log: EventLog | None = None, recipe: Recipe | None = None
) -> SteadySearch:
    engine = (recipe or Recipe(population=20, seed=4)).build(problem)
    ledger = Ledger(problem, engine.size, [Generations(generations)], REFERENCE[: problem.n_obj])
    return SteadySearch(problem, engine, ledger, log)


def _log(path: Path, problem: Problem, *, resume: bool = False, **recipe: object) -> EventLog:
    header = {
        "recipe": Recipe(**{"population": 20, "seed": 4, **recipe}).to_dict(),
        "problem": Shape.of(problem).to_dict(),
    }
    return EventLog(path, header, resume=resume)


@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("rows", [1, 3])
def test_no_more_than_two_calls_for_each_worker_are_open_and_every_candidate_counts(workers: int, rows: int) -> None:
    problem = sphere_problem()
    search, pool = _search(problem), VirtualWorkers(problem, workers)
    assert search.run(pool, rows_per_call=rows) == "5 generations"
    assert pool.most_in_flight <= 2 * workers
    assert search.ledger.evaluations == search.asked == 100
    assert not search.open
    assert [entry.number for entry in search.ledger.history] == [1, 2, 3, 4, 5]


def test_the_flow_finds_what_generations_find() -> None:
    problem = sphere_problem()
    ratios = []
    for seed in range(9):  # of one run in ten either may be some percent behind
        search = _search(problem, 40, recipe=Recipe(population=20, seed=seed))
        search.run(VirtualWorkers(problem, 8))
        alone = minimize(problem, generations=40, population=20, seed=seed, reference=REFERENCE)
        ratios.append(search.ledger.history[-1].hypervolume / alone.history[-1].hypervolume)
    assert np.median(ratios) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("algorithm", ["nsga3", "unsga3", "moead-pbi", "moead-tchebycheff"])
@pytest.mark.parametrize("arrival", [0, 1])
def test_a_run_is_replayed_to_the_last_bit_without_evaluating(tmp_path: Path, algorithm: str, arrival: int) -> None:
    problem = sphere_problem()
    recipe = Recipe(population=20, seed=4, algorithm=algorithm)
    with _log(tmp_path / "log", problem, algorithm=algorithm) as log:
        search = _search(problem, 8, log=log, recipe=recipe)
        log.ended(search.run(VirtualWorkers(problem, 5, arrival, lose=(7, 31))))
    again = replay(tmp_path / "log", reference=REFERENCE)
    live = search.ledger.result(search.engine.population, "8 generations")
    assert same(again.pop, live.pop)
    assert same(again.opt, live.opt)
    assert again.unknown == live.unknown == 2
    assert again.stopped == "8 generations"
    assert again.history == live.history


def test_the_order_of_arrival_decides_and_is_what_the_log_keeps(tmp_path: Path) -> None:
    problem = sphere_problem()
    found = []
    for arrival in (0, 1):
        with _log(tmp_path / f"log{arrival}", problem) as log:
            search = _search(problem, 4, log=log)
            search.run(VirtualWorkers(problem, 5, arrival))
        found.append(search.engine.population)
        assert same(replay(tmp_path / f"log{arrival}").pop, search.engine.population)
    assert not same(*found)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.71, 0.999])
def test_a_run_cut_short_goes_on_with_what_was_in_flight(tmp_path: Path, share: float) -> None:
    problem = sphere_problem()
    with _log(tmp_path / "log", problem) as log:
        _search(problem, 6, log=log).run(VirtualWorkers(problem, 4))
    content = (tmp_path / "log").read_bytes()
    header = content.index(b"\n") + 1
    (tmp_path / "log").write_bytes(content[: header + int(share * (len(content) - header))])
    cut = read_events(tmp_path / "log")
    done = sum(len(event.numbers) for event in cut.entries if isinstance(event, Told))
    with _log(tmp_path / "log", problem, resume=True) as log:
        search = _search(problem, 6, log=log)
        assert log.before is not None
        search.walk(log.before)
        assert search.ledger.evaluations == done
        in_flight = len(search.open)
        pool = VirtualWorkers(problem, 4, seed=9)
        assert search.run(pool) == "6 generations"
    assert pool.submitted == 120 - done >= in_flight
    assert search.ledger.evaluations == search.asked == 120
    assert same(replay(tmp_path / "log").pop, search.engine.population)


def test_micro_batches_are_what_was_asked_for(tmp_path: Path) -> None:
    problem = sphere_problem()
    with _log(tmp_path / "log", problem) as log:
        _search(problem, 3, log=log).run(VirtualWorkers(problem, 8), micro_batch=5)
    told = [len(event.numbers) for event in read_events(tmp_path / "log").entries if isinstance(event, Told)]
    assert told == [5] * 12


def test_lost_candidates_are_unknown_and_take_no_part() -> None:
    problem = sphere_problem()
    search = _search(problem)
    search.run(VirtualWorkers(problem, 4, lose=(1, 2, 50)), rows_per_call=1)
    assert search.ledger.unknown == 3
    assert search.ledger.evaluations == 100
    assert np.isfinite(search.engine.population.F).all()


def test_a_first_generation_without_a_value_ends_the_run() -> None:
    problem = FunctionProblem(lambda X: np.full((len(X), 2), np.nan), [0.0], [1.0], n_obj=2)
    with pytest.raises(OperatorError, match=r"none of the \d+ candidates of the first generation"):
        _search(problem, recipe=Recipe(population=6)).run(VirtualWorkers(problem, 2))


def test_a_defect_ends_the_run_after_everything_answered_was_told(tmp_path: Path) -> None:
    inner = sphere_problem()
    calls = []

    def fails(X: np.ndarray) -> np.ndarray:
        calls.append(len(X))
        if len(calls) == 70:
            raise ZeroDivisionError("defect of candidate 70")
        return inner.evaluate(X)

    problem = FunctionProblem(fails, inner.xl, inner.xu, n_obj=3)
    with _log(tmp_path / "log", problem) as log:
        search = _search(problem, log=log)
        with pytest.raises(ZeroDivisionError, match="candidate 70"):
            search.run(VirtualWorkers(problem, 4), micro_batch=11)
    assert search.ledger.evaluations == 69
    assert len(search.open) == search.asked - 69  # the one that failed is open still, and tried again on resumption
    cut = replay(tmp_path / "log")
    assert cut.evaluations == 69
    assert cut.stopped == "the log ends here"
    assert same(cut.pop, search.engine.population)


def test_a_pool_that_breaks_down_takes_no_answer_with_it() -> None:
    problem = sphere_problem()

    class Breaking(VirtualWorkers):
        def completed(self, timeout: float | None = None) -> list[Answer]:
            if self.submitted >= 50:
                raise OperatorError("no worker is left")
            return super().completed(timeout)

    search = _search(problem)
    with pytest.raises(OperatorError, match="no worker is left"):
        search.run(Breaking(problem, 4), micro_batch=7)
    assert search.ledger.evaluations == 50 - 8  # all but those in flight
    assert len(search.open) == 8


def test_other_stops_end_the_flow() -> None:
    problem = sphere_problem()
    engine = Recipe(population=20, seed=4).build(problem)
    ledger = Ledger(problem, 20, [Generations(200), TargetHypervolume(7.0)], REFERENCE)
    search = SteadySearch(problem, engine, ledger)
    assert search.run(VirtualWorkers(problem, 4)) == "hypervolume 7"
    assert ledger.history[-1].hypervolume >= 7.0 > ledger.history[-2].hypervolume


def test_a_finite_space_is_exhausted() -> None:
    problem = FunctionProblem(
        lambda X: np.stack([X.sum(axis=1), (3 - X).sum(axis=1)], axis=1),
        [0, 0],
        [3, 3],
        n_obj=2,
        integer=[True, True],
    )
    search = _search(problem, 50, recipe=Recipe(population=6))
    assert search.run(VirtualWorkers(problem, 3)) == "every candidate of the finite space was tried"
    assert search.ledger.evaluations == 16


def test_a_log_that_another_engine_wrote_is_refused(tmp_path: Path) -> None:
    problem = sphere_problem()
    with _log(tmp_path / "log", problem, seed=5) as log:  # says seed 5, and 4 is what runs
        _search(problem, 3, log=log).run(VirtualWorkers(problem, 2))
    with pytest.raises(OperatorError, match="event 1 of the log does not repeat"):
        replay(tmp_path / "log")
    with pytest.raises(NotFoundError):
        replay(tmp_path / "none")
