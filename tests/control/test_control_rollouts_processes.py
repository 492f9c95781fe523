"""Controllers as real processes that are killed and that compete."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import rollout_process
from support.rollout_kit import NEW, OLD, World


class Controllers:
    """Child processes."""

    def __init__(self, url: str) -> None:
        self._url, self.alive = url, list[subprocess.Popen[str]]()

    def start(self) -> subprocess.Popen[str]:
        code = [sys.executable, rollout_process.__file__, self._url]
        child = subprocess.Popen(code, stdout=subprocess.PIPE, text=True)
        self.alive.append(child)
        assert child.stdout is not None
        while child.stdout.readline().strip() != "started":
            assert child.poll() is None
        return child

    def kill(self, child: subprocess.Popen[str]) -> None:
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=30)
        assert child.stdout is not None
        child.stdout.close()
        self.alive.remove(child)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.clock = lambda: time.time_ns() // 1000
    world.service._clock = world.service.reports._clock = world.clock
    return world


@pytest.fixture
def controllers(world: World) -> Iterator[Controllers]:
    found = Controllers(world.url)
    yield found
    for child in list(found.alive):
        found.kill(child)


def _traffic(world: World, totals: list[int], **traffic: Any) -> None:
    """A second's traffic, in a moment; what the new version has counted is noted."""
    world.gateways.serve(**traffic)
    totals.append(world.gateways.attempts[NEW])
    world.gateways.report(world.live.generation)
    world.service.reports.flush()


def _evidence(world: World) -> dict[str, Any]:
    rollout = world.rollout()
    found: dict[str, Any] = rollout.get("evidence", {}).get("errors", {"canary_count": 0, "stable_count": 0})
    return found


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_controller_is_succeeded_by_one_that_rolls_back_in_time(
    world: World, controllers: Controllers
) -> None:
    totals: list[int] = []
    world.start()
    world.gateways.serve(new=0)
    world.gateways.report()
    world.service.reports.flush()
    first = controllers.start()
    _wait(lambda: world.service.store.counters(world.service.store.running()[0]))
    for _ in range(2):
        _traffic(world, totals, errors=0.2)
    _wait(lambda: _evidence(world)["canary_count"] == totals[-1])
    controllers.kill(first)
    for _ in range(8):  # nobody looks for eight seconds
        _traffic(world, totals, errors=0.2)
    assert world.rollout()["state"] == "running"
    controllers.start()
    for _ in range(50):
        _traffic(world, totals, errors=0.2)
        _wait(lambda: world.rollout()["state"] != "running" or _evidence(world)["canary_count"] == totals[-1])
        if world.rollout()["state"] == "rolled_back":
            break
    assert len(totals) <= 60
    assert world.shares == {OLD: 1.0}
    assert world.kinds() == ["started", "rolled_back"]
    # A count that the Gateways had at the end of some second: nothing was lost, nothing doubled.
    assert world.rollout()["events"][-1]["evidence"]["errors"]["canary_count"] in totals


def test_two_controllers_of_which_one_is_killed_count_everything_once(world: World, controllers: Controllers) -> None:
    totals: list[int] = []
    world.start(min_decisions=10**6)
    world.gateways.serve()
    world.gateways.report()
    world.service.reports.flush()
    controllers.start()
    _wait(lambda: world.service.store.counters(world.service.store.running()[0]))
    baseline = dict(world.gateways.attempts)
    controllers.start()
    for kills in (1, 0):
        for _ in range(5):
            _traffic(world, totals)
            time.sleep(0.04)
        for _ in range(kills):  # the one that holds the lease
            controllers.kill(controllers.alive[0])
            controllers.start()
    _wait(lambda: _evidence(world)["canary_count"] == totals[-1] - baseline[NEW])
    time.sleep(2 * rollout_process.TTL_S)
    assert _evidence(world)["canary_count"] == totals[-1] - baseline[NEW]
    assert _evidence(world)["stable_count"] == world.gateways.attempts[OLD] - baseline[OLD]
    assert world.live.generation == 2
    assert world.kinds() == ["started"]
