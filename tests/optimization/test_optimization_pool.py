"""The pool on a real local Ray, with actors that die, hang and raise."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlaas.errors import ConfigurationError, InvalidInputError, NotReadyError, OperatorError, OverloadedError
from rlaas.optimization import ActorPool, FunctionProblem, minimize
from rlaas.optimization.pool import processors

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    # A short path: Ray's sockets live under it, and their names are limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rl-opt-", dir="/tmp") as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=folder)
        # The actors' processes cannot import a test module.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()


def _squares(X: np.ndarray) -> np.ndarray:
    return np.stack([(X**2).sum(axis=1), ((X - 1) ** 2).sum(axis=1)], axis=1)


def _plain() -> FunctionProblem:
    return FunctionProblem(_squares, [0.0, 0.0], [1.0, 1.0], n_obj=2)


def _gated(folder: Path, *, always: bool = False) -> Callable[[], FunctionProblem]:
    """A problem that, on the row with x0 = 1, leaves its process id and waits, once or always."""

    def evaluate(X: np.ndarray) -> np.ndarray:
        first = not (folder / "pid").exists()
        if (X[:, 0] == 1).any() and (first or always):
            note = folder / f"pid-{os.getpid()}"
            note.write_text(str(os.getpid()))
            note.rename(folder / "pid")
            time.sleep(60)
        return _squares(X)

    return lambda: FunctionProblem(evaluate, [0.0, 0.0], [1.0, 1.0], n_obj=2)


def _rows() -> np.ndarray:
    X = np.random.default_rng(0).uniform(0, 0.9, size=(12, 2))
    X[7, 0] = 1.0
    return X


def _kill_when_written(folder: Path, times: int, killed: list[int]) -> threading.Thread:
    def watch() -> None:
        while len(killed) < times:
            if (folder / "pid").exists() and int((folder / "pid").read_text()) not in killed:
                killed.append(int((folder / "pid").read_text()))
                os.kill(killed[-1], signal.SIGKILL)
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_rows_come_back_in_order_and_a_search_is_the_same(local_ray: None) -> None:
    X = np.random.default_rng(1).uniform(size=(37, 2))
    problem = _plain()
    with ActorPool(_plain, workers=2, cpus_per_worker=0.5) as pool:
        np.testing.assert_array_equal(pool.evaluate(X), _squares(X))
        assert pool.evaluate(np.empty((0, 2))).shape == (0, 2)
        pooled = minimize(problem, generations=5, population=10, seed=3, evaluator=pool.evaluate)
    alone = minimize(problem, generations=5, population=10, seed=3)
    np.testing.assert_array_equal(pooled.X, alone.X)
    np.testing.assert_array_equal(pooled.F, alone.F)
    with pytest.raises(NotReadyError, match="not open"):
        pool.evaluate(X)


def test_cheap_rows_are_sent_together(local_ray: None) -> None:
    with ActorPool(_plain, workers=2, cpus_per_worker=0.5) as pool:
        pool.evaluate(np.zeros((8, 2)))
        pool._row_seconds = 1e-3  # what it would have measured: then 10 rows are worth a call
        assert [c.stop - c.start for c in pool._chunks(25)] == [10, 10, 5]
        pool._row_seconds = 1.0
        assert [c.stop - c.start for c in pool._chunks(25)] == [7, 7, 7, 4]


def test_a_killed_actor_is_replaced_and_its_rows_tried_again(local_ray: None, tmp_path: Path) -> None:
    X, killed = _rows(), []
    with ActorPool(_gated(tmp_path), workers=2, cpus_per_worker=0.5) as pool:
        watcher = _kill_when_written(tmp_path, 1, killed)
        np.testing.assert_array_equal(pool.evaluate(X), _squares(X))
        watcher.join(5)
        assert len(killed) == 1
        np.testing.assert_array_equal(pool.evaluate(X[:6]), _squares(X[:6]))  # both actors work again


def test_rows_that_kill_twice_are_unknown_and_nothing_else_is(local_ray: None, tmp_path: Path) -> None:
    X, killed = _rows(), []
    with ActorPool(_gated(tmp_path, always=True), workers=2, cpus_per_worker=0.5) as pool:
        watcher = _kill_when_written(tmp_path, 2, killed)
        values = pool.evaluate(X)
        watcher.join(5)
    assert len(set(killed)) == 2
    unknown = np.isnan(values).all(axis=1)
    assert unknown.tolist() == [False] * 6 + [True] * 3 + [False] * 3  # the chunk of row 7
    np.testing.assert_array_equal(values[~unknown], _squares(X)[~unknown])


def test_a_missed_deadline_is_tried_once_more(local_ray: None, tmp_path: Path) -> None:
    X = _rows()
    with ActorPool(_gated(tmp_path), workers=2, cpus_per_worker=0.5, deadline_seconds=3) as pool:
        np.testing.assert_array_equal(pool.evaluate(X), _squares(X))


def test_a_defect_of_the_problem_is_raised_as_itself(local_ray: None) -> None:
    def broken(X: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("defect in the problem")

    with (
        ActorPool(lambda: FunctionProblem(broken, [0.0], [1.0], n_obj=2), workers=1, cpus_per_worker=0.5) as pool,
        pytest.raises(ZeroDivisionError, match="defect in the problem"),
    ):
        pool.evaluate(np.zeros((4, 1)))


def _ask_pid(problem: Any, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def _die(problem: Any, payload: Any) -> None:
    os._exit(1)


def _die_once(problem: Any, marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        os._exit(1)
    return "survived"


def _answers(pool: ActorPool, count: int) -> dict[int, Any]:
    answers: dict[int, Any] = {}
    while len(answers) < count:
        answers.update({answer.ticket: answer for answer in pool.completed()})
    return answers


def test_any_task_runs_on_the_workers_copy_of_the_problem(local_ray: None) -> None:
    with ActorPool(_plain, workers=2, cpus_per_worker=0.5) as pool:
        assert pool.completed() == []
        tickets = [pool.submit(_ask_pid, 0.2) for _ in range(6)]
        answers = _answers(pool, 6)
        assert sorted(answers) == sorted(tickets)
        assert len({answer.value for answer in answers.values()}) == 2  # both worked
        assert os.getpid() not in {answer.value for answer in answers.values()}
        assert all(answer.seconds >= 0.2 for answer in answers.values())
        assert pool.usage.calls == 6
        assert pool.usage.busy_seconds == pytest.approx(sum(answer.seconds for answer in answers.values()))


def test_waiting_for_answers_can_be_bounded_and_given_up(local_ray: None) -> None:
    with ActorPool(_plain, workers=1, cpus_per_worker=0.5) as pool:
        pool.submit(_ask_pid, 1.0)
        assert pool.completed(timeout=0.05) == []
        pool.drop()
        late = pool.submit(_ask_pid, 0.0)
        assert [answer.ticket for answer in pool.completed()] == [late]  # the dropped one finished unheard
        assert pool.completed() == []


def test_a_call_behind_one_that_kills_its_worker_is_not_blamed(local_ray: None) -> None:
    with ActorPool(_plain, workers=1, cpus_per_worker=0.5) as pool:
        deadly = pool.submit(_die, None, ahead=True)
        behind = pool.submit(_ask_pid, 0.0, ahead=True)
        answers = _answers(pool, 2)
        assert answers[deadly].lost == "actor_died"
        assert answers[behind].lost is None
        assert answers[behind].value is not None
        assert (pool.usage.lost, pool.usage.retried, pool.usage.replaced) == (1, 1, 2)


def test_a_hanging_call_is_ended_though_others_keep_finishing(local_ray: None) -> None:
    with ActorPool(_plain, workers=2, cpus_per_worker=0.5) as pool:
        hanging = pool.submit(_ask_pid, 60.0, deadline_seconds=1.0)
        answers: dict[int, Any] = {}
        while hanging not in answers:
            pool.submit(_ask_pid, 0.01)
            answers.update({answer.ticket: answer for answer in pool.completed()})
        assert answers.pop(hanging).lost == "deadline_missed"
        assert all(answer.lost is None for answer in answers.values())
        assert pool.usage.replaced == 2


def test_the_others_go_on_while_a_replacement_cannot_start(local_ray: None, tmp_path: Path) -> None:
    """The factory hangs the second time, as an actor does for which the cluster has no room."""

    def factory() -> FunctionProblem:
        starts = len(list(tmp_path.glob("start-*")))
        (tmp_path / f"start-{os.getpid()}").touch()
        if starts >= 2:
            time.sleep(120)
        return _plain()

    with ActorPool(factory, workers=2, cpus_per_worker=0.5, start_seconds=8) as pool:
        once = pool.submit(_die_once, str(tmp_path / "died"))
        tickets = [pool.submit(_ask_pid, 0.02) for _ in range(20)]
        answers = _answers(pool, 21)
        assert answers[once].value == "survived"
        assert len({answers[ticket].value for ticket in tickets[10:]}) == 1  # the one that is left did the rest
        assert pool.usage.replaced == 1
        pool.submit(_die, None)
        with pytest.raises(OverloadedError, match="2 of 2 workers did not start within 8 s"):
            pool.completed()


def test_a_factory_that_fails_later_is_raised_as_itself_after_the_answers(local_ray: None, tmp_path: Path) -> None:
    def factory() -> FunctionProblem:
        if (tmp_path / "started").exists():
            raise ConfigurationError("the data set is gone", field="scenario")
        (tmp_path / "started").touch()
        return _plain()

    with ActorPool(factory, workers=1, cpus_per_worker=0.5) as pool:
        first = pool.submit(_ask_pid, 0.0)
        assert _answers(pool, 1)[first].lost is None
        pool.submit(_die, None)
        with pytest.raises(ConfigurationError, match="the data set is gone"):
            pool.completed()


def test_a_wrong_shape_is_one_clear_error_and_the_pool_stays_usable(local_ray: None) -> None:
    def one_column_too_many(X: np.ndarray) -> np.ndarray:
        return np.ones((len(X), 3 if (X > 0.5).any() else 2))

    with ActorPool(
        lambda: FunctionProblem(one_column_too_many, [0.0], [1.0], n_obj=2), workers=2, cpus_per_worker=0.5
    ) as pool:
        with pytest.raises(InvalidInputError, match=r"^evaluate returned shape \(1, 3\); expected \(1, 2\)") as caught:
            pool.evaluate(np.array([[0.1], [0.2], [0.9], [0.3]]))
        assert caught.value.field == "evaluate"
        assert "\n" not in str(caught.value)
        assert "one_column_too_many" in str(caught.value.__cause__) or "check_values" in str(caught.value.__cause__)
        np.testing.assert_array_equal(pool.evaluate(np.full((5, 1), 0.1)), np.ones((5, 2)))


def test_rows_for_a_call_can_be_chosen(local_ray: None) -> None:
    X = np.random.default_rng(2).uniform(size=(23, 2))
    with ActorPool(_plain, workers=2, cpus_per_worker=0.5) as pool:
        np.testing.assert_array_equal(pool.evaluate(X, rows_per_call=1), _squares(X))
        assert pool.usage.calls == 23
        np.testing.assert_array_equal(pool.evaluate(X, rows_per_call=50), _squares(X))
        assert pool.usage.calls == 24


def test_no_more_processors_than_there_are(local_ray: None) -> None:
    assert processors() == min(2.0, len(os.sched_getaffinity(0)))


def test_a_cluster_without_room_is_said_so(local_ray: None) -> None:
    with (
        pytest.raises(OverloadedError, match=r"3 workers did not start within 3 s; .* lower workers"),
        ActorPool(_plain, workers=3, cpus_per_worker=1, start_seconds=3),
    ):
        pytest.fail("the pool must not open")
    with ActorPool(_plain, workers=2, cpus_per_worker=1) as pool:  # what was started for it is gone
        assert pool.evaluate(np.zeros((1, 2))).shape == (1, 2)


def test_an_error_of_the_factory_is_raised_as_itself(local_ray: None) -> None:
    def unknown() -> FunctionProblem:
        raise ConfigurationError("unknown scenario 'x'; allowed: network5g, recsys", field="scenario")

    with pytest.raises(ConfigurationError, match="unknown scenario 'x'") as caught:
        ActorPool(unknown, workers=1, cpus_per_worker=0.5).__enter__()
    assert caught.value.field == "scenario"


def test_a_worker_that_dies_while_starting_is_said_so(local_ray: None) -> None:
    def fatal() -> FunctionProblem:
        os._exit(3)

    with pytest.raises(OperatorError, match="a worker died while it started") as caught:
        ActorPool(fatal, workers=1, cpus_per_worker=0.5).__enter__()
    assert "\n" not in caught.value.message


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="workers must be positive, got 0"):
        ActorPool(_plain, workers=0)
    with pytest.raises(ConfigurationError, match="deadline_seconds must be positive"):
        ActorPool(_plain, deadline_seconds=0)
