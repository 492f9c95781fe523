"""``rlaas deployments`` against the real routes on a real port: screens that fit 80 columns, documents, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.http_platform import HttpPlatform, shared_platform
from support.http_server import serving

from rlaas.cli.main import app, run
from rlaas.client import Client
from rlaas.control.gating import GateDeclaration
from rlaas.experiments.canary import CanaryJudge, Counts


class Terminal:
    """A user at a terminal of 80 columns."""

    def __init__(self, url: str, platform: HttpPlatform, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self.platform, self._capsys = url, platform, capsys

    def screen(self, *arguments: str, status: int = 0) -> str:
        assert run(app, ["deployments", *arguments, "--url", self.url]) == status
        captured = self._capsys.readouterr()
        assert all(len(line) <= 80 for line in captured.out.splitlines()), captured.out
        if status == 0:
            assert captured.err == ""
        else:
            assert captured.out == ""
            assert captured.err.count("\n") == 1
        return captured.out if status == 0 else captured.err

    def document(self, *arguments: str) -> Any:
        assert run(app, ["deployments", *arguments, "--url", self.url, "--json"]) == 0
        return json.loads(self._capsys.readouterr().out)


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("COLUMNS", "80")
    with capture_logs():  # the platform lives in this process, and its events would be on the user's screen
        platform = shared_platform()
        platform.restore()
    capsys.readouterr()
    with capture_logs(), serving(platform.app) as where:
        yield Terminal(f"http://{where}", platform, capsys)


def test_lists_and_shows_what_is_live(terminal: Terminal) -> None:
    listed = terminal.screen("list")
    assert "toy" in listed
    assert "box" in listed
    assert {found["policy"] for found in terminal.document("list")} == {"toy", "box"}
    shown = terminal.screen("show", "toy")
    assert "every Gateway has loaded it" in shown
    assert "champion" in shown
    assert "100 %" in shown
    assert "replica" in shown
    assert terminal.document("show", "toy")["policy"] == "toy"


def test_a_split_is_created_and_shown(terminal: Terminal) -> None:
    screen = terminal.screen("create", "toy", "--variant", "old=1:0.75", "--variant", "new=2:0.25", "--fallback", "1")
    assert "75 %" in screen
    assert "25 %" in screen
    assert "fallback: version 1" in screen
    assert "1 (75 %), 2 (25 %)" in terminal.screen("list")


def test_a_canary_is_paused_resumed_and_promoted_with_its_evidence(terminal: Terminal) -> None:
    options = ("--set", "steps=[0.5]", "--set", 'analysis.metrics=["errors"]', "--set", "on_timeout=rollback")
    created = terminal.screen("create", "toy", "--version", "2", "--strategy", "canary", *options)
    assert "canary from version 1 to 2, running, step 1 of 1 (50 %)" in " ".join(created.split())
    rollout = terminal.document("show", "toy")["rollout"]
    assert rollout["strategy"]["analysis"]["metrics"] == ["errors"]
    assert rollout["strategy"]["on_timeout"] == "rollback"
    assert "it is paused now" in terminal.screen("pause", "toy", "--reason", "a look at it")
    assert "it is running now" in terminal.screen("resume", "toy", "--reason", "fine", "--actor", "ada")
    number = str(rollout["number"])
    promoted = terminal.screen("promote", "toy", "--reason", "looks good", "--rollout", number)
    assert promoted == f"rollout {number} of toy: succeeded; it is succeeded now\n"
    history = terminal.screen("rollouts", "toy")
    for word in ("paused", "resumed", "ada", "looks", "good", "1 to 2", "succeeded"):
        assert word in history
    events = terminal.document("rollouts", "toy")[0]["events"]
    assert [event["kind"] for event in events] == ["started", "paused", "resumed", "succeeded"]
    assert [event["reason"] for event in events][1:] == ["a look at it", "fine", "looks good"]


def test_a_shadow_shows_its_evidence(terminal: Terminal) -> None:
    created = terminal.document("create", "toy", "--version", "2", "--strategy", "shadow", "--set", "step_s=1")
    assert created["rollout"]["kind"] == "shadow"
    # What the controller would have found, had it looked: a judge that has counted.
    control = terminal.platform.control.rollouts
    (running,) = control.store.running("toy")
    judge = CanaryJudge(running.strategy.analysis.bounds())  # type: ignore[union-attr]
    for _ in range(4):
        judge.update(Counts(decisions=90, errors=10), Counts(decisions=40, errors=10))
    counted = judge.evidence()["errors"]
    assert counted["canary_count"] > 0
    control.store.commit(replace(running, judge=judge.state(), revision=running.revision + 1))
    shown = terminal.screen("show", "toy")
    row = next(line for line in shown.splitlines() if "errors" in line)
    figures = [cell.strip() for cell in row.strip("│").split("│")]
    assert figures[:6] == ["errors", "0.2", str(counted["canary_count"]), "0.1", str(counted["stable_count"]), "0.02"]
    assert figures[-1] == counted["says"].replace("_", " ")
    assert "2 (shadow)" in terminal.screen("list")


def test_blue_green_is_switched_and_switched_back(terminal: Terminal) -> None:
    options = ("--version", "2", "--strategy", "blue_green", "--set", "auto_switch=false")
    terminal.screen("create", "toy", *options)
    terminal.platform.follow()
    assert "switched" in terminal.screen("switch", "toy", "--reason", "now")
    terminal.platform.follow()
    assert terminal.document("show", "toy")["weights"] == {"champion": 0.0, "blue_green": 1.0}
    assert "standby" in terminal.screen("switch-back", "toy", "--reason", "a doubt")
    assert "rolled back" in terminal.screen("rollback", "toy", "--reason", "enough")


def test_the_pool_is_scaled_and_bounded_and_a_deployment_deleted(terminal: Terminal) -> None:
    assert "3 Gateways" in terminal.screen("scale", "toy", "3")
    assert terminal.platform.operations.replicas == 3
    screen = terminal.screen("create", "box", "--version", "1", "--min-replicas", "2", "--max-replicas", "5")
    assert "pool: 2 to 5 Gateways" in screen
    assert terminal.document("delete", "box")["deleted"] == {"deployment": "box"}
    assert "no deployment 'box'" in terminal.screen("show", "box", status=2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["promote", "toy"], "--reason"),
        (["promote", "toy", "--reason", " "], "--reason must not be empty"),
        (["switch", "toy", "--reason", ""], "--reason must not be empty"),
        (["promote", "toy", "--reason", "why"], "no rollout of 'toy' is running"),
        (["promote", "toy", "--reason", "why", "--rollout", "999"], "no rollout 999"),
        (["switch", "toy", "--reason", "why"], "no rollout of 'toy' is running"),
        (["show", "nothing"], "no deployment 'nothing'; allowed:"),
        (["create", "toy"], "exactly one of --version and --variant"),
        (["create", "toy", "--version", "99"], "99"),
        (["create", "toy", "--variant", "new:2"], "must be NAME=VERSION:WEIGHT"),
        (["create", "toy", "--version", "2", "--set", "step_s=1"], "give --strategy too"),
        (["create", "toy", "--version", "2", "--strategy", "fast"], "allowed: blue_green, canary, shadow"),
        (["create", "toy", "--version", "2", "--strategy", "canary", "--set", "steps"], "must be FIELD=VALUE"),
        (["create", "toy", "--version", "2", "--strategy", "canary", "--set", "colour=red"], "colour"),
        (["scale", "toy", "0"], "'replicas': Input should be greater than or equal to 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_line(terminal: Terminal, arguments: list[str], expected: str) -> None:
    assert expected in terminal.screen(*arguments, status=2)


def test_every_page_of_a_list_is_read(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Client.deployments
    monkeypatch.setattr(Client, "deployments", lambda self, **more: whole(self, page_size=1, **more))
    assert {found["policy"] for found in terminal.document("list")} == {"toy", "box"}


def test_a_version_goes_past_its_gate_with_a_reason(terminal: Terminal) -> None:
    gates = terminal.platform.control.gates
    gates.declare("toy", GateDeclaration(value="throughput", estimator="snipw"))  # of an empty log: nobody passes
    refused = terminal.screen("create", "toy", "--version", "2", status=2)
    assert refused.startswith("error: toy:2 may not get live traffic: no verdict")
    assert "must not be empty" in terminal.screen("create", "toy", "--version", "2", "--override", " ", status=2)
    terminal.screen("create", "toy", "--version", "2", "--override", "a drill", "--actor", "grace")
    event = gates.history("toy")[0]
    assert (event["kind"], event["version"], event["reason"], event["actor"]) == ("overridden", 2, "a drill", "grace")
    assert terminal.document("show", "toy")["variants"][0]["version"] == 2
