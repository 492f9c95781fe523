"""Events of the serving processes: one JSON object per line on standard error."""

from __future__ import annotations

import sys

import structlog

__all__ = ["configure_events"]


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
