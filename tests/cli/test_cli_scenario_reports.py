"""``rlaas scenarios calibrate``, ``render`` and ``feasibility`` from the command line to the file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlaas.cli.main import app, run
from rlaas.cli.scenario_reports import _options_part, parse_options
from rlaas.errors import ConfigurationError


@pytest.fixture
def data_dir(repository: Path) -> Path:
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"{root} is missing; set RLAAS_DATA_DIR to the folder of measured data")
    return root


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["calibrate", "chess"], "unknown scenario 'chess'"),
        (["calibrate", "network5g", "--data-dir", "/nowhere"], "'/nowhere' does not exist"),
        (["calibrate", "network5g", "--data-dir", "/dev/null"], "'/dev/null' is a file; allowed: an existing folder"),
        (["calibrate", "network5g", "--output", "/dev/null"], "--output /dev/null is a file; allowed: a folder"),
        (["calibrate", "support.toy:ToyScenario"], "toy has no measurements"),
        (["render", "network5g", "--output", "film.mp4"], "--output must end in .gif or .png, got film.mp4"),
        (["render", "network5g", "--output", "a.gif", "--baseline", "best"], "unknown baseline 'best'; allowed:"),
        (["render", "network5g", "--output", "a.gif", "--steps", "0"], "--steps"),
        (["render", "network5g", "--output", "a.gif", "--option", "size"], "must be name=value"),
        (
            ["render", "network5g", "--output", "a.gif", "--option", "colour=red"],
            "unknown option of scenario network5g",
        ),
        (["render", "support.toy:ToyScenario", "--output", "a.gif"], "toy draws no pictures"),
        (["render", "network5g"], "Missing option '--output'"),
        (["render", "os:path", "--output", "a.gif"], "scenario 'os:path' is a module, not a Scenario"),
        (["render", "builtins:dict", "--output", "a.gif"], "scenario 'builtins:dict' is dict, not a Scenario"),
        (["render", "os:system", "--output", "a.gif"], "scenario 'os:system' cannot be made: missing"),
        (["render", "os:getcwd", "--output", "a.gif"], "scenario 'os:getcwd' gave a str, not a Scenario"),
        (
            ["render", "network5g", "--output", "/dev/null/a.gif"],
            "--output /dev/null/a.gif cannot be created: /dev/null",
        ),
        (["render", "network5g", "--output", "/dev/null/b/a.gif"], "cannot be created: /dev/null is a file"),
        (["feasibility", "network5g", "--output", "/dev/null/b"], "--output /dev/null/b cannot be created: /dev/null"),
        (
            ["render", "network5g", "--output", "/proc/nowhere/a.gif"],
            "--output /proc/nowhere/a.gif cannot be written: ",
        ),
        (["feasibility", "network5g", "--seed", "-1"], "--seed"),
        (["feasibility", "network5g", "--load", "wild"], "unknown load 'wild'; allowed: high, low, mid"),
        (["feasibility", "network5g", "--tunable", "magic"], "unknown tunable 'magic'; allowed: reactive, static"),
        (["feasibility", "network5g", "--population", "2"], "population must be at least 8, got 2"),
        (["feasibility", "network5g", "--load", "low", "--option", "load=low"], "option load is given twice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, ["scenarios", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    # Nothing beside it, no progress bar either: stderr is no terminal here.
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    assert expected in captured.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=str)
def test_an_error_behind_a_progress_bar_is_one_line_where_stderr_is_no_terminal(
    flags: list[str], tmp_path: Path
) -> None:
    arguments = ["calibrate", "support.toy:ToyScenario", "--output", str(tmp_path), *flags]
    done = subprocess.run(
        [sys.executable, "-c", "from rlaas.cli import main; main()", "scenarios", *arguments],
        capture_output=True,
        text=True,
        check=False,
        # Colours on demand do not make a file a terminal.
        env={**os.environ, "FORCE_COLOR": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: toy has no measurements to compare with\n")


def test_json_of_the_list_is_not_passed_over_before_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["scenarios", "--json", "show", "network5g"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: --json goes behind show\n")


def test_show_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["scenarios", "show", "network5g", "--json"]) == 0
    options = json.loads(capsys.readouterr().out)["options"]
    assert options["size"] == "small"
    assert options["hour"] is None
    assert run(app, ["scenarios", "show", "network5g"]) == 0
    assert "episode_steps" in capsys.readouterr().out


def test_file_names_tell_options_apart() -> None:
    assert _options_part({}) == ""
    assert _options_part({"size": "medium", "load": "high"}) == "-load=high-size=medium"
    assert _options_part({"load": "high", "size": "medium"}) == "-load=high-size=medium"
    assert _options_part({"cells": 3, "sectors": 1}) != _options_part({"cells": 1, "sectors": 3})
    events = [[{"kind": "outage", "cell": cell, "at_s": 1.0} for cell in range(30)] for _ in range(2)]
    events[1][7]["cell"] = 2
    long = [_options_part({"events": one, "load": "low"}) for one in events]
    assert long[0] != long[1]
    for name in (*long, _options_part({"sites": "../a b/$(rm).csv"}), _options_part({"users": "9" * 300})):
        assert re.fullmatch(r"(-load=low)?-[0-9a-f]{12}", name)


def test_the_page_says_the_options_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = "x" * 120
    arguments = ["support.toy:WishfulToy", "--option", f"wish={wish}", "--quick", "--output", str(tmp_path), "--json"]
    assert run(app, ["scenarios", "feasibility", *arguments]) == 0
    page = Path(json.loads(capsys.readouterr().out)["page"])
    assert re.fullmatch(r"toy-feasibility-[0-9a-f]{12}\.md", page.name)
    assert page.read_text(encoding="utf-8").startswith(f"# Feasibility of toy (wish={wish})\n")


def test_a_folder_is_no_file_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "film.gif"
    folder.mkdir()
    assert run(app, ["scenarios", "render", "network5g", "--output", str(folder)]) == 2
    assert capsys.readouterr().err == f"error: --output {folder} is a folder; allowed: a file\n"
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_noticed_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    try:
        assert run(app, ["scenarios", "render", "network5g", "--output", str(tmp_path / "a" / "b.gif")]) == 2
    finally:
        tmp_path.chmod(0o700)
    assert "b.gif cannot be written: Permission denied" in capsys.readouterr().err


def test_options_are_yaml_values() -> None:
    given = ["size=medium", "cells=21", "hour=3.5", "events=[{kind: outage, cell: 0}]", "users=null"]
    assert parse_options(given) == {
        "size": "medium",
        "cells": 21,
        "hour": 3.5,
        "events": [{"kind": "outage", "cell": 0}],
        "users": None,
    }
    with pytest.raises(ConfigurationError, match="no YAML value"):
        parse_options(["cells=[1"])


def test_an_animation_shows_a_network_that_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "film.gif"
    arguments = ["scenarios", "render", "network5g", "--steps", "6", "--every", "2", "--output", str(file), "--json"]
    assert run(app, arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "scenario": "network5g",
        "baseline": "default",
        "frames": 3,
        "output": str(file),
    }
    with Image.open(file) as film:
        assert film.n_frames == 3
        frames = []
        for i in range(3):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB")))
    assert min(frames[0].shape[:2]) > 300
    assert (frames[0] != frames[1]).any()
    assert (frames[1] != frames[2]).any()


def test_a_picture_is_the_last_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rlaas.scenarios import load

    file = tmp_path / "picture.png"
    arguments = ["--option", "size=medium", "--baseline", "load_sleep", "--steps", "3", "--seed", "5"]
    assert run(app, ["scenarios", "render", "network5g", *arguments, "--output", str(file)]) == 0
    assert "1 frame of network5g under load_sleep" in capsys.readouterr().out
    scenario = load("network5g", size="medium")
    env = scenario.vector_env(1, 5)
    observation, _ = env.reset(seed=5)
    controller = scenario.baselines["load_sleep"].make()
    controller.reset(env.num_envs, 5)
    for _ in range(3):
        observation = env.step(controller.act(observation))[0]
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), scenario.picture(env))


def test_feasibility_prints_the_verdict_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["feasibility", "support.toy:ToyScenario", "--quick", "--output", str(tmp_path)]
    assert run(app, ["scenarios", *arguments]) == 0
    out = capsys.readouterr().out
    assert "No controller found meets all 2 targets together" in " ".join(out.split())
    page = tmp_path / "toy-feasibility.md"
    assert page.read_text(encoding="utf-8").startswith("# Feasibility of toy\n")
    assert (tmp_path / "toy-feasibility-parallel.png").is_file()
    assert run(app, ["scenarios", *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["page"] == str(page)
    assert document["report"]["sections"][0]["title"] == "Each objective alone"
    assert document["verdict"] in page.read_text(encoding="utf-8")


def test_calibrating_recsys_adds_the_replay_of_its_logs(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data-dir", str(data_dir), "--output", str(tmp_path), "--quick", "--json"]
    assert run(app, ["scenarios", "calibrate", "recsys", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    titles = [section["title"] for section in document["report"]["sections"]]
    assert titles == [
        "Click level",
        "Clicks by position",
        "Are the logged propensities sound?",
        "Off-policy estimators on the logs",
    ]
    levels = document["report"]["sections"][0]["rows"]
    assert {row["policy"]: row["clicks"] for row in levels[:4]} == {
        "random / all": 38,
        "bts / all": 42,
        "random / men": 46,
        "bts / men": 69,
    }
    assert (tmp_path / "recsys-calibration-positions.png").is_file()


def test_baselines_are_evaluated_under_options(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for load in ("low", "high"):
        given = ["evaluate", "network5g", "--baseline", "default", "--option", f"load={load}"]
        assert run(app, [*given, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["options"] == {"load": load}
        found[load] = document["results"]["default"]["throughput"]["mean"]
    assert found["low"] > 1.5 * found["high"]
    assert run(app, given) == 0
    assert "network5g, load=high," in capsys.readouterr().out
