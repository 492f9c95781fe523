"""``rlaas features`` from a file of definitions to online values and a training set, on a lake that a Gateway wrote."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.lake_records import START_US, decision

from rlaas.cli.main import app, run
from rlaas.lake import Lake
from rlaas.lake.rows import decision_rows
from rlaas.settings import load_settings

MINUTE = 60_000_000
FILE = """
features:
  - name: cell_load
    entity: cell
    owner: tests
    source: {table: bronze.decisions, entity: context.cell}
    value: context.load
    transformation: {aggregate: mean, window_s: 300}
    ttl_s: 3.0e+8
  - name: cell_count
    entity: cell
    type: int
    owner: tests
    source: {table: bronze.decisions, entity: context.cell}
    transformation: {aggregate: count}
    ttl_s: 60
    default: 0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "features.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*arguments: str) -> Any:
        assert run(app, ["features", *arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return ask


def _decide() -> None:
    settings = load_settings()
    records = [
        decision(f"d{i}", time_us=START_US + i * MINUTE, context={"cell": f"c-{i % 2}", "load": i / 10})
        for i in range(10)
    ]
    Lake(settings.lake_root).append_once("bronze.decisions", {"tests": [(1, lambda: decision_rows(records))]})


def test_from_definitions_to_values_and_training_sets(cli: Any, file: Path, tmp_path: Path) -> None:
    _decide()
    assert [(one["feature"], one["new"]) for one in cli("apply", str(file))] == [
        ("cell_load@1", True),
        ("cell_count@1", True),
    ]
    assert [one["new"] for one in cli("apply", str(file))] == [False, False]
    assert cli("show", "cell_load")["source"]["table"] == "bronze.decisions"
    assert {one["name"]: one["materialized_us"] for one in cli("list")} == {"cell_load": None, "cell_count": None}
    assert [(one["events"], one["entities"]) for one in cli("materialize")] == [(10, 2), (10, 2)]
    assert [one["events"] for one in cli("materialize", "--feature", "cell_load@1")] == [0]
    assert [one["entities"] for one in cli("list")] == [2, 2]
    load = cli("get", "cell=c-1", "--feature", "cell_load")["features"][0]
    # The last five minutes before the newest decision, at minute 9: those of 5, 7 and 9.
    mean = math.fsum([0.5, 0.7, 0.9]) / 3
    assert (load["value"], load["status"], load["time_us"]) == (mean, "fresh", START_US + 9 * MINUTE)
    both = cli("get", "cell=c-1")["features"]
    assert [(one["feature"], one["value"], one["status"]) for one in both] == [
        ("cell_count@1", 0, "stale"),
        ("cell_load@1", mean, "fresh"),
    ]
    rows = pa.table({"cell": ["c-0", "c-1"], "time_us": [START_US + 2 * MINUTE, START_US]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    made = cli("training-set", "--entities", str(tmp_path / "rows.parquet"), "--output", str(tmp_path / "set.parquet"))
    assert made["features"] == {
        "cell_count@1": {"unknown": 1, "stale": 0},
        "cell_load@1": {"unknown": 1, "stale": 0},
    }
    found = pq.read_table(tmp_path / "set.parquet")
    assert (found["cell_count"].to_pylist(), found["cell_load"].to_pylist()) == ([2, 0], [0.1, None])


def test_people_get_tables(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _decide()
    for arguments in (["apply", str(file)], ["materialize"], ["list"], ["show", "cell_count"], ["get", "cell=c-0"]):
        assert run(app, ["features", *arguments]) == 0
    said = capsys.readouterr().out
    for words in ("cell_load@1: registered", "10 events, 2 entities", "mean(context.load)", "owner: tests"):
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "nothing"], "no feature 'nothing'"),
        (["get", "c-1"], "not like cell=c-17"),
        (["get", "user=u-1"], "allowed: cell"),
        (["get", "user=u-1", "--feature", "cell_load"], "entity.cell is missing"),
        (["apply", "no-such-file.yaml"], "cannot be read"),
        (["training-set", "--entities", "none.parquet", "--output", "out.parquet"], "there is no such file"),
        (["materialize", "--every", "5", "--json"], "leave out --json"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str],
    complaint: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(file.parent)
    assert run(app, ["features", "apply", str(file)]) == 0
    assert run(app, ["features", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    monkeypatch.undo()


def test_it_goes_on_until_it_is_stopped(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _decide()
    assert run(app, ["features", "apply", str(file)]) == 0
    pauses, sleep = 0, time.sleep

    def pause(_: float) -> None:
        nonlocal pauses
        pauses += 1
        sleep(0.01)
        if pauses == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr("rlaas.cli.features.time.sleep", pause)
    assert run(app, ["features", "materialize", "--every", "0.1"]) == 130
    # The first turn has brought everything; the others had nothing to say.
    assert capsys.readouterr().out.count("10 events, 2 entities") == 2
