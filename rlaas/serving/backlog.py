"""What was acknowledged and is not in the lake yet: where this grows, the Committer has stalled.

Every Gateway looks at the logs of all of them, those of dead ones included, so that one scrape tells the whole.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import structlog

from rlaas.lake.segments import STREAMS, list_producers

__all__ = ["Backlog", "BacklogWatch", "backlog_of"]

_LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one stream's logs hold.

    Attributes:
        size: bytes in sealed and open segments that are not committed.
        oldest_at: when the last record of the oldest of them was written, seconds since the epoch; None: there is none.
    """

    size: int = 0
    oldest_at: float | None = None

    def oldest_s(self) -> float:
        """Age of the oldest, seconds; 0 where there are none."""
        return 0.0 if self.oldest_at is None else max(0.0, time.time() - self.oldest_at)


def backlog_of(wal_root: Path, tenant: str) -> dict[str, Backlog]:
    """The backlog of every stream.

    Args:
        wal_root: folder of all write-ahead logs.
        tenant: whose.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[str, Backlog] = {}
    for stream in STREAMS:
        size, oldest = 0, None
        for producer in list_producers(wal_root, tenant, stream):
            for status in _segments(producer.folder):
                size += status.st_size
                oldest = status.st_mtime if oldest is None else min(oldest, status.st_mtime)
        found[stream] = Backlog(size, oldest)
    return found


def _segments(folder: Path) -> list[os.stat_result]:
    found: list[os.stat_result] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:  # the Committer removes folders and files
        for entry in entries:
            if entry.name.endswith((".open", ".seg")):
                with suppress(FileNotFoundError):
                    found.append(entry.stat())
    return [status for status in found if status.st_size]


class BacklogWatch:
    """Looks at the logs from time to time, off the event loop.

    Attributes:
        current: the watch of this process, where one Gateway lives; None elsewhere.

    Args:
        wal_root: folder of all write-ahead logs.
        tenant: whose.
    """

    current: ClassVar[BacklogWatch | None] = None

    def __init__(self, wal_root: Path, tenant: str) -> None:
        self._wal_root = wal_root
        self._tenant = tenant
        self.streams: dict[str, Backlog] = {}

    def look(self) -> None:
        """Look now.

        Raises:
            OSError: the folder cannot be read; what was seen before stays, and grows older.
        """
        self.streams = backlog_of(self._wal_root, self._tenant)

    async def run(self) -> None:
        """Look for as long as the process lives, and tell Ray's exporter."""
        from ray.util.metrics import Gauge

        size = Gauge("rlaas_wal_bytes", "bytes acknowledged and not committed", ("stream",))
        oldest = Gauge("rlaas_wal_oldest_seconds", "age of the oldest of them", ("stream",))
        while True:
            try:
                await asyncio.to_thread(self.look)
            except OSError as problem:
                structlog.get_logger().error("backlog_unknown", error=str(problem))
            for stream, backlog in self.streams.items():
                size.set(backlog.size, {"stream": stream})
                oldest.set(backlog.oldest_s(), {"stream": stream})
            await asyncio.sleep(_LOOK_EVERY_S)
