"""Segments are read and made into rows as a whole: the same rows as one record at a time."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lake_records import START_US, decision, decisions, outcome, outcomes

from rlaas.lake import DecisionRecord, OutcomeRecord, decode_decision, decode_outcome, encode
from rlaas.lake.decoding import decode_all
from rlaas.lake.rows import date_of, decision_rows, outcome_rows
from rlaas.lake.schemas import TABLES

TEXTS = st.one_of(st.sampled_from(["a", "a", "b", "\n", '"', "é\u2028"]), st.text(min_size=1, max_size=4))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
DECISIONS = st.lists(
    st.builds(
        decision,
        TEXTS,
        policy=TEXTS,
        version=st.sampled_from([0, 1, 1, 2**62]),
        session=st.one_of(st.none(), TEXTS),
        step=st.sampled_from([None, 0, 1]),
        time_us=st.sampled_from([0, START_US, START_US + 86_400_000_000]),
        observation=st.lists(FLOATS, max_size=4),
        action=st.lists(FLOATS, max_size=2),
        action_propensity=st.sampled_from([None, 0.0, -0.0, 0.5]),
        proposed_action=st.one_of(st.none(), st.lists(FLOATS, max_size=2)),
        preference=st.one_of(st.none(), st.dictionaries(TEXTS, FLOATS, max_size=3)),
        context=st.one_of(st.none(), st.dictionaries(TEXTS, st.one_of(st.none(), TEXTS, FLOATS), max_size=2)),
    ),
    max_size=6,
)
OUTCOMES = st.lists(
    st.builds(
        outcome,
        TEXTS,
        TEXTS,
        outcome=st.dictionaries(TEXTS, FLOATS, max_size=3),
        revision=st.integers(0, 1),
        terminated=st.booleans(),
        received_us=st.sampled_from([0, START_US]),
    ),
    max_size=6,
)


def one_by_one(name: str, records: Sequence[Any]) -> pa.Table:
    """Every value on its own, as the records say it."""

    def entries(values: dict[str, float] | None) -> list[tuple[str, float]] | None:
        return None if values is None else sorted(values.items())

    special = {
        "bronze.decisions": {
            "date": lambda record: date_of(record.time_us),
            "preference": lambda record: entries(record.preference),
            "context": lambda record: None if record.context is None else msgspec.json.encode(record.context).decode(),
        },
        "bronze.outcomes": {
            "date": lambda record: date_of(record.received_us),
            "outcome": lambda record: entries(record.outcome),
        },
    }[name]
    schema = TABLES[name].schema
    arrays = [
        pa.array([special.get(field.name, operator.attrgetter(field.name))(record) for record in records], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def same_bits(left: pa.Table, right: pa.Table) -> None:
    assert left.schema == right.schema
    assert repr(left.to_pylist()) == repr(right.to_pylist())  # tells 0.0 from -0.0
    left.validate(full=True)


@given(records=DECISIONS)
def test_decisions_are_the_same_rows(records: list[DecisionRecord]) -> None:
    payloads = [encode(record) for record in records]
    read = decode_all("decisions", payloads)
    assert read == ([decode_decision(payload) for payload in payloads] or None)
    same_bits(decision_rows(records), one_by_one("bronze.decisions", records))


@given(records=OUTCOMES)
def test_outcomes_are_the_same_rows(records: list[OutcomeRecord]) -> None:
    payloads = [encode(record) for record in records]
    read = decode_all("outcomes", payloads)
    assert read == ([decode_outcome(payload) for payload in payloads] or None)
    same_bits(outcome_rows(records), one_by_one("bronze.outcomes", records))


@pytest.mark.parametrize(
    "bad",
    [b" ", b"\n", b"null", b"{}", b"\xff", b"unreadable", *outcomes("r", ["d0"]), b"\n".join(decisions("x", 2))],
    ids=["blank", "end of line", "null", "nothing in it", "no text", "no JSON", "another record", "two in one"],
)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_one_that_cannot_be_read_means_that_each_is_looked_at(bad: bytes, place: int) -> None:
    payloads = decisions("d", 3)
    payloads.insert(place, bad)
    assert decode_all("decisions", payloads) is None


def test_halves_of_a_record_are_not_put_together() -> None:
    (whole,) = decisions("d", 1)
    assert decode_all("decisions", [whole[:40], whole[40:]]) is None
    spaced = whole.replace(b",", b",\n", 1)
    assert decode_decision(spaced) == decode_decision(whole)
    assert decode_all("decisions", [spaced]) is None
    assert decode_all("decisions", [whole, b"\r"]) is None
