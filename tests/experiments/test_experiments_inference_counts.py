from __future__ import annotations

import json
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from rlaas.errors import InvalidInputError
from rlaas.experiments.inference import (
    SIDES,
    ProportionDifference,
    ProportionSequence,
    QuantileRatio,
    QuantileSequence,
    Side,
    log_edges,
)
from rlaas.experiments.inference.proportions import beta_log_e
from rlaas.experiments.inference.quantiles import too_few, too_many

BAR = -math.log(0.05)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("s", "f", "p"), [(0, 5, 0.3), (3, 9, 0.2), (40, 2, 0.5)])
def test_beta_mixture_is_the_integral_over_the_prior(side: Side, s: int, f: int, p: float) -> None:
    low, high = {"two-sided": (0.0, 1.0), "greater": (p, 1.0), "less": (0.0, p)}[side]
    prior = stats.beta(2, 3)

    def ratio(q: float) -> float:
        return float(prior.pdf(q)) * (q / p) ** s * ((1 - q) / (1 - p)) ** f

    expected = integrate.quad(ratio, low, high)[0] / (prior.cdf(high) - prior.cdf(low))
    assert math.exp(beta_log_e(s, f, p, (2.0, 3.0), side)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_beta_mixture_averages_one_at_the_null_and_less_beyond(p: float) -> None:
    n = 60
    s = np.arange(n + 1)
    for side in SIDES:
        e = np.exp(beta_log_e(s, n - s, p, (1.0, 1.0), side))
        assert stats.binom.pmf(s, n, p) @ e == pytest.approx(1, rel=1e-9)
    greater = np.exp(beta_log_e(s, n - s, p, (1.0, 1.0), "greater"))
    assert stats.binom.pmf(s, n, p / 2) @ greater < 1


def test_far_tails_of_the_mixture_stay_finite_and_right() -> None:
    """Where the posterior's tail underflows: a null far above what was seen, looked at from above."""
    a, b, p = 301.0, 9_701.0, 0.3
    found = float(beta_log_e(300, 9_700, p, (1.0, 1.0), "greater"))
    # Integral of (q / p)^300 ((1 - q) / (1 - p))^9700 over (p, 1), which falls fast from 1 at p.
    integral = integrate.quad(
        lambda q: math.exp((a - 1) * math.log(q / p) + (b - 1) * math.log((1 - q) / (1 - p))), p, 0.31
    )
    assert special.betaincc(a, b, p) == 0
    assert found == pytest.approx(math.log(integral[0] / (1 - p)), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.sampled_from(SIDES))
def test_proportion_interval_ends_where_the_e_value_reaches_the_bar(s: int, f: int, side: Side) -> None:
    found = ProportionSequence(alternative=side).update(s, s + f)
    p = np.linspace(1e-4, 1 - 1e-4, 2_001)
    kept = p[beta_log_e(s, f, p, (1.0, 1.0), side) < BAR]
    low, high = max(found.low, 0.0), min(found.high, 1.0)
    assert ((kept >= low - 1e-9) & (kept <= high + 1e-9)).all()
    excluded = p[(p < low) | (p > high)]
    assert (beta_log_e(s, f, excluded, (1.0, 1.0), side) >= BAR - 1e-6).all()
    assert (found.low == -math.inf) == (side == "less")


def test_proportion_is_ever_missed_in_alpha_at_most() -> None:
    runs, looks, n = 1_000, 1_000, np.arange(1, 1_001)
    for p in (0.01, 0.4):
        s = np.cumsum(np.random.default_rng(0).random((runs, looks)) < p, axis=1)
        missed = (beta_log_e(s, n - s, p, (1.0, 1.0)) >= BAR).any(axis=1).mean()
        assert missed <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("null", "p"), [(0.0, 0.3), (0.0, 0.9), (0.2, 0.5), (-0.3, 0.6)])
def test_two_proportions_average_at_most_one(side: Side, null: float, p: float) -> None:
    """Exact, by enumeration of three blocks of unequal sizes, at the edge of the null and within it."""
    sizes = [(1, 2), (2, 1), (1, 1)]
    inside = {"two-sided": p + null, "greater": max(p + null - 0.25, 0.01), "less": min(p + null + 0.25, 0.99)}[side]
    for q in {p + null, inside}:
        if not 0 < q < 1:
            continue
        total = 0.0
        for seen in product(*(product(range(n0 + 1), range(n1 + 1)) for n0, n1 in sizes)):
            test, chance = ProportionDifference(null=null, alternative=side), 1.0
            for (n0, n1), (x0, x1) in zip(sizes, seen, strict=True):
                test.update((x0, n0), (x1, n1))
                chance *= float(special.comb(n0, x0)) * p**x0 * (1 - p) ** (n0 - x0)
                chance *= float(special.comb(n1, x1)) * q**x1 * (1 - q) ** (n1 - x1)
            total += chance * math.exp(test.log_e)
        assert total <= 1 + 1e-9


def test_two_proportions_find_a_difference_on_the_right_side() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        blocks = np.stack([rng.binomial(20, 0.05, 200), rng.binomial(20, 0.1, 200)], axis=1).tolist()
        p_values = {}
        for name, options in {
            "two": {},
            "greater": {"alternative": "greater"},
            "less": {"alternative": "less"},
            "margin": {"alternative": "greater", "null": 0.08},
        }.items():
            test = ProportionDifference(**options)  # type: ignore[arg-type]
            for old, new in blocks:
                p_values[name] = test.update((old, 20), (new, 20))
            assert test.estimate == pytest.approx(np.subtract(*np.sum(blocks, axis=0)[::-1]) / 4_000)
        assert p_values["two"] < 1e-4
        assert p_values["greater"] < 1e-4
        assert p_values["less"] > 0.05
        assert p_values["margin"] > 0.05


def test_a_block_of_one_arm_is_no_evidence_but_is_remembered() -> None:
    test = ProportionDifference()
    assert test.update((3, 10), (0, 0)) == 1.0
    assert math.isnan(test.estimate)
    assert test.update((0, 0), (9, 10)) == 1.0
    assert test.estimate == pytest.approx(0.6)
    assert test.update((3, 10), (9, 10)) < 1.0


def test_quantile_evidence_averages_at_most_one_in_every_bucket_that_holds_the_quantile() -> None:
    """Exact, over all counts of six values in three buckets; the quantile is on the edge, or within a bucket."""
    for mass, quantile, bucket in (((0.3, 0.4, 0.3), 0.5, 1), ((0.5, 0.2, 0.3), 0.5, 0), ((0.5, 0.2, 0.3), 0.5, 1)):
        high = low = 0.0
        for counts in product(range(7), repeat=3):
            if sum(counts) == 6:
                chance = float(stats.multinomial.pmf(counts, 6, mass))
                high += chance * math.exp(too_many(counts, quantile, (2.0, 2.0))[bucket])
                low += chance * math.exp(too_few(counts, quantile, (2.0, 2.0))[bucket])
        assert high <= 1 + 1e-9
        assert low <= 1 + 1e-9


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_quantiles_are_covered_and_ratios_rarely_refuted_at_every_look(quantile: float) -> None:
    runs, edges, missed, refuted = 150, log_edges(1, 500, 0.05), 0, 0
    true = float(stats.lognorm(0.5, scale=20).ppf(quantile))
    for seed in range(runs):
        rng = np.random.default_rng([5, seed])
        one, two, out = (
            QuantileSequence(quantile, edges, planned=1_000),
            QuantileRatio(quantile, edges, planned=1_000),
            False,
        )
        for _ in range(10):
            old, new = rng.lognormal(math.log(20), 0.5, (2, 160))
            one.update(old)
            _, low, high = one.interval()
            out |= not low <= true <= high
            p_value = two.update(old, new)
        missed += out
        refuted += p_value <= 0.05
    assert max(missed, refuted) / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("side", SIDES)
def test_a_slower_tail_is_found_on_the_right_side(side: Side) -> None:
    edges = log_edges(1, 1_000, 0.02)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        old, new = rng.lognormal(3, 0.5, 10_000), 1.2 * rng.lognormal(3, 0.5, 10_000)
        test = QuantileRatio(0.95, edges, alternative=side)
        assert (test.update(old, new) < 0.01) == (side != "less")
        found = test.standing()
        assert found.low <= 1.2 <= found.high
        assert (found.low > 1) == (side != "less")
        assert found.estimate == pytest.approx(np.quantile(new, 0.95) / np.quantile(old, 0.95), rel=0.04)
        # At the true ratio, and at one beyond what was seen on the far side, nothing is refuted.
        at_true = QuantileRatio(0.95, edges, alternative=side, null=1.2)
        assert at_true.update(old, new) > 0.05
    sequence = QuantileSequence(0.95, edges, alternative=side)
    sequence.update(old)
    estimate, low, high = sequence.interval()
    assert low <= np.quantile(old, 0.95) <= high
    assert estimate == pytest.approx(np.quantile(old, 0.95), rel=0.03)
    assert (low > 0, high < math.inf) == (side != "less", side != "greater")


def test_wide_buckets_and_few_values_say_nothing_wrong() -> None:
    test = QuantileRatio(0.9, [10.0])
    assert test.update(np.full(5_000, 3.0), np.full(5_000, 9.0)) == 1.0  # one bucket: no telling
    assert test.update([], np.full(5_000, 11.0)) < 1e-6
    found = test.standing()
    assert (found.low, found.high, found.estimate) == (1.0, math.inf, math.inf)
    empty = QuantileSequence(0.9, [10.0]).interval()
    assert math.isnan(empty[0])
    assert empty[1:] == (0.0, math.inf)
    assert math.isnan(QuantileRatio(0.9, [10.0]).standing().estimate)


@pytest.mark.parametrize("side", SIDES)
def test_restarted_monitors_go_on_bit_for_bit(side: Side) -> None:
    rng, edges = np.random.default_rng(6), log_edges(1, 100, 0.1)

    def again(monitor: Any) -> Any:
        return type(monitor).from_dict(json.loads(json.dumps(monitor.to_dict(), allow_nan=False)))

    one, two = (
        ProportionSequence(null=0.2, alternative=side, prior=(2, 5)),
        ProportionDifference(null=0.1, alternative=side),
    )
    three = QuantileRatio(0.9, edges, null=1.1, alternative=side)
    four = QuantileSequence(0.9, edges, alternative=side)
    for _ in range(5):
        x = rng.lognormal(2, 1, (2, 50))
        s = (x > 10).sum(axis=1).tolist()
        copies = [again(monitor) for monitor in (one, two, three, four)]
        assert one.update(s[0], 50) == copies[0].update(s[0], 50)
        assert two.update((s[0], 50), (s[1], 50)) == copies[1].update((s[0], 50), (s[1], 50))
        assert three.update(*x) == copies[2].update(*x)
        four.update(x[0])
        copies[3].update(x[0])
        assert [m.to_dict() for m in (one, two, three, four)] == [m.to_dict() for m in copies]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: ProportionSequence(null=0), "null"),
        (lambda: ProportionSequence(prior=(1.0, 0.0)), "prior"),
        (lambda: ProportionSequence(prior=1.0), "prior"),  # type: ignore[arg-type]
        (lambda: ProportionSequence().update(3, 2), "successes"),
        (lambda: ProportionSequence().update(1.5, 2), "successes and trials"),  # type: ignore[arg-type]
        (lambda: ProportionDifference(null=1), "null"),
        (lambda: ProportionDifference(alternative="up"), "alternative"),  # type: ignore[arg-type]
        (lambda: ProportionDifference().update(3, (1, 2)), "control"),  # type: ignore[arg-type]
        (lambda: QuantileSequence(1.0, [1.0]), "quantile"),
        (lambda: QuantileSequence(0.5, [2.0, 1.0]), "edges"),
        (lambda: QuantileSequence(0.5, []), "edges"),
        (lambda: QuantileSequence(0.5, [1.0]).update([-1.0]), "values"),
        (lambda: QuantileSequence(0.5, [1.0]).update_counts([1, 2, 3]), "counts"),
        (lambda: QuantileRatio(0.5, [1.0], null=0), "null"),
        (lambda: log_edges(2, 1), "high"),
        (lambda: log_edges(1, 2, 0), "precision"),
    ],
)
def test_what_is_impossible_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make()
    assert caught.value.field == field
