from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rlaas.experiments.targeting import AllOf, AnyOf, Condition, TargetingRule, matcher

RULE: TypeAdapter[Any] = TypeAdapter(TargetingRule)

SCALARS = st.booleans() | st.integers(-5, 5) | st.floats(-5, 5, allow_nan=False) | st.sampled_from(["a", "b", ""])
ANYTHING = (
    SCALARS | st.none() | st.floats() | st.integers() | st.lists(st.integers()) | st.dictionaries(st.text(), st.text())
)
OPERATORS = ["equals", "not_equals", "in", "not_in", "less", "at_most", "greater", "at_least", "exists"]


def value_for(operator: str) -> st.SearchStrategy[Any]:
    if operator in ("in", "not_in"):
        return st.lists(SCALARS, min_size=1, max_size=4)
    if operator in ("equals", "not_equals"):
        return SCALARS
    return st.booleans() if operator == "exists" else st.integers(-5, 5) | st.floats(-5, 5, allow_nan=False)


CONDITIONS = st.sampled_from(OPERATORS).flatmap(
    lambda operator: st.fixed_dictionaries(
        {"attribute": st.sampled_from(["x", "y"]), "operator": st.just(operator), "value": value_for(operator)}
    )
)
RULES = st.recursive(
    CONDITIONS,
    lambda inner: st.builds(
        lambda key, parts: {key: parts}, st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    """Equal and of one JSON kind."""

    def kind(value: Any) -> str:
        return "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"

    return kind(a) == kind(b) and a == b


def holds(rule: dict[str, Any], attributes: dict[str, Any]) -> bool:
    """The rule read literally."""
    if "all" in rule:
        return all(holds(part, attributes) for part in rule["all"])
    if "any" in rule:
        return any(holds(part, attributes) for part in rule["any"])
    found, value, operator = attributes.get(rule["attribute"]), rule["value"], rule["operator"]
    if operator == "exists":
        return (found is not None) == value
    if not isinstance(found, str | int | float) or found != found:
        return False
    if operator in ("equals", "not_equals", "in", "not_in"):
        within = any(same(found, one) for one in (value if isinstance(value, list) else [value]))
        return within != operator.startswith("not")
    if isinstance(found, str | bool):
        return False
    return {
        "less": found < value,
        "at_most": found <= value,
        "greater": found > value,
        "at_least": found >= value,
    }[operator]


@given(RULES, st.dictionaries(st.sampled_from(["x", "y", "z"]), ANYTHING))
def test_a_rule_means_what_it_reads_and_never_raises(rule: dict[str, Any], attributes: dict[str, Any]) -> None:
    assert matcher(RULE.validate_python(rule))(attributes) is holds(rule, attributes)


@given(RULES)
def test_rules_survive_json(rule: dict[str, Any]) -> None:
    parsed = RULE.validate_python(rule)
    assert RULE.validate_json(RULE.dump_json(parsed)) == parsed


@pytest.mark.parametrize("operator", [o for o in OPERATORS if o != "exists"])
def test_nothing_is_known_of_a_missing_attribute(operator: str) -> None:
    value = (1,) if operator in ("in", "not_in") else 1
    match = matcher(RULE.validate_python({"attribute": "x", "operator": operator, "value": value}))
    assert not match({})
    assert not match({"x": None})
    assert not match({"x": [1]})


def test_truth_numbers_and_text_are_told_apart() -> None:
    one = matcher(Condition(attribute="x", operator="equals", value=1))
    assert one({"x": 1.0})
    assert not one({"x": True})
    assert not one({"x": "1"})


def test_rules_within_rules() -> None:
    adult = Condition(attribute="age", operator="at_least", value=18)
    near = Condition(attribute="country", operator="in", value=("DE", "FR"))
    known = Condition(attribute="email", operator="exists", value=True)
    match = matcher(AllOf(all=(adult, AnyOf(any=(near, known)))))
    assert match({"age": 18, "country": "FR"})
    assert match({"age": 30, "email": "x"})
    assert not match({"age": 30})
    assert not match({"age": 17, "country": "FR"})


@pytest.mark.parametrize(
    ("document", "where", "message"),
    [
        ({"attribute": "a"}, "operator", "Field required"),
        ({"attribute": "a", "operator": "is", "value": 1}, "operator", "'equals', 'not_equals', 'in'"),
        ({"attribute": "a", "operator": "less", "value": "x"}, "condition", "'less' must be a number"),
        ({"attribute": "a", "operator": "less", "value": True}, "condition", "'less' must be a number"),
        ({"attribute": "a", "operator": "in", "value": "DE"}, "condition", "must be a list of 1 to 10,000"),
        ({"attribute": "a", "operator": "in", "value": []}, "condition", "must be a list of 1 to 10,000"),
        ({"attribute": "a", "operator": "equals", "value": [1]}, "condition", "must be a scalar"),
        ({"attribute": "a", "operator": "exists", "value": 1}, "condition", "must be true or false"),
        ({"attribute": "a", "operator": "equals", "value": float("nan")}, "condition", "must be finite"),
        ({"all": []}, "all", "at least 1 item"),
        ({"any": [{"attribute": "a", "operator": "equals", "value": 1, "or": 2}]}, "or", "Extra inputs"),
        (["a"], "condition", "valid dictionary"),
    ],
)
def test_bad_rules_are_named(document: Any, where: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RULE.validate_python(document)
    first = caught.value.errors()[0]
    assert first["loc"][-1] == where
    assert message in first["msg"]


def test_rules_are_not_deep() -> None:
    rule: dict[str, Any] = {"attribute": "a", "operator": "equals", "value": 1}
    for _ in range(8):
        rule = {"all": [rule]}
    assert matcher(RULE.validate_python(rule))({"a": 1})
    with pytest.raises(ValidationError, match="at most 8 levels deep"):
        RULE.validate_python({"any": [rule]})
    for _ in range(3_000):
        rule = {"any": [rule]}
    with pytest.raises(ValidationError):
        RULE.validate_python(rule)
