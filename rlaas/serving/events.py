"""Events of the serving processes: one JSON object per line on standard error."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO, cast

import structlog

__all__ = ["configure_events"]


class _Lossy:
    """A stream that cannot fail: a full disk must not turn the answer that says so into a crash."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_events() -> None:
    """Write events as JSON lines; called once in every process that Ray starts for the platform."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
    )
