"""Files in shape while others write: no row comes twice, none is lost, and there are few files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lake_records import START_US, decision

from rlaas.errors import ConfigurationError
from rlaas.lake import Lake, compaction, datafiles
from rlaas.lake.compaction import z_order
from rlaas.lake.lifecycle import MaintenancePlan, TableUpkeep, load_lake_plan
from rlaas.lake.maintenance import maintain
from rlaas.lake.rows import decision_rows

TABLE = "bronze.decisions"
HOUR_US = 3_600_000_000
NOW_S = START_US / 1e6


def add(lake: Lake, number: int, *, hours: int = 0, rows: int = 3, app_id: str = "app") -> None:
    time_us = START_US + hours * HOUR_US
    records = [
        decision(f"{app_id}{number}-{i}", time_us=time_us + i, session=f"s{i}", step=number, tenant=lake.tenant)
        for i in range(rows)
    ]
    lake.append_once(TABLE, {app_id: [(number, lambda: decision_rows(records))]})


def ids(lake: Lake) -> list[str]:
    return sorted(lake.read(TABLE, ["decision_id"]).column(0).to_pylist())


def before_the_commit(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Let something happen once, after the merged file is written and before the table is told."""
    real, done = compaction.exchange, []

    def exchange(*args: object, **options: object) -> bool:
        if not done:
            done.append(True)
            action()
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "exchange", exchange)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    for number in range(1, 5):
        add(found, number)
    return found


def test_two_overlapping_compactions_double_no_row(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    # deltalake's own do: see rlaas.lake.datafiles.
    wanted = ids(lake)
    before_the_commit(monkeypatch, lambda: Lake(lake.root).compact(TABLE))
    assert lake.compact(TABLE) == 0
    assert ids(lake) == wanted
    # What the slower one wrote is gone, and what the faster one left is read.
    assert len(list(Path(lake.root).rglob("*.zstd.parquet"))) == 1
    assert len(datafiles.live_files(DeltaTable(lake.location(TABLE)))) == 1


def test_an_append_in_between_succeeds_and_so_does_the_compaction(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ids(lake)
    before_the_commit(monkeypatch, lambda: add(lake, 9))
    assert lake.compact(TABLE) == 3
    assert ids(lake) == sorted([*wanted, "app9-0", "app9-1", "app9-2"])
    assert len(datafiles.live_files(DeltaTable(lake.location(TABLE)))) == 2


def test_a_commit_between_look_and_commit_is_seen(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    # The append comes after the state was looked at and before it is changed: the strict commit has to fail once.
    opened = []

    def open_table() -> DeltaTable:
        delta = DeltaTable(lake.location(TABLE))
        if not opened:
            add(lake, 9)
        opened.append(delta.version())
        return delta

    files = datafiles.live_files(DeltaTable(lake.location(TABLE)))
    assert datafiles.exchange(open_table, files, [], marks=[datafiles.Mark("mark", None, 1)])
    assert opened == [5, 6]
    assert ids(lake) == ["app9-0", "app9-1", "app9-2"]
    assert not datafiles.exchange(lambda: DeltaTable(lake.location(TABLE)), files, [])
    assert not datafiles.exchange(
        lambda: DeltaTable(lake.location(TABLE)), [], [], marks=[datafiles.Mark("mark", None, 2)]
    )


def test_writers_never_fail_while_files_are_merged(lake: Lake) -> None:
    failures: list[Exception] = []

    def write(app_id: str) -> None:
        try:
            for number in range(1, 9):
                add(lake, number, app_id=app_id)
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=write, args=(app_id,)) for app_id in ("one", "two")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        lake.compact(TABLE)
    for thread in threads:
        thread.join()
    assert failures == []
    found = ids(lake)
    assert len(found) == len(set(found)) == (4 + 8 + 8) * 3
    assert lake.changes(TABLE, -1, ["decision_id"]).num_rows == len(found)  # merging is no change


def test_small_files_stay_few_and_a_restart_repeats_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    plan = MaintenancePlan(tables={TABLE: TableUpkeep(z_order=("policy", "session"), max_small_files=6)})
    most = 0
    for number in range(1, 25):  # four days, a file every four hours
        add(lake, number, hours=number * 4)
        (report,) = maintain(Lake(tmp_path), plan, tables=[TABLE], now_s=NOW_S + number * 4 * 3600)
        most = max(most, report.files)
    assert most <= 6 + 4 + 1  # six small ones, one for each day that ended, the one just written
    assert lake.count(TABLE) == len(set(ids(lake))) == 72
    version = lake.version(TABLE)
    again = maintain(Lake(tmp_path), plan, tables=[TABLE], now_s=NOW_S + 96 * 3600)
    assert [(one.merged, one.sorted_days, one.checkpoint) for one in again] == [(0, 0, False)]
    assert lake.version(TABLE) == version
    # Sorted along the curve, rows of one session lie side by side.
    ended = lake.read(TABLE, ["session"], filter=pc.field("date") == "2023-11-15").column(0).to_pylist()
    assert ended == sorted(ended)


def test_only_files_that_no_version_needs_are_deleted(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = MaintenancePlan(tables={TABLE: TableUpkeep(keep_versions_h=2)})
    hours_ago = 3
    clock = datafiles.time.time_ns
    monkeypatch.setattr(datafiles.time, "time_ns", lambda: clock() - hours_ago * 3600 * 10**9)
    assert lake.compact(TABLE) == 3
    monkeypatch.undo()
    add(lake, 5)
    add(lake, 6)
    wanted = ids(lake)
    (report,) = maintain(lake, plan, tables=[TABLE], force=True)
    # Two files were merged by this run just now; four went out three hours ago.
    assert (report.deleted, report.files, report.checkpoint) == (4, 1, True)
    assert ids(lake) == wanted
    assert maintain(lake, plan, tables=[TABLE])[0].deleted == 0


def test_what_readers_skip_files_by_is_in_the_log(lake: Lake) -> None:
    lake.compact(TABLE)
    (add_action,) = pa.table(DeltaTable(lake.location(TABLE)).get_add_actions(flatten=True)).to_pylist()
    rows = lake.read(TABLE)
    assert add_action["num_records"] == rows.num_rows == 12
    for column in ("time_us", "session", "variant_propensity", "step"):
        assert add_action[f"min.{column}"] == pc.min(rows.column(column)).as_py()
        assert add_action[f"max.{column}"] == pc.max(rows.column(column)).as_py()
    assert add_action["null_count.mode"] == 12


def test_long_texts_and_nan_have_no_bounds() -> None:
    statistics = datafiles._Statistics()
    statistics.add(pa.table({"text": ["a" * 40, "b"], "number": [float("nan"), 1.0], "n": [3, None]}))
    statistics.add(pa.table({"text": ["c", "d"], "number": [2.0, 1.0], "n": pa.array([7, 9], pa.int64())}))
    said = json.loads(statistics.document())
    assert said["minValues"] == {"n": 3}
    assert said["maxValues"] == {"n": 9}
    assert said["nullCount"] == {"text": 0, "number": 0, "n": 1}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=30))
def test_the_curve_is_mortons(points: list[tuple[int, int]]) -> None:
    # With all eight values of both there, ranks are 1 to 8; a naive Morton code of the stretched ranks is the oracle.
    every = [*points, *((i, i) for i in range(8))]
    table = pa.table({"x": [x for x, _ in every], "y": [y for _, y in every]})

    def code(point: tuple[int, int]) -> int:
        x, y = ((value + 1) * (2**16 - 1) // 8 for value in point)
        bits = "".join(f"{a}{b}" for a, b in zip(f"{x:016b}", f"{y:016b}", strict=True))
        return int(bits, 2)

    wanted = np.argsort(np.array([code(point) for point in every], dtype=np.uint64), kind="stable")
    assert z_order(table, ["x", "y"]).tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "maintenance: {tables: {bronze.decisions: {z_order: [observation]}}}",
            r"unknown column 'observation' of bronze",
        ),
        ("maintenance: {tables: {bronze.nothing: {}}}", r"unknown table 'bronze\.nothing'; allowed: bronze\.decisions"),
        ("maintenance: {default: {keep_versions_h: 0}}", r"keep_versions_h: must be >= 1, got 0"),
        ("retention: {default: {hot_days: 400}}", r"ages must grow: hot_days 400 < warm_days 365"),
        ("retention: {tables: {silver.nothing: {}}}", r"unknown table 'silver\.nothing'"),
    ],
)
def test_a_plan_names_what_is_wrong_with_it(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_lake_plan(tmp_path / "plan.yaml")
