r"""Quantiles (of latency) from counts by bucket, valid at every look and for every distribution.

A value x is the p-quantile if at most p of the mass lies below it and at least p up to it. Both are nulls about one
proportion, which the one-sided Beta mixtures of :mod:`~rlaas.experiments.inference.proportions` speak against: "too
many below x, so the quantile is lower" and "too few up to x, so it is higher". The values that neither excludes are
the confidence sequence (Howard & Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing and
best-arm identification"). For two arms the e-values multiply: no difference is refuted once the product is large at
every x that could be the quantile of both.

Counts by bucket bound the counts below and up to any x within it. Always the weaker evidence is used: buckets cost
precision, never validity. Where an arm's quantile lies in a wide bucket, nothing finer than that bucket is said.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.inference.checks import (
    Side,
    Standing,
    checked_counts,
    checked_level,
    checked_number,
    checked_side,
    checked_values,
    opened,
    packed,
)
from rlaas.experiments.inference.proportions import beta_log_e
from rlaas.experiments.inference.sequences import planned_ratio

__all__ = ["QuantileRatio", "QuantileSequence", "log_edges", "too_few", "too_many"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_OPTIONS = ("quantile", "edges", "alpha", "planned", "alternative")


def log_edges(low: float, high: float, precision: float = 0.02) -> FloatArray:
    """Upper ends of buckets from ``low`` to ``high``, each ``precision`` wide relative to its lower end.

    Raises:
        InvalidInputError: not 0 < low < high, or a precision that is not above 0.
    """
    bottom, top = checked_number(low, "low", above=0), checked_number(high, "high", above=0)
    if not bottom < top:
        raise InvalidInputError(f"low is {low} and high {high}; expected low < high", field="high")
    steps = math.ceil(math.log(top / bottom) / math.log1p(checked_number(precision, "precision", above=0)))
    return np.geomspace(bottom, top, steps + 1)


def too_many(counts: ArrayLike, quantile: float, prior: tuple[float, float]) -> FloatArray:
    """Log e-value, per bucket of counts [..., buckets], that more than ``quantile`` of the mass lies below it."""
    total = np.cumsum(np.asarray(counts, dtype=np.float64), axis=-1)
    below = total - np.asarray(counts, dtype=np.float64)
    return beta_log_e(below, total[..., -1:] - below, quantile, prior, "greater")


def too_few(counts: ArrayLike, quantile: float, prior: tuple[float, float]) -> FloatArray:
    """Log e-value, per bucket of counts [..., buckets], that less than ``quantile`` of the mass lies up to its end."""
    total = np.cumsum(np.asarray(counts, dtype=np.float64), axis=-1)
    return beta_log_e(total, total[..., -1:] - total, quantile, prior, "less")


def either(counts: ArrayLike, quantile: float, prior: tuple[float, float]) -> FloatArray:
    """Log e-value, per bucket of counts [..., buckets], that the quantile is not in it: the mean of both."""
    return np.asarray(np.logaddexp(too_many(counts, quantile, prior), too_few(counts, quantile, prior)) - math.log(2))


class _Buckets:
    """What both monitors share: options, edges and the mixture."""

    kind: str

    def __init__(self, quantile: float, edges: ArrayLike, *, alpha: float, planned: float, alternative: Side) -> None:
        self.quantile, self.alpha = checked_level(quantile, "quantile"), checked_level(alpha)
        self.planned = checked_number(planned, "planned", above=0)
        self.alternative = checked_side(alternative)
        self.edges = checked_values(edges, "edges").copy()
        if not len(self.edges) or not self.edges[0] > 0 or not (np.diff(self.edges) > 0).all():
            raise InvalidInputError(f"edges must rise from above 0, got {shown(edges)}", field="edges")
        # As spread as the normal mixture that is tightest at the planned size.
        weight = max(self.planned / planned_ratio(self.alpha, self.alternative), 1.0)
        self.prior = (self.quantile * weight, (1 - self.quantile) * weight)
        self._left = np.concatenate([[0.0], self.edges])
        self._right = np.concatenate([self.edges, [np.inf]])

    @property
    def buckets(self) -> int:
        """How many there are: one more than edges, since the last has no upper end."""
        return len(self.edges) + 1

    def _counted(self, values: ArrayLike, field: str) -> IntArray:
        """Counts by bucket of values above 0; a value on an edge belongs to the bucket that ends there."""
        array = checked_values(values, field, 0.0, math.inf)
        return np.bincount(np.searchsorted(self.edges, array, side="left"), minlength=self.buckets)

    def _quantile_of(self, counts: IntArray) -> float:
        """Upper end of the bucket that holds the quantile; NaN without counts."""
        total = counts.cumsum()
        if not total[-1]:
            return math.nan
        return float(self._right[int(np.searchsorted(total, self.quantile * total[-1], side="left"))])

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _OPTIONS} | {"edges": self.edges.tolist()}

    def _stored_counts(self, counts: Any, field: str) -> IntArray:
        return checked_counts(counts, field, self.buckets)


class QuantileSequence(_Buckets):
    """Confidence sequence for a quantile of one arm.

    Args:
        quantile: which, in (0, 1); 0.95 for the 95th percentile.
        edges: upper ends of the buckets, rising from above 0; what is above the last counts as unbounded.
        alpha: probability of ever missing the quantile.
        planned: observations at which the sequence is to be tightest.
        alternative: ``greater`` gives a lower bound only, ``less`` an upper one.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "quantile-sequence"

    def __init__(
        self,
        quantile: float,
        edges: ArrayLike,
        *,
        alpha: float = 0.05,
        planned: float = 10_000,
        alternative: Side = "two-sided",
    ) -> None:
        super().__init__(quantile, edges, alpha=alpha, planned=planned, alternative=alternative)
        self._counts = np.zeros(self.buckets, dtype=np.int64)

    def update(self, values: ArrayLike) -> None:
        """Add values [n], >= 0.

        Raises:
            InvalidInputError: a value that is negative or no finite number.
        """
        self._counts += self._counted(values, "values")

    def update_counts(self, counts: ArrayLike) -> None:
        """Add counts by bucket [buckets].

        Raises:
            InvalidInputError: no whole numbers >= 0, one per bucket.
        """
        self._counts += self._stored_counts(counts, "counts")

    def interval(self) -> tuple[float, float, float]:
        """Estimate, lower and upper end of the confidence sequence now."""
        bar = -math.log(self.alpha / 2 if self.alternative == "two-sided" else self.alpha)
        low, high = 0.0, math.inf
        if self.alternative != "less":
            out = np.flatnonzero(too_few(self._counts, self.quantile, self.prior) >= bar)
            low = float(self._right[out[-1]]) if len(out) else 0.0
        if self.alternative != "greater":
            out = np.flatnonzero(too_many(self._counts, self.quantile, self.prior) >= bar)
            high = float(self._left[out[0]]) if len(out) else math.inf
        return self._quantile_of(self._counts), low, high

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        return packed(self.kind, self._options(), {"counts": self._counts.tolist()})

    @classmethod
    def from_dict(cls, document: Any) -> QuantileSequence:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        options, state = opened(document, cls.kind, _OPTIONS, ("counts",))
        found = cls(**options)
        found._counts = found._stored_counts(state["counts"], "counts")
        return found


class QuantileRatio(_Buckets):
    """E-value and confidence sequence for the quantile of the treatment divided by that of the control.

    Args:
        quantile: which, in (0, 1).
        edges: upper ends of the buckets of both arms, rising from above 0.
        null: ratio that the e-value speaks against; 1 is no difference.
        alpha: probability of ever missing the ratio.
        planned: observations per arm at which the sequence is to be tightest.
        alternative: ``greater`` gives a lower bound only and tests ratio <= null, ``less`` an upper one.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "quantile-ratio"

    def __init__(
        self,
        quantile: float,
        edges: ArrayLike,
        *,
        null: float = 1.0,
        alpha: float = 0.05,
        planned: float = 10_000,
        alternative: Side = "two-sided",
    ) -> None:
        super().__init__(quantile, edges, alpha=alpha, planned=planned, alternative=alternative)
        self.null = checked_number(null, "null", above=0)
        self._control = np.zeros(self.buckets, dtype=np.int64)
        self._treatment = np.zeros(self.buckets, dtype=np.int64)
        self._peak = 0.0
        # Every pair of buckets that can hold x and null * x: between neighbouring edges of either scale lies one pair.
        cuts = np.unique(np.concatenate([self.edges, self.edges / self.null]))
        inside = np.concatenate([[cuts[0] / 2], (cuts[:-1] + cuts[1:]) / 2, [cuts[-1] * 2]])
        self._pairs = (
            np.searchsorted(self.edges, inside, side="left"),
            np.searchsorted(self.edges, inside * self.null, side="left"),
        )

    def update(self, control: ArrayLike = (), treatment: ArrayLike = ()) -> float:
        """Add values of the arms [n_control], [n_treatment], >= 0, and look.

        Returns:
            The always-valid p-value.

        Raises:
            InvalidInputError: a value that is negative or no finite number.
        """
        return self.update_counts(self._counted(control, "control"), self._counted(treatment, "treatment"))

    def update_counts(self, control: ArrayLike, treatment: ArrayLike) -> float:
        """Add counts by bucket [buckets] of the arms and look.

        Returns:
            The always-valid p-value.

        Raises:
            InvalidInputError: no whole numbers >= 0, one per bucket.
        """
        old, new = self._stored_counts(control, "control"), self._stored_counts(treatment, "treatment")
        self._control, self._treatment = self._control + old, self._treatment + new
        self._peak = max(self._peak, self._log_e(*self._evidence()))
        return math.exp(-self._peak)

    def standing(self) -> Standing:
        """What may be said now; the estimate is of the upper ends of the buckets that hold the quantiles."""
        old, new = self._evidence()
        bar = -math.log(self.alpha)
        j, k = np.flatnonzero(old + new.min() < bar), np.flatnonzero(new + old.min() < bar)
        possible = old[j][:, None] + new[k] < bar
        low, high = 0.0, math.inf
        if possible.any():  # none is left with probability alpha at most
            rows, columns = np.nonzero(possible)
            with np.errstate(divide="ignore", invalid="ignore"):
                least, most = (
                    self._left[k[columns]] / self._right[j[rows]],
                    self._right[k[columns]] / self._left[j[rows]],
                )
            low, high = float(least.min()), float(most.max())
        base = self._quantile_of(self._control)
        return Standing(
            n=int(self._control.sum() + self._treatment.sum()),
            estimate=self._quantile_of(self._treatment) / base if base < math.inf else math.nan,
            low=-math.inf if self.alternative == "less" else low,
            high=math.inf if self.alternative == "greater" else high,
            log_e=self._log_e(old, new),
            p_value=math.exp(-self._peak),
        )

    def _evidence(self) -> tuple[FloatArray, FloatArray]:
        """Log e-value per bucket and arm that the quantile is not there, or only beyond on the side that matters."""
        sides = {"two-sided": (either, either), "greater": (too_many, too_few), "less": (too_few, too_many)}
        old, new = sides[self.alternative]
        return old(self._control, self.quantile, self.prior), new(self._treatment, self.quantile, self.prior)

    def _log_e(self, old: FloatArray, new: FloatArray) -> float:
        return float((old[self._pairs[0]] + new[self._pairs[1]]).min())

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        state = {"control": self._control.tolist(), "treatment": self._treatment.tolist(), "peak": self._peak}
        return packed(self.kind, self._options() | {"null": self.null}, state)

    @classmethod
    def from_dict(cls, document: Any) -> QuantileRatio:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        options, state = opened(document, cls.kind, (*_OPTIONS, "null"), ("control", "treatment", "peak"))
        found = cls(**options)
        found._control = found._stored_counts(state["control"], "control")
        found._treatment = found._stored_counts(state["treatment"], "treatment")
        found._peak = checked_number(state["peak"], "peak", least=0)
        return found
