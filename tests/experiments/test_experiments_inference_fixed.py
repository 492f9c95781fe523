from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from statsmodels.stats import power as sm_power
from statsmodels.stats import proportion as sm_proportion
from statsmodels.stats.multitest import multipletests

from rlaas.errors import InvalidInputError
from rlaas.experiments.inference import (
    SIDES,
    Moments,
    NormalPrior,
    Side,
    bayes_means,
    bayes_proportions,
    benjamini_hochberg,
    chi_square,
    duration_days,
    e_benjamini_hochberg,
    holm,
    mde_mean,
    mde_proportion,
    power_mean,
    power_proportion,
    proportions_z_test,
    ratio_deviation,
    sample_size_mean,
    sample_size_proportion,
    sequential_inflation,
    welch_test,
)

LARGER = {"two-sided": "two-sided", "greater": "larger", "less": "smaller"}
"""Statsmodels' words for the alternatives."""


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("old", "new"), [((30, 400), (50, 410)), ((0, 100), (3, 90)), ((500, 1000), (480, 1000))])
def test_proportions_agree_with_statsmodels(side: Side, old: tuple[int, int], new: tuple[int, int]) -> None:
    found = proportions_z_test(old, new, alternative=side)
    z, p = sm_proportion.proportions_ztest([new[0], old[0]], [new[1], old[1]], alternative=LARGER[side])
    assert (found.statistic, found.p_value) == pytest.approx((z, p), rel=1e-9)
    level = 0.05 if side == "two-sided" else 0.1
    low, high = sm_proportion.confint_proportions_2indep(new[0], new[1], old[0], old[1], method="newcomb", alpha=level)
    assert found.low == (-math.inf if side == "less" else pytest.approx(low, rel=1e-9))
    assert found.high == (math.inf if side == "greater" else pytest.approx(high, rel=1e-9))


@pytest.mark.parametrize("side", SIDES)
def test_welch_agrees_with_scipy(side: Side) -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(0, 1, 30), rng.normal(0.4, 3, 50)
    found = welch_test(Moments.of(old), Moments.of(new), alternative=side, alpha=0.1)
    other = stats.ttest_ind(new, old, equal_var=False, alternative=side)
    interval = other.confidence_interval(0.9)
    assert (found.statistic, found.p_value, found.degrees) == pytest.approx((other.statistic, other.pvalue, other.df))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    shifted = welch_test(Moments.of(old), Moments.of(new), null=0.3, alternative=side)
    assert shifted.p_value == pytest.approx(stats.ttest_ind(new - 0.3, old, equal_var=False, alternative=side).pvalue)
    assert (found.to_dict()["low"] is None) == (side == "less")


def test_chi_square_agrees_with_scipy_and_with_z() -> None:
    table = [[30, 370, 5], [50, 360, 9], [44, 300, 1]]
    other = stats.chi2_contingency(table, correction=False)
    assert chi_square(table) == pytest.approx((other.statistic, other.pvalue, other.dof))
    z = proportions_z_test((30, 400), (50, 410))
    assert chi_square([[30, 370], [50, 360]])[:2] == pytest.approx((z.statistic**2, z.p_value))


@pytest.mark.parametrize(("old", "new"), [((3, 20), (9, 25)), ((100, 1000), (120, 1000)), ((0, 5), (4, 4))])
def test_probability_of_being_better_is_the_closed_form(old: tuple[int, int], new: tuple[int, int]) -> None:
    """For whole parameters P(B > A) is a finite sum (Miller 2015, "Formulas for Bayesian A/B testing", eq. 6)."""
    (a, b), (c, d) = ((x + 1, n - x + 1) for x, n in (old, new))
    i = np.arange(c)
    closed = np.exp(
        special.betaln(a + i, b + d) - np.log(d + i) - special.betaln(1 + i, d) - special.betaln(a, b)
    ).sum()
    found = bayes_proportions(old, new)
    assert found.probability == pytest.approx(float(closed), abs=1e-10)

    def better(a0: int, b0: int, c0: int, d0: int) -> float:
        j = np.arange(c0)
        return float(
            np.exp(
                special.betaln(a0 + j, b0 + d0) - np.log(d0 + j) - special.betaln(1 + j, d0) - special.betaln(a0, b0)
            ).sum()
        )

    # E[max(B - A, 0)] by the same sums with one more success (the same source, eq. 12).
    gain = c / (c + d) * better(a, b, c + 1, d) - a / (a + b) * better(a + 1, b, c, d)
    assert found.loss_if_control == pytest.approx(gain, abs=1e-10)
    assert found.loss_if_control - found.loss_if_treatment == pytest.approx(found.mean, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_credible_intervals_agree_with_draws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = (int(rng.integers(1, 90)), 100), (int(rng.integers(1, 190)), 200)
    draws = rng.beta(new[0] + 1, 201 - new[0], 400_000) - rng.beta(old[0] + 1, 101 - old[0], 400_000)
    found = bayes_proportions(old, new, confidence=0.9)
    spread = float(draws.std())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])), abs=0.01 * spread)
    assert found.probability == pytest.approx((draws > 0).mean(), abs=0.005)
    a, b = rng.normal(0, 1, 8), rng.normal(0.3, 2, 12)
    result = bayes_means(Moments.of(a), Moments.of(b), confidence=0.9)
    prior = NormalPrior()
    draws = prior.posterior(Moments.of(b)).rvs(400_000, random_state=rng)
    draws = draws - prior.posterior(Moments.of(a)).rvs(400_000, random_state=rng)
    assert (result.low, result.high) == pytest.approx(
        tuple(np.quantile(draws, [0.05, 0.95])), abs=0.02 * float(draws.std())
    )
    assert result.loss_if_treatment == pytest.approx(np.maximum(-draws, 0).mean(), rel=0.03, abs=1e-3)


def test_posterior_of_a_mean_is_students_and_updates_in_steps() -> None:
    x = np.random.default_rng(1).normal(3, 2, 40)
    flat = NormalPrior(observations=1e-9, shape=1e-9, scale=1e-9).posterior(Moments.of(x))
    # With no prior at all, n - 1 degrees become n: the usual interval, nearly.
    assert flat.mean() == pytest.approx(x.mean())
    assert flat.std() == pytest.approx(x.std(ddof=0) / math.sqrt(40) * math.sqrt(40 / 38), rel=1e-6)
    prior = NormalPrior(mean=1, observations=4, shape=3, scale=5)
    first = Moments.of(x[:15])
    # What is left of the prior after 15 observations is a prior for the other 25.
    weight = prior.observations + 15
    between = NormalPrior(
        mean=(prior.observations * prior.mean + first.n * first.mean) / weight,
        observations=weight,
        shape=prior.shape + 7.5,
        scale=prior.scale + (first.squares + prior.observations * 15 * (first.mean - prior.mean) ** 2 / weight) / 2,
    )
    whole, steps = prior.posterior(Moments.of(x)), between.posterior(Moments.of(x[15:]))
    assert (whole.mean(), whole.std()) == pytest.approx((steps.mean(), steps.std()))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_values_agree_with_statsmodels(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])


@pytest.mark.parametrize("seed", range(6))  # few: statsmodels collects garbage for each
def test_holm_agrees_with_statsmodels(seed: int) -> None:
    p = np.round(np.random.default_rng(seed).random(12) ** 3, 2)  # with ties, zeros and ones
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-5, 12), max_size=12), st.sampled_from([0.05, 0.2]))
def test_rejections_by_e_values_are_those_of_the_inverse_p_values(log_e: list[float], q: float) -> None:
    """Wang & Ramdas 2022: the procedure on e-values is the one on 1 / e, without a cap at 1."""
    e = np.exp(np.array(log_e))
    count = max((k for k in range(1, len(e) + 1) if np.sort(e)[::-1][k - 1] >= len(e) / (k * q)), default=0)
    expected = e >= np.sort(e)[::-1][count - 1] if count else np.zeros(len(e), dtype=bool)
    found = e_benjamini_hochberg(log_e, q)
    assert found.tolist() == expected.tolist()
    if log_e:
        assert found.tolist() == (benjamini_hochberg(np.minimum(1 / e, 1)) <= q).tolist()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("effect", "ratio", "alpha", "power"), [(0.2, 1, 0.05, 0.8), (0.5, 2, 0.01, 0.9), (0.02, 0.25, 0.1, 0.5)]
)
def test_sizes_for_means_agree_with_statsmodels(
    side: Side, effect: float, ratio: float, alpha: float, power: float
) -> None:
    signed = -effect if side == "less" else effect
    options: dict[str, Any] = {"alpha": alpha, "ratio": ratio, "alternative": side}
    other = sm_power.TTestIndPower().solve_power(signed, None, alpha, power, ratio, LARGER[side])
    n = sample_size_mean(3 * signed, 3, power=power, **options)
    assert n == math.ceil(other - 1e-6)
    reached = sm_power.TTestIndPower().power(signed, n, alpha, ratio, alternative=LARGER[side])
    assert power_mean(3 * signed, 3, n, **options) == pytest.approx(reached, rel=1e-9)
    assert mde_mean(float(other), 3, power=power, **options) == pytest.approx(3 * effect, rel=1e-6)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("base", "lift", "ratio"), [(0.05, 0.005, 1.0), (0.3, 0.1, 2.0), (0.5, 0.02, 0.5)])
def test_sizes_for_proportions_agree_with_statsmodels(side: Side, base: float, lift: float, ratio: float) -> None:
    signed = -lift if side == "less" else lift
    options: dict[str, Any] = {"ratio": ratio, "alternative": side}
    n = sample_size_proportion(base, signed, power=0.9, **options)
    # Its first sample is the treatment, and its ratio that of the second to the first.
    reached = [
        sm_proportion.power_proportions_2indep(
            signed, base, m * ratio, ratio=1 / ratio, alternative=LARGER[side], return_results=False
        )
        for m in (n - 1, n)
    ]
    assert reached[0] < 0.9 <= reached[1] + 1e-12
    assert power_proportion(base, signed, n, **options) == pytest.approx(reached[1], rel=1e-6)
    # Cohen's arcsine effect size is another approximation of the same.
    size = abs(sm_proportion.proportion_effectsize(base + signed, base))
    cohen = sm_power.NormalIndPower().solve_power(
        size, None, 0.05, 0.9, ratio, "two-sided" if side == "two-sided" else "larger"
    )
    assert n == pytest.approx(cohen, rel=0.06)
    assert mde_proportion(base, n, power=0.9, **options) == pytest.approx(lift, rel=3e-3)


def test_ratio_metric_has_the_spread_of_its_linearised_values() -> None:
    rng = np.random.default_rng(2)
    found, estimates = [], []
    for _ in range(2_000):
        bottom = rng.poisson(3, 200) + 1.0
        top = rng.binomial(bottom.astype(int), rng.beta(2, 8, 200)).astype(float)
        covariance = np.cov(top, bottom)
        found.append(ratio_deviation(top.mean(), bottom.mean(), covariance[0, 0], covariance[1, 1], covariance[0, 1]))
        estimates.append(top.sum() / bottom.sum())
    assert np.mean(found) / math.sqrt(200) == pytest.approx(np.std(estimates), rel=0.06)


def test_days_and_the_price_of_looking() -> None:
    assert duration_days(10_000, 1_000, whole_weeks=False) == 10
    assert duration_days(10_001, 1_000, whole_weeks=False) == 11
    assert duration_days(10_000, 1_000) == 14
    assert duration_days(10_000, 1_000, share=0.5) == 21
    assert duration_days(1, 1_000) == 7
    # Radius 3.035 at the planned size against the quantile 1.96, by hand.
    assert sequential_inflation() == pytest.approx(((3.0352 + 0.8416) / (1.95996 + 0.8416)) ** 2, rel=1e-3)
    assert 1 < sequential_inflation(power=0.99) < sequential_inflation(power=0.5)


def test_power_reaches_its_extremes() -> None:
    assert sample_size_mean(1e-3, 1) == pytest.approx(15_697_722, rel=1e-6)
    assert sample_size_mean(100, 1) == 2
    assert power_mean(5, 1, 10_000_000) == pytest.approx(1)
    assert power_mean(0, 1, 100) == pytest.approx(0.05)
    assert mde_proportion(0.99, 60) > 0.05  # no increase fits, a decrease does


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: proportions_z_test((3, 2), (1, 2)), "control"),
        (lambda: proportions_z_test((0, 0), (1, 2)), "control"),
        (lambda: proportions_z_test((1, 2), 3), "treatment"),  # type: ignore[arg-type]
        (lambda: welch_test(Moments.of([1.0]), Moments.of([1.0, 2.0])), "control"),
        (lambda: welch_test(Moments.of([1.0, 1.0]), Moments.of([2.0, 2.0])), "treatment"),
        (lambda: chi_square([[1, 2]]), "table"),
        (lambda: chi_square([[1, 0], [2, 0]]), "table"),
        (lambda: chi_square(np.array([[1, 0.5], [2, 1]])), "table"),
        (lambda: bayes_proportions((1, 2), (3, 2)), "treatment"),
        (lambda: bayes_proportions((1, 2), (1, 2), prior=(0, 1)), "prior"),
        (lambda: bayes_means(Moments.of([1.0, 2.0]), Moments.of([1.0, 2.0, 3.0])), "control"),
        (lambda: NormalPrior(scale=0), "scale"),
        (lambda: holm([0.5, 1.5]), "p_values"),
        (lambda: e_benjamini_hochberg([1.0], 0), "q"),
        (lambda: power_mean(1, 0, 10), "deviation"),
        (lambda: power_mean(1, 1, 1), "n"),
        (lambda: power_proportion(0.5, 0.6, 10), "effect"),
        (lambda: sample_size_mean(0, 1), "effect"),
        (lambda: sample_size_mean(-1, 1, alternative="greater"), "effect"),
        (lambda: mde_mean(10, 1, power=0.01), "power"),
        (lambda: mde_proportion(0.5, 2), "n"),
        (lambda: ratio_deviation(1, 0, 1, 1, 0), "mean_bottom"),
        (lambda: ratio_deviation(1, 1, 1, 1, 2), "covariance"),
        (lambda: duration_days(10, 5, share=1.1), "share"),
    ],
)
def test_what_is_impossible_is_refused_by_name(call: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert caught.value.field == field
