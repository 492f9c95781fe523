from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lake_records import decision, outcome

from rlaas.errors import InvalidInputError
from rlaas.lake import decode_decision, decode_outcome, encode

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    observation=st.lists(FINITE, max_size=5),
    action_propensity=st.none() | FINITE,
    preference=st.none() | st.dictionaries(st.text(), FINITE, max_size=3),
    session=st.none() | st.text(min_size=1, max_size=9),
    step=st.none() | st.integers(0, 2**62),
)
def test_a_decision_reads_back_as_it_was_written(observation, action_propensity, preference, session, step) -> None:
    record = decision(
        "d",
        observation=observation,
        action_propensity=action_propensity,
        preference=preference,
        session=session,
        step=step,
        context={"country": "AT", "tags": [1, None]},
    )
    assert decode_decision(encode(record)) == record


@given(values=st.dictionaries(st.text(), FINITE, max_size=4), revision=st.integers(0, 2**62))
def test_an_outcome_reads_back_as_it_was_written(values, revision) -> None:
    record = outcome("r", "d", outcome=values, revision=revision, terminated=True)
    assert decode_outcome(encode(record)) == record


def test_the_document_carries_its_schema_version() -> None:
    assert json.loads(encode(decision("d")))["schema_version"] == 1
    assert json.loads(encode(outcome("r", "d")))["schema_version"] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["observation", "action", "preference", "action_propensity", "variant_propensity"])
def test_a_decision_that_json_cannot_say_is_refused_before_it_is_acknowledged(field: str, value: float) -> None:
    wrapped = {"observation": [0.0, value], "action": [value], "preference": {"latency": value}}.get(field, value)
    with pytest.raises(InvalidInputError, match=field):
        encode(decision("d", **{field: wrapped}))


def test_an_outcome_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="outcome"):
        encode(outcome("r", "d", outcome={"latency": float("nan")}))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"step": -1}, "step"),
        ({"version": 1.5}, "version"),
        ({"variant_propensity": 0.0}, "variant_propensity"),
        ({"variant_propensity": 1.5}, "variant_propensity"),
        ({"time_us": -5}, "time_us"),
        ({"policy": ""}, "policy"),
        ({"observation": [["nested"]]}, "observation"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInputError, match=field) as caught:
        encode(decision("d", **changes))
    assert "\n" not in str(caught.value)


def test_what_is_not_such_a_record_is_refused() -> None:
    valid = json.loads(encode(outcome("r", "d")))
    for wrong in (
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        json.dumps({**valid, "schema_version": 2}).encode(),
        json.dumps({**valid, "surprise": 1}).encode(),
        json.dumps({key: value for key, value in valid.items() if key != "outcome"}).encode(),
        encode(decision("d")),
    ):
        with pytest.raises(InvalidInputError):
            decode_outcome(wrong)
    with pytest.raises(InvalidInputError):
        decode_decision(encode(outcome("r", "d")))
