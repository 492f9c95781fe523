"""What is answered stays safe: compiled shields by property, and what is refused when one is created."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.bundles import policy_bundle

from rlaas.bundles import BundleManifest, ChoicesAction, load_bundle
from rlaas.errors import InvalidInputError
from rlaas.serving.live import validation_error
from rlaas.serving.shield import ActiveShield
from rlaas.serving.shield_spec import Shield

CHANGE = [0.05, None]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> BundleManifest:
    return load_bundle(policy_bundle(tmp_path_factory.mktemp("box") / "b", kind="box", actions=2)).manifest


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> BundleManifest:
    return load_bundle(policy_bundle(tmp_path_factory.mktemp("toy") / "b")).manifest


def _shield(manifest: BundleManifest, **fields: Any) -> ActiveShield:
    return ActiveShield.of(Shield.model_validate(fields), manifest)


def _rule(name: str, when: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "when": when, **fields}


# --- compiled ----------------------------------------------------------------------------------------------------

unit = st.floats(0, 1)
pair = st.tuples(unit, unit)
row = st.tuples(*[st.floats(-5, 5, width=32)] * 3)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(row, pair, pair), min_size=1, max_size=5), pair, pair, pair, st.floats(-5, 5, width=32))
def test_a_shielded_action_is_within_bounds_and_changes_by_no_more_than_allowed(
    box: BundleManifest, cases: list[Any], one: Any, other: Any, change: Any, threshold: float
) -> None:
    low, high = np.minimum(one, other), np.maximum(one, other)
    middle = (low + high) / 2
    shield = _shield(
        box,
        bounds={"low": low.tolist(), "high": high.tolist()},
        max_change=change,
        rules=[_rule("tight", f"x0 > {threshold!r}", bounds={"high": middle.tolist()})],
    )
    rows = np.array([case[0] for case in cases], dtype=np.float32)
    actions = np.array([case[1] for case in cases])
    # The step before was shielded too, by the bounds that hold now.
    top = np.where((rows[:, 0].astype(float) > threshold)[:, None], middle, high)
    previous = np.clip(np.array([case[2] for case in cases]), low, top)
    answer = shield.apply(rows, actions, None, previous)
    assert (answer >= low).all()
    assert (answer <= top).all()
    assert (np.abs(answer - previous) <= np.array(change) + 1e-12).all()
    alone = [shield.apply(rows[i : i + 1], actions[i : i + 1], None, previous[i : i + 1])[0] for i in range(len(rows))]
    np.testing.assert_array_equal(answer, alone)
    # It moves no farther than it must: what satisfies everything already stays.
    fine = (actions >= low) & (actions <= top) & (np.abs(actions - previous) <= np.array(change) - 1e-12)
    np.testing.assert_array_equal(answer[fine], actions[fine])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(row, pair), min_size=1, max_size=5))
def test_with_no_constraint_active_nothing_changes(box: BundleManifest, cases: list[Any]) -> None:
    shield = _shield(
        box,
        bounds={"low": [0.0, None], "high": [None, 1.0]},
        max_change=CHANGE,
        rules=[_rule("never", "x0 > 5 and x1 < 0", action=[0.5, 0.5])],
    )
    rows = np.array([case[0] for case in cases], dtype=np.float32)
    actions = np.array([case[1] for case in cases])
    assert shield.apply(rows, actions, None, np.full(actions.shape, np.nan)) is actions


def test_bounds_come_before_changes_and_fixed_actions_before_all(box: BundleManifest) -> None:
    rules = [
        _rule("cool", "x0 > 1", bounds={"high": [0.3, None]}),
        _rule("stop", "x0 > 2", action=[0.1, 0.0], priority=1),
        _rule("slow", "x0 > 1.5", action=[0.2, 0.2]),
    ]
    shield = _shield(box, max_change=[0.1, 0.1], rules=rules)
    rows = np.array([[0.5, 0, 0], [1.2, 0, 0], [1.7, 0, 0], [3, 0, 0]], dtype=np.float32)
    previous = np.full((4, 2), 0.9)
    answer = shield.apply(rows, np.full((4, 2), 0.5), None, previous)
    np.testing.assert_allclose(answer, [[0.8, 0.8], [0.3, 0.8], [0.2, 0.2], [0.1, 0.0]])


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 3), min_size=1, max_size=3), st.data())
def test_forbidden_choices_are_never_answered(toy: BundleManifest, banned: set[int], data: st.DataObject) -> None:
    substitute = data.draw(st.sampled_from(sorted({0, 1, 2, 3} - banned)))
    shield = _shield(toy, forbidden=[{"choices": sorted(banned), "substitute": substitute}])
    actions = np.arange(4)
    answer = shield.apply(np.zeros((4, 3)), actions)
    assert answer.tolist() == [substitute if choice in banned else choice for choice in range(4)]


def test_forbidden_choices_of_several_components_go_by_component(toy: BundleManifest) -> None:
    several = toy.model_copy(update={"action": ChoicesAction(sizes=(3, 2))})
    shield = _shield(several, forbidden=[{"choices": [2], "substitute": 0, "component": 0}])
    assert shield.apply(np.zeros((2, 3)), np.array([[2, 1], [1, 1]])).tolist() == [[0, 1], [1, 1]]
    rule = _shield(several, rules=[_rule("fix", "x0 > 0", action=[1, 0])])
    assert rule.apply(np.array([[1.0, 0, 0], [-1, 0, 0]]), np.array([[2, 1], [2, 1]])).tolist() == [[1, 0], [2, 1]]


def test_a_rule_that_hangs_on_what_the_caller_left_out_is_refused(toy: BundleManifest) -> None:
    shield = _shield(toy, context={"alarm": {"type": "flag"}}, rules=[_rule("alarmed", "x0 > 0 and alarm", action=2)])
    rows = np.array([[1.0, 0, 0]])
    assert shield.apply(rows, np.array([0]), {"alarm": True, "own": [1]}).tolist() == [2]
    assert shield.apply(rows, np.array([0]), {"alarm": False}).tolist() == [0]
    assert shield.apply(-rows, np.array([0]), None).tolist() == [0]  # whatever the alarm says
    with pytest.raises(InvalidInputError, match=r"context\.alarm is needed: rule 'alarmed'"):
        shield.apply(rows, np.array([0]), None)
    with pytest.raises(InvalidInputError, match=r"context\.alarm must be true or false"):
        shield.apply(rows, np.array([0]), {"alarm": 1})


def _as_sent(manifest: BundleManifest, fields: dict[str, Any]) -> ActiveShield:
    try:
        return _shield(manifest, **fields)
    except ValidationError as problem:
        raise validation_error(problem) from problem


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bounds": {}}, "bounds: bounds need low, high or both"),
        ({"bounds": {"low": [0]}}, "shield.bounds.low has 1 components; expected 2"),
        (
            {"bounds": {"high": [1.5, None]}},
            r"shield.bounds.high\[0\] is 1.5, beyond the action space; allowed: 0 to 1",
        ),
        ({"bounds": {"low": [0.5, 0], "high": [0.4, 1]}}, "shield.bounds.low is above high in component 0"),
        ({"max_change": [0.1]}, "shield.max_change has 1 components"),
        ({"max_change": [-1, None]}, "max_change.0"),
        ({"forbidden": [{"choices": [1], "substitute": 0}]}, "shield.forbidden is for policies that choose"),
        ({"forbidden": [{"choices": [1], "substitute": 1}]}, "substitute 1 is itself forbidden"),
        ({"rules": [_rule("a", "x9 > 0", action=[0, 0])]}, r"rules.a.when: column 1: unknown field 'x9'; allowed: x0"),
        ({"rules": [_rule("a", "x0 >", action=[0, 0])]}, r"rules.a.when: column"),
        ({"rules": [_rule("a", "x0 > 0", action=[0])]}, r"rules.a.action must have 2 components"),
        ({"rules": [_rule("a", "x0 > 0", action=[0, 2])]}, r"rules.a.action\[1\] is 2; allowed: 0 to 1"),
        ({"rules": [_rule("a", "x0 > 0", action=True)]}, r"rules.0.action: expected a choice"),
        ({"rules": [_rule("a", "x0 > 0")]}, "exactly one of bounds and action"),
        ({"rules": [_rule("a", "x0 > 0 and x0 < 0", action=[0, 0])]}, "rules.a.when: no observation and context"),
        ({"rules": [_rule("a", "x0 > 0", action=[0, 0])] * 2}, "two rules of the shield are named 'a'"),
        (
            {"rules": [_rule("a", "x0 > 0", action=[0, 0]), _rule("b", "x1 > 0", action=[1, 0])]},
            "rules 'a' and 'b' of the shield fire together, for example where x0 = .*; give one a higher priority",
        ),
        (
            {
                "rules": [
                    _rule("a", "x0 > 0", bounds={"high": [0.2, None]}),
                    _rule("b", "x0 > 1", bounds={"low": [0.3, None]}),
                ]
            },
            "fire together, .* their bounds have nothing in common in component 0",
        ),
        (
            {"rules": [_rule("a", "x0 > 0", bounds={"high": [0.2, None]}), _rule("b", "x0 > 1", action=[1, 1])]},
            "the action of 'b' lies outside the bounds of 'a'",
        ),
        (
            {"bounds": {"high": [0.2, None]}, "rules": [_rule("a", "x0 > 0", action=[1, 1])]},
            r"rules.a.action lies outside shield.bounds",
        ),
        (
            {"bounds": {"high": [0.2, None]}, "rules": [_rule("a", "x0 > 0", bounds={"low": [0.3, None]})]},
            r"rules.a.bounds has nothing in common with shield.bounds in component 0",
        ),
        ({"context": {"x0": {"type": "flag"}}, "rules": [_rule("a", "x0 > 0", action=[0, 0])]}, "context.x0 is a feat"),
        (
            {"context": {"previous_action": {"type": "flag"}}, "rules": [_rule("a", "x0 > 0", action=[0, 0])]},
            "context.previous_action is reserved",
        ),
        ({"speed": 1}, "speed: unknown key"),
    ],
)
def test_a_shield_that_cannot_hold_is_refused_with_its_field(
    box: BundleManifest, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        _as_sent(box, fields)


def test_rules_that_never_meet_may_contradict_one_another(box: BundleManifest) -> None:
    rules = [_rule("a", "x0 > 0", action=[0, 0]), _rule("b", "x0 <= 0", action=[1, 1])]
    answer = _shield(box, rules=rules).apply(np.array([[1.0, 0, 0], [0, 0, 0]]), np.full((2, 2), 0.5))
    assert answer.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bounds": {"low": [0]}}, "shield.bounds is for actions in a box"),
        ({"max_change": [1]}, "shield.max_change is for actions in a box"),
        (
            {"forbidden": [{"choices": [4], "substitute": 0}]},
            r"forbidden.0.choices: choice 4 is unknown; allowed: 0 to 3",
        ),
        ({"forbidden": [{"choices": [1], "substitute": 0, "component": 1}]}, "component 1 is unknown; allowed: 0 to 0"),
        ({"forbidden": [{"choices": [c], "substitute": 0} for c in (1, 2)]}, "component 0 is forbidden twice"),
        ({"rules": [_rule("a", "x0 > 0", bounds={"low": [0]})]}, "rules.a.bounds is for actions in a box"),
        ({"rules": [_rule("a", "x0 > 0", action=[1])]}, "rules.a.action must be a choice from 0 to 3"),
        (
            {"forbidden": [{"choices": [1], "substitute": 0}], "rules": [_rule("a", "x0 > 0", action=1)]},
            "rules.a.action: choice 1 is in shield.forbidden",
        ),
    ],
)
def test_what_choices_cannot_have_is_refused(toy: BundleManifest, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        _shield(toy, **fields)
