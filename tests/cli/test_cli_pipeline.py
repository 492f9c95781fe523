"""``rlaas pipeline`` from the command line: bad usage, the plan, the table, the exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.toy import ToyScenario

from rlaas.cli.main import app, run
from rlaas.cli.pipeline import log_observer
from rlaas.lake import DecisionRecord, Lake, OutcomeRecord, update_transitions
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.settings import load_settings

TOY = """
training:
  scenario: support.toy:ToyScenario
  algorithm: ppo
  steps: 256
  num_envs: 8
  hidden: [8]
  ppo: {rollout_length: 32, minibatch: 64, epochs: 1}
retry_wait_s: 0
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY)
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Missing option '--config'"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml: cannot be read"),
        (["--config", "CONFIG", "--from", "fly"], "unknown stage to start from 'fly'; allowed: data, evaluate"),
        (["--config", "CONFIG", "--force", "fly", "--plan"], "unknown stage to force 'fly'; allowed: data, evaluate"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(config) if argument == "CONFIG" else argument for argument in arguments]
    assert run(app, ["pipeline", *given]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


def test_the_plan_runs_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["pipeline", "--config", str(config), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(entry["stage"], entry["outlook"]) for entry in plan] == [
        ("data", "run"),
        ("validate", "open"),
        ("train", "run"),
        ("tune", "skipped"),
        ("search", "skipped"),
        ("evaluate", "open"),
        ("register", "open"),
    ]
    assert re.fullmatch(r"[0-9a-f]{64}", plan[0]["key"])
    assert not load_settings().home.exists()
    assert run(app, ["pipeline", "--config", str(config), "--plan", "--from", "train"]) == 0
    assert re.search(r"train +│ run +│ - +│ asked for", capsys.readouterr().out)


def test_a_broken_contract_ends_with_status_1_and_a_table(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings()
    lake, time_us = Lake(settings.lake_root), 1_700_000_000_000_000
    common = {"receipt_id": "a", "decision_id": "a", "tenant": "default", "time_us": time_us, "producer": "gateway"}
    decision = DecisionRecord(
        **common,
        scenario=ToyScenario.name,
        policy="toy",
        version=1,
        variant="champion",
        variant_propensity=1.0,
        observation=[0.5, 7.0],
        action=[0.5],
        generation=1,
    )
    outcome = OutcomeRecord(
        **common, outcome_id="a", outcome={"cost": 1.0, "quality": 5.0}, received_us=time_us, truncated=True
    )
    lake.append_once("bronze.decisions", {"app": [(1, lambda: decision_rows([decision]))]})
    lake.append_once("bronze.outcomes", {"app": [(1, lambda: outcome_rows([outcome]))]})
    update_transitions(lake)
    config.write_text(TOY + "data: {tables: [silver.transitions]}\n")

    assert run(app, ["pipeline", "--config", str(config)]) == 1
    captured = capsys.readouterr()
    assert "registered: nothing" in captured.out
    assert "decision a: bias is 7" in captured.out
    assert re.search(r"validate +│ run ", captured.out)
    assert captured.err.splitlines()[-1] == (
        "error: the data contract is broken (out_of_range): nothing was registered"
    )
    # Again, from the cache: the same answer.
    assert run(app, ["pipeline", "--config", str(config), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert {stage["status"] for stage in document["stages"]} == {"cached", "skipped"}
    assert document["policy"] is None
    assert document["contract"]["passed"] is False


def test_a_log_has_a_line_for_each_tenth() -> None:
    from rlaas.pipeline import StageReport

    lines: list[str] = []
    observer = log_observer(lines.append)
    observer.started("train", "training.steps changed (1 -> 2)")
    for done in range(0, 101, 5):
        observer.advanced("train", done, 100, {"reward": 0.5, "other": 1.0})
    observer.noted("train", "attempt 1 of 2 failed: lost; again in 0 s")
    observer.finished(StageReport(name="train", status="run", reason="because", seconds=1.25))
    observer.finished(StageReport(name="tune", status="skipped", reason="the configuration has no tune"))
    assert lines[0] == "train: runs (training.steps changed (1 -> 2))"
    assert lines[1:11] == [f"train: {10 * tenth}/100 reward 0.5" for tenth in range(1, 11)]
    assert lines[11:] == [
        "train: attempt 1 of 2 failed: lost; again in 0 s",
        "train: run in 1.2 s",
        "tune: skipped (the configuration has no tune)",
    ]
