"""Tables that were made before columns were added: they are read, appended to and replaced as any other."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from support.lake_records import START_US, decision, decisions, outcomes

from rlaas.lake import Committer, Lake, WriteAheadLog, encode, update_transitions
from rlaas.lake.records import decode_decision
from rlaas.lake.rows import decision_rows
from rlaas.lake.schemas import table_spec

ADDED = ("proposed_action", "candidate")


def _old(lake: Lake, table: str, rows: pa.Table | None = None) -> None:
    """The table as it was made before it had the added columns."""
    spec = table_spec(table)
    schema = pa.schema([field for field in spec.schema if field.name not in ADDED])
    delta = DeltaTable.create(
        f"{lake.root}/{spec.path}",
        schema=schema,
        partition_by=list(spec.partition_by),
        name=spec.name,
        configuration=spec.configuration,
    )
    if rows is not None:
        write_deltalake(delta, rows.drop_columns(list(ADDED)), mode="append")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    _old(found, "bronze.decisions", decision_rows([decision("old0"), decision("old1")]))
    _old(found, "silver.transitions")
    return found


def test_an_old_table_is_read_with_nulls_and_left_as_it_is(lake: Lake) -> None:
    rows = lake.read("bronze.decisions")
    assert rows.schema == table_spec("bronze.decisions").schema
    assert rows.column("proposed_action").to_pylist() == [None, None]
    assert lake.version("bronze.decisions") == 1
    assert lake.count("bronze.decisions") == 2


def test_the_committer_appends_to_it_and_the_join_goes_on(lake: Lake, tmp_path: Path) -> None:
    wal = tmp_path / "wal"
    shielded = encode(decision("new", proposed_action=[3.0], action=[0.0], candidate="c", time_us=START_US + 9))
    with WriteAheadLog(wal, "decisions", "gateway") as log, WriteAheadLog(wal, "outcomes", "gateway") as other:
        log.append([shielded, *decisions("more", 2)])
        other.append(outcomes("r", ["old0", "new", "more1"]))
    Committer(lake, wal).run_once()
    rows = {row["decision_id"]: row for row in lake.read("bronze.decisions").to_pylist()}
    assert {name: (row["proposed_action"], row["candidate"]) for name, row in rows.items()} == {
        "old0": (None, None),
        "old1": (None, None),
        "more0": (None, None),
        "more1": (None, None),
        "new": ([3.0], "c"),
    }
    assert update_transitions(lake) == 3
    joined = {row["decision_id"]: row for row in lake.read("silver.transitions").to_pylist()}
    assert {name: row["proposed_action"] for name, row in joined.items()} == {
        "old0": None,
        "new": [3.0],
        "more1": None,
    }
    version = lake.version("silver.transitions")
    assert update_transitions(lake) == 3
    assert lake.version("silver.transitions") == version  # nothing new, nothing written
    assert lake.read("bronze.decisions", version=1).num_rows == 2
    assert lake.compact("bronze.decisions") > 0
    assert lake.read("bronze.decisions").num_rows == 5


def test_a_record_of_before_is_still_decoded() -> None:
    payload = encode(decision("d")).replace(b'"proposed_action":null,', b"").replace(b',"candidate":null', b"")
    assert b"proposed" not in payload
    assert b"candidate" not in payload
    assert decode_decision(payload) == decision("d")


def test_several_writers_may_find_it_old_at_once(lake: Lake) -> None:
    ready = threading.Barrier(4)
    failures: list[Exception] = []

    def append(name: str) -> None:
        ready.wait()
        for _ in range(20):
            try:
                lake.append_once("bronze.decisions", {name: [(1, lambda: decision_rows([decision(name)]))]})
            except CommitFailedError:  # what the committer does too
                continue
            except Exception as problem:
                failures.append(problem)
            return

    threads = [threading.Thread(target=append, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(lake.read("bronze.decisions").column("decision_id").to_pylist()) == [
        "a",
        "b",
        "c",
        "d",
        "old0",
        "old1",
    ]
