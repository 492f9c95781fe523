from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lake_children
import pytest
from support.lake_records import decisions, names, outcomes, segments_below

from rlaas.lake import Committer, Lake, WriteAheadLog, verify
from rlaas.lake.segments import HEADER, LOCK_NAME, frame

CHILDREN = Path(lake_children.__file__)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlaas.lake.committer"])  # so that a child costs a fork, not an import of Delta
    return context


def produce_and_kill(root: Path, batches: int) -> list[str]:
    """Kill a producer while it writes; the ids that it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, str(CHILDREN), str(root)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHILDREN.parent.parent)},
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(batches)]
    child.kill()
    lines += child.stdout.read().splitlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return [f"b{int(line)}-{index}" for line in lines for index in range(50)]


@pytest.mark.parametrize("batches", [1, 7, 40])
def test_what_a_killed_producer_acknowledged_is_in_bronze_exactly_once(tmp_path: Path, batches: int) -> None:
    acknowledged = produce_and_kill(tmp_path / "wal", batches)
    lake = Lake(tmp_path / "lake")
    report = Committer(lake, tmp_path / "wal").run_once()
    found = verify(lake, decisions=acknowledged).decisions
    assert found.exactly_once
    assert found.in_bronze == len(acknowledged) >= 50 * batches
    # At most the one batch that was written and not yet acknowledged comes on top.
    assert 0 <= report.decisions - len(acknowledged) <= 50
    assert report.adopted == 1
    assert not segments_below(tmp_path)
    assert list((tmp_path / "wal" / "default" / "decisions").iterdir()) == []


def test_a_living_producer_is_left_alone_while_dead_ones_are_adopted(tmp_path: Path) -> None:
    wal = tmp_path / "wal"
    lake = Lake(tmp_path / "lake")
    with WriteAheadLog(wal, "decisions", "alive") as log:
        log.append(decisions("alive", 3))
        acknowledged = produce_and_kill(wal, 3)
        assert Committer(lake, wal).run_once().adopted == 1
        assert verify(lake, decisions=acknowledged).exactly_once
        assert segments_below(wal) == ["00000001.open"]
        log.append(decisions("again", 2))
    Committer(lake, wal).run_once()
    assert verify(lake, decisions=[*acknowledged, *names("alive", 3), *names("again", 2)]).exactly_once


def scene(root: Path) -> tuple[list[str], list[str], WriteAheadLog]:
    """Logs in every state there is; what they acknowledged, and the log that is still alive."""
    wal = root / "wal"
    alive = WriteAheadLog(wal, "decisions", "alive")
    alive.append([*decisions("a", 3), b"unreadable"])
    alive.seal()
    alive.append(decisions("b", 2))
    alive.seal()
    alive.append(decisions("still-open", 1))
    with WriteAheadLog(wal, "decisions", "closed") as closed:
        closed.append(decisions("c", 2))
    dead = wal / "default" / "decisions" / "dead"
    dead.mkdir()
    (dead / LOCK_NAME).touch()
    (dead / "00000004.seg").write_bytes(HEADER + frame(decisions("d", 2)))
    (dead / "00000005.open").write_bytes(HEADER + frame(decisions("e", 2)) + frame(decisions("torn", 1))[:-5])
    with WriteAheadLog(wal, "outcomes", "closed") as other:
        other.append(outcomes("r", names("a", 3)))
    return [*names("a", 3), *names("b", 2), *names("c", 2), *names("d", 2), *names("e", 2)], names("r", 3), alive


def check(root: Path, acknowledged: list[str], receipts: list[str]) -> None:
    lake = Lake(root / "lake")
    Committer(lake, root / "wal").run_once()
    assert verify(lake, decisions=acknowledged, outcomes=receipts).exactly_once
    assert lake.count("bronze.decisions") == len(acknowledged)
    assert lake.count("bronze.outcomes") == len(receipts)
    assert lake.read("quarantine.decisions").column("payload").to_pylist() == [b"unreadable"]
    assert segments_below(root / "wal") == ["00000003.open"]


def test_a_committer_killed_before_any_of_its_steps_loses_and_repeats_nothing(tmp_path: Path, processes) -> None:
    exits: list[int | None] = []
    for step in range(60):
        root = tmp_path / str(step)
        acknowledged, receipts, alive = scene(root)
        child = processes.Process(target=lake_children.commit_until_step, args=(root, step))
        child.start()
        child.join()
        exits.append(child.exitcode)
        check(root, acknowledged, receipts)
        alive.close()
        if child.exitcode == 0:
            break
    # It took every step once: 3 tables made, 3 writes, 1 cut, 1 rename, 6 segments and 3 locks and folders removed.
    assert exits == [-signal.SIGKILL] * 20 + [0]


def test_a_committer_killed_at_any_moment_loses_and_repeats_nothing(tmp_path: Path, processes) -> None:
    killed = 0
    for attempt in range(8):
        root = tmp_path / str(attempt)
        acknowledged, receipts, alive = scene(root)
        child = processes.Process(target=lake_children.commit, args=(root,))
        child.start()
        time.sleep(0.02 * (attempt + 1))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        check(root, acknowledged, receipts)
        alive.close()
    assert killed > 0
