"""A canary judged by evidence: how often it is rolled back without cause, and how soon with cause.

    python -m benchmarks.canary [--quick] [--json]

100 decisions a second, outcomes 5 s later, a look every second. Without cause: canaries that equal the stable version,
and canaries that are worse by exactly the margins in one or in all respects. With cause: 20 % errors (an action that is
not finite is one), five times the latency, a reward lower by one standard deviation; from the start, or after a good
time: up to half an hour at a share of 5 %, up to five minutes at 20 and 50 %. Nothing here depends on the machine's
speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.canary_batch import DELAY_S, RATE, Rollouts, Traffic, disagreement
from benchmarks.harness import Row, parse_arguments, report
from rlaas.experiments.canary import CanaryBounds, CanaryJudge, Counts

SHARE, LIMIT_S = 0.05, 180


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


def without_cause(stable: Traffic, canary: Traffic, runs: int, seconds: int, share: float) -> tuple[float, np.ndarray]:
    """Share of the rollouts that were rolled back, and the second at which each was called harmless [runs]."""
    rollouts, harmed = Rollouts(runs, share, seed=1), np.zeros(runs, dtype=bool)
    cleared = np.full(runs, np.inf)
    for second in range(1, seconds + 1):
        rollouts.second(stable, canary)
        harmed |= rollouts.harmed()
        cleared[rollouts.cleared() & np.isinf(cleared) & ~harmed] = second
    return float(harmed.mean()), np.sort(cleared)


def delays(rollouts: Rollouts, harm: str) -> np.ndarray:
    """Seconds until each is rolled back, in order; infinite behind the limit [runs]."""
    found = np.full(rollouts.runs, np.inf)
    for second in range(1, LIMIT_S + 1):
        rollouts.second(baseline(harm), HARMS[harm])
        found[rollouts.harmed() & np.isinf(found)] = second
        if np.isfinite(found).all():
            break
    return np.sort(found)


def rows_without_cause(runs: int) -> Iterator[Row]:
    """How often canaries within the margins are rolled back, or called harmless."""
    for what, which, seconds, share in (
        ("equal", (), 300, 0.05),
        ("worse by the margin of errors", ("errors",), 120, 0.05),
        ("worse by the margin of latency", ("latency",), 120, 0.05),
        ("worse by the margin of reward", ("reward",), 120, 0.05),
        ("worse by all margins", ("errors", "latency", "reward"), 600, 0.05),
        ("worse by all margins", ("errors", "latency", "reward"), 120, 0.5),
    ):
        stable, canary = at_the_margin(which) if which else (Traffic(), Traffic())
        false, cleared = without_cause(stable, canary, runs, seconds, share)
        name = f"{what}, share {share:g}, {runs} of {seconds} s"
        yield Row(f"rolled back though {name}", "share", false, "alpha", 0.05)
        if which:
            passed = float(np.isfinite(cleared).mean())
            yield Row(f"called harmless at some time though {name}", "share", passed, "beta", 0.05)
        else:
            yield Row("shown to do no harm, median", "s", cleared[runs // 2])
            yield Row("shown to do no harm, 95 % of rollouts", "s", cleared[int(0.95 * runs)])


def rows_with_cause(runs: int) -> Iterator[Row]:
    """How soon harm is called, by the share of the canary and by when the harm begins."""
    for share, starts in ((0.05, (0, 60, 300, 900, 1800)), (0.2, (0, 60, 300)), (0.5, (0, 60, 300))):
        for stable in dict.fromkeys(baseline(harm) for harm in HARMS):
            good = Rollouts(runs, share, seed=2)
            for start, before in zip(starts, (0, *starts), strict=False):
                for _ in range(start - before):
                    good.second(stable, stable)
                for harm in (harm for harm in HARMS if baseline(harm) == stable):
                    times = delays(good.branch(), harm)
                    for name, at in (("median", runs // 2), ("95 %", int(0.95 * runs)), ("slowest", runs - 1)):
                        what = f"{harm} from second {start}, share {share:g}: rolled back, {name} of {runs}"
                        yield Row(what, "s", times[at], "limit", 60)


def main() -> None:
    arguments = parse_arguments("canary")
    rows = [
        Row(
            f"{harm}: log wealth of the judge and of the arrays, largest difference",
            "",
            disagreement(baseline(harm), canary),
        )
        for harm, canary in HARMS.items()
    ]
    rows += rows_without_cause(100 if arguments.quick else 2000)
    rows += rows_with_cause(20 if arguments.quick else 100)
    report("canary", rows, arguments.json)


if __name__ == "__main__":
    main()
