"""Bad usage: exit status 2, one line that names the field and what is allowed, nothing half-done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaas.cli.main import app, run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["demo", "--scenario", "chess"], "unknown scenario 'chess'; allowed: network5g, recsys"),
        (["demo", "--steps", "0"], "--steps"),
        (["demo", "--port", "70000"], "--port"),
        (["demo", "--traffic-steps", "1"], "--traffic-steps"),
        (["demo", "--scenario", "nowhere:Nothing"], "'nowhere:Nothing' cannot be loaded"),
        (["demo", "--stepz", "1"], "No such option: --stepz"),
        (["scenarios", "show", "../etc"], "unknown scenario '../etc'"),
        (["evaluate", "network5g", "--baseline", "best"], "unknown baseline 'best'; allowed:"),
        (["evaluate", "network5g", "--option", "size=tiny"], "unknown size 'tiny'; allowed: large, medium, small"),
        (["evaluate", "network5g", "--option", "size"], "must be name=value"),
        (["evaluate", "network5g", "--protocol", "tiny"], "unknown protocol 'tiny'; allowed: full, short"),
        (["evaluate", "network5g", "--seed", "-1"], "--seed"),
        (["evaluate", "network5g", "--policy", "7"], "network5g"),
        (["resolve", "network5g", "--mode", "party"], "unknown mode 'party'; allowed:"),
        (["resolve", "network5g", "--front", "/nowhere.json"], "--front /nowhere.json: No such file or directory"),
        (["train"], "exactly one of --config and --scenario"),
        (["train", "--scenario", "chess"], "unknown scenario 'chess'"),
        (["train", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["train", "--resume", "/nowhere"], "/nowhere holds no run to resume"),
        (["train", "--resume", "/nowhere", "--steps", "5"], "leave out --config, --scenario, --output, --steps"),
        (["train", "--scenario", "network5g", "--metrics-port", "70000"], "--metrics-port"),
        (["fit", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["fit"], "--config"),
        (["optimize", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["tune"], "--config"),
        (["tune", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["tune", "--config", "configs/tuning/network5g.yaml", "--trials", "0"], "trials: must be >= 1"),
        (["tune", "--config", "configs/tuning/network5g.yaml", "--resume"], "holds no search to resume"),
        (["federate", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["federate"], "Missing option '--config'"),
        (["serve", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["policies", "promote", "ghost", "1"], "ghost"),
        (["policies", "promote", "../ghost", "1"], "not a plain name"),
        (["decide", "p", "--observation", "[1,"], "--observation is not JSON"),
        (["decide", "p", "--observation", "3"], "--observation must be a JSON list"),
        (["decide", "p", "--observation", "[1]", "--url", "here:80"], "must begin with http:// or https://"),
        (["serve", "--address", "localhost:1"], "no Ray answers at address 'localhost:1'"),
        (["serve", "--host", "192.0.2.1"], "--host '192.0.2.1' is not an address of this machine"),
        (["fly"], "No such command 'fly'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(app, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    "kind", ["training/network5g-sac", "offline/recsys", "optimization/network5g", "serving/local", "pipeline/recsys"]
)
def test_unknown_config_key_names_file_key_and_choices(
    kind: str, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rlaas.errors import ConfigurationError
    from rlaas.optimization import load_optimization_config
    from rlaas.pipeline import load_pipeline_config
    from rlaas.serving import load_serving_config
    from rlaas.training import load_config, load_offline_config

    loaders = {
        "training": load_config,
        "offline": load_offline_config,
        "optimization": load_optimization_config,
        "serving": load_serving_config,
        "pipeline": load_pipeline_config,
    }
    source = repository / "configs" / f"{kind}.yaml"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(source.read_text() + "\nstepz: 1\n")
    with pytest.raises(ConfigurationError) as caught:
        loaders[kind.split("/", maxsplit=1)[0]](wrong)
    message = str(caught.value)
    assert "wrong.yaml" in message
    assert "stepz" in message
    assert "allowed: " in message
    assert "\n" not in message


def test_front_of_another_scenario_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from support.toy import ToyScenario

    from rlaas.fronts import Candidate, Front

    toy = ToyScenario()
    candidate = Candidate(name="a", kind="policy", mean=(1.0, 2.0), half_width=(0.1, 0.1))
    path = tmp_path / "front.json"
    path.write_text(json.dumps(Front.of("toy", toy.objectives, [candidate]).to_dict()))
    assert run(app, ["resolve", "network5g", "--front", str(path)]) == 2
    assert "front.json holds a front of toy, not of network5g" in capsys.readouterr().err


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["scenarios", "--json"]) == 0
    captured = capsys.readouterr()
    assert [s["name"] for s in json.loads(captured.out)] == ["network5g", "recsys"]


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["--help"]) == 0
    out = capsys.readouterr().out
    for command in (
        "demo",
        "serve",
        "scenarios",
        "train",
        "optimize",
        "pipeline",
        "evaluate",
        "resolve",
        "policies",
        "decide",
        "lake",
    ):
        assert command in out


def test_a_group_without_a_command_shows_its_help_and_no_empty_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["fronts"]) == 2
    assert "error" not in capsys.readouterr().err


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    import rlaas

    assert run(app, ["--version"]) == 0
    assert capsys.readouterr().out == f"rlaas {rlaas.__version__}\n"
