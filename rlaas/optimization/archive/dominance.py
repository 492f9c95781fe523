"""Dominance between noisy candidates, tested on the differences of their evaluations.

All tests are one-sided Student tests on mean differences, objective by objective. Two candidates that were evaluated on
the same seeds saw the same worlds, so that their difference seed by seed is free of what the worlds have in common
(common random numbers; Law 2015, "Simulation modeling and analysis", section 11.2); without shared seeds the test is
Welch's (1947). They rest on the mean over seeds being about normal, which evaluations that average over many steps
are. Under that model a difference without any spread is a constant, and is taken at face value: an objective that stays
at one value until something rare happens breaks the model and needs longer evaluations.

With differences ``a - b`` in units of the objectives' ranges, smaller being better, and a tolerance ``t >= 0``:

* *a dominates b* if it is worse by more than ``t`` in no objective and better by more than ``t`` in one. At ``t = 0``
  that is Pareto dominance; above, it is what Teich 2001 ("Pareto-front exploration with uncertain objectives") and
  Fieldsend & Everson 2005 ("Multi-objective optimization problems in the presence of uncertainty") call dominance up to
  an indifference. No two candidates can dominate each other.
* "Worse in no objective" holds if *every* one of m hypotheses is rejected: an intersection-union test, each at the full
  level (Berger 1982). "Better in one" holds if *some* hypothesis is rejected: Bonferroni, each at level / m. Dominance
  needs both, again an intersection-union test, so its p-value is the larger of the two.
* *a does not dominate b* holds if b is better by more than ``t`` in one objective (m hypotheses), or a is better by
  more than ``t`` in none (one intersection-union test): Bonferroni over these m + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Differences", "Verdict", "compare", "differences", "p_does_not_dominate", "p_dominates"]

FloatArray = NDArray[np.float64]

Verdict = Literal["dominates", "dominated", "incomparable", "undecided"]

ROUNDING = 8 * np.finfo(np.float64).eps
"""Relative difference that the order of additions may leave between equal evaluations; it counts as none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Mean differences between candidates, one per objective, with what a Student test needs.

    Attributes:
        mean: of the first less the second [..., m].
        error: standard error of ``mean`` [..., m]; infinite where fewer than two evaluations leave it unknown.
        degrees: degrees of freedom of ``error`` [..., m].
        paired: whether they are means of differences seed by seed [...].
    """

    mean: FloatArray
    error: FloatArray
    degrees: FloatArray
    paired: NDArray[np.bool_]

    def reversed(self) -> Differences:
        """The second less the first."""
        return Differences(mean=-self.mean, error=self.error, degrees=self.degrees, paired=self.paired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What evaluations say about two candidates.

    Attributes:
        verdict: of the first: it ``dominates`` the second, is ``dominated`` by it, neither does (``incomparable``), or
            the evaluations do not say (``undecided``).
        p_dominates: of the hypothesis that the first does not dominate the second.
        p_dominated: of the hypothesis that the second does not dominate the first.
        p_incomparable: of the hypothesis that one dominates the other.
        paired: whether shared seeds were compared; otherwise the two were taken as independent.
    """

    verdict: Verdict
    p_dominates: float
    p_dominated: float
    p_incomparable: float
    paired: bool

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


def differences(first: FloatArray, second: FloatArray) -> Differences:
    """The differences between candidates over a common list of seeds.

    Args:
        first, second: objectives, smaller is better [..., n_seeds, m], broadcast against each other; a row of NaN
            stands for a seed on which the candidate has no evaluation.

    Returns:
        Paired differences over the seeds that both have, if those are at least two; otherwise Welch's, over the seeds
        that only one of them has, which are independent of each other.
    """
    first, second = np.broadcast_arrays(first, second)
    gap = first - second
    gap = np.where(np.abs(gap) <= ROUNDING * np.maximum(np.abs(first), np.abs(second)), 0.0, gap)
    shared = ~np.isnan(gap).any(axis=-1, keepdims=True)
    count, mean, variance = _moments(gap)
    paired = count >= 2
    error, degrees = np.sqrt(variance / np.maximum(count, 1)), np.maximum(count - 1.0, 1.0)
    if not paired.all():
        n_first, mean_first, variance_first = _moments(np.where(shared, np.nan, first))
        n_second, mean_second, variance_second = _moments(np.where(shared, np.nan, second))
        known = (n_first >= 2) & (n_second >= 2)
        part_first, part_second = variance_first / np.maximum(n_first, 1), variance_second / np.maximum(n_second, 1)
        total = part_first + part_second
        # Satterthwaite's degrees of freedom by each part's share of the variance: squares of variances could underflow.
        share = np.divide(part_first, total, out=np.full_like(total, 0.5), where=total > 0)
        inverse = share**2 / np.maximum(n_first - 1, 1) + (1 - share) ** 2 / np.maximum(n_second - 1, 1)
        mean = np.where(paired, mean, mean_first - mean_second)
        error = np.where(paired, error, np.where(known, np.sqrt(total), np.inf))
        degrees = np.where(paired, degrees, 1.0 / inverse)
    return Differences(mean=mean, error=error, degrees=np.broadcast_to(degrees, mean.shape), paired=paired[..., 0])


def p_dominates(found: Differences, tolerance: float = 0.0) -> FloatArray:
    """p-value [...] of the hypothesis that the first candidate does not dominate the second (see the module)."""
    better, no_worse = _better_in_one(found, tolerance), _worse_in_none(found, tolerance)
    return np.asarray(np.maximum(no_worse, np.minimum(1.0, found.mean.shape[-1] * better)))


def p_does_not_dominate(found: Differences, tolerance: float = 0.0) -> FloatArray:
    """p-value [...] of the hypothesis that the first candidate dominates the second (see the module)."""
    against = found.reversed()
    smallest = np.minimum(_better_in_one(against, tolerance), _worse_in_none(against, tolerance))
    return np.asarray(np.minimum(1.0, (found.mean.shape[-1] + 1) * smallest))


def compare(first: FloatArray, second: FloatArray, *, alpha: float = 0.05, tolerance: float = 0.0) -> Comparison:
    """Compare two candidates.

    Args:
        first, second: objectives in ranges, smaller is better [n_seeds, m]; rows of NaN as in :func:`differences`.
        alpha: probability, at most, that a claim of dominance is wrong, and that one of incomparability is.
        tolerance: how much better or worse does not count, in ranges.
    """
    found = differences(first, second)
    dominates = float(p_dominates(found, tolerance))
    dominated = float(p_dominates(found.reversed(), tolerance))
    # Neither dominates: both hypotheses have to fall, an intersection-union test.
    incomparable = float(max(p_does_not_dominate(found, tolerance), p_does_not_dominate(found.reversed(), tolerance)))
    verdict: Verdict = "undecided"
    if dominates <= alpha:
        verdict = "dominates"
    elif dominated <= alpha:
        verdict = "dominated"
    elif incomparable <= alpha:
        verdict = "incomparable"
    return Comparison(
        verdict=verdict,
        p_dominates=dominates,
        p_dominated=dominated,
        p_incomparable=incomparable,
        paired=bool(found.paired),
    )


def _better_in_one(found: Differences, tolerance: float) -> FloatArray:
    return np.asarray(_p_below(found, -tolerance, closed=False).min(axis=-1))


def _worse_in_none(found: Differences, tolerance: float) -> FloatArray:
    return np.asarray(_p_below(found, tolerance, closed=True).max(axis=-1))


def _p_below(found: Differences, bound: float, *, closed: bool) -> FloatArray:
    """p-values [..., m] that call a difference below ``bound``; ``closed`` counts a constant equal to it as below."""
    from scipy.special import stdtr

    distance = found.mean - bound
    constant = found.error == 0
    tested = stdtr(found.degrees, np.divide(distance, found.error, out=np.zeros_like(distance), where=~constant))
    # An unknown error leaves t at 0, a p-value of 1/2: as undecided as any, but not a probability.
    tested = np.where(np.isinf(found.error), 1.0, tested)
    below = distance <= 0 if closed else distance < 0
    return np.asarray(np.where(constant, np.where(below, 0.0, 1.0), tested))


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Number [..., 1], mean and variance [..., m] of the rows [..., n, m] that are not NaN; 0 where there are none."""
    known = ~np.isnan(values).any(axis=-1, keepdims=True)
    count = known.sum(axis=-2)
    mean = np.where(known, values, 0.0).sum(axis=-2) / np.maximum(count, 1)
    deviation = np.where(known, values - mean[..., None, :], 0.0)
    variance = (deviation**2).sum(axis=-2) / np.maximum(count - 1, 1)
    return count.astype(np.float64), mean, variance
