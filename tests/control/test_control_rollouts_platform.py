"""Rollouts on a running platform with the fast lane: every replica follows, nothing fails, harm is turned back."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from platform_kit import Traffic, await_live, bundle_without_answer_at_zero, processes_of, replica_urls, until
from support.bundles import policy_bundle
from support.processes import assert_gone, free_port, interrupt, start, wait_for

from rlaas.client import Client
from rlaas.errors import RetryableError
from rlaas.registry import Registry
from rlaas.settings import load_settings

pytestmark = pytest.mark.ray

SOUND = [0.5, -1.0, 2.0]
ZERO = [0.0, -1.0, 2.0]
JUDGED = {"step_s": 2, "max_step_s": 600, "min_decisions": 20, "analysis": {"metrics": ["errors"]}}
CONFIG = {
    # Nothing is shed, however crowded the machine: what is counted here is failures.
    "gateway": {"num_replicas": 2, "num_cpus": 0.1, "pressed_ms": 20_000, "overloaded_ms": 60_000},
    "control": {"poll_s": 0.5},
    "scaling": {"target_busy": 0.2, "up_s": 1, "down_s": 3, "interval_s": 0.5},
}


@dataclass
class Running:
    """A platform as its user runs it: ``rlaas serve`` in a process of its own."""

    root: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def proxy(self) -> Path:
        return self.root / "proxy"

    def start(self) -> None:
        log = self.root / "log"
        config = self.root / "serving.yaml"
        config.write_text(yaml.safe_dump(CONFIG))
        self.proxy.mkdir(exist_ok=True)
        self.process: subprocess.Popen[str] = start(
            ["serve", "--config", str(config), "--port", str(self.port)],
            self.root / "home",
            log,
            RAY_SERVE_HAPROXY_CONFIG_FILE_LOC=str(self.proxy / "haproxy.cfg"),
            RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S="2",
            RAY_worker_niceness="0",
        )
        wait_for(self.process, log, "rlaas is ready at", 300)

    def stop(self) -> None:
        assert interrupt(self.process, signal.SIGTERM, 180) == 0
        assert_gone(str(self.root / "home"))

    def traffic(self, observation: list[float] = SOUND, **more: Any) -> Traffic:
        return Traffic(self.url, "toy", observation, **more)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    root = Path(tempfile.mkdtemp(prefix="ro", dir="/tmp"))
    registry = Registry(load_settings(home=root / "home"))
    for seed in (1, 2):
        registry.register("toy", policy_bundle(root / f"toy{seed}", kind="box", actions=2, seed=seed))
    registry.register("toy", bundle_without_answer_at_zero(root / "broken"))
    registry.set_alias("toy", "champion", 1)
    running = Running(root, free_port())
    try:
        running.start()
        yield running
        running.stop()
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            running.process.wait(180)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.url) as client:
        yield client
        rollout = client.deployment_status("toy")["rollout"]
        if rollout is not None:  # a test that failed shall not take the others along
            client.rollback_rollout("toy", rollout["number"], reason="the test has ended")


def _rollout(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.rollouts("toy")["items"][0]
    return found


def _begin(client: Client, version: int, **strategy: Any) -> None:
    variants = [{"name": "champion", "version": version, "weight": 1}]
    client.create_deployment("toy", variants, strategy=strategy)


def _latest(traffic: Traffic) -> int | None:
    return traffic.answers[-1][0]["version"] if traffic.answers else None


def _versions(traffic: Traffic) -> list[set[int]]:
    return [{decision["version"] for decision in answer} for answer in traffic.answers]


def test_a_promotion_reaches_every_replica_and_no_request_fails_or_is_mixed(running: Running, client: Client) -> None:
    seconds = []
    with running.traffic() as traffic, httpx.Client(timeout=30) as direct:
        for wanted in (2, 1, 2, 1, 2):
            client.promote("toy", wanted)
            promoted = time.monotonic()
            for where in replica_urls(running.proxy, 2):
                until(
                    lambda where=where, wanted=wanted: (
                        direct.post(f"{where}/api/v1/policies/toy/decide", json={"observation": SOUND}).json()[
                            "version"
                        ]
                        == wanted
                    )
                )
            seconds.append(time.monotonic() - promoted)
    print(f"promotion to the first answer at the last of 2 replicas, s: {[round(s, 2) for s in seconds]}")
    print(f"median {statistics.median(seconds):.2f}; {len(traffic.answers)} requests meanwhile")
    assert traffic.failures == []
    assert len(traffic.answers) > 20
    assert all(len(versions) == 1 for versions in _versions(traffic))
    assert {1, 2} <= set().union(*_versions(traffic))


def test_a_version_whose_actions_are_no_numbers_is_rolled_back_by_evidence(running: Running, client: Client) -> None:
    client.promote("toy", 1)
    await_live(client, "toy")
    _begin(client, 3, kind="canary", steps=[0.5], **JUDGED)
    with running.traffic(ZERO) as traffic:
        ended = until(lambda: (found := _rollout(client))["state"] != "running" and found)
    assert ended["state"] == "rolled_back"
    # Whatever it would have answered, somebody answered: every decision was acknowledged with an action.
    assert traffic.failures == []
    assert all(math.isfinite(number) for answer in traffic.answers for d in answer for number in d["action"])
    assert set().union(*_versions(traffic)) == {1}
    kinds = [event["kind"] for event in ended["events"]]
    assert kinds == ["started", "rolled_back"]
    last = ended["events"][-1]
    assert (last["actor"], last["reason"]) == ("controller", "harm shown in: errors")
    assert last["evidence"]["errors"]["canary_loss"] == 1.0
    assert last["evidence"]["errors"]["stable_loss"] == 0.0
    assert await_live(client, "toy")["weights"] == {"champion": 1.0}


def test_blue_green_is_switched_and_switched_back(running: Running, client: Client) -> None:
    _begin(client, 2, kind="blue_green", auto_switch=False)
    until(lambda: _rollout(client)["state"] == "standby")
    with running.traffic() as traffic:
        for switch, version in ((client.switch, 2), (client.switch_back, 1), (client.switch, 2)):
            switch("toy", reason="a trial")
            until(lambda version=version: _latest(traffic) == version)
            await_live(client, "toy")
    assert traffic.failures == []
    assert all(len(versions) == 1 for versions in _versions(traffic))
    client.rollback_rollout("toy", _rollout(client)["number"], reason="enough")
    await_live(client, "toy")
    kinds = [event["kind"] for event in _rollout(client)["events"]]
    assert kinds == ["started", "warmed", "switched", "switched_back", "switched", "rolled_back"]


def test_a_canary_goes_on_after_control_was_killed(running: Running, client: Client) -> None:
    _begin(client, 2, kind="canary", steps=[0.5], **{**JUDGED, "step_s": 4, "min_decisions": 200})
    with running.traffic() as traffic:
        until(lambda: _rollout(client).get("evidence", {}).get("errors", {}).get("canary_count"))
        (control,) = processes_of(running.root / "home", "Control")
        os.kill(control, signal.SIGKILL)
        ended = until(lambda: _ended(client))
        until(lambda: _latest(traffic) == 2)
    assert processes_of(running.root / "home", "Control") != [control]
    assert ended["state"] == "succeeded"
    assert traffic.failures == []
    assert [event["kind"] for event in ended["events"]] == ["started", "succeeded"]


def _ended(client: Client) -> dict[str, Any] | None:
    try:
        found = _rollout(client)
    except RetryableError:  # Control is on its way back
        return None
    return None if found["state"] == "running" else found


def test_the_pool_follows_the_load_within_the_bounds_of_the_deployment(running: Running, client: Client) -> None:
    client.create_deployment("toy", [{"name": "champion", "version": 2, "weight": 1}], min_replicas=1, max_replicas=2)
    assert client.deployment_status("toy")["autoscaling"] == {"min_replicas": 1, "max_replicas": 2}
    seconds = {}
    begun = time.monotonic()
    replica_urls(running.proxy, 1)
    seconds["2 to 1"] = time.monotonic() - begun
    with running.traffic(rows=200) as traffic:
        begun = time.monotonic()
        replica_urls(running.proxy, 2)
        seconds["1 to 2"] = time.monotonic() - begun
        await_live(client, "toy")
    begun = time.monotonic()
    replica_urls(running.proxy, 1)
    seconds["2 to 1 again"] = time.monotonic() - begun
    print("seconds until the proxy has the pool of", json.dumps({key: round(s, 1) for key, s in seconds.items()}))
    assert traffic.failures == []
    client.scale_deployment("toy", 2)
    replica_urls(running.proxy, 2)
    assert client.deployment_status("toy")["autoscaling"] == {"min_replicas": 2, "max_replicas": 2}


def test_a_rollout_and_the_pool_survive_the_whole_application(running: Running, client: Client) -> None:
    client.scale_deployment("toy", 1)
    _begin(client, 1, kind="blue_green", auto_switch=False)
    until(lambda: _rollout(client)["state"] == "standby")
    running.stop()
    running.start()
    assert _rollout(client)["state"] == "standby"
    await_live(client, "toy")
    client.switch("toy", reason="after the restart")
    await_live(client, "toy")
    assert client.decide("toy", observation=SOUND)["version"] == 1
    replica_urls(running.proxy, 1)  # the configuration says 2, the operator's word 1
    client.promote_rollout("toy", _rollout(client)["number"], reason="done")
    kinds = [event["kind"] for event in _rollout(client)["events"]]
    assert kinds == ["started", "warmed", "switched", "succeeded"]
