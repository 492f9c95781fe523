"""Real processes: a device that is killed, a platform that goes away, and nothing lost or doubled in the lake."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edge_kit import commit, exported, loaded
from support.bundles import policy_bundle
from support.processes import free_port

from rlaas.bundles import load_bundle
from rlaas.lake import Lake, update_transitions

KIT = Path(__file__).with_name("edge_kit.py")
# Prints an id only after the record is stored: what was printed must arrive.
DEVICE = """
import json, sys, time
sys.modules["rlaas"] = None
sys.path.insert(0, sys.argv[1])
import rlaas_edge, rlaas_link
edge = rlaas_edge.Edge(sys.argv[1])
link = rlaas_link.Link(edge, timeout_s=5, pauses_s=(0.05,))
link.follow(0.05)
index, newer = 0, 0
while index < int(sys.argv[2]) or newer < int(sys.argv[3]):
    answer = edge.decide([index / 100, 0.5, -0.5], mode="normal", session="s", step=index)
    print(json.dumps([answer["decision_id"], answer["version"], answer["action"], index]), flush=True)
    told = edge.outcome(answer["decision_id"], {"latency": 1.0, "throughput": float(index)})
    print(json.dumps([told]), flush=True)
    index, newer = index + 1, newer + (answer["version"] > 1)
    time.sleep(0.002)
while link.sync()["error"] or edge.size:
    time.sleep(0.05)
print(json.dumps(link.last), flush=True)
"""


class Processes:
    """The platform and the device, each of which may be killed."""

    def __init__(self, root: Path) -> None:
        self.root, self.port, self.running = root, free_port(), list[subprocess.Popen[str]]()
        self.folder = exported(root, url=f"http://127.0.0.1:{self.port}")
        (root / "live").write_text("1")

    def platform(self, die_after: int | None = None) -> subprocess.Popen[str]:
        more = [] if die_after is None else [str(die_after)]
        process = subprocess.Popen([sys.executable, str(KIT), str(self.root), str(self.port), *more], text=True)
        self.running.append(process)
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def device(self, count: int, newer: int = 0) -> subprocess.Popen[str]:
        """Decides ``count`` times at least, and ``newer`` times by a later version than the first."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", DEVICE, str(self.folder), str(count), str(newer)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    for version in (1, 2):
        policy_bundle(tmp_path / f"v{version}", seed=version)
    made = Processes(tmp_path)
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
        process.wait(20)


def _printed(process: subprocess.Popen[str], lines: int | None = None) -> list[Any]:
    assert process.stdout is not None
    found = []
    for line in process.stdout:
        if not line.endswith("\n"):
            break  # cut by the kill
        found.append(json.loads(line))
        if lines is not None and len(found) == lines:
            break
    return found


def _check(root: Path, printed: list[Any], kills: int) -> list[dict[str, Any]]:
    """Everything printed is in bronze, once; a kill may have left one record more, stored and not printed."""
    decisions = {entry[0]: entry for entry in printed if len(entry) == 4}
    outcomes = {entry[0] for entry in printed if len(entry) == 1}
    commit(root)
    lake = Lake(root / "lake")
    rows = lake.read("bronze.decisions").to_pylist()
    found = [f"{row['decision_id'][:32]}-{row['version']}" for row in rows]
    told = [receipt[:32] for receipt in lake.read("bronze.outcomes")["receipt_id"].to_pylist()]
    for wanted, seen in ((set(decisions), found), ({entry[:32] for entry in outcomes}, told)):
        assert len(seen) == len(set(seen))
        assert wanted <= set(seen)
        assert len(set(seen) - wanted) <= kills
    assert lake.count("quarantine.decisions") == lake.count("quarantine.outcomes") == 0
    for row, name in zip(rows, found, strict=True):
        if name in decisions:
            assert row["action"] == [float(decisions[name][2])]
    return rows


def test_nothing_is_lost_or_doubled_while_everybody_dies(processes: Processes) -> None:
    printed: list[Any] = []
    # Cut off from the start; the device is killed while it decides.
    device = processes.device(10_000)
    printed += _printed(device, 60)
    device.send_signal(signal.SIGKILL)
    printed += _printed(device)
    # The platform dies between the log and the answer, again and again, and so does the device.
    for die_after in (1, 2):
        platform = processes.platform(die_after)
        device = processes.device(10_000)
        assert platform.wait(60) == 9
        printed += _printed(device, 40)
        device.send_signal(signal.SIGKILL)
        printed += _printed(device)
        if die_after == 1:
            commit(processes.root)
    # All is well again, with a new version; the link comes back without anybody asking for it.
    device = processes.device(100, newer=20)
    printed += _printed(device, 20)
    (processes.root / "live").write_text("2")
    platform = processes.platform()
    rest = _printed(device)
    assert device.wait(60) == 0
    printed += rest[:-1]
    assert (rest[-1]["left"], rest[-1]["refused"], rest[-1]["version"]) == (0, [], 2)
    platform.send_signal(signal.SIGTERM)
    platform.wait(30)
    rows = _check(processes.root, printed, kills=3)
    assert {row["version"] for row in rows} == {1, 2}
    assert not list((processes.folder / "store").glob("*.log"))
    # The second version decides as its bundle does.
    policy = load_bundle(processes.root / "v2")
    for row in [row for row in rows if row["version"] == 2][:20]:
        weights = policy.preference(dict(row["preference"]))
        assert row["action"] == [float(policy.act(policy.check_observations([row["observation"]]), weights)[0][0])]
    update_transitions(Lake(processes.root / "lake"))
    assert Lake(processes.root / "lake").count("silver.transitions") >= len(printed) // 2 - 3


def test_versions_change_while_it_runs_and_survive_a_restart(processes: Processes) -> None:
    edge = loaded(processes.folder).Edge(processes.folder)
    link = loaded(processes.folder, "rlaas_link").Link(edge, pauses_s=())
    assert "Connection refused" in link.sync()["error"]
    assert edge.decide([0.1, 0.2, 0.3])["version"] == 1
    processes.platform()
    for version in (2, 1, 2):
        (processes.root / "live").write_text(str(version))
        assert link.sync()["error"] is None
        assert edge.decide([0.1, 0.2, 0.3])["version"] == version
    os.close(edge.held)
    again = loaded(processes.folder).Edge(processes.folder)
    assert again.decide([0.1, 0.2, 0.3])["version"] == 2
    assert sorted(path.name for path in processes.folder.glob("v*")) == ["v1", "v2"]
    os.close(again.held)


def test_a_version_with_other_features_or_a_false_platform_is_not_taken(processes: Processes) -> None:
    policy_bundle(processes.root / "v3", features=5)
    (processes.root / "live").write_text("3")
    processes.platform()
    edge = loaded(processes.folder).Edge(processes.folder)
    link = loaded(processes.folder, "rlaas_link").Link(edge, pauses_s=())
    assert edge.decide([0.1, 0.2, 0.3])["decision_id"]
    report = link.sync()
    assert "another features" in report["error"]
    assert (report["accepted"], report["left"], report["version"]) == (1, 0, 1)
    link.device["key"] = "00" * 32
    assert edge.decide([0.1, 0.2, 0.3])["decision_id"]
    report = link.sync()
    assert "401" in report["error"]
    assert "x-rlaas-signature" in report["error"]
    assert report["left"] > 0
    os.close(edge.held)
