"""The fronts that were good once, in memory and in a file."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import structlog

from rlaas.decisions.fallback.fetching import TimedFront
from rlaas.errors import InvalidInputError, shown
from rlaas.files import sync, write_text
from rlaas.fronts import Front

__all__ = ["LastGood"]

SCHEMA_VERSION = 1


class LastGood:
    """The usable front that came last, and the last one that gave a live answer if that is another.

    The former alone is not enough: its candidates may all break the rules, where those of the one before kept them.

    Args:
        path: JSON file that outlives the process, replaced in one piece; None keeps the fronts in memory only. A file
            that cannot be read or written is logged and does without: a fallback has to start all the same.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._newest: TimedFront | None = None
        self._answered: TimedFront | None = None
        self._unwritten = False
        self._events = structlog.get_logger("rlaas.decisions")
        if path is not None:
            try:
                fronts = _read(path)
            except FileNotFoundError:
                return
            except (OSError, ValueError) as problem:
                self._events.error("last_good_unreadable", path=str(path), error=shown(problem, str))
            else:
                self._newest, self._answered = fronts[0], fronts[-1]

    def fronts(self) -> tuple[TimedFront, ...]:
        """At most two, the one that came last first."""
        with self._lock:
            return self._held()

    def came(self, front: TimedFront, *, timed: bool) -> None:
        """Keep ``front``.

        Args:
            front: that is usable.
            timed: whether its time was given; if not, an equal front is no news to be written.
        """
        with self._lock:
            before = self._newest
            self._newest = front
            same = before is not None and front.front == before.front
            if before is None or not same or (timed and front.made_us != before.made_us):
                self._unwritten = True

    def answered(self, front: TimedFront) -> None:
        """``front`` gave a live answer."""
        with self._lock:
            self._answered = front

    def _held(self) -> tuple[TimedFront, ...]:
        found = [front for front in (self._newest, self._answered) if front is not None]
        if len(found) == 2 and found[0].front == found[1].front:
            found = found[:1]
        return tuple(found)

    def save(self) -> None:
        """Write what came since the last time, if there is a file."""
        if self._path is None:
            return
        with self._writing:
            with self._lock:
                if not self._unwritten:
                    return
                self._unwritten, held = False, self._held()
            content = {
                "schema_version": SCHEMA_VERSION,
                "fronts": [{"made_us": front.made_us, "front": front.front.to_dict()} for front in held],
            }
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._path, json.dumps(content))
                sync(self._path.parent)
            except (OSError, TypeError, ValueError) as problem:
                self._events.error("last_good_not_saved", path=str(self._path), error=shown(problem, str))


def _read(path: Path) -> list[TimedFront]:
    """The fronts of a file, at least one.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise InvalidInputError(f"expected an object with schema_version {SCHEMA_VERSION}", field="schema_version")
    entries = document.get("fronts")
    if not isinstance(entries, list) or not 1 <= len(entries) <= 2:
        raise InvalidInputError("expected one or two fronts", field="fronts")
    fronts = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("made_us"), int):
            raise InvalidInputError("a front lacks its time, made_us", field="made_us")
        if not isinstance(entry.get("front"), dict):
            raise InvalidInputError("a front is missing", field="front")
        fronts.append(TimedFront(front=Front.from_dict(entry["front"]), made_us=entry["made_us"]))
    return fronts
