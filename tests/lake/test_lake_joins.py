from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_join import DECISIONS, OUTCOMES, WATERMARK_US, Writer, naive
from support.lake_records import START_US, decision, outcome

from rlaas.errors import LakeError
from rlaas.lake import TABLES, DecisionRecord, Lake, decode_outcome, join_outcomes, update_transitions
from rlaas.lake.rows import Refused, decision_rows, outcome_rows, refused_rows


@given(decisions=DECISIONS, outcomes=OUTCOMES, order=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_join_equals_a_naive_one_whatever_the_order(decisions, outcomes, order: random.Random) -> None:
    transitions, refused = naive(decisions, outcomes)
    order.shuffle(decisions)
    order.shuffle(outcomes)
    joined = join_outcomes(decision_rows(decisions), outcome_rows(outcomes), orphan_before_us=WATERMARK_US)
    rows = joined.transitions.to_pylist()
    assert len(rows) == len(transitions)
    for row in rows:
        expected = transitions[row["decision_id"]]
        assert {name: row[name] for name in expected} == expected
    assert joined.transitions.schema == TABLES["silver.transitions"].schema
    found = {row["receipt_id"]: row["reason"] for row in joined.refused.to_pylist()}
    assert found.keys() == refused.keys()
    assert all(refused[receipt] in reason for receipt, reason in found.items())
    by_receipt = {record.receipt_id: record for record in outcomes}
    for row in joined.refused.to_pylist():
        assert decode_outcome(row["payload"]) == by_receipt[row["receipt_id"]]


@given(decisions=DECISIONS, outcomes=OUTCOMES, cuts=st.data())
@settings(max_examples=6, deadline=None)
def test_the_tables_end_the_same_however_the_rows_trickle_in(tmp_path_factory, decisions, outcomes, cuts) -> None:
    now_us = WATERMARK_US + 1_000_000

    def contents(lake: Lake) -> list[Any]:
        return [
            lake.read(name).sort_by([(column, "ascending") for column in TABLES[name].order_by]).to_pylist()
            for name in ("silver.transitions", "quarantine.outcomes")
        ]

    at_once, trickled = (Lake(tmp_path_factory.mktemp("lake")) for _ in range(2))
    Writer(at_once).add(decisions, outcomes)
    rows = update_transitions(at_once, orphan_after_s=1.0, now_us=now_us)
    assert rows == at_once.count("silver.transitions") == len(naive(decisions, outcomes)[0])

    writer = Writer(trickled)
    for record in cuts.draw(st.permutations([*decisions, *outcomes])):
        writer.add(*([record], []) if isinstance(record, DecisionRecord) else ([], [record]))
        if cuts.draw(st.integers(0, 3)) == 0:
            update_transitions(trickled, orphan_after_s=1.0, now_us=now_us)
    update_transitions(trickled, orphan_after_s=1.0, now_us=now_us)
    assert contents(trickled) == contents(at_once)

    versions = trickled.versions()
    assert update_transitions(trickled, orphan_after_s=1.0, now_us=now_us) == rows
    assert trickled.versions() == versions  # nothing changed, so nothing was written


def test_a_correction_replaces_what_was_said_before(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = Writer(lake)
    writer.add([decision("d")], [outcome("r1", "d", revision=1, outcome={"latency": 1.0})])
    assert update_transitions(lake) == 1
    writer.add(outcomes=[outcome("r0", "d", revision=0, outcome={"latency": 9.0})])  # late: superseded already
    assert update_transitions(lake) == 1
    assert lake.read("silver.transitions").column("outcome").to_pylist() == [[("latency", 1.0)]]
    writer.add(outcomes=[outcome("r2", "d", revision=2, outcome={"latency": 2.0})])
    assert update_transitions(lake) == 1
    assert lake.read("silver.transitions").column("outcome").to_pylist() == [[("latency", 2.0)]]
    assert lake.count("quarantine.outcomes") == 0


def test_a_decision_without_an_outcome_is_no_transition_yet_but_gives_the_next_observation(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first = decision("d0", session="s", step=0, observation=[0.0])
    second = decision("d1", session="s", step=1, observation=[1.0])
    Writer(lake).add([first, second], [outcome("r", "d0")])
    assert update_transitions(lake) == 1
    assert lake.read("silver.transitions").column("next_observation").to_pylist() == [[1.0]]


def test_an_outcome_waits_for_its_decision_until_the_watermark(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = Writer(lake)
    writer.add(outcomes=[outcome("r", "d")])
    hour_us = 3_600_000_000
    assert update_transitions(lake, now_us=START_US + hour_us) == 0
    assert lake.count("quarantine.outcomes") == 0
    assert update_transitions(lake, now_us=START_US + hour_us + 1) == 0
    assert lake.read("quarantine.outcomes").column("reason").to_pylist() == ["no decision with this id"]
    writer.add([decision("d")])
    assert update_transitions(lake, now_us=START_US + 2 * hour_us) == 1
    assert lake.count("quarantine.outcomes") == 0


def test_what_the_committer_quarantined_stays(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    bad = [Refused(b"bad", "not an outcome", "gateway", None)]
    lake.append_once("quarantine.outcomes", {"o": [(1, lambda: refused_rows(bad, "default", START_US))]})
    Writer(lake).add(outcomes=[outcome("r", "d")])
    update_transitions(lake)
    update_transitions(lake)
    assert sorted(lake.read("quarantine.outcomes").column("stage").to_pylist()) == ["commit", "join"]


def test_a_tenant_is_updated_without_touching_the_others(tmp_path: Path) -> None:
    acme, other = Lake(tmp_path, "acme"), Lake(tmp_path, "other")
    for lake, app_id in ((acme, "a"), (other, "b")):
        made = [decision("d", tenant=lake.tenant)]
        seen = [outcome("r", "d", tenant=lake.tenant)]
        lake.append_once("bronze.decisions", {app_id: [(1, lambda made=made: decision_rows(made))]})
        lake.append_once("bronze.outcomes", {app_id: [(1, lambda seen=seen: outcome_rows(seen))]})
        assert update_transitions(lake) == 1
    acme_rows, other_rows = acme.read("silver.transitions"), other.read("silver.transitions")
    assert (acme_rows.column("tenant").to_pylist(), other_rows.column("tenant").to_pylist()) == (["acme"], ["other"])


@pytest.mark.parametrize("already", [False, True])
def test_an_update_that_was_overtaken_starts_again(tmp_path: Path, already: bool) -> None:
    lake = Lake(tmp_path)
    writer = Writer(lake)
    writer.add([decision("d0"), decision("d1"), decision("d2")], [outcome("r0", "d0")])
    if already:
        update_transitions(lake)

    class Overtaken(Lake):
        overtaken = False

        def open(self, table: str, **options: Any) -> Any:
            delta = super().open(table, **options)
            if table == "bronze.outcomes" and not self.overtaken:
                self.overtaken = True
                writer.add(outcomes=[outcome("r1", "d1"), outcome("r2", "d2")])
                assert update_transitions(lake) == 3
            return delta

    # The late one reads the outcomes of one decision; before it can write that, another update wrote those of three.
    late = Overtaken(lake.root)
    writer.add(outcomes=[outcome("r0-corrected", "d0", outcome={"latency": 0.0}, revision=1)])
    assert update_transitions(late) == 3
    assert late.overtaken
    rows = {row["decision_id"]: row["revision"] for row in lake.read("silver.transitions").to_pylist()}
    assert rows == {"d0": 1, "d1": 0, "d2": 0}


def test_updates_at_the_same_time_agree(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = Writer(lake)
    ids = [f"d{index}" for index in range(50)]
    writer.add([decision(name) for name in ids], [outcome(f"of-{name}", name) for name in ids])
    update_transitions(lake)
    writer.add(outcomes=[outcome("again", "d3", revision=1)])
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(update_transitions(Lake(lake.root)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [50] * 3
    assert lake.count("silver.transitions") == 50


def test_a_table_that_is_always_overtaken_is_an_error_of_the_lake(tmp_path: Path, monkeypatch) -> None:
    lake = Lake(tmp_path)
    Writer(lake).add([decision("d")], [outcome("r", "d")])

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise CommitFailedError("Concurrent transaction failed.")

    monkeypatch.setattr(lake, "replace", refuse)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(LakeError, match="5 commits refused"):
        update_transitions(lake)
