"""``rlaas train``: what it shows, what it says at the end, and what it refuses before a Ray is started."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.processes import RLAAS, TESTS, environment, free_port
from support.telemetry_kit import row
from support.toy import ToyScenario

from rlaas.cli.main import app, run
from rlaas.cli.training_screen import TrainingLog, TrainingScreen, training_document, training_summary
from rlaas.registry import PolicyVersion
from rlaas.training import (
    GymnasiumScenario,
    Reporter,
    TelemetryReport,
    TrainingConfig,
    TrainingRun,
    front_quality,
)

CONFIG = TrainingConfig(environment="CartPole-v1", steps=200)


@pytest.fixture
def finished() -> TrainingRun:
    seconds = {"environment": 20.0, "sample": 10.0, "learn": 60.0, "sync": 0.0, "other": 10.0}
    return TrainingRun(
        bundle=Path("/runs/[night]/bundle"),
        checkpoint=Path("/runs/[night]/checkpoint"),
        metrics={
            "steps": 60_000.0,
            "updates": 7_432.0,
            "seconds": 100.0,
            "steps_per_second": 600.0,
            "reward": 0.75,
            "first_reward": 0.5,
            "return": 15.5,
            **{f"seconds_{phase}": value for phase, value in seconds.items()},
        },
        curve=[{"step": 60_000.0, "reward": 0.75, "critic_loss": 0.125}],
        front=None,
        mlflow_run_id="0a1b",
        telemetry=TelemetryReport(
            mlflow_run_id="0a1b",
            tensorboard=Path("/runs/[night]/tensorboard"),
            progress_log=None,
            problems={"progress log": "[Errno 28] No space left on device"},
        ),
    )


@pytest.fixture
def version() -> PolicyVersion:
    return PolicyVersion(name="toy", version=3, aliases=("candidate",), created_us=1, run_id="0a1b", digest="d")


def _printed(renderable: Any, width: int = 100) -> list[str]:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(renderable)
    console.file.close()
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [60, 100])
def test_the_summary_says_where_the_time_went_and_what_there_is(
    width: int, finished: TrainingRun, version: PolicyVersion
) -> None:
    lines = _printed(training_summary(finished, version), width)
    text = "\n".join(lines)
    assert lines[0] == "Where 100.0 s of training went"
    table = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert table == [
        ["environment", "20.0", "20%"],
        ["sampling beside it", "10.0", "10%"],
        ["learning", "60.0", "60%"],
        ["exchange of weights", "0.0", "0%"],
        ["starting and the rest", "10.0", "10%"],
    ]
    facts = dict(line.split("  ", 1) for line in lines if "  " in line and "│" not in line and not line.startswith(" "))
    stripped = {key: value.strip() for key, value in facts.items()}
    assert stripped["steps"] == "60,000, 600 a second"
    assert stripped["critic loss"] == "0.125 in the last iteration"
    # Brackets are part of the path and no markup.
    assert stripped["bundle"] == "/runs/[night]/bundle"
    assert stripped["policy"] == "toy version 3, candidate"
    assert stripped["MLflow run"] == "0a1b"
    assert "progress log: [Errno 28] No space left" in text
    assert all(len(line) <= width for line in lines)


def test_the_summary_says_how_good_the_front_is(finished: TrainingRun, version: PolicyVersion) -> None:
    scenario = GymnasiumScenario("mo_gymnasium:deep-sea-treasure-v0")
    candidates: dict[str, dict[str, float]] = {"policy@a": {}, "policy@b": {}, "policy@c": {}}
    values = np.array([[[1.0, -2.0], [3.0, -2.0]], [[8.0, -3.0], [8.0, -5.0]], [[0.0, -9.0], [0.0, -9.0]]])
    evaluation = front_quality(
        scenario, candidates, values, (1, 2), gamma=0.9, reference={"return_0": 0.0, "return_1": -10.0}, cut_episodes=3
    )
    judged = dataclasses.replace(finished, front=evaluation.front, evaluation=evaluation)
    lines = [line.strip() for line in _printed(training_summary(judged, version))]
    facts = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines if re.search(r"\w {2,}\w", line))
    assert facts["front"] == "2 of 3 preferences not dominated"
    assert facts["judged by"] == "returns discounted by 0.9; intervals of 95 % over 2 seeds"
    # 8 x 6 and 2 x 2 more; the first seed alone gives 8 x 7 and 1 x 1, the second 8 x 5 and 3 x 3.
    assert facts["hypervolume"] == "52 [49, 57]"
    assert facts["cut off"] == "3 episodes, after evaluation_steps"
    document = json.loads(json.dumps(training_document(judged, version), allow_nan=False))
    assert document["evaluation"]["hypervolume"]["value"] == pytest.approx(52.0)
    assert document["evaluation"]["reference"] == {"return_0": 0.0, "return_1": -10.0}
    without = front_quality(scenario, candidates, values, (1, 2))
    text = "\n".join(_printed(training_summary(dataclasses.replace(finished, evaluation=without), version)))
    assert "none: the configuration names no evaluation_reference" in text
    assert "undiscounted returns; intervals of 95 % over 2 seeds" in text
    single = front_quality(scenario, candidates, values[:, :1], (1,))
    text = "\n".join(_printed(training_summary(dataclasses.replace(finished, evaluation=single), version)))
    assert "undiscounted returns; one seed, so no intervals" in text
    assert training_document(finished, version)["evaluation"] is None


def test_the_document_says_the_same(finished: TrainingRun, version: PolicyVersion) -> None:
    document = json.loads(json.dumps(training_document(finished, version), allow_nan=False))
    assert document["policy"] == {"name": "toy", "version": 3}
    assert document["metrics"]["seconds_learn"] == 60.0
    assert document["telemetry"] == {
        "mlflow_run_id": "0a1b",
        "tensorboard": "/runs/[night]/tensorboard",
        "progress_log": None,
        "problems": {"progress log": "[Errno 28] No space left on device"},
    }


def _drawn(width: int, iterations: int) -> str:
    with Path("/dev/null").open("w") as nowhere:
        console = Console(width=width, record=True, force_terminal=True, file=nowhere)
        screen = TrainingScreen(console)
        screen.started(CONFIG, ToyScenario())
        for step in range(1, iterations + 1):
            screen.iteration(row(100 * step, gpu0_utilization=0.93))
        screen.finished({})
        screen.close()
    return console.export_text()


def test_the_screen_shows_how_far_it_is_how_fast_and_what_it_learns() -> None:
    last = _drawn(100, 1).splitlines()[-2:]
    assert "50%" in last[0]
    assert "left" in last[0]
    assert last[1].strip() == "100 steps/s · reward 0.5 · critic loss 0.01 · GPU 0 93%"


def test_a_narrow_screen_cuts_the_note_and_keeps_the_bar() -> None:
    last = _drawn(40, 2).splitlines()[-2:]
    assert "100%" in last[0]
    assert len(last[1]) <= 40


def test_where_stderr_is_no_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    screen = TrainingScreen()
    screen.started(CONFIG, ToyScenario())
    screen.iteration(row(100))
    screen.finished({})
    screen.close()
    assert capsys.readouterr() == ("", "")


def test_a_jobs_log_has_a_line_a_tenth_and_one_about_the_time(
    capsys: pytest.CaptureFixture[str], finished: TrainingRun
) -> None:
    log = TrainingLog()
    log.started(CONFIG, ToyScenario())
    for step in range(5, 205, 5):
        log.iteration(row(step))
    log.finished(finished.metrics)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 12
    # A hundredth of a second a step.
    assert lines[5] == "train: 100/200, 1 s left, 100 steps/s, reward 0.5, critic loss 0.01"
    assert lines[11] == (
        "train: 100.0 s: environment 20%, sampling beside it 10%, learning 60%, exchange of weights 0%, "
        "starting and the rest 10%"
    )


def test_screen_and_log_are_reporters() -> None:
    assert isinstance(TrainingScreen(), Reporter)
    assert isinstance(TrainingLog(), Reporter)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str], config: Path) -> str:
    import ray

    config.write_text("environment: CartPole-v1\nsteps: 100\n")
    before = ray.is_initialized()
    assert run(app, ["train", "--config", str(config), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert ray.is_initialized() == before, "another test's Ray is none of this command's"
    (line,) = err.splitlines()
    return line


def test_a_port_in_use_is_refused_before_a_ray_is_started(
    taken: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = _refused(["--metrics-port", str(taken)], capsys, tmp_path / "c.yaml")
    assert line == (
        f"error: metrics_port: cannot listen on 127.0.0.1:{taken}: Address already in use; choose another port"
    )


def test_an_mlflow_that_does_not_answer_is_refused_before_a_ray_is_started(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("RLAAS_MLFLOW_URL", url)
    line = _refused([], capsys, tmp_path / "c.yaml")
    assert line.startswith(f"error: mlflow_url: no MLflow server answers at {url}: ")


def test_a_folder_that_holds_something_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = _refused(["--output", str(tmp_path)], capsys, tmp_path / "c.yaml")
    assert line == f"error: --output {tmp_path} is not empty; allowed: a new or an empty folder"
    line = _refused(["--output", str(tmp_path / "c.yaml")], capsys, tmp_path / "c.yaml")
    assert line.endswith("is a file; allowed: a folder")


@pytest.mark.ray
def test_train_leaves_one_document_and_every_trace(repository: Path, tmp_path: Path) -> None:
    config, output = tmp_path / "cartpole.yaml", tmp_path / "run"
    config.write_text(
        "environment: CartPole-v1\nnum_envs: 16\nsteps: 2048\nppo:\n  rollout_length: 32\n  minibatch: 128\n"
    )
    arguments = [
        "train",
        "--config",
        str(config),
        "--output",
        str(output),
        "--metrics-port",
        str(free_port()),
        "--json",
    ]
    done = subprocess.run(
        [RLAAS, *arguments],
        env=environment(tmp_path / "home", PYTHONPATH=f"{repository}:{TESTS}"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "where stderr is no terminal, it holds warnings and errors and nothing else"
    document = json.loads(done.stdout)
    assert document["policy"] is None
    assert document["telemetry"]["problems"] == {}
    assert document["telemetry"]["mlflow_run_id"] == (output / "mlflow-run").read_text().strip()
    assert len(Path(document["telemetry"]["progress_log"]).read_text().splitlines()) == 4
    assert len(list(Path(document["telemetry"]["tensorboard"]).iterdir())) == 1
    assert Path(document["bundle"]) == output / "bundle"
    metrics = document["metrics"]
    assert sum(v for k, v in metrics.items() if k.startswith("seconds_")) == pytest.approx(metrics["seconds"])
