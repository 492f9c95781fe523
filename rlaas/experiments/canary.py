"""Is a canary worse than the stable version? An answer that may be asked for at any time, by betting.

Every decision has a loss in [0, 1]: an error (0 or 1), being slower than 95 % of the stable version's decisions (0 or
1), or 1 - utility of its outcome. For each of the three, a gambler bets against "the canary's mean loss exceeds the
stable version's by at most the margin". His wealth starts at 1 and is a supermartingale while that is true, so that it
ever exceeds 1 / alpha with probability <= alpha (Ville 1939), however often one looks. A second gambler bets against
"it exceeds it by at least the margin"; his wealth says when no harm is left to fear.

A block of n canary and N stable losses between two looks multiplies the wealth by

    prod (1 + l (y - m - d))  over the canary's   x   prod (1 - l n / N (y - m))  over the stable version's,

d the margin, m and l fixed before. Its expectation is (1 + l (c - m - d))^n (1 - l n / N (s - m))^N in the means c and
s, which is log-concave; on the line c - s = d it is 1 with gradient along the line's normal at (m + d, m), so nowhere
in the half-plane c - s <= d above 1. For losses of 0 and 1 this is the likelihood ratio of Turner, Ly and Gruenwald
(2024, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping") and, with the margin,
Turner and Gruenwald (2023). Both means may wander: what counts is their difference within each block. Of utilities only
sums and sums of squares are known. Of n losses with mean y and variance v none is below y - sqrt((n - 1) v) (Samuelson
1968) nor below 0; the higher of both is a. The logarithm's third derivative is positive, so from a on it lies above the
parabola that equals it at a and touches it at y + v / (y - a): the product is at least what it would be if all losses
were one of these two, with the same mean and variance. Of one or two losses that is the product itself.

The bets l are a fixed grid, each with its own wealth. Most of the first gambler's money is held back and put in block
by block, so that a canary that turns bad late is not believed for its good past: the sum is a mixture over when the
harm began, as in the e-detectors of Shin, Ramdas and Rinaldo (2023), but with weights that sum to 1, so that it stays a
supermartingale and its bound is one on false alarms at any time. A harm that begins with block j has a weight of about
T / (j + T)^2: nearly even over the T blocks that a step lasts at most, and never used up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rlaas.errors import ConfigurationError, check_choice, shown

__all__ = ["METRICS", "CanaryBounds", "CanaryJudge", "Counts", "Verdict"]

METRICS = ("errors", "latency", "reward")
"""What a canary can be judged by."""
Verdict = Literal["harm", "no_harm", "undecided"]

_BETS = (0.01, 0.03, 0.08, 0.18, 0.4, 0.7, 0.94, 0.99)
"""Bets as shares of the largest that cannot ruin the gambler."""
_HARM_AT_ONCE, _SAFE_AT_ONCE = 0.2, 0.8
"""Share of the money that the first block gets: harm may begin at any time, that there is none with the step."""
_EVEN = 900.0
"""Blocks over which the rest is spread nearly evenly: the seconds after which a step times out, a look each."""
_LARGEST = 0.9
_LEARN = 50.0
"""Losses of the stable version that are seen before the first bet, which they place."""
_LEARN_LATENCY = 300.0
"""The same where a quantile has to be placed."""
_MEMORY = 5000.0
"""Losses of the stable version that are remembered; older ones fade."""
_QUANTILE = 0.95
_LEAST_SIGMA_MARGIN = 0.005


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted about a version in some span of time.

    Attributes:
        decisions, errors: that were answered, and that failed.
        latency: decisions by bucket of time taken, the fastest first; all counts of a rollout have the same buckets.
        rewards, reward_sum, reward_squares: outcomes and the sums of their utilities, each in [0, 1].
    """

    decisions: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    rewards: int = 0
    reward_sum: float = 0.0
    reward_squares: float = 0.0

    def plus(self, other: Counts, sign: int = 1) -> Counts:
        """Sum of two, or with ``sign`` -1 what has come since ``other``."""
        width = max(len(self.latency), len(other.latency))
        mine = self.latency + (0,) * (width - len(self.latency))
        theirs = other.latency + (0,) * (width - len(other.latency))
        return Counts(
            self.decisions + sign * other.decisions,
            self.errors + sign * other.errors,
            tuple(a + sign * b for a, b in zip(mine, theirs, strict=True)),
            self.rewards + sign * other.rewards,
            self.reward_sum + sign * other.reward_sum,
            self.reward_squares + sign * other.reward_squares,
        )


@dataclass(frozen=True, slots=True)
class CanaryBounds:
    """How much worse is too much, and how sure one wants to be.

    Attributes:
        metrics: that are judged.
        alpha: probability with which a canary that is worse by no more than the margins is ever called harmful, over
            the whole rollout and all metrics together.
        beta: probability with which one that is worse by more than a margin is called harmless, at one step.
        errors: margin of the share of errors.
        latency: margin of the share of decisions slower than the stable version's 95th percentile.
        reward: margin of the mean utility, in standard deviations of the stable version's utility.

    Raises:
        ConfigurationError: a value out of range.
    """

    metrics: tuple[str, ...] = METRICS
    alpha: float = 0.05
    beta: float = 0.05
    errors: float = 0.02
    latency: float = 0.05
    reward: float = 0.25

    def __post_init__(self) -> None:
        if not self.metrics or len(set(self.metrics)) != len(self.metrics):
            raise ConfigurationError("metrics must name at least one, each once", field="metrics")
        for metric in self.metrics:
            check_choice(metric, METRICS, field="metrics")
        limits = {"alpha": 0.5, "beta": 0.5, "errors": 0.5, "latency": 0.5, "reward": 10.0}
        for name, most in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
                raise ConfigurationError(f"{name} must be > 0 and <= {most:g}, got {shown(value)}", field=name)


@dataclass(slots=True)
class _Losses:
    """Number, sum and sum of squares of losses."""

    n: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, other: _Losses) -> None:
        self.n += other.n
        self.total += other.total
        self.squares += other.squares

    def fade(self, most: float) -> float:
        """Scale down to at most ``most`` losses; the factor."""
        factor = min(1.0, most / self.n) if self.n else 1.0
        self.n, self.total, self.squares = self.n * factor, self.total * factor, self.squares * factor
        return factor

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else math.nan

    @property
    def sigma(self) -> float:
        return math.sqrt(max(self.squares / self.n - self.mean**2, 0.0)) if self.n else math.nan


class _Gambler:
    """Bets against "canary - stable <= margin"; the wealth is the evidence for more."""

    def __init__(self, at_once: float, state: Mapping[str, Any] | None = None) -> None:
        self._at_once = at_once
        self.blocks = int(state["blocks"]) if state else 0
        # Records of before hold 8 bets of another grid, and half of the money back, by another schedule.
        self.held = float(state.get("held", 0.5 / self.blocks)) if self.blocks and state else 1.0
        self._logs: list[float] = (
            [float(v) for v in state["logs"]] if self.blocks and state else [-math.inf] * len(_BETS)
        )

    def state(self) -> dict[str, Any]:
        # Before the first block the logarithms are infinite, which JSON cannot say.
        return {"blocks": self.blocks, "held": self.held, "logs": list(self._logs) if self.blocks else []}

    def play(self, canary: _Losses, stable: _Losses, centre: float, margin: float, *, exact: bool) -> None:
        """One block.

        Args:
            canary, stable: losses of the block, at least one each.
            centre: where the stable version's mean is expected.
            margin: by which the canary's may exceed it.
            exact: whether losses are 0 or 1.
        """
        self.blocks += 1
        share = self._at_once if self.blocks == 1 else 1 / (self.blocks + _EVEN)
        put_in = math.log(self.held * share / len(_BETS))
        self.held *= 1 - share
        theirs = centre + margin
        for k, bet in enumerate(_BETS):
            # Largest share of the wealth that a loss can take on either side stays below 1.
            pull = min(bet / theirs * canary.n, _LARGEST / (1 - centre) * stable.n)
            growth = _growth(canary, pull / canary.n, theirs, exact) + _growth(
                _Losses(stable.n, stable.n - stable.total, stable.n - 2 * stable.total + stable.squares),
                pull / stable.n,
                1 - centre,
                exact,
            )
            self._logs[k] = _log_add(self._logs[k], put_in) + growth

    def log_wealth(self) -> float:
        """Logarithm of the wealth, with what is held back."""
        parts = [*self._logs, math.log(self.held)]
        largest = max(parts)
        return largest + math.log(math.fsum(math.exp(v - largest) for v in parts))


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _growth(losses: _Losses, bet: float, centre: float, exact: bool) -> float:
    """Log of the product of 1 + bet (y - centre), or what it is at least."""
    if exact:
        return losses.total * math.log1p(bet * (1 - centre)) + (losses.n - losses.total) * math.log1p(-bet * centre)
    mean = losses.total / losses.n
    variance = max(losses.squares / losses.n - mean**2, 0.0)
    below = min(mean, math.sqrt((losses.n - 1) * variance))
    if not below:
        return losses.n * math.log1p(bet * (mean - centre))
    low, high = mean - below, mean + variance / below
    share = variance / (variance + below**2)  # of the losses, at ``low``
    return losses.n * (share * math.log1p(bet * (low - centre)) + (1 - share) * math.log1p(bet * (high - centre)))


class _Metric:
    """One metric: what is known of the stable version, the block that is being filled, and the two gamblers."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self.memory = _Losses(**state["memory"]) if state else _Losses()
        self.block = {side: _Losses(**state["block"][side]) if state else _Losses() for side in ("canary", "stable")}
        self.seen = {side: _Losses(**state["seen"][side]) if state else _Losses() for side in ("canary", "stable")}
        self.harm = _Gambler(_HARM_AT_ONCE, state["harm"] if state else None)
        self.safe = _Gambler(_SAFE_AT_ONCE, state["safe"] if state else None)

    def state(self) -> dict[str, Any]:
        return {
            "memory": asdict(self.memory),
            "block": {side: asdict(losses) for side, losses in self.block.items()},
            "seen": {side: asdict(losses) for side, losses in self.seen.items()},
            "harm": self.harm.state(),
            "safe": self.safe.state(),
        }

    def margin(self, name: str, bounds: CanaryBounds) -> float:
        """In losses. Of the reward it follows the spread that was seen before the block."""
        if name != "reward":
            return float(getattr(bounds, name))
        return min(max(bounds.reward * self.memory.sigma, _LEAST_SIGMA_MARGIN), 0.5) if self.memory.n else math.nan

    def update(self, name: str, bounds: CanaryBounds, canary: _Losses, stable: _Losses) -> bool:
        """Take losses in; whether a block was closed, so that what is remembered may change."""
        for side, losses in (("canary", canary), ("stable", stable)):
            self.block[side].add(losses)
            self.seen[side].add(losses)
        mine, theirs = self.block["canary"], self.block["stable"]
        ready = self.memory.n >= _LEARN
        if not theirs.n or (ready and not mine.n):
            return False
        if ready:
            margin, exact = self.margin(name, bounds), name != "reward"
            centre = min(max(self.memory.mean, 1e-3), 1 - margin - 1e-3)
            self.harm.play(mine, theirs, centre, margin, exact=exact)
            # The mirror image: 1 - loss of the canary exceeds that of the stable version by more than -margin.
            self.safe.play(_mirror(mine), _mirror(theirs), 1 - centre, -margin, exact=exact)
        self.memory.add(theirs)
        self.block = {"canary": _Losses(), "stable": _Losses()}
        return True


def _mirror(losses: _Losses) -> _Losses:
    return _Losses(losses.n, losses.n - losses.total, losses.n - 2 * losses.total + losses.squares)


class CanaryJudge:
    """Takes in what both versions counted over the same spans of time, and says whether the canary does harm.

    It assumes that, given the past, losses within a span are independent. What is counted together (the rows of one
    batch share their time) is not; send such traffic as single observations where latency is judged.

    Args:
        bounds: margins and error probabilities.
        state: of an earlier judge with the same bounds, as :meth:`state` gave it.
    """

    def __init__(self, bounds: CanaryBounds, state: Mapping[str, Any] | None = None) -> None:
        self.bounds = bounds
        self._metrics = {name: _Metric(state["metrics"][name] if state else None) for name in bounds.metrics}
        self._histogram: list[float] = list(state["histogram"]) if state else []
        self._slow_from: int | None = state["slow_from"] if state else None
        self._decisions: int = int(state["decisions"]) if state else 0

    @property
    def decisions(self) -> int:
        """Attempts of the canary at this step, failed ones included."""
        return self._decisions

    def state(self) -> dict[str, Any]:
        """Everything that a successor needs, as JSON types."""
        return {
            "metrics": {name: metric.state() for name, metric in self._metrics.items()},
            "histogram": self._histogram,
            "slow_from": self._slow_from,
            "decisions": self._decisions,
        }

    def next_step(self) -> None:
        """Begin a step: that no harm is done has to be shown anew; evidence of harm stays."""
        self._decisions = 0
        for metric in self._metrics.values():
            metric.safe = _Gambler(_SAFE_AT_ONCE)

    def update(self, stable: Counts, canary: Counts) -> None:
        """Take in what both counted since the last update."""
        self._decisions += canary.decisions + canary.errors
        for name, metric in self._metrics.items():
            if name == "latency" and self._slow_from is None:
                self._learn_latency(metric, stable.latency)
                continue
            closed = metric.update(name, self.bounds, self._losses(name, canary), self._losses(name, stable))
            if name == "latency":
                self._pending_latency(metric, stable.latency, closed)
            elif closed:
                metric.memory.fade(_MEMORY)

    def verdict(self) -> Verdict:
        """``harm`` as soon as one metric shows it, ``no_harm`` once all of them exclude it."""
        if any(m.harm.log_wealth() >= math.log(len(self._metrics) / self.bounds.alpha) for m in self._metrics.values()):
            return "harm"
        if all(m.safe.log_wealth() >= math.log(1 / self.bounds.beta) for m in self._metrics.values()):
            return "no_harm"
        return "undecided"

    def evidence(self) -> dict[str, dict[str, Any]]:
        """By metric: the mean losses, the margin, how strong the evidence is, what is needed, and what it says.

        ``harm`` and ``no_harm`` are e-values, cut at 1e12; mean losses are null while nothing was counted.
        """
        found = {}
        needed = {"harm": len(self._metrics) / self.bounds.alpha, "no_harm": 1 / self.bounds.beta}
        for name, metric in self._metrics.items():
            harm, safe = (math.exp(min(g.log_wealth(), math.log(1e12))) for g in (metric.harm, metric.safe))
            says = "harm" if harm >= needed["harm"] else "no_harm" if safe >= needed["no_harm"] else "undecided"
            means = {side: losses.mean if losses.n else None for side, losses in metric.seen.items()}
            margin = metric.margin(name, self.bounds)
            found[name] = {
                **{f"{side}_loss": None if mean is None else round(mean, 6) for side, mean in means.items()},
                "canary_count": int(metric.seen["canary"].n),
                "stable_count": int(metric.seen["stable"].n),
                "margin": None if math.isnan(margin) else round(margin, 6),
                "harm": float(f"{harm:.4g}"),
                "harm_needed": needed["harm"],
                "no_harm": float(f"{safe:.4g}"),
                "no_harm_needed": needed["no_harm"],
                "says": says,
            }
        return found

    def _losses(self, name: str, counts: Counts) -> _Losses:
        if name == "errors":
            return _Losses(counts.decisions + counts.errors, counts.errors, counts.errors)
        if name == "latency":
            slow = sum(counts.latency[self._slow_from :])
            return _Losses(sum(counts.latency), slow, slow)
        n, total, squares = counts.rewards, counts.reward_sum, counts.reward_squares
        return _Losses(n, n - total, max(n - 2 * total + squares, 0.0))

    def _learn_latency(self, metric: _Metric, stable: Sequence[int]) -> None:
        self._remember(stable)
        if sum(self._histogram) >= _LEARN_LATENCY:
            self._place_threshold(metric)

    def _pending_latency(self, metric: _Metric, stable: Sequence[int], closed: bool) -> None:
        """The threshold moves between blocks only, or a bet would know what it is about."""
        self._remember(stable)
        if closed:
            self._place_threshold(metric)

    def _remember(self, counts: Sequence[int]) -> None:
        width = max(len(counts), len(self._histogram))
        old = self._histogram + [0.0] * (width - len(self._histogram))
        self._histogram = [a + b for a, b in zip(old, [*counts, *[0] * (width - len(counts))], strict=True)]

    def _place_threshold(self, metric: _Metric) -> None:
        total = sum(self._histogram)
        factor = min(1.0, _MEMORY / total)
        self._histogram = [round(v * factor, 3) for v in self._histogram]
        below, total = 0.0, sum(self._histogram)
        for bucket, count in enumerate(self._histogram):
            below += count
            if below >= _QUANTILE * total:
                self._slow_from = bucket + 1
                slow = total - below
                metric.memory = _Losses(total, slow, slow)
                return
