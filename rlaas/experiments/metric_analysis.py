"""The result of a metric: treatment against control over the units that have entered, whole and by segment.

The intervals and p-values are for one look at a time that was fixed beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.experiments.adjustment import Cuped, Thresholds, cuped_slope, thresholds, winsorised
from rlaas.experiments.comparison import Arm, Comparison
from rlaas.experiments.contrasts import ArmMean, ArmQuantile, arm_mean, arm_quantile, contrast, ratio_influence
from rlaas.experiments.metrics import Metric, ProportionMetric, QuantileMetric, RatioMetric
from rlaas.experiments.records import Entry

__all__ = ["MetricResult", "PreparedUnits", "Segment", "analyse_metric", "prepare_units"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_SEGMENTS = 20
"""Values of one attribute with a segment of their own, the largest; the rest are one more."""

MISSING, OTHER = "(missing)", "(other)"


@dataclass(frozen=True, slots=True)
class Segment:
    """The comparison among units that share the value of an attribute.

    Attributes:
        attribute: its name.
        value: as text; ``(missing)`` where units have none, ``(other)`` for all beyond the largest 20.
        n_units: of both arms.
        comparison: None where the segment is too small, as ``reason`` says.
        reason: why there is no comparison; empty where there is one.
    """

    attribute: str
    value: str
    n_units: int
    comparison: Comparison | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """What is known of a metric.

    Attributes:
        comparison: treatment against control; arms are adjusted to the mean covariate where there is one.
        thresholds: where values were winsorised, of the numerator and for a ratio of the denominator; empty if not.
        cuped: what the covariate explained; None without one.
        segments: by attribute, then by size.
    """

    comparison: Comparison
    thresholds: tuple[Thresholds, ...]
    cuped: Cuped | None
    segments: tuple[Segment, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            "comparison": self.comparison.to_dict(),
            "thresholds": [{"low": t.low, "high": t.high, "share": t.share} for t in self.thresholds],
            "cuped": None
            if self.cuped is None
            else {
                "covariate": self.cuped.covariate,
                "theta": self.cuped.theta,
                "variance_reduction": self.cuped.variance_reduction,
                "n_imputed": self.cuped.n_imputed,
            },
            "segments": [
                {
                    "attribute": s.attribute,
                    "value": s.value,
                    "n_units": s.n_units,
                    "comparison": None if s.comparison is None else s.comparison.to_dict(),
                    "reason": s.reason,
                }
                for s in self.segments
            ],
        }


@dataclass(frozen=True, slots=True)
class PreparedUnits:
    """The units of a metric after winsorising, ready to be compared whole or in part.

    Attributes:
        metric: what they are values of.
        entries: the units.
        arms: name of each unit's arm [n].
        numerator: [n].
        denominator: of a ratio [n]; None otherwise.
        explained: part of each value that the covariate explains, theta (x - mean) [n]; None without one.
        thresholds, cuped: see :class:`MetricResult`.
    """

    metric: Metric
    entries: Sequence[Entry]
    arms: NDArray[np.str_]
    numerator: FloatArray
    denominator: FloatArray | None
    explained: FloatArray | None
    thresholds: tuple[Thresholds, ...]
    cuped: Cuped | None

    def arm(self, name: str, within: NDArray[np.bool_] | None = None) -> ArmMean | ArmQuantile:
        """The estimate of one arm, of all its units or of those ``within`` [n].

        Raises:
            InvalidInputError: fewer than 2 units, or a ratio whose denominators sum to 0.
        """
        rows = self.arms == name if within is None else (self.arms == name) & within
        if isinstance(self.metric, QuantileMetric):
            values = [entry.values for entry, row in zip(self.entries, rows, strict=True) if row and entry.values]
            unit = np.repeat(np.arange(len(values)), [len(one) for one in values])
            flat = np.array([value for one in values for value in one], dtype=np.float64)
            return arm_quantile(name, flat, unit, self.metric.quantile)
        shift = None
        if self.explained is not None:
            everyone = slice(None) if within is None else within
            # Around the mean of those looked at, so that a segment keeps the level of its own units.
            shift = self.explained[rows] - self.explained[everyone].mean()
        below = None if self.denominator is None else self.denominator[rows]
        return arm_mean(name, self.numerator[rows], below, shift)


def analyse_metric(metric: Metric, entries: Sequence[Entry], *, control: str, treatment: str) -> MetricResult:
    """Treatment against control, whole and by the metric's segments.

    Winsorising and CUPED learn from all arms together, and once: a segment is cut and adjusted as the whole is. A
    segment is one comparison more; with many of them some differ by chance.

    Args:
        metric: what is compared.
        entries: units that have entered, of all arms, each once.
        control: name of the arm compared with.
        treatment: name of the arm compared.

    Raises:
        InvalidInputError: an arm with fewer than 2 units, a unit twice, a ratio whose denominators sum to 0, a quantile
            with too few units, or a covariate that no unit has.
    """
    units = prepare_units(metric, entries)
    if control == treatment:
        raise InvalidInputError(f"control and treatment are both {control!r}", field="treatment")
    return MetricResult(
        comparison=_compare(units, control, treatment),
        thresholds=units.thresholds,
        cuped=units.cuped,
        segments=tuple(s for name in metric.segments for s in _segments(units, name, control, treatment)),
    )


def prepare_units(metric: Metric, entries: Sequence[Entry]) -> PreparedUnits:
    """Winsorise the values and find what the covariate explains.

    Raises:
        InvalidInputError: no unit, a unit twice, a ratio whose denominators sum to 0 in an arm, or a covariate that no
            unit has.
    """
    if not entries:
        raise InvalidInputError("no unit has entered yet; wait until the first window is over", field="entries")
    twice = [unit for unit, count in Counter(entry.unit for entry in entries).items() if count > 1]
    if twice:
        raise InvalidInputError(f"{len(twice)} units stand twice in entries, such as {twice[0]!r}", field="entries")
    numerator = np.array([entry.numerator for entry in entries], dtype=np.float64)
    denominator = None
    if isinstance(metric, RatioMetric):
        denominator = np.array([entry.denominator for entry in entries], dtype=np.float64)
    names = np.array([entry.arm for entry in entries])
    ends: list[Thresholds] = []
    if not isinstance(metric, ProportionMetric | QuantileMetric) and metric.winsorise is not None:
        ends.append(thresholds(numerator, metric.winsorise))
        numerator = winsorised(numerator, ends[0])
        if denominator is not None:
            ends.append(thresholds(denominator, metric.winsorise))
            denominator = winsorised(denominator, ends[1])
    cuped, explained = None, None
    if not isinstance(metric, QuantileMetric) and metric.cuped is not None:
        arms, where = np.unique(names, return_inverse=True)
        influence = np.empty(len(names))
        for number, name in enumerate(arms.tolist()):
            rows = where == number
            below = None if denominator is None else denominator[rows]
            influence[rows] = ratio_influence(name, numerator[rows], below)[1]
        covariate = [entry.covariates.get(metric.cuped) for entry in entries]
        cuped, centred = cuped_slope(metric.cuped, influence, covariate, where)
        explained = cuped.theta * centred
    return PreparedUnits(metric, entries, names, numerator, denominator, explained, tuple(ends), cuped)


def _compare(units: PreparedUnits, control: str, treatment: str, within: NDArray[np.bool_] | None = None) -> Comparison:
    base, other = units.arm(control, within), units.arm(treatment, within)
    found = contrast(base, other)
    return Comparison(
        metric=units.metric.name,
        design="unit",
        control=control,
        treatment=treatment,
        arms={control: Arm(base.n, base.value), treatment: Arm(other.n, other.value)},
        effect=found.value,
        relative=found.value / base.value if base.value != 0 else float("nan"),
        interval=(found.low, found.high),
        p_value=found.p_value,
    )


def _segments(units: PreparedUnits, attribute: str, control: str, treatment: str) -> list[Segment]:
    compared = (units.arms == control) | (units.arms == treatment)
    values = [_label(entry.attributes, attribute) for entry in units.entries]
    sizes = Counter(value for value, counts in zip(values, compared.tolist(), strict=True) if counts)
    # By size, then by name: the order must not depend on that of the units.
    named = sorted((v for v in sizes if v != MISSING), key=lambda v: (-sizes[v], v))[:MAX_SEGMENTS]
    kept = {*named, MISSING}
    column = np.array([value if value in kept else OTHER for value in values])
    found = []
    for value in [*named, OTHER, MISSING]:
        within = column == value
        n = int((within & compared).sum())
        if n == 0:
            continue
        try:
            found.append(Segment(attribute, value, n, _compare(units, control, treatment, within)))
        except InvalidInputError as problem:  # too small to say anything; the others are not
            found.append(Segment(attribute, value, n, None, problem.message))
    return found


def _label(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else MISSING
