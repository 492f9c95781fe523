"""Which receipts were taken before: asked of the write-ahead logs and of ``bronze``, so that a restart forgets none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rlaas.lake.batches import is_batch
from rlaas.lake.segments import Stream, list_producers, read_segment

if TYPE_CHECKING:
    from rlaas.lake.tables import Lake

__all__ = ["Receipts"]


class _Receipt(msgspec.Struct, frozen=True):
    receipt_id: str


class Receipts:
    """Looks receipts up where they are durable.

    A record is in its log until after it is in ``bronze``. Reading the logs first and the table second therefore
    misses none, whatever the committer does meanwhile. Slow (reads files): call it off the event loop.

    Args:
        wal_root: folder of all write-ahead logs that may hold the sender's records.
        lake: opens the lake; called on first use, so that a Gateway without devices never loads it.
        tenant: owner of the records.
    """

    def __init__(self, wal_root: Path, lake: Callable[[], Lake], tenant: str) -> None:
        self._wal_root = wal_root
        self._open_lake = lake
        self._lake: Lake | None = None
        self._tenant = tenant

    def known(
        self, stream: Stream, receipts: Collection[str], *, marker: bytes, dates: Collection[str] | None = None
    ) -> set[str]:
        """Those of ``receipts`` that were logged before.

        Args:
            stream: ``"decisions"`` or ``"outcomes"``.
            receipts: to look up.
            marker: bytes that every record of the sender holds; others are not decoded.
            dates: partitions of the table that can hold them; None for all.

        Raises:
            LakeError: a log or the table is damaged.
        """
        wanted = set(receipts)
        if not wanted:
            return set()
        logged = {
            msgspec.json.decode(payload, type=_Receipt).receipt_id
            for payload in self._payloads(stream)
            if marker in payload and not is_batch(payload)  # what a device sent was written one by one
        }
        found = wanted & logged
        return found | self._in_lake(stream, wanted - found, dates)

    def _in_lake(self, stream: Stream, wanted: set[str], dates: Collection[str] | None) -> set[str]:
        if not wanted:
            return set()
        import pyarrow.compute as pc

        if self._lake is None:
            self._lake = self._open_lake()
        where = pc.field("receipt_id").isin(sorted(wanted))
        if dates is not None:
            where = pc.field("date").isin(sorted(dates)) & where
        rows = self._lake.read(f"bronze.{stream}", columns=["receipt_id"], filter=where)
        return set(rows["receipt_id"].to_pylist())

    def _payloads(self, stream: Stream) -> Iterator[bytes]:
        """Everything in the logs; a segment that is sealed or committed while this reads is followed."""
        for producer in list_producers(self._wal_root, self._tenant, stream):
            read: set[str] = set()
            while fresh := _segments(producer.folder, read):
                for path in fresh:
                    try:
                        payloads = read_segment(path)
                    except FileNotFoundError:
                        continue  # renamed: the next look finds it under its new name; or in the table by now
                    read.add(path.stem)
                    yield from payloads


def _segments(folder: Path, read: Collection[str]) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:  # of a dead producer, all of whose segments are in the table
        return []
    return [path for path in paths if path.suffix in (".open", ".seg") and path.stem not in read]
