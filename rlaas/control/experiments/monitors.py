"""Always-valid monitors of a metric: its effect, whatever the kind of the metric, and its guardrail.

:class:`EffectMonitor` carries :class:`~rlaas.experiments.inference.MeanDifference` over to ratios and to values that a
covariate explains: both are sums of independent influences (delta method; pooled slope), and the normal mixture needs
no more than an estimate and its standard error (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024; for covariates
Lindon, Ham, Tingley & Bojinov 2022, "Anytime-valid linear models and regression adjusted causal inference").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.experiments.inference import Side, Standing
from rlaas.experiments.inference.checks import checked_number, checked_values, opened, packed
from rlaas.experiments.inference.sequences import mixture_log_e, mixture_radius, planned_ratio

__all__ = ["ArmFigures", "CrossMoments", "EffectMonitor"]

FloatArray = NDArray[np.float64]

_TOP, _BOTTOM, _COVARIATE = range(3)
_FARTHEST = 1e100
"""Standard errors from the null beyond which there is no need to count."""


class CrossMoments:
    """Count, means [3] and sums of products of deviations [3, 3] of numerator, denominator and covariate of an arm."""

    def __init__(self, n: int = 0, mean: FloatArray | None = None, products: FloatArray | None = None) -> None:
        self.n = n
        self.mean = np.zeros(3) if mean is None else mean
        self.products = np.zeros((3, 3)) if products is None else products

    def merged(self, rows: FloatArray) -> CrossMoments:
        """With more units [n, 3] (Chan, Golub & LeVeque 1979)."""
        if not len(rows):
            return self
        mean = rows.mean(axis=0)
        away = rows - mean
        gap, n = mean - self.mean, self.n + len(rows)
        return CrossMoments(
            n,
            self.mean + gap * (len(rows) / n),
            self.products + away.T @ away + np.outer(gap, gap) * (self.n * len(rows) / n),
        )

    def to_list(self) -> list[Any]:
        """As JSON types."""
        return [self.n, self.mean.tolist(), self.products.ravel().tolist()]

    @classmethod
    def from_list(cls, stored: Any) -> CrossMoments:
        """From what :meth:`to_list` gave."""
        n, mean, products = stored
        return cls(int(n), checked_values(mean, "mean"), checked_values(products, "products").reshape(3, 3))

    def influence(self) -> FloatArray | None:
        """Weights [3] by which a unit's deviations add to the arm's value; None while it has none."""
        bottom = float(self.mean[_BOTTOM])
        if self.n < 2 or not bottom > 0:
            return None
        return np.array([1 / bottom, -float(self.mean[_TOP]) / bottom**2, 0.0])


class ArmFigures:
    """Value of an arm and the variance of one unit's influence on it.

    Attributes:
        n: units.
        value: mean, or ratio of sums, adjusted to the covariate's mean over both arms.
        spread: variance of a unit's influence.
    """

    def __init__(self, moments: CrossMoments, weights: FloatArray, slope: float, covariate_mean: float) -> None:
        adjusted = weights - slope * np.array([0.0, 0.0, 1.0])
        self.n = moments.n
        value = float(moments.mean[_TOP]) / float(moments.mean[_BOTTOM])
        self.value = value - slope * (float(moments.mean[_COVARIATE]) - covariate_mean)
        self.spread = max(float(adjusted @ moments.products @ adjusted) / (moments.n - 1), 0.0)


class EffectMonitor:
    """Confidence sequence for treatment - scale x control.

    Args:
        alpha: probability of ever missing it, approximately.
        planned: units per arm at which the sequence is to be tightest.
        start: units of each arm before which nothing is said.
        alternative: side of the null on which the effect is looked for.
        null: value that the e-value speaks against.
        scale: factor of the control, >= 0; 1 - margin for a relative margin.
    """

    kind = "effect-monitor"

    def __init__(
        self,
        *,
        alpha: float,
        planned: float,
        start: int,
        alternative: Side = "two-sided",
        null: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self.alpha, self.planned, self.start = alpha, planned, start
        self.alternative, self.null, self.scale = alternative, null, scale
        self.control, self.treatment = CrossMoments(), CrossMoments()
        self._peak = 0.0

    def update(self, control: FloatArray, treatment: FloatArray) -> None:
        """Add units [n, 3] of each arm (numerator, denominator, covariate) and look."""
        self.control, self.treatment = self.control.merged(control), self.treatment.merged(treatment)
        self._peak = max(self._peak, self.standing().log_e)

    def figures(self) -> tuple[ArmFigures, ArmFigures] | None:
        """Control and treatment; None while an arm has fewer than 2 units or no denominator."""
        weights = [self.control.influence(), self.treatment.influence()]
        if weights[0] is None or weights[1] is None:
            return None
        arms = (self.control, self.treatment)
        known = [w for w in weights if w is not None]
        spread = sum(float(arm.products[_COVARIATE, _COVARIATE]) for arm in arms)
        shared = sum(float(w @ arm.products[:, _COVARIATE]) for w, arm in zip(known, arms, strict=True))
        slope = shared / spread if spread > 0 else 0.0
        total = sum(arm.n for arm in arms)
        mean = sum(arm.n * float(arm.mean[_COVARIATE]) for arm in arms) / total
        first, second = (ArmFigures(arm, w, slope, mean) for arm, w in zip(arms, known, strict=True))
        return first, second

    def standing(self) -> Standing:
        """What may be said now."""
        n, figures, peak = self.control.n + self.treatment.n, self.figures(), math.exp(-self._peak)
        if figures is None:
            return Standing(n=n, estimate=math.nan, low=-math.inf, high=math.inf, log_e=0.0, p_value=peak)
        base, other = figures
        estimate = other.value - self.scale * base.value
        spread = other.spread + self.scale**2 * base.spread
        variance = other.spread / other.n + self.scale**2 * base.spread / base.n
        if min(base.n, other.n) < self.start or not 0 < variance < math.inf:
            return Standing(n=n, estimate=estimate, low=-math.inf, high=math.inf, log_e=0.0, p_value=peak)
        error = math.sqrt(variance)
        ratio = planned_ratio(self.alpha, self.alternative) / self.planned * spread / variance
        z = min(max((estimate - self.null) / error, -_FARTHEST), _FARTHEST)
        half = error * float(mixture_radius(ratio, self.alpha, self.alternative))
        return Standing(
            n=n,
            estimate=estimate,
            low=-math.inf if self.alternative == "less" else estimate - half,
            high=math.inf if self.alternative == "greater" else estimate + half,
            log_e=float(mixture_log_e(z, ratio, self.alternative)),
            p_value=peak,
        )

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        names = ("alpha", "planned", "start", "alternative", "null", "scale")
        state = {"control": self.control.to_list(), "treatment": self.treatment.to_list(), "peak": self._peak}
        return packed(self.kind, {name: getattr(self, name) for name in names}, state)

    @classmethod
    def from_dict(cls, document: Any) -> EffectMonitor:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        names = ("alpha", "planned", "start", "alternative", "null", "scale")
        options, state = opened(document, cls.kind, names, ("control", "treatment", "peak"))
        found = cls(**options)
        found.control = CrossMoments.from_list(state["control"])
        found.treatment = CrossMoments.from_list(state["treatment"])
        found._peak = checked_number(state["peak"], "peak", least=0)
        return found
