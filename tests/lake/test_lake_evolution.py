"""Tables that were made before columns were added: they are read, appended to and replaced as any other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from support.lake_records import START_US, decision, decisions, outcome, outcomes

from rlaas.errors import LakeError
from rlaas.lake import Committer, Lake, WriteAheadLog, encode, update_transitions
from rlaas.lake.records import decode_decision
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.lake.schemas import TABLES, TableSpec, Within, table_spec

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


def _declared_as(monkeypatch: pytest.MonkeyPatch, table: str, **changes: Any) -> None:
    """Let a table be declared otherwise from now on."""
    spec = table_spec(table)
    kept = ("name", "schema", "partition_by", "order_by", "append_only", "within", "change_feed")
    monkeypatch.setitem(TABLES, table, TableSpec(**{**{name: getattr(spec, name) for name in kept}, **changes}))


def _schema(**fields: pa.Field | None) -> pa.Schema:
    """Columns of bronze.outcomes, some of them changed, taken away (None) or added."""
    held = {field.name: field for field in table_spec("bronze.outcomes").schema}
    return pa.schema([field for field in {**held, **fields}.values() if field is not None])


_WEIGHTS = pa.map_(pa.string(), pa.float32())


@pytest.mark.parametrize(
    ("column", "changes", "message"),
    [
        ("revision", {"schema": _schema(revision=pa.field("revision", pa.int32(), False))}, "holds int64, "),
        ("outcome", {"schema": _schema(outcome=pa.field("outcome", _WEIGHTS, False))}, "holds map<string, double>, "),
        ("policy", {"schema": _schema(policy=pa.field("policy", pa.string(), False))}, "may be null in the table"),
        ("producer", {"schema": _schema(producer=pa.field("producer", pa.string()))}, "may not be null in the table"),
        ("policy", {"schema": _schema(policy=None)}, "the table has it and the declaration does not"),
        ("new", {"schema": _schema(new=pa.field("new", pa.string(), False))}, "it is new and may not be null"),
        ("date", {"partition_by": ("tenant",)}, "is partitioned by tenant, date, declared is tenant"),
        ("revision", {"within": (Within("revision", at_least=1),)}, "is constrained to revision >= 0"),
    ],
)
def test_what_is_declared_never_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, changes: dict[str, Any], message: str
) -> None:
    lake = Lake(tmp_path)
    rows = outcome_rows([outcome("r", "d")])
    lake.append_once("bronze.outcomes", {"o": [(1, lambda: rows)]})
    version = lake.version("bronze.outcomes")
    _declared_as(monkeypatch, "bronze.outcomes", **changes)
    with pytest.raises(LakeError, match=f"table bronze.outcomes, column {column}: .*{message}") as caught:
        lake.append_once("bronze.outcomes", {"o": [(2, lambda: rows)]})
    assert caught.value.field == column
    assert lake.version("bronze.outcomes") == version


def test_what_is_added_comes_to_tables_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    _declared_as(monkeypatch, "bronze.outcomes", within=(), change_feed=False)
    rows = outcome_rows([outcome("r", "d")])
    lake.append_once("bronze.outcomes", {"o": [(1, lambda: rows)]})
    assert lake.version("bronze.outcomes") == 1
    _declared_as(
        monkeypatch,
        "bronze.outcomes",
        within=(Within("revision", at_least=0, at_most=9), Within("weight", above=0)),
        change_feed=True,
        schema=_schema(weight=pa.field("weight", pa.float64())),
    )
    before = lake.version("bronze.outcomes")
    delta = lake.open_or_create("bronze.outcomes")
    assert delta.metadata().configuration["delta.enableChangeDataFeed"] == "true"
    assert delta.metadata().configuration["delta.constraints.revision_within"] == "revision >= 0 AND revision <= 9"
    assert delta.metadata().configuration["delta.constraints.weight_within"] == "weight IS NULL OR weight > 0"
    assert delta.version() == before + 3
    assert lake.open_or_create("bronze.outcomes").version() == delta.version()  # once
    assert lake.read("bronze.outcomes", ["weight"]).column(0).to_pylist() == [None]
    heavy = rows.append_column("weight", pa.array([2.0]))
    assert lake.append_once("bronze.outcomes", {"o": [(2, lambda: heavy)]}) == 1


def test_a_new_constraint_that_old_rows_break_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    records = [outcome(f"r{n}", "d", revision=n) for n in range(5)]
    lake.append_once("bronze.outcomes", {"o": [(1, lambda: outcome_rows(records))]})
    _declared_as(monkeypatch, "bronze.outcomes", within=(Within("received_us", at_most=START_US - 1),))
    version = lake.version("bronze.outcomes")
    # The constraint of that name is another one: declared anew it would be refused as a change.
    with pytest.raises(LakeError, match="column received_us: the table is constrained to"):
        lake.open_or_create("bronze.outcomes")
    _declared_as(
        monkeypatch,
        "bronze.outcomes",
        within=(Within("schema_version", at_least=2),),
    )
    with pytest.raises(LakeError, match="schema_version: 5 rows break schema_version >= 2; mend or remove") as caught:
        lake.open_or_create("bronze.outcomes")
    assert caught.value.field == "schema_version"
    assert lake.version("bronze.outcomes") == version


def test_a_table_is_made_once(tmp_path: Path) -> None:
    ready = threading.Barrier(6)
    made: list[str] = []

    def make() -> None:
        ready.wait()
        made.append(str(Lake(tmp_path).open_or_create("bronze.decisions").metadata().id))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len(set(made)) == 1
    assert [one.operation for one in Lake(tmp_path).history("bronze.decisions")] == ["ADD CONSTRAINT", "CREATE TABLE"]
