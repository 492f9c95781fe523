"""Thousands of canaries judged at once: the arithmetic of the judge on arrays, one row a rollout.

``CanaryJudge`` judges one rollout in about 0.4 ms a second of traffic, too slow for thousands of rollouts that last 15
minutes. :func:`disagreement` feeds the same counts to both and says how far apart their evidence is.
"""

from __future__ import annotations

import copy
import functools
import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rlaas.experiments import canary
from rlaas.experiments.canary import CanaryBounds, CanaryJudge, Counts

__all__ = ["DELAY_S", "EDGES_US", "RATE", "Rollouts", "Traffic", "disagreement"]

RATE, DELAY_S = 100, 5
EDGES_US = np.array([round(10 * 2 ** (k / 4)) for k in range(80)])
_BETS = np.array(canary._BETS)
Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Traffic:
    """How a version behaves.

    Attributes:
        errors: share of decisions that fail.
        slower: factor of the latency, which is log-normal with median 200 us.
        spread: sigma of its logarithm.
        tail: share of decisions that take ten times as long.
        mean, sigma: of the utility, which has a beta distribution; sigma 0.5 at mean 0.5 means 0 or 1.
    """

    errors: float = 0.002
    slower: float = 1.0
    spread: float = 0.5
    tail: float = 0.02
    mean: float = 0.6
    sigma: float = 0.15

    def utilities(self, n: int, rng: np.random.Generator) -> Array:
        """Draws [n] in [0, 1]."""
        spread = self.mean * (1 - self.mean) / self.sigma**2 - 1
        if spread < 0.01:
            return (rng.random(n) < self.mean).astype(np.float64)
        return rng.beta(self.mean * spread, (1 - self.mean) * spread, n)

    @functools.cache  # noqa: B019 a handful of them exist, as long as the process
    def buckets(self) -> Array:
        """Probability of each bucket of latency [81]."""
        spread = max(self.spread, 1e-9)
        fast, slow = (special.ndtr(np.log(EDGES_US / (200 * self.slower * times)) / spread) for times in (1, 10))
        below = (1 - self.tail) * fast + self.tail * slow
        return np.diff(below, prepend=0.0, append=1.0)

    def second(self, n: int, rng: np.random.Generator) -> tuple[Counts, Array]:
        """What ``n`` decisions add at once, and the utilities that are seen later."""
        failed = int(rng.binomial(n, self.errors))
        took = 200 * self.slower * np.exp(self.spread * rng.standard_normal(n - failed))
        took *= np.where(rng.random(n - failed) < self.tail, 10.0, 1.0)
        counts = np.bincount(np.searchsorted(EDGES_US, took), minlength=len(EDGES_US) + 1)
        return Counts(n - failed, failed, tuple(counts.tolist())), self.utilities(n - failed, rng)


@dataclass
class _Side:
    """What a version adds in a second: attempts and errors [runs], buckets [runs, 81], outcomes [3, runs]."""

    attempts: Array
    errors: Array
    latency: Array
    rewards: Array

    @classmethod
    def draw(cls, traffic: Traffic, n: NDArray[np.int64], rng: np.random.Generator) -> _Side:
        failed = rng.binomial(n, traffic.errors)
        answered = n - failed
        utilities = traffic.utilities(int(answered.sum()), rng)
        owner = np.repeat(np.arange(len(n)), answered)
        sums = [np.bincount(owner, weights=values, minlength=len(n)) for values in (utilities, utilities * utilities)]
        latency = rng.multinomial(answered, traffic.buckets()).astype(np.float64)
        return cls(n.astype(np.float64), failed.astype(np.float64), latency, np.array([answered, *sums]))

    def counts(self, row: int) -> Counts:
        """One rollout's, as the judge takes them."""
        n, total, squares = self.rewards[:, row].tolist()
        failed, latency = int(self.errors[row]), tuple(self.latency[row].astype(int).tolist())
        return Counts(int(self.attempts[row]) - failed, failed, latency, int(n), total, squares)


def _mirror(losses: Array) -> Array:
    n, total, squares = losses
    return np.array([n, n - total, n - 2 * total + squares])


def _growth(losses: Array, bet: Array, centre: Array, exact: bool) -> Array:
    """[runs, bets] from losses [3, runs], bets [runs, bets] and centres [runs]; see ``canary._growth``."""
    n, total, squares = (part[:, None] for part in losses)
    centre = centre[:, None]
    if exact:
        return total * np.log1p(bet * (1 - centre)) + (n - total) * np.log1p(-bet * centre)
    mean = total / n
    variance = np.maximum(squares / n - mean**2, 0.0)
    below = np.minimum(mean, np.sqrt((n - 1) * variance))
    apart = np.where(below > 0, below, 1.0)
    share = np.where(below > 0, variance / (variance + apart**2 * (below > 0) + (below == 0)), 0.0)
    low, high = mean - below, np.where(below > 0, mean + variance / apart, mean)
    return n * (share * np.log1p(bet * (low - centre)) + (1 - share) * np.log1p(bet * (high - centre)))


class _Gamblers:
    def __init__(self, runs: int, at_once: float) -> None:
        self.at_once = at_once
        self.blocks, self.held = np.zeros(runs), np.ones(runs)
        self.logs = np.full((runs, len(_BETS)), -np.inf)

    def play(self, mine: Array, theirs: Array, centre: Array, margin: Array, exact: bool, who: Flags) -> None:
        self.blocks += who
        share = np.where(self.blocks == 1, self.at_once, 1 / (self.blocks + canary._EVEN))
        put_in = np.log(self.held * share / len(_BETS))[:, None]
        self.held = np.where(who, self.held * (1 - share), self.held)
        # Rows that do not play are computed along, on losses that harm no logarithm.
        idle = np.array([[1.0], [0.0], [0.0]])
        mine, theirs = np.where(who, mine, idle), np.where(who, theirs, idle)
        against = centre + margin
        pull = np.minimum(
            _BETS / against[:, None] * mine[0][:, None], (canary._LARGEST / (1 - centre) * theirs[0])[:, None]
        )
        growth = _growth(mine, pull / mine[0][:, None], against, exact)
        growth += _growth(_mirror(theirs), pull / theirs[0][:, None], 1 - centre, exact)
        self.logs = np.where(who[:, None], np.logaddexp(self.logs, put_in) + growth, self.logs)

    def log_wealth(self) -> Array:
        return np.logaddexp(np.logaddexp.reduce(self.logs, axis=1), np.log(self.held))


class _Metric:
    def __init__(self, runs: int) -> None:
        self.memory = np.zeros((3, runs))
        self.mine, self.theirs = np.zeros((3, runs)), np.zeros((3, runs))
        self.harm, self.safe = _Gamblers(runs, canary._HARM_AT_ONCE), _Gamblers(runs, canary._SAFE_AT_ONCE)

    def update(self, name: str, bounds: CanaryBounds, mine: Array, theirs: Array, fade: bool) -> Flags:
        """Which rows closed a block."""
        self.mine, self.theirs = self.mine + mine, self.theirs + theirs
        ready = self.memory[0] >= canary._LEARN
        closes = (self.theirs[0] > 0) & ~(ready & (self.mine[0] == 0))
        known = np.maximum(self.memory[0], 1.0)
        mean = self.memory[1] / known
        if name == "reward":
            sigma = np.sqrt(np.maximum(self.memory[2] / known - mean**2, 0.0))
            margin = np.clip(bounds.reward * sigma, canary._LEAST_SIGMA_MARGIN, 0.5)
        else:
            margin = np.full_like(mean, getattr(bounds, name))
        centre, exact, plays = np.clip(mean, 1e-3, 1 - margin - 1e-3), name != "reward", closes & ready
        self.harm.play(self.mine, self.theirs, centre, margin, exact, plays)
        self.safe.play(_mirror(self.mine), _mirror(self.theirs), 1 - centre, -margin, exact, plays)
        self.memory = self.memory + np.where(closes, self.theirs, 0.0)
        if fade:
            factor = np.where(closes, np.minimum(1.0, canary._MEMORY / np.maximum(self.memory[0], 1.0)), 1.0)
            self.memory = self.memory * factor
        self.mine, self.theirs = np.where(closes, 0.0, self.mine), np.where(closes, 0.0, self.theirs)
        return closes


class Rollouts:
    """Canaries that all go on at once, each with its own traffic.

    Args:
        runs: how many.
        share: of the decisions that a canary gets.
        seed: of the traffic.
        bounds: that they are judged by.
    """

    def __init__(self, runs: int, share: float, seed: int, bounds: CanaryBounds | None = None) -> None:
        self.runs, self.share, self.rng = runs, share, np.random.default_rng(seed)
        self.bounds = bounds or CanaryBounds()
        self.metrics = {name: _Metric(runs) for name in canary.METRICS}
        self.histogram, self.slow_from = np.zeros((runs, len(EDGES_US) + 1)), np.full(runs, -1)
        self.late = deque([(np.zeros((3, runs)), np.zeros((3, runs)))] * DELAY_S)
        self.last: tuple[_Side, _Side] | None = None

    def branch(self) -> Rollouts:
        """The same rollouts, to go on in another way."""
        return copy.deepcopy(self)

    def second(self, stable: Traffic, new: Traffic) -> None:
        """A second of traffic, and a look at it."""
        n = self.rng.poisson(RATE, self.runs)
        mine = self.rng.binomial(n, self.share)
        sides = _Side.draw(stable, n - mine, self.rng), _Side.draw(new, mine, self.rng)
        self.late.append((sides[0].rewards, sides[1].rewards))
        sides[0].rewards, sides[1].rewards = self.late.popleft()
        self.last = sides
        theirs, ours = sides
        errors = [np.array([side.attempts, side.errors, side.errors]) for side in (ours, theirs)]
        self.metrics["errors"].update("errors", self.bounds, *errors, fade=True)
        self._latency(ours.latency, theirs.latency)
        self.metrics["reward"].update("reward", self.bounds, _mirror(ours.rewards), _mirror(theirs.rewards), fade=True)

    def harmed(self) -> Flags:
        """Which rows are called harmful now [runs]."""
        needed = math.log(len(self.metrics) / self.bounds.alpha)
        return np.any([metric.harm.log_wealth() >= needed for metric in self.metrics.values()], axis=0)

    def cleared(self) -> Flags:
        """Which rows are shown to do no harm now [runs]."""
        needed = math.log(1 / self.bounds.beta)
        return np.all([metric.safe.log_wealth() >= needed for metric in self.metrics.values()], axis=0)

    def _latency(self, ours: Array, theirs: Array) -> None:
        known, metric = self.slow_from >= 0, self.metrics["latency"]
        losses = []
        for counts in (ours, theirs):
            slow = (counts * (np.arange(counts.shape[1]) >= self.slow_from[:, None])).sum(axis=1)
            losses.append(np.where(known, np.array([counts.sum(axis=1), slow, slow]), 0.0))
        closed = metric.update("latency", self.bounds, losses[0], losses[1], fade=False)
        self.histogram = self.histogram + theirs
        moves = np.where(known, closed, self.histogram.sum(axis=1) >= canary._LEARN_LATENCY)
        total = np.maximum(self.histogram.sum(axis=1), 1.0)
        faded = np.round(self.histogram * np.minimum(1.0, canary._MEMORY / total)[:, None], 3)
        below, total = faded.cumsum(axis=1), faded.sum(axis=1)
        bucket = (below >= canary._QUANTILE * total[:, None]).argmax(axis=1)
        slow = total - below[np.arange(self.runs), bucket]
        self.histogram = np.where(moves[:, None], faded, self.histogram)
        self.slow_from = np.where(moves, bucket + 1, self.slow_from)
        metric.memory = np.where(moves, np.array([total, slow, slow]), metric.memory)


def disagreement(stable: Traffic, new: Traffic, *, runs: int = 4, seconds: int = 120, share: float = 0.05) -> float:
    """Largest difference of a log wealth between the judge and the arrays, at any second of any rollout."""
    many, worst = Rollouts(runs, share, seed=7), 0.0
    judges = [CanaryJudge(many.bounds) for _ in range(runs)]
    for _ in range(seconds):
        many.second(stable, new)
        assert many.last is not None
        for row, judge in enumerate(judges):
            judge.update(many.last[0].counts(row), many.last[1].counts(row))
            for name, metric in many.metrics.items():
                one = judge._metrics[name]
                worst = max(
                    worst,
                    abs(one.harm.log_wealth() - metric.harm.log_wealth()[row]),
                    abs(one.safe.log_wealth() - metric.safe.log_wealth()[row]),
                )
    return float(worst)
