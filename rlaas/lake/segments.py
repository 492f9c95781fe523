"""The files of the write-ahead log: layout, framing, reading, and who is alive.

Layout: ``root/<tenant>/<stream>/<producer>/NNNNNNNN.open`` while it is written, renamed to ``NNNNNNNN.seg`` when it is
sealed. ``producer.lock`` next to them is flocked for as long as the producer lives; the kernel frees it however that
ends.

A file is an 8-byte header (magic, format version) and then frames: ``length, crc32(length), crc32(payload)`` as three
little-endian unsigned 32-bit integers, then the payload. The length has a checksum of its own because a damaged length
would otherwise look exactly like the torn end of a log, and the acknowledged records behind it would be dropped.
Payloads are JSON and never end in a zero byte, which is how data that a power cut left out is told from damage.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from rlaas.errors import InvalidInputError, LakeError

__all__ = [
    "HEADER",
    "LOCK_NAME",
    "MAX_RECORD_BYTES",
    "STREAMS",
    "Producer",
    "Segment",
    "Stream",
    "frame",
    "list_producers",
    "read_segment",
    "remove_dead",
    "seal_dead",
    "sync_folder",
    "take_over",
    "try_flock",
]

Stream = Literal["decisions", "outcomes"]
STREAMS: tuple[Stream, ...] = get_args(Stream)

HEADER = b"RLWAL\0\1\n"  # magic, format version, and an end that is not zero
MAX_RECORD_BYTES = 16 * 2**20
LOCK_NAME = "producer.lock"
_FRAME = struct.Struct("<III")
_LENGTH = struct.Struct("<II")
"""The beginning of a frame; the checksum of the payload follows."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One sealed file of a producer."""

    producer: str
    number: int
    path: Path


@dataclass(frozen=True, slots=True)
class Producer:
    """The folder of one producer (one process start) of one stream."""

    name: str
    folder: Path

    def sealed(self) -> list[Segment]:
        """Sealed segments in the order they were written."""
        numbers = sorted(int(path.stem) for path in self.folder.glob("*.seg") if path.stem.isdecimal())
        return [Segment(self.name, number, self.folder / f"{number:08d}.seg") for number in numbers]


def frame(payloads: Sequence[bytes]) -> bytes:
    """The payloads as frames, back to back.

    Raises:
        InvalidInputError: a payload is empty or larger than ``MAX_RECORD_BYTES``.
    """
    parts: list[bytes] = []
    for payload in payloads:
        if not 0 < len(payload) <= MAX_RECORD_BYTES:
            raise InvalidInputError(
                f"record of {len(payload)} bytes; allowed: 1 to {MAX_RECORD_BYTES} bytes", field="payload"
            )
        parts += (_length_of(len(payload)), zlib.crc32(payload).to_bytes(4, "little"), payload)
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _length_of(length: int) -> bytes:
    """How a frame begins: a length and its own checksum."""
    return _LENGTH.pack(length, _crc_of_length(length))


@lru_cache(maxsize=4096)
def _crc_of_length(length: int) -> int:
    return zlib.crc32(length.to_bytes(4, "little"))


def read_segment(path: Path) -> list[bytes]:
    """The payloads of a segment, in order.

    The end of an ``.open`` segment may be torn (its producer died while writing): what is incomplete was never
    acknowledged and is left out. A sealed segment is complete, or it is damaged.

    Raises:
        LakeError: the file is damaged, naming it and the offset.
    """
    return _scan(path, path.read_bytes(), torn_end_allowed=path.suffix == ".open")[0]


def _scan(path: Path, data: bytes, *, torn_end_allowed: bool) -> tuple[list[bytes], int]:
    """Payloads and the offset behind the last complete one."""

    def damaged(offset: int, what: str) -> LakeError:
        return LakeError(
            f"write-ahead log {path} is damaged at offset {offset}: {what}; move it aside to go on without it"
        )

    def torn(offset: int, size: int) -> bool:
        # Cut off, or, after a power cut, of full length but with zeros where the data did not reach the disk.
        return torn_end_allowed and len(data[offset:].rstrip(b"\0")) < size

    if not data.startswith(HEADER):
        if torn(0, len(HEADER)):
            return [], 0
        raise damaged(0, "not a write-ahead log of a known version, or incomplete")
    payloads: list[bytes] = []
    offset = len(HEADER)
    while offset < len(data):
        start = offset + _FRAME.size
        if len(data) < start:
            if torn(offset, _FRAME.size):
                break
            raise damaged(offset, "the last frame is incomplete")
        length, length_crc, payload_crc = _FRAME.unpack_from(data, offset)
        if _crc_of_length(length) != length_crc:
            if torn(offset, _FRAME.size):
                break
            raise damaged(offset, "the checksum of a length does not match")
        payload = data[start : start + length]
        if len(payload) < length or zlib.crc32(payload) != payload_crc:
            if torn(offset, _FRAME.size + length):
                break
            raise damaged(offset, "a record is incomplete or its checksum does not match")
        payloads.append(payload)
        offset = start + length
    return payloads, offset


def list_producers(root: Path, tenant: str, stream: Stream) -> list[Producer]:
    """Producers that have a folder, by name."""
    folder = root / tenant / stream
    if not folder.is_dir():
        return []
    return [Producer(path.name, path) for path in sorted(folder.iterdir()) if path.is_dir()]


def try_flock(fd: int) -> bool:
    """Take an exclusive lock without waiting; whether it was free."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def take_over(producer: Producer) -> Iterator[bool]:
    """Hold a producer's lock if its process is dead; yields whether it is."""
    try:
        fd = os.open(producer.folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Just being born, or died in that instant before it could write anything.
        with suppress(OSError):
            producer.folder.rmdir()  # refuses a folder with files; a living producer makes it again
        yield False
        return
    try:
        yield try_flock(fd)
    finally:
        os.close(fd)


def seal_dead(producer: Producer) -> int:
    """Seal what a dead producer left open, without its torn end. Call it inside :func:`take_over`.

    Returns:
        Number of segments that were sealed.

    Raises:
        LakeError: an open segment is damaged before its end.
    """
    sealed = 0
    for path in sorted(producer.folder.glob("*.open")):
        payloads, end = _scan(path, path.read_bytes(), torn_end_allowed=True)
        if not payloads:
            path.unlink()
            continue
        # Cut first, rename second: dying in between leaves an open segment that reads the same.
        os.truncate(path, end)
        path.rename(path.with_suffix(".seg"))
        sealed += 1
    return sealed


def remove_dead(producer: Producer) -> None:
    """Remove the folder of a dead producer once it holds nothing. Call it inside :func:`take_over`."""
    if [path.name for path in producer.folder.iterdir()] == [LOCK_NAME]:
        (producer.folder / LOCK_NAME).unlink()
        producer.folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
