"""Named datasets: the same rows for ever, whatever becomes of the table."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from support.lake_records import START_US, decision

from rlaas.errors import ConfigurationError, ConflictError, InvalidInputError, LakeError, NotFoundError
from rlaas.lake import Lake, datasets
from rlaas.lake.dataset_diff import diff_datasets
from rlaas.lake.datasets import create_dataset, dataset, read_dataset, replace_datasets
from rlaas.lake.digest import in_order, rows_sha256
from rlaas.lake.distribution import column_shifts, stability_index
from rlaas.lake.lifecycle import MaintenancePlan, TableUpkeep
from rlaas.lake.maintenance import maintain
from rlaas.lake.rows import decision_rows
from rlaas.lake.schemas import table_spec

TABLE = "bronze.decisions"


def add(lake: Lake, number: int, *names: str, **changes: object) -> None:
    records = [
        decision(name, **{"time_us": START_US + int(name[1:]), "tenant": lake.tenant, **changes}) for name in names
    ]
    lake.append_once(TABLE, {"app": [(number, lambda: decision_rows(records))]})


def names_of(rows: pa.Table) -> list[str]:
    found: list[str] = rows.column("decision_id").to_pylist()
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    add(found, 1, "d3", "d1", session="a", step=1)
    add(found, 2, "d2", session="b", step=2, preference={"x": 1.0})
    return found


def test_the_rows_stay_when_the_table_goes_on(lake: Lake) -> None:
    made = create_dataset(lake, "first", TABLE, condition="step < 2 OR session = 'b'", note="the first days")
    rows = read_dataset(lake, "first")
    assert (made.rows, made.version, names_of(rows)) == (3, 3, ["d1", "d2", "d3"])
    assert rows.schema == table_spec(TABLE).schema
    add(lake, 3, "d4")
    plan = MaintenancePlan(tables={TABLE: TableUpkeep(keep_versions_h=1)})
    maintain(lake, plan, force=True)
    delta = lake.open(TABLE)
    assert delta is not None
    # Not even the files of the table are needed.
    delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert read_dataset(lake, "first").equals(rows)
    assert dataset(Lake(lake.root), "first") == made
    assert names_of(read_dataset(lake, "first", ["decision_id"])) == ["d1", "d2", "d3"]


def test_a_version_or_a_time_may_be_named(lake: Lake) -> None:
    before = lake.history(TABLE)[1].time
    assert create_dataset(lake, "by-version", TABLE, version=2).rows == 2
    assert create_dataset(lake, "by-time", TABLE, at=before).rows == 2
    assert create_dataset(lake, "newest", TABLE, columns=["decision_id", "step"]).columns == {
        "decision_id": "string",
        "step": "int64",
    }
    assert [one.name for one in datasets.datasets(lake)] == ["by-time", "by-version", "newest"]


def test_a_name_is_never_given_to_other_rows(lake: Lake) -> None:
    made = create_dataset(lake, "mine", TABLE)
    assert create_dataset(lake, "mine", TABLE) == made  # the very same rows: what there is
    with pytest.raises(ConflictError, match=r"mine is bronze\.decisions version 3, 3 rows .* choose another"):
        create_dataset(lake, "mine", TABLE, condition="step = 1")
    assert dataset(lake, "mine") == made


def test_of_many_who_want_a_name_one_gets_it(lake: Lake) -> None:
    got: list[str] = []
    refused: list[ConflictError] = []
    ready = threading.Barrier(6)

    def want(name: str) -> None:
        ready.wait()
        try:
            create_dataset(lake, "wanted", TABLE, condition=f"decision_id = '{name}'")
            got.append(name)
        except ConflictError as problem:
            refused.append(problem)

    threads = [threading.Thread(target=want, args=(f"d{1 + n % 3}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1
    assert len(got) + len(refused) == 6
    assert names_of(read_dataset(lake, "wanted")) == [got[0]]


def test_damage_is_found(lake: Lake) -> None:
    create_dataset(lake, "mine", TABLE)
    folder = Path(lake.root) / "datasets" / "default" / "mine"
    log = folder / "_delta_log" / f"{0:020d}.json"
    text = log.read_text()
    log.write_text(text.replace('\\"rows\\": 3', '\\"rows\\": 4'))
    with pytest.raises(LakeError, match="it was 4 rows"):
        read_dataset(lake, "mine")
    log.write_text(text)
    (data,) = folder.glob("*.parquet")
    data.unlink()
    with pytest.raises(LakeError, match="dataset mine is damaged"):
        read_dataset(lake, "mine")


def test_what_a_dead_writer_left_is_no_dataset(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(lake.root) / "datasets" / "default" / "half"
    folder.mkdir(parents=True)
    (folder / "part-0.parquet").write_bytes(b"half a file")
    assert datasets.datasets(lake) == []
    assert create_dataset(lake, "half", TABLE).rows == 3


def test_bad_questions(lake: Lake) -> None:
    with pytest.raises(InvalidInputError, match=r"is no condition over bronze\.decisions: .*nothing"):
        create_dataset(lake, "x", TABLE, condition="nothing = 1")
    with pytest.raises(InvalidInputError, match=r"no row of bronze\.decisions version 3 satisfies step > 9"):
        create_dataset(lake, "x", TABLE, condition="step > 9")
    with pytest.raises(NotFoundError, match="allowed: 0 to 3"):
        create_dataset(lake, "x", TABLE, version=9)
    with pytest.raises(NotFoundError, match=r"bronze\.outcomes is empty"):
        create_dataset(lake, "x", "bronze.outcomes")
    with pytest.raises(ConfigurationError, match="allowed: action, "):
        create_dataset(lake, "x", TABLE, columns=["reward"])
    with pytest.raises(InvalidInputError, match="not a plain name"):
        create_dataset(lake, "../x", TABLE)
    with pytest.raises(NotFoundError, match=r"unknown dataset 'x'; allowed: \(none\)"):
        read_dataset(lake, "x")
    assert not (Path(lake.root) / "datasets").exists()


def test_a_condition_cannot_reach_another_tenant(lake: Lake) -> None:
    other = Lake(lake.root, "other")
    other.append_once(TABLE, {"o": [(1, lambda: decision_rows([decision("d9", tenant="other")]))]})
    made = create_dataset(lake, "all", TABLE, condition="1 = 1) OR (1 = 1 OR tenant = 'other'")
    assert names_of(read_dataset(lake, "all")) == ["d1", "d2", "d3"]
    assert made.rows == 3
    assert datasets.datasets(other) == []


def test_who_is_erased_is_left_out_and_the_name_stays_taken(lake: Lake) -> None:
    add(lake, 3, "d4", session="gone")
    create_dataset(lake, "without", TABLE, condition="session <> 'gone'")
    made = create_dataset(lake, "with", TABLE)

    def matches(column: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.equal(column, pa.scalar("gone" if pa.types.is_string(column.type) else b"gone", column.type))

    found = [{"name": "with", "replaced_by": "with.1", "rows": 1}]
    assert replace_datasets(lake, matches, "a subject was erased") == found
    assert replace_datasets(lake, matches, "a subject was erased") == []
    assert names_of(read_dataset(lake, "with.1")) == ["d1", "d2", "d3"]
    assert dataset(lake, "with.1").replaces == "with"
    with pytest.raises(NotFoundError, match="no rows any more: a subject was erased"):
        read_dataset(lake, "with")
    with pytest.raises(ConflictError):
        create_dataset(lake, "with", TABLE)
    assert dataset(lake, "with").sha256 == made.sha256
    folder = Path(lake.root) / "datasets" / "default" / "with"
    assert [path.name for path in folder.iterdir()] == ["gone.json"]
    # The next one goes on counting, and one of whom nothing is left has no successor.
    assert replace_datasets(lake, lambda column: pc.equal(column, "d1") if pa.types.is_string(column.type) else
                            pa.array([False] * len(column)), "x")[0]["replaced_by"] == "with.2"  # fmt: skip


def test_a_difference_in_rows_and_columns(lake: Lake) -> None:
    create_dataset(lake, "left", TABLE, version=3)
    add(lake, 3, "d5", "d6", session="c", observation=[9.0, 9.0])
    create_dataset(lake, "right", TABLE, condition="decision_id <> 'd1'", columns=["decision_id", "time_us", "step"])
    found = diff_datasets(lake, "left", "right")
    assert (found.rows, found.added, found.removed, found.changed) == ((3, 4), 2, 1, 0)
    assert "session" in found.columns_removed
    assert (found.columns_added, found.types_changed) == ((), ())
    step = next(shift for shift in found.shifts if shift.column == "step")
    assert step.nulls == (0.0, 0.5)
    assert step.mean == (pytest.approx(4 / 3), 1.5)


def test_rows_that_changed_are_counted(lake: Lake) -> None:
    schema = table_spec("quarantine.outcomes").schema

    def put(reasons: list[str]) -> None:
        rows = [
            {
                "tenant": "default", "stage": "join", "date": "2024-01-01", "time_us": place, "producer": "p",
                "receipt_id": None, "reason": reason, "payload": b"",
            }
            for place, reason in enumerate(reasons)
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=schema)
        lake.replace(lake.open_or_create("quarantine.outcomes"), table, "tenant = 'default' AND stage = 'join'")

    put(["a", "b", "c"])
    create_dataset(lake, "one", "quarantine.outcomes")
    put(["a", "x", "c", "d"])
    create_dataset(lake, "two", "quarantine.outcomes")
    found = diff_datasets(lake, "one", "two")
    assert (found.added, found.removed, found.changed) == (1, 0, 1)


def test_the_index_is_the_jeffreys_divergence() -> None:
    left, right = np.array([10, 20, 0, 5]), np.array([1, 30, 7, 5])
    p, q = left + 0.5, right + 0.5
    assert stability_index(left, right) == pytest.approx(entropy(p, q) + entropy(q, p))
    assert stability_index(left, left) == 0.0


def test_shifts_of_every_kind_of_column() -> None:
    rng = np.random.default_rng(3)

    def table(shift: float, variant: str, count: int) -> pa.Table:
        return pa.table(
            {
                "x": rng.normal(shift, 1, count),
                "same": np.arange(count) % 7,
                "variant": [variant] * count,
                "id": [f"{variant}-{i}" for i in range(count)],
                "flag": [i % 2 == 0 for i in range(count)],
                "list": pa.array([[1.0, shift]] * count),
                "map": pa.array([[("a", shift)]] * count, type=pa.map_(pa.string(), pa.float64())),
            }
        )

    same = {shift.column: shift.psi for shift in column_shifts(table(0, "a", 4000), table(0, "a", 4000))}
    assert max(same.values()) < 0.02
    moved = {shift.column: shift for shift in column_shifts(table(0, "a", 4000), table(1, "b", 4000))}
    assert moved["x"].psi > 0.25
    assert (moved["list[1]"].psi > 1, moved["map.a"].psi > 1, moved["variant"].psi > 1) == (True, True, True)
    assert max(moved[name].psi for name in ("same", "flag", "list[0]", "id")) < 0.02
    assert moved["x"].quantiles[0] == pytest.approx(np.quantile(rng.normal(0, 1, 4000), (0.05, 0.5, 0.95)), abs=0.2)


_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=3),
            "number": st.none() | st.floats(),
            "count": st.none() | st.integers(-5, 5),
            "list": st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
            "map": st.none() | st.lists(st.tuples(st.sampled_from("ab"), st.floats(allow_nan=False)), max_size=2),
            "flag": st.none() | st.booleans(),
            "bytes": st.none() | st.binary(max_size=3),
        }
    ),
    min_size=1,
    max_size=6,
)
_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("number", pa.float64()),
        ("count", pa.int64()),
        ("list", pa.list_(pa.float64())),
        ("map", pa.map_(pa.string(), pa.float64())),
        ("flag", pa.bool_()),
        ("bytes", pa.binary()),
    ]
)


_Rows = list[dict[str, object]]


@settings(max_examples=40, deadline=None)
@given(_ROWS, _ROWS, st.integers(0, 5))
def test_the_hash_is_of_the_rows_alone(rows: _Rows, others: _Rows, cut: int) -> None:
    table, other = pa.Table.from_pylist(rows, schema=_SCHEMA), pa.Table.from_pylist(others, schema=_SCHEMA)
    # However they are cut, and whatever lies around them in memory.
    parts = pa.concat_tables([other, table.slice(0, cut), table.slice(cut), other])
    assert rows_sha256(parts.slice(len(others), len(rows))) == rows_sha256(table)

    def written(values: _Rows) -> str:
        return hashlib.sha256(json.dumps([{k: repr(v) for k, v in row.items()} for row in values]).encode()).hexdigest()

    assert (rows_sha256(table) == rows_sha256(other)) == (written(rows) == written(others))


def test_the_order_is_of_the_rows_alone() -> None:
    spec = table_spec(TABLE)
    rows = decision_rows([decision(f"d{n}", time_us=n // 3, session=f"s{n % 2}") for n in range(12)])
    mixed = rows.take(pa.array(np.random.default_rng(1).permutation(12)))
    assert in_order(spec, mixed).equals(in_order(spec, rows))
    assert in_order(spec, mixed).column("time_us").to_pylist() == sorted(rows.column("time_us").to_pylist())
