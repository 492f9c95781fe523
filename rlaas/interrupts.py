"""Ctrl-C and SIGTERM that cannot get lost: they interrupt now, and if a library swallows that, at the next check."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["check_interrupt", "handle_interrupts", "interrupted"]


class _State:
    pending = False


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    _State.pending = True
    raise KeyboardInterrupt


def handle_interrupts() -> None:
    """Let SIGINT and SIGTERM both raise KeyboardInterrupt in the main thread; forgets an earlier interrupt."""
    _State.pending = False
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def interrupted() -> bool:
    """Whether a signal has arrived since :func:`handle_interrupts`."""
    return _State.pending


def check_interrupt() -> None:
    """Raise the interrupt again if it was raised before and something caught it.

    Libraries guard optional imports and clean-up code with handlers that catch everything, an interrupt included.

    Raises:
        KeyboardInterrupt: a signal has arrived since :func:`handle_interrupts`.
    """
    if _State.pending:
        raise KeyboardInterrupt
