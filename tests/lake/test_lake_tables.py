from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake.exceptions import CommitFailedError
from support.lake_records import START_US, decision, outcome

from rlaas.errors import ConfigurationError, InvalidInputError, LakeError, NotFoundError
from rlaas.lake import TABLES, Lake
from rlaas.lake.rows import date_of, decision_rows, outcome_rows

DAY_US = 86_400_000_000


def add(lake: Lake, number: int, *names: str, app_id: str = "app", **changes: object) -> int:
    records = [decision(name, tenant=lake.tenant, **changes) for name in names]
    return lake.append_once("bronze.decisions", {app_id: [(number, lambda: decision_rows(records))]})


def test_a_lake_without_data_reads_as_empty_tables(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for name, spec in TABLES.items():
        assert lake.read(name).schema == spec.schema
        assert (lake.count(name), lake.version(name)) == (0, None)
    assert lake.versions() == {}
    assert lake.compact("bronze.decisions") == 0
    assert not (tmp_path / "lake").exists()


def test_every_value_comes_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    full = decision(
        "full",
        preference={"b": 0.75, "a": 0.25},
        context={"country": "AT", "n": [1, 2]},
        session="s",
        step=2,
        unit="user-1",
        mode="normal",
        experiment="ab",
        action_propensity=-3.5,
        proposed_action=[2.0],
        candidate="policy@normal",
        observation=[],
    )
    lake.append_once("bronze.decisions", {"app": [(1, lambda: decision_rows([full, decision("bare")]))]})
    rows = {row["decision_id"]: row for row in lake.read("bronze.decisions").to_pylist()}
    assert rows["full"]["preference"] == [("a", 0.25), ("b", 0.75)]
    assert rows["full"]["context"] == '{"country":"AT","n":[1,2]}'
    assert rows["full"]["observation"] == []
    assert rows["full"]["date"] == "2023-11-14"
    for name in (
        "session",
        "step",
        "unit",
        "mode",
        "experiment",
        "action_propensity",
        "variant_propensity",
        "version",
        "proposed_action",
        "candidate",
    ):
        assert rows["full"][name] == getattr(full, name)
    assert {name for name, value in rows["bare"].items() if value is None} == {
        "experiment", "action_propensity", "proposed_action", "session", "step", "unit", "mode", "preference",
        "context", "candidate",
    }  # fmt: skip
    assert lake.read("bronze.decisions").schema == TABLES["bronze.decisions"].schema


def test_columns_filters_and_versions(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    add(lake, 1, "a", "b")
    add(lake, 2, "c", time_us=START_US + DAY_US)
    assert sorted(lake.read("bronze.decisions", columns=["decision_id"]).column(0).to_pylist()) == ["a", "b", "c"]
    later = lake.read("bronze.decisions", columns=["date", "decision_id"], filter=pc.field("date") > "2023-11-14")
    assert later.to_pylist() == [{"date": "2023-11-15", "decision_id": "c"}]
    version = lake.version("bronze.decisions")
    assert version == 3  # made, given its constraints, two appends
    assert lake.versions() == {"bronze.decisions": 3}
    assert lake.read("bronze.decisions", version=2).num_rows == 2
    assert lake.count("bronze.decisions") == 3
    with pytest.raises(NotFoundError, match="allowed: 0 to 3"):
        lake.read("bronze.decisions", version=4)
    with pytest.raises(NotFoundError, match="empty"):
        lake.read("bronze.outcomes", version=0)


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"bronze\.decisions, .*, gold\.<scenario>_training, .*quarantine\.dec"
    ):
        lake.read("gold.decisions")
    with pytest.raises(ConfigurationError, match="action_propensity"):
        lake.read("bronze.decisions", columns=["reward"])
    with pytest.raises(InvalidInputError, match="tenant"):
        Lake(tmp_path, "a'b")


def test_tenants_do_not_see_each_other(tmp_path: Path) -> None:
    acme, other = Lake(tmp_path, "acme"), Lake(tmp_path, "other")
    add(acme, 1, "a1", "a2", app_id="one")
    add(other, 1, "b", app_id="two")
    assert (acme.count("bronze.decisions"), other.count("bronze.decisions")) == (2, 1)
    assert other.read("bronze.decisions", columns=["decision_id"]).column(0).to_pylist() == ["b"]
    assert other.read("bronze.decisions", filter=pc.field("decision_id") == "a1").num_rows == 0


def test_a_part_is_appended_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert add(lake, 3, "a") == 1
    assert add(lake, 3, "a") == 0
    assert add(lake, 2, "older") == 0
    assert add(lake, 4, "b") == 1
    assert add(lake, 1, "c", app_id="another") == 1
    assert lake.count("bronze.decisions") == 3


def test_a_stale_snapshot_cannot_append_a_part_again(tmp_path: Path, monkeypatch) -> None:
    lake = Lake(tmp_path)
    stale = lake.open_or_create("bronze.decisions")
    add(lake, 1, "a")
    monkeypatch.setattr(lake, "open_or_create", lambda table: stale)
    with pytest.raises(CommitFailedError):
        add(lake, 1, "a")
    monkeypatch.undo()
    assert lake.count("bronze.decisions") == 1


def test_fsync_finds_the_files_of_the_commit(tmp_path: Path, monkeypatch) -> None:
    synced: list[str] = []
    real = __import__("os").fsync

    def fsync(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(tmp_path)))
        real(fd)

    lake = Lake(tmp_path)
    add(lake, 1, "before")
    monkeypatch.setattr("os.fsync", fsync)
    records = [outcome("r", "a"), outcome("s", "b", received_us=START_US + DAY_US)]
    lake.append_once("bronze.outcomes", {"app": [(1, lambda: outcome_rows(records))]}, fsync=True)
    data = {path for path in synced if path.endswith(".parquet")}
    assert {path.split("/")[3] for path in data} == {"date=2023-11-14", "date=2023-11-15"}
    assert "bronze/outcomes/_delta_log/00000000000000000002.json" in synced
    assert {"bronze/outcomes", "bronze/outcomes/_delta_log", "bronze/outcomes/tenant=default"} < set(synced)


def test_compaction_merges_files_and_changes_no_row(tmp_path: Path) -> None:
    lake, other = Lake(tmp_path), Lake(tmp_path, "other")
    for number in range(1, 6):
        add(lake, number, f"d{number}", preference={"a": 1.0})
    add(other, 1, "x", app_id="other")
    before = lake.read("bronze.decisions").sort_by("decision_id")
    assert lake.compact("bronze.decisions") == 4
    assert lake.read("bronze.decisions").sort_by("decision_id").equals(before)
    assert add(lake, 5, "d5") == 0
    assert lake.read("bronze.decisions", version=3).num_rows == 2
    assert other.count("bronze.decisions") == 1


def test_a_table_with_a_missing_file_is_damaged(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    add(lake, 1, "a")
    next(tmp_path.rglob("*.parquet")).unlink()
    with pytest.raises(LakeError, match=r"bronze\.decisions is damaged"):
        lake.read("bronze.decisions")


def test_rows_are_replaced_only_where_told(tmp_path: Path) -> None:
    acme, other = Lake(tmp_path, "acme"), Lake(tmp_path, "other")
    schema = TABLES["quarantine.outcomes"].schema

    def row(tenant: str, stage: str, receipt: str) -> dict[str, object]:
        return {
            "tenant": tenant, "stage": stage, "date": "2024-01-01", "time_us": 1, "producer": "p",
            "receipt_id": receipt, "reason": "why", "payload": b"{}",
        }  # fmt: skip

    def table(*rows: dict[str, object]) -> pa.Table:
        return pa.Table.from_pylist(list(rows), schema=schema)

    everything = table(row("acme", "join", "1"), row("acme", "commit", "2"), row("other", "join", "3"))
    acme.append_once("quarantine.outcomes", {"app": [(1, lambda: everything)]})
    where = "tenant = 'acme' AND stage = 'join'"
    acme.replace(acme.open_or_create("quarantine.outcomes"), table(row("acme", "join", "4")), where)
    assert sorted(acme.read("quarantine.outcomes").column("receipt_id").to_pylist()) == ["2", "4"]
    acme.replace(acme.open_or_create("quarantine.outcomes"), schema.empty_table(), where)
    assert acme.read("quarantine.outcomes").column("receipt_id").to_pylist() == ["2"]
    assert other.read("quarantine.outcomes").column("receipt_id").to_pylist() == ["3"]


def test_the_root_may_be_a_url(tmp_path: Path) -> None:
    lake = Lake(f"file://{tmp_path}/lake/")
    add(lake, 1, "a")
    assert lake.read("bronze.decisions", columns=["decision_id"]).to_pylist() == [{"decision_id": "a"}]
    assert Lake(tmp_path / "lake").count("bronze.decisions") == 1


def test_the_date_is_the_utc_day() -> None:
    assert [date_of(time) for time in (0, DAY_US - 1, DAY_US, 253_402_300_799_999_999)] == [
        "1970-01-01", "1970-01-01", "1970-01-02", "9999-12-31",
    ]  # fmt: skip


def test_a_process_that_read_a_table_ends_well(tmp_path: Path) -> None:
    # Reading through the filesystem that deltalake gives Arrow aborts a good third of such processes at exit.
    add(Lake(tmp_path), 1, "a")
    program = f"from rlaas.lake import Lake; print(Lake({str(tmp_path)!r}).read('bronze.decisions').num_rows)"
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
