from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.experiments.allocation.adaptive import adaptive_estimates
from rlaas.experiments.allocation.contextual import LinearThompson
from rlaas.experiments.allocation.priors import BetaPrior, GaussianPrior
from rlaas.experiments.allocation.propensities import propensity_check
from rlaas.experiments.allocation.thompson import Thompson

ARMS = ("old", "new")


class Log(NamedTuple):
    arm: NDArray[Any]
    reward: NDArray[np.float64]
    propensity: NDArray[np.float64]


def _experiment(
    means: tuple[float, ...],
    rng: np.random.Generator,
    *,
    batches: int = 10,
    size: int = 100,
    drift: float = 0.0,
    rates: bool = False,
) -> Log:
    """Thompson sampling on normal rewards or rates; ``drift`` raises all arms from one batch to the next."""
    arms = np.array(ARMS)
    normal = GaussianPrior(mean=0.0, count=0.01, variance=1.0, degrees=None)
    prior = BetaPrior() if rates else normal
    allocator = Thompson(arms=ARMS, minimum_share=0.01, prior=prior, draws=400, seed=int(rng.integers(2**31)))
    parts: list[Log] = []
    for batch in range(batches):
        share = np.array(list(allocator.shares().values()))
        arm = rng.choice(2, size, p=share / share.sum())
        mean = np.array(means)[arm] + drift * batch
        reward = (rng.random(size) < mean).astype(float) if rates else rng.normal(mean, 1.0)
        allocator = allocator.updated(arms[arm], reward)
        parts.append(Log(arms[arm], reward, np.tile(share, (size, 1))))
    return Log(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _welch(log: Log) -> tuple[float, float]:
    low, high = CompareMeans(
        DescrStatsW(log.reward[log.arm == "new"]), DescrStatsW(log.reward[log.arm == "old"])
    ).tconfint_diff(usevar="unequal")
    return float(low), float(high)


def test_intervals_hold_where_those_of_sample_means_do_not() -> None:
    """300 experiments of 5 seeds, 1,000 rows each, no difference between the arms."""
    ours = welch = arm_ours = 0
    bias: list[tuple[float, float]] = []
    runs = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            log, runs = _experiment((0.0, 0.0), rng), runs + 1
            result = adaptive_estimates(ARMS, log.arm, log.reward, log.propensity, control="old")
            difference, mean = result.differences["new"], result.arms["new"]
            ours += difference.low <= 0 <= difference.high
            low, high = _welch(log)
            welch += low <= 0 <= high
            arm_ours += mean.low <= 0 <= mean.high
            bias.append((mean.value, result.sample_means["new"] or 0.0))
    spread = math.sqrt(0.95 * 0.05 / runs)
    assert abs(ours / runs - 0.95) < 3 * spread
    assert abs(arm_ours / runs - 0.95) < 3 * spread
    assert welch / runs < 0.95 - 3 * spread
    ours_bias, naive_bias = np.mean(bias, axis=0)
    assert naive_bias < -0.01
    assert abs(ours_bias) < 0.75 * abs(naive_bias)


def test_rates_hold_where_an_unlucky_arm_is_given_up_early() -> None:
    """150 experiments of 5 seeds, 4,000 rows each, of which the arm that is given up has a few dozen."""
    held = np.zeros(4)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            log = _experiment((0.05, 0.06), rng, batches=20, size=200, rates=True)
            result = adaptive_estimates(ARMS, log.arm, log.reward, log.propensity, control="old")
            difference, mean, welch = result.differences["new"], result.arms["old"], _welch(log)
            sample = DescrStatsW(log.reward[log.arm == "old"]).tconfint_mean()
            held += [
                difference.low <= 0.01 <= difference.high,
                mean.low <= 0.05 <= mean.high,
                welch[0] <= 0.01 <= welch[1],
                sample[0] <= 0.05 <= sample[1],
            ]
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / 150)
    assert (held[:2] / 150 >= least).all()
    assert held[2:].sum() / 300 < least


def test_a_drift_that_all_arms_share_cancels_in_the_difference() -> None:
    held, naive = 0, []
    for seed in range(5):
        rng = np.random.default_rng(100 + seed)
        for _ in range(12):
            log = _experiment((0.0, 0.3), rng, drift=0.3)
            result = adaptive_estimates(ARMS, log.arm, log.reward, log.propensity, control="old").differences["new"]
            held += result.low <= 0.3 <= result.high
            naive.append(log.reward[log.arm == "new"].mean() - log.reward[log.arm == "old"].mean() - 0.3)
    assert held >= 53  # of 60: fewer have a chance of 0.6 % at 95 %
    assert np.mean(naive) > 0.3  # the better arm is tried when all are high


def test_formula_of_the_paper_row_by_row() -> None:
    log = _experiment((0.2, 0.0), np.random.default_rng(3), batches=6, size=30)
    result = adaptive_estimates(ARMS, log.arm, log.reward, log.propensity, control="old")
    numerator = denominator = 0.0
    scores, weights = [], []
    for t in range(1, len(log.arm)):
        past = log.reward[:t][log.arm[:t] == "new"]
        m = past.mean() if len(past) else log.reward[:t].mean()
        e = log.propensity[t, 1]
        score = m + (log.arm[t] == "new") / e * (log.reward[t] - m)
        h = math.sqrt(e)
        numerator, denominator = numerator + h * score, denominator + h
        scores.append(score)
        weights.append(h)
    value = numerator / denominator
    variance = sum(h * h * (s - value) ** 2 for h, s in zip(weights, scores, strict=True)) / denominator**2
    new = result.arms["new"]
    assert new.value == pytest.approx(value, rel=1e-12)
    n = len(scores)
    assert new.standard_error == pytest.approx(math.sqrt(variance * n / (n - 1)), rel=1e-12)
    assert new.effective_rows == pytest.approx(denominator**2 / sum(h * h for h in weights))
    assert new.low < new.value < new.high
    assert result.rows == {"old": int((log.arm == "old").sum()), "new": int((log.arm == "new").sum())}
    assert json.loads(json.dumps(result.to_dict()))["arms"]["new"]["value"] == new.value


def test_of_constant_shares_it_is_horvitz_thompson_and_near_welch() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    arm = rng.choice(2, n, p=[0.7, 0.3])
    reward = rng.normal(1.0 + 0.5 * arm, 1.0 + arm)
    log = Log(np.array(ARMS)[arm], reward, np.tile([0.7, 0.3], (n, 1)))
    plain = adaptive_estimates(ARMS, log.arm, reward, log.propensity, control="old", prediction=np.zeros((n, 2)))
    assert plain.arms["new"].value == pytest.approx((reward * (arm == 1)).sum() / 0.3 / n)
    assert plain.arms["new"].effective_rows == pytest.approx(n)
    result = adaptive_estimates(ARMS, log.arm, reward, log.propensity, control="old").differences["new"]
    low, high = _welch(log)
    assert result.value == pytest.approx((low + high) / 2, abs=0.2 * (high - low))
    assert result.high - result.low == pytest.approx(high - low, rel=0.05)
    assert result.standard_error < plain.differences["new"].standard_error  # what the running means are for


def test_contexts_need_batches_and_then_estimate_the_mean_over_all_contexts() -> None:
    """Propensity and reward follow the context: weights that did too would estimate another population's mean."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    held = 0
    truth = 1.0  # mean of arm a = 1 + x, over x ~ N(0, 1)
    for seed in range(5):
        for run in range(12):
            rng = np.random.default_rng([seed, run])
            allocator = LinearThompson(arms=("a", "b"), n_features=1, draws=200, minimum_share=0.1, seed=run)
            rows: list[tuple[Any, ...]] = []
            for batch in range(6):
                x = rng.normal(size=(60, 1))
                shares = allocator.allocation().shares(x)
                arm = np.where(rng.random(60) < shares[:, 0], "a", "b")
                reward = np.where(arm == "a", 1 + x[:, 0], 1 - x[:, 0]) + rng.normal(0, 0.5, 60)
                allocator = allocator.updated(arm, x, reward)
                rows.append((arm, reward, shares, np.full(60, batch)))
            arms, rewards, propensity, batches = (np.concatenate(part) for part in zip(*rows, strict=True))
            for with_batch in (True, False):
                one = adaptive_estimates(
                    ("a", "b"), arms, rewards, propensity, control="b", batch=batches if with_batch else None
                ).arms["a"]
                errors[with_batch].append(one.value - truth)
                held += with_batch and one.low <= truth <= one.high
    assert held >= 53
    assert abs(np.mean(errors[True])) < 0.1 < 0.2 < np.mean(errors[False])


def test_rows_in_which_an_arm_could_not_be_drawn_have_no_weight() -> None:
    rng = np.random.default_rng(0)
    arm = np.where(rng.random(200) < 0.5, "old", "new")
    reward, propensity = rng.normal(size=200), np.full((200, 2), 0.5)
    arm[150:], reward[150:], propensity[150:] = "old", 50.0, [1.0, 0.0]
    short = adaptive_estimates(ARMS, arm[:150], reward[:150], propensity[:150], control="old")
    whole = adaptive_estimates(ARMS, arm, reward, propensity, control="old")
    assert whole.arms["new"] == short.arms["new"]
    assert whole.differences == short.differences
    assert whole.arms["old"].value > 5


def test_check_with_constant_shares_is_pearsons() -> None:
    names = ("a", "b", "c")
    counts, share = np.array([480, 310, 210]), np.array([0.5, 0.3, 0.2])
    result = propensity_check(names, np.repeat(names, counts), np.tile(share, (1000, 1)))
    pearson = stats.chisquare(counts, 1000 * share)
    assert result.statistic == pytest.approx(pearson.statistic)
    assert result.p_value == pytest.approx(pearson.pvalue)
    assert result.degrees == 2
    assert result.excess["a"] == pytest.approx(-20)
    assert result.z["a"] == pytest.approx(-20 / math.sqrt(1000 * 0.25))


def test_check_keeps_its_level_under_adaptive_shares_and_finds_a_broken_split() -> None:
    p_values, broken = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            log = _experiment((0.0, 0.1), rng, batches=8, size=150)
            p_values.append(propensity_check(ARMS, log.arm, log.propensity).p_value)
            lost = (log.arm == "new") & (rng.random(len(log.arm)) < 0.4)  # the new arm loses rows, as where it crashes
            broken.append(propensity_check(ARMS, log.arm[~lost], log.propensity[~lost]).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert np.mean(np.array(broken) < 0.001) > 0.9


def test_check_of_groups_that_never_met() -> None:
    """Two arms in the first half and two others in the second: two degrees of freedom, not three."""
    names = ("a", "b", "c", "d")
    propensity = np.repeat([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], 100, axis=0)
    arm = np.array(["a"] * 60 + ["b"] * 40 + ["c"] * 45 + ["d"] * 55)
    result = propensity_check(names, arm, propensity)
    assert result.degrees == 2
    parts = stats.chisquare([60, 40]).statistic + stats.chisquare([45, 55]).statistic
    assert result.statistic == pytest.approx(parts)
    forced = propensity_check(ARMS, ["old"] * 5, np.tile([1.0, 0.0], (5, 1)))
    assert (forced.p_value, forced.degrees) == (1.0, 0)
    assert json.loads(json.dumps(forced.to_dict()))["z"] == {"old": 0.0, "new": 0.0}


GOOD: dict[str, Any] = {
    "arms": ARMS,
    "arm": ["old", "new", "old", "new"],
    "reward": [1.0, 2.0, 3.0, 4.0],
    "propensity": [[0.5, 0.5]] * 4,
    "control": "old",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control": "c"}, "control"),
        ({"propensity": [[0.5, 0.6]] * 4}, "sum to 1"),
        ({"propensity": [[1.5, -0.5]] * 4}, "sum to 1"),
        ({"propensity": [[1.0, 0.0]] * 4}, "row 1 has arm 'new', whose propensity is 0"),
        ({"propensity": [0.5] * 4}, r"expected \(n, 2\)"),
        ({"propensity": [[np.nan, 0.5]] * 4}, "sum to 1"),
        ({"reward": [1.0, 2.0]}, "one per row"),
        ({"reward": [1.0, 2.0, np.nan, 1.0]}, "finite"),
        ({"arm": ["old", "new", "older", "new"]}, "arms are old, new"),
        ({"batch": [1, 0, 1, 2]}, "never fall"),
        ({"prediction": [[1.0, 2.0]]}, "prediction"),
        ({"arms": ("old", "old")}, "different names"),
        ({"arm": ["old"] * 4, "propensity": [[1.0, 0.0]] * 4}, "'new' could be drawn in 0 rows"),
    ],
)
def test_impossible_logs_are_refused(change: dict[str, Any], message: str) -> None:
    call = {**GOOD, **change}
    with pytest.raises(InvalidInputError, match=message):
        adaptive_estimates(call.pop("arms"), call.pop("arm"), call.pop("reward"), call.pop("propensity"), **call)


def test_confidence_is_checked_and_widens() -> None:
    log = _experiment((0.0, 0.5), np.random.default_rng(0), batches=3)
    wide, narrow = (
        adaptive_estimates(ARMS, log.arm, log.reward, log.propensity, control="old", confidence=level).arms["new"]
        for level in (0.99, 0.8)
    )
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(ConfigurationError, match="confidence"):
        adaptive_estimates(ARMS, log.arm, log.reward, log.propensity, control="old", confidence=1.0)
