from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.decisions.rules import Field, Scope, objective_scope, parse
from rlaas.decisions.rules.context import check_context, read_context
from rlaas.decisions.rules.expressions import (
    And,
    Comparison,
    Expression,
    Membership,
    Not,
    Or,
    evaluate,
    joined,
    negated,
    normal_form,
)
from rlaas.decisions.rules.satisfy import Budget, satisfy
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Objective

FIELDS = {
    field.name: field
    for field in (
        Field(name="load", type="number", low=0, high=1),
        Field(name="rate", type="number", unit="Mbit/s"),
        Field(name="delay", type="number", unit="s"),
        Field(name="odd name", type="number", unit="EUR per 1,000 impressions"),
        Field(name="slice", type="text", choices=("embb", "mmtc", "urllc")),
        Field(name="site", type="text"),
        Field(name="time", type="time"),
        Field(name="alarm", type="flag"),
    )
}
SCOPE = Scope(FIELDS.values())
OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def _values(field: Field) -> st.SearchStrategy[Any]:
    if field.type == "flag":
        return st.booleans()
    if field.type == "time":
        return st.integers(0, 86_399).map(float)
    if field.type == "text":
        return st.sampled_from(field.choices) if field.choices else st.text(max_size=8)
    # Few values as well as any, so that different comparisons meet at their bounds.
    few = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    bounds = {} if field.low < 0 else {"min_value": field.low, "max_value": field.high}
    return few | st.floats(allow_nan=False, allow_infinity=False, **bounds).map(lambda number: number + 0.0)


@st.composite
def _leaves(draw: st.DrawFn) -> Expression:
    field = draw(st.sampled_from(list(FIELDS.values())))
    if draw(st.booleans()):
        values = draw(st.lists(_values(field), min_size=1, max_size=3))
        return Membership(field, tuple(dict.fromkeys(values)))
    signs = ["==", "!="] if field.type in ("text", "flag") else list(OPERATORS)
    return Comparison(field, draw(st.sampled_from(signs)), draw(_values(field)))


def _grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(inner, min_size=2, max_size=3)
    return inner.map(Not) | several.map(lambda items: joined(And, *items)) | several.map(lambda i: joined(Or, *i))


EXPRESSIONS = st.recursive(_leaves(), _grown, max_leaves=8)
CONTEXTS = st.fixed_dictionaries({}, optional={name: _values(field) for name, field in FIELDS.items()})


def _reference(expression: Expression, context: Mapping[str, Any]) -> bool:
    """What Python says of an expression whose fields are all known."""
    if isinstance(expression, Comparison):
        return bool(OPERATORS[expression.operator](context[expression.field.name], expression.value))
    if isinstance(expression, Membership):
        return context[expression.field.name] in set(expression.values)
    if isinstance(expression, Not):
        return not _reference(expression.item, context)
    return (all if isinstance(expression, And) else any)(_reference(item, context) for item in expression.items)


def _at_scale(expression: Expression) -> bool:
    return len(str(expression)) <= 2_000


@given(EXPRESSIONS.filter(_at_scale))
def test_text_and_tree_are_one(expression: Expression) -> None:
    assert parse(str(expression), SCOPE) == expression


@given(EXPRESSIONS, st.fixed_dictionaries({name: _values(field) for name, field in FIELDS.items()}))
def test_evaluation_is_pythons_where_everything_is_known(expression: Expression, context: dict[str, Any]) -> None:
    expected = _reference(expression, context)
    assert evaluate(expression, context) is expected
    assert evaluate(normal_form(expression), context) is expected
    assert evaluate(negated(expression), context) is not expected


@given(EXPRESSIONS, CONTEXTS, st.data())
def test_what_is_said_of_a_partial_context_holds_for_every_completion(
    expression: Expression, context: dict[str, Any], data: st.DataObject
) -> None:
    said = evaluate(expression, context)
    missing = st.fixed_dictionaries({n: _values(f) for n, f in FIELDS.items() if n not in context})
    if said is not None:
        assert _reference(expression, context | data.draw(missing)) is said
    assert evaluate(negated(expression), context) is (None if said is None else not said)


def test_kleenes_tables() -> None:
    truth = parse("alarm", SCOPE)
    unknown = parse("load > 0.5", SCOPE)
    known = {"alarm": True}
    assert evaluate(joined(Or, unknown, truth), known) is True
    assert evaluate(joined(And, unknown, truth), known) is None
    assert evaluate(joined(And, unknown, Not(truth)), known) is False
    assert evaluate(joined(Or, unknown, Not(truth)), known) is None
    assert evaluate(Not(unknown), known) is None


@settings(max_examples=300)
@given(EXPRESSIONS, st.lists(st.fixed_dictionaries({n: _values(f) for n, f in FIELDS.items()}), max_size=5))
def test_satisfiability_is_decided(expression: Expression, samples: list[dict[str, Any]]) -> None:
    witness = satisfy([normal_form(expression)], Budget(10_000))
    if witness is None:
        assert not any(_reference(expression, sample) for sample in samples)
    else:
        assert check_context(FIELDS, witness) == witness  # every value is one that its field can take
        assert evaluate(expression, witness) is True


@given(EXPRESSIONS)
def test_an_expression_and_its_opposite_never_hold_together(expression: Expression) -> None:
    assert satisfy([normal_form(expression), negated(expression)], Budget(100_000)) is None


def test_neighbouring_floats_leave_no_room() -> None:
    above = "0.30000000000000004"  # the next float after 0.3
    assert satisfy([normal_form(parse(f"0.3 < load < {above}", SCOPE))], Budget(100)) is None
    assert satisfy([normal_form(parse(f"0.3 < load <= {above}", SCOPE))], Budget(100)) == {"load": float(above)}


def test_a_budget_ends_the_search() -> None:
    with pytest.raises(ConfigurationError, match=r"too entangled to be checked for conflicts in 3 steps; split"):
        satisfy([normal_form(parse("load > 0.1 and rate > 1 and delay > 1 and alarm", SCOPE))], Budget(3))


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ('load > 0.9 and slice == "urllc"', 'load > 0.9 and slice == "urllc"'),
        ("delay < 2 ms", "delay < 0.002 s"),
        ("delay < 2ms", "delay < 0.002 s"),
        ("delay <= 1.1 ms", "delay <= 0.0011 s"),  # 1.1 * 0.001 is another float
        ("delay < 3 µs", "delay < 3e-06 s"),
        ("delay > 1 h", "delay > 3600 s"),
        ("rate >= 1500 kbit/s", "rate >= 1.5 Mbit/s"),
        ("rate >= 1 MB/s", "rate >= 8 Mbit/s"),
        ("80 % < load", "load > 0.8"),
        ("0.2 < load <= 0.9", "load > 0.2 and load <= 0.9"),
        ("0.9 >= load > 20%", "load <= 0.9 and load > 0.2"),
        ("time >= 22:00 or time < 6:00", "time >= 22:00 or time < 06:00"),
        ("time != 22:00:05", "time != 22:00:05"),
        ("slice in ['embb', \"mmtc\", 'embb']", 'slice in ["embb", "mmtc"]'),
        ("slice not in ['embb']", 'not slice in ["embb"]'),
        ("not alarm and not (load < .5)", "not alarm and not load < 0.5"),
        ("alarm == false", "alarm == false"),
        ("alarm or load < 1 and alarm", "alarm or load < 1 and alarm"),
        ("(alarm or load < 1) and alarm", "(alarm or load < 1) and alarm"),
        ("((alarm and alarm) and alarm)", "alarm and alarm and alarm"),
        ("`odd name` < 5", "`odd name` < 5"),
        (r"site == 'it\'s \"x\"\n'", 'site == "it\'s \\"x\\"\\n"'),
        (r"site == 'a\u0062\u0007\U0001d7d9'", r'site == "ab\U00000007𝟙"'),
        ("site == 'Ünïcode ✓'", 'site == "Ünïcode ✓"'),
        ("rate > -1e-3 and rate < +2.E3", "rate > -0.001 Mbit/s and rate < 2000 Mbit/s"),
    ],
)
def test_texts_and_what_they_mean(text: str, means: str) -> None:
    assert str(parse(text, SCOPE)) == means


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("lod > 0.5", 1, "unknown field 'lod'; allowed: alarm, delay, load, odd name, rate, site, slice, time"),
        ("alarm and lod > 0.5", 11, "unknown field 'lod'"),
        ("load = 0.5", 6, "unexpected '='; did you mean =="),
        ('load > "high"', 8, 'load takes a number, not a text between "quotation marks"'),
        ("slice == urllc", 1, "a comparison is one field and one value"),
        ("slice in [urllc]", 11, "'urllc' is a name; expected a value"),
        ("alarm > 3", 9, "alarm takes true or false, not a number"),
        ("load", 1, "load takes a number, not true or false"),
        ("time > 5", 8, "time takes a time of day such as 22:00, not a number"),
        ("time > 24:00", 8, "'24:00' is no time of day; allowed: 00:00 to 23:59"),
        ('slice < "embb"', 7, "slice is a text: it has no order; allowed: ==, !=, in"),
        ('slice == "eMBB"', 10, "unknown value of slice 'eMBB'; allowed: embb, mmtc, urllc"),
        ("load > 90", 8, "load = 90 is out of range; allowed: 0 to 1"),
        ("delay < 2 W", 9, "unit 'W' does not convert; allowed: s, ps"),
        ("delay < 2 %", 9, "unit '%' does not convert"),
        ("`odd name` < 5 EUR", 14, "unit 'EUR' does not convert; allowed: EUR per 1,000 impressions"),
        ("rate < 1e999", 8, "the number is beyond the range of floats"),
        ("1 < 2", 1, "'1' is compared with no field"),
        ("1 < load > 0.5", 10, "a range needs two of < and <="),
        ("0.1 == load == 0.1", 13, "a range needs two of < and <="),
        ("load < rate", 1, "a comparison is one field and one value"),
        ("load < 0.5 < 1", 1, "a comparison is one field and one value"),
        ("load < 0.5 load", 8, "unit 'load' does not convert"),
        ("alarm alarm", 7, "unexpected 'alarm'; expected and, or, or the end"),
        ("(alarm", 7, "unexpected the end; expected and, or, or ) to close the one at column 1"),
        ("alarm and", 10, "unexpected the end; expected a field, a value, not, or ("),
        ("", 1, "unexpected the end; expected a field"),
        ("slice not alarm", 11, "unexpected 'alarm'; expected in"),
        ("slice in 'embb'", 10, "unexpected 'embb'; expected [ and the values"),
        ("slice in ['embb' 'mmtc']", 18, "unexpected 'mmtc'; expected , or ]"),
        ("slice in []", 11, "unexpected ']'; expected a field, a value"),
        ("site == 'abc", 9, "what ' opens is never closed"),
        (r"site == 'a\q'", 11, r"unknown escape \q; allowed: \\, \", \', \n, \r, \t, \uXXXX, \UXXXXXXXX"),
        (r"site == '\ud800'", 10, r"unknown escape \ud800"),
        (r"site == '\U00110000'", 10, r"unknown escape \U00110000"),
        (r"site == '\u12'", 10, r"unknown escape \u"),
        ("load > ٣", 8, "unexpected '٣'"),
        ("load > 0.5; import os", 11, "unexpected ';'"),
        ("load.__class__ > 1", 1, "unknown field 'load.__class__'"),
        ("(" * 41 + "alarm" + ")" * 41, 41, "more than 40 parentheses and nots"),
        ("not " * 41 + "alarm", 161, "more than 40 parentheses and nots"),
        ("alarm or " * 300, 2_001, "the expression has 2700 characters; allowed: 2000"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_column(text: str, column: int, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, SCOPE)
    assert caught.value.message.startswith(f"column {column}: {says}")


def test_depth_is_counted_inside_one_another_not_side_by_side() -> None:
    several = parse(" and ".join(["(not alarm)"] * 60), SCOPE)
    assert evaluate(several, {"alarm": False}) is True
    assert str(parse("(" * 40 + "alarm" + ")" * 40, SCOPE)) == "alarm"


def test_only_texts_are_parsed() -> None:
    with pytest.raises(ConfigurationError, match="an expression is a text, got True"):
        parse(True, SCOPE)  # type: ignore[arg-type]


WORDS = [*FIELDS, *OPERATORS, "and", "or", "not", "in", "(", ")", "[", "]", ",", "0.5", "1e9 ms", "%", "true", "12:00"]
SHUFFLED = st.lists(st.sampled_from([*WORDS, '"embb"', "'", "`", "\\", "\x00", "𝟙"]), max_size=40).map(" ".join)


@settings(max_examples=500)
@given(st.text(max_size=60) | SHUFFLED)
def test_whatever_is_written_is_an_expression_or_a_configuration_error(text: str) -> None:
    expression = said = None
    try:
        expression = parse(text, SCOPE)
    except ConfigurationError as problem:
        said = problem.message
    if said is not None:
        assert said.startswith("column ")
        assert said.splitlines() == [said]
    else:
        assert expression is not None
        assert parse(str(expression), SCOPE) == expression


def test_parameters_take_the_type_of_their_first_value() -> None:
    scope = objective_scope([Objective(name="latency", unit="ms", direction="minimize", low=0, high=5)])
    assert str(parse("parameters.values.sleep <= 30 %", scope)) == "parameters.values.sleep <= 0.3"
    assert parse("parameters.tunable == 'static'", scope) == parse('parameters.tunable == "static"', scope)
    with pytest.raises(ConfigurationError, match="compared with a text here and with a number before"):
        parse("parameters.values.sleep == 'deep'", scope)
    with pytest.raises(ConfigurationError, match=r"parameters\.start is no time of day"):
        parse("parameters.start < 12:00", scope)
    with pytest.raises(ConfigurationError, match=r"unknown field 'load'; allowed: kind, .*parameters.<name>"):
        parse("load > 1", scope)


def test_an_objective_hides_a_candidates_own_field() -> None:
    scope = objective_scope([Objective(name="seeds", unit="kg", direction="maximize", low=0, high=5)])
    assert str(parse("seeds > 1 kg", scope)) == "seeds > 1 kg"


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({"lod": 1}, "unknown context field 'lod'; allowed: alarm, "),
        ({3: 1}, "unknown context field '3'"),
        ({"load": "0.5"}, "context.load must be a finite number, got '0.5'"),
        ({"load": True}, "context.load must be a finite number, got True"),
        ({"load": float("nan")}, "context.load must be a finite number, got nan"),
        ({"rate": 10**400}, "context.rate must be a finite number"),
        ({"load": 1.01}, "load = 1.01 is out of range; allowed: 0 to 1"),
        ({"rate": [1]}, "context.rate must be a finite number, got [1]"),
        ({"slice": "x"}, "unknown value of slice 'x'; allowed: embb, mmtc, urllc"),
        ({"slice": 1}, "context.slice must be a text, got 1"),
        ({"alarm": 1}, "context.alarm must be true or false, got 1"),
        ({"time": "25:00"}, "'25:00' is no time of day"),
        ({"time": 86_400}, "context.time is 86400; allowed: HH:MM, or seconds since midnight from 0 to below 86400"),
        ([("load", 1)], "context must be a mapping of field to value"),
    ],
)
def test_a_bad_context_is_refused_by_field(context: Any, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_context(FIELDS, context)
    assert caught.value.message.startswith(says)


def test_a_context_from_texts() -> None:
    texts = {"load": "95 %", "slice": "urllc", "alarm": "true", "time": "22:30", "delay": "5ms", "rate": "-3"}
    assert read_context(FIELDS, texts) == {
        "load": 0.95,
        "slice": "urllc",
        "alarm": True,
        "time": 81_000.0,
        "delay": 0.005,
        "rate": -3.0,
    }
    assert check_context(FIELDS, {"load": None, "time": "06:00"}) == {"time": 21_600.0}
    for texts, says in (
        ({"load": "high"}, "context.load must be a number with or without a unit, got 'high'"),
        ({"load": "1 W"}, "context.load is '1 W': unit 'W' does not convert"),
        ({"load": "0.5 and"}, "context.load must be a number"),
        ({"alarm": "yes"}, "unknown context.alarm 'yes'; allowed: false, true"),
        ({"lod": "1"}, "unknown context field 'lod'"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            read_context(FIELDS, texts)
        assert caught.value.message.startswith(says)
