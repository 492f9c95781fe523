"""The join one row at a time, in plain Python, and what the join's tests draw from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from support.lake_records import START_US, decision, outcome

from rlaas.lake import DecisionRecord, Lake, OutcomeRecord
from rlaas.lake.rows import decision_rows, outcome_rows

WATERMARK_US = START_US + 5

DECISIONS = st.lists(
    st.builds(
        decision,
        st.sampled_from([f"d{index}" for index in range(8)]),
        policy=st.sampled_from(["p", "q"]),
        session=st.sampled_from([None, "s", "t"]),
        step=st.sampled_from([None, 0, 1, 2, 3, 2**62 - 1, 2**62]),
        time_us=st.integers(START_US, START_US + 6),
        observation=st.lists(st.floats(-1, 1), min_size=1, max_size=2),
        preference=st.sampled_from([None, {"a": 1.0}]),
    ),
    max_size=8,
    unique_by=lambda record: record.decision_id,
)
OUTCOMES = st.lists(
    st.builds(
        outcome,
        st.integers(0, 999).map("r{}".format),
        st.sampled_from([f"d{index}" for index in range(10)]),
        outcome_id=st.sampled_from(["o0", "o1", "o2", "o3", "o4"]),
        revision=st.integers(0, 2),
        outcome=st.sampled_from([{"a": 1.0}, {"a": 2.0}, {"a": 1.0, "b": 0.0}]),
        received_us=st.integers(START_US, START_US + 9),
        terminated=st.booleans(),
        truncated=st.booleans(),
    ),
    max_size=14,
    unique_by=lambda record: record.receipt_id,
)


def naive(
    decisions: Sequence[DecisionRecord], outcomes: Sequence[OutcomeRecord], watermark_us: int = WATERMARK_US
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The same join, one row at a time: transitions by decision and reasons by refused receipt."""
    by_id: dict[str, DecisionRecord] = {}
    for made in sorted(decisions, key=lambda record: (record.time_us, record.decision_id, record.producer)):
        by_id.setdefault(made.decision_id, made)
    refused: dict[str, str] = {}
    first: dict[tuple[str, int], OutcomeRecord] = {}
    latest: dict[str, OutcomeRecord] = {}
    at_revision: dict[tuple[str, int], OutcomeRecord] = {}
    for record in sorted(outcomes, key=lambda record: (record.received_us, record.receipt_id)):
        said = (record.outcome, record.terminated, record.truncated)
        earlier = first.setdefault((record.outcome_id, record.revision), record)
        if earlier is not record:
            if (earlier.decision_id, earlier.outcome, earlier.terminated, earlier.truncated) != (
                record.decision_id,
                *said,
            ):
                refused[record.receipt_id] = "with this id"
            continue
        if record.decision_id not in by_id:
            if record.received_us < watermark_us:
                refused[record.receipt_id] = "no decision"
            continue
        rival = at_revision.setdefault((record.decision_id, record.revision), record)
        if rival is not record:
            if (rival.outcome, rival.terminated, rival.truncated) != said:
                refused[record.receipt_id] = "of this decision"
            continue
        if record.decision_id not in latest or record.revision > latest[record.decision_id].revision:
            latest[record.decision_id] = record
    transitions = {}
    for name, last in latest.items():
        mine = by_id[name]
        following = [
            other
            for other in by_id.values()
            if mine.session is not None
            and mine.step is not None
            and (other.policy, other.session, other.step) == (mine.policy, mine.session, mine.step + 1)
        ]
        following.sort(key=lambda other: (other.time_us, other.decision_id))
        ended = last.terminated or last.truncated
        transitions[name] = {
            "time_us": mine.time_us,
            "session": mine.session,
            "step": mine.step,
            "policy": mine.policy,
            "observation": mine.observation,
            "preference": None if mine.preference is None else sorted(mine.preference.items()),
            "outcome": sorted(last.outcome.items()),
            "revision": last.revision,
            "terminated": last.terminated,
            "truncated": last.truncated,
            "next_observation": following[0].observation if following and not ended else None,
        }
    return transitions, refused


class Writer:
    """Appends records to bronze as the committer would."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.number = 0
        self.decisions: list[DecisionRecord] = []
        self.outcomes: list[OutcomeRecord] = []

    def add(self, decisions: Sequence[DecisionRecord] = (), outcomes: Sequence[OutcomeRecord] = ()) -> None:
        self.number += 1
        self.decisions += decisions
        self.outcomes += outcomes
        if decisions:
            self.lake.append_once("bronze.decisions", {"d": [(self.number, lambda: decision_rows(decisions))]})
        if outcomes:
            self.lake.append_once("bronze.outcomes", {"o": [(self.number, lambda: outcome_rows(outcomes))]})
