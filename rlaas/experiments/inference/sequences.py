r"""Confidence sequences for means that may be looked at after every observation, by a normal mixture.

With the standard error s of an estimate, the information 1 / s^2 it carries grows like time, and estimate / s^2 moves
like Brownian motion whose drift is the effect (Jennison & Turnbull 2000, ch. 3: true of a difference of means whatever
the sizes of the arms, as long as outcomes do not steer them). Averaging the likelihood ratio over effects drawn from a
normal distribution gives a martingale that starts at 1 and, by Ville's inequality, ever reaches 1 / alpha with
probability at most alpha (Robbins 1970). With r = prior variance x information and z = estimate / s,

    two-sided:  log e = -log(1 + r) / 2 + u^2 / 2,                      u = z sqrt(r / (1 + r))
    one-sided:  log e = -log(1 + r) / 2 + u^2 / 2 + log(2 Phi(u))       (half-normal mixture)

Variances are estimated, which makes it asymptotic: the approximation is as good as the central limit theorem is at the
first look, so nothing is said before ``start`` observations of each arm (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas
2024, "Time-uniform central limit theory and asymptotic confidence sequences"). For a guarantee at every sample size see
:mod:`~rlaas.experiments.inference.betting`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rlaas.experiments.inference.checks import (
    Side,
    Standing,
    checked_level,
    checked_number,
    checked_side,
    opened,
    packed,
)
from rlaas.experiments.inference.moments import Moments

__all__ = ["START", "MeanDifference", "MeanSequence", "mixture_log_e", "mixture_radius", "planned_ratio"]

FloatArray = NDArray[np.float64]

START = 500
"""Observations of each arm before which an asymptotic sequence says nothing."""

_OPTIONS = ("alpha", "planned", "start", "alternative", "null")


def planned_ratio(alpha: float, alternative: Side = "two-sided") -> float:
    """Prior variance x information at which the sequence is tightest; the minimum of :func:`mixture_radius`.

    Waudby-Smith et al. 2024, appendix B: for two sides r solves 1 + r - log(1 + r) = 1 - 2 log(alpha); a one-sided
    sequence at alpha has that of a two-sided one at 2 alpha.
    """
    level = alpha if alternative == "two-sided" else min(2 * alpha, 0.99)
    return float(-special.lambertw(-(level**2) / math.e, -1).real - 1)


def mixture_log_e(z: ArrayLike, ratio: ArrayLike, alternative: Side = "two-sided") -> FloatArray:
    """Logarithm of the e-value.

    Args:
        z: (estimate - null) / standard error, of any shape.
        ratio: prior variance x information, of the same shape.
        alternative: side of the null on which the effect is looked for.
    """
    z, r = np.asarray(z, dtype=np.float64), np.asarray(ratio, dtype=np.float64)
    u = z * np.sqrt(r / (1 + r))
    both = u * u / 2 - np.log1p(r) / 2
    if alternative == "two-sided":
        return np.asarray(both)
    return np.asarray(both + math.log(2) + special.log_ndtr(u if alternative == "greater" else -u))


def mixture_radius(ratio: ArrayLike, alpha: float, alternative: Side = "two-sided") -> FloatArray:
    """How many standard errors from the estimate the confidence sequence ends; where the e-value is 1 / alpha."""
    r = np.asarray(ratio, dtype=np.float64)
    target = np.log1p(r) / 2 - math.log(alpha)
    u = np.sqrt(2 * target)
    if alternative != "two-sided":
        # log e is convex in u and this start is to the right of the root: Newton's steps fall onto it.
        for _ in range(8):
            tail = special.log_ndtr(u)
            slope = u + np.exp(-u * u / 2 - tail) / math.sqrt(2 * math.pi)
            u = u - (u * u / 2 + math.log(2) + tail - target) / slope
    return np.asarray(u * np.sqrt((1 + r) / r))


class _Normal(ABC):
    """What both sequences share: options, the e-value's peak, and the arithmetic from an estimate to a standing."""

    kind: str

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        planned: float = 10_000,
        start: int = START,
        alternative: Side = "two-sided",
        null: float = 0.0,
    ) -> None:
        self.alpha = checked_level(alpha)
        self.planned = checked_number(planned, "planned", above=0)
        self.start = int(checked_number(start, "start", least=2))
        self.alternative = checked_side(alternative)
        self.null = checked_number(null, "null")
        self._scale = planned_ratio(self.alpha, self.alternative) / self.planned
        self._peak = 0.0

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _OPTIONS}

    def _standing(self, n: int, estimate: float, variance: float, time: float) -> Standing:
        """From an estimate, its squared standard error and its effective sample size, on the scale of ``planned``."""
        if not variance > 0:  # too early, or no spread to judge by
            return Standing(n=n, estimate=estimate, low=-math.inf, high=math.inf, log_e=0.0, p_value=self._p_value())
        error, ratio = math.sqrt(variance), self._scale * time
        log_e = float(mixture_log_e((estimate - self.null) / error, ratio, self.alternative))
        half = error * float(mixture_radius(ratio, self.alpha, self.alternative))
        return Standing(
            n=n,
            estimate=estimate,
            low=-math.inf if self.alternative == "less" else estimate - half,
            high=math.inf if self.alternative == "greater" else estimate + half,
            log_e=log_e,
            p_value=self._p_value(),
        )

    def _p_value(self) -> float:
        return math.exp(-self._peak)

    @abstractmethod
    def standing(self) -> Standing:
        """What may be said now."""

    def _looked(self) -> None:
        self._peak = max(self._peak, self.standing().log_e)


class MeanSequence(_Normal):
    """Confidence sequence for one mean: of values, or of scores whose mean is an effect (doubly robust scores).

    Args:
        alpha: probability of ever missing the mean, approximately.
        planned: observations at which the sequence is to be tightest.
        start: observations before which nothing is said.
        alternative: ``greater`` gives a lower bound only and tests mean <= null, ``less`` an upper one.
        null: mean that the e-value speaks against.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "mean-sequence"
    _moments = Moments()

    def update(self, values: ArrayLike) -> Standing:
        """Add observations [n] and look.

        Raises:
            InvalidInputError: a value that is no finite number.
        """
        return self.update_moments(Moments.of(values))

    def update_moments(self, moments: Moments) -> Standing:
        """Add observations by their moments and look."""
        self._moments = self._moments.merged(moments)
        self._looked()
        return self.standing()

    def standing(self) -> Standing:
        """What may be said now."""
        n = self._moments.n
        variance = self._moments.variance / n if n >= self.start else 0.0
        return self._standing(n, self._moments.mean if n else math.nan, variance, float(n))

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        return packed(self.kind, self._options(), {"moments": self._moments.to_list(), "peak": self._peak})

    @classmethod
    def from_dict(cls, document: Any) -> MeanSequence:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        options, state = opened(document, cls.kind, _OPTIONS, ("moments", "peak"))
        found = cls(**options)
        found._moments = Moments.from_list(state["moments"], "moments")
        found._peak = checked_number(state["peak"], "peak", least=0)
        return found


class MeanDifference(_Normal):
    """Confidence sequence for the mean of the treatment minus that of the control.

    The shares of the arms may change over time, but not because of outcomes: where a bandit steers them, feed doubly
    robust scores to :class:`MeanSequence` instead.

    Args:
        alpha: probability of ever missing the difference, approximately.
        planned: observations per arm at which the sequence is to be tightest.
        start: observations of each arm before which nothing is said.
        alternative: ``greater`` gives a lower bound only and tests difference <= null, ``less`` an upper one.
        null: difference that the e-value speaks against; -margin with ``greater`` for non-inferiority.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "mean-difference"
    _control = Moments()
    _treatment = Moments()

    def update(self, control: ArrayLike = (), treatment: ArrayLike = ()) -> Standing:
        """Add observations of the arms [n_control], [n_treatment] and look.

        Raises:
            InvalidInputError: a value that is no finite number.
        """
        return self.update_moments(Moments.of(control, "control"), Moments.of(treatment, "treatment"))

    def update_moments(self, control: Moments, treatment: Moments) -> Standing:
        """Add observations by their moments and look."""
        self._control, self._treatment = self._control.merged(control), self._treatment.merged(treatment)
        self._looked()
        return self.standing()

    def standing(self) -> Standing:
        """What may be said now."""
        old, new = self._control, self._treatment
        estimate = new.mean - old.mean if old.n and new.n else math.nan
        variance, time = 0.0, 0.0
        if min(old.n, new.n) >= self.start:
            variance = old.variance / old.n + new.variance / new.n
            # Observations per arm that two equal arms would need for this standard error.
            time = (old.variance + new.variance) / variance if variance > 0 else 0.0
        return self._standing(old.n + new.n, estimate, variance, time)

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        state = {"control": self._control.to_list(), "treatment": self._treatment.to_list(), "peak": self._peak}
        return packed(self.kind, self._options(), state)

    @classmethod
    def from_dict(cls, document: Any) -> MeanDifference:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        options, state = opened(document, cls.kind, _OPTIONS, ("control", "treatment", "peak"))
        found = cls(**options)
        found._control = Moments.from_list(state["control"], "control")
        found._treatment = Moments.from_list(state["treatment"], "treatment")
        found._peak = checked_number(state["peak"], "peak", least=0)
        return found
