from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from rlaas.errors import InvalidInputError
from rlaas.experiments import assign_switchback, compare_by_unit, compare_switchback, srm_check

NAMES: dict[str, Any] = {"control": "old", "treatment": "new", "metric": "ctr"}
BLOCKS: dict[str, Any] = {"block_steps": 10, "washout_steps": 2}


def _arms(n_old: int, n_new: int) -> np.ndarray:
    return np.array(["old"] * n_old + ["new"] * n_new)


def test_means_agree_with_scipy_and_statsmodels() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(1.0, 1.0, 40), rng.normal(1.6, 2.5, 25)
    result = compare_by_unit(np.arange(65), _arms(40, 25), np.concatenate([old, new]), **NAMES)
    welch = stats.ttest_ind(new, old, equal_var=False)
    assert result.p_value == pytest.approx(welch.pvalue, rel=1e-9)
    assert result.interval == pytest.approx(tuple(welch.confidence_interval(0.95)), rel=1e-9)
    other = CompareMeans(DescrStatsW(new), DescrStatsW(old))
    assert result.interval == pytest.approx(other.tconfint_diff(usevar="unequal"), rel=1e-9)
    assert result.effect == pytest.approx(new.mean() - old.mean())
    assert result.relative == pytest.approx(new.mean() / old.mean() - 1)
    assert result.arms["old"].n_units == 40
    assert result.arms["new"].mean == pytest.approx(new.mean())


def test_rows_of_a_unit_count_once() -> None:
    rng = np.random.default_rng(1)
    unit = np.repeat(np.arange(30), rng.integers(1, 20, 30))
    arm = np.where(unit < 15, "old", "new")
    level = rng.normal(size=30)
    value = level[unit] + rng.normal(0, 0.1, len(unit))
    means = np.array([value[unit == u].mean() for u in range(30)])
    result = compare_by_unit(unit, arm, value, **NAMES)
    assert result.p_value == pytest.approx(stats.ttest_ind(means[15:], means[:15], equal_var=False).pvalue, rel=1e-9)
    naive = stats.ttest_ind(value[arm == "new"], value[arm == "old"]).confidence_interval(0.95)
    # The rows of a unit are no independent evidence: counting them as such narrows the interval.
    assert naive.high - naive.low < 0.6 * (result.interval[1] - result.interval[0])


def test_ratio_agrees_with_a_cluster_robust_regression() -> None:
    """sum(N) / sum(D) is a mean weighted by D; its delta-method variance is the cluster-robust one, small sample."""
    rng = np.random.default_rng(2)
    unit = np.repeat(np.arange(60), rng.integers(1, 12, 60))
    arm = np.where(unit < 35, "old", "new")
    impressions = rng.integers(1, 30, len(unit)).astype(float)
    clicks = rng.binomial(impressions.astype(int), np.clip(rng.beta(2, 20, 60)[unit], 0, 1)).astype(float)
    result = compare_by_unit(unit, arm, clicks, impressions, **NAMES)
    variance = 0.0
    for name in ("old", "new"):
        rows = arm == name
        fit = sm.WLS(clicks[rows] / impressions[rows], np.ones(rows.sum()), weights=impressions[rows]).fit(
            cov_type="cluster", cov_kwds={"groups": unit[rows], "df_correction": False}
        )
        n = len(np.unique(unit[rows]))
        assert result.arms[name].mean == pytest.approx(fit.params[0], rel=1e-9)
        variance += float(fit.cov_params()[0, 0]) * n / (n - 1)
    half = (result.interval[1] - result.interval[0]) / 2
    # t quantile of the Welch-Satterthwaite degrees lies between those of the smaller arm and of the normal.
    assert stats.norm.ppf(0.975) <= half / np.sqrt(variance) <= stats.t.ppf(0.975, 24)


def test_ratio_with_equal_denominators_is_the_mean() -> None:
    rng = np.random.default_rng(3)
    value = rng.normal(size=50)
    as_mean = compare_by_unit(np.arange(50), _arms(20, 30), value, **NAMES)
    as_ratio = compare_by_unit(np.arange(50), _arms(20, 30), value * 4, np.full(50, 4.0), **NAMES)
    assert as_ratio.interval == pytest.approx(as_mean.interval)
    assert as_ratio.p_value == pytest.approx(as_mean.p_value)


def test_ratio_covers_at_the_promised_rate() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        sessions = rng.integers(1, 30, 200)
        rate = rng.beta(4, 16, 200)
        result = compare_by_unit(np.arange(200), _arms(100, 100), rng.binomial(sessions, rate), sessions, **NAMES)
        hits += result.interval[0] <= 0 <= result.interval[1]
    assert stats.binomtest(hits, 400, 0.95).pvalue > 1e-3


def test_decision_words() -> None:
    value = np.concatenate([np.linspace(0, 1, 20), np.linspace(5, 6, 20)])
    clear = compare_by_unit(np.arange(40), _arms(20, 20), value, **NAMES)
    assert clear.decision.startswith("new has higher ctr than old (95 % interval")
    lower = compare_by_unit(np.arange(40), _arms(20, 20), -value, **NAMES)
    assert lower.decision.startswith("new has lower ctr than old")
    same = compare_by_unit(np.arange(40), _arms(20, 20), np.tile(np.linspace(0, 1, 20), 2), **NAMES)
    assert same.decision.startswith("no difference in ctr shown between new and old")
    assert same.p_value == pytest.approx(1.0)


def test_without_any_spread() -> None:
    flat = compare_by_unit(np.arange(4), _arms(2, 2), [0.0, 0, 0, 0], **NAMES)
    assert (flat.effect, flat.interval, flat.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert np.isnan(flat.relative)
    assert json.loads(json.dumps(flat.to_dict(), allow_nan=False))["relative"] is None
    step = compare_by_unit(np.arange(4), _arms(2, 2), [0.0, 0, 1, 1], **NAMES)
    assert (step.effect, step.p_value) == (1.0, 0.0)


def _switchback(pairs: int, *, salt: str = "s") -> tuple[np.ndarray, np.ndarray]:
    step = np.arange(pairs * 2 * BLOCKS["block_steps"])
    weights = {"old": 0.5, "new": 0.5}
    arm = np.array([assign_switchback(int(s), BLOCKS["block_steps"], salt, weights).variant for s in step])
    return step, arm


def test_switchback_is_a_paired_test_over_blocks() -> None:
    rng = np.random.default_rng(5)
    step, arm = _switchback(12)
    value = rng.normal(size=len(step)) + np.sin(step / 40) + 0.5 * (arm == "new")
    result = compare_switchback(step, arm, value, **BLOCKS, **NAMES)
    blocks = {b: value[(step // 10 == b) & (step % 10 >= 2)].mean() for b in range(24)}
    new = [blocks[b] for b in sorted(blocks, key=lambda b: b // 2) if arm[b * 10] == "new"]
    old = [blocks[b] for b in sorted(blocks, key=lambda b: b // 2) if arm[b * 10] == "old"]
    paired = stats.ttest_rel(new, old)
    assert result.p_value == pytest.approx(paired.pvalue, rel=1e-9)
    assert result.interval == pytest.approx(tuple(paired.confidence_interval(0.95)), rel=1e-9)
    assert result.n_pairs == 12
    assert result.arms["old"].n_units == 12
    exact = stats.permutation_test(
        (np.subtract(new, old),), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert result.randomisation_p_value == pytest.approx(exact.pvalue, abs=2 / 2**12)


def test_washout_is_left_out() -> None:
    step, arm = _switchback(4)
    value = (arm == "new") + 100.0 * (step % 10 < 2)
    result = compare_switchback(step, arm, value, **BLOCKS, **NAMES)
    assert result.effect == pytest.approx(1.0)
    assert result.arms["old"].mean == pytest.approx(0.0)


def test_switchback_takes_the_ratio_of_sums_in_each_block() -> None:
    rng = np.random.default_rng(6)
    step, arm = _switchback(3)
    step, arm = np.repeat(step, 4), np.repeat(arm, 4)  # four cells
    top, bottom = rng.uniform(size=len(step)), rng.uniform(0, 2, len(step))
    result = compare_switchback(step, arm, top, bottom, **BLOCKS, **NAMES)
    ratios = {"old": [], "new": []}
    for b in range(6):
        rows = (step // 10 == b) & (step % 10 >= 2)
        ratios[arm[rows][0]].append(top[rows].sum() / bottom[rows].sum())
    assert result.effect == pytest.approx(np.mean(ratios["new"]) - np.mean(ratios["old"]))


def test_many_pairs_sample_their_flips_by_seed() -> None:
    rng = np.random.default_rng(7)
    step, arm = _switchback(30)
    value = rng.normal(size=len(step)) + 0.3 * (arm == "new")
    first = compare_switchback(step, arm, value, **BLOCKS, **NAMES)
    assert first == compare_switchback(step, arm, value, **BLOCKS, **NAMES)
    assert first.randomisation_p_value == pytest.approx(first.p_value, abs=0.02)
    assert first.randomisation_p_value >= 1 / 20_001


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_swapping_the_arms_flips_the_sign_only(pairs: int, seed: int) -> None:
    step, arm = _switchback(pairs, salt=str(seed))
    value = np.random.default_rng(seed).normal(size=len(step))
    one = compare_switchback(step, arm, value, **BLOCKS, **NAMES)
    two = compare_switchback(step, arm, value, **BLOCKS, control="new", treatment="old", metric="ctr")
    assert two.effect == pytest.approx(-one.effect)
    assert two.p_value == pytest.approx(one.p_value)
    assert two.randomisation_p_value == pytest.approx(one.randomisation_p_value)
    assert 2 / 2**pairs <= one.randomisation_p_value <= 1


def test_false_positives_stay_at_five_percent_where_a_test_per_step_fails() -> None:
    """Autocorrelated data without an effect: what a network gives."""
    rng = np.random.default_rng(8)
    runs, pairs, block = 400, 15, 40
    n = pairs * 2 * block
    ours = flips = naive = 0
    for _ in range(runs):
        order = rng.integers(0, 2, pairs)
        treated = np.repeat(np.stack([order, 1 - order], axis=1).ravel(), block).astype(bool)
        noise = rng.normal(size=n)
        value = np.asarray(_ar1(noise, 0.95)) + 2 * np.sin(2 * np.pi * np.arange(n) / n)  # a day's slow swing
        arm = np.where(treated, "new", "old")
        result = compare_switchback(np.arange(n), arm, value, block_steps=block, washout_steps=10, **NAMES)
        ours += result.p_value < 0.05
        flips += result.randomisation_p_value < 0.05
        naive += stats.ttest_ind(value[treated], value[~treated]).pvalue < 0.05
    assert stats.binomtest(ours, runs, 0.05).pvalue > 1e-3
    assert stats.binomtest(flips, runs, 0.05).pvalue > 1e-3
    assert naive / runs > 0.3


def _ar1(noise: np.ndarray, rho: float) -> np.ndarray:
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -rho], noise)


def test_pairs_without_both_arms_are_left_out() -> None:
    step = np.arange(60)
    arm = np.array(["old", "new", "old", "old", "new", "old"]).repeat(10)
    result = compare_switchback(step, arm, np.arange(60.0), **BLOCKS, **NAMES)
    assert result.n_pairs == 2


def test_srm() -> None:
    assert srm_check({"a": 5000, "b": 5000}, {"a": 1, "b": 1}) == 1.0
    expected = stats.chisquare([5200, 4800, 10000], [5000, 5000, 10000]).pvalue
    assert srm_check({"b": 4800, "a": 5200, "c": 10000}, {"a": 1, "b": 1, "c": 2}) == pytest.approx(expected)
    assert srm_check({"a": 5300, "b": 4700}, {"a": 0.5, "b": 0.5}) < 1e-3
    assert srm_check({"a": 7, "off": 0}, {"a": 1, "off": 0}) == 1.0
    with pytest.raises(InvalidInputError, match="counts are of a; expected a, b"):
        srm_check({"a": 1}, {"a": 1, "b": 1})
    with pytest.raises(InvalidInputError, match="counts must be whole numbers"):
        srm_check({"a": 0, "b": 0}, {"a": 1, "b": 1})
    with pytest.raises(InvalidInputError, match="weight 0 has units"):
        srm_check({"a": 3, "b": 1}, {"a": 1, "b": 0})
    with pytest.raises(InvalidInputError, match="weights must be finite"):
        srm_check({"a": 3, "b": 1}, {"a": 1, "b": -1})


@pytest.mark.parametrize(
    ("unit", "arm", "top", "bottom", "message"),
    [
        ([1, 2, 3], ["old", "old", "other"], [1, 2, 3], None, "treatment 'new' has no row; arms found: old, other"),
        ([1, 2, 3, 3], ["old", "old", "new", "old"], [1, 2, 3, 4], None, "units are in both arms, such as 3"),
        ([1, 2, 3], ["old", "old", "new"], [1, 2, 3], None, "arm 'new' has 1 unit"),
        ([1, 2, np.nan, np.nan], ["old", "old", "new", "new"], [1, 2, 3, 4], None, "unit is missing in 2 of 4 rows"),
        (["a", None, "b", "c"], ["old", "old", "new", "new"], [1, 2, 3, 4], None, "such as 1; every row needs"),
        ([1, 2, 3, 4], ["old", "old", "new", "new"], ["a", "b", "c", "d"], None, "numerator must hold numbers"),
        ([1, 2, 3, 4], ["old", "old", "new", "new"], [1, 2, np.nan, 1], None, r"numerator\[2\] is nan"),
        ([1, 2, 3, 4], ["old", "old", "new", "new"], [1, 2, 3], None, r"numerator has shape \(3,\)"),
        ([1, 2, 3], ["old", "old", "new", "new"], [1, 2, 3, 4], None, r"unit has shape \(3,\)"),
        ([1, 2, 3, 4], ["old", "old", "new", "new"], [1, 2, 3, 4], [1, 1, 0, 0], "arm 'new' sum to 0"),
        ([1, 2, 3, 4], ["old", "old", "new", "new"], [1, 2, 3, 4], [1, 1, -1, 3], "denominator must be >= 0"),
    ],
)
def test_bad_unit_data_is_named(unit: Any, arm: Any, top: Any, bottom: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        compare_by_unit(unit, arm, top, bottom, **NAMES)


def test_bad_switchback_data_is_named() -> None:
    step, arm = _switchback(3)
    value = np.ones(len(step))
    for options, field in (
        ({"block_steps": "10"}, "block_steps"),
        ({"washout_steps": None}, "washout_steps"),
        ({"control": ["old"]}, "control"),
        ({"arm": [["old"], ["old", "new"]]}, "arm"),
    ):
        given = {"step": step, "arm": arm, "numerator": value, **BLOCKS, **NAMES}
        with pytest.raises(InvalidInputError, match=field) as caught:
            compare_switchback(**(given | options))
        assert caught.value.field == field
    with pytest.raises(InvalidInputError, match=r"at least 2 pairs .* found 1 in 2 blocks of 10 steps"):
        compare_switchback(step[:20], arm[:20], value[:20], **BLOCKS, **NAMES)
    with pytest.raises(InvalidInputError, match="holds both arms"):
        compare_switchback(step, arm, value, block_steps=20, washout_steps=0, **NAMES)
    with pytest.raises(InvalidInputError, match=r"washout_steps must be in \[0, block_steps\)"):
        compare_switchback(step, arm, value, block_steps=10, washout_steps=10, **NAMES)
    with pytest.raises(InvalidInputError, match="whole numbers >= 0"):
        compare_switchback(step - 1, arm, value, **BLOCKS, **NAMES)
    with pytest.raises(InvalidInputError, match="control and treatment are both 'old'"):
        compare_switchback(step, arm, value, **BLOCKS, control="old", treatment="old", metric="ctr")
