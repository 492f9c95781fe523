"""The Committer's deployment: what its status says, and what Ray's exporter is told with every look at its health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.util.metrics import Gauge
from support.lake_records import decisions

from rlaas.control import committing
from rlaas.control.committing import CommitterDeployment
from rlaas.errors import OperatorError
from rlaas.lake import WriteAheadLog
from rlaas.serving.config import ServingConfig
from rlaas.settings import Settings, load_settings


class KeptGauge(Gauge):
    """Ray's gauge, which also remembers what it was set to: Ray itself gives nothing back."""

    made: dict[str, KeptGauge]

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, description)
        self.said, self.value = description, float("nan")
        self.made[name] = self

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        super().set(value, tags)
        self.value = float("nan") if value is None else value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, KeptGauge]:
    monkeypatch.setattr(KeptGauge, "made", {}, raising=False)
    monkeypatch.setattr(committing, "Gauge", KeptGauge)
    # What the deployment does to a process of its own would stay with the one that runs the tests.
    for name in ("configure_events", "give_way"):
        monkeypatch.setattr(committing, name, lambda: None)
    return KeptGauge.made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def committer(gauges: dict[str, KeptGauge], settings: Settings) -> Iterator[Any]:
    """The deployment's own class, without Serve around it."""
    made = CommitterDeployment.func_or_class(ServingConfig(committer={"interval_s": 0.02}), settings)  # type: ignore[arg-type]
    yield made
    made._loop._stop.set()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 60 s"
        time.sleep(0.01)


def status_of(committer: Any) -> dict[str, Any]:
    found: dict[str, Any] = asyncio.run(committer.status())
    return found


def test_a_committer_that_goes_well_says_so(committer: Any, gauges: dict[str, KeptGauge], settings: Settings) -> None:
    assert set(gauges) == {"rlaas_committer_failing", "rlaas_committer_success_age_seconds"}
    assert all(gauge.said for gauge in gauges.values())
    with WriteAheadLog(settings.wal_root, "decisions", "gateway") as log:
        log.append(decisions("d", 2))
        log.seal()
        wait_until(lambda: status_of(committer)["committed"]["decisions"] == 2)
    committer.check_health()
    assert gauges["rlaas_committer_failing"].value == 0.0
    status = status_of(committer)
    assert status["committed"] == {"decisions": 2, "outcomes": 0, "segments": 1, "adopted": 0}
    assert (status["running"], status["last_error"]) == (True, None)
    assert status["tables"]["bronze.decisions"] >= 0
    assert status["since_success_s"] == round(status["since_success_s"], 3)
    # Every run that goes well begins the age anew, also one that finds nothing to commit.
    began = time.monotonic()

    def young() -> bool:
        committer.check_health()
        return gauges["rlaas_committer_success_age_seconds"].value < time.monotonic() - began

    wait_until(young)
    assert status_of(committer)["since_success_s"] <= time.monotonic() - began + 1e-3


def test_one_that_fails_tells_since_when(committer: Any, gauges: dict[str, KeptGauge], settings: Settings) -> None:
    with WriteAheadLog(settings.wal_root, "decisions", "gateway") as log:
        log.append(decisions("a", 1))
        log.seal()
        wait_until(lambda: status_of(committer)["committed"]["decisions"] == 1)
        committer._loop._stop.set()  # no run between the two segments
        committer._loop._thread.join()
        log.append(decisions("b", 1))
        log.seal()
        (segment,) = log.folder.glob("*.seg")
        content = segment.read_bytes()
        segment.write_bytes(content[:-1])
        well_at = time.monotonic() - committer._loop.since_success_s
        committer._loop.start()
        wait_until(lambda: status_of(committer)["last_error"] is not None)
        committer.check_health()
        assert gauges["rlaas_committer_failing"].value == 1.0
        status = status_of(committer)
        assert "is damaged" in status["last_error"]
        # The age counts on from the last run that went well, whatever has failed since.
        told = gauges["rlaas_committer_success_age_seconds"].value
        assert 0 < told <= time.monotonic() - well_at + 1e-3
        assert told <= status["since_success_s"] + 1e-3 <= time.monotonic() - well_at + 2e-3
        segment.write_bytes(content)
        wait_until(lambda: status_of(committer)["last_error"] is None)
        committer.check_health()
        assert gauges["rlaas_committer_failing"].value == 0.0
        assert status_of(committer)["committed"]["decisions"] == 2
        assert gauges["rlaas_committer_success_age_seconds"].value < time.monotonic() - well_at


def test_one_whose_thread_has_ended_is_replaced_and_says_its_age_all_the_same(
    committer: Any, gauges: dict[str, KeptGauge]
) -> None:
    committer._loop._stop.set()
    committer._loop._thread.join()
    with pytest.raises(OperatorError, match="thread has ended"):
        committer.check_health()
    assert gauges["rlaas_committer_success_age_seconds"].value >= 0
    assert status_of(committer)["running"] is False


def test_before_the_first_run_the_age_is_that_of_the_process(gauges: dict[str, KeptGauge], settings: Settings) -> None:
    began = time.monotonic()
    made: Any = CommitterDeployment.func_or_class(ServingConfig(committer={"interval_s": 60.0}), settings)  # type: ignore[arg-type]
    time.sleep(0.05)
    made.check_health()
    assert 0.05 <= gauges["rlaas_committer_success_age_seconds"].value <= time.monotonic() - began
    assert gauges["rlaas_committer_failing"].value == 0.0
    assert status_of(made)["committed"] == {"decisions": 0, "outcomes": 0, "segments": 0, "adopted": 0}
