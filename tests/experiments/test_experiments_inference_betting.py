from __future__ import annotations

import json
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.errors import InvalidInputError
from rlaas.experiments.inference import SIDES, BoundedDifference, BoundedMean, Side


def test_interval_and_e_value_are_the_published_formulas() -> None:
    """Waudby-Smith & Ramdas 2024: theorem 2 with the rate of eq. (15), and the aGRAPA bet, written out."""
    x = np.random.default_rng(0).beta(2, 5, 300)
    alpha, null, log_e, low, high = 0.1, 0.4, 0.0, 0.0, 1.0
    rates: list[float] = []
    penalties: list[float] = []
    squares: list[float] = []
    for t in range(1, len(x) + 1):
        mean = (0.5 + x[: t - 1].sum()) / t
        variance = (0.25 + sum(squares)) / t
        bet = (mean - null) / (variance + (mean - null) ** 2)
        log_e += math.log(1 + min(max(bet, -0.5 / (1 - null)), 0.5 / null) * (x[t - 1] - null))
        rate = min(math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(1 + t))), 0.5)
        psi = (-math.log(1 - rate) - rate) / 4
        rates.append(rate)
        squares.append((x[t - 1] - mean) ** 2)
        penalties.append(4 * squares[-1] * psi)
        centre = float(np.dot(rates, x[:t]) / sum(rates))
        half = (math.log(2 / alpha) + sum(penalties)) / sum(rates)
        low, high = max(low, centre - half), min(high, centre + half)
    found = BoundedMean(null=null, alpha=alpha).update(x)
    assert (found.low, found.high, found.log_e) == pytest.approx((low, high, log_e), rel=1e-9)
    scaled = BoundedMean(-10, 30, null=6, alpha=alpha).update(40 * x - 10)
    assert (scaled.low, scaled.high, scaled.log_e) == pytest.approx((40 * low - 10, 40 * high - 10, log_e), rel=1e-9)
    assert scaled.estimate == pytest.approx(40 * x.mean() - 10)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("null", [0.1, 0.5, 0.7])
def test_e_value_averages_one_over_all_sequences(side: Side, null: float) -> None:
    """Exact, by enumeration: a fair game at the null, no better than fair on the null's side."""
    totals = dict.fromkeys((null, null / 2, (1 + null) / 2), 0.0)
    for tosses in product((0.0, 1.0), repeat=9):
        e = math.exp(BoundedMean(null=null, alternative=side).update(tosses).log_e)
        for p in totals:
            totals[p] += e * p ** sum(tosses) * (1 - p) ** (9 - sum(tosses))
    assert totals[null] == pytest.approx(1, abs=1e-9)
    if side != "two-sided":
        beyond, within = (1 + null) / 2, null / 2
        if side == "less":
            beyond, within = within, beyond
        assert totals[within] < 1 < totals[beyond]


@pytest.mark.parametrize("margin", [0.0, -0.2])
def test_difference_averages_one_whatever_steers_the_propensities(margin: float) -> None:
    """Exact, by enumeration: four units whose propensity follows the outcomes before them."""
    p_old, p_new, total = 0.6, 0.6 + margin, 0.0
    for arms in product((0, 1), repeat=4):
        for outcomes in product((0, 1), repeat=4):
            monitor, chance, propensity = BoundedDifference(least_propensity=0.2, null=margin), 1.0, 0.5
            for arm, y in zip(arms, outcomes, strict=True):
                mean = p_new if arm else p_old
                chance *= (propensity if arm else 1 - propensity) * (mean if y else 1 - mean)
                monitor.update([float(y)], [arm], propensity)
                propensity = 0.8 if arm == y else 0.3
            total += chance * math.exp(monitor.standing().log_e)
    assert total == pytest.approx(1, abs=1e-9)


def test_estimate_of_the_difference_is_centred() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        share = np.full(500, 0.7)
        treated = rng.random(500) < share
        found.append(
            BoundedDifference(least_propensity=0.3).update(rng.random(500) < 0.3 + 0.2 * treated, treated, share)
        )
    estimates = np.array([one.estimate for one in found])
    assert estimates.mean() == pytest.approx(0.2, abs=3 * estimates.std() / math.sqrt(200))
    # The spread of a difference of means, not the larger one of plain inverse propensities.
    assert estimates.std() == pytest.approx(math.sqrt(0.5 * 0.5 / 350 + 0.3 * 0.7 / 150), rel=0.15)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.sampled_from(SIDES))
def test_batches_and_restarts_leave_no_trace(cuts: list[int], side: Side) -> None:
    rng = np.random.default_rng(2)
    y, treated, share = rng.random(60), rng.random(60) < 0.5, rng.uniform(0.3, 0.7, 60)
    whole = BoundedDifference(least_propensity=0.3, alternative=side)
    whole.update(y, treated, share)
    part = BoundedDifference(least_propensity=0.3, alternative=side)
    one, other = BoundedMean(null=0.3, alternative=side), BoundedMean(null=0.3, alternative=side)
    one.update(y)
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        part.update(y[first:last], treated[first:last], share[first:last])
        part = BoundedDifference.from_dict(json.loads(json.dumps(part.to_dict(), allow_nan=False)))
        other.update(y[first:last])
        other = BoundedMean.from_dict(json.loads(json.dumps(other.to_dict(), allow_nan=False)))
    assert part.to_dict() == whole.to_dict()
    assert other.to_dict() == one.to_dict()


def test_false_alarms_and_misses_stay_below_alpha() -> None:
    runs, looks = 500, 3_000
    errors = np.zeros(4)
    for seed in range(runs):
        rng = np.random.default_rng([3, seed])
        one = BoundedMean(null=0.05).update(rng.random(looks) < 0.05)
        share = 0.5 + 0.3 * np.sin(np.arange(looks) / 100)
        two = BoundedDifference(least_propensity=0.19).update(rng.beta(0.5, 2, looks), rng.random(looks) < share, share)
        errors += [
            not one.low <= 0.05 <= one.high,
            one.p_value <= 0.05,
            not two.low <= 0 <= two.high,
            two.p_value <= 0.05,
        ]
    assert (errors / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)).all()


@pytest.mark.parametrize("side", SIDES)
def test_real_effects_are_found_on_the_side_that_is_asked_for(side: Side) -> None:
    rng = np.random.default_rng(4)
    treated = rng.random(20_000) < 0.5
    outcome = rng.random(20_000) < 0.5 + 0.1 * treated
    found = BoundedDifference(alternative=side).update(outcome, treated)
    assert (found.p_value < 1e-6) == (side != "less")
    assert (found.low > 0) == (side != "less")
    assert found.low <= 0.1 <= found.high
    mean = BoundedMean(null=0.5, alternative=side).update(outcome)
    assert (mean.p_value < 1e-6) == (side != "less")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: BoundedMean(1, 1), "high"),
        (lambda: BoundedMean(null=0), "null"),
        (lambda: BoundedMean(null=1), "null"),
        (lambda: BoundedMean(alpha=2), "alpha"),
        (lambda: BoundedMean().update([0.5, 1.1]), "values"),
        (lambda: BoundedDifference(least_propensity=0.6), "least_propensity"),
        (lambda: BoundedDifference(least_propensity=0), "least_propensity"),
        (lambda: BoundedDifference(null=2), "null"),
        (lambda: BoundedDifference().update([0.5], [2]), "treated"),
        (lambda: BoundedDifference().update([0.5], [0, 1]), "treated"),
        (lambda: BoundedDifference().update([0.5], [1], 0.4), "propensity"),
        (lambda: BoundedDifference(least_propensity=0.1).update([0.5], [1], [0.5, 0.5]), "propensity"),
        (lambda: BoundedMean.from_dict(BoundedDifference().to_dict()), "kind"),
        (lambda: BoundedMean.from_dict({**BoundedMean().to_dict(), "state": {"numbers": [0.0]}}), "numbers"),
    ],
)
def test_what_is_impossible_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make()
    assert caught.value.field == field
