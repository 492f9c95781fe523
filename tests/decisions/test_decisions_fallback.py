"""An answer whatever happens to the optimiser: sources that are missing, stale, late, broken or against the rules."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from fallback_kit import NEW, NOW, OBJECTIVES, OLD, SAFE, SECOND, STATIC, below, candidate_of, front_of, mode_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rlaas.decisions import resolve
from rlaas.decisions.fallback import STEPS, Answer, FallbackResolver, TimedFront
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference


class Source:
    """A live source whose behaviour a test sets."""

    def __init__(self, gives: Any = None) -> None:
        self.gives = gives
        self.calls = 0
        self.let_go = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        try:
            return self.gives() if callable(self.gives) else self.gives
        finally:
            self.ended.set()

    def hang(self) -> TimedFront:
        self.let_go.wait(60)
        return TimedFront(front=NEW, made_us=NOW)


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


def test_the_live_front_answers_as_the_resolver_does(build: Build) -> None:
    mode = below(5.0)
    answer = build(NEW).resolve(mode, deadline=30)
    assert (answer.step, answer.passed_over, answer.keeps_rules) == ("live", (), True)
    assert answer.choice == resolve(NEW, mode=mode)
    assert answer.candidate.name == "new fast"
    assert answer.rules_hit == ("latency <= 5",)
    assert (answer.made_us, answer.age_s) == (NOW, 0.0)
    assert json.loads(json.dumps(answer.to_dict()))["step"] == "live"


def test_every_way_in_which_a_source_can_fail(build: Build) -> None:
    def broken() -> Front:
        raise RuntimeError("the\noptimiser is gone")

    def leaves() -> Front:
        raise SystemExit(3)

    other = Front(scenario="toy", objectives=OBJECTIVES[:1], candidates=())
    unlike = (OBJECTIVES[0], Objective(name="throughput", unit="Gbit/s", direction="maximize", low=0, high=20))
    short = Candidate(name="short", kind="policy", mean=(1.0,), half_width=(0.0,))
    ways: list[tuple[Any, str, str]] = [
        (None, "missing", "no live source"),
        (lambda: None, "missing", "has no front"),
        (broken, "failed", "RuntimeError: the optimiser is gone"),
        (leaves, "failed", "SystemExit"),
        (lambda: "front.json", "failed", "expected a front or None"),
        (lambda: TimedFront(front=NEW, made_us=1.5), "failed", "made_us"),  # type: ignore[arg-type]
        (lambda: TimedFront(front="x", made_us=1), "failed", "needs a Front"),  # type: ignore[arg-type]
        (front_of(), "unusable", "no candidate"),
        (other, "unusable", "no candidate"),
        (Front(scenario="toy", objectives=unlike, candidates=NEW.candidates), "unusable", r"Gbit/s"),
        (front_of(short), "unusable", "lacks objectives"),
        (TimedFront(front=NEW, made_us=NOW - 61 * SECOND), "stale", "61 s old; allowed: 60 s"),
    ]
    for live, reason, detail in ways:
        answer = build(live, max_age_s=60, last_good_max_age_s=60).resolve(mode_of(), deadline=30)
        assert answer.step == "best_static"
        assert answer.candidate == STATIC
        assert answer.passed_over[0].reason == reason
        assert detail in answer.passed_over[0].detail
        assert "\n" not in answer.passed_over[0].detail
        assert answer.passed_over[1].step == "last_good"


def test_the_ladder_goes_down_step_by_step(build: Build) -> None:
    source = Source(lambda: TimedFront(front=OLD, made_us=NOW - 5 * SECOND))
    resolver = build(source)
    assert resolver.resolve(mode_of(), deadline=30).step == "live"
    source.gives = lambda: None
    answer = resolver.resolve(mode_of(), deadline=30)
    assert (answer.step, answer.candidate.name, answer.age_s) == ("last_good", "old fast", 5.0)
    assert _reasons(answer) == [("live", "missing")]
    # No candidate of the front below 1.9 ms, nor the static one; the safe default is applied and says so.
    answer = resolver.resolve(below(1.9), deadline=30)
    assert (answer.step, answer.candidate, answer.choice, answer.keeps_rules) == ("safe_default", SAFE, None, False)
    assert _reasons(answer) == [
        ("live", "missing"),
        ("last_good", "rules"),
        ("best_static", "rules"),
        ("safe_default", "rules"),
    ]
    assert answer.rules_hit == ("latency <= 1.9",)
    assert answer.age_s is None


def test_age_moves_a_front_from_live_to_last_good_to_nothing(build: Build) -> None:
    resolver = build(TimedFront(front=OLD, made_us=NOW), max_age_s=10, last_good_max_age_s=100)
    ages = {0: "live", 10: "live", 11: "last_good", 100: "last_good", 101: "best_static", -50: "live"}
    for age, step in ages.items():
        answer = resolver.resolve(mode_of(), now_us=NOW + age * SECOND, deadline=30)
        assert answer.step == step, age
        assert answer.age_s in (None, max(0.0, float(age)))


def test_a_front_whose_candidates_all_break_the_rules_gives_way_to_the_one_before(build: Build) -> None:
    source = Source(OLD)
    resolver = build(source)
    assert resolver.resolve(mode_of(), deadline=30).step == "live"
    source.gives = front_of(candidate_of("slow", 9.0, 20.0), candidate_of("slower", 9.5, 20.5))
    answer = resolver.resolve(below(3.0), deadline=30)
    assert (answer.step, answer.candidate.name) == ("last_good", "old fast")
    assert _reasons(answer) == [("live", "rules")]
    assert "none of 2 candidates" in answer.passed_over[0].detail
    assert resolver.resolve(mode_of(), deadline=30).candidate.name == "slow"


class Banned:
    """Rules that forbid candidates by name."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def violations(self, front: Front) -> NDArray[np.float64]:
        return np.array([[float(name == c.name) for name in self.names] for c in front.candidates])

    def describe(self) -> tuple[str, ...]:
        return tuple(f"not {name}" for name in self.names)


class Slow(Banned):
    """The same, which take their time over a whole front until they are let go."""

    def __init__(self, let_go: threading.Event, *names: str) -> None:
        super().__init__(*names)
        self.let_go = let_go

    def violations(self, front: Front) -> NDArray[np.float64]:
        if len(front.candidates) > 1:
            self.let_go.wait(60)
        return super().violations(front)


def test_given_rules_count_like_those_of_the_mode(build: Build) -> None:
    resolver = build(NEW)
    assert resolver.resolve(mode_of(), rules=Banned(), deadline=30).candidate.name == "new fast"
    answer = resolver.resolve(mode_of(), rules=Banned("new fast", "nobody"), deadline=30)
    assert (answer.step, answer.candidate.name) == ("live", "new wide")
    assert (answer.rules, answer.rules_hit) == (("not new fast", "not nobody"), ("not new fast",))
    answer = resolver.resolve(mode_of(), rules=Banned("new fast", "new wide"), deadline=30)
    assert answer.step == "best_static"
    assert answer.rules_hit == ("not new fast", "not new wide")
    answer = resolver.resolve(mode_of(), rules=Banned("new fast", "new wide", "static", "safe"), deadline=30)
    assert (answer.step, answer.keeps_rules) == ("safe_default", False)


def test_a_safe_default_without_known_objectives(build: Build) -> None:
    resolver = build(None, best_static=None, safe_default={"power": 0.2})
    answer = resolver.resolve(below(1.0), deadline=30)
    assert (answer.step, answer.keeps_rules, answer.choice) == ("safe_default", None, None)
    assert answer.candidate.parameters == {"power": 0.2}
    assert _reasons(answer) == [("live", "missing"), ("last_good", "missing"), ("best_static", "missing")]
    assert answer.to_dict()["certificate"] is None


def test_a_source_that_hangs_is_called_once_and_what_it_brings_late_is_used_next(build: Build) -> None:
    source = Source()
    source.gives = source.hang
    resolver = build(source)
    threads = threading.active_count()
    for _ in range(5):
        answer = resolver.resolve(mode_of(), deadline=0.2)
        assert answer.step == "best_static"
        assert answer.passed_over[0].reason == "late"
    assert source.calls == 1
    assert threading.active_count() <= threads + 1
    source.gives = lambda: None
    source.let_go.set()
    assert source.ended.wait(30)
    while (answer := resolver.resolve(mode_of(), deadline=30)).step != "last_good":
        assert answer.passed_over[0].reason == "missing", "the late front has not been taken in yet"
    assert answer.candidate.name == "new fast"
    assert source.calls > 1


def test_callers_that_wait_at_the_same_time_are_all_answered(build: Build) -> None:
    source = Source()
    source.gives = source.hang
    resolver = build(source)
    answers: list[Answer] = []
    callers = [
        threading.Thread(target=lambda: answers.append(resolver.resolve(mode_of(), deadline=60))) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    source.let_go.set()
    for caller in callers:
        caller.join()
    assert [answer.step for answer in answers] == ["live"] * 8


def test_a_choice_that_takes_too_long_falls_back_and_is_there_when_asked_for_again(build: Build) -> None:
    let_go = threading.Event()

    class Renamed(Banned):
        def describe(self) -> tuple[str, ...]:
            return ("not new fast",)

    resolver, slow = build(NEW), Slow(let_go, "new fast")
    answer = resolver.resolve(mode_of(), rules=slow, deadline=0.3)
    assert (answer.step, _reasons(answer)) == ("best_static", [("live", "late"), ("last_good", "late")])
    assert "2 candidates" in answer.passed_over[0].detail
    assert answer.passed_over[1].detail == "it is the live front"
    let_go.set()
    assert resolver.resolve(mode_of(), rules=slow, deadline=60).candidate.name == "new wide"
    # Rules that are not the same ones are asked, whatever they call themselves.
    assert resolver.resolve(mode_of(), rules=Renamed("new wide"), deadline=60).candidate.name == "new fast"
    slow.names = ("new wide",)
    assert resolver.resolve(mode_of(), rules=slow, deadline=60).candidate.name == "new fast"


def test_more_slow_choices_than_are_kept_still_answer_and_end(build: Build) -> None:
    let_go = threading.Event()

    resolver = build(NEW)
    threads = threading.active_count()
    steps = {resolver.resolve(mode_of(), rules=Slow(let_go, str(i)), deadline=0.01).step for i in range(40)}
    assert steps == {"best_static"}
    assert threading.active_count() <= threads + 3
    let_go.set()
    assert resolver.resolve(mode_of(), deadline=60).step == "live"


@pytest.mark.parametrize("deadline", [1e-9, 0.001, 0.05])
def test_even_a_deadline_that_cannot_be_kept_is_answered(build: Build, deadline: float) -> None:
    source = Source()
    source.gives = source.hang
    answer = build(source).resolve(mode_of(), deadline=deadline)
    source.let_go.set()
    assert answer.step == "best_static"
    assert answer.passed_over[0].reason == "late"


def test_what_is_wrong_with_the_request_is_never_hidden(build: Build) -> None:
    class Odd(Banned):
        def violations(self, front: Front) -> NDArray[np.float64]:
            return np.zeros((1, 7))

    class Unsure(Banned):
        def violations(self, front: Front) -> NDArray[np.float64]:
            return np.full((len(front.candidates), 1), np.nan)

    resolver = build(Source(lambda: None))
    strange = Mode(name="odd", preference=Preference.uniform(["latency", "cost"]))
    bad: list[tuple[Mode, dict[str, Any], str]] = [
        (strange, {}, "preference"),
        (mode_of(), {"method": "dice"}, "method"),
        (below(1.0), {"method": "dice"}, "method"),
        (mode_of(), {"rules": Odd("x")}, "rules"),
        (mode_of(), {"rules": Unsure("x")}, "rules"),
        (None, {}, "mode"),  # type: ignore[list-item]
    ]
    wrong: Sequence[Any] = (0, -1, float("nan"), float("inf"), True, "1", None, 10**400)
    bad += [(mode_of(), {"deadline": deadline}, "deadline") for deadline in wrong]
    bad += [(mode_of(), {"now_us": now}, "now_us") for now in (1.0, True, "now")]
    for mode, options, field in bad:
        with pytest.raises(InvalidInputError) as caught:
            resolver.resolve(mode, **options)
        assert caught.value.field == field, options


def test_bad_configuration() -> None:
    one = Candidate(name="one", kind="policy", mean=(1.0,), half_width=(0.0,))
    bad: list[tuple[dict[str, Any], str]] = [
        ({"safe_default": one}, "safe_default"),
        ({"safe_default": None}, "safe_default"),
        ({"best_static": one}, "best_static"),
        ({"best_static": {"power": 1}}, "best_static"),
        ({"live": "front.json"}, "live"),
        ({"max_age_s": 0}, "max_age_s"),
        ({"max_age_s": float("nan")}, "max_age_s"),
        ({"max_age_s": True}, "max_age_s"),
        ({"last_good_max_age_s": "1"}, "last_good_max_age_s"),
    ]
    for options, field in bad:
        with pytest.raises(ConfigurationError) as caught:
            FallbackResolver("toy", OBJECTIVES, **{"safe_default": SAFE, **options})
        assert caught.value.field == field
    with pytest.raises(ConfigurationError, match="objectives"):
        FallbackResolver("toy", (), safe_default=SAFE)


@settings(max_examples=60, deadline=None)
@given(
    live=st.sampled_from(["none", "raises", "old", "new", "empty", "stale"]),
    bound=st.sampled_from([None, 1.0, 1.8, 5.0, 9.0]),
    static=st.booleans(),
)
def test_there_is_always_an_answer_and_only_the_safe_default_may_break_rules(
    live: str, bound: float | None, static: bool
) -> None:
    def source() -> Any:
        if live == "raises":
            raise ValueError("gone")
        if live == "stale":
            return TimedFront(front=NEW, made_us=NOW - 999 * SECOND)
        return {"none": None, "old": OLD, "new": NEW, "empty": front_of()}[live]

    mode = mode_of() if bound is None else below(bound)
    with FallbackResolver(
        "toy",
        OBJECTIVES,
        live=source,
        safe_default=SAFE,
        best_static=STATIC if static else None,
        max_age_s=60,
        last_good_max_age_s=60,
        clock=lambda: NOW,
    ) as resolver:
        answer = resolver.resolve(mode, deadline=60)
    steps = [passed.step for passed in answer.passed_over]
    given_up = STEPS[: STEPS.index(answer.step) + (answer.keeps_rules is not True)]
    assert steps == list(given_up)
    kept = bound is None or answer.candidate.mean[0] <= bound
    assert answer.keeps_rules == kept
    assert kept or answer.step == "safe_default"


def test_many_threads_while_the_source_changes(build: Build) -> None:
    source = Source(OLD)
    resolver = build(source)
    answers: list[Answer] = []

    def ask() -> None:
        for _ in range(10):
            answers.append(resolver.resolve(mode_of(), deadline=60))
            time.sleep(0)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    for gives in (NEW, None, OLD, front_of(), NEW):
        source.gives = gives
    for caller in callers:
        caller.join()
    assert len(answers) == 40
    names = {(answer.step, answer.candidate.name) for answer in answers}
    assert {step for step, _ in names} <= {"live", "last_good", "best_static"}
    assert {name for step, name in names if step != "best_static"} <= {"old fast", "new fast"}
