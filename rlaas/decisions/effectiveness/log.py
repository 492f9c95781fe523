"""Resolutions of one process, kept in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from rlaas.decisions.contest import Requirements
from rlaas.decisions.effectiveness.figures import Effectiveness, effectiveness
from rlaas.decisions.effectiveness.records import Resolution, Settlement, settle
from rlaas.errors import ConfigurationError, ConflictError, InvalidInputError, shown
from rlaas.fronts import Front
from rlaas.objectives import ObjectiveVector

__all__ = ["ResolutionLog"]

MOST_WINDOWS = 1000


class ResolutionLog:
    """The latest resolutions of one scenario and what became of them. Thread-safe.

    Args:
        keep: how many; the one of the earliest time goes first.

    Raises:
        ConfigurationError: ``keep`` below 1.
    """

    def __init__(self, *, keep: int = 10_000) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ConfigurationError(f"keep must be a whole number >= 1, got {shown(keep)}", field="keep")
        self._keep = keep
        self._lock = threading.Lock()
        self._resolutions: dict[str, Resolution] = {}
        self._settlements: dict[str, Settlement] = {}

    def record(self, resolution: Resolution) -> None:
        """Keep a resolution; the same one twice is kept once.

        Raises:
            ConflictError: another one has this id.
            InvalidInputError: it is of another scenario than those before.
        """
        with self._lock:
            before = next(iter(self._resolutions.values()), None)
            if before is not None and before.scenario != resolution.scenario:
                raise InvalidInputError(
                    f"this log is of scenario {before.scenario!r}, the resolution of {resolution.scenario!r}",
                    field="scenario",
                )
            if self._resolutions.setdefault(resolution.id, resolution) != resolution:
                raise ConflictError(
                    f"resolution {resolution.id} is recorded already and says something else", field="id"
                )
            if len(self._resolutions) > self._keep:
                earliest = min(self._resolutions.values(), key=lambda one: (one.time_us, one.id)).id
                del self._resolutions[earliest]
                self._settlements.pop(earliest, None)

    def settle(
        self,
        front: Front,
        *,
        time_us: int,
        outcomes: Mapping[str, ObjectiveVector] | None = None,
        rules: Requirements | None = None,
    ) -> tuple[Settlement, ...]:
        """Judge resolutions by a later front: all that have no regret yet, and those with a new outcome again.

        Args:
            front: the best that is known now.
            time_us: now, UTC microseconds; later resolutions are left open.
            outcomes: objective values observed under the choices, by the resolutions' ids.
            rules: that held beside the modes'.

        Returns:
            The new settlements, by time of the resolution.

        Raises:
            InvalidInputError: an outcome of no resolution, or what :func:`settle` refuses; nothing is settled then.
        """
        observed = outcomes or {}
        with self._lock:
            for id_ in observed:
                if id_ not in self._resolutions:
                    raise InvalidInputError(f"outcome of an unknown resolution {shown(id_)}", field="outcomes")
            open_ = [
                one
                for one in sorted(self._resolutions.values(), key=lambda one: (one.time_us, one.id))
                if one.time_us <= time_us and (one.id not in self._settlements or one.id in observed)
            ]
            found = [settle(one, front, time_us=time_us, outcome=observed.get(one.id), rules=rules) for one in open_]
            settled = tuple(one for one in found if one is not None)
            self._settlements.update({one.id: one for one in settled})
        return settled

    def effectiveness(self, *, since_us: int, until_us: int) -> Effectiveness:
        """Figures of a window, UTC microseconds; its end is not included."""
        with self._lock:
            resolutions = tuple(self._resolutions.values())
            regrets = {one.id: one.regret for one in self._settlements.values()}
        return effectiveness(resolutions, regrets, since_us=since_us, until_us=until_us)

    def windows(self, *, since_us: int, until_us: int, width_us: int) -> tuple[Effectiveness, ...]:
        """Figures of consecutive windows of ``width_us``, the last one cut off at ``until_us``.

        Raises:
            InvalidInputError: a width below 1, or more than 1,000 windows.
        """
        starts = range(since_us, until_us, width_us) if width_us >= 1 else None
        if starts is None or len(starts) > MOST_WINDOWS:
            raise InvalidInputError(
                f"width_us must be >= 1 and give at most {MOST_WINDOWS} windows, got {shown(width_us)}",
                field="width_us",
            )
        return tuple(self.effectiveness(since_us=at, until_us=min(at + width_us, until_us)) for at in starts)
