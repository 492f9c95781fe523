"""Decisions made together are one record of the log, and the same rows of the lake as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lake_records import START_US, decision

from rlaas.errors import InvalidInputError
from rlaas.lake import CommitReport, Committer, DecisionRecord, Lake, WriteAheadLog, encode
from rlaas.lake.batches import DecisionColumns, decisions_in, decode_batch, encode_batch, is_batch, rows_at_once
from rlaas.lake.records import DecisionCommon
from rlaas.lake.rows import batch_rows, decision_rows
from rlaas.lake.segments import MAX_RECORD_BYTES
from rlaas.lake.verification import verify_log

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.one_of(st.sampled_from(["a", "b", "\n", "\0", "é\u2028"]), st.text(min_size=1, max_size=4))
COLUMNS = {
    "decision_ids": "decision_id",
    "variant_propensities": "variant_propensity",
    "action_propensities": "action_propensity",
    "sessions": "session",
    "steps": "step",
    "units": "unit",
    "contexts": "context",
    "proposed_actions": "proposed_action",
    "candidates": "candidate",
}


@st.composite
def made_together(draw: st.DrawFn) -> list[DecisionRecord]:
    """Decisions that share what decisions made together share."""
    n_features, n_actions = draw(st.integers(0, 3)), draw(st.integers(1, 2))
    shared = draw(
        st.fixed_dictionaries(
            {
                "policy": TEXTS,
                "version": st.sampled_from([0, 1, 2**62]),
                "time_us": st.sampled_from([0, START_US, START_US + 86_400_000_000]),
                "experiment": st.one_of(st.none(), TEXTS),
                "mode": st.one_of(st.none(), TEXTS),
                "preference": st.one_of(st.none(), st.dictionaries(TEXTS, FLOATS, max_size=3)),
            }
        )
    )
    own = st.fixed_dictionaries(
        {
            "observation": st.lists(FLOATS, min_size=n_features, max_size=n_features),
            "action": st.lists(FLOATS, min_size=n_actions, max_size=n_actions),
            "variant_propensity": st.sampled_from([1.0, 0.5, 1e-300]),
            "action_propensity": st.sampled_from([None, 0.0, -0.0, 0.5]),
            "session": st.one_of(st.none(), TEXTS),
            "step": st.sampled_from([None, 0, 7]),
            "unit": st.one_of(st.none(), TEXTS),
            "context": st.one_of(st.none(), st.dictionaries(TEXTS, st.one_of(st.none(), TEXTS, FLOATS), max_size=2)),
            "proposed_action": st.one_of(st.none(), st.lists(FLOATS, max_size=2)),
            "candidate": st.one_of(st.none(), TEXTS),
        }
    )
    names = draw(st.lists(TEXTS, min_size=1, max_size=5))
    return [decision(name, **shared, **draw(own)) for name in names]


def packed(records: Sequence[DecisionRecord], **changes: Any) -> bytes:
    """The records as one of the log."""
    common = {name: getattr(records[0], name) for name in DecisionCommon.__struct_fields__}
    columns = {column: [getattr(record, field) for record in records] for column, field in COLUMNS.items()}
    observations = np.array([record.observation for record in records], dtype=np.float64)
    actions = np.array([record.action for record in records], dtype=np.float64)
    columns |= {"n_features": observations.shape[1], "n_actions": actions.shape[1], **changes}
    return encode_batch(DecisionColumns(**columns), DecisionCommon(**common).encoded(), observations, actions)


@given(made_together())
def test_the_same_decisions_are_read_back(records: list[DecisionRecord]) -> None:
    payload = packed(records)
    assert is_batch(payload)
    assert repr(decode_batch(payload).records()) == repr(records)  # tells 0.0 from -0.0
    assert decisions_in(payload) == records == [one for record in records for one in decisions_in(encode(record))]


@given(st.lists(made_together(), max_size=4))
def test_the_rows_are_those_of_the_records(batches: list[list[DecisionRecord]]) -> None:
    together = batch_rows([decode_batch(packed(records)) for records in batches])
    one_by_one = decision_rows([record for records in batches for record in records])
    assert together.schema == one_by_one.schema
    assert repr(together.to_pylist()) == repr(one_by_one.to_pylist())
    together.validate(full=True)


def test_every_field_of_a_decision_has_its_place() -> None:
    own = {*COLUMNS.values(), "receipt_id", "observation", "action"}
    assert own | {*DecisionCommon.__struct_fields__} == {*DecisionRecord.__struct_fields__}
    assert {*COLUMNS, "n_features", "n_actions"} == {*DecisionColumns.__struct_fields__}


@given(st.data())
def test_what_is_cut_off_or_changed_is_refused_or_reads_the_same_length(data: st.DataObject) -> None:
    payload = packed([decision("a"), decision("b")])
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(InvalidInputError):
        decode_batch(payload[:cut])
    with pytest.raises(InvalidInputError):
        decode_batch(payload + b"\n")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"units": ["u"]}, "units has 1 entries for 2 decisions"),
        ({"n_features": 3}, "bytes of numbers; expected 64"),
        ({"variant_propensities": [0.0, 1.0]}, "not a batch of decisions"),
        ({"decision_ids": ["", "b"]}, "not a batch of decisions"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        decode_batch(packed([decision("a"), decision("b")], **changes))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        decode_batch(packed([decision("a", observation=[0.0, value])]))


@pytest.mark.parametrize(("n_features", "n_actions"), [(1, 1), (32, 4), (100_000, 100)])
def test_as_many_as_go_into_one_record_do(n_features: int, n_actions: int) -> None:
    names = [f"{place:0>64}" for place in range(rows_at_once(n_features, n_actions))]
    record = decision("a", observation=[0.1] * n_features, action=[1.0] * n_actions, session="s" * 64, unit="u" * 64)
    n = len(names)
    payload = encode_batch(
        DecisionColumns(
            decision_ids=names,
            variant_propensities=[1 / 3] * n,
            n_features=n_features,
            n_actions=n_actions,
            action_propensities=[-1 / 3] * n,
            sessions=[record.session] * n,
            units=[record.unit] * n,
            steps=[10**9] * n,
            proposed_actions=[[1 / 3] * min(n_actions, 4)] * n,
        ),
        DecisionCommon(**{name: getattr(record, name) for name in DecisionCommon.__struct_fields__}).encoded(),
        np.full((n, n_features), 0.1),
        np.full((n, n_actions), 1.0),
    )
    assert len(payload) <= MAX_RECORD_BYTES


def test_both_kinds_reach_bronze_once_and_what_is_not_ours_is_set_aside(tmp_path: Path) -> None:
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    mine = [decision(name, session="s", step=place) for place, name in enumerate("abc")]
    theirs = [decision("x", tenant="another")]
    broken = packed(mine, units=["one", "for", "three", "others"])
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append([packed(mine), encode(decision("d")), packed(theirs), broken, encode(decision("e"))])
        log.append([packed([decision("f")])])
        log.seal()
        log.append([packed([decision("g"), decision("h")])])
        waiting = verify_log(lake, wal).decisions
        assert (waiting.waiting, waiting.refused, waiting.exactly_once) == (8, 2, True)
        log.seal()
        assert Committer(lake, wal).run_once() == CommitReport(decisions=8, refused=2, segments=2)
        assert Committer(lake, wal).run_once() == CommitReport()
    found = lake.read("bronze.decisions").sort_by("decision_id")
    assert found.column("decision_id").to_pylist() == list("abcdefgh")
    expected = decision_rows([*mine, *map(decision, "defgh")])
    assert found.equals(pa.table(expected.columns, schema=found.schema))
    reasons = lake.read("quarantine.decisions").column("reason").to_pylist()
    assert sorted(reasons) == [
        "batch of decisions: units has 4 entries for 3 decisions",
        "tenant 'another' in a log of tenant 'default'",
    ]
