"""A lake that stalls is seen in the metrics."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.lake_records import decision

from rlaas.lake import Committer, Lake, WriteAheadLog
from rlaas.lake.records import encode
from rlaas.lake.segments import list_producers
from rlaas.serving import backlog as backlog_module
from rlaas.serving.backlog import Backlog, BacklogWatch, backlog_of
from rlaas.serving.exposition import render


def record(name: str) -> bytes:
    return encode(decision(name, time_us=time.time_ns() // 1000))


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[BacklogWatch]:
    BacklogWatch.current = BacklogWatch(tmp_path / "wal", "default")
    yield BacklogWatch.current
    BacklogWatch.current = None


def gauges() -> dict[str, float]:
    lines = [line for line in render([], []).splitlines() if line.startswith("rlaas_wal")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_sealed_and_open_bytes_of_every_producer_count_until_they_are_committed(
    tmp_path: Path, watch: BacklogWatch
) -> None:
    committer = Committer(Lake(tmp_path / "lake"), tmp_path / "wal")
    watch.look()
    assert set(gauges().values()) == {0.0}
    with (
        WriteAheadLog(tmp_path / "wal", "decisions", "one") as one,
        WriteAheadLog(tmp_path / "wal", "decisions", "two") as two,
    ):
        one.append([record("a")])
        one.seal()
        one.append([record("b")])
        two.append([record("c")])
        watch.look()
        files = [path for path in (tmp_path / "wal").rglob("*") if path.suffix in {".open", ".seg"}]
        assert len(files) == 3
        assert gauges()['rlaas_wal_bytes{stream="decisions"}'] == sum(path.stat().st_size for path in files)
        assert gauges()['rlaas_wal_bytes{stream="outcomes"}'] == 0
        one.seal()
        two.seal()
        committer.run_once()
        watch.look()
        assert set(gauges().values()) == {0.0}


def test_the_age_is_that_of_the_oldest_and_grows_while_nobody_looks(tmp_path: Path, watch: BacklogWatch) -> None:
    with WriteAheadLog(tmp_path / "wal", "decisions", "one") as log:
        log.append([record("a")])
        log.seal()
        (sealed,) = (tmp_path / "wal").rglob("*.seg")
        os.utime(sealed, (time.time() - 300, time.time() - 300))
        log.append([record("b")])
        watch.look()
        first = gauges()['rlaas_wal_oldest_seconds{stream="decisions"}']
        assert 300 <= first < 330
        time.sleep(0.02)
        assert gauges()['rlaas_wal_oldest_seconds{stream="decisions"}'] > first


def test_a_folder_that_goes_away_meanwhile_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    (tmp_path / "default" / "decisions" / "dead").mkdir(parents=True)

    def listed(*arguments: object) -> object:
        found = list_producers(*arguments)  # type: ignore[arg-type]
        for producer in found:
            producer.folder.rmdir()
        return found

    monkeypatch.setattr(backlog_module, "list_producers", listed)
    assert backlog_of(tmp_path, "default") == {"decisions": Backlog(), "outcomes": Backlog()}


def test_a_process_without_a_gateway_shows_no_backlog() -> None:
    assert BacklogWatch.current is None
    assert gauges() == {}


def test_what_cannot_be_read_is_said_and_the_watch_goes_on(
    tmp_path: Path, watch: BacklogWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_module, "_LOOK_EVERY_S", 0.01)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        raise PermissionError("not yours")

    monkeypatch.setattr(watch, "look", look)

    async def some_looks() -> None:
        task = asyncio.get_running_loop().create_task(watch.run())
        while looks < 3:
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()

    with capture_logs() as logged:
        asyncio.run(some_looks())
    assert {entry["event"] for entry in logged} == {"backlog_unknown"}
