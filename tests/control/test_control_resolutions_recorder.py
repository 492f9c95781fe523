"""Answers recorded while callers do not wait, and judged by the fronts that come later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rlaas.control.resolution_gauges import ResolutionGauges
from rlaas.control.resolution_recorder import ResolutionRecorder
from rlaas.control.resolutions import ResolutionStore
from rlaas.control.state import StateDatabase
from rlaas.decisions.effectiveness import Resolution
from rlaas.decisions.fallback import Answer, FallbackResolver, TimedFront
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference

OBJECTIVES = (
    Objective(name="latency", unit="ms", direction="minimize", low=0.0, high=10.0),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0.0, high=20.0),
)
SECOND = 1_000_000
MODE = Mode(name="normal", preference=Preference.of(OBJECTIVES, [0.5, 0.5]))


def _front(**values: tuple[float, float]) -> Front:
    members = [Candidate(name=k, kind="policy", mean=v, half_width=(0.0, 0.0)) for k, v in values.items()]
    return Front(scenario="toy", objectives=OBJECTIVES, candidates=tuple(members))


LATER = _front(a=(5.0, 10.0), b=(5.0, 8.0), c=(2.0, 12.0))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[StateDatabase]:
    opened = StateDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def _answer() -> Answer:
    with FallbackResolver("toy", OBJECTIVES, safe_default={}) as resolver:
        return resolver.resolve(MODE, deadline=60)


def _recorder(store: ResolutionStore, fronts: list[TimedFront], now: list[int]) -> ResolutionRecorder:
    gauges = ResolutionGauges(store, "default", clock=lambda: now[0])
    return ResolutionRecorder(store, gauges, lambda: fronts, clock=lambda: now[0])


def test_answers_are_recorded_and_judged_by_later_fronts_only(database: StateDatabase) -> None:
    store, now = ResolutionStore(database, "default"), [5 * SECOND]
    fronts = [TimedFront(front=_front(a=(5.0, 10.0), b=(9.0, 11.0)), made_us=5 * SECOND)]
    recorder = _recorder(store, fronts, now)
    mode = Mode(name="normal", preference=Preference.of(OBJECTIVES, [0.5, 0.5]))
    with FallbackResolver("toy", OBJECTIVES, live=fronts[0], safe_default={}) as resolver:
        answer = resolver.resolve(mode, deadline=60)
    recorder.observe(answer, scenario="toy", names=("latency", "throughput"), mode=mode)
    assert recorder.flush()
    assert recorder.settle() == 0, "the front it was chosen from"
    fronts[0] = TimedFront(front=LATER, made_us=6 * SECOND)
    fronts.append(TimedFront(front=Front(scenario="toy", objectives=OBJECTIVES[:1], candidates=()), made_us=9 * SECOND))
    assert recorder.settle() == 1, "a front of other objectives judges nothing"
    ((resolution, settlement),) = store.latest("toy")
    assert (resolution.candidate, resolution.time_us) == ("a", 5 * SECOND)
    assert settlement is not None
    assert (settlement.best, settlement.time_us) == ("c", 6 * SECOND - 1)


def test_a_database_that_is_gone_keeps_no_answer_from_its_caller(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = StateDatabase(f"sqlite:///{path}")
    store = ResolutionStore(database, "default")
    recorder = _recorder(store, [TimedFront(front=LATER, made_us=9 * SECOND)], [5 * SECOND])
    database.close()
    path.unlink()
    path.mkdir()
    mode = Mode(name="normal", preference=Preference.of(OBJECTIVES, [0.5, 0.5]))
    with FallbackResolver("toy", OBJECTIVES, safe_default={}) as resolver:
        answer = resolver.resolve(mode, deadline=60)
    with capture_logs() as logs:
        recorder.observe(answer, scenario="toy", names=("latency", "throughput"), mode=mode)
        assert recorder.flush()
        recorder.tick()
    assert [entry["event"] for entry in logs] == [
        "resolution_not_recorded",
        "resolutions_not_settled",
        "resolution_gauges_not_published",
    ]


class Locked(ResolutionStore):
    """A store whose database is locked until a test lets go."""

    def __init__(self, database: StateDatabase) -> None:
        super().__init__(database, "default")
        self.let_go = threading.Event()
        self.reached = threading.Event()

    def record(self, resolution: Resolution) -> None:
        self.reached.set()
        assert self.let_go.wait(60)
        super().record(resolution)


def test_a_locked_database_holds_up_no_answer_and_closing_writes_what_waits(database: StateDatabase) -> None:
    store, answer = Locked(database), _answer()
    gauges = ResolutionGauges(store, "default")
    recorder = ResolutionRecorder(store, gauges, list, clock=iter(range(1, 9)).__next__, most_waiting=3)
    with capture_logs() as logs:
        for _ in range(5):
            recorder.observe(answer, scenario="toy", names=("latency", "throughput"), mode=MODE)
    assert store.reached.wait(60)
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("resolution_not_recorded", "3 others wait to be recorded")
    ] * 2
    assert not recorder.flush(timeout_s=0.01)
    assert store.latest("toy") == ()
    store.let_go.set()
    recorder.close(timeout_s=60)
    assert [one.time_us for one, _ in store.latest("toy")] == [3, 2, 1]
    with capture_logs() as logs:
        recorder.observe(answer, scenario="toy", names=("latency", "throughput"), mode=MODE)
    assert [entry["error"] for entry in logs] == ["the recorder is closed"]
