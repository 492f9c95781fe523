"""Entries that can be put down and taken up again: what waits for its window is kept as JSON between two runs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rlaas.experiments.exposure import UnitEntries, _Pending
from rlaas.experiments.metrics import CountMetric, Metric, ObjectivesMetric
from rlaas.experiments.records import Entry, Exposure, Outcome

__all__ = ["SPLIT", "ResumableEntries", "entry_from", "entry_list", "split_metric"]

SPLIT = "(split)"
"""Name under which the exposures alone are counted; no metric has it, since it is no plain name."""


class ResumableEntries(UnitEntries):
    """:class:`~rlaas.experiments.exposure.UnitEntries` with a state that survives the process."""

    def __init__(self, metric: Metric | ObjectivesMetric) -> None:
        super().__init__(metric)
        self._crossed: dict[str, tuple[int, str]] = {}

    @classmethod
    def resume(
        cls, metric: Metric | ObjectivesMetric, state: dict[str, Any] | None, entered: Iterable[Entry]
    ) -> ResumableEntries:
        """Go on where another left off.

        Args:
            metric: as before.
            state: from :meth:`state`; None: from the beginning.
            entered: every entry that it has given.
        """
        found = cls(metric)
        if state is None:
            return found
        found._now = state["now"]
        found._crossed = {unit: (first, arm) for unit, (first, arm) in state["crossed"].items()}
        found._entered = {entry.unit: (entry.exposed_us, entry.arm) for entry in entered} | found._crossed
        for unit, (exposures, outcomes) in state["pending"].items():
            pending = found._pending[unit] = _Pending()
            pending.exposures = [(received, Exposure(**one)) for received, one in exposures]
            pending.outcomes = [(received, Outcome(**one)) for received, one in outcomes]
            times = [one.time_us for _, one in pending.exposures] or [one.time_us for _, one in pending.outcomes]
            for time_us in times:
                heapq.heappush(found._due, (time_us, unit))
        return found

    def state(self) -> dict[str, Any]:
        """What is known beside the entries, as JSON types."""
        return {
            "now": self._now,
            "crossed": {unit: list(where) for unit, where in self._crossed.items()},
            "pending": {
                unit: [
                    [[received, asdict(one)] for received, one in pending.exposures],
                    [[received, asdict(one)] for received, one in pending.outcomes],
                ]
                for unit, pending in self._pending.items()
            },
        }

    @property
    def crossed(self) -> int:
        """Units that were seen in two variants, and are in none of the entries."""
        return len(self._crossed)

    def _enter(self, unit: str, first: int, pending: _Pending) -> Entry | None:
        entry = super()._enter(unit, first, pending)
        if entry is None:
            self._crossed[unit] = self._entered[unit]
        return entry


def split_metric(wait_s: float) -> Metric:
    """A metric that waits for nothing but the exposures themselves, ``wait_s`` seconds."""
    # Not validated: its name must be none that an analyst may choose.
    return CountMetric.model_construct(
        name=SPLIT,
        kind="count",
        value="(none)",
        window_s=1e-6,
        lateness_s=wait_s,
        better="higher",
        segments=(),
        winsorise=None,
        cuped=None,
    )


def entry_list(entry: Entry) -> list[Any]:
    """An entry as JSON types."""
    return [
        entry.unit,
        entry.arm,
        entry.exposed_us,
        entry.numerator,
        entry.denominator,
        list(entry.values),
        dict(entry.attributes),
        dict(entry.covariates),
        entry.propensity,
    ]


def entry_from(stored: Sequence[Any]) -> Entry:
    """From what :func:`entry_list` gave."""
    unit, arm, exposed_us, numerator, denominator, values, attributes, covariates, propensity = stored
    return Entry(
        unit=unit,
        arm=arm,
        exposed_us=exposed_us,
        numerator=numerator,
        denominator=denominator,
        values=tuple(values),
        attributes=attributes,
        covariates=covariates,
        propensity=propensity,
    )
