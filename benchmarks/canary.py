"""A canary judged by evidence: how often it is rolled back without cause, and how soon with cause.

    python -m benchmarks.canary [--quick] [--json]

100 decisions a second of which 5 % go to the canary, outcomes 5 s later, a look every second. Without cause: canaries
that equal the stable version, over 300 s, and canaries that are worse by exactly the margins in one or in all respects,
over 120 s. With cause: 20 % errors (an action that is not finite is one), five times the latency, a reward lower by one
standard deviation; also from the 300th second on, after a good start. Nothing here depends on the machine's speed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.harness import Row, parse_arguments, report
from rlaas.experiments.canary import CanaryBounds, CanaryJudge, Counts

RATE, SHARE, DELAY_S = 100, 0.05, 5
EDGES_US = np.array([round(10 * 2 ** (k / 4)) for k in range(80)])


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

    def utilities(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws [n] in [0, 1]."""
        spread = self.mean * (1 - self.mean) / self.sigma**2 - 1
        if spread < 0.01:
            return (rng.random(n) < self.mean).astype(np.float64)
        return rng.beta(self.mean * spread, (1 - self.mean) * spread, n)

    def second(self, n: int, rng: np.random.Generator) -> tuple[Counts, np.ndarray]:
        """What ``n`` decisions add at once, and the utilities that are seen later."""
        failed = int(rng.binomial(n, self.errors))
        took = 200 * self.slower * np.exp(self.spread * rng.standard_normal(n - failed))
        took *= np.where(rng.random(n - failed) < self.tail, 10.0, 1.0)
        buckets = np.bincount(np.searchsorted(EDGES_US, took), minlength=len(EDGES_US) + 1)
        return Counts(n - failed, failed, tuple(buckets.tolist())), self.utilities(n - failed, rng)


def rewarded(utilities: np.ndarray) -> Counts:
    """Outcomes that come in."""
    return Counts(rewards=len(utilities), reward_sum=float(utilities.sum()), reward_squares=float((utilities**2).sum()))


def rollout(
    stable: Traffic, canary: Traffic, seed: int, *, seconds: int, share: float = SHARE, turns_bad_at: int = 0
) -> tuple[int | None, int | None]:
    """Seconds from the harm's beginning until it is called harm, and from the start until called harmless."""
    rng = np.random.default_rng(seed)
    judge, late, harmless = CanaryJudge(CanaryBounds()), deque([(np.empty(0), np.empty(0))] * DELAY_S), None
    for second in range(turns_bad_at + seconds):
        n = int(rng.poisson(RATE))
        mine = int(rng.binomial(n, share))
        acts = canary if second >= turns_bad_at else stable
        counts, utilities = zip(stable.second(n - mine, rng), acts.second(mine, rng), strict=True)
        late.append((utilities[0], utilities[1]))
        old = late.popleft()
        judge.update(counts[0].plus(rewarded(old[0])), counts[1].plus(rewarded(old[1])))
        verdict = judge.verdict()
        if verdict == "harm":
            return second + 1 - turns_bad_at, harmless
        if verdict == "no_harm" and harmless is None:
            harmless = second + 1
    return None, harmless


def at_the_margin(which: tuple[str, ...]) -> tuple[Traffic, Traffic]:
    """A stable version, and one that is worse by exactly the margins in ``which``.

    Their latency has two values, so that the margin is hit however the buckets lie.
    """
    bounds, stable = CanaryBounds(), Traffic(spread=0.0)
    return stable, replace(
        stable,
        errors=stable.errors + (bounds.errors if "errors" in which else 0),
        tail=stable.tail + (bounds.latency if "latency" in which else 0),
        mean=stable.mean - (bounds.reward * stable.sigma if "reward" in which else 0),
    )


HARMS = {
    "20 % errors or NaN actions": Traffic(errors=0.2),
    "5x latency": Traffic(slower=5.0),
    "reward -1 sigma, sigma 0.05": Traffic(mean=0.55, sigma=0.05),
    "reward -1 sigma, sigma 0.15": Traffic(mean=0.45, sigma=0.15),
    "reward -1 sigma, sigma 0.4": Traffic(mean=0.2, sigma=0.39),
}


def baseline(harm: str) -> Traffic:
    """The stable version beside a harm."""
    sigmas = {"reward -1 sigma, sigma 0.05": 0.05, "reward -1 sigma, sigma 0.4": 0.4}
    return Traffic(sigma=sigmas.get(harm, 0.15))


def main() -> None:
    arguments = parse_arguments("canary")
    runs, seeds = (60, 5) if arguments.quick else (2000, 40)
    rows = []
    for what, which in (
        ("equal", ()),
        ("worse by the margin of errors", ("errors",)),
        ("worse by the margin of latency", ("latency",)),
        ("worse by the margin of reward", ("reward",)),
        ("worse by all margins", ("errors", "latency", "reward")),
    ):
        seconds = 60 if arguments.quick else 120 if which else 300
        stable, canary = at_the_margin(which) if which else (Traffic(), Traffic())
        found = [rollout(stable, canary, seed, seconds=seconds) for seed in range(runs)]
        false = sum(harm is not None for harm, _ in found) / runs
        rows.append(Row(f"rolled back though {what}, {runs} rollouts of {seconds} s", "share", false, "alpha", 0.05))
        if not which:
            cleared = sorted(seconds if safe is None else safe for _, safe in found)
            rows.append(Row("shown to do no harm, median", "s", cleared[runs // 2]))
            rows.append(Row("shown to do no harm, 95 % of rollouts", "s", cleared[int(0.95 * runs)]))
        else:
            passed = sum(safe is not None for _, safe in found) / runs
            rows.append(Row(f"called harmless at some time though {what}", "share", passed, "beta", 0.05))
    for turns_bad_at in (0, 300):
        for harm, canary in HARMS.items():
            found = [
                rollout(baseline(harm), canary, seed, seconds=240, turns_bad_at=turns_bad_at)
                for seed in range(1000, 1000 + seeds)
            ]
            times = sorted(240 if t is None else t for t, _ in found)
            when = f", from second {turns_bad_at}" if turns_bad_at else ""
            rows.append(Row(f"{harm}{when}: rolled back, median of {seeds}", "s", times[seeds // 2], "limit", 60))
            rows.append(Row(f"{harm}{when}: rolled back, slowest of {seeds}", "s", times[-1], "limit", 60))
    report("canary", rows, arguments.json)


if __name__ == "__main__":
    main()
