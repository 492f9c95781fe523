"""Rows move from place to place by their age; wherever a move stands or died, each is read once."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from support.lake_records import decision, outcome

from rlaas.errors import LakeError
from rlaas.lake import Lake, datafiles, retention, update_transitions
from rlaas.lake.archives import MOVE, archive_spec, read_across
from rlaas.lake.digest import in_order, rows_sha256
from rlaas.lake.lifecycle import Ages, RetentionPlan
from rlaas.lake.retention import Retained, retain
from rlaas.lake.rows import Refused, date_of, decision_rows, outcome_rows, refused_rows
from rlaas.lake.schemas import table_spec

TABLE = "bronze.decisions"
DAY_US = 86_400_000_000
TODAY = datetime.date(2026, 1, 1)
TODAY_US = int(datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC).timestamp() * 1e6)
PLAN = RetentionPlan(tables={TABLE: Ages(hot_days=30, warm_days=100, cold_days=200)})


def add(lake: Lake, number: int, *ages: int, rows: int = 3) -> None:
    records = [
        decision(f"d{age}-{number}-{i}", time_us=TODAY_US - age * DAY_US + i, context={"n": i}, tenant=lake.tenant)
        for age in ages
        for i in range(rows)
    ]
    lake.append_once(TABLE, {"app": [(number, lambda: decision_rows(records))]})


def hash_of(rows: pa.Table) -> str:
    return rows_sha256(in_order(table_spec(TABLE), rows))


def place(lake: Lake, name: str) -> DeltaTable:
    return DeltaTable(f"{lake.root}/archive/{name}/bronze/decisions")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    add(found, 1, 0, 29, 31, 40)
    add(found, 2, 40, 120)
    return found


def test_rows_go_where_their_age_belongs(lake: Lake, tmp_path: Path) -> None:
    add(lake, 3, 300)
    other = Lake(lake.root, "other")
    other.append_once(TABLE, {"o": [(1, lambda: decision_rows([decision("x", tenant="other", time_us=0)]))]})
    young = lake.read(TABLE, filter=pc.field("date") >= date_of(TODAY_US - 200 * DAY_US))
    assert retain(lake, PLAN, tables=[TABLE], today=TODAY) == [Retained(TABLE, to_warm=15, to_cold=6, removed=3)]
    assert lake.count(TABLE) == 6
    assert hash_of(read_across(lake, PLAN, TABLE)) == hash_of(young)
    assert other.count(TABLE) == 1
    assert retain(lake, PLAN, tables=[TABLE], today=TODAY) == [Retained(TABLE)]
    # Time goes on.
    later = TODAY + datetime.timedelta(days=75)
    assert retain(lake, PLAN, tables=[TABLE], today=later) == [Retained(TABLE, to_warm=6, to_cold=12, removed=0)]
    assert hash_of(read_across(lake, PLAN, TABLE)) == hash_of(young)
    some = read_across(lake, PLAN, TABLE, ["decision_id", "date"], pc.field("date") < "2025-11-25")
    assert some.column_names == ["decision_id", "date"]
    assert set(some.column("decision_id").to_pylist()) == {
        *(f"d40-{number}-{i}" for number in (1, 2) for i in range(3)),
        *(f"d120-2-{i}" for i in range(3)),
    }


def test_places_may_be_anywhere(lake: Lake, tmp_path: Path) -> None:
    plan = RetentionPlan(warm=str(tmp_path / "slow disk"), cold=f"file://{tmp_path}/glacier", tables=PLAN.tables)
    before = hash_of(lake.read(TABLE))
    retain(lake, plan, today=TODAY)
    assert DeltaTable(tmp_path / "slow disk" / "bronze" / "decisions").to_pyarrow_table().num_rows == 9
    assert DeltaTable(tmp_path / "glacier" / "bronze" / "decisions").to_pyarrow_table().num_rows == 3
    assert hash_of(read_across(lake, plan, TABLE)) == before


def test_an_append_only_table_stays_one_and_nobody_downstream_notices(lake: Lake) -> None:
    changes = lake.changes(TABLE, -1, ["decision_id"]).num_rows
    retain(lake, PLAN, today=TODAY)
    assert lake.changes(TABLE, -1, ["decision_id"]).num_rows == changes
    delta = lake.open(TABLE)
    assert delta is not None
    assert delta.metadata().configuration["delta.appendOnly"] == "true"
    with pytest.raises(Exception, match="append-only"):
        delta.delete("tenant = 'default'")
    assert [one.note for one in lake.history(TABLE, 3)] == ["moved to warm"] * 3
    # Until it is vacuumed, an older version shows what was there.
    assert lake.read(TABLE, version=delta.version() - 3).num_rows == 18


def test_rows_that_come_late_follow(lake: Lake) -> None:
    retain(lake, PLAN, today=TODAY)
    add(lake, 5, 40, 300)
    assert read_across(lake, PLAN, TABLE).num_rows == 18 + 6
    assert retain(lake, PLAN, today=TODAY)[-1] == Retained(TABLE, to_warm=6, to_cold=3, removed=3)
    found = read_across(lake, PLAN, TABLE).column("decision_id").to_pylist()
    assert len(found) == len(set(found)) == 18 + 3


class Died(BaseException):
    """A process that ends at this instant."""


@contextmanager
def dying_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[list[str]]:
    """Die before and after every write: of a file, of a commit, of a check."""
    steps: list[str] = []

    def wrapped(name: str, real: object) -> object:
        def call(*args: object, **options: object) -> object:
            for moment in ("before", "behind"):
                steps.append(f"{moment} {name}")
                if len(steps) > step:
                    raise Died(steps[-1])
                if moment == "before":
                    result = real(*args, **options)  # type: ignore[operator]
            return result

        return call

    with monkeypatch.context() as patch:
        for name in ("write_file", "exchange", "declared", "rows_sha256"):
            patch.setattr(retention, name, wrapped(name, getattr(retention, name)))
        patch.setattr(DeltaTable, "delete", wrapped("delete", DeltaTable.delete))
        yield steps


def test_a_run_may_die_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = 0
    while True:
        lake = Lake(tmp_path / str(step))
        add(lake, 1, 0, 120, rows=2)
        wanted = hash_of(lake.read(TABLE))
        with dying_at(monkeypatch, step) as steps:
            try:
                retain(lake, PLAN, today=TODAY)
            except Died:
                pass
            else:
                break
        assert hash_of(read_across(lake, PLAN, TABLE)) == wanted, steps
        retain(lake, PLAN, today=TODAY)
        assert hash_of(read_across(lake, PLAN, TABLE)) == wanted, steps
        assert lake.count(TABLE) == 2
        # What was copied in vain is thrown away a day later.
        with monkeypatch.context() as patch:
            now = time.time()
            patch.setattr(time, "time", lambda now=now: now + 25 * 3600)
            retain(lake, PLAN, today=TODAY)
        assert hash_of(read_across(lake, PLAN, TABLE)) == wanted, steps
        assert place(lake, "warm").to_pyarrow_table().num_rows == 0
        assert place(lake, "cold").to_pyarrow_table().num_rows == 2
        step += 1
    assert step >= 16
    assert {name.partition(" ")[2] for name in steps} == {"write_file", "exchange", "declared", "rows_sha256"}


_CHILD = """
import datetime, os, signal, sys
from deltalake import DeltaTable
from rlaas.lake import Lake, retention
from rlaas.lake.lifecycle import Ages, RetentionPlan
real, left = DeltaTable.create_write_transaction, int(sys.argv[2])
def commit(self, *args, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, *args, **options)
    if left == 1 and sys.argv[3] == "behind":
        os.kill(os.getpid(), signal.SIGKILL)
DeltaTable.create_write_transaction = commit
plan = RetentionPlan(tables={"bronze.decisions": Ages(hot_days=30, warm_days=100, cold_days=200)})
retention.retain(Lake(sys.argv[1]), plan, today=datetime.date(2026, 1, 1))
"""


@pytest.mark.parametrize(("commit", "moment"), [(1, "before"), (2, "before"), (3, "behind")])
def test_a_killed_process_loses_and_doubles_nothing(lake: Lake, commit: int, moment: str) -> None:
    wanted = hash_of(lake.read(TABLE))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, lake.root, str(commit), moment],
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert hash_of(read_across(lake, PLAN, TABLE)) == wanted
    retain(lake, PLAN, today=TODAY)
    assert hash_of(read_across(lake, PLAN, TABLE)) == wanted
    assert lake.count(TABLE) == 6


def test_a_copy_that_says_something_else_is_not_taken(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = retention.write_file

    def with_an_error(location: str, spec: object, batches: Iterator[pa.RecordBatch], *args: object, **options: object):
        changed = (
            batch.set_column(
                batch.schema.get_field_index("variant_propensity"),
                batch.schema.field("variant_propensity"),
                pa.array([0.25] * batch.num_rows),
            )
            for batch in batches
        )
        return real(location, spec, changed, *args, **options)  # type: ignore[arg-type]

    wanted = hash_of(lake.read(TABLE))
    monkeypatch.setattr(retention, "write_file", with_an_error)
    with pytest.raises(LakeError, match="differs from its rows; nothing moved"):
        retain(lake, PLAN, today=TODAY)
    assert hash_of(lake.read(TABLE)) == hash_of(read_across(lake, PLAN, TABLE)) == wanted
    assert place(lake, "warm").to_pyarrow_table().num_rows == 0


@pytest.mark.parametrize("meanwhile", ["compact", "retain", "append"])
def test_others_go_on_meanwhile(lake: Lake, monkeypatch: pytest.MonkeyPatch, meanwhile: str) -> None:
    real, done = retention.exchange, []

    def exchange(*args: object, **options: object) -> bool:
        # Right before rows leave the hot class for the first time.
        if options.get("marks") and not done:
            done.append(True)
            if meanwhile == "compact":
                assert lake.compact(TABLE) > 0
            elif meanwhile == "retain":
                retain(Lake(lake.root), PLAN, today=TODAY)
            else:
                add(lake, 9, 120)
        return real(*args, **options)  # type: ignore[arg-type]

    add(lake, 3, 120)
    monkeypatch.setattr(retention, "exchange", exchange)
    retain(lake, PLAN, today=TODAY)
    assert done
    found = read_across(lake, PLAN, TABLE).column("decision_id").to_pylist()
    assert len(found) == len(set(found)) == 21 + (3 if meanwhile == "append" else 0)
    assert lake.count(TABLE) == 6 + (3 if meanwhile == "append" else 0)


def test_a_transition_that_was_moved_and_made_again_is_read_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    old_us = TODAY_US - 40 * DAY_US
    lake.append_once(TABLE, {"d": [(1, lambda: decision_rows([decision("d", time_us=old_us)]))]})
    first = outcome("r1", "d", received_us=old_us, outcome={"latency": 1.0})
    lake.append_once("bronze.outcomes", {"o": [(1, lambda: outcome_rows([first]))]})
    assert update_transitions(lake) == 1
    plan = RetentionPlan(tables={TABLE: Ages(hot_days=50)})
    retain(lake, plan, today=TODAY)
    assert (lake.count("silver.transitions"), lake.count(TABLE)) == (0, 1)
    late = outcome("r2", "d", received_us=TODAY_US, outcome={"latency": 2.0}, revision=1)
    lake.append_once("bronze.outcomes", {"o": [(2, lambda: outcome_rows([late]))]})
    update_transitions(lake)
    for _ in range(2):
        found = read_across(lake, plan, "silver.transitions")
        assert found.column("outcome").to_pylist() == [[("latency", 2.0)]]
        assert found.schema == table_spec("silver.transitions").schema
        retain(lake, plan, today=TODAY)
    assert lake.count("silver.transitions") == 0


def test_an_archive_follows_the_declaration(lake: Lake) -> None:
    retain(lake, PLAN, today=TODAY)
    spec = archive_spec(table_spec(TABLE))
    assert [field.name for field in place(lake, "cold").schema().fields] == spec.schema.names
    assert place(lake, "cold").metadata().partition_columns == ["tenant", "date", MOVE]
    files = datafiles.live_files(place(lake, "warm"))
    assert {file.partition["tenant"] for file in files} == {"default"}


def test_rows_that_only_look_alike_are_all_read(tmp_path: Path) -> None:
    # What could not be read has no receipt; two of them may be refused in the same microsecond.
    lake = Lake(tmp_path)
    bad = [Refused(payload, "not JSON", "gateway", None) for payload in (b"one", b"two", b"two")]
    rows = refused_rows(bad, "default", TODAY_US - 40 * DAY_US)
    for number in (1, 2):
        lake.append_once("quarantine.decisions", {"q": [(number, lambda: rows)]})
        retain(lake, PLAN, today=TODAY)
    assert lake.count("quarantine.decisions") == 0
    found = read_across(lake, PLAN, "quarantine.decisions", ["payload"])
    assert sorted(found.column(0).to_pylist()) == [b"one"] * 2 + [b"two"] * 4


def test_a_lake_without_old_rows_is_left_alone(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert retain(lake, PLAN, today=TODAY) == []
    assert read_across(lake, PLAN, TABLE).num_rows == 0
    add(lake, 1, 0)
    version = lake.version(TABLE)
    assert retain(lake, PLAN, today=TODAY) == [Retained(TABLE)]
    assert lake.version(TABLE) == version
    assert not (tmp_path / "archive").exists()
