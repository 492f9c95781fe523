"""One metric of an experiment as its units come in: monitors that advance in equal steps, and the series of looks.

Units are taken in blocks of a size that the document alone decides, so the monitors and the looks are the same whenever
and however often the analysis runs. What is beyond the last full block is shown through a copy and taken in later.

What a value is cut at (winsorising), what stands for a missing covariate, and the buckets of a quantile are learnt from
the first units of all variants together and kept: a test may not move its own threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.control.experiments.monitors import EffectMonitor
from rlaas.experiments.adjustment import Thresholds, thresholds, winsorised
from rlaas.experiments.inference import QuantileRatio, Side, Standing, log_edges
from rlaas.experiments.metrics import Guardrail, Metric, QuantileMetric, RatioMetric
from rlaas.experiments.records import Entry

__all__ = ["LEAST_BLOCK", "MetricState", "block_size"]

FloatArray = NDArray[np.float64]
Monitor = EffectMonitor | QuantileRatio

LEAST_BLOCK = 50
PRECISION = 0.03
"""Relative width of a bucket of a quantile."""


def block_size(document: ExperimentDocument) -> int:
    """Units of all variants between two looks: some 100 looks until the planned size."""
    return max(LEAST_BLOCK, document.stopping.size * len(document.variants) // 100)


class MetricState:
    """Monitors of one metric against the control, one of each treatment; of a guardrail, two.

    Args:
        document: the experiment.
        metric: what is measured.
        guardrail: that the metric belongs to, if it does.
        state: from :meth:`to_dict`; None: from the beginning.
    """

    def __init__(
        self,
        document: ExperimentDocument,
        metric: Metric,
        guardrail: Guardrail | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.document, self.metric, self.guardrail = document, metric, guardrail
        self.start = document.stopping.start if document.stopping.kind == "sequential" else 500
        self.consumed, self.looks = 0, []  # type: tuple[int, list[dict[str, Any]]]
        self._learnt: dict[str, Any] | None = None
        self.monitors: dict[str, list[Monitor]] = {}
        if state is not None:
            self.consumed, self.looks, self._learnt = state["consumed"], list(state["looks"]), state["learnt"]
            kind: type[EffectMonitor] | type[QuantileRatio] = (
                QuantileRatio if isinstance(metric, QuantileMetric) else EffectMonitor
            )
            self.monitors = {
                name: [kind.from_dict(one) for one in stored] for name, stored in state["monitors"].items()
            }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {
            "consumed": self.consumed,
            "looks": self.looks,
            "learnt": self._learnt,
            "monitors": {name: [one.to_dict() for one in found] for name, found in self.monitors.items()},
        }

    def advance(self, entries: Sequence[Entry]) -> None:
        """Take in the full blocks of the metric's entries, all of them in their order."""
        size = block_size(self.document)
        while self.consumed + size <= len(entries):
            block = list(entries[self.consumed : self.consumed + size])
            self.consumed += size
            if self._learnt is None:
                block = list(entries[: self.consumed])
                if not self._enough(block):
                    continue
                self._learn(block)
            self._feed(self.monitors, block)
            last = block[-1].exposed_us + self.metric.window_us + self.metric.lateness_us
            standings = {name: found[0].standing().to_dict() for name, found in self.monitors.items()}
            self.looks.append({"units": self.consumed, "time_us": last, "treatments": standings})

    def now(self, entries: Sequence[Entry]) -> dict[str, list[Standing]]:
        """Standings by treatment with every entry, none before there are enough."""
        if self._learnt is None:
            return {}
        copies: dict[str, list[Monitor]] = {
            name: [type(one).from_dict(one.to_dict()) for one in found] for name, found in self.monitors.items()
        }
        if len(entries) > self.consumed:
            self._feed(copies, entries[self.consumed :])
        return {name: [one.standing() for one in found] for name, found in copies.items()}

    def _enough(self, entries: Sequence[Entry]) -> bool:
        usable = [e for e in entries if e.values] if isinstance(self.metric, QuantileMetric) else entries
        counts = {variant.name: 0 for variant in self.document.variants}
        for entry in usable:
            if entry.arm in counts:
                counts[entry.arm] += 1
        return min(counts.values()) >= self.start

    def _learn(self, entries: Sequence[Entry]) -> None:
        metric, names = self.metric, {variant.name for variant in self.document.variants}
        mine = [entry for entry in entries if entry.arm in names]
        if isinstance(metric, QuantileMetric):
            found = np.array([_one_of(entry) for entry in mine if entry.values])
            above = found[found > 0]
            low, high = (float(above.min()), float(above.max())) if len(above) else (1.0, 1.0)
            self._learnt = {"edges": [low / 4, high * 4]}
        else:
            top = np.array([entry.numerator for entry in mine])
            bottom = np.array([entry.denominator for entry in mine])
            ends: list[list[float]] = []
            rule = getattr(metric, "winsorise", None)
            if rule is not None:
                columns = (top, bottom) if isinstance(metric, RatioMetric) else (top,)
                ends = [[found.low, found.high] for found in (thresholds(column, rule) for column in columns)]
            known = (
                []
                if metric.cuped is None
                else [e.covariates[metric.cuped] for e in mine if metric.cuped in e.covariates]
            )
            base = [entry for entry in mine if entry.arm == self.document.control]
            self._learnt = {
                "ends": ends,
                "fill": float(np.mean(known)) if known else 0.0,
                "sign": float(np.sign(sum(entry.numerator for entry in base))),
            }
        self.monitors = {name: self._monitors() for name in self.document.treatments}

    def _monitors(self) -> list[Monitor]:
        """For an effect one that looks both ways; for a guardrail one against a loss and one against none."""
        rule, learnt = self.document.stopping, self._learnt or {}
        if self.guardrail is None:
            alpha, null, scale = rule.alpha, 0.0, 1.0
            sides: tuple[Side, ...] = ("two-sided",)
        else:
            alpha, margin = self.guardrail.alpha, self.guardrail.margin
            up = 1.0 if self.metric.better == "higher" else -1.0
            # The first side speaks for "no loss of the margin", the second for "a loss beyond it".
            sides = ("greater", "less") if up > 0 else ("less", "greater")
            null = 0.0 if self.guardrail.relative else -up * margin
            scale = 1 - up * learnt.get("sign", 1.0) * margin if self.guardrail.relative else 1.0
        if isinstance(self.metric, QuantileMetric):
            low, high = learnt["edges"]
            edges = log_edges(low, high, PRECISION)
            return [
                QuantileRatio(self.metric.quantile, edges, null=scale, alpha=alpha, planned=rule.size, alternative=side)
                for side in sides
            ]
        return [
            EffectMonitor(alpha=alpha, planned=rule.size, start=self.start, alternative=side, null=null, scale=scale)
            for side in sides
        ]

    def _feed(self, monitors: dict[str, list[Monitor]], entries: Sequence[Entry]) -> None:
        arms = [self.document.control, *self.document.treatments]
        rows = {arm: self._rows([entry for entry in entries if entry.arm == arm]) for arm in arms}
        for name, found in monitors.items():
            for monitor in found:
                monitor.update(rows[self.document.control], rows[name])

    def _rows(self, entries: Sequence[Entry]) -> FloatArray:
        """Of a quantile one value per unit [n]; otherwise numerator, denominator and covariate [n, 3]."""
        learnt = self._learnt or {}
        if isinstance(self.metric, QuantileMetric):
            return np.array([_one_of(entry) for entry in entries if entry.values], dtype=np.float64)
        rows = np.empty((len(entries), 3))
        name, fill = self.metric.cuped, learnt["fill"]
        for index, entry in enumerate(entries):
            rows[index] = entry.numerator, entry.denominator, entry.covariates.get(name, fill) if name else 0.0
        for column, (low, high) in enumerate(learnt["ends"]):
            rows[:, column] = winsorised(rows[:, column], Thresholds(low, high, math.nan))
        return rows


def _one_of(entry: Entry) -> float:
    """One of a unit's values, drawn by its name: values of a unit depend on each other, those of units do not."""
    (draw,) = blake2b(entry.unit.encode(), digest_size=1).digest()
    return entry.values[draw % len(entry.values)]
