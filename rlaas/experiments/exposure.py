"""From exposures and outcomes, which come late and are corrected, to values that never change again.

A test that may be looked at any time needs its data in an order that does not depend on their values, and each value
fixed when it is first seen. So a unit enters once, when the window after its first exposure and the time allowed for
outcomes in transit have passed; units enter by time of exposure, then by name; and what comes later is written down
and changes nothing. What enters is a function of the records and their times of receipt alone: reading the log again,
in other slices, gives the same entries.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlaas.errors import InvalidInputError
from rlaas.experiments.metrics import (
    CountMetric,
    MeanMetric,
    Metric,
    ObjectivesMetric,
    ProportionMetric,
    RatioMetric,
)
from rlaas.experiments.records import AuditRecord, Entry, Exposure, Outcome, check_exposure, check_outcome
from rlaas.objectives import normalise

__all__ = ["UnitEntries", "unit_value"]


@dataclass(slots=True)
class _Pending:
    """What is known of a unit that has not entered."""

    exposures: list[tuple[int, Exposure]] = field(default_factory=list)
    outcomes: list[tuple[int, Outcome]] = field(default_factory=list)


class UnitEntries:
    """Turns the records of one experiment into the entries of one metric.

    Feed records in any order as they come; call :meth:`advance` with the time up to which everything received has been
    fed. A record received before that time but fed after counts as received then.

    Args:
        metric: says the window, how long outcomes are waited for, and how they become a value.
    """

    def __init__(self, metric: Metric | ObjectivesMetric) -> None:
        self.metric = metric
        self.audit: list[AuditRecord] = []
        self._wait = metric.window_us + metric.lateness_us
        self._now = -(2**63)
        self._pending: dict[str, _Pending] = {}
        self._entered: dict[str, tuple[int, str]] = {}
        self._due: list[tuple[int, str]] = []

    def expose(self, exposure: Exposure) -> None:
        """Take an exposure. Of several of a unit the earliest counts; one that comes too late goes to the audit.

        Raises:
            InvalidInputError: a name that is no text, a time that is no whole number, a covariate that is no number,
                or a propensity outside (0, 1].
        """
        check_exposure(exposure)
        received = max(exposure.received_us, self._now)
        if received > exposure.time_us + self._wait:
            self.audit.append(AuditRecord("late exposure", exposure))
        elif exposure.unit in self._entered:
            self._meet_again(exposure)
        else:
            self._of(exposure.unit).exposures.append((received, exposure))
            heapq.heappush(self._due, (exposure.time_us, exposure.unit))

    def observe(self, outcome: Outcome) -> None:
        """Take an outcome or a revision of one; one that comes too late goes to the audit.

        Raises:
            InvalidInputError: a name that is no text, a time or revision that is no whole number, or a value that is
                no number of reasonable size, or is negative where the metric divides by it.
        """
        check_outcome(outcome)
        _check_denominator(self.metric, outcome.values)
        if outcome.unit in self._entered:
            self._come_late(outcome)
            return
        pending = self._of(outcome.unit)
        pending.outcomes.append((max(outcome.received_us, self._now), outcome))
        if not pending.exposures:
            heapq.heappush(self._due, (outcome.time_us, outcome.unit))

    def advance(self, now_us: int) -> list[Entry]:
        """The units that became complete before a time, in order.

        Everything received before ``now_us`` must have been fed. Time does not run backwards: an earlier one than
        before gives nothing.
        """
        self._now = max(self._now, now_us)
        entries = []
        while self._due and self._due[0][0] + self._wait < self._now:
            due, unit = heapq.heappop(self._due)
            pending = self._pending.get(unit)
            if pending is None:
                continue
            first = min((exposure.time_us for _, exposure in pending.exposures), default=None)
            if first is None:
                self._drop_expired(unit, pending)
            elif first == due:
                entry = self._enter(unit, first, pending)
                if entry is not None:
                    entries.append(entry)
        return entries

    @property
    def waiting(self) -> int:
        """Units of which something is known and that have not entered."""
        return len(self._pending)

    def _of(self, unit: str) -> _Pending:
        return self._pending.setdefault(unit, _Pending())

    def _enter(self, unit: str, first: int, pending: _Pending) -> Entry | None:
        del self._pending[unit]
        last = first + self._wait
        exposures = [exposure for received, exposure in pending.exposures if received <= last]
        # Of exposures at the same time one must be chosen, whatever came first.
        start = min(exposures, key=_rank) if len(exposures) > 1 else exposures[0]
        self._entered[unit] = (first, start.arm)
        for received, exposure in pending.exposures:
            if received > last:
                self._meet_again(exposure)
        if len({exposure.arm for exposure in exposures}) > 1:
            self.audit.extend(AuditRecord("two arms", exposure) for exposure in exposures)
            return None
        final: dict[str, tuple[int, Outcome]] = {}
        for received, outcome in pending.outcomes:
            if received > last:
                self._come_late(outcome)
                continue
            if outcome.time_us < first:
                # Nor does it correct another record: while no exposure was known it may have been let go.
                continue
            rival = final.get(outcome.outcome_id)
            if rival is None or _precedence(received, outcome) > _precedence(*rival):
                final[outcome.outcome_id] = (received, outcome)
        end = first + self.metric.window_us
        counted = [outcome for _, outcome in final.values() if outcome.time_us < end]
        # In one order, since a floating-point sum depends on it.
        counted.sort(key=lambda outcome: (outcome.time_us, outcome.outcome_id))
        numerator, denominator, values = unit_value(self.metric, [outcome.values for outcome in counted])
        return Entry(
            unit=unit,
            arm=start.arm,
            exposed_us=first,
            numerator=numerator,
            denominator=denominator,
            values=values,
            attributes=start.attributes,
            covariates=start.covariates,
            propensity=start.propensity,
        )

    def _meet_again(self, exposure: Exposure) -> None:
        """An exposure of a unit that has entered is of no account, unless it is to another variant."""
        if exposure.arm != self._entered[exposure.unit][1]:
            self.audit.append(AuditRecord("two arms", exposure))

    def _come_late(self, outcome: Outcome) -> None:
        """An outcome that would have counted, or a revision of one that may have; others lie beyond the window."""
        first = self._entered[outcome.unit][0]
        if outcome.revision > 0 or first <= outcome.time_us < first + self.metric.window_us:
            self.audit.append(AuditRecord("late outcome", outcome))

    def _drop_expired(self, unit: str, pending: _Pending) -> None:
        """Outcomes so old that an exposure which could claim them would be late itself."""
        kept = []
        for received, outcome in pending.outcomes:
            if outcome.time_us + self._wait < self._now:
                self.audit.append(AuditRecord("no exposure", outcome))
            else:
                kept.append((received, outcome))
        pending.outcomes = kept
        if not kept:
            del self._pending[unit]


def unit_value(
    metric: Metric | ObjectivesMetric, outcomes: list[Mapping[str, float]]
) -> tuple[float, float, tuple[float, ...]]:
    """Numerator, denominator and single values of a unit from the values of its outcomes; what is missing is 0."""
    if isinstance(metric, RatioMetric):
        return (
            math.fsum(_values(metric.numerator, outcomes)),
            math.fsum(_values(metric.denominator, outcomes)),
            (),
        )
    if isinstance(metric, ObjectivesMetric):
        rows = [[outcome.get(one.name, math.nan) for one in metric.objectives] for outcome in outcomes]
        good = np.nan_to_num(normalise(metric.objectives, rows), nan=0.0).mean(axis=0) if rows else None
        return float(len(rows)), 1.0, (0.0,) * len(metric.objectives) if good is None else tuple(good.tolist())
    if isinstance(metric, MeanMetric):
        return math.fsum(_values(metric.value, outcomes)), 1.0, ()
    if isinstance(metric, CountMetric):
        return float(len(_values(metric.value, outcomes))), 1.0, ()
    if isinstance(metric, ProportionMetric):
        return float(any(value > metric.above for value in _values(metric.value, outcomes))), 1.0, ()
    values = tuple(_values(metric.value, outcomes))
    return math.fsum(values), float(len(values)), values


def _values(name: str, outcomes: list[Mapping[str, float]]) -> list[float]:
    return [float(outcome[name]) for outcome in outcomes if name in outcome]


def _check_denominator(metric: Metric | ObjectivesMetric, values: Mapping[str, float]) -> None:
    if isinstance(metric, RatioMetric) and values.get(metric.denominator, 0.0) < 0:
        raise InvalidInputError(
            f"values.{metric.denominator} must be >= 0 as the denominator of {metric.name}, got "
            f"{values[metric.denominator]:g}",
            field=f"values.{metric.denominator}",
        )


def _rank(exposure: Exposure) -> tuple[int, int, str]:
    """First the earliest."""
    rest = f"{_text(exposure.covariates)} {_text(exposure.attributes)} {exposure.propensity}"
    return exposure.time_us, exposure.received_us, rest


def _precedence(received: int, outcome: Outcome) -> tuple[int, int, int, str]:
    """The highest revision is the largest; of equal ones the first received."""
    return outcome.revision, -received, -outcome.time_us, _text(outcome.values)


def _text(values: Mapping[str, Any]) -> str:
    """Something to order by where all else is equal."""
    return repr(sorted(values.items()))
