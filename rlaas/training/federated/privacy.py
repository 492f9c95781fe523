"""What differential privacy has cost so far: zero-concentrated accounting of distributed discrete Gaussian noise.

The unit is a site: two federations are neighbours if one of them lacks all that one site contributes. Each round a site
clips its update to a norm, rounds it to the grid and adds a share of discrete Gaussian noise; the sum alone is seen.
(Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian Mechanism", theorem 1, with the worst number of
honest survivors.) Rounds compose by addition. No amplification by sampling is claimed: every site takes part in every
round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import minimize_scalar

__all__ = ["NoisePlan", "epsilon_of", "plan_noise"]

GRID_DEVIATION = 2.0**20
"""Size of a site's noise in grid units: large enough that the grid does not show, small enough to sample well."""


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """What every site does, and what a round costs.

    Attributes:
        bits: updates are multiples of ``2**-bits``.
        deviation: of a site's share of the noise, in grid units.
        rho: zero-concentrated privacy loss of one round.
        total: standard deviation of the least noise in a sum, in the units of the update.
    """

    bits: int
    deviation: float
    rho: float
    total: float


def plan_noise(*, clip: float, multiplier: float, size: int, honest: int) -> NoisePlan:
    """The noise of a round.

    Args:
        clip: largest norm of a site's update.
        multiplier: standard deviation of the noise of ``honest`` sites together, in units of ``clip``.
        size: numbers in an update; each is rounded to the grid, which lengthens the update.
        honest: shares of noise that are certainly in the sum and unknown to whoever looks at it.
    """
    share = clip * multiplier / math.sqrt(honest)
    bits = math.floor(math.log2(GRID_DEVIATION / share))
    deviation = share * 2.0**bits
    # Rounding moves each of `size` numbers by half a grid unit at most.
    sensitivity = clip * 2.0**bits + 0.5 * math.sqrt(size)
    gap = 10.0 * sum(math.exp(-2 * math.pi**2 * deviation**2 * k / (k + 1)) for k in range(1, honest))
    plain = sensitivity / (math.sqrt(honest) * deviation)
    loss = min(math.sqrt(plain**2 + 0.5 * gap * size), plain + gap * math.sqrt(size))
    return NoisePlan(bits=bits, deviation=deviation, rho=0.5 * loss**2, total=share * math.sqrt(honest))


def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon of ``rho``-zCDP at ``delta`` (Canonne, Kamath and Steinke 2020, corollary 13).

    The infimum over alpha > 1 of ``alpha rho + (log(1/delta) + (alpha-1) log(1-1/alpha) - log(alpha)) / (alpha-1)``.
    Any alpha gives a valid bound, so an inexact minimum errs towards a larger epsilon.
    """
    if rho == 0.0:
        return 0.0

    def bound(log_excess: float) -> float:
        excess = math.exp(log_excess)
        alpha = 1.0 + excess
        conversion = (math.log(1.0 / delta) + excess * math.log(excess / alpha) - math.log(alpha)) / excess
        return alpha * rho + conversion

    # Bun and Steinke's alpha is near the best one.
    middle = math.log(math.sqrt(math.log(1.0 / delta) / rho))
    found = minimize_scalar(bound, bounds=(middle - 3.0, middle + 3.0), method="bounded", options={"xatol": 1e-9})
    return max(0.0, float(found.fun))
