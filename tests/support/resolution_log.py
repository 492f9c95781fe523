"""Resolutions in memory: what the store in the database has to agree with."""

from __future__ import annotations

from collections.abc import Mapping

from rlaas.decisions.effectiveness import Effectiveness, Resolution, Settlement, effectiveness, settle
from rlaas.fronts import Front
from rlaas.objectives import ObjectiveVector


class ResolutionLog:
    """The resolutions of one scenario and what became of them."""

    def __init__(self) -> None:
        self._resolutions: dict[str, Resolution] = {}
        self._settlements: dict[str, Settlement] = {}

    def record(self, resolution: Resolution) -> None:
        """Keep a resolution; the same one twice is kept once."""
        assert self._resolutions.setdefault(resolution.id, resolution) == resolution

    def settle(
        self, front: Front, *, time_us: int, outcomes: Mapping[str, ObjectiveVector] | None = None
    ) -> tuple[Settlement, ...]:
        """Judge all that have no regret yet, and those with a new outcome again; those later than ``time_us`` never."""
        observed = outcomes or {}
        ordered = sorted(self._resolutions.values(), key=lambda one: (one.time_us, one.id))
        open_ = [one for one in ordered if one.id not in self._settlements or one.id in observed]
        found = [
            settle(one, front, time_us=time_us, outcome=observed.get(one.id)) for one in open_ if one.time_us <= time_us
        ]
        settled = tuple(one for one in found if one is not None)
        self._settlements.update({one.id: one for one in settled})
        return settled

    def effectiveness(self, *, since_us: int, until_us: int) -> Effectiveness:
        """Figures of a window, UTC microseconds; its end is not included."""
        regrets = {one.id: one.regret for one in self._settlements.values()}
        return effectiveness(self._resolutions.values(), regrets, since_us=since_us, until_us=until_us)
