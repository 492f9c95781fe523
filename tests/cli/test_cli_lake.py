"""``rlaas lake``: every command as a person and as a program see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.lake_records import START_US, decision, outcome

from rlaas.cli.main import app, run
from rlaas.lake import WriteAheadLog, encode

DAY_US = 86_400_000_000
NOW_US = 1_796_000_000_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A lake of three days, a session each."""
    monkeypatch.setenv("RLAAS_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    wal = tmp_path / "wal"
    values = {"latency": 5.0, "throughput": 50.0, "energy": 1.0, "satisfaction": 0.5}
    with WriteAheadLog(wal, "decisions", "gateway") as log, WriteAheadLog(wal, "outcomes", "gateway") as other:
        for day in range(3):
            for i in range(4):
                name, time_us = f"d{day}-{i}", START_US + day * DAY_US + i
                log.append([encode(decision(name, time_us=time_us, session=f"s{day}", step=i))])
                other.append([encode(outcome(f"r{day}-{i}", name, received_us=time_us, outcome=values))])
    assert run(app, ["lake", "commit"]) == 0
    capsys.readouterr()
    return tmp_path


@pytest.fixture
def ask(home: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command with --json and gives its document."""

    def call(*arguments: str) -> Any:
        assert run(app, ["lake", *arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = run(app, ["lake", *arguments])
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    return status, shown.err


def test_tables_history_and_changes(ask: Any) -> None:
    listed = {one["table"]: one for one in ask("tables")}
    assert (listed["bronze.decisions"]["rows"], listed["bronze.decisions"]["files"]) == (12, 3)
    assert listed["silver.transitions"]["bytes"] > 0
    versions = ask("history", "silver.transitions", "--limit", "2")
    assert len(versions) == 2
    assert versions[0]["version"] == listed["silver.transitions"]["version"]
    assert versions[0]["time"].endswith("+00:00")
    assert ask("changes", "silver.transitions") == [{"version": versions[0]["version"], "change": "insert", "rows": 12}]
    assert ask("changes", "silver.transitions", "--since", str(versions[0]["version"])) == []


def test_a_question(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT outcome, observation, mode FROM silver.transitions ORDER BY time_us"
    found = ask("query", sql, "--limit", "2")
    assert found["truncated"] is True
    assert found["columns"] == ["outcome", "observation", "mode"]
    assert found["rows"][0] == {
        "outcome": {"energy": 1.0, "latency": 5.0, "satisfaction": 0.5, "throughput": 50.0},
        "observation": [0.25, -1.0],
        "mode": None,
    }
    assert ask("query", "SELECT 0.0 / 0.0 AS nan")["rows"] == [{"nan": "nan"}]
    assert failed(capsys, "query", "DROP TABLE silver.transitions")[0] == 2


def test_the_log_is_proven_against_the_tables(ask: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ask("verify")
    assert (found["exactly_once"], found["decisions"]["rows"], found["outcomes"]["duplicates"]) == (True, 12, 0)
    assert run(app, ["lake", "verify"]) == 0
    assert "exactly once" in capsys.readouterr().out
    with WriteAheadLog(home / "wal", "decisions", "gateway") as log:
        log.append([encode(decision("d9"))])
        log.seal()
        segment = next(log.folder.glob("*.seg"))
        content = bytearray(segment.read_bytes())
        content[-3] ^= 1
        segment.write_bytes(content)
        assert run(app, ["lake", "verify", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["exactly_once"] is False
    assert "log and tables disagree" in shown.err


def test_upkeep_and_retention_by_a_plan(ask: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upkeep = {one["table"]: one for one in ask("compact", "bronze.decisions")}
    assert upkeep == {
        "bronze.decisions": {
            "table": "bronze.decisions", "files": 3, "merged": 0, "sorted_days": 3, "deleted": 0, "checkpoint": True,
        }
    }  # fmt: skip
    assert ask("compact", "bronze.decisions", "--due")[0]["sorted_days"] == 0
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"retention: {{warm: {tmp_path}/warm, default: {{hot_days: 2}}, tables: {{}}}}")
    moved = ask("retain", "--config", str(plan), "--today", "2023-11-17")
    assert {one["table"]: one["to_warm"] for one in moved}["bronze.decisions"] == 4
    assert (tmp_path / "warm" / "bronze" / "decisions" / "_delta_log").is_dir()
    assert ask("query", "SELECT count(*) AS n FROM bronze.decisions")["rows"] == [{"n": 8}]
    plan.write_text("retention: {default: {hot_days: 0}}")
    status, message = failed(capsys, "retain", "--config", str(plan))
    assert status == 2
    assert "retention.default.hot_days: must be >= 1, got 0" in message
    assert failed(capsys, "retain", "--today", "soon") == (2, "error: --today 'soon' is no day; allowed: 2026-11-30\n")


def test_rows_ready_to_train(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    done = ask("training", "network5g")
    assert (done["rows"], done["how"], done["objectives"][0]) == (9, "rebuild", "latency")
    assert ask("training", "network5g")["how"] == "nothing"
    assert ask("training", "network5g", "--objective", "energy", "--objective", "latency")["rows"] == 9
    found = ask("query", "SELECT reward, objectives FROM gold.network5g_training LIMIT 1")["rows"]
    assert found == [{"reward": [1.0, 5.0], "objectives": ["energy", "latency"]}]
    assert failed(capsys, "training", "nothing")[0] == 2


def test_datasets(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = ask("datasets", "create", "one", "--table", "silver.transitions", "--filter", "step < 2", "--note", "early")
    assert (made["rows"], made["filter"], made["note"]) == (6, "step < 2", "early")
    ask("datasets", "create", "two", "--table", "silver.transitions", "--version", str(made["version"]))
    assert [one["name"] for one in ask("datasets", "list")] == ["one", "two"]
    assert ask("datasets", "show", "one", "--verify") == {**made, "verified": True}
    diff = ask("datasets", "diff", "one", "two")
    assert (diff["added"], diff["removed"], diff["changed"]) == (6, 0, 0)
    assert diff["shifts"][0]["psi"] > 0
    status, message = failed(capsys, "datasets", "create", "one", "--table", "bronze.decisions")
    assert (status, "choose another" in message) == (2, True)
    assert "unknown dataset 'three'; allowed: one, two" in failed(capsys, "datasets", "show", "three")[1]
    status, message = failed(capsys, "datasets", "create", "x", "--table", "bronze.decisions", "--at", "yesterday")
    assert (status, "--at 'yesterday' is no time" in message) == (2, True)
    later = ask("datasets", "create", "three", "--table", "silver.transitions", "--at", "2100-01-01")
    assert later["version"] == made["version"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("tables",),
        ("history", "bronze.decisions"),
        ("changes", "bronze.decisions"),
        ("query", "SELECT * FROM silver.transitions LIMIT 1"),
        ("compact", "bronze.outcomes"),
        ("retain", "bronze.outcomes"),
        ("training", "network5g"),
        ("datasets", "create", "d", "--table", "bronze.decisions"),
        ("datasets", "list"),
    ],
)
def test_a_person_reads_a_table(home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert run(app, ["lake", *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip()
    assert shown.err == ""


def test_a_person_reads_what_two_datasets_differ_in(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, condition in (("one", "step < 2"), ("two", "step > 0")):
        arguments = ["lake", "datasets", "create", name, "--table", "silver.transitions", "--filter", condition]
        assert run(app, arguments) == 0
    capsys.readouterr()
    assert run(app, ["lake", "datasets", "diff", "one", "two", "--top", "2"]) == 0
    shown = capsys.readouterr().out
    assert "one: 6 rows; two: 9 rows; 6 added, 3 removed, 0 changed" in shown
    assert "0.5 -> 2" in shown


def test_unknown_tables_are_answered_with_the_known_ones(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("history", "changes", "compact", "retain"):
        status, message = failed(capsys, command, "bronze.nothing")
        assert status == 2
        assert "unknown table 'bronze.nothing'; allowed: bronze.decisions" in message
