"""What an allocator loses while it learns, and the least that any good one must lose.

Regret is the sum over decisions of (best mean - mean of the arm played). Lai & Robbins (1985): a rule whose regret
grows slower than any power of the horizon T on every problem has, on each of them,

    lim inf regret(T) / log T >= sum over worse arms of gap_a / KL(a, best)

with the Kullback-Leibler divergence between reward distributions. The bound is of the limit: at a finite horizon a rule
may lie below it (Garivier, Menard & Stoltz 2019), and its slope against log T tells more than its level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, shown

__all__ = [
    "Learner",
    "bernoulli_divergence",
    "gaussian_divergence",
    "geometric_batches",
    "lai_robbins",
    "sequential_regret",
    "simulated_regret",
]

FloatArray = NDArray[np.float64]


class Learner(Protocol):
    """An allocator of rewards without context: ``Fixed`` and ``Thompson``."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""

    def shares(self) -> dict[str, float]:
        """Share of each arm in the next batch."""

    def updated_by_sums(self, sums: Mapping[str, tuple[int, float, float]]) -> Self:
        """After a batch: number, sum and sum of squares of the rewards by arm."""


def bernoulli_divergence(p: float, q: float) -> float:
    """KL divergence of a Bernoulli distribution with mean ``p`` from one with mean ``q``, in nats."""
    parts = [a * math.log(a / b) if b > 0 else math.inf for a, b in ((p, q), (1 - p, 1 - q)) if a > 0]
    return math.fsum(parts)


def gaussian_divergence(gap: float, noise: float, *, known: bool = True) -> float:
    """Least KL divergence of a normal reward with a mean that is ``gap`` lower, in nats.

    Args:
        gap: between the means.
        noise: standard deviation of a reward.
        known: whether the variance is known: gap^2 / (2 noise^2). If not, a rival with another variance is nearer:
            log(1 + gap^2 / noise^2) / 2 (Burnetas & Katehakis 1996).
    """
    square = (gap / noise) ** 2
    return square / 2 if known else math.log1p(square) / 2


def lai_robbins(means: Sequence[float], *, noise: float | None = None, known: bool = True) -> float:
    """Factor of log T in the bound, in reward.

    Args:
        means: of the arms, one of them the largest.
        noise: standard deviation of normal rewards; None: rewards are 0 or 1.
        known: whether that standard deviation is known to the rule.

    Raises:
        InvalidInputError: fewer than 2 arms, means outside [0, 1] of rewards 0 or 1, or a noise that is not positive.
    """
    numbers = [float(mean) for mean in means]
    if len(numbers) < 2 or not all(math.isfinite(m) for m in numbers):
        raise InvalidInputError(f"means are {shown(numbers)}; expected two or more finite numbers", field="means")
    if noise is None and not all(0 <= m <= 1 for m in numbers):
        raise InvalidInputError(f"means are {shown(numbers)}; expected rates in [0, 1]", field="means")
    if noise is not None and not 0 < noise < math.inf:
        raise InvalidInputError(f"noise is {noise}; expected a positive standard deviation", field="noise")
    best = max(numbers)
    total = 0.0
    for mean in numbers:
        if mean < best:
            gap = best - mean
            divergence = (
                bernoulli_divergence(mean, best) if noise is None else gaussian_divergence(gap, noise, known=known)
            )
            total += gap / divergence
    return total


def geometric_batches(horizon: int, growth: float = 0.1, first: int = 10) -> list[int]:
    """Sizes of batches that sum to ``horizon``, each ``growth`` of all before it but at least ``first``."""
    sizes: list[int] = []
    done = 0
    while done < horizon:
        size = min(max(first, int(done * growth)), horizon - done)
        sizes.append(size)
        done += size
    return sizes


def simulated_regret(
    learner: Learner,
    means: Sequence[float],
    batches: Sequence[int],
    rng: np.random.Generator,
    noise: float | None = None,
) -> FloatArray:
    """Regret of an allocator after each batch, in one simulated run [n_batches].

    Args:
        learner: before any reward.
        means: of its arms, in their order.
        batches: decisions in each batch.
        rng: of assignments and rewards.
        noise: standard deviation of normal rewards; None: rewards are 0 or 1.
    """
    mean = np.array(means, dtype=np.float64)
    gap = mean.max() - mean
    lost, found = 0.0, []
    for size in batches:
        share = np.array(list(learner.shares().values()))
        counts = rng.multinomial(size, share / share.sum())
        lost += float(counts @ gap)
        found.append(lost)
        sums = {}
        for arm, n, m in zip(learner.arms, counts.tolist(), mean.tolist(), strict=True):
            if noise is None:
                won = float(rng.binomial(n, m))
                sums[arm] = (n, won, won)
            else:
                rewards = rng.normal(m, noise, n)
                sums[arm] = (n, float(rewards.sum()), float(rewards @ rewards))
        learner = learner.updated_by_sums(sums)
    return np.array(found)


def sequential_regret(
    means: Sequence[float],
    horizon: int,
    runs: int,
    rng: np.random.Generator,
    noise: float | None = None,
    checkpoints: Sequence[int] = (),
) -> FloatArray:
    """Regret of Thompson sampling that learns after every decision, in many simulated runs [runs, n_checkpoints].

    An arm is drawn by one draw from the posterior instead of by its computed share, which is the same law, so that
    runs go side by side: this is the rule of the papers, with a uniform prior for rewards 0 or 1 (Kaufmann, Korda &
    Munos 2012) and, for normal ones of known variance, a flat one after one reward of every arm (Agrawal & Goyal 2017).

    Args:
        means: of the arms.
        horizon: decisions in a run.
        runs: number of runs.
        rng: of draws and rewards.
        noise: standard deviation of normal rewards; None: rewards are 0 or 1.
        checkpoints: numbers of decisions after which regret is read, rising; default: the horizon.
    """
    mean = np.array(means, dtype=np.float64)
    gap = mean.max() - mean
    every = np.arange(runs)
    count, total = np.zeros((runs, len(mean))), np.zeros((runs, len(mean)))
    lost, found = np.zeros(runs), []
    wanted = set(checkpoints or (horizon,))
    for step in range(horizon):
        if noise is None:
            arm = rng.beta(1 + total, 1 + count - total).argmax(axis=1)
            reward = (rng.random(runs) < mean[arm]).astype(np.float64)
        else:
            if step < len(mean):
                arm = np.full(runs, step)
            else:
                arm = (total / count + rng.standard_normal(count.shape) * noise / np.sqrt(count)).argmax(axis=1)
            reward = mean[arm] + noise * rng.standard_normal(runs)
        count[every, arm] += 1
        total[every, arm] += reward
        lost = lost + gap[arm]
        if step + 1 in wanted:
            found.append(lost)
    return np.stack(found, axis=1)
