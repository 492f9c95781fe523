"""Each sink with the real thing behind it: files, ports, a full disk."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.event_files import events, scalars
from support.processes import free_port
from support.telemetry_kit import Clock, row
from training_toys import Toy

from rlaas.errors import ConfigurationError
from rlaas.training import Telemetry, TrainingConfig
from rlaas.training.telemetry import GAUGES, RUN_LABELS
from rlaas.training.telemetry.figures import Gauge
from rlaas.training.telemetry.jsonl import ProgressLog
from rlaas.training.telemetry.prometheus import HttpBoard, Prometheus
from rlaas.training.telemetry.tensorboard import TensorBoard
from rlaas.training.telemetry.throttle import Throttle

CONFIG = TrainingConfig(scenario="training_toys:Toy", steps=1000)
Values = dict[tuple[str, str | None], float]


def _started(*reporters: ProgressLog | TensorBoard | Prometheus) -> Telemetry:
    telemetry = Telemetry(reporters)
    telemetry.started(CONFIG, Toy())
    return telemetry


def test_the_progress_log_has_a_line_per_iteration_at_once(tmp_path: Path) -> None:
    log = ProgressLog(tmp_path / "run" / "progress.jsonl")
    with _started(log) as telemetry:
        for step in (1, 2):
            telemetry.iteration(row(step))
        lines = [json.loads(line) for line in log.path.read_text().splitlines()]
        assert [line["step"] for line in lines] == [1.0, 2.0]
        assert {**lines[1], "time": ""} == {"time": "", **row(2)}
        assert lines[0]["time"].endswith("+00:00")
        telemetry.iteration(row(3, critic_loss=float("nan")))
    # A run that goes on from a checkpoint adds to it.
    with _started(ProgressLog(log.path)) as telemetry:
        telemetry.iteration(row(4))
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1.0, 2.0, 3.0, 4.0]
    assert lines[2]["critic_loss"] is None


def test_a_full_disk_costs_the_log_and_not_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A device that opens and takes nothing, as a full disk does.
    (tmp_path / "progress.jsonl").symlink_to("/dev/full")
    log, board = ProgressLog(tmp_path / "progress.jsonl"), TensorBoard(tmp_path / "board", Throttle(0.0, 0.5))
    with _started(log, board) as telemetry:
        for step in (1, 2, 3):
            telemetry.iteration(row(step))
        telemetry.finished({"steps": 3.0})
    assert telemetry.problems == {"progress log": "[Errno 28] No space left on device"}
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert scalars(tmp_path / "board")["train/reward"][-1] == (3, 0.5)


@pytest.fixture
def no_file_may_grow(tmp_path: Path) -> Iterator[None]:
    """Every file of this process ends at 4 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_tensorboard_and_neither_hangs_nor_ends_the_training(
    tmp_path: Path, no_file_may_grow: None
) -> None:
    said: list[str] = []
    board = TensorBoard(tmp_path / "board", Throttle(0.0, 1.0, clock := Clock()))
    telemetry = Telemetry([board], say=said.append)
    telemetry.started(CONFIG, Toy())
    # Far more than the ten that tensorboardX's own queue would hold before it blocks.
    for step in range(1, 200):
        clock.now += 1.0
        telemetry.iteration(row(step))
    telemetry.finished({"steps": 200.0})
    telemetry.close()
    assert [line.split(": ")[-1] for line in said] == ["[Errno 27] File too large"]
    assert set(telemetry.problems) == {"tensorboard"}


def test_tensorboard_has_configuration_curves_and_the_last_row(tmp_path: Path) -> None:
    clock = Clock()
    with _started(TensorBoard(tmp_path, Throttle(10.0, 0.5, clock))) as telemetry:
        for step in range(1, 26):
            telemetry.iteration(row(step, gpu0_utilization=0.5))
            clock.now += 1.0
        telemetry.finished({"steps": 25.0, "reward": 0.75})
    found = scalars(tmp_path)
    # Due at 0, 10 and 20 seconds; the last row is never left out.
    assert [step for step, _ in found["loss/critic"]] == [1, 11, 21, 25]
    assert found["objective/mirror"][0] == (1, 0.75)
    assert found["time/environment_seconds"][-1] == (25, 0.0625)
    assert found["gpu/0_utilization_ratio"][-1] == (25, 0.5)
    assert found["final/reward"] == [(25, 0.75)]
    first, config, *_ = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    text = config.summary.value[0].tensor.string_val[0].decode()
    assert json.loads(text.removeprefix("```json").removesuffix("```"))["scenario"] == "training_toys:Toy"


def test_two_runs_of_one_second_have_a_file_each(tmp_path: Path) -> None:
    for _ in range(2):
        with _started(TensorBoard(tmp_path, Throttle(0.0, 0.5))) as telemetry:
            telemetry.iteration(row(1))
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path)["train/reward"] == [(1, 0.5)] * 2


@pytest.mark.parametrize(("sink", "field"), [(ProgressLog, "output"), (TensorBoard, "tensorboard")])
def test_a_folder_that_cannot_be_is_refused(sink: type, field: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "run" / "further"
    reporter = sink(place) if sink is ProgressLog else sink(place, Throttle(1.0, 0.5))
    with pytest.raises(ConfigurationError, match="cannot be written: Not a directory") as caught:
        _started(reporter)
    assert caught.value.field == field


def _scraped(url: str) -> Values:
    """Values by gauge and own label."""
    found: Values = {}
    for family in text_string_to_metric_families(httpx.get(url).text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert {label: labels.pop(label) for label in RUN_LABELS} == {
                "scenario": "toy",
                "algorithm": "sac",
                "run": "night-3",
                "tenant": "acme",
            }
            found[sample.name, next(iter(labels.values()), None)] = sample.value
    return found


def test_gauges_are_served_while_the_training_runs() -> None:
    board, clock = HttpBoard("127.0.0.1", free_port()), Clock()
    throttle = Throttle(10.0, 0.5, clock)
    with _started(Prometheus([board], run="night-3", tenant="acme", throttle=throttle)) as telemetry:
        assert _scraped(board.url) == {
            ("rlaas_training_running", None): 1.0,
            ("rlaas_training_steps_wanted", None): 1000.0,
        }
        telemetry.iteration(row(4))
        telemetry.iteration(row(8))
        served = _scraped(board.url)
        assert served["rlaas_training_steps", None] == 4.0
        assert served["rlaas_training_steps_per_second", None] == 100.0
        assert served["rlaas_training_loss", "critic"] == 0.25
        assert served["rlaas_training_learner", "entropy"] == 2.0
        assert served["rlaas_training_objective_reward", "mirror"] == 0.75
        assert served["rlaas_training_phase_seconds", "environment"] == 0.01
        # No GPU, no gauge: zero would be a figure.
        assert not any("gpu" in name for name, _ in served)
        telemetry.finished({"steps": 8.0})
        served = _scraped(board.url)
        assert served["rlaas_training_steps", None] == 8.0
        assert (served["rlaas_training_running", None], served["rlaas_training_steps_per_second", None]) == (0.0, 0.0)
        assert {name for name, _ in served} <= set(GAUGES)
    with pytest.raises(httpx.TransportError):
        httpx.get(board.url)


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        prometheus = Prometheus([HttpBoard("127.0.0.1", port)], run="r", tenant="t", throttle=Throttle(1.0, 0.5))
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}: Address already in use") as caught:
            _started(prometheus, ProgressLog(tmp_path / "progress.jsonl"))
    assert caught.value.field == "metrics_port"
    assert list(tmp_path.iterdir()) == []


class CountingBoard:
    """Counts, and lets time pass."""

    def __init__(self, clock: Clock, cost: float) -> None:
        self.clock, self.cost, self.count = clock, cost, 0

    def open(self) -> None:
        self.count = 0

    def set(self, gauge: Gauge, value: float, labels: Mapping[str, str]) -> None:
        self.count += 1
        self.clock.now += self.cost

    def close(self) -> None:
        self.count = -1


@pytest.mark.parametrize("cost", [2e-6, 1e-3])
def test_gauges_take_less_than_their_share(cost: float) -> None:
    clock = Clock()
    board = CountingBoard(clock, cost)
    telemetry = _started(Prometheus([board], run="r", tenant="t", throttle=Throttle(1.0, 0.001, clock)))
    for step in range(1, 10_001):
        clock.now += 0.02
        telemetry.iteration(row(step))
    per_row = len(row(1)) + 2
    rows = board.count / per_row
    # 200 seconds: at most a row a second, and at most a thousandth of the time (beside the first row).
    assert rows <= 202
    assert (board.count - per_row) * cost <= 0.001 * clock.now
    assert rows >= (150 if cost < 1e-5 else 10)
