"""``rlaas optimize`` on a real Ray: what it prints, a killed driver, and every option that is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlaas.cli.main import app, run
from rlaas.cli.optimize_screen import sparkline
from rlaas.fronts import Front

CONFIG = """
scenario: {scenario}
tunable: static
generations: {generations}
population: 12
seeds: [101]
steps: 20
warmup: 2
way: {way}
race: {{seeds_per_round: 2, budget: 60}}
seed: 3
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def _config(
    place: Path, *, scenario: str = "recsys", generations: int = 4, way: str = "serial", more: str = ""
) -> Path:
    file = place / "search.yaml"
    file.write_text(CONFIG.format(scenario=scenario, generations=generations, way=way) + more)
    return file


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from rlaas.cli import main; main()", "optimize", *map(str, arguments)]


def _run(place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RLAAS_HOME": str(place / "home")}
    return subprocess.run(
        _command(*arguments), capture_output=True, text=True, check=False, env=environment, timeout=240
    )


@pytest.mark.ray
def test_the_front_is_found_raced_and_written(place: Path) -> None:
    config = _config(place, way="auto")
    done = _run(place, "--config", config, "--json", "--output", place / "run")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["search"]["plan"]["way"] in ("serial", "batched")
    assert document["search"]["plan"]["reason"]
    assert document["search"]["evaluations"] == 48
    assert document["race"]["seeds"] >= 2
    front = Front.from_dict(json.loads(Path(document["front"]).read_text()))
    assert len(front.candidates) == document["candidates"] >= 1
    assert front.version == document["version"]
    assert all(len(candidate.seeds) == document["race"]["seeds"] for candidate in front.candidates)
    # The same folder is not searched twice by accident, and a warm start begins with what was found.
    again = _run(place, "--config", config, "--output", place / "run")
    assert again.returncode == 2
    assert "holds a search already; add --resume" in again.stderr
    warm = _run(place, "--config", _config(place, generations=1, more=f"warm_start: {document['front']}\n"))
    assert warm.returncode == 0, warm.stderr
    assert "1 generations" in warm.stdout


@pytest.mark.ray
def test_a_killed_search_goes_on_where_it_was(place: Path) -> None:
    # Long enough to be killed in the middle; its state is kept after the first generation.
    config = _config(place, scenario="network5g", generations=300)
    environment = {**os.environ, "RLAAS_HOME": str(place / "home")}
    folder = place / "run"
    process = subprocess.Popen(
        _command("--config", config, "--output", folder),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "state.npz").exists():
        assert process.poll() is None, "the search ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resumed = _run(place, "--config", config, "--output", folder, "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["search"]["evaluations"] == 3_600
    changed = _config(place, scenario="network5g", generations=300, more="algorithm: unsga3\n")
    other = _run(place, "--config", changed, "--output", folder, "--resume")
    assert other.returncode == 2
    assert "it differs in algorithm" in other.stderr
    assert len(other.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "options", "complaint"),
    [
        ("algorithm: nsga9\n", (), "algorithm: must be 'nsga3', 'unsga3'"),
        ("stop: {hypervolume: -1}\n", (), "stop.hypervolume: must be > 0, got -1"),
        ("stop: {stal: 3}\n", (), "unknown key 'stop.stal'; allowed: hypervolume, seconds, stall"),
        ("race: {confidence: 2}\n", (), "race"),
        ("warm_start: absent.json\n", (), "absent.json: No such file"),
        ("", ("--way", "sideways"), "unknown way 'sideways'; allowed: asynchronous, auto, batched, islands, serial"),
        ("", ("--resume",), "--resume needs --output"),
        ("", ("--resume", "--output", "absent"), "--output absent holds no search to go on with"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    place: Path,
    more: str,
    options: tuple[str, ...],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RLAAS_HOME", str(place / "home"))
    text = CONFIG.format(scenario="recsys", generations=2, way="serial")
    if more.startswith("race"):
        text = text.replace("race: {seeds_per_round: 2, budget: 60}\n", "")
    config = place / "search.yaml"
    config.write_text(text + more)
    status = run(app, ["optimize", "--config", str(config), *options])
    said = capsys.readouterr().err
    assert status == 2, said
    assert complaint in said
    assert len(said.strip().splitlines()) == 1


def test_the_curve_of_a_search() -> None:
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([0.0, 0.5, 1.0]) == "▁▄█"
    assert len(sparkline(list(range(1_000)))) == 24
