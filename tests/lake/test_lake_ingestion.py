"""Files into bronze: every row once, whatever the format, the batches and the crashes; bad rows in quarantine."""

from __future__ import annotations

import csv
import gzip
import json
import multiprocessing
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import ingestion_children
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq
from support.local_ray import started_ray
from support.processes import RLAAS, environment

from rlaas.errors import ConfigurationError, InvalidInputError, LakeError, NotFoundError
from rlaas.lake import Lake
from rlaas.lake.ingestion import (
    RowMapping,
    files_below,
    ingest_distributed,
    ingest_file,
    ingest_files,
    load_mapping,
)
from rlaas.lake.ingestion.once import FencedError, Span, append_spans, committed_positions
from rlaas.lake.ingestion.readers import read_items
from rlaas.lake.privacy import protected_lake
from rlaas.lake.schemas import table_spec
from rlaas.settings import load_settings

START_S = 1_700_000_000
CONSTANTS = {
    "scenario": "network5g",
    "policy": "old",
    "version": 1,
    "variant": "champion",
    "variant_propensity": 1.0,
    "generation": 0,
}
MAPPING = RowMapping(
    time="s",
    columns={
        "decision_id": "id",
        "time_us": "ts",
        "observation": ("load", "users"),
        "action": ("power",),
        "preference": {"latency": "w1", "energy": "w2"},
        "session": "meta.run",
    },
    constants=CONSTANTS,
)
ROWS = [
    {
        "id": f"d{i}",
        "ts": START_S + i,
        "load": i / 8,
        "users": i,
        "power": -0.5,
        "w1": 0.25,
        "w2": 0.75,
        "meta": {"run": "r1"},
    }
    for i in range(10)
]
FLAT = [{**{k: v for k, v in row.items() if k != "meta"}, "meta.run": row["meta"]["run"]} for row in ROWS]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: list[Any], opened: Any = open) -> None:
    with opened(path, "wt") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def write(path: Path) -> Path:
    """The same rows, in the format of the file's name."""
    if path.suffix == ".csv":
        write_csv(path, FLAT)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=4)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS, indent=1))
    else:
        write_lines(path, ROWS, gzip.open if path.suffix == ".gz" else open)
    return path


def event_lines(path: Path, count: int, name: str = "e") -> Path:
    write_lines(
        path,
        [
            {"event_id": f"{name}{i}", "kind": "load", "time_us": START_S * 10**6 + i, "entity": f"c{i % 3}", "load": i}
            if i % 10 != 7
            else "{broken"
            for i in range(count)
        ],
    )
    return path


def event_ids(lake: Lake) -> list[str]:
    return sorted(lake.read("bronze.events", ["event_id"]).column("event_id").to_pylist())


def check_once(lake: Lake, count: int, name: str = "e") -> None:
    """Every row of :func:`event_lines` is in its table once."""
    assert event_ids(lake) == sorted(f"{name}{i}" for i in range(count) if i % 10 != 7)
    bad = lake.read("quarantine.events").to_pylist()
    assert sorted(int(row["receipt_id"].rpartition(":")[2]) for row in bad) == list(range(7, count, 10))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.ndjson.gz", "a.json"])
@pytest.mark.parametrize("batch_rows", [3, 100])
def test_a_file_is_the_same_decisions_in_every_format(tmp_path: Path, name: str, batch_rows: int) -> None:
    lake = Lake(tmp_path / "lake")
    report = ingest_file(lake, write(tmp_path / name), "decisions", MAPPING, batch_rows=batch_rows)
    assert (report.rows, report.refused, report.skipped, report.complete) == (10, 0, 0, False)
    rows = sorted(lake.read("bronze.decisions").to_pylist(), key=lambda row: row["time_us"])
    assert [row["decision_id"] for row in rows] == [f"d{i}" for i in range(10)]
    for i, row in enumerate(rows):
        assert (row["receipt_id"], row["time_us"]) == (row["decision_id"], (START_S + i) * 1_000_000)
        assert (row["observation"], row["action"]) == ([i / 8, i], [-0.5])
        assert (dict(row["preference"]), row["session"]) == ({"latency": 0.25, "energy": 0.75}, "r1")
        assert (row["tenant"], row["producer"], row["date"]) == ("default", f"file:{name}", "2023-11-14")
    assert lake.version("quarantine.decisions") is None


def test_a_file_is_ingested_once_whatever_it_is_called(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    first = event_lines(tmp_path / "a.jsonl", 25)
    copy = tmp_path / "b.jsonl"
    copy.write_bytes(first.read_bytes())
    assert ingest_file(lake, first, "events", batch_rows=10).rows == 23
    versions = lake.versions()
    for path in (first, copy):
        again = ingest_file(lake, path, "events", batch_rows=4)
        assert (again.rows, again.refused, again.skipped, again.complete) == (0, 0, 25, True)
    assert lake.versions() == versions
    check_once(lake, 25)
    assert ingest_file(lake, event_lines(tmp_path / "c.jsonl", 11, "f"), "events").rows == 10


def test_bad_rows_say_file_row_and_reason_and_keep_what_they_held(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    good = FLAT[0]
    rows = [good, {**good, "ts": "noon"}, {**good, "load": "x"}, {**good, "w1": ""}, {**good, "id": ""}]
    path = tmp_path / "a.csv"
    write_csv(path, rows)
    with path.open("ab") as file:
        file.write(b"1,2\n\xff\xfe,1,2,3,4,5,6,7\n")
    report = ingest_file(lake, path, "decisions", MAPPING)
    assert (report.rows, report.refused) == (2, 5)
    found = {row["receipt_id"].rpartition(":")[2]: row for row in lake.read("quarantine.decisions").to_pylist()}
    assert {at: row["reason"] for at, row in found.items()} == {
        "1": "a.csv row 1: time_us is 'noon', which is no time in s",
        "2": "a.csv row 2: Expected `float`, got `str` - at `$.observation[0]`",
        "4": "a.csv row 4: Object missing required field `decision_id`",
        "5": "a.csv row 5: 2 values, the header has 8",
        "6": found["6"]["reason"],
    }
    assert found["6"]["reason"].startswith("a.csv row 6: ")
    assert json.loads(found["2"]["payload"])["load"] == "x"
    assert {(row["stage"], row["producer"]) for row in found.values()} == {("ingest", "file:a.csv")}


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [{**ROWS[0], "load": value} for value in (0.5, float("nan"), float("inf"), None)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    report = ingest_file(lake, tmp_path / "a.parquet", "decisions", MAPPING)
    assert (report.rows, report.refused) == (1, 3)
    reasons = lake.read("quarantine.decisions", ["reason"]).column("reason").to_pylist()
    assert all("Expected `float`, got `null` - at `$.observation[0]`" in reason for reason in reasons)


def test_rows_of_another_tenant_are_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", "acme")
    rows = [{"kind": "k", "time_us": 1, **more} for more in ({}, {"tenant": "acme"}, {"tenant": "other"})]
    write_lines(tmp_path / "a.jsonl", rows)
    assert ingest_file(lake, tmp_path / "a.jsonl", "events").rows == 2
    (bad,) = lake.read("quarantine.events").to_pylist()
    assert (bad["tenant"], bad["reason"]) == ("acme", "a.jsonl row 2: tenant is 'other'; this lake is of 'acme'")


def test_what_nothing_names_becomes_values_and_attributes(tmp_path: Path) -> None:
    row = {"kind": "k", "time_us": 1, "cell": {"id": "c1"}, "load": 2, "up": True, "note": "x", "list": [1], "no": None}
    write_lines(tmp_path / "a.jsonl", [row])
    (tmp_path / "b.csv").write_text("kind,time_us,load,note\nk,1,0.5,x\n")
    lake = Lake(tmp_path / "lake")
    mapping = RowMapping(columns={"entity": "cell.id"})
    ingest_files(lake, [tmp_path / "a.jsonl", tmp_path / "b.csv"], "events", mapping)
    found = {r["source"]: r for r in lake.read("bronze.events").to_pylist()}
    assert (found["a.jsonl"]["entity"], dict(found["a.jsonl"]["values"])) == ("c1", {"load": 2.0})
    assert json.loads(found["a.jsonl"]["attributes"]) == {"up": True, "note": "x", "list": [1]}
    assert (dict(found["b.csv"]["values"]), found["b.csv"]["attributes"]) == ({"load": 0.5}, '{"note":"x"}')
    drop = RowMapping(rest="drop", columns={"values": {"l": "load"}, "attributes": "cell"})
    other = Lake(tmp_path / "other")
    ingest_file(other, tmp_path / "a.jsonl", "events", drop)
    (event,) = other.read("bronze.events").to_pylist()
    assert (dict(event["values"]), event["attributes"]) == ({"l": 2.0}, '{"id":"c1"}')


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1_700_000_000_123_457, "us", 1_700_000_000_123_457),
        ("1700000000123457", "us", 1_700_000_000_123_457),
        (1_700_000_000.25, "s", 1_700_000_000_250_000),
        ("1700000000250", "ms", 1_700_000_000_250_000),
        (1_700_000_000_000_001_000, "ns", 1_700_000_000_000_001),
        ("2023-11-14T23:13:20+01:00", "iso", 1_700_000_000_000_000),
        ("2023-11-14T22:13:20", "iso", 1_700_000_000_000_000),
    ],
)
def test_times_have_units(tmp_path: Path, value: Any, unit: Any, expected: int) -> None:
    lake = Lake(tmp_path / "lake")
    write_lines(tmp_path / "a.jsonl", [{"kind": "k", "at": value}])
    ingest_file(lake, tmp_path / "a.jsonl", "events", RowMapping(time=unit, columns={"time_us": "at"}))
    assert lake.read("bronze.events", ["time_us"]).column("time_us").to_pylist() == [expected]


def test_a_mapping_that_fits_no_row_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    path = write(tmp_path / "a.jsonl")
    message = r"none of its first 10 rows can be read as decisions: a\.jsonl row 0: .*missing.*; name the columns"
    with pytest.raises(InvalidInputError, match=message):
        ingest_file(lake, path, "decisions")
    assert lake.versions() == {}
    assert ingest_file(lake, path, "decisions", MAPPING).rows == 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"a": 1}, {"a"', "not JSON in row 1"),
        ("a.json", b'[{"a": 1} oops]', "not JSON in row 1"),
        ("a.jsonl.gz", gzip.compress(b'{"kind": "k", "time_us": 1}\n' * 9999)[:-9], "not jsonl"),
        ("a.parquet", b"PAR1 nothing", "not parquet"),
        ("a.csv", b"a,a\n1,2\n", "a column is named twice: a, a"),
        ("a.txt", b"", "its name does not tell what is in it; allowed: .parquet, .csv"),
    ],
    ids=["cut", "broken", "gzip", "parquet", "header", "name"],
)
def test_a_file_that_is_broken_as_a_whole_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    lake = Lake(tmp_path / "lake")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError) as refused:
        ingest_file(lake, tmp_path / name, "events", batch_rows=1)
    assert message in refused.value.message
    assert str(tmp_path / name) in refused.value.message
    assert lake.versions() == {}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_an_empty_file_holds_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    report = ingest_file(Lake(tmp_path / "lake"), tmp_path / name, "events")
    assert (report.rows, report.refused) == (0, 0)


def test_json_in_pieces_longer_than_a_chunk_is_read(tmp_path: Path) -> None:
    rows = [{"n": i, "text": "x" * (700_000 if i % 3 else 1_500_000)} for i in range(7)]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    (tmp_path / "concatenated.json").write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    for name in ("list.json", "concatenated.json"):
        read = [item for batch in read_items(tmp_path / name, batch_rows=2) for item in batch]
        assert [item.row for item in read] == rows
        assert [item.position for item in read] == list(range(7))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"kind": "k", "time_us": 1}\n')
        file.write(b'{"x": "' + b"x" * (40 * 2**20) + b'"}\n')
        file.write(b'{"kind": "k", "time_us": 2}\n')
    (items,) = read_items(tmp_path / "a.jsonl")
    assert [item.row is not None for item in items] == [True, False, True]
    assert items[1].reason == f"longer than {16 * 2**20} bytes"
    assert len(items[1].payload or b"") == 4096


@given(
    cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=6),
    gaps=st.sets(st.integers(0, 41)),
)
@settings(max_examples=12)
def test_spans_however_cut_add_every_position_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], gaps: set[int]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("spans"))
    committed = 0
    for start, length in cuts:
        first, end = min(start, committed), min(start, committed) + length
        positions = [p for p in range(first, end) if p not in gaps]
        append_spans(lake, "bronze.events", [span_of("app", first, end, positions)], fsync=False)
        committed = max(committed, end)
    assert committed_positions(lake, "bronze.events", ["app", "b"]) == {"app": committed}
    assert event_ids(lake) == sorted(str(p) for p in range(committed) if p not in gaps)


def span_of(app_id: str, start: int, end: int, positions: list[int], *, whole: bool = False) -> Span:
    rows = [
        {
            "tenant": "default",
            "date": "2023-11-14",
            "receipt_id": str(p),
            "event_id": str(p),
            "source": "s",
            "kind": "k",
            "time_us": 1,
            "received_us": 1,
            "values": [],
            "producer": "p",
            "schema_version": 1,
        }
        for p in positions
    ]
    table = pa.Table.from_pylist(rows, schema=table_spec("bronze.events").schema)
    return Span(app_id, start, end, np.array(positions, dtype=np.int64), table, whole)


def test_a_span_behind_a_gap_and_a_state_that_was_overtaken_are_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append_spans(lake, "bronze.events", [span_of("app", 0, 5, [0, 4])])
    with pytest.raises(LakeError, match=r"app is at 5, and rows from 6 would leave a gap"):
        append_spans(lake, "bronze.events", [span_of("app", 6, 8, [6])])
    with pytest.raises(FencedError, match=r"app is at 5 already"):
        append_spans(lake, "bronze.events", [span_of("app", 4, 8, [7], whole=True)])
    assert append_spans(lake, "bronze.events", [span_of("app", 3, 5, [3], whole=True)]) == 0
    assert append_spans(lake, "bronze.events", [span_of("app", 5, 8, [7], whole=True)]) == 1
    assert event_ids(lake) == ["0", "4", "7"]


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlaas.lake.ingestion.files"])  # a child costs a fork, not an import of Delta
    return context


def test_an_ingestion_killed_at_any_commit_is_taken_up_with_other_batches(tmp_path: Path, processes) -> None:
    file = event_lines(tmp_path / "a.jsonl", 50)
    exits: list[int | None] = []
    for step in range(60):
        root = tmp_path / str(step)
        child = processes.Process(target=ingestion_children.ingest, args=(root, file, 20, step))
        child.start()
        child.join()
        exits.append(child.exitcode)
        report = ingest_file(Lake(root), file, "events", batch_rows=7 + step)
        check_once(Lake(root), 50)
        assert report.complete == (child.exitcode == 0 or step == 15)
        if child.exitcode == 0:
            break
    # Before and behind: two tables made, and three batches of good rows and of bad ones written.
    assert exits == [-signal.SIGKILL] * 16 + [0]


def test_two_processes_with_other_batches_do_not_double_a_file(tmp_path: Path, processes) -> None:
    file, root = event_lines(tmp_path / "a.jsonl", 120), tmp_path / "lake"
    children = [
        processes.Process(target=ingestion_children.ingest, args=(root, file, rows, None)) for rows in (7, 11, 120)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    check_once(Lake(root), 120)


@pytest.mark.ray
def test_many_files_on_ray_are_ingested_once_and_a_bad_one_is_named(tmp_path: Path) -> None:
    files = [event_lines(tmp_path / f"f{i}.jsonl", 20, f"f{i}-") for i in range(4)]
    broken = tmp_path / "g.json"
    broken.write_text("[{")
    lake = Lake(tmp_path / "lake")

    def run(paths: list[Path]) -> list[Any]:
        return ingest_distributed(partial(Lake, tmp_path / "lake"), paths, "events", batch_rows=8)

    with started_ray(Path(ingestion_children.__file__).parent):
        with pytest.raises(InvalidInputError, match=r"1 of 5 files were not ingested; .*g\.json: not JSON in row 0"):
            run([*files, broken])
        assert lake.count("bronze.events") == 72
        again = run(files)
    assert [(report.complete, report.rows) for report in again] == [(True, 0)] * 4
    assert event_ids(lake) == sorted(f"f{k}-{i}" for k in range(4) for i in range(20) if i % 10 != 7)


def test_what_a_privacy_policy_hides_is_hidden_in_the_quarantine_too(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    good = {"user": "alice-smith", "kind": "k", "at": 1}
    rows: list[Any] = [good, {"user": "alice-smith", "at": 1}, {**good, "at": "x"}, '{"user": "alice-smith"']
    write_lines(file, rows)
    policy = tmp_path / "privacy.yaml"
    policy.write_text("tables: {bronze.events: {subject: [entity], columns: {entity: tokenise}}}")
    lake = protected_lake(load_settings(home=tmp_path / "home", privacy=policy))
    report = ingest_file(lake, file, "events", RowMapping(columns={"entity": "user", "time_us": "at"}))
    assert (report.rows, report.refused) == (1, 3)
    assert all(
        entity != "alice-smith" for entity in lake.read("bronze.events", ["entity"]).column("entity").to_pylist()
    )
    payloads = sorted(lake.read("quarantine.events", ["payload"]).column("payload").to_pylist())
    # What is no JSON at all is withheld by the policy itself.
    assert sorted(payload.startswith(b"sha256:") for payload in payloads) == [False, False, True]
    assert not any(b"alice" in payload for payload in payloads)


def test_folders_are_searched_and_what_is_not_there_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.csv", "deep/a.parquet", ".hidden.csv", "_SUCCESS", "notes.txt"):
        (folder / name).write_text("x")
    assert [p.relative_to(folder).as_posix() for p in files_below([folder])] == ["b.csv", "deep/a.parquet"]
    with pytest.raises(NotFoundError, match="no such file or folder"):
        files_below([tmp_path / "nothing"])
    with pytest.raises(InvalidInputError, match="its name does not tell"):
        files_below([folder / "notes.txt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no file in it has a known format"):
        files_below([tmp_path / "empty"])


def test_a_mapping_names_fields_that_there_are(tmp_path: Path, repository: Path) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text("columns: {colour: x}")
    with pytest.raises(ConfigurationError, match=r"columns\.colour: events have no such field; allowed: attributes"):
        load_mapping(file).check_for("events")
    file.write_text("columns: {kind: x}\nconstants: {kind: y}")
    with pytest.raises(ConfigurationError, match="kind is both a column and a constant"):
        load_mapping(file)
    load_mapping(repository / "configs" / "lake" / "ingest-decisions.yaml").check_for("decisions")


def test_the_command_reports_every_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    event_lines(tmp_path / "a.jsonl", 20)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("constants: {source: backfill}")

    def run(*extra: str) -> subprocess.CompletedProcess[str]:
        command = [RLAAS, "lake", "ingest", str(tmp_path / "a.jsonl"), *extra]
        return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)

    done = run("--as", "events", "--mapping", str(mapping), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["table"], document["rows"], document["refused"]) == ("bronze.events", 18, 2)
    assert [file["complete"] for file in document["files"]] == [False]
    check_once(Lake(home / "lake"), 20)
    wrong = run("--as", "colours")
    assert (wrong.returncode, wrong.stderr.strip()) == (
        2,
        "error: unknown as 'colours'; allowed: decisions, events, outcomes",
    )
