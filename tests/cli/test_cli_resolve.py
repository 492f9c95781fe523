"""``rlaas resolve``: by mode, weights and rules; the certificate as a screen and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli_fronts import TOY, toy_front

from rlaas.cli.main import app, run
from rlaas.decisions import METHODS, border, resolve
from rlaas.objectives import Mode, Preference
from rlaas.scenarios import load

RULES = """
version: 1
context:
  load: {type: number, range: [0, 1]}
  slice: {type: text, choices: [gold, basic]}
rules:
  - name: busy
    priority: 10
    when: load > 0.9 and slice == "gold"
    then: {mode: cheap}
  - name: thrift
    priority: 5
    when: load < 0.5
    require: cost <= 1
"""


@pytest.fixture
def front(tmp_path: Path) -> list[str]:
    path = tmp_path / "front.json"
    path.write_text(json.dumps(toy_front().to_dict()))
    return ["resolve", TOY, "--front", str(path)]


@pytest.fixture
def rules(tmp_path: Path) -> list[str]:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return ["--rules", str(path)]


def document(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> Any:
    assert run(app, [*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_mode_is_resolved_as_by_the_library(front: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, front)
    modes = load(TOY).modes
    assert list(found) == list(modes)
    for name, mode in modes.items():
        choice = resolve(toy_front(), mode=mode)
        assert found[name]["candidate"] == choice.candidate.name
        assert found[name]["parameters"] == dict(choice.candidate.parameters)
        assert found[name]["objectives"] == pytest.approx(choice.candidate.objectives(("cost", "quality")))
        # What readers of the document have always found there.
        assert {"mode", "method", "score", "runner_up", "margin", "rules_kept", "why", "holds_while"} <= set(
            found[name]["certificate"]
        )
    assert run(app, front) == 0
    out = " ".join(capsys.readouterr().out.split())
    for name in modes:
        assert f"{name}: {found[name]['certificate']['why']}" in out


def test_one_mode_and_every_method(front: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["resolve", "--help"]) == 0
    help_text = " ".join(capsys.readouterr().out.split())
    for method in METHODS:
        found = document(capsys, [*front, "--mode", "cheap", "--method", method])
        assert list(found) == ["cheap"]
        assert (
            found["cheap"]["candidate"]
            == resolve(toy_front(), mode=load(TOY).modes["cheap"], method=method).candidate.name
        )
        assert method in help_text


def test_weights_make_a_mode_of_their_own(front: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, [*front, "--weights", "cost=.9, quality=0.3", "--method", "weighted_sum"])
    mode = Mode(name="weights", preference=Preference.of(toy_front().objectives, {"cost": 0.75, "quality": 0.25}))
    assert found["weights"]["candidate"] == resolve(toy_front(), mode=mode, method="weighted_sum").candidate.name
    assert found["weights"]["certificate"]["weights"] == pytest.approx({"cost": 0.75, "quality": 0.25})


def test_weights_need_no_installed_scenario(front: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, ["resolve", "toy", *front[2:], "--weights", "cost=1"])
    assert found["weights"]["candidate"] == "effort-0"


def test_explain_is_the_whole_certificate_with_borders(front: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    modes = load(TOY).modes
    assert run(app, [*front, "--mode", "cheap", "--explain"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    certificate = resolve(toy_front(), mode=modes["cheap"]).certificate
    expected = border(toy_front(), modes["cheap"], modes["balanced"])
    for line in (*certificate.lines(), str(expected)):
        assert " ".join(line.split()) in out
    for word in (
        "Weights",
        "runner-up",
        "Rule quality >= 3",
        "ank reversal",
        "Front version",
        "from cheap to balanced",
    ):
        assert word in out
    found = document(capsys, [*front, "--explain"])
    assert [b["mode_b"] for b in found["cheap"]["borders"]] == ["balanced"]
    assert found["cheap"]["borders"][0] == json.loads(json.dumps(expected.to_dict()))


def test_rules_set_the_mode_and_what_a_choice_keeps(
    front: list[str], rules: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    busy = document(capsys, [*front, *rules, "--context", "load=0.95", "slice=gold"])
    assert list(busy) == ["cheap"]
    assert busy["cheap"]["rules"]["fired"] == ["busy"]
    quiet = document(
        capsys, [*front, *rules, "--mode", "balanced", "--context", "load=10 %", "--context", "slice=gold"]
    )
    assert quiet["balanced"]["objectives"]["cost"] <= 1
    assert quiet["balanced"]["rules"]["requirements"][0]["rule"] == "thrift"
    assert list(document(capsys, [*front, *rules])) == [load(TOY).primary_mode]
    assert run(app, [*front, *rules, "--context", "load=0.95", "slice=gold", "--explain"]) == 0
    assert "rule busy sets mode cheap" in capsys.readouterr().out
    assert run(app, [*front, *rules]) == 0
    assert "rule busy is open: the context lacks load, slice" in capsys.readouterr().out


def test_what_becomes_of_a_mode_that_rules_set_is_said(
    front: list[str], rules: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    busy = [*front, *rules, "--context", "load=0.95", "slice=gold"]
    for options, expected in (
        (["--weights", "cost=1"], "rule busy asks for mode cheap; set aside: explicit weights stand"),
        (["--mode", "balanced"], "asked for mode balanced; rule busy took cheap"),
        (["--mode", "cheap"], "rule busy sets mode cheap"),
    ):
        for screen in ([], ["--explain"], ["--dry-run"]):
            assert run(app, [*busy, *options, *screen]) == 0
            assert expected in " ".join(capsys.readouterr().out.split())


def test_rules_about_kinds_are_measured_in_no_range(
    front: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kinds.yaml"
    path.write_text(
        'version: 1\nrules:\n  - {name: made, forbid: kind == "policy"}\n  - {name: sure, require: seeds >= 5}\n'
    )
    assert run(app, [*front, "--rules", str(path), "--mode", "balanced", "--explain"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "misses least, breaking sure: require seeds >= 5;" in out
    assert "of the range" not in out
    assert 'Rule made: forbid kind == "policy": without the rule' in out


def test_a_dry_run_shows_what_each_rule_does(
    front: list[str], rules: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, [*front, *rules, "--context", "load=0.1", "--dry-run"])["dry_run"]["runs"][0]
    thrift = next(rule for rule in found["rules"] if rule["rule"] == "thrift")
    outside = sum(candidate.mean[0] > 1 for candidate in toy_front().candidates)
    assert (thrift["status"], thrift["excludes"], thrift["binds"]) == ("active", outside, True)
    assert found["choice"] in found["feasible"]
    assert run(app, [*front, *rules, "--context", "load=0.1", "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"toy: {11 - outside} of 11 candidates keep the rules; choice {found['choice']}" in out
    assert "thrift: require cost <= 1 EUR; load < 0.5 is true with load = 0.1" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--mode", "party"], "unknown mode 'party'; allowed: balanced, cheap"),
        (["--method", "guess"], "unknown method 'guess'; allowed:"),
        (["--mode", "cheap", "--weights", "cost=1"], "--mode and --weights exclude each other"),
        (["--weights", "cost"], "must be objective=number"),
        (["--weights", ""], "must be objective=number"),
        (["--weights", "cost=1,cost=2"], "names 'cost' twice"),
        (["--weights", "cost=much"], "--weights cost=much: expected a number"),
        (["--weights", "cost=nan"], "weights.cost must be finite and >= 0"),
        (["--weights", "cost=-1"], "weights.cost must be finite and >= 0"),
        (["--weights", "cost=0"], "weights sums to 0"),
        (["--weights", "speed=1"], "unknown weights objective 'speed'; allowed: cost, quality"),
        (["--context", "load=1"], "--context is about rules; name a file with --rules"),
        (["--dry-run"], "--dry-run is about rules; name a file with --rules"),
        (["--rules", "/nowhere.yaml"], "/nowhere.yaml"),
        (["stray"], "unexpected argument 'stray'"),
        (["load=1"], "unexpected argument 'load=1'"),
        (["--label", "x"], "--front and --label name different fronts"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], expected: str, front: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, [*front, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--context", "load"], "unexpected argument 'load'"),
        (["--context", "load=1", "load=2"], "--context load is given twice"),
        (["--context", "speed=1"], "speed"),
        (["--context", "load=high"], "load"),
    ],
    ids=str,
)
def test_a_context_fits_the_rules(
    arguments: list[str], expected: str, front: list[str], rules: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, [*front, *rules, *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_an_unknown_scenario_is_named_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["resolve", "chess"]) == 2
    assert "unknown scenario 'chess'; allowed: network5g, recsys" in capsys.readouterr().err
