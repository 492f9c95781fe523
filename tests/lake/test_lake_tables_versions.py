"""Time travel, the change feed, and what a table refuses."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from support.lake_records import START_US, decision, outcome

from rlaas.errors import InvalidInputError, LakeError, NotFoundError
from rlaas.lake import Lake, update_transitions
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.lake.schemas import TABLES, table_spec

TABLE = "bronze.decisions"


def add(lake: Lake, number: int, *names: str) -> None:
    lake.append_once(TABLE, {"app": [(number, lambda: decision_rows([decision(name) for name in names]))]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    for number, name in enumerate("abcd", start=1):
        add(found, number, name)
    return found


def test_a_table_is_read_as_it_was(lake: Lake, tmp_path: Path) -> None:
    times = {one.version: one.time for one in lake.history(TABLE)}
    assert sorted(times) == [0, 1, 2, 3, 4, 5]
    for version, time in times.items():
        assert lake.read(TABLE, at=time).num_rows == max(version - 1, 0)
        assert lake.read(TABLE, at=time).num_rows == lake.read(TABLE, version=version).num_rows
    assert lake.read(TABLE, at=datetime.now(UTC)).num_rows == 4
    with pytest.raises(NotFoundError, match=r"bronze\.decisions did not exist at .*; it was made at"):
        lake.read(TABLE, at=times[0] - timedelta(milliseconds=1))
    # A lake that is copied has files of another time, and the same history.
    shutil.copytree(lake.root, tmp_path / "copy")
    assert Lake(tmp_path / "copy").read(TABLE, at=times[3]).num_rows == 2


def test_a_time_needs_its_offset_and_stands_alone(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match="has no offset; allowed: 2026-11-30T12:00:00"):
        lake.read(TABLE, at=datetime(2026, 1, 1))  # noqa: DTZ001 (that is what is refused)
    with pytest.raises(InvalidInputError, match="a version or a time, not both"):
        lake.read(TABLE, version=1, at=datetime.now(UTC))
    with pytest.raises(
        NotFoundError, match="bronze.outcomes has no state at 2026-01-01T00:00:00+00:00".replace("+", r"\+")
    ):
        lake.read("bronze.outcomes", at=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_log_that_was_cleaned_says_so(lake: Lake) -> None:
    delta = lake.open(TABLE)
    assert delta is not None
    first = lake.history(TABLE)[-1].time
    delta.create_checkpoint()
    log = Path(lake.root) / "bronze" / "decisions" / "_delta_log"
    for version in range(5):
        (log / f"{version:020d}.json").unlink()
    assert lake.read(TABLE).num_rows == 4
    with pytest.raises(LakeError, match="no longer reaches back to version 2"):
        lake.read(TABLE, version=2)
    with pytest.raises(LakeError, match="no longer reaches back to 20"):
        lake.read(TABLE, at=first)
    with pytest.raises(LakeError, match="changes behind version 1 cannot be read"):
        lake.changes(TABLE, 1)


def test_the_history_says_what_happened(lake: Lake) -> None:
    lake.compact(TABLE)
    newest, *_, constraints, made = lake.history(TABLE)
    assert (newest.version, newest.note) == (6, "compaction")
    assert (constraints.operation, made.operation) == ("ADD CONSTRAINT", "CREATE TABLE")
    assert [(one.files_added, one.rows_added) for one in lake.history(TABLE, 2)[1:]] == [(1, 1)]
    assert lake.history("bronze.outcomes") == []


def test_the_feed_gives_what_is_new(lake: Lake) -> None:
    lake.compact(TABLE)
    add(lake, 5, "e")
    found = lake.changes(TABLE, 3, ["decision_id"])
    assert sorted(found.column("decision_id").to_pylist()) == ["c", "d", "e"]
    assert set(found.column("_change_type").to_pylist()) == {"insert"}
    assert lake.changes(TABLE, 3, ["decision_id"], until_version=4).column("decision_id").to_pylist() == ["c"]
    assert lake.changes(TABLE, 7).num_rows == 0
    assert lake.changes(TABLE, 7).schema.names == lake.changes(TABLE, 2).schema.names
    assert Lake(lake.root, "other").changes(TABLE, -1).num_rows == 0
    with pytest.raises(NotFoundError, match="allowed: -1 to 7"):
        lake.changes(TABLE, 8)
    with pytest.raises(NotFoundError, match="it is empty"):
        lake.changes("silver.transitions", -1)


def test_the_feed_gives_what_changed(lake: Lake) -> None:
    seen = [outcome("r1", "a"), outcome("r2", "b")]
    lake.append_once("bronze.outcomes", {"o": [(1, lambda: outcome_rows(seen))]})
    update_transitions(lake)
    version = lake.version("silver.transitions")
    assert version is not None
    late = outcome("r3", "a", revision=1, outcome={"latency": 1.0})
    lake.append_once("bronze.outcomes", {"o": [(2, lambda: outcome_rows([late]))]})
    update_transitions(lake)
    found = lake.changes("silver.transitions", version, ["decision_id", "revision"])
    assert sorted(zip(*(found.column(n).to_pylist() for n in ("_change_type", "revision")), strict=True)) == [
        ("update_postimage", 1),
        ("update_preimage", 0),
    ]


def test_a_table_without_a_feed_says_so(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.open_or_create("quarantine.outcomes")
    with pytest.raises(LakeError, match="has no change feed"):
        lake.changes("quarantine.outcomes", -1)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("variant_propensity", 0.0),
        ("variant_propensity", 1.5),
        ("variant_propensity", float("nan")),
        ("time_us", -1),
        ("version", -1),
        ("step", -3),
    ],
)
def test_rows_out_of_range_are_refused_whole(lake: Lake, column: str, value: float) -> None:
    rows = decision_rows([decision("good"), decision("bad")])
    place = rows.schema.get_field_index(column)
    field = rows.schema.field(column)
    bad = rows.set_column(place, field, pa.array([rows.column(column)[0].as_py(), value], type=field.type))
    version = lake.version(TABLE)
    with pytest.raises(InvalidInputError, match=f"column {column} breaks .* in 1 of 2 rows") as caught:
        lake.append_once(TABLE, {"app": [(9, lambda: bad)]})
    assert caught.value.field == column
    # And by Delta itself, for whoever does not come through the lake.
    with pytest.raises(DeltaError, match="failed validation check"):
        write_deltalake(DeltaTable(lake.location(TABLE)), bad, mode="append")
    assert lake.version(TABLE) == version
    add(lake, 9, "e")  # the number was not used up
    assert lake.count(TABLE) == 5


def test_rows_of_another_shape_are_refused_by_column(lake: Lake) -> None:
    rows = decision_rows([decision("x")])
    step = rows.schema.get_field_index("step")
    cases = {
        r"has no column 'reward'": rows.append_column("reward", pa.array([1.0])),
        r"lack the column 'policy'": rows.drop_columns(["policy"]),
        r"column step is string; allowed: int64": rows.set_column(step, "step", pa.array(["1"])),
        r"column policy is null in 1 rows": rows.set_column(
            rows.schema.get_field_index("policy"), "policy", pa.array([None], type=pa.string())
        ),
    }
    for message, bad in cases.items():
        with pytest.raises(InvalidInputError, match=message):
            lake.append_once(TABLE, {"app": [(9, lambda bad=bad: bad)]})
    assert lake.count(TABLE) == 4


def test_rows_of_an_append_only_table_are_never_replaced(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match=r"bronze\.decisions is append-only"):
        lake.replace(lake.open_or_create(TABLE), decision_rows([decision("x")]), "tenant = 'default'")
    assert lake.count(TABLE) == 4


def test_a_constraint_of_an_operator_is_kept_too_and_no_row_is_shown(lake: Lake) -> None:
    lake.open_or_create(TABLE).alter.add_constraint({"own": "version < 4"})
    records = [decision("secret-id", version=4, time_us=START_US)]
    with pytest.raises(LakeError) as caught:
        lake.append_once(TABLE, {"app": [(9, lambda: decision_rows(records))]})
    assert "refused the rows" in caught.value.message
    assert "secret-id" not in caught.value.message


def test_every_table_declares_ranges_over_its_own_columns() -> None:
    for name in (*TABLES, "gold.some_training"):
        spec = table_spec(name)
        for within in spec.within:
            assert spec.schema.field(within.column)
            assert within.name == f"{within.column}_within"
