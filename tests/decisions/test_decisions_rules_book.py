from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas import scenarios
from rlaas.decisions.rules import Applied, ContextField, RuleBook, RuleFile, load_rules
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Objective

OBJECTIVES = (
    Objective(name="latency_p95", unit="ms", direction="minimize", low=0, high=10),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0, high=20),
)
MODES = ("emergency", "normal", "saving")
CONTEXT = {
    "load": {"type": "number", "range": [0, 1]},
    "slice": {"type": "text", "choices": ["embb", "urllc"]},
    "time": {"type": "time"},
    "alarm": {"type": "flag"},
}


def _book(*rules: dict[str, Any]) -> RuleBook:
    file = RuleFile.model_validate({"version": 1, "context": CONTEXT, "rules": rules})
    return RuleBook.of(file, objectives=OBJECTIVES, modes=MODES)


def _refused(*rules: dict[str, Any]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        _book(*rules)
    return caught.value


SURGE = {"name": "surge", "priority": 9, "when": 'load > 0.9 and slice == "urllc"', "then": {"mode": "emergency"}}
USUAL = {"name": "usual", "then": {"mode": "normal"}}
FAST = {"name": "fast", "priority": 5, "when": "load > 0.5", "require": "latency_p95 < 2 ms"}


def test_the_firing_rule_of_the_highest_priority_sets_the_mode() -> None:
    book = _book(USUAL, FAST, SURGE)
    applied = book.apply({"load": 0.95, "slice": "urllc"})
    assert (applied.mode, applied.mode_rule) == ("emergency", "surge")
    assert applied.fired == ("surge", "fast", "usual")
    assert applied.shadowed == ("usual",)
    assert applied.describe() == ("fast: require latency_p95 < 2 ms",)
    calm = book.apply({"load": 0.2, "slice": "urllc"})
    assert (calm.mode, calm.fired, calm.shadowed, calm.describe()) == ("normal", ("usual",), (), ())


def test_without_a_mode_rule_the_callers_mode_stands() -> None:
    assert _book(FAST).apply({"load": 1}).mode is None
    assert _book().apply({}) == Applied(
        context={},
        mode=None,
        mode_rule=None,
        requirements=(),
        fired=(),
        unknown={},
        shadowed=(),
        yielded={},
    )


def test_a_rule_whose_when_is_open_does_not_fire_and_is_reported() -> None:
    book = _book(SURGE, FAST, USUAL)
    applied = book.apply({"load": 0.95})
    assert applied.fired == ("fast", "usual")
    assert applied.unknown == {"surge": ("slice",)}
    assert book.apply({"load": 0.2}).unknown == {}  # false, whatever the slice
    assert book.apply({"slice": None}).unknown == {"surge": ("load", "slice"), "fast": ("load",)}


def test_a_lower_priority_yields_where_both_cannot_be_kept() -> None:
    slow = {"name": "slow", "priority": 1, "when": "alarm", "require": "latency_p95 >= 3 ms"}
    book = _book(slow, FAST)
    both = book.apply({"load": 0.9, "alarm": True})
    assert both.yielded == {"slow": ("fast",)}
    assert [r.rule for r in both.requirements] == ["fast"]
    assert both.fired == ("fast", "slow")
    alone = book.apply({"load": 0.1, "alarm": True})
    assert (alone.yielded, [r.rule for r in alone.requirements]) == ({}, ["slow"])
    assert [r.rule for r in book.without("fast").apply({"load": 0.9, "alarm": True}).requirements] == ["slow"]
    with pytest.raises(ConfigurationError, match="unknown rule 'x'; allowed: fast, slow"):
        book.without("x")


def test_three_that_only_contradict_together() -> None:
    either = {"name": "either", "priority": 3, "require": "latency_p95 < 1 or throughput > 10"}
    slow = {"name": "slow", "priority": 2, "when": "alarm", "require": "latency_p95 > 2"}
    low = {"name": "low", "priority": 1, "when": "load > 0.5", "require": "throughput < 5"}
    book = _book(either, slow, low)
    assert book.apply({"alarm": True, "load": 0.9}).yielded == {"low": ("either", "slow")}
    assert book.apply({"alarm": False, "load": 0.9}).yielded == {}
    tied = _refused(either, slow, {**low, "priority": 2})
    assert tied.message.startswith("rules contradict one another ('either': require latency_p95 < 1 ms or throughput")
    assert "'slow' and 'low' all at priority 2" in tied.message
    assert "for example where alarm = true, load = 0.75" in tied.message


def test_rules_that_never_fire_together_do_not_contradict() -> None:
    night = {"name": "night", "when": "time >= 22:00 or time < 06:00", "require": "latency_p95 > 3"}
    day = {"name": "day", "when": "06:00 <= time < 22:00", "require": "latency_p95 < 2"}
    assert _book(night, day).apply({"time": "23:00"}).describe() == ("night: require latency_p95 > 3 ms",)
    problem = _refused(night, {**day, "when": "06:00 <= time <= 22:00"})
    assert "where time = 22:00" in problem.message
    assert problem.field == "rules.day"


def test_forbid_is_the_opposite_of_require() -> None:
    forbid = {"name": "f", "forbid": 'latency_p95 > 2 or kind == "configuration"'}
    assert _book(forbid).apply({}).describe() == ('f: forbid latency_p95 > 2 ms or kind == "configuration"',)
    problem = _refused(forbid, {"name": "r", "require": "latency_p95 > 2"})
    assert "contradict one another" in problem.message
    assert "and fire together, for example always" in problem.message


def test_modes_of_one_priority_that_overlap_are_refused_with_an_example() -> None:
    calm = {"name": "calm", "priority": 9, "when": "load >= 0.9", "then": {"mode": "saving"}}
    problem = _refused(SURGE, calm)
    assert problem.message.startswith("rules 'surge' (mode emergency) and 'calm' (mode saving) both have priority 9")
    assert 'slice = "urllc"' in problem.message
    assert _book(SURGE, {**calm, "when": "load <= 0.9"}).apply({"load": 0.9}).mode == "saving"
    assert _book(SURGE, {**calm, "then": {"mode": "emergency"}}).apply({"load": 0.95}).mode == "emergency"


@pytest.mark.parametrize(
    ("rules", "says", "field"),
    [
        ([SURGE, {**USUAL, "name": "surge"}], "two rules are named 'surge'", "rules.surge.name"),
        ([SURGE, {**SURGE, "name": "again", "priority": 3}], "rules 'surge' and 'again' say the same", "rules.again"),
        ([{**FAST, "when": "load > 0.9 and load < 0.5"}], "rule 'fast' can never fire: no context", "rules.fast"),
        ([{**FAST, "when": "load > 1"}], "rule 'fast' can never fire", "rules.fast"),
        ([{**FAST, "when": 'slice not in ["embb", "urllc"]'}], "rule 'fast' can never fire", "rules.fast"),
        ([{**FAST, "require": "throughput < 1 and throughput > 2"}], "rule 'fast' can never be kept", "rules.fast"),
        ([{"name": "f", "forbid": "latency_p95 > 1 or latency_p95 <= 1"}], "rule 'f' can never be kept", "rules.f"),
        (
            [{**FAST, "when": "lod > 0.5"}],
            "rule 'fast': when: column 1: unknown field 'lod'; allowed: alarm, load, slice, time",
            "rules.fast.when",
        ),
        (
            [{**FAST, "when": "latency_p95 < 2"}],
            "rule 'fast': when: column 1: unknown field 'latency_p95'; allowed: alarm",
            "rules.fast.when",
        ),
        (
            [{**FAST, "require": "throughput > 3 and load < 1"}],
            "rule 'fast': require: column 20: unknown field 'load'; allowed: kind, latency_p95, name, seeds,",
            "rules.fast.require",
        ),
        (
            [{"name": "f", "forbid": "latency_p95 > 2 W"}],
            "rule 'f': forbid: column 15: unit 'W' does not convert; allowed: ms, ps",
            "rules.f.forbid",
        ),
        (
            [{**USUAL, "then": {"mode": "panic"}}],
            "rule 'usual': then.mode: unknown mode 'panic'; allowed: emergency, normal, saving",
            "rules.usual.then.mode",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(rules: list[dict[str, Any]], says: str, field: str) -> None:
    problem = _refused(*rules)
    assert problem.message.startswith(says)
    assert problem.field == field


def test_what_is_hardly_meant_is_a_warning() -> None:
    assert _book(SURGE, FAST, USUAL).warnings == ()
    ever = {"name": "ever", "priority": 1, "then": {"mode": "saving"}}
    assert _book(USUAL, ever).warnings == (
        "rule 'usual' never sets the mode: wherever it fires, 'ever' fires too and has priority 1",
    )
    narrow = {"name": "narrow", "priority": 1, "when": "load > 0.95 and alarm", "then": {"mode": "saving"}}
    wide = {"name": "wide", "priority": 2, "when": "load >= 0.9", "then": {"mode": "normal"}}
    assert len(_book(narrow, wide).warnings) == 1
    assert _book({"name": "far", "require": "latency_p95 > 11"}).warnings == (
        "rule 'far' (require latency_p95 > 11 ms) excludes every candidate within the objectives' ranges",
    )
    assert _book({"name": "all", "forbid": "latency_p95 > 2 and latency_p95 < 1"}).warnings == (
        "rule 'all' (forbid latency_p95 > 2 ms and latency_p95 < 1 ms) excludes nothing",
    )


def test_fields_that_the_caller_provides() -> None:
    file = RuleFile.model_validate({"version": 1, "rules": [{"name": "r", "when": "zone > 1", "require": "seeds > 1"}]})
    zone = {"zone": ContextField(type="number")}
    book = RuleBook.of(file, objectives=OBJECTIVES, modes=MODES, context=zone)
    assert book.apply({"zone": 2}).fired == ("r",)
    assert book.read_context({"zone": "2"}) == {"zone": 2.0}
    twice = RuleFile.model_validate({"version": 1, "context": {"zone": {"type": "flag"}}, "rules": []})
    with pytest.raises(ConfigurationError, match="context field 'zone' is provided already; leave it out"):
        RuleBook.of(twice, objectives=OBJECTIVES, modes=MODES, context=zone)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: []", "version: is missing"),
        ("version: 2\nrules: []", "version: must be <= 1, got 2"),
        ("version: true\nrules: []", "version: must be a whole number, got True"),
        ("version: 1", "rules: is missing"),
        ("version: 1\nrules: [{name: a}]", "rules.0: rule 'a' needs exactly one of then, require, forbid; it has none"),
        (
            "version: 1\nrules: [{name: a, require: seeds > 1, forbid: seeds > 2}]",
            "rules.0: rule 'a' needs exactly one of then, require, forbid; it has require, forbid",
        ),
        ("version: 1\nrules: [{name: a b, require: seeds > 1}]", "rules.0.name: must be a text of the form"),
        ("version: 1\nrules: [{name: a, require: true}]", "rules.0.require: must be a text, got True"),
        (
            "version: 1\nrules: [{name: a, priority: high, require: seeds > 1}]",
            "rules.0.priority: must be a whole number",
        ),
        (
            "version: 1\nrules: [{name: a, if: x, require: seeds > 1}]",
            "unknown key 'rules.0.if'; allowed: forbid, name,",
        ),
        ("version: 1\nrules: [{name: a, then: {mode: x, mod: y}}]", "unknown key 'rules.0.then.mod'; allowed: mode"),
        ("version: 1\nrules: [{name: a, require: seeds}]", "rule 'a': require: column 1: seeds takes a number"),
        ("version: 1\ncontext: {x: {type: float}}\nrules: []", "context.x.type: must be 'number', 'text'"),
        (
            "version: 1\ncontext: {x: {type: flag, unit: s}}\nrules: []",
            "context.x: unit and range belong to type number",
        ),
        ("version: 1\ncontext: {x: {type: time, choices: [a]}}\nrules: []", "context.x: choices belong to type text"),
        ("version: 1\ncontext: {x: {type: text, choices: [a, a]}}\nrules: []", "context.x: choices name one twice"),
        ("version: 1\ncontext: {x: {type: number, range: [1, 1]}}\nrules: []", "context.x: range must be two finite"),
        (
            "version: 1\ncontext: {x: {type: number, range: [0, .inf]}}\nrules: []",
            "context.x: range must be two finite",
        ),
        (
            'version: 1\ncontext: {x: {type: text, choices: ["a\\nb"]}}\nrules: []',
            "context.x: unit and choices are print",
        ),
        ("version: 1\ncontext: {and: {type: flag}}\nrules: []", "context field 'and' is no name; allowed: letters"),
        ("version: 1\ncontext: {a-b: {type: flag}}\nrules: []", "context field 'a-b' is no name"),
        ("- a", "expected a mapping with keys context, rules, version"),
    ],
)
def test_a_file_is_refused_with_its_name_and_the_key(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_rules(path, objectives=OBJECTIVES, modes=MODES)
    assert caught.value.message.startswith(f"{path}: {says}")


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_no_text_in_a_file_breaks_the_reader(text: str) -> None:
    for rule in ({"when": text, "require": "seeds > 1"}, {"require": text}, {"forbid": text}, {"then": {"mode": text}}):
        try:
            book = _book({"name": "r", **rule})
        except ConfigurationError as problem:
            said = problem.message
        else:
            said = book.rules[0].effect if book.rules[0].when is None else str(book.rules[0].when)
        assert said.splitlines() == [said]


def test_many_rules_are_fine_where_they_can_all_be_kept() -> None:
    rules = [{"name": f"r{i}", "when": f"load > 0.{i:03d}", "require": f"throughput > {i}"} for i in range(200)]
    assert len(_book(*rules).apply({"load": 1}).requirements) == 200


def test_plain_json() -> None:
    applied = _book(SURGE, FAST, USUAL).apply({"load": np.float32(0.95)}, cautious=True)
    document = json.loads(json.dumps(applied.to_dict(), allow_nan=False))
    assert document["requirements"] == [{"rule": "fast", "text": "require latency_p95 < 2 ms"}]
    assert (document["unknown"], document["mode"], document["cautious"]) == ({"surge": ["slice"]}, "normal", True)
    assert document["context"] == {"load": pytest.approx(0.95)}


def test_a_bad_context_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown context field 'lod'; allowed: alarm, load, slice, time"):
        _book(SURGE).apply({"lod": 1})


@pytest.mark.parametrize("name", ["network5g", "recsys"])
def test_shipped_rules_fit_their_scenarios(repository: Path, name: str) -> None:
    scenario = scenarios.load(name)
    path = repository / "configs" / "rules" / f"{name}.yaml"
    book = load_rules(path, objectives=scenario.objectives, modes=scenario.modes)
    assert book.warnings == ()
    # Everything unknown: only what holds always.
    nothing = book.apply({})
    assert nothing.mode == scenario.primary_mode
    assert set(nothing.fired) == {rule.name for rule in book.rules if rule.when is None}
    assert set(nothing.unknown) == {rule.name for rule in book.rules if rule.when is not None}


def test_shipped_rules_say_what_they_should(repository: Path) -> None:
    scenario = scenarios.load("network5g")
    path = repository / "configs" / "rules" / "network5g.yaml"
    book = load_rules(path, objectives=scenario.objectives, modes=scenario.modes)
    assert book.apply({"load": 0.95, "slice": "urllc"}).mode == "emergency"
    assert book.apply({"load": 0.1, "time": "23:30", "disaster": False}).mode == "energy_saving"
    assert book.apply({"load": 0.1, "time": "12:00", "disaster": True}).describe() == (
        "serve: require satisfaction >= 0.8",
        "rescue-delay: require latency <= 1",
        'no-unproven: forbid kind == "policy" and seeds < 3',
    )
