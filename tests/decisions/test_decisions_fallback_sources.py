"""The sources that stand in for the live front: last good fronts in files, the best static configuration."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fallback_kit import NEW, NOW, OBJECTIVES, OLD, SAFE, SECOND, STATIC, below, mode_of

from rlaas.decisions import resolve
from rlaas.decisions.fallback import Answer, FallbackResolver, TimedFront, answer_from
from rlaas.fronts import Candidate
from rlaas.objectives import Mode, Objective, Preference

Build = Callable[..., FallbackResolver]


@pytest.fixture
def build() -> Iterator[Build]:
    """Resolvers with every step configured, closed at the end."""
    made: list[FallbackResolver] = []

    def make(live: Any = None, **options: Any) -> FallbackResolver:
        settings_: dict[str, Any] = {"safe_default": SAFE, "best_static": STATIC, "clock": lambda: NOW, **options}
        made.append(FallbackResolver("toy", OBJECTIVES, live=live, **settings_))
        return made[-1]

    yield make
    for resolver in made:
        resolver.close()


def _reasons(answer: Answer) -> list[tuple[str, str]]:
    return [(passed.step, passed.reason) for passed in answer.passed_over]


def test_the_last_good_front_outlives_the_process(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "state" / "last.json"
    first = build(TimedFront(front=OLD, made_us=NOW - 7 * SECOND), store=path)
    assert first.resolve(mode_of(), deadline=30).step == "live"
    first.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["last.json"]
    second = build(None, store=path)
    answer = second.resolve(mode_of(), deadline=30)
    assert (answer.step, answer.candidate.name, answer.age_s) == ("last_good", "old fast", 7.0)
    renamed = [Objective(name="delay", unit="ms", direction="minimize", low=0, high=10), OBJECTIVES[1]]
    third = FallbackResolver("toy", renamed, safe_default={}, store=path)
    mode = Mode(name="normal", preference=Preference.uniform(renamed))
    answer = third.resolve(mode, deadline=30)
    assert ("last_good", "unusable") in _reasons(answer)
    third.close()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "{",
        '{"schema_version": 2, "fronts": []}',
        '{"schema_version": 1, "fronts": []}',
        '{"schema_version": 1, "fronts": [1]}',
        '{"schema_version": 1, "fronts": [{"made_us": 1, "front": []}]}',
        '{"schema_version": 1, "fronts": [{"made_us": 1, "front": {"schema_version": 1}}]}',
        '{"schema_version": 1, "fronts": [{"made_us": "now", "front": {}}]}',
    ],
)
def test_a_damaged_store_is_done_without_and_replaced(build: Build, tmp_path: Path, content: str) -> None:
    path = tmp_path / "last.json"
    path.write_text(content)
    resolver = build(NEW, store=path)
    assert resolver.resolve(mode_of(), deadline=30).step == "live"
    resolver.close()
    assert json.loads(path.read_text())["fronts"][0]["front"] == NEW.to_dict()


def test_a_store_that_cannot_be_written_does_not_stop_answers(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    resolver = build(NEW, store=tmp_path / "file" / "last.json")
    assert resolver.resolve(mode_of(), deadline=30).step == "live"
    resolver.close()
    assert resolver.resolve(below(5.0), deadline=30).step == "best_static", "closed, it has no threads for fronts"


def test_a_front_of_another_scenario_answers_nothing(build: Build, tmp_path: Path) -> None:
    foreign = dataclasses.replace(NEW, scenario="box")
    path = tmp_path / "last.json"
    with FallbackResolver("box", OBJECTIVES, live=foreign, safe_default=SAFE, store=path) as other:
        assert other.resolve(mode_of(), deadline=30).step == "live"
    answer = build(foreign, store=path).resolve(mode_of(), deadline=30)
    assert answer.step == "best_static"
    assert _reasons(answer) == [("live", "unusable"), ("last_good", "unusable")]
    assert answer.passed_over[0].detail == "the front is of scenario 'box'; expected 'toy'"


def test_the_best_static_configuration_is_asked_for_whenever_it_is_needed(build: Build) -> None:
    given: list[Any] = [STATIC]
    asked: list[int] = []

    def best_static() -> Any:
        asked.append(1)
        if isinstance(given[0], Exception):
            raise given[0]
        return given[0]

    live = build(NEW, best_static=best_static)
    assert live.resolve(mode_of(), deadline=30).step == "live"
    assert asked == []
    resolver = build(None, best_static=best_static)
    assert resolver.resolve(mode_of(), deadline=30).candidate == STATIC
    given[0] = dataclasses.replace(STATIC, name="newer")
    assert resolver.resolve(mode_of(), deadline=30).candidate.name == "newer"
    for failure in (
        OSError("gone"),
        "front.json",
        Candidate(name="one", kind="policy", mean=(1.0,), half_width=(0.0,)),
    ):
        given[0] = failure
        assert resolver.resolve(mode_of(), deadline=30).candidate.name == "newer", "the one before stands"
        answer = build(None, best_static=best_static).resolve(mode_of(), deadline=30)
        assert (answer.step, _reasons(answer)[-1]) == ("safe_default", ("best_static", "failed"))
    given[0] = None
    answer = resolver.resolve(mode_of(), deadline=30)
    assert (answer.step, _reasons(answer)[-1]) == ("safe_default", ("best_static", "missing"))


def test_a_best_static_configuration_that_hangs_is_done_without(build: Build) -> None:
    let_go = threading.Event()

    def hang() -> Candidate:
        let_go.wait(60)
        return STATIC

    resolver = build(None, best_static=hang)
    answer = resolver.resolve(mode_of(), deadline=0.1)
    assert (answer.step, _reasons(answer)[-1]) == ("safe_default", ("best_static", "late"))
    let_go.set()
    assert resolver.resolve(mode_of(), deadline=60).candidate == STATIC


def test_a_source_for_which_there_was_no_thread_is_called_the_next_time(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver, start = build(lambda: NEW), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "rlaas-front-source":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        answer = resolver.resolve(mode_of(), deadline=30)
    assert (answer.step, answer.passed_over[0].reason) == ("best_static", "failed")
    assert "can't start new thread" in answer.passed_over[0].detail
    assert resolver.resolve(mode_of(), deadline=30).step == "live"


def test_a_front_that_nothing_stands_in_for_answers_as_a_live_one(build: Build) -> None:
    found, later = TimedFront(front=NEW, made_us=NOW - 5 * SECOND), {"now_us": NOW}
    mode = below(5.0)
    expected = build(found).resolve(mode, deadline=30)
    answer = answer_from(found, mode, **later)
    assert dataclasses.replace(answer, elapsed_s=expected.elapsed_s) == expected
    assert (answer.rules_hit, answer.age_s) == (("latency <= 5",), 5.0)
    assert answer.elapsed_s > 0
    none = answer_from(found, below(1.0), **later)
    assert (none.keeps_rules, none.candidate) == (False, resolve(NEW, mode=below(1.0)).candidate)
