"""Many writers at once, a full disk, and a clock that jumps: still exactly once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import lake_children
import pytest
from support.lake_records import START_US, decision, decisions, outcome

from rlaas.errors import ConflictError, LakeError
from rlaas.lake import Committer, Lake, WriteAheadLog, encode, update_transitions, verify, verify_log

HOUR_US = 3_600_000_000


def test_a_hundred_writers_of_a_hundred_records_and_three_committers(tmp_path: Path) -> None:
    wal, lake = tmp_path / "wal", Lake(tmp_path / "lake")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlaas.lake.committer"])
    children = [context.Process(target=lake_children.append, args=(wal, 25 * part, 25, 100)) for part in range(4)]
    done = threading.Event()
    refused: list[int] = []
    problems: list[Exception] = []

    def keep_committing() -> None:
        committer = Committer(Lake(lake.root), wal, lock_timeout_s=0.05)
        while not done.is_set():
            try:
                committer.run_once()
            except ConflictError:
                refused.append(1)
            except Exception as problem:
                problems.append(problem)
                return

    committers = [threading.Thread(target=keep_committing) for _ in range(3)]
    for worker in (*committers, *children):
        worker.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    done.set()
    for thread in committers:
        thread.join()
    assert problems == []
    Committer(lake, wal).run_once()
    assert lake.count("bronze.decisions") == 10_000
    written = [f"w{number}-{index}-0" for number in range(100) for index in range(100)]
    assert verify(lake, decisions=written).exactly_once
    found = verify_log(lake, wal)
    assert found.exactly_once
    assert found.decisions.waiting == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_up(path: Path) -> None:
    """Take what is left of a file system."""
    with path.open("wb", buffering=0) as rest, contextlib.suppress(OSError):
        while True:
            rest.write(bytes(4096))


def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    wal, lake = small_disk / "wal", Lake(small_disk / "lake")
    ballast = small_disk / "ballast"
    with WriteAheadLog(wal, "decisions", "gateway", max_segment_bytes=500_000) as log:
        log.append(decisions("before", 3))
        log.seal()
        Committer(lake, wal).run_once()
        ballast.write_bytes(bytes(60 * 2**20))
        acknowledged: list[str] = [f"before{index}" for index in range(3)]
        for batch in range(1000):
            try:
                log.append(decisions(f"b{batch}-", 500))
            except LakeError:
                break
            acknowledged += [f"b{batch}-{index}" for index in range(500)]
        assert 5 < batch < 999
        fill_up(small_disk / "rest")
        with pytest.raises(LakeError, match=r"No space left|bytes fit \(disk full"):
            log.append(decisions("again", 500))
        # The committer has no room either: it fails, and the segments stay. Again and again makes no difference.
        for _ in range(2):
            with pytest.raises(LakeError, match="No space left"):
                Committer(lake, wal).run_once()
            found = verify_log(lake, wal)
            assert found.exactly_once
            assert found.decisions.waiting == len(acknowledged) - 3
            assert lake.count("bronze.decisions") == 3
        ballast.unlink()
        (small_disk / "rest").unlink()
        log.append(decisions("after", 2))
    Committer(lake, wal).run_once()
    acknowledged += ["after0", "after1"]
    assert verify(lake, decisions=acknowledged).exactly_once
    assert lake.count("bronze.decisions") == len(acknowledged)
    assert verify_log(lake, wal).exactly_once


def test_a_clock_that_jumps_by_an_hour_neither_reorders_nor_loses(tmp_path: Path) -> None:
    wal, lake = tmp_path / "wal", Lake(tmp_path / "lake")
    clock, jumps = START_US, [0, 1, HOUR_US, 1, -HOUR_US, 1, -HOUR_US, 23 * HOUR_US, 1, -23 * HOUR_US]
    with WriteAheadLog(wal, "decisions", "p") as log, WriteAheadLog(wal, "outcomes", "p") as other:
        for step, jump in enumerate(jumps):
            clock += jump
            made = decision(f"s-{step}", session="s", step=step, time_us=clock, observation=[float(step)])
            log.append([encode(made)])
            log.seal()
            # Corrections count up; that the clock went back in between makes none of them the older one.
            for revision in (0, 1):
                said = outcome(
                    f"r{step}-{revision}",
                    f"s-{step}",
                    revision=revision,
                    outcome={"a": float(revision)},
                    received_us=clock - revision * HOUR_US,
                )
                other.append([encode(said)])
            if step % 3 == 2:
                other.seal()
                Committer(lake, wal).run_once()
                update_transitions(lake, now_us=clock)
    Committer(lake, wal).run_once()
    assert update_transitions(lake, now_us=clock) == len(jumps)
    rows = lake.read("silver.transitions").sort_by("step").to_pylist()
    assert [row["step"] for row in rows] == list(range(len(jumps)))
    assert [row["next_observation"] for row in rows] == [*([float(step + 1)] for step in range(9)), None]
    assert {row["revision"] for row in rows} == {1}
    assert verify_log(lake, wal).exactly_once
    assert lake.count("quarantine.outcomes") == 0


def test_outcomes_that_a_clock_ahead_gave_up_are_taken_back(tmp_path: Path) -> None:
    wal, lake = tmp_path / "wal", Lake(tmp_path / "lake")
    with WriteAheadLog(wal, "outcomes", "p") as log:
        log.append([encode(outcome("r", "d"))])
    Committer(lake, wal).run_once()
    update_transitions(lake, now_us=START_US)
    for ahead_us, listed in ((2 * HOUR_US, 1), (0, 0), (2 * HOUR_US, 1)):
        update_transitions(lake, now_us=START_US + ahead_us)
        assert lake.count("quarantine.outcomes") == listed
    with WriteAheadLog(wal, "decisions", "p") as decided:
        decided.append([encode(decision("d"))])
    Committer(lake, wal).run_once()
    assert update_transitions(lake, now_us=START_US + 2 * HOUR_US) == 1
    assert lake.count("quarantine.outcomes") == 0
