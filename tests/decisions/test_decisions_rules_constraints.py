from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlaas.decisions.rules import HEADINGS, Applied, RuleBook, RuleFile, dry_run
from rlaas.decisions.rules.constraints import CEILING, LEAST
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, Rule

OBJECTIVES = (
    Objective(name="latency", unit="ms", direction="minimize", low=0, high=4),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0, high=20),
)
CONTEXT = {"load": {"type": "number", "range": [0, 1]}, "alarm": {"type": "flag"}}
PARAMETERS = {"tunable": "static", "values": {"sleep": 0.25, "deep": True}}


def _book(*rules: Mapping[str, Any]) -> RuleBook:
    file = RuleFile.model_validate({"version": 1, "context": CONTEXT, "rules": rules})
    return RuleBook.of(file, objectives=OBJECTIVES, modes=("normal", "emergency"))


def _requiring(*texts: str, cautious: bool = False) -> Applied:
    book = _book(*({"name": f"r{i}", "priority": -i, "require": text} for i, text in enumerate(texts)))
    return book.apply({}, cautious=cautious)


def _front(*candidates: Candidate, objectives: tuple[Objective, ...] = OBJECTIVES) -> Front:
    return Front(scenario="toy", objectives=objectives, candidates=candidates)


def _candidate(name: str, *mean: float, width: float = 0.1, **more: Any) -> Candidate:
    return Candidate(name=name, **{"kind": "policy", "mean": mean, "half_width": (width,) * len(mean), **more})


FAST = _candidate("fast", 1.0, 5.0, seeds=(1, 2, 3))
WIDE = _candidate("wide", 3.0, 18.0, kind="configuration", parameters=PARAMETERS)
EVEN = _candidate("even", 2.0, 10.0, width=0.5)
FRONT = _front(FAST, WIDE, EVEN)


def _row(text: str, front: Front = FRONT, *, cautious: bool = False) -> list[float]:
    return _requiring(text, cautious=cautious).constraints(front)[:, 0].tolist()


def test_bounds_count_in_normalisation_ranges() -> None:
    assert _row("latency <= 2") == [-0.25, 0.25, 0.0]
    assert _row("throughput >= 8000 kbit/s") == [0.15, -0.5, -0.1]
    assert _row("latency == 2") == [0.25, 0.25, 0.0]
    assert _row("latency != 2") == [-0.25, -0.25, LEAST]
    assert _row("latency in [1, 3]") == [0.0, 0.0, 0.25]
    assert _row("1 <= latency <= 2") == [0.0, 0.25, 0.0]


def test_a_strict_bound_is_not_kept_at_the_bound() -> None:
    assert _row("latency < 2") == [-0.25, 0.25, LEAST]
    assert _row("throughput > 10") == [0.25, -0.4, LEAST]
    just = _front(_candidate("just", math.nextafter(2.0, 0.0), 1.0))
    assert -1e-15 < _row("latency < 2", just)[0] <= 0


def test_and_is_the_largest_or_the_least() -> None:
    assert _row("latency <= 2 and throughput >= 8") == [0.15, 0.25, 0.0]
    assert _row("latency <= 2 or throughput >= 8") == [-0.25, -0.5, -0.1]
    assert _row("not (latency <= 2 or throughput >= 8)") == [0.25, 0.5, 0.1]


def test_what_candidates_say_of_themselves() -> None:
    assert _row('kind == "policy"') == [-1, 1, -1]
    assert _row('name in ["fast", "even"]') == [-1, 1, -1]
    assert _row("seeds >= 2") == [-1, 2, 2]
    assert _row('kind == "policy" or parameters.values.sleep <= 0.2') == [-1, pytest.approx(0.05), -1]
    assert _row("parameters.values.deep") == [1, -1, 1]


def test_what_is_unknown_is_not_kept_either_way() -> None:
    for text in ("parameters.values.sleep <= 0.5", "not parameters.values.sleep > 0.5", 'parameters.tunable != "x"'):
        assert [limit > 0 for limit in _row(text)] == [True, False, True], text
    assert _row("parameters.values <= 3") == [1, 1, 1]  # a mapping is no number
    assert _row("parameters.values.deep >= 0") == [1, 1, 1]  # a flag is none either
    assert _row('parameters.tunable.x == "static"') == [1, 1, 1]


def test_cautious_judges_by_the_worse_end() -> None:
    assert _row("latency <= 2.2", cautious=True) == pytest.approx([-0.275, 0.225, 0.075])
    assert _row("throughput >= 9.8", cautious=True) == pytest.approx([0.245, -0.405, 0.015])
    assert _row("latency != 2.4", cautious=True)[2] == pytest.approx(0.025)
    assert _row("latency == 1", cautious=True)[0] == pytest.approx(0.025)
    for width in (math.inf, math.nan, -1.0):
        assert _row("latency <= 100", _front(_candidate("one", 1, 1, width=width)), cautious=True) == [1.0]


def test_extreme_values_stay_finite_and_ordered() -> None:
    far = _front(_candidate("far", 1.7e308, -1.7e308), _candidate("near", 5e-324, 0.0))
    limits = _requiring("latency < 0", "throughput > 1e308", "latency >= -1.7e308").constraints(far)
    assert np.isfinite(limits).all()
    assert limits[0].tolist() == [CEILING, CEILING, -CEILING]
    assert limits[1, 0] == LEAST  # the share of the range underflows, the breach does not


def test_violations_are_what_is_missed_and_columns_are_described() -> None:
    applied = _requiring("latency <= 2", 'kind == "policy"')
    assert applied.violations(FRONT).tolist() == [[0, 0], [0.25, 1], [0, 0]]
    assert applied.describe() == ("r0: require latency <= 2 ms", 'r1: require kind == "policy"')
    assert _book().apply({}).violations(FRONT).shape == (3, 0)
    assert _requiring("latency <= 2").constraints(_front()).shape == (0, 1)
    assert _requiring("latency <= 2", cautious=True).constraints(_front()).shape == (0, 1)


def test_a_search_takes_the_same_constraints() -> None:
    applied = _requiring("latency <= 2", "throughput > 8 or latency < 1")
    assert applied.constraints_at(OBJECTIVES, FRONT.values()).tolist() == applied.constraints(FRONT).tolist()
    unknown = applied.constraints_at(OBJECTIVES, np.array([[np.nan, 9.0]]))
    assert unknown.tolist() == [[1.0, pytest.approx(-0.05)]]
    with pytest.raises(InvalidInputError, match=r"values have shape \(3,\); expected \[n, 2\]"):
        applied.constraints_at(OBJECTIVES, np.zeros(3))
    with pytest.raises(InvalidInputError, match="a rule names kind, which only the candidates of a front have"):
        _requiring('kind == "policy"').constraints_at(OBJECTIVES, FRONT.values())


def test_a_front_of_other_objectives_is_refused() -> None:
    applied = _requiring("throughput > 1")
    with pytest.raises(InvalidInputError, match="a rule names the objective throughput; the candidates have latency"):
        applied.constraints(_front(_candidate("a", 1.0), objectives=OBJECTIVES[:1]))
    other = Objective(name="throughput", unit="kbit/s", direction="maximize", low=0, high=1)
    with pytest.raises(InvalidInputError, match="a rule has throughput in Mbit/s; the candidates have it in kbit/s"):
        applied.constraints(_front(_candidate("a", 1.0, 1.0), objectives=(OBJECTIVES[0], other)))


ATOMS = [
    f"{name} {sign} {bound}"
    for name in ("latency", "throughput")
    for sign in ("<", "<=", ">", ">=", "==", "!=")
    for bound in (1.0, 2.0, 5e-324)
] + ['kind == "policy"', 'kind != "policy"']
TEXTS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})")
        | inner.map(lambda text: f"(not {text})")
    ),
    max_leaves=6,
)
NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 5e-324, -1e300]) | st.floats(allow_nan=False, allow_infinity=False)
MEMBERS = st.lists(st.tuples(st.sampled_from(["policy", "configuration"]), NUMBERS, NUMBERS), min_size=1, max_size=5)


@settings(max_examples=300)
@given(TEXTS, MEMBERS)
@example("latency < 2.0", [("policy", 2.0, 0.0), ("policy", math.nextafter(2.0, 0), 0.0)])
def test_a_constraint_is_kept_exactly_where_python_says_so(text: str, members: list[tuple[str, float, float]]) -> None:
    front = _front(*(_candidate(f"c{i}", *mean, kind=kind) for i, (kind, *mean) in enumerate(members)))
    # The texts are valid Python with the same meaning: an oracle by somebody else.
    # What can never be kept, or excludes everything, is a matter of the book; here every text counts.
    book = _book({"name": "r", "forbid": f'not (({text}) or name == "c99")'})
    limits = book.apply({}).constraints(front)[:, 0]
    names = {"latency": operator.itemgetter(1), "throughput": operator.itemgetter(2), "kind": operator.itemgetter(0)}
    expected = [bool(eval(text, {}, {n: get(member) for n, get in names.items()})) for member in members]
    assert (limits <= 0).tolist() == expected
    assert np.isfinite(limits).all()


def _least(front: Front, applied: Applied) -> str:
    """Whoever breaks the rules least, the first of equals."""
    return front.candidates[int(applied.violations(front).sum(axis=1).argmin())].name


def test_a_dry_run_says_what_binds() -> None:
    book = _book(
        {"name": "alert", "priority": 9, "when": "alarm", "then": {"mode": "emergency"}},
        {"name": "usual", "then": {"mode": "normal"}},
        {"name": "delay", "priority": 8, "when": "load > 0.5", "require": "latency <= 2"},
        {"name": "rate", "priority": 7, "require": "throughput >= 8"},
        {"name": "slow", "priority": 6, "when": "alarm", "require": "latency > 2.5"},
        {"name": "humble", "priority": 5, "forbid": "throughput > 20"},
    )
    run = dry_run(book, FRONT, [{"load": 0.9, "alarm": True}, {"alarm": False}], choose=_least)
    busy, calm = run.runs
    by_name = {rule.rule: rule for rule in busy.rules}
    assert {name: rule.status for name, rule in by_name.items()} == {
        "alert": "active",
        "delay": "active",
        "rate": "active",
        "slow": "yielded",
        "humble": "active",
        "usual": "shadowed",
    }
    assert by_name["delay"].why == "load > 0.5 is true with load = 0.9"
    assert by_name["slow"].why == "cannot be kept together with delay"
    assert by_name["usual"].why == "alert goes first and sets the mode emergency"
    delay = by_name["delay"]
    assert (delay.excludes, delay.only_it, delay.room, delay.shortfall) == (1, 1, 0.0, 0.25)
    assert (delay.binds, by_name["rate"].binds, by_name["humble"].binds) == (True, True, False)
    assert by_name["humble"].shortfall is None
    assert (busy.choice, busy.feasible) == ("even", ("even",))
    # Without the bound on delay the wide one is feasible, and slow, which no longer yields, asks for it.
    assert {name for name, rule in by_name.items() if rule.changes_choice} == {"delay", "rate"}
    statuses = {rule.rule: (rule.status, rule.why) for rule in calm.rules}
    assert statuses["delay"] == ("unknown", "load > 0.5 is open: the context lacks load")
    assert statuses["alert"] == ("idle", "alarm is false with alarm = false")
    assert statuses["rate"] == ("active", "always")
    assert run.never_fired() == ()
    assert dry_run(book, FRONT, {"alarm": False}).never_fired() == ("alert", "delay", "slow")


def test_a_dry_run_as_table_and_json() -> None:
    book = _book({"name": "rate", "require": "throughput >= 8"}, {"name": "usual", "then": {"mode": "normal"}})
    run = dry_run(book, FRONT, {})
    assert run.rows() == [
        ("1", "rate", "active", "require throughput >= 8 Mbit/s", "always", "1", "1", "0.1", "0.15", ""),
        ("1", "usual", "active", "mode normal", "always", "", "", "", "", ""),
    ]
    assert {len(row) for row in run.rows()} == {len(HEADINGS)}
    document = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert document["runs"][0]["feasible"] == ["wide", "even"]
    assert document["runs"][0]["rules"][0]["binds"] is True
    assert (document["never_fired"], document["warnings"], document["scenario"]) == ([], [], "toy")
    assert dry_run(book, FRONT, []).never_fired() == ()
    (strict,) = dry_run(_book({"name": "r", "require": "throughput >= 12"}), FRONT, {}).runs
    assert (strict.rules[0].excludes, strict.rules[0].shortfall, strict.rules[0].room) == (2, 0.1, 0.3)
    with pytest.raises(InvalidInputError, match="unknown context field 'lod'"):
        dry_run(book, FRONT, {"lod": 1})


def test_removing_a_rule_that_binds_lets_exactly_its_own_candidates_back() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        values = generator.uniform([0, 0], [4, 20], size=(12, 2))
        front = _front(*(_candidate(f"c{i}", *mean) for i, mean in enumerate(values.tolist())))
        low, high = generator.uniform(1, 3), generator.uniform(5, 15)
        book = _book(
            {"name": "a", "require": f"latency <= {low}"},
            {"name": "b", "require": f"throughput >= {high}"},
            {"name": "c", "forbid": f"latency > 1 and throughput < {high}"},
        )
        (run,) = dry_run(book, front, {}).runs
        for rule in run.rules:
            (without,) = dry_run(book.without(rule.rule), front, {}).runs
            assert rule.only_it == len(without.feasible) - len(run.feasible)


def test_the_own_rules_of_a_mode_count_beside_those_of_the_book() -> None:
    generator = np.random.default_rng(5)
    for _ in range(20):
        values = generator.uniform([0, 0], [4, 20], size=(12, 2))
        front = _front(*(_candidate(f"c{i}", *mean) for i, mean in enumerate(values.tolist())))
        low, high = float(generator.uniform(1, 3)), float(generator.uniform(5, 15))
        book = _book({"name": "delay", "require": f"latency <= {low}"}, {"name": "rate", "require": "throughput >= 6"})
        own = (Rule(objective="throughput", at_least=high), Rule(objective="latency", at_most=low))
        mode = Mode(name="normal", preference=Preference.uniform(front.objectives), rules=own)
        (run,) = dry_run(book, front, {}, mode=lambda _, mode=mode: mode).runs
        kept = (values[:, 0] <= low) & (values[:, 1] >= max(high, 6))
        assert run.feasible == tuple(f"c{i}" for i in np.flatnonzero(kept))
        assert run.mode == "normal"
        delay, rate = run.rules
        # The mode says the same of the delay: without the rule nobody comes back.
        assert (delay.excludes, delay.only_it) == ((values[:, 0] > low).sum(), 0)
        assert rate.only_it == ((values[:, 1] < 6) & (values[:, 1] >= high) & (values[:, 0] <= low)).sum()
        enough, quick = run.own_rules
        assert (enough.rule, enough.effect) == ("normal/throughput", f"require {own[0]}")
        assert enough.only_it == ((values[:, 1] < high) & (values[:, 1] >= 6) & (values[:, 0] <= low)).sum()
        assert (quick.excludes, quick.only_it, quick.status) == (delay.excludes, 0, "active")
    (alone,) = dry_run(book, front, {}).runs
    assert (alone.mode, alone.own_rules) == (None, ())
    assert alone.rules[0].only_it == ((values[:, 0] > low) & (values[:, 1] >= 6)).sum()


def test_a_dry_run_shows_the_own_rules_and_refuses_a_strange_mode() -> None:
    book = _book({"name": "rate", "require": "throughput >= 8"})
    objectives = FRONT.objectives
    bound = Rule(objective="throughput", at_least=8)
    mode = Mode(name="normal", preference=Preference.uniform(objectives), rules=(bound,))
    run = dry_run(book, FRONT, {}, mode=lambda _: mode)
    assert [row[1:3] + row[5:7] for row in run.rows()] == [
        ("rate", "active", "1", "0"),
        ("normal/throughput", "active", "1", "0"),
    ]
    assert run.to_dict()["runs"][0]["own_rules"][0]["why"] == "an own rule of the mode normal"
    assert run.never_fired() == ()
    strange = Mode(name="odd", preference=Preference.uniform(["speed"]))
    with pytest.raises(InvalidInputError, match="mode 'odd' has 1 weights"):
        dry_run(book, FRONT, {}, mode=lambda _: strange)
