"""The parts of telemetry alone: clocks, names, GPUs, and that no reporter can stop a training."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray._private.thirdparty import pynvml
from support.telemetry_kit import Clock, Recorder, row
from training_toys import Toy

from rlaas.errors import ConfigurationError
from rlaas.training import Reporter, Telemetry, TelemetryConfig, TrainingConfig
from rlaas.training.telemetry import GAUGES, RUN_LABELS, figure_of
from rlaas.training.telemetry.courier import Courier
from rlaas.training.telemetry.gpus import Gpus, find_nvml
from rlaas.training.telemetry.throttle import Throttle
from rlaas.training.timing import Stopwatch, breakdown

CONFIG = TrainingConfig(scenario="training_toys:Toy")


@pytest.mark.parametrize(("cost", "reports"), [(0.0, 1000), (0.001, 1000), (0.02, 251), (10.0, 1)])
def test_reports_come_at_their_interval_or_as_rarely_as_they_cost(cost: float, reports: int) -> None:
    clock = Clock()
    throttle = Throttle(1.0, 0.005, clock)
    made = 0
    for _ in range(20_000):
        # An iteration takes 50 ms.
        clock.now += 0.05
        if throttle.due():
            made += 1
            with throttle.spending():
                clock.now += cost
    assert made == pytest.approx(reports, rel=0.06)
    assert (made - 1) * cost <= 0.005 * clock.now


def test_a_report_that_fails_is_paid_for_as_well() -> None:
    clock = Clock()
    throttle = Throttle(1.0, 0.01, clock)
    with contextlib.suppress(OSError), throttle.spending():
        clock.now += 2.0
        raise OSError("slow and broken")
    clock.now += 199.0
    assert not throttle.due()
    clock.now += 1.0
    assert throttle.due()


def test_a_stopwatch_adds_up_whatever_happens() -> None:
    clock = Clock()
    watch = Stopwatch("learn", "sync", clock=clock)
    for seconds in (1.0, 2.0):
        with watch.measure("learn"):
            clock.now += seconds
        clock.now += 10.0
    with contextlib.suppress(ValueError), watch.measure("sample"):
        clock.now += 0.5
        raise ValueError("stop")
    assert watch.seconds == {"learn": 3.0, "sync": 0.0, "sample": 0.5}


@pytest.mark.parametrize(
    ("spent", "environment", "sample"),
    [
        ({"sample": 4.0, "environment": 3.0, "learn": 5.0, "sync": 0.5}, 3.0, 1.0),
        # Eight runners step side by side: their seconds are more than those that pass.
        ({"sample": 4.0, "environment": 30.0, "learn": 5.0, "sync": 0.5}, 4.0, 0.0),
    ],
)
def test_parts_exclude_each_other_and_sum_to_the_whole(
    spent: dict[str, float], environment: float, sample: float
) -> None:
    parts = breakdown(spent, 12.0)
    assert parts == {
        "seconds_environment": environment,
        "seconds_sample": sample,
        "seconds_learn": 5.0,
        "seconds_sync": 0.5,
        "seconds_other": 2.5,
    }
    assert sum(parts.values()) == 12.0


def test_every_number_has_one_gauge_and_one_tag() -> None:
    keys = [*row(1), "return", "gpu0_utilization", "gpu1_memory_used_bytes", "policy_loss", "reward_scale"]
    figures = {key: figure_of(key, ["near", "mirror"]) for key in keys}
    assert {figure.gauge for figure in figures.values()} <= set(GAUGES)
    assert len({(figure.gauge, figure.label) for figure in figures.values()}) == len(keys)
    assert len({figure.tag for figure in figures.values()}) == len(keys)
    for figure in figures.values():
        assert (figure.label is None) == (GAUGES[figure.gauge].label is None)
    assert figures["reward_near"].tag == "objective/near"
    # Looks like an objective's and is none: the learner's.
    assert (figures["reward_scale"].gauge, figures["reward_scale"].label) == ("rlaas_training_learner", "reward_scale")


def test_the_documentation_has_every_gauge_with_its_labels(repository: Path) -> None:
    text = (repository / "docs" / "telemetry.md").read_text()
    rows = re.findall(r"^\| `(rlaas_training_\w+)` \|[^|]+\| (?:`(\w+)` )?\|$", text, re.MULTILINE)
    assert rows == [(gauge.name, gauge.label or "") for gauge in GAUGES.values()]
    (heading,) = re.findall(r"^\| gauge \| unit \| labels besides (.*) \|$", text, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", heading)) == RUN_LABELS


class FakeNvml:
    """Two GPUs, of which the second one tells no utilisation. NVIDIA's driver is on no machine that runs the tests."""

    NVMLError = pynvml.NVMLError

    def __init__(self) -> None:
        self.loaded = True

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index > 1:
            raise self.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in ("GPU-a", "GPU-b"):
            raise self.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return ("GPU-a", "GPU-b").index(uuid)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise self.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=87, memory=30)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=(handle + 1) * 2**30, total=80 * 2**30, free=0)

    def nvmlShutdown(self) -> None:
        self.loaded = False


def test_the_fake_has_only_what_nvidias_bindings_have() -> None:
    for name in dir(FakeNvml):
        if name.startswith("nvml"):
            assert callable(getattr(pynvml, name)), name


ALL = {"gpu0_utilization", "gpu0_memory_used_bytes", "gpu0_memory_total_bytes"} | {
    "gpu1_memory_used_bytes",
    "gpu1_memory_total_bytes",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALL),
        ({"CUDA_VISIBLE_DEVICES": "0, 1"}, ALL),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a"}, {key for key in ALL if key.startswith("gpu0")}),
        # The second GPU is this process's first.
        ({"CUDA_VISIBLE_DEVICES": "1"}, {"gpu0_memory_used_bytes", "gpu0_memory_total_bytes"}),
        ({"CUDA_VISIBLE_DEVICES": ""}, set()),
        ({"CUDA_VISIBLE_DEVICES": "-1,0"}, set()),
        ({"CUDA_VISIBLE_DEVICES": "7,0"}, set()),
    ],
)
def test_gpus_are_those_of_the_process_and_what_they_do_not_tell_is_absent(
    environment: dict[str, str], expected: set[str]
) -> None:
    nvml = FakeNvml()
    gpus = Gpus(nvml, environment)
    sample = gpus.sample()
    assert set(sample) == expected
    if "gpu0_utilization" in expected:
        assert sample["gpu0_utilization"] == 0.87
    gpus.close()
    assert not nvml.loaded
    assert gpus.sample() == {}


def test_a_machine_without_a_driver_has_no_gpus() -> None:
    nvml = find_nvml()
    if nvml is not None:
        pytest.skip("this machine has NVIDIA's driver")
    gpus = Gpus(nvml)
    assert gpus.sample() == {}
    gpus.close()


def test_rows_carry_the_last_sample_of_the_gpus() -> None:
    clock, recorder = Clock(), Recorder()
    telemetry = Telemetry([recorder], gpus=Gpus(FakeNvml(), {}), throttle=Throttle(10.0, 0.001, clock))
    telemetry.started(CONFIG, Toy())
    telemetry.iteration(row(1))
    telemetry.iteration(row(2))
    for _, told in recorder.calls[1:]:
        assert told["gpu0_utilization"] == 0.87


def test_a_courier_carries_one_thing_at_a_time_and_keeps_what_went_wrong() -> None:
    courier, release, done = Courier("test"), threading.Event(), []

    def slow() -> None:
        assert release.wait(30)
        done.append(threading.current_thread().name)

    courier.send(slow)
    assert not courier.idle
    assert not courier.wait(0.01)
    with pytest.raises(RuntimeError, match="on its way"):
        courier.send(slow)
    release.set()
    assert courier.wait(30)
    courier.check()
    assert done == ["test"]

    def broken() -> None:
        raise OSError("lost on the way")

    courier.send(broken)
    assert courier.wait(30)
    with pytest.raises(OSError, match="lost"):
        courier.check()
    courier.check()
    courier.stop()


def test_a_reporter_that_fails_is_said_once_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    broken, sound = Recorder("broken", breaks="iteration"), Recorder("sound")
    with Telemetry([broken, sound]) as telemetry:
        telemetry.started(CONFIG, Toy())
        for step in (1, 2, 3):
            telemetry.iteration(row(step))
        telemetry.finished({"steps": 3.0})
    assert broken.methods == ["started", "iteration", "finished", "close"]
    assert sound.methods == ["started", *["iteration"] * 3, "finished", "close"]
    assert telemetry.problems == {"broken": "[Errno 28] No space left on device"}
    said = capsys.readouterr().err.splitlines()
    assert said == ["warning: broken has failed, the training goes on without it: [Errno 28] No space left on device"]


def test_a_reporter_that_cannot_start_refuses_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = Recorder("first"), Recorder("second", breaks="started"), Recorder("third")
    with pytest.raises(OSError, match="No space"), Telemetry([first, second, third]) as telemetry:
        telemetry.started(CONFIG, Toy())
    assert first.methods == ["started", "failed", "close"]
    assert second.methods == ["started", "close"]
    assert third.methods == []
    assert capsys.readouterr().err == ""


def test_an_interrupt_goes_through_and_is_passed_on() -> None:
    class Interrupted(Recorder):
        def iteration(self, row: Any) -> None:
            raise KeyboardInterrupt

    other = Recorder("other")
    telemetry = Telemetry([other, Interrupted("screen")])

    def training() -> None:
        with telemetry:
            telemetry.started(CONFIG, Toy())
            telemetry.iteration(row(1))

    with pytest.raises(KeyboardInterrupt):
        training()
    assert other.methods == ["started", "iteration", "failed", "close"]
    assert isinstance(other.calls[2][1], KeyboardInterrupt)
    assert telemetry.problems == {}


def test_what_listens_is_a_reporter() -> None:
    assert isinstance(Recorder(), Reporter)
    assert isinstance(Telemetry(), Reporter)


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"metrics_port": 70000}, "metrics_port", "less than or equal to 65535"),
        ({"interval_s": -1}, "interval_s", "greater than or equal to 0"),
        ({"wandb": True}, "wandb", "allowed: interval_s, metrics_host, metrics_port"),
    ],
)
def test_a_bad_config_names_the_field(values: dict[str, Any], field: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        TelemetryConfig(**values)
    assert caught.value.field == field
