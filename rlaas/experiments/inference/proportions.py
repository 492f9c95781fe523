r"""Exact e-processes for proportions, from counts.

One proportion: the likelihood ratio of a Beta-mixture against the null p is a martingale, and all p that it does not
speak against make a confidence sequence (Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", prop. 7).

Two proportions: each report of new counts is a block. With guesses (a, b) of both proportions from the blocks before,
and (a0, b0) the member of the null that is closest to them in Kullback-Leibler divergence, the block multiplies the
e-value by the likelihood ratio of (a, b) against (a0, b0). Turner, Ly & Grunwald 2024, "Generic e-variables for exact
sequential k-sample tests that allow for optional stopping", and Turner & Grunwald 2023, "Exact anytime-valid
confidence intervals for contingency tables and beyond", for nulls with a margin: for any convex null, by the first
order condition of the projection and the inequality of arithmetic and geometric means, it averages at most 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.inference.checks import (
    Side,
    Standing,
    checked_counts,
    checked_level,
    checked_number,
    checked_side,
    opened,
    packed,
)

__all__ = ["ProportionDifference", "ProportionSequence", "beta_log_e"]

FloatArray = NDArray[np.float64]

PRIOR = 0.5
"""Successes and failures that the guesses of the two proportions start from."""


def beta_log_e(
    successes: ArrayLike, failures: ArrayLike, null: ArrayLike, prior: tuple[float, float], side: Side = "two-sided"
) -> FloatArray:
    """Logarithm of the Beta(prior)-mixture likelihood ratio against the proportion ``null``, of any shape.

    One-sided, the mixture is the part of the prior above (``greater``) or below (``less``) the null, and what it says
    holds against every proportion on the other side too.
    """
    s, f = np.asarray(successes, dtype=np.float64), np.asarray(failures, dtype=np.float64)
    p, (a, b) = np.asarray(null, dtype=np.float64), prior
    ratio = special.betaln(a + s, b + f) - special.betaln(a, b) - special.xlogy(s, p) - special.xlog1py(f, -p)
    if side == "two-sided":
        return np.asarray(ratio)
    if side == "greater":  # the mirror image
        a, b, s, f, p = b, a, f, s, 1 - p
    return np.asarray(ratio + _log_betainc(a + s, b + f, p) - _log_betainc(np.asarray(a), np.asarray(b), p))


def _log_betainc(a: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Logarithm of the regularised incomplete beta function, where the function itself underflows too."""
    a, b, x = np.broadcast_arrays(a, b, x)
    found = np.asarray(special.betainc(a, b, x))
    tiny = found < 1e-290
    logs = np.array(np.log(np.where(tiny, 1.0, found)))
    if tiny.any():
        a, b, x = a[tiny], b[tiny], x[tiny]
        # Continued fraction (DLMF 8.17.22), from the inside out; so far out in the tail a few terms are exact.
        inner = np.ones_like(a)
        for m in range(8, 0, -1):
            even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
            odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
            inner = 1 + odd / (1 + even / inner)
        logs[tiny] = a * np.log(x) + b * np.log1p(-x) - np.log(a) - special.betaln(a, b) - np.log(inner)
    return np.asarray(logs)


class ProportionSequence:
    """Confidence sequence and e-value for one proportion.

    Args:
        null: proportion that the e-value speaks against, in (0, 1).
        alpha: probability of ever missing the proportion.
        alternative: ``greater`` gives a lower bound only and tests proportion <= null, ``less`` an upper one.
        prior: of the mixture, Beta(a, b); the sequence is tightest near its mean.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "proportion-sequence"

    def __init__(
        self,
        *,
        null: float = 0.5,
        alpha: float = 0.05,
        alternative: Side = "two-sided",
        prior: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.null, self.alpha, self.alternative = checked_level(null, "null"), checked_level(alpha), alternative
        checked_side(alternative)
        if np.shape(prior) != (2,):
            raise InvalidInputError(f"prior is {shown(prior)}; expected two numbers above 0", field="prior")
        self.prior = (checked_number(prior[0], "prior", above=0), checked_number(prior[1], "prior", above=0))
        self._counts = (0, 0)
        self._peak = 0.0

    def update(self, successes: int, trials: int) -> Standing:
        """Add the counts of new trials and look.

        Raises:
            InvalidInputError: no whole numbers, or more successes than trials.
        """
        s, n = _block(successes, trials)
        self._counts = (self._counts[0] + s, self._counts[1] + n - s)
        self._peak = max(self._peak, self._log_e(self.null))
        return self.standing()

    def standing(self) -> Standing:
        """What may be said now."""
        s, f = self._counts
        n = s + f
        centre = s / n if n else 0.5
        low = self._end(0.0, centre) if self.alternative != "less" and s else 0.0
        high = self._end(1.0, centre) if self.alternative != "greater" and f else 1.0
        return Standing(
            n=n,
            estimate=s / n if n else math.nan,
            low=-math.inf if self.alternative == "less" else low,
            high=math.inf if self.alternative == "greater" else high,
            log_e=self._log_e(self.null),
            p_value=math.exp(-self._peak),
        )

    def _log_e(self, null: float) -> float:
        return float(beta_log_e(*self._counts, null, self.prior, self.alternative))

    def _end(self, outer: float, centre: float) -> float:
        """The proportion between ``outer`` and ``centre`` where the e-value is 1 / alpha."""
        bar = -math.log(self.alpha)

        def excess(logit: float) -> float:
            return self._log_e(float(special.expit(logit))) - bar

        inner = min(max(float(special.logit(centre)), -36.0), 36.0)
        edge = -700.0 if outer == 0 else 36.0
        if excess(edge) <= 0 or excess(inner) >= 0:
            # Beyond what a float tells from 0 or 1, or all that was seen is the same: nothing is excluded there.
            return outer if excess(edge) <= 0 else centre
        return float(special.expit(optimize.brentq(excess, edge, inner, xtol=1e-12)))

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        options = {"null": self.null, "alpha": self.alpha, "alternative": self.alternative, "prior": list(self.prior)}
        return packed(self.kind, options, {"counts": list(self._counts), "peak": self._peak})

    @classmethod
    def from_dict(cls, document: Any) -> ProportionSequence:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        options, state = opened(document, cls.kind, ("null", "alpha", "alternative", "prior"), ("counts", "peak"))
        found = cls(**options)
        s, f = checked_counts(state["counts"], "counts", 2).tolist()
        found._counts = (s, f)
        found._peak = checked_number(state["peak"], "peak", least=0)
        return found


class ProportionDifference:
    """E-value for the proportion of the treatment minus that of the control, exact at every number of blocks.

    Exact for any sizes of the arms in a block, which may follow from earlier blocks (a bandit) but not from the
    outcomes of the same one. Smaller blocks give more power: the guesses are renewed between blocks only.

    Args:
        null: difference (margin) that the e-value speaks against, in (-1, 1).
        alternative: ``greater`` tests difference <= null, ``less`` difference >= null, ``two-sided`` both.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "proportion-difference"

    def __init__(self, *, null: float = 0.0, alternative: Side = "two-sided") -> None:
        self.null = checked_number(null, "null", above=-1)
        if not self.null < 1:
            raise InvalidInputError(f"null is {null}; expected a number in (-1, 1)", field="null")
        self.alternative = checked_side(alternative)
        self._control = self._treatment = (0, 0)
        self._log_e = self._peak = 0.0

    @property
    def log_e(self) -> float:
        """Logarithm of the e-value now."""
        return self._log_e

    @property
    def p_value(self) -> float:
        """Always valid: 1 / the largest e-value seen, at most 1."""
        return math.exp(-self._peak)

    @property
    def estimate(self) -> float:
        """Observed difference; NaN until both arms have trials."""
        (s0, f0), (s1, f1) = self._control, self._treatment
        return s1 / (s1 + f1) - s0 / (s0 + f0) if s0 + f0 and s1 + f1 else math.nan

    def update(self, control: tuple[int, int], treatment: tuple[int, int]) -> float:
        """Add one block, (successes, trials) of each arm.

        Returns:
            The always-valid p-value.

        Raises:
            InvalidInputError: no whole numbers, or more successes than trials.
        """
        (s0, n0), (s1, n1) = _block(*_pair(control, "control")), _block(*_pair(treatment, "treatment"))
        if n0 and n1:
            a, b = _guess(self._control), _guess(self._treatment)
            side = self.alternative
            if side == "two-sided" or (b - a > self.null if side == "greater" else b - a < self.null):
                a0, b0 = _nearest(a, b, n0, n1, self.null)
                self._log_e += _log_ratio(s0, n0 - s0, a, a0) + _log_ratio(s1, n1 - s1, b, b0)
                self._peak = max(self._peak, self._log_e)
        self._control = (self._control[0] + s0, self._control[1] + n0 - s0)
        self._treatment = (self._treatment[0] + s1, self._treatment[1] + n1 - s1)
        return self.p_value

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        state = {"control": list(self._control), "treatment": list(self._treatment)}
        options = {"null": self.null, "alternative": self.alternative}
        return packed(self.kind, options, {**state, "log_e": self._log_e, "peak": self._peak})

    @classmethod
    def from_dict(cls, document: Any) -> ProportionDifference:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        keys = ("control", "treatment", "log_e", "peak")
        options, state = opened(document, cls.kind, ("null", "alternative"), keys)
        found = cls(**options)
        (s0, f0), (s1, f1) = (checked_counts(state[k], k, 2).tolist() for k in keys[:2])
        found._control, found._treatment = (s0, f0), (s1, f1)
        found._log_e = checked_number(state["log_e"], "log_e")
        found._peak = checked_number(state["peak"], "peak", least=0)
        return found


def _pair(counts: Any, field: str) -> tuple[Any, Any]:
    if np.shape(counts) != (2,):
        raise InvalidInputError(f"{field} is {shown(counts)}; expected (successes, trials)", field=field)
    return counts[0], counts[1]


def _block(successes: Any, trials: Any) -> tuple[int, int]:
    s, n = checked_counts(np.array([successes, trials]), "successes and trials", 2).tolist()
    if s > n:
        raise InvalidInputError(f"successes are {s}, more than the {n} trials", field="successes")
    return s, n


def _guess(counts: tuple[int, int]) -> float:
    return (counts[0] + PRIOR) / (sum(counts) + 2 * PRIOR)


def _nearest(a: float, b: float, n0: int, n1: int, margin: float) -> tuple[float, float]:
    """The proportions (a0, a0 + margin) from which blocks of these sizes at (a, b) are hardest to tell."""
    if margin == 0:
        same = (n0 * a + n1 * b) / (n0 + n1)
        return same, same

    def slope(p: float) -> float:
        q = p + margin
        return n0 * (p - a) / (p * (1 - p)) + n1 * (q - b) / (q * (1 - q))

    edge = 1e-12
    low, high = max(0.0, -margin) + edge, min(1.0, 1 - margin) - edge
    p = float(optimize.brentq(slope, low, high, xtol=1e-15))
    return p, p + margin


def _log_ratio(successes: int, failures: int, p: float, null: float) -> float:
    return successes * math.log(p / null) + failures * math.log((1 - p) / (1 - null))
