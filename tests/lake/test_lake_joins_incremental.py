"""The join of only what is new: whatever happens in between, it ends where a join of everything ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_join import Writer, naive
from support.lake_records import START_US, decision, outcome, wait_until

from rlaas.errors import LakeError
from rlaas.lake import (
    TABLES,
    DecisionRecord,
    JoinLoop,
    Lake,
    OutcomeRecord,
    join_outcomes,
    loop,
    rebuild,
    update_transitions,
)
from rlaas.lake.joining import changes, index, silver, updating
from rlaas.lake.rows import decision_rows

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
NOW_US = START_US + 3 * DAY_US

TIMES = st.builds(lambda day, time: START_US + day * DAY_US + time, st.integers(0, 2), st.integers(0, 3))
EVENTS = st.lists(
    st.one_of(
        st.builds(
            decision,
            st.sampled_from([f"d{number}" for number in range(7)]),
            policy=st.sampled_from(["p", "p", "q"]),
            session=st.sampled_from([None, "s", "s", "t"]),
            step=st.sampled_from([None, 0, 1, 2, 3]),
            time_us=TIMES,
            observation=st.lists(st.sampled_from([0.5, -1.0]), min_size=1, max_size=2),
            preference=st.sampled_from([None, {"a": 1.0}]),
            producer=st.sampled_from(["g", "h"]),
        ),
        st.builds(
            outcome,
            st.integers(0, 9999).map("r{}".format),
            st.sampled_from([f"d{number}" for number in range(9)]),
            outcome_id=st.sampled_from(["o0", "o1", "o2", "o3", "o4"]),
            revision=st.integers(0, 2),
            outcome=st.sampled_from([{"a": 1.0}, {"a": 2.0}, {"a": 1.0, "b": 0.0}]),
            received_us=TIMES,
            terminated=st.booleans(),
            truncated=st.booleans(),
        ),
    ),
    min_size=4,
    max_size=24,
    unique_by=lambda record: (
        record.receipt_id,
        record.producer if isinstance(record, DecisionRecord) else None,
    ),
)


class CrashError(Exception):
    """The process died here."""


@contextmanager
def dying(step: int) -> Iterator[list[int]]:
    """Die at the ``step``-th moment around a change of a table or of the index; gives the moments that were passed."""
    passed = [0]

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            for last in (False, True):
                if passed[0] == step:
                    raise CrashError
                passed[0] += 1
                if not last:
                    result = function(*args, **kwargs)
            return result

        return wrapped

    places = [(silver, "_append"), (silver, "_merge"), (Lake, "replace"), (index.KeyIndex, "add")]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in places:
            patch.setattr(owner, name, around(getattr(owner, name)))
        yield passed


def contents(lake: Lake) -> dict[str, list[Any]]:
    found = {}
    for name in ("silver.transitions", "quarantine.outcomes"):
        keys = [(column, "ascending") for column in TABLES[name].order_by]
        found[name] = lake.read(name).sort_by(keys).to_pylist()
    return found


def check(lake: Lake, made: list[DecisionRecord], seen: list[OutcomeRecord], watermark_us: int) -> None:
    """What is stored equals the join of all rows and the naive one of all records."""
    stored = contents(lake)
    full = join_outcomes(lake.read("bronze.decisions"), lake.read("bronze.outcomes"), orphan_before_us=watermark_us)
    keys = [(column, "ascending") for column in TABLES["silver.transitions"].order_by]
    assert stored["silver.transitions"] == full.transitions.sort_by(keys).to_pylist()
    keys = [(column, "ascending") for column in TABLES["quarantine.outcomes"].order_by]
    assert stored["quarantine.outcomes"] == full.refused.sort_by(keys).to_pylist()

    transitions, refused = naive(made, seen, watermark_us)
    assert {row["decision_id"] for row in stored["silver.transitions"]} == transitions.keys()
    for row in stored["silver.transitions"]:
        expected = transitions[row["decision_id"]]
        assert {name: row[name] for name in expected} == expected
    reasons = {row["receipt_id"]: row["reason"] for row in stored["quarantine.outcomes"]}
    assert reasons.keys() == refused.keys()
    assert all(refused[receipt] in reason for receipt, reason in reasons.items())


@given(events=EVENTS, plan=st.data())
@settings(max_examples=10, deadline=None)
def test_it_equals_the_join_of_everything_whatever_happens_in_between(tmp_path_factory, events, plan) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    writer = Writer(lake)
    waits_s = {"long": 1e9, "short": (NOW_US - START_US - DAY_US) / 1e6}
    update_transitions(lake, now_us=NOW_US)
    while events:
        count = plan.draw(st.integers(1, min(8, len(events))))
        batch, events = events[:count], events[count:]
        writer.add(
            [record for record in batch if isinstance(record, DecisionRecord)],
            [record for record in batch if isinstance(record, OutcomeRecord)],
        )
        wait_s = waits_s[plan.draw(st.sampled_from(["short", "short", "long"]))]
        happens = plan.draw(st.sampled_from(["update", "update", "die", "die", "nothing", "no index", "compaction"]))
        if happens == "no index":
            shutil.rmtree(Path(lake.root) / ".index")
        elif happens == "compaction":
            for name in ("bronze.decisions", "bronze.outcomes", "silver.transitions"):
                lake.compact(name)
        if happens == "die":
            with dying(plan.draw(st.integers(0, 9))) as passed:
                try:
                    update_transitions(lake, orphan_after_s=wait_s, now_us=NOW_US)
                except CrashError:
                    assert passed[0] < 10
        elif happens != "nothing":
            update_transitions(lake, orphan_after_s=wait_s, now_us=NOW_US)
    wait_s = waits_s[plan.draw(st.sampled_from(["short", "long"]))]
    watermark_us = NOW_US - round(wait_s * 1e6)
    rows = update_transitions(lake, orphan_after_s=wait_s, now_us=NOW_US)
    check(lake, writer.decisions, writer.outcomes, watermark_us)
    stored = contents(lake)
    assert rows == len(stored["silver.transitions"])
    assert rebuild(lake, orphan_after_s=wait_s, now_us=NOW_US) == rows
    assert contents(lake) == stored


def session(name: str, steps: int, time_us: int) -> list[DecisionRecord]:
    return [
        decision(f"{name}-{step}", session=name, step=step, time_us=time_us + step, observation=[float(step)])
        for step in range(steps)
    ]


def test_dying_at_every_moment_of_an_update_neither_loses_nor_doubles(tmp_path: Path) -> None:
    before = session("s", 3, START_US)
    first = [outcome("r0", "s-0"), outcome("orphan", "never"), outcome("r1", "s-1")]
    # A correction, the next step of a session, a step that ends up alone, an outcome that contradicts, late decision.
    after = [decision("s-3", session="s", step=3, time_us=START_US + DAY_US), decision("never", time_us=START_US)]
    then = [
        outcome("r0b", "s-0", revision=1, outcome={"a": 2.0}),
        outcome("r0c", "s-0", revision=1, outcome={"a": 3.0}),
        outcome("r2", "s-2", received_us=START_US + DAY_US),
        outcome("r3", "s-3"),
    ]
    step, died = 0, True
    while died:
        lake = Lake(tmp_path / str(step))
        writer = Writer(lake)
        writer.add(before, first)
        update_transitions(lake, now_us=NOW_US)
        assert lake.count("quarantine.outcomes") == 1
        writer.add(after, then)
        with dying(step) as passed:
            try:
                update_transitions(lake, now_us=NOW_US)
                died = False
            except CrashError:
                assert passed[0] == step
        assert update_transitions(lake, now_us=NOW_US) == 5
        check(lake, writer.decisions, writer.outcomes, NOW_US - HOUR_US)
        step += 1
    assert step == 9  # before and after: the index, the quarantine, the changed rows, the new ones


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with a day of history that was joined."""
    found = Lake(tmp_path)
    writer = Writer(found)
    for number in range(6):
        steps = session(f"s{number}", 4, START_US + number * 1000)
        seen = [outcome(f"r-{made.decision_id}", made.decision_id, received_us=made.time_us) for made in steps]
        writer.add(steps, seen)
    update_transitions(found, now_us=NOW_US)
    return found


def test_only_what_changed_is_read_and_written(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    rows_at = changes.rows_at

    def counting(where: Lake, spec: Any, delta: Any, column: str, times: list[int]) -> Any:
        rows = rows_at(where, spec, delta, column, times)
        asked.append((spec.name, rows.num_rows))
        return rows

    monkeypatch.setattr(updating, "rows_at", counting)
    monkeypatch.setattr(silver, "rows_at", counting)
    monkeypatch.setattr(Lake, "read", None)
    for number in range(3):
        writer = Writer(lake)
        writer.number = 100 + number
        writer.add(
            [decision(f"s1-{4 + number}", session="s1", step=4 + number, time_us=START_US + DAY_US + number)],
            [outcome(f"more{number}", f"s1-{4 + number}", received_us=START_US + DAY_US + number)],
        )
        assert update_transitions(lake, now_us=NOW_US) == 25 + number
    # The decision before the new one with its outcome, and the transition of that decision.
    assert (
        sorted(asked) == [("bronze.decisions", 1)] * 3 + [("bronze.outcomes", 1)] * 3 + [("silver.transitions", 1)] * 3
    )


def test_a_late_outcome_of_long_ago_rewrites_nothing(lake: Lake) -> None:
    writer = Writer(lake)
    writer.number = 100
    writer.add([decision("alone", time_us=START_US - 400 * DAY_US)])
    assert update_transitions(lake, now_us=NOW_US) == 24
    delta = lake.open("silver.transitions")
    assert delta is not None
    files = set(delta.file_uris())
    writer.add(outcomes=[outcome("late", "alone", received_us=NOW_US)])
    assert update_transitions(lake, now_us=NOW_US) == 25
    delta = lake.open("silver.transitions")
    assert delta is not None
    assert files < set(delta.file_uris())


def test_what_was_processed_stands_in_the_commit_of_the_rows(lake: Lake) -> None:
    delta = lake.open("silver.transitions")
    assert delta is not None
    marks = silver.read_marks(delta, "default")
    assert marks == silver.Marks(
        decisions=lake.version("bronze.decisions"),
        outcomes=lake.version("bronze.outcomes"),
        watermark_us=NOW_US - HOUR_US,
    )


def test_much_that_is_new_is_taken_in_parts(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "_MAX_ROWS", 2)
    writer = Writer(lake)
    writer.number = 100
    for number in range(4, 8):
        writer.add(session("s1", number + 1, START_US)[-1:], [outcome(f"of{number}", f"s1-{number}")])
    version = lake.version("silver.transitions")
    assert version is not None
    assert update_transitions(lake, now_us=NOW_US) == 28
    assert (lake.version("silver.transitions") or 0) > version + 2
    rows = [row for row in lake.read("silver.transitions").to_pylist() if row["session"] == "s1"]
    assert {row["step"]: row["next_observation"] for row in rows} == {
        step: [step + 1.0] if step < 7 else None for step in range(8)
    }


def test_a_log_that_expired_means_a_rebuild(lake: Lake) -> None:
    writer = Writer(lake)
    writer.number = 100
    writer.add([decision("x")], [outcome("rx", "x")])
    version = lake.version("bronze.outcomes")
    delta = lake.open("bronze.outcomes")
    assert delta is not None
    delta.create_checkpoint()
    (Path(lake.root) / "bronze" / "outcomes" / "_delta_log" / f"{version:020d}.json").unlink()
    assert update_transitions(lake, now_us=NOW_US) == 25


def test_files_that_were_vacuumed_mean_a_rebuild(lake: Lake) -> None:
    writer = Writer(lake)
    writer.number = 100
    writer.add([decision("x")], [outcome("rx", "x")])
    assert lake.compact("bronze.outcomes") > 0
    delta = lake.open("bronze.outcomes")
    assert delta is not None
    delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert update_transitions(lake, now_us=NOW_US) == 25


def test_days_that_bronze_no_longer_holds_survive_a_rebuild(lake: Lake, tmp_path: Path) -> None:
    kept = contents(lake)["silver.transitions"]
    shutil.rmtree(tmp_path / "bronze")
    Writer(lake).add([decision("x", time_us=NOW_US)], [outcome("rx", "x", received_us=NOW_US)])
    assert rebuild(lake, now_us=NOW_US) == 25
    assert contents(lake)["silver.transitions"][:-1] == kept


def test_a_rebuild_mends_a_table_that_is_wrong(lake: Lake) -> None:
    right = contents(lake)
    delta = lake.open("silver.transitions")
    assert delta is not None
    delta.delete("step = 2")
    delta.update(updates={"revision": "77"}, predicate="step = 1")
    assert update_transitions(lake, now_us=NOW_US) == 18  # nothing is new, so nothing is looked at
    assert rebuild(lake, now_us=NOW_US) == 24
    assert contents(lake) == right


def test_many_commits_of_others_are_not_looked_at_for_ever(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "_MAX_COMMITS", 3)
    other = Lake(lake.root, "other")
    versions = []
    for number in range(3):
        other.append_once("bronze.decisions", {"x": [(number + 1, lambda n=number: _row(n))]})
        update_transitions(lake, now_us=NOW_US)
        versions.append(lake.version("silver.transitions"))
    assert versions[0] == versions[1]
    assert versions[2] == (versions[1] or 0) + 1


def _row(number: int) -> Any:
    return decision_rows([decision(f"o{number}", tenant="other")])


def test_the_transitions_are_compacted_now_and_then(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "_COMPACT_EVERY", 4)
    writer = Writer(lake)
    writer.number = 100
    most = 0
    for number in range(12):
        writer.add([decision(f"x{number}")], [outcome(f"rx{number}", f"x{number}")])
        update_transitions(lake, now_us=NOW_US)
        delta = lake.open("silver.transitions")
        assert delta is not None
        most = max(most, len(delta.file_uris()))
    assert most <= 5
    assert lake.count("silver.transitions") == 36


def test_times_are_parted_at_the_widest_gaps() -> None:
    assert changes.time_ranges(np.array([5])) == [(5, 5)]
    assert changes.time_ranges(np.array([1, 2, 900_000])) == [(1, 900_000)]
    assert changes.time_ranges(np.array([1, 2, 9_000_000, 9_000_001])) == [(1, 2), (9_000_000, 9_000_001)]
    many = np.arange(100) * 10_000_000
    many[60:] += 5
    ranges = changes.time_ranges(many)
    assert len(ranges) == 32
    assert ranges[0][0] == 0
    assert ranges[-1][1] == many[-1]
    assert all(any(low <= time <= high for low, high in ranges) for time in many.tolist())


def test_the_join_runs_by_itself_and_gets_over_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    writer = Writer(lake)
    writer.add([decision("a")], [outcome("ra", "a")])
    with JoinLoop(lake, interval_s=0.01) as joins:
        wait_until(lambda: lake.count("silver.transitions") == 1)
        with monkeypatch.context() as broken:
            broken.setattr(loop, "update_transitions", _fails)
            wait_until(lambda: joins.last_error is not None)
            assert str(joins.last_error) == "not today"
        writer.add([decision("b")], [outcome("rb", "b")])
        wait_until(lambda: joins.last_error is None)
        wait_until(lambda: lake.count("silver.transitions") == 2)
        assert joins.flush() == 2
        assert joins.running
    assert not joins.running


def _fails(lake: Lake) -> int:
    raise LakeError("not today")
