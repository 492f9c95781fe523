"""Reconcilers as real processes that are killed and that compete, and retrainings as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import drift_process
import pytest
from drift_kit import World

from rlaas.control.drift import ProcessTrigger, RetrainRequest
from rlaas.control.drift.follower import fresh
from rlaas.control.drift.jobs import JobTrigger
from rlaas.control.drift.retraining import run_once
from rlaas.control.drift.triggers import pipeline_file
from rlaas.errors import InvalidInputError, NotReadyError
from rlaas.settings import load_settings


class Reconcilers:
    """Child processes on the files of a world."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.alive = folder, list[subprocess.Popen[str]]()

    def start(self, mode: str = "run", until: str = "started") -> subprocess.Popen[str]:
        code = [sys.executable, drift_process.__file__, str(self._folder), mode]
        child = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.alive.append(child)
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == until:
                return child
        raise AssertionError("the child ended")

    def kill(self, child: subprocess.Popen[str]) -> None:
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=30)
        assert child.stdout is not None
        child.stdout.close()
        self.alive.remove(child)


def wait(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, action="retrain", pipeline="toy.yaml", quiet_s=10_000)
    (tmp_path / "toy.yaml").write_text("")
    world.learn()
    world.reconciler.release()
    return world


@pytest.fixture
def reconcilers(world: World) -> Iterator[Reconcilers]:
    found = Reconcilers(world.folder)
    yield found
    for child in list(found.alive):
        found.kill(child)


def _runs(world: World) -> int:
    """How often the retraining has really run."""
    file = world.folder / "ran"
    return len(file.read_text()) if file.exists() else 0


def test_killed_between_claim_and_word_of_it_there_is_one_retraining(world: World, reconcilers: Reconcilers) -> None:
    world.traffic(90, shift=4.0)
    first = reconcilers.start("claim-and-hang", until="claimed")
    episode = world.store.open_episode("toy")
    assert episode is not None
    assert episode.retrain == "claimed"
    reconcilers.kill(first)
    reconcilers.start()
    reconcilers.start()
    wait(lambda: (e := world.store.open_episode("toy")) is not None and e.retrain == "requested")
    wait(lambda: (world.folder / "ran").exists())
    for _ in range(3):  # it goes on drifting
        world.traffic(20, shift=4.0)
        time.sleep(0.3)
    folder = world.folder / "retrains" / "default" / str(episode.retrain_id)
    wait(lambda: (folder / "exit").exists())
    assert (folder / "exit").read_text() == "0\n"
    assert _runs(world) == 1
    assert len(world.store.episodes()) == 1


def test_two_of_which_one_is_killed_at_any_time_lose_and_double_nothing(world: World, reconcilers: Reconcilers) -> None:
    reconcilers.start()
    reconcilers.start()
    for step in range(12):
        world.traffic(5)
        time.sleep(0.1)
        if step in (4, 8):
            reconcilers.kill(reconcilers.alive[0])
            reconcilers.start()
    watched = world.store.watch
    newest = world.lake.version("bronze.outcomes")
    wait(lambda: (w := watched("toy")) is not None and w.document["positions"]["bronze.outcomes"] == newest)
    watch = watched("toy")
    assert watch is not None
    assert watch.document["phase"] == "watching"
    assert watch.document["seconds"]["late"] == 0
    assert world.store.episodes() == [], "no false alarm where one went on from what another left"
    # One that was never interrupted has the same evidence.
    alone = World(world.folder / "alone")
    alone.second, alone.lake = world.second, world.lake
    positions = {"bronze.decisions": 0, "bronze.outcomes": 0}
    begun = fresh(alone.store.config("toy"), 1, positions, None)
    alone.store.commit(replace(begun, revision=1))
    alone.another().tick()
    steady = alone.store.watch("toy")
    assert steady is not None
    mine, theirs = ({e["stream"]: e["evidence"] for e in one.document["evidence"]} for one in (watch, steady))
    assert mine == pytest.approx(theirs, rel=1e-6)
    world.traffic(60, shift=4.0)
    began = time.monotonic()
    wait(lambda: (e := world.store.open_episode("toy")) is not None and e.retrain == "requested")
    episode = world.store.open_episode("toy")
    assert episode is not None
    assert episode.retrain_us is not None
    assert episode.retrain_us - episode.opened_us < 5_000_000, "triggered within 5 s of the detection"
    assert time.monotonic() - began < 60
    wait(lambda: _runs(world) == 1)


def test_a_request_is_run_once_however_often_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("")
    script = "import os, sys, time; open(os.environ['RLAAS_HOME'] + '/ran', 'a').write(sys.argv[1]); time.sleep(0.5)"
    trigger = ProcessTrigger(load_settings(home=tmp_path), [sys.executable, "-c", script])
    wanted = RetrainRequest("retrain-1", "toy", 1, "p.yaml")
    folder = Path(trigger.request(wanted))
    for _ in range(4):
        assert trigger.request(wanted) == str(folder)
    wait(lambda: (folder / "exit").exists())
    trigger.request(wanted)
    assert run_once(folder, [sys.executable, "-c", "raise SystemExit(5)"]) is None
    assert (tmp_path / "ran").read_text() == str(tmp_path / "p.yaml")
    assert (folder / "exit").read_text() == "0\n"


def test_the_default_command_is_the_pipeline_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("colour: 1\n")
    folder = Path(ProcessTrigger(load_settings(home=tmp_path)).request(RetrainRequest("r", "toy", 1, "p.yaml")))
    wait(lambda: (folder / "exit").exists())
    log = (folder / "log.txt").read_text()
    assert (folder / "exit").read_text() == "2\n", log
    assert "training: is missing" in log


def test_a_failed_command_leaves_its_status(tmp_path: Path) -> None:
    assert run_once(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert (tmp_path / "exit").read_text() == "3\n"
    assert int((tmp_path / "started").read_text()) == os.getpid()


@pytest.mark.parametrize("path", ["missing.yaml", "../outside.yaml", "/etc/passwd", "", "a\0b"])
def test_a_pipeline_outside_of_the_home_is_refused(path: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside.yaml").write_text("")
    with pytest.raises(InvalidInputError, match="no file below the home"):
        pipeline_file(load_settings(home=home), path)


def test_a_ray_that_does_not_answer_is_asked_again_later(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("")
    trigger = JobTrigger(load_settings(home=tmp_path))
    with pytest.raises(NotReadyError, match="Ray does not take the job"):
        trigger._submit("http://127.0.0.1:9", RetrainRequest("r", "toy", 1, "p.yaml"))
    with pytest.raises(InvalidInputError, match="no file below the home"):
        trigger._submit("http://127.0.0.1:9", RetrainRequest("r", "toy", 1, "missing.yaml"))
