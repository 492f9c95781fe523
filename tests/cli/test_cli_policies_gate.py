"""``rlaas policies gate`` and ``promote --override`` on a real home."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.bundles import policy_bundle
from support.gate_kit import favours, log

from rlaas.bundles import load_bundle
from rlaas.cli.main import app, run
from rlaas.control.service import ControlService
from rlaas.lake import Lake
from rlaas.registry import Registry
from rlaas.settings import load_settings

WIDTH = 80
LOGGED = re.compile(r"^\S*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 live and logged; version 2 better, version 3 worse."""
    root = tmp_path_factory.mktemp("gate")
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    bundles = []
    for seed in (1, 2, 3):
        folder = policy_bundle(root / str(seed), seed=seed)
        registry.register("toy", folder)
        bundles.append(load_bundle(folder))
    log(Lake(settings.lake_root), bundles[0], favours(bundles[1], bundles[2]), n=1200)
    ControlService(settings).promote("toy", 1)
    return settings.home


@pytest.fixture
def ask(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("RLAAS_HOME", str(home))

    def asked(*arguments: str, status: int = 0) -> str:
        assert run(app, ["policies", *arguments]) == status
        captured = capsys.readouterr()
        lines = [line for line in captured.out.splitlines() if not LOGGED.match(line)]
        assert all(len(line) <= WIDTH for line in lines if "│" in line)
        return "\n".join(lines) if status == 0 else captured.err

    return asked


def words(screen: str) -> str:
    return " ".join(re.sub(r"[│┃]", " ", screen).split())


def test_from_the_declaration_to_the_override(ask: Any, home: Path, tmp_path: Path) -> None:
    assert "toy has no gate" in ask("gate", "show", "toy")
    assert "no gate is declared" in ask("gate", "judge", "toy", "2", status=2)
    file = tmp_path / "gate.yaml"
    file.write_text(yaml.safe_dump({"value": "throughput", "estimator": "dr", "margin": 0.5}))
    said = ask("gate", "declare", "toy", str(file), "--actor", "ada")
    assert said == "versions of toy are judged by dr on throughput"
    shown = words(ask("gate", "show", "toy"))
    for part in ("dr, interval at 0.95", "worse by 0.5 at most", "at least 100 and 1% of the rows", "by ada"):
        assert part in shown
    assert json.loads(ask("gate", "show", "toy", "--json"))["gate"]["declaration"]["margin"] == 0.5

    screen = words(ask("gate", "judge", "toy", "3"))
    assert "toy:3 failed: dr gives throughput" in screen
    assert "1,200 of 1,200 decisions count." in screen
    report = json.loads(ask("gate", "judge", "toy", "3", "--json"))
    line = report["verdict"]["lines"][0]
    assert f"{line['low']:.4g} to {line['high']:.4g}" in screen
    assert f"{line['effective_sample_size']:,.0f} of 1,200" in screen
    assert "decides" in screen

    refused = ask("promote", "toy", "3", status=2)
    assert refused.startswith("error: toy:3 may not get live traffic: failed: dr gives throughput")
    assert "--override" in ask("promote", "--help")
    assert "version 3 is the champion" in ask("promote", "toy", "3", "--override", "a drill", "--actor", "grace")
    assert "version 2 is the champion" in ask("promote", "toy", "2")
    history = json.loads(ask("gate", "history", "toy", "--json"))
    assert [(e["kind"], e["version"], e["actor"]) for e in history] == [
        ("passed", 2, "operator"),
        ("overridden", 3, "grace"),
        ("refused", 3, "operator"),
        ("declared", None, "ada"),
    ]
    assert "a drill" in words(ask("gate", "history", "toy"))
    assert ask("gate", "remove", "toy") == "toy has no gate any more"


def test_a_word_beforehand(ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    file.write_text(json.dumps({"mode": "normal", "estimator": "snipw", "reference": 0.99}))
    assert "snipw on utility in mode normal" in ask("gate", "declare", "toy", str(file))
    said = ask("gate", "override", "toy", "2", "--reason", "board")
    assert said == "version 2 of toy may go live once, though the gate says: failed"
    assert json.loads(ask("gate", "history", "toy", "--json"))[0]["reason"] == "board"
    ask("gate", "remove", "toy")


def test_an_export_asks_the_gate(ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(yaml.safe_dump({"value": "throughput", "estimator": "snipw", "reference": 99.0}))
    ask("gate", "declare", "toy", str(file))
    served = json.loads(ask("gate", "show", "toy", "--json"))["served"]
    assert served[0] == 1
    # One that no test before has made live.
    settings = load_settings()
    version = str(Registry(settings).register("toy", policy_bundle(tmp_path / "new", seed=9)).version)
    new = ("export", "toy", "--version", version, "--target", "edge", "--output")
    refused = ask(*new, str(tmp_path / "a"), status=2)
    assert f"toy:{version} may not get live traffic" in refused
    assert not (tmp_path / "a").exists()
    ask(*new, str(tmp_path / "a"), "--override", "a trial in the lab", "--actor", "grace")
    assert (tmp_path / "a" / "policy.onnx").exists()
    event = json.loads(ask("gate", "history", "toy", "--json"))[0]
    assert (event["kind"], event["edge"], event["actor"]) == ("overridden", True, "grace")
    assert event["reason"] == "a trial in the lab"
    assert "overridden (edge)" in words(ask("gate", "history", "toy"))
    # What has served goes without being asked.
    ask("export", "toy", "--version", "1", "--target", "edge", "--output", str(tmp_path / "b"))
    assert json.loads(ask("gate", "history", "toy", "--json"))[0] == event
    assert "override must be a reason" in ask(*new, str(tmp_path / "c"), "--override", " ", status=2)
    ask("gate", "remove", "toy")


def test_a_gate_of_sessions_is_declared_and_shown(ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(yaml.safe_dump({"value": "throughput", "estimator": "fqe", "horizon": 24, "discount": 0.99}))
    said = ask("gate", "declare", "toy", str(file))
    assert said == (
        "versions of toy are judged by fqe on throughput over the first 24 steps of a session, discounted by 0.99"
    )
    shown = words(ask("gate", "show", "toy"))
    assert "effective sessions" in shown
    assert "1% of the sessions" in shown
    # What was logged here belongs to no session.
    assert "1,200 without session and step" in ask("gate", "judge", "toy", "2")
    ask("gate", "remove", "toy")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("a: [", "not YAML"),
        ("{value: throughput}", "estimator: Field required"),
        ("{value: throughput, mode: normal, estimator: snipw}", "one of value, weights and mode"),
        ("{mode: normal, better: lower, estimator: snipw}", "goes with value only"),
        ("{value: throughput, estimator: magic}", "estimator: Input should be 'dm', 'ipw'"),
        ("{value: throughput, estimator: snipw, colour: 1}", "unknown key; allowed: value, weights, mode"),
        ("{value: colour, estimator: snipw}", "allowed: "),
        ("{value: throughput, estimator: snipw, min_effective_sample_size: 10}", "greater than or equal to 100"),
    ],
)
def test_errors_say_what_is_wrong(ask: Any, tmp_path: Path, document: str, says: str) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(document)
    assert says in ask("gate", "declare", "toy", str(file), status=2)


def test_other_errors(ask: Any, tmp_path: Path) -> None:
    assert "cannot be read" in ask("gate", "declare", "toy", str(tmp_path / "none"), status=2)
    assert "no policy" in ask("gate", "show", "nobody", status=2)
    assert "override must be a reason of 1 to 500" in ask("promote", "toy", "2", "--override", " ", status=2)
