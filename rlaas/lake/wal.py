"""The write-ahead log: what is appended here may be acknowledged.

Durability level ``process``: when :meth:`WriteAheadLog.append` returns, the records are in the page cache of the kernel
and survive ``kill -9`` of any process, this one included; they do not survive a power cut. With ``fsync=True`` they are
on the disk and survive that too, at the price of one disk flush for every append. Neither survives loss of the disk.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rlaas.errors import LakeError, check_choice
from rlaas.lake.segments import HEADER, LOCK_NAME, STREAMS, Stream, frame, read_segment, sync_folder, try_flock
from rlaas.names import check_name

__all__ = ["WriteAheadLog", "read_segment"]

_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class WriteAheadLog:
    """Append-only log of one stream, written by this process alone.

    Every log gets a folder of its own, named after ``producer`` and a random suffix (see :attr:`producer`): the numbers
    of its segments are the bookkeeping of exactly-once, so they must never start again under an old name.

    Thread-safe. Not for use across ``fork``.

    Args:
        root: folder of all write-ahead logs; local, or a volume with working ``flock``.
        stream: ``"decisions"`` or ``"outcomes"``.
        producer: name of the writing process.
        tenant: owner of the records.
        max_segment_bytes: a segment that has grown to this size is sealed before the next append.
        fsync: flush to disk before :meth:`append` returns.

    Raises:
        RequestError: ``stream``, ``producer`` or ``tenant`` is not allowed.
        LakeError: the folder cannot be made.
    """

    def __init__(
        self,
        root: Path,
        stream: Stream,
        producer: str,
        *,
        tenant: str = "default",
        max_segment_bytes: int = 8 * 2**20,
        fsync: bool = False,
    ) -> None:
        check_choice(stream, STREAMS, field="stream")
        check_name(tenant, field="tenant")
        self.producer = check_name(f"{producer}-{secrets.token_hex(6)}", field="producer")
        self.stream = stream
        self.fsync = fsync
        self.folder = Path(root).absolute() / tenant / stream / self.producer
        self._max_segment_bytes = max_segment_bytes
        self._mutex = threading.Lock()
        self._number = 1
        self._fd: int | None = None
        self._size = 0
        self._unusable: str | None = None
        self._lock_fd: int | None = _claim(self.folder)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write the records in one system call; on return they are as durable as the log promises.

        After an error none of them is in the log.

        Raises:
            InvalidInputError: a record is empty or too large.
            LakeError: the log is closed, or the system refused the write (disk full, file size limit).
        """
        if not payloads:
            return
        data = frame(payloads)
        with self._mutex:
            self._check_usable()
            if self._size >= self._max_segment_bytes:
                self._seal()
            self._write(data)

    def seal(self) -> bool:
        """Hand what was written to the committer; whether there was anything.

        Raises:
            LakeError: the log is closed, or the segment cannot be renamed.
        """
        with self._mutex:
            self._check_usable()
            return self._seal()

    def close(self) -> None:
        """Seal and let go of the folder; a second call does nothing.

        Raises:
            LakeError: the segment cannot be renamed; it is then adopted as that of a dead producer.
        """
        with self._mutex:
            if self._lock_fd is None:
                return
            try:
                if self._unusable is None:
                    self._seal()
            finally:
                if self._fd is not None:
                    os.close(self._fd)
                    self._fd = None
                os.close(self._lock_fd)
                self._lock_fd = None
                self._unusable = self._unusable or f"write-ahead log {self.folder} is closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _path(self) -> Path:
        return self.folder / f"{self._number:08d}.open"

    def _check_usable(self) -> None:
        if self._unusable is not None:
            raise LakeError(self._unusable)

    def _write(self, data: bytes) -> None:
        if self._size == 0:
            data = HEADER + data  # in the same call: a segment is either empty or begins well
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
                if self.fsync:
                    sync_folder(self.folder)
            written = os.write(self._fd, data)
            if written == len(data) and self.fsync:
                os.fdatasync(self._fd)
        except OSError as problem:
            self._roll_back()
            raise LakeError(f"cannot write to {self._path}: {problem.strerror}") from problem
        if written != len(data):
            self._roll_back()
            raise LakeError(f"cannot write to {self._path}: only {written} of {len(data)} bytes fit (disk full?)")
        self._size += len(data)

    def _roll_back(self) -> None:
        if self._fd is None:
            return
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as problem:
            # Sealing half a record would make the segment unreadable. Left open it is adopted, without its torn end,
            # when this process dies; until then nothing more may be acknowledged.
            self._unusable = f"{self._path} could not be rolled back ({problem.strerror}): restart the process"

    def _seal(self) -> bool:
        if self._fd is None or self._size == 0:
            return False
        try:
            self._path.rename(self._path.with_suffix(".seg"))
            if self.fsync:
                sync_folder(self.folder)
        except OSError as problem:
            self._unusable = f"cannot seal {self._path}: {problem.strerror}; restart the process"
            raise LakeError(self._unusable) from problem
        os.close(self._fd)
        self._fd, self._size = None, 0
        self._number += 1
        return True


def _claim(folder: Path) -> int:
    """Make the folder and hold its lock; the file descriptor of the lock."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        # A committer may take the new folder for that of a dead producer and remove it before the lock is held.
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(folder / LOCK_NAME, _OPEN_FLAGS, 0o640)
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise LakeError(f"cannot make the write-ahead log {folder}: {problem.strerror}") from problem
        if try_flock(fd) and _is_still(fd, folder / LOCK_NAME):
            return fd
        os.close(fd)
        time.sleep(0.001)
    raise LakeError(f"cannot claim the write-ahead log {folder}: another process holds it")


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
