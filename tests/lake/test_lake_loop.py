from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.lake_records import decisions, names

from rlaas.errors import LakeError
from rlaas.lake import CommitReport, Committer, CommitterLoop, Lake, WriteAheadLog, verify


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 30 s"
        time.sleep(0.01)


@pytest.fixture
def committer(tmp_path: Path) -> Committer:
    return Committer(Lake(tmp_path / "lake"), tmp_path / "wal")


def test_what_is_sealed_gets_committed_by_itself(committer: Committer) -> None:
    with WriteAheadLog(committer.wal_root, "decisions", "gateway") as log, CommitterLoop(committer, 0.01) as loop:
        assert loop.running
        loop.start()  # does nothing: it runs
        log.append(decisions("d", 3))
        log.seal()
        wait_until(lambda: loop.total.decisions == 3)
        assert loop.last_error is None
    assert not loop.running
    assert verify(committer.lake, decisions=names("d", 3)).exactly_once


def test_stopping_commits_what_is_left(committer: Committer) -> None:
    loop = CommitterLoop(committer, interval_s=60.0)
    loop.start()
    with WriteAheadLog(committer.wal_root, "decisions", "gateway") as log:
        log.append(decisions("d", 2))
        log.seal()
        loop.stop()
        assert verify(committer.lake, decisions=names("d", 2)).exactly_once
        log.append(decisions("e", 1))
        log.seal()
        assert loop.flush() == CommitReport(decisions=1, segments=1)
    assert loop.total == CommitReport(decisions=3, segments=2)


def test_an_error_is_logged_kept_and_got_over(committer: Committer) -> None:
    with WriteAheadLog(committer.wal_root, "decisions", "gateway") as log, capture_logs() as logged:
        log.append(decisions("d", 2))
        log.seal()
        segment = log.folder / "00000001.seg"
        content = segment.read_bytes()
        segment.write_bytes(content[:-1])
        loop = CommitterLoop(committer, 0.01)
        with pytest.raises(LakeError):
            loop.flush()
        loop.start()
        wait_until(lambda: any(entry["event"] == "lake_commit_failed" for entry in logged))
        assert isinstance(loop.last_error, LakeError)
        age = loop.since_success_s
        assert age > 0
        assert "00000001.seg is damaged" in str(loop.last_error)
        segment.write_bytes(content)
        time.sleep(0.05)
        wait_until(lambda: loop.total.decisions == 2)
        assert loop.last_error is None
        loop.stop()
        assert loop.since_success_s < age + 0.05
    failures = [entry for entry in logged if entry["event"] == "lake_commit_failed"]
    assert "damaged at offset" in failures[0]["error"]
    assert failures[0]["log_level"] == "error"
    assert [entry["decisions"] for entry in logged if entry["event"] == "lake_committed"] == [2]
    assert verify(committer.lake, decisions=names("d", 2)).exactly_once


def test_an_error_of_the_last_run_is_not_lost_on_stop(committer: Committer) -> None:
    with WriteAheadLog(committer.wal_root, "decisions", "gateway") as log:
        log.append(decisions("d", 1))
        log.seal()
        (log.folder / "00000001.seg").write_bytes(b"damage")
        loop = CommitterLoop(committer, interval_s=60.0)
        loop.start()
        with pytest.raises(LakeError):
            loop.stop()
        assert not loop.running
