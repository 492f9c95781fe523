"""The analysis of an experiment: from rows of the lake to a result page, taking up only what is new.

Everything that a run leaves behind is in the state database, in one transaction: the versions of the tables that it has
read, the entries in their order, what still waits for its window, and the monitors. So a run that is killed is as if it
had not begun, and the next one goes on bit for bit. A unit's value is final once it has entered; what comes later is
listed in the audit and changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rlaas.control.experiments.adaptive import propensities
from rlaas.control.experiments.batches import Batch
from rlaas.control.experiments.documents import OBJECTIVES, ExperimentDocument
from rlaas.control.experiments.entries import SPLIT, ResumableEntries, split_metric
from rlaas.control.experiments.lake_rows import Decided, ExposureReader, outcome_of, read_new
from rlaas.control.experiments.layer_effect import LayerReader, layer_document, layer_key, layer_part
from rlaas.control.experiments.metric_state import LEAST_BLOCK, MetricState
from rlaas.control.experiments.page import result_page
from rlaas.control.experiments.store import Analysis, AnalysisRows, ExperimentStore, StoredExperiment
from rlaas.experiments.inference import SplitMonitor
from rlaas.experiments.metrics import Metric, ObjectivesMetric, QuantileMetric, RatioMetric
from rlaas.experiments.records import Entry
from rlaas.lake import Lake
from rlaas.serving.loaded import HELD_OUT, OUTSIDE

__all__ = ["Analyst"]

_Row = Mapping[str, Any]


class Analyst:
    """Analyses the experiments of a tenant.

    Args:
        store: of the experiments.
        lake: of the same tenant.
        settle_s: rows may reach the lake so long after others that are as old; exposures are counted after it.
        patience_s: while nothing comes, time goes on so far behind the clock; a row that takes longer counts as late.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        store: ExperimentStore,
        lake: Lake,
        *,
        settle_s: float = 60.0,
        patience_s: float = 600.0,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store, self._lake, self._clock = store, lake, clock
        self._settle_s, self._patience_us = settle_s, round(patience_s * 1e6)
        self._settle_us = round(settle_s * 1e6)

    def run(
        self,
        id_: str,
        *,
        now_us: int | None = None,
        disturbed: str = "",
        batches: Callable[[], Sequence[Batch]] = tuple,
    ) -> dict[str, Any]:
        """Take in what is new, and make the result page.

        Args:
            id_: of the experiment.
            now_us: everything received before it is in the lake, UTC microseconds; default: as the rows say.
            disturbed: what somebody else has done to its deployment; empty: nothing.
            batches: gives those of an adaptive allocation, after the first.

        Returns:
            The result page, as JSON types.

        Raises:
            NotFoundError: no such experiment.
            LakeError: a table cannot be read.
            ConflictError: another run was faster.
        """
        stored = self._store.get(id_)
        layer = layer_document(stored.document)
        page = None if layer is None else self._step(layer_key(id_), replace(stored, document=layer), now_us)
        return self._step(
            id_,
            stored,
            now_us,
            disturbed=disturbed,
            batches=batches,
            layer=None if page is None else layer_part(stored.document, page),
        )

    def _step(
        self,
        key: str,
        stored: StoredExperiment,
        now_us: int | None,
        *,
        disturbed: str = "",
        batches: Callable[[], Sequence[Batch]] = tuple,
        layer: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Take in what is new for one analysis, which is kept under ``key``."""
        before = self._store.analysis(key)
        run = _Run(self._store, key, stored, before, self._settle_s)
        beside = () if key == stored.document.id else (HELD_OUT, OUTSIDE)
        new = read_new(self._lake, stored.document, stored.start_us, run.versions, beside=beside)
        # After the rows: a batch is known before anything is decided in it.
        run.batches = batches()
        run.take_in(new.decisions, new.outcomes)
        newest = max(
            [run.newest_us, *(row["time_us"] for row in new.decisions), *(row["received_us"] for row in new.outcomes)]
        )
        if now_us is None:
            now_us = max(newest - self._settle_us, self._clock() - self._patience_us)
        run.advance(now_us, give_up_us=now_us - self._patience_us)
        run.versions, run.newest_us = dict(new.versions), newest
        result: dict[str, Any] = {**_finite(run.result(now_us, disturbed)), "layer": layer}
        revision = 1 if before is None else before.revision + 1
        self._store.commit(key, Analysis(revision, run.state(), result), run.rows())
        return result


class _Run:
    """One run: what was known, and what is added."""

    def __init__(
        self, store: ExperimentStore, key: str, stored: StoredExperiment, before: Analysis | None, settle_s: float
    ) -> None:
        self.stored, self.document, self._store, self._key = stored, stored.document, store, key
        state: Mapping[str, Any] = {} if before is None else before.state
        self.versions: dict[str, int | None] = dict(state.get("versions", {}))
        self.newest_us: int = state.get("newest_us", 0)
        self._unmatched: list[_Row] = list(state.get("unmatched", []))
        self._decisions: dict[str, int] = dict(state.get("decisions", {}))
        self._audited: dict[str, int] = dict(state.get("audited", {}))
        self._refused: dict[str, int] = dict(state.get("refused", {}))
        self._learnt: dict[str, tuple[str, int]] = {}
        self.batches: Sequence[Batch] = ()
        waiting, monitors = state.get("entries", {}), state.get("monitors", {})
        guards = {guardrail.metric.name: guardrail for guardrail in self.document.guardrails}
        self.entered: dict[str, list[Entry]] = {}
        self._known: dict[str, int] = {}
        self._entries: dict[str, ResumableEntries] = {}
        self.metrics: dict[str, MetricState] = {}
        learnt = self.document.objectives_metric
        for metric in (split_metric(settle_s), *self.document.metrics, *(() if learnt is None else (learnt,))):
            name = metric.name
            found = self.entered[name] = [] if before is None else store.entries(key, name)
            self._known[name] = len(found)
            self._entries[name] = ResumableEntries.resume(metric, waiting.get(name), found)
            if not isinstance(metric, ObjectivesMetric) and name != SPLIT:
                self.metrics[name] = MetricState(self.document, metric, guards.get(name), monitors.get(name))
        split = state.get("split")
        self._split_taken: int = state.get("split_taken", 0)
        self.split = (
            SplitMonitor(self.document.shares(), alpha=self.document.split_alpha)
            if split is None
            else SplitMonitor.from_dict(split)
        )

    def take_in(self, decisions: Sequence[_Row], outcomes: Sequence[_Row]) -> None:
        """Feed new rows; an outcome whose decision has not come waits for it."""
        kind, id_ = ExposureReader if self._key == self.document.id else LayerReader, self._key
        reader = kind(self.document, self.stored.start_us, self.batches)
        # A device that was cut off may have delivered a decision twice.
        known = self._store.units_of(id_, (row["decision_id"] for row in decisions))
        for row in decisions:
            exposure = reader.read(row)
            if exposure is None or row["decision_id"] in known or row["decision_id"] in self._learnt:
                continue
            self._learnt[row["decision_id"]] = (exposure.unit, exposure.time_us)
            self._decisions[exposure.arm] = self._decisions.get(exposure.arm, 0) + 1
            for entries in self._entries.values():
                entries.expose(exposure)
        names = _values_of(self.document)
        learnt = None if self.document.objectives_metric is None else self._entries[OBJECTIVES]
        rows = [*self._unmatched, *outcomes]
        known = self._store.units_of(id_, (r["decision_id"] for r in rows if r["decision_id"] not in self._learnt))
        self._unmatched = []
        for row in rows:
            where = self._learnt.get(row["decision_id"]) or known.get(row["decision_id"])
            if where is None:
                self._unmatched.append(row)
                continue
            outcome = outcome_of(row, Decided(*where), names)
            if learnt is not None:
                learnt.observe(outcome)
            for name, metric in self.metrics.items():
                if _fits(metric.metric, outcome.values):
                    self._entries[name].observe(outcome)
                else:
                    self._refused[name] = self._refused.get(name, 0) + 1

    def advance(self, now_us: int, *, give_up_us: int) -> None:
        """Let those enter whose time has come, and the monitors look."""
        # Most of these are of decisions outside of the experiment.
        self._unmatched = [row for row in self._unmatched if row["received_us"] > give_up_us]
        for name, entries in self._entries.items():
            self.entered[name].extend(entries.advance(now_us))
        if self.document.allocation is None:  # the monitors know no propensities
            for name, metric in self.metrics.items():
                metric.advance(self.entered[name])
        exposed = self.entered[SPLIT]
        while self._split_taken + LEAST_BLOCK <= len(exposed):
            self._take_split(self.split, exposed[self._split_taken : self._split_taken + LEAST_BLOCK])
            self._split_taken += LEAST_BLOCK

    def result(self, now_us: int, disturbed: str) -> dict[str, Any]:
        """The result page."""
        split = SplitMonitor.from_dict(self.split.to_dict())
        self._take_split(split, self.entered[SPLIT][self._split_taken :])
        audit = dict(self._audited)
        for name, entries in self._entries.items():
            audit[name] = audit.get(name, 0) + len(entries.audit)
        return result_page(
            self.stored,
            now_us=now_us,
            split=split,
            exposed=self.entered[SPLIT],
            decisions=self._decisions,
            crossed=self._entries[SPLIT].crossed,
            waiting=self._entries[self.document.primary.name].waiting,
            metrics=self.metrics,
            entered=self.entered,
            audit={name: count for name, count in audit.items() if name in self.metrics},
            refused=self._refused,
            disturbed=disturbed,
            batches=self.batches,
        )

    def state(self) -> dict[str, Any]:
        """All that the next run needs beside the rows, as JSON types."""
        return {
            "schema_version": 1,
            "versions": self.versions,
            "newest_us": self.newest_us,
            "unmatched": [{**row, "outcome": [list(pair) for pair in row["outcome"]]} for row in self._unmatched],
            "decisions": self._decisions,
            "audited": {
                name: self._audited.get(name, 0) + len(entries.audit) for name, entries in self._entries.items()
            },
            "refused": self._refused,
            "entries": {name: entries.state() for name, entries in self._entries.items()},
            "monitors": {name: metric.to_dict() for name, metric in self.metrics.items()},
            "split": self.split.to_dict(),
            "split_taken": self._split_taken,
        }

    def rows(self) -> AnalysisRows:
        """What is new in the tables."""
        return AnalysisRows(
            decisions=self._learnt,
            entries={name: (first, self.entered[name][first:]) for name, first in self._known.items()},
            audit={
                name: (
                    self._audited.get(name, 0),
                    [{"reason": one.reason, "record": asdict(one.record)} for one in entries.audit],
                )
                for name, entries in self._entries.items()
            },
        )

    def _take_split(self, monitor: SplitMonitor, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        arms, names = [monitor.variants.index(entry.arm) for entry in entries], list(self.document.shares())
        shares = propensities(self.document, entries, self.batches)
        monitor.update_units(arms, shares[:, [names.index(name) for name in monitor.variants]])


def _finite(value: Any) -> Any:
    """JSON types without what JSON does not have: an infinite or unknown number is null."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fits(metric: Metric, values: Mapping[str, float]) -> bool:
    """Whether a metric can count the values: a divisor, and a quantile's value, must not be negative."""
    if isinstance(metric, RatioMetric):
        return values.get(metric.denominator, 0.0) >= 0
    return not isinstance(metric, QuantileMetric) or values.get(metric.value, 0.0) >= 0


def _values_of(document: ExperimentDocument) -> frozenset[str]:
    """Names in the outcomes that a metric reads."""
    learnt = document.objectives_metric
    names = set() if learnt is None else {one.name for one in learnt.objectives}
    for metric in document.metrics:
        names |= {metric.numerator, metric.denominator} if isinstance(metric, RatioMetric) else {metric.value}
    return frozenset(names)
