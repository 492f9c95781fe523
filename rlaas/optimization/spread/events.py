"""The event log of an asynchronous run: what was asked for and what was told, in the order in which it happened.

One record a line: the CRC-32 of the rest in eight hexadecimal digits, a space, and a JSON object. Float64 values are
base64 of their bytes, so they come back to the last bit. A crash can leave the last line torn; it is dropped on
reading. Any other damage is an error.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConflictError, NotFoundError, OperatorError
from rlaas.files import sync
from rlaas.optimization.spread.recipe import packed, unpacked

__all__ = ["Asked", "EventLog", "Events", "Told", "fingerprint", "read_events"]

FloatArray = NDArray[np.float64]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The engine was asked for candidates.

    Attributes:
        wanted: how many.
        given: how many it gave; they are numbered on from the last.
        fingerprint: CRC-32 of their variables.
    """

    wanted: int
    given: int
    fingerprint: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The engine was told what came of candidates.

    Attributes:
        numbers: of the candidates, in the order in which they were told.
        values: their columns [n, n_obj + n_constraints]; NaN rows are unknown.
        seconds: wall time of the run until then.
    """

    numbers: tuple[int, ...]
    values: FloatArray
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What a log holds.

    Attributes:
        header: what the run was started with.
        entries: what happened.
        ended: why the run ended; None where it did not get that far.
        size: bytes of the file up to where it is whole.
    """

    header: dict[str, Any]
    entries: tuple[Asked | Told, ...]
    ended: str | None
    size: int


class EventLog:
    """Appends to a log. A record is with the operating system when its method returns, on the disk after ``close``.

    Args:
        path: the file.
        header: plain JSON types; what a replay needs to build the engine.
        resume: go on with the file where it exists; its torn end is cut off.

    Raises:
        ConflictError: the file exists and is not to be resumed, or belongs to another run.
        OperatorError: the file is damaged.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any], *, resume: bool = False) -> None:
        path = Path(path)
        document = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **header}))
        self.path = path
        self.before: Events | None = None
        if path.exists() and path.stat().st_size:
            if not resume:
                raise ConflictError(
                    f"{path} holds a run already; resume it, or name another folder", field="checkpoint"
                )
            self.before = read_events(path)
            if self.before.header != document:
                changed = [key for key in document if self.before.header.get(key) != document[key]]
                raise ConflictError(
                    f"{path} belongs to another run: it differs in {', '.join(changed)}; resume with what it was "
                    "started with, or name another folder",
                    field="checkpoint",
                )
            os.truncate(path, self.before.size)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if self.before is None:
            try:
                self._append({"header": document})
            except OperatorError:
                self._file.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def asked(self, wanted: int, X: FloatArray) -> None:
        """Record that ``wanted`` candidates were asked for and X [n, n_var] given."""
        self._append({"ask": wanted, "given": len(X), "crc": fingerprint(X)})

    def told(self, numbers: Sequence[int], values: FloatArray, seconds: float) -> None:
        """Record that after ``seconds`` ``numbers`` were told with ``values`` [n, n_obj + n_constraints]."""
        self._append({"tell": list(numbers), "values": packed(values), "seconds": seconds})

    def ended(self, why: str) -> None:
        """Record why the run ended."""
        self._append({"end": why})

    def close(self) -> None:
        """Bring everything to the disk."""
        if not self._file.closed:
            self._file.close()
            sync(self.path)

    def _append(self, record: Mapping[str, Any]) -> None:
        body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        try:
            written = self._file.write(line)
        except OSError as problem:
            raise OperatorError(f"event log {self.path} cannot be written: {problem}", field="checkpoint") from problem
        if written != len(line):
            raise OperatorError(
                f"event log {self.path} took {written} of {len(line)} bytes: is the disk full?", field="checkpoint"
            )


def read_events(path: str | Path) -> Events:
    """Read a log.

    Raises:
        NotFoundError: no such file.
        OperatorError: a line before the last is damaged, or there is no header.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"no event log {path}", field="log") from None
    header: dict[str, Any] | None = None
    entries: list[Asked | Told] = []
    ended: str | None = None
    size = 0
    *lines, _torn = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            if number == len(lines) and not _torn:  # a disk may lose the middle of the last write and keep its end
                break
            raise OperatorError(f"event log {path}: line {number} of {len(lines)} is damaged", field="log")
        size += len(line) + 1
        match record:
            case {"header": dict(found)} if number == 1:
                header = found
            case {"ask": int(wanted), "given": int(given), "crc": int(crc)}:
                entries.append(Asked(wanted=wanted, given=given, fingerprint=crc))
                ended = None
            case {"tell": list(numbers), "values": dict(values), "seconds": float(seconds)}:
                entries.append(Told(numbers=tuple(numbers), values=unpacked(values), seconds=seconds))
            case {"end": str(why)}:
                ended = why
            case _:
                raise OperatorError(f"event log {path}: line {number} is no event of this version", field="log")
    if header is None:
        raise OperatorError(f"event log {path} does not begin with a header", field="log")
    if header.get("schema_version") != SCHEMA_VERSION:
        raise OperatorError(
            f"event log {path} has schema version {header.get('schema_version')}; this rlaas reads {SCHEMA_VERSION}",
            field="log",
        )
    return Events(header=header, entries=tuple(entries), ended=ended, size=size)


def fingerprint(X: FloatArray) -> int:
    """CRC-32 of candidates' bytes."""
    return zlib.crc32(np.ascontiguousarray(X, dtype="<f8").tobytes())


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None where the line is not whole."""
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    record: dict[str, Any] = json.loads(body)
    return record
