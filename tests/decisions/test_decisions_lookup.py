from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from decision_kit import Columns, curved_front, front_of, mode_of

from rlaas.decisions import Nash, Resolver, resolve
from rlaas.decisions import lookup as room
from rlaas.errors import InvalidInputError
from rlaas.fronts import Front

MODES = {"quick": mode_of([0.8, 0.1, 0.1], name="quick"), "even": mode_of([1, 1, 1], name="even")}


def test_answers_are_those_of_resolve() -> None:
    front = curved_front(12)
    resolver = Resolver(front, MODES)
    assert resolver.front is front
    assert resolver.modes == ("quick", "even")
    for name, mode in MODES.items():
        assert resolver.choose(name) == resolve(front, mode=mode)


def test_switching_scores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(curved_front(12), MODES)
    monkeypatch.setattr(room, "resolve", lambda *_, **__: pytest.fail("a switch of mode resolved again"))
    assert resolver.choose("quick") is resolver.choose("quick")
    assert resolver.choose("even") is resolver.choose("even")


def test_method_and_its_settings_reach_every_mode() -> None:
    front = curved_front(8)
    point = {"a": 0.9, "b": 0.1, "c": 0.9}
    by_name = Resolver(front, MODES, method="nash", disagreement=point)
    assert by_name.choose("even") == resolve(front, mode=MODES["even"], method=Nash(disagreement=point))


def test_another_front_takes_over() -> None:
    first, second = curved_front(12, 1), curved_front(9, 2)
    resolver = Resolver(first, MODES)
    resolver.replace(second)
    assert resolver.front is second
    assert resolver.choose("even") == resolve(second, mode=MODES["even"])


def test_a_front_that_is_refused_leaves_the_old_one() -> None:
    first = curved_front(12)
    resolver = Resolver(first, MODES)
    before = resolver.choose("even")
    for bad in (front_of([[0.1, 0.2]]), Front(scenario="toy", objectives=first.objectives, candidates=())):
        with pytest.raises(InvalidInputError):
            resolver.replace(bad)
    assert resolver.front is first
    assert resolver.choose("even") is before


class TestModes:
    def test_a_mode_is_added_and_replaced(self) -> None:
        front = curved_front(12)
        resolver = Resolver(front, MODES)
        kept = resolver.choose("even")
        moved = mode_of([0.1, 0.1, 0.8], name="quick")
        assert resolver.set_mode(moved) == resolver.choose("quick") == resolve(front, mode=moved)
        assert resolver.choose("even") is kept
        resolver.set_mode(mode_of([0, 1, 0], name="third"))
        assert resolver.modes == ("quick", "even", "third")

    def test_one_that_does_not_fit_changes_nothing(self) -> None:
        resolver = Resolver(curved_front(5), MODES)
        with pytest.raises(InvalidInputError, match="mode 'quick' has 2 weights"):
            resolver.set_mode(mode_of([1, 1], name="quick"))
        assert resolver.choose("quick") == resolve(curved_front(5), mode=MODES["quick"])

    def test_replacing_one_forgets_its_answers_under_rules(self) -> None:
        front = curved_front(4)
        rules = Columns(((1.0,), (0.0,), (0.0,), (0.0,)), ("not c00",))
        resolver = Resolver(front, MODES)
        stays = resolver.choose("even", rules=rules)
        resolver.choose("quick", rules=rules)
        moved = mode_of([0.0, 0.0, 1.0], name="quick")
        resolver.set_mode(moved)
        assert resolver.choose("quick", rules=rules) == resolve(front, mode=moved, rules=rules)
        assert resolver.choose("even", rules=rules) is stays


class TestRules:
    def test_the_first_question_scores_and_the_next_looks_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        front = curved_front(4)
        resolver = Resolver(front, MODES)
        rules = Columns(((1.0,), (0.0,), (0.0,), (0.0,)), ("not c00",))
        found = resolver.choose("even", rules=rules)
        assert found == resolve(front, mode=MODES["even"], rules=rules)
        monkeypatch.setattr(room, "resolve", lambda *_, **__: pytest.fail("a known set of rules resolved again"))
        assert resolver.choose("even", rules=rules) is found
        assert resolver.choose("even", rules=Columns(rules.gaps, rules.texts)) is found

    def test_no_rules_are_the_mode_alone(self) -> None:
        resolver = Resolver(curved_front(4), MODES)
        assert resolver.choose("even", rules=Columns(((),) * 4, ())) is resolver.choose("even")

    def test_the_oldest_are_dropped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(room, "RULE_SETS", 2)
        resolver = Resolver(curved_front(4), MODES)
        sets = [Columns(((0.0,),) * 4, (text,)) for text in "abc"]
        answers = [resolver.choose("even", rules=rules) for rules in sets]
        assert resolver.choose("even", rules=sets[2]) is answers[2]
        again = resolver.choose("even", rules=sets[0])
        assert again is not answers[0]
        assert again == answers[0]


@pytest.mark.parametrize("name", ["slow", "", 3, None, ["even"]])
def test_an_unknown_mode_is_named(name: object) -> None:
    with pytest.raises(InvalidInputError, match=r"unknown mode .*; allowed: even, quick"):
        Resolver(curved_front(3), MODES).choose(name)  # type: ignore[arg-type]


def test_bad_modes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="a resolver needs at least one mode"):
        Resolver(curved_front(3), {})
    with pytest.raises(InvalidInputError, match="mode 'even' stands under the name 'odd'"):
        Resolver(curved_front(3), {"odd": MODES["even"]})


def test_readers_see_one_front_or_the_other() -> None:
    """Four threads read while a fifth swaps fronts: every answer is whole, of one of the two."""
    fronts = [curved_front(6, seed) for seed in (1, 2)]
    expected = [{name: resolve(front, mode=mode) for name, mode in MODES.items()} for front in fronts]
    resolver = Resolver(fronts[0], MODES)
    done = threading.Event()
    wrong: list[str] = []

    def read(names: Sequence[str]) -> None:
        while not done.is_set():
            wrong.extend(name for name in names if resolver.choose(name) not in [answers[name] for answers in expected])

    threads = [threading.Thread(target=read, args=(list(MODES),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in np.arange(10) % 2:
        resolver.replace(fronts[turn])
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert resolver.choose("even") == expected[1]["even"]
