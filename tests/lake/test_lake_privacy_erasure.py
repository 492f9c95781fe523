from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import privacy_children
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake.exceptions import CommitFailedError
from support.lake_records import decision, outcome

from rlaas.errors import ConflictError, InvalidInputError, NotFoundError, RetryableError
from rlaas.lake import Committer, Lake, WriteAheadLog, encode, update_transitions
from rlaas.lake.datasets import create_dataset, read_dataset
from rlaas.lake.privacy import Eraser, ProtectedLake, Vault, protected_lake, verify_report
from rlaas.lake.privacy.needles import Needles
from rlaas.lake.privacy.policy import token_of
from rlaas.lake.privacy.scan import scan
from rlaas.settings import Settings

SUBJECT, OTHER = "user-17", "user-171"
"""One is the beginning of the other: bytes alone do not tell them apart."""
TOKENISE = """\
tables:
  bronze.decisions:
    subject: [unit, session]
    columns: {unit: tokenise, session: tokenise, context.user: tokenise, context.email: mask, context.phone: drop}
"""


def site(tmp_path: Path, policy: str | None = None) -> Settings:
    if policy is not None:
        (tmp_path / "policy.yaml").write_text(policy)
    return Settings(home=tmp_path / "home", privacy=None if policy is None else tmp_path / "policy.yaml")


def log(settings: Settings, records: list[Any], stream: Any = "decisions") -> None:
    with WriteAheadLog(settings.wal_root, stream, "gateway") as wal:
        wal.append([encode(record) for record in records])


def visits(subject: str, count: int, **changes: Any) -> list[Any]:
    return [
        decision(
            f"{subject}-d{index}" if "name" not in changes else f"{changes['name']}{index}",
            unit=subject,
            session=f"s-of-{subject}",
            step=index,
            context={"user": subject, "email": f"{subject}@example.org", "phone": "555", "page": "home"},
        )
        for index in range(count)
    ]


def fill(settings: Settings, batches: int = 3) -> ProtectedLake:
    lake = protected_lake(settings)
    for batch in range(batches):
        names = {SUBJECT: f"a{batch}-", OTHER: f"b{batch}-"}
        records = [one for subject, name in names.items() for one in visits(subject, 4, name=name)]
        log(settings, records)
        log(settings, [outcome(f"r-{record.decision_id}", record.decision_id) for record in records], "outcomes")
        Committer(lake, settings.wal_root).run_once()
        update_transitions(lake)
    return lake


def traces(settings: Settings, *texts: str) -> list[str]:
    found = scan([settings.home], Needles(texts), tenant="default").hits
    return [str(path.relative_to(settings.home)) for path in found]


def test_a_subject_is_erased_from_every_table_file_log_and_statistic(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = fill(settings)
    assert any("_delta_log" in path for path in traces(settings, SUBJECT))
    report = Eraser(settings, lake, trained={}).erase(SUBJECT)
    assert report["clean"]
    assert report["rows"] == {"bronze.decisions": 12, "bronze.outcomes": 12, "silver.transitions": 12}
    assert report["scan"]["hits"] == []
    # Not by our own scan alone: neither by plain search, nor by what Arrow reads back.
    for path in settings.home.rglob("*"):
        if path.is_file() and path.suffix != ".parquet":
            plain = path.read_bytes().replace(OTHER.encode(), b"").replace(f"s-of-{OTHER}".encode(), b"")
            assert SUBJECT.encode() not in plain, path
    for path in (settings.home / "lake").rglob("*.parquet"):
        assert SUBJECT not in str(pq.ParquetFile(path).read().to_pylist()).replace(OTHER, "")
    for table, left in (("bronze.decisions", 12), ("bronze.outcomes", 12), ("silver.transitions", 12)):
        assert lake.count(table) == left
    assert set(lake.read("bronze.decisions", ["unit"]).column("unit").to_pylist()) == {OTHER}
    # What was rewritten can still be asked for by a text.
    for table in ("bronze.decisions", "silver.transitions"):
        assert lake.read(table, filter=pc.field("decision_id") == "b0-1").num_rows == 1


def test_tokens_take_the_place_of_what_is_personal_before_anything_reaches_the_lake(tmp_path: Path) -> None:
    settings = site(tmp_path, TOKENISE)
    lake = fill(settings, batches=1)
    assert traces(settings, SUBJECT) == []
    rows = lake.read("bronze.decisions", ["unit", "session", "context"]).to_pylist()
    by_unit = {row["unit"]: json.loads(row["context"]) for row in rows}
    keys = [lake.vault.key(lake.vault.filed(subject)) for subject in (SUBJECT, OTHER)]
    tokens = [token_of(key, subject) for key, subject in zip(keys, (SUBJECT, OTHER), strict=True) if key is not None]
    assert sorted(by_unit) == sorted(tokens)
    # One token wherever the value stands, so that what could be joined still can be; steps of a session still follow.
    assert all(document["user"] == unit for unit, document in by_unit.items())
    assert by_unit[tokens[0]] == {"user": tokens[0], "email": "***", "page": "home"}
    assert lake.read("silver.transitions", ["next_observation"]).column("next_observation").null_count == 2


def test_a_key_is_destroyed_and_who_comes_back_is_another(tmp_path: Path) -> None:
    settings = site(tmp_path, TOKENISE)
    lake = fill(settings, batches=1)
    key = lake.vault.key(lake.vault.filed(SUBJECT))
    assert key is not None
    report = Eraser(settings, lake, trained={}).erase(SUBJECT)
    assert report["clean"]
    assert report["keys_destroyed"] == 1
    assert report["rows"] == {"bronze.decisions": 4, "bronze.outcomes": 4, "silver.transitions": 4}
    assert traces(settings, SUBJECT, token_of(key, SUBJECT)) == []
    assert all(key not in path.read_bytes() for path in settings.home.glob("privacy.db*"))
    log(settings, [decision("back", unit=SUBJECT, time_us=report["erased_us"] + 1)])
    Committer(lake, settings.wal_root).run_once()
    fresh = lake.vault.key(lake.vault.filed(SUBJECT))
    assert fresh not in (None, key)
    assert token_of(fresh, SUBJECT) in lake.read("bronze.decisions", ["unit"]).column("unit").to_pylist()


@pytest.mark.parametrize("policy", [None, TOKENISE])
def test_what_arrives_late_does_not_bring_a_subject_back(tmp_path: Path, policy: str | None) -> None:
    settings = site(tmp_path, policy)
    lake = fill(settings, batches=1)
    Eraser(settings, lake, trained={}).erase(SUBJECT)
    # An outcome of an erased decision, another decision of then from a device, and the outcome of that one.
    log(settings, [outcome("late", "a0-1"), outcome("late-2", "edge"), outcome("fine", "b0-1")], "outcomes")
    log(settings, [decision("edge", unit=SUBJECT), decision("edge-b", unit=OTHER)])
    Committer(lake, settings.wal_root).run_once()
    update_transitions(lake)
    assert traces(settings, SUBJECT) == []
    assert "edge" not in lake.read("bronze.decisions", ["decision_id"]).column("decision_id").to_pylist()
    outcomes = lake.read("bronze.outcomes", ["receipt_id"]).column("receipt_id").to_pylist()
    assert "fine" in outcomes
    assert not {"late", "late-2"} & set(outcomes)
    assert not any(name.startswith("a0-") for name in _decided(lake, "silver.transitions"))


def _decided(lake: Lake, table: str) -> list[str]:
    return lake.read(table, ["decision_id"]).column("decision_id").to_pylist()


def test_a_subject_is_found_in_refused_records_and_in_databases_made_from_the_lake(tmp_path: Path) -> None:
    settings = site(tmp_path)
    log(settings, visits(SUBJECT, 1))
    with WriteAheadLog(settings.wal_root, "decisions", "old") as wal:
        wal.append([json.dumps({"decision_id": "x1", "unit": SUBJECT, "schema_version": 9}).encode(), b'{"unit":"u"}'])
    lake = protected_lake(settings)
    Committer(lake, settings.wal_root).run_once()
    assert lake.count("quarantine.decisions") == 2
    for name in ("features.db", "state.db"):
        with closing(sqlite3.connect(settings.home / name)) as base, base:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("CREATE TABLE t (entity TEXT, document TEXT)")
            base.executemany(
                "INSERT INTO t VALUES (?, ?)", [(SUBJECT, "1"), ("x", f'{{"u":"{SUBJECT}"}}'), (OTHER, "2")]
            )
    report = Eraser(settings, lake, trained={}).erase(SUBJECT)
    assert report["clean"]
    assert report["rows"] == {"bronze.decisions": 1, "quarantine.decisions": 1}
    assert report["databases"] == {"features.db": 2, "state.db": 2}
    with closing(sqlite3.connect(settings.home / "features.db")) as base:
        assert base.execute("SELECT * FROM t").fetchall() == [(OTHER, "2")]
    with closing(sqlite3.connect(settings.home / "state.db")) as base:
        rows = base.execute("SELECT * FROM t ORDER BY rowid").fetchall()
    # A document stays a document, with a label that says nothing in the place of the subject.
    assert rows[0][0].startswith("erased-")
    assert json.loads(rows[1][1]) == {"u": rows[0][0]}


def test_a_dry_run_says_what_would_go_and_changes_nothing(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = fill(settings, batches=1)
    before = {path: path.read_bytes() for path in (settings.home / "lake").rglob("*") if path.is_file()}
    version = lake.version("silver.transitions")
    assert version is not None
    trained = {"p@1": {"silver.transitions": version}, "p@2": {"bronze.decisions": 0, "silver.transitions": 99}}
    found = Eraser(settings, lake, trained=trained).look(SUBJECT)
    assert found["rows"] == {"bronze.decisions": 4, "bronze.outcomes": 4, "silver.transitions": 4}
    assert found["models"] == ["p@1"]
    assert found["models_unknown"] == ["p@2"]
    assert found["files"]
    assert {path: path.read_bytes() for path in (settings.home / "lake").rglob("*") if path.is_file()} == before
    assert not (settings.home / "erasures").exists()


def test_models_are_named_that_saw_the_subject_and_only_those(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = protected_lake(settings)
    log(settings, visits(OTHER, 2, name="b"))
    Committer(lake, settings.wal_root).run_once()
    without = lake.version("bronze.decisions")
    log(settings, visits(SUBJECT, 2, name="a"))
    Committer(lake, settings.wal_root).run_once()
    with_them = lake.version("bronze.decisions")
    assert without is not None
    assert with_them is not None
    trained = {"before@1": {"bronze.decisions": without}, "after@1": {"bronze.decisions": with_them}, "simulated@1": {}}
    report = Eraser(settings, lake, trained=trained).erase(SUBJECT)
    assert report["models"] == ["after@1"]
    assert report["models_unknown"] == []


def test_a_dataset_that_holds_the_subject_is_replaced_by_one_without(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = fill(settings, batches=1)
    create_dataset(lake, "all", "silver.transitions")
    create_dataset(lake, "others", "bronze.decisions", condition=f"unit = '{OTHER}'")
    report = Eraser(settings, lake, trained={}).erase(SUBJECT)
    assert report["clean"]
    assert report["datasets"] == [{"name": "all", "replaced_by": "all.1", "rows": 4}]
    assert "silver.transitions" in report["rows"]
    assert read_dataset(lake, "all.1").num_rows == read_dataset(lake, "others").num_rows == 4
    with pytest.raises(NotFoundError, match="rows were erased"):
        read_dataset(lake, "all")
    assert traces(settings, SUBJECT) == []


def test_a_report_is_signed_and_its_change_is_found(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = fill(settings, batches=1)
    eraser = Eraser(settings, lake, trained={})
    eraser.erase(SUBJECT)
    file = eraser.latest_report(SUBJECT)
    content = verify_report(file, lake.vault)
    assert content["rows"]["bronze.decisions"] == 4
    assert SUBJECT not in file.read_text()
    (tmp_path / "changed.json").write_text(file.read_text().replace('"bronze.decisions": 4', '"bronze.decisions": 5'))
    with pytest.raises(InvalidInputError, match="changed after"):
        verify_report(tmp_path / "changed.json", lake.vault)
    with pytest.raises(InvalidInputError, match="another installation"):
        verify_report(file, Vault(f"sqlite:///{tmp_path / 'other.db'}", "default"))
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(InvalidInputError, match="no signed report"):
        verify_report(tmp_path / "none.json", lake.vault)
    again = eraser.erase(SUBJECT)
    assert (again["number"], again["rows"], again["clean"]) == (2, {}, True)


def test_a_gateway_that_has_not_handed_over_yet_is_waited_for(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = fill(settings, batches=1)
    eraser = Eraser(settings, lake, trained={}, wait_s=0.0)
    with WriteAheadLog(settings.wal_root, "decisions", "running") as wal:
        wal.append([encode(record) for record in visits(SUBJECT, 1, name="open")])
        with pytest.raises(RetryableError, match="still holds the subject"):
            eraser.erase(SUBJECT)
    report = eraser.erase(SUBJECT)  # the same erasure, gone on with
    assert report["clean"]
    assert report["number"] == 1
    assert lake.count("bronze.decisions") == 4


@pytest.mark.parametrize("subject", ["abc", "1234567", "x" * 300])
def test_an_id_that_cannot_be_told_from_other_bytes_is_refused(tmp_path: Path, subject: str) -> None:
    settings = site(tmp_path)
    with pytest.raises(InvalidInputError, match="subject has"):
        Eraser(settings, protected_lake(settings), trained={}).erase(subject)


def test_appends_go_on_during_an_erasure_and_none_is_lost(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = fill(settings, batches=1)
    done = threading.Event()
    written: list[str] = []

    def append() -> None:
        while not done.is_set():
            number = len(written)
            log(settings, [decision(f"n{number}", unit=OTHER), decision(f"n{number}-x", unit=SUBJECT)])
            with suppress(ConflictError):  # the erasure's own committer was at work; the next one takes it
                Committer(protected_lake(settings), settings.wal_root).run_once()
            written.append(f"n{number}")

    thread = threading.Thread(target=append)
    thread.start()
    try:
        report = Eraser(settings, lake, trained={}).erase(SUBJECT)
    finally:
        done.set()
        thread.join()
    Committer(lake, settings.wal_root).run_once()
    assert report["clean"]
    assert traces(settings, SUBJECT) == []
    found = _decided(lake, "bronze.decisions")
    assert len(found) == len(set(found))
    assert set(written) <= set(found)
    assert lake.read("bronze.decisions").num_rows == 4 + len(written)


def test_a_writer_who_read_the_subject_before_cannot_write_it_behind_the_erasure(tmp_path: Path) -> None:
    settings = site(tmp_path)
    lake = fill(settings, batches=1)
    stale = lake.open("silver.transitions")
    assert stale is not None
    rows = lake.read("silver.transitions")
    Eraser(settings, lake, trained={}).erase(SUBJECT)
    with pytest.raises(CommitFailedError):
        lake.replace(stale, rows, "tenant = 'default'")
    assert traces(settings, SUBJECT) == []


def _kill_points(counted: int, points: int) -> list[int]:
    return sorted({1 + counted * number // points for number in range(points)})


def test_an_erasure_that_is_killed_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    settings = site(tmp_path / "filled")
    fill(settings, batches=1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["privacy_children"])  # so that a child costs a fork, not an import of Delta

    def run(home: Path, last: int, counted: Path) -> int | None:
        child = context.Process(target=privacy_children.erase, args=(home, SUBJECT, last, counted))
        child.start()
        child.join()
        return child.exitcode

    shutil.copytree(settings.home, tmp_path / "whole")
    assert run(tmp_path / "whole", 0, tmp_path / "counted") == 0
    for point in _kill_points(int((tmp_path / "counted").read_text()), 6):
        home = tmp_path / f"killed-{point}"
        shutil.copytree(settings.home, home)
        assert run(home, point, tmp_path / "unused") == -signal.SIGKILL
        killed = Settings(home=home)
        lake = protected_lake(killed)
        report = Eraser(killed, lake, trained={}).erase(SUBJECT)
        assert report["clean"], point
        reports = [verify_report(file, lake.vault) for file in (home / "erasures").rglob("*.json")]
        assert max(one["rows"].get("bronze.decisions", 0) for one in reports) == 4, point
        assert traces(killed, SUBJECT) == [], point
        assert lake.count("bronze.decisions") == lake.count("silver.transitions") == 4
        log(killed, [decision("after", unit=OTHER)])  # the tables take rows, and only rows
        Committer(lake, killed.wal_root).run_once()
        table = lake.open("bronze.decisions")
        assert table is not None
        assert table.metadata().configuration["delta.appendOnly"] == "true"
