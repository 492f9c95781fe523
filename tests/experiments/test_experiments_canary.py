"""The judge of a canary: exact expectations, error rates under continuous peeking, and how soon harm is seen."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.canary_traffic import (
    HARMS,
    Rollouts,
    Traffic,
    at_the_margin,
    baseline,
    delays,
    disagreement,
    rollout,
    without_cause,
)

from rlaas.errors import ConfigurationError
from rlaas.experiments.canary import _BETS, CanaryBounds, CanaryJudge, Counts, _Gambler, _growth, _Losses

MARGINS = st.sampled_from([-0.05, 0.0, 0.02, 0.1])
ONLY_ERRORS = CanaryBounds(metrics=("errors",))


def _bernoulli(n: int, hits: int) -> _Losses:
    return _Losses(n, hits, hits)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 6),
    many=st.integers(1, 12),
    centre=st.floats(0.1, 0.85),
    margin=MARGINS,
    stable=st.floats(0.0, 1.0),
    below=st.floats(0.0, 0.3),
)
def test_the_expected_wealth_is_at_most_one_wherever_the_canary_is_within_the_margin(
    n: int, many: int, centre: float, margin: float, stable: float, below: float
) -> None:
    canary = stable + margin - below
    if not 0 <= canary <= 1:
        return
    expected = 0.0
    for hits, theirs in itertools.product(range(n + 1), range(many + 1)):
        gambler = _Gambler(0.2)
        gambler.play(_bernoulli(n, hits), _bernoulli(many, theirs), centre, margin, exact=True)
        probability = stats.binom.pmf(hits, n, canary) * stats.binom.pmf(theirs, many, stable)
        expected += probability * math.exp(gambler.log_wealth())
    assert expected <= 1 + 1e-9


def test_the_expected_wealth_is_one_at_the_margin_over_two_blocks() -> None:
    """At the centre itself nothing is given away, held-back money included."""
    outcomes = list(itertools.product(range(4), range(6)))
    pmf = {(a, b): stats.binom.pmf(a, 3, 0.3) * stats.binom.pmf(b, 5, 0.2) for a, b in outcomes}
    expected = 0.0
    for first, second in itertools.product(outcomes, outcomes):
        gambler = _Gambler(0.2)
        for hits, theirs in (first, second):
            gambler.play(_bernoulli(3, hits), _bernoulli(5, theirs), 0.2, 0.1, exact=True)
        expected += pmf[first] * pmf[second] * math.exp(gambler.log_wealth())
    assert expected == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("bet", _BETS)
@pytest.mark.parametrize("hits", [0, 3, 10])
def test_for_errors_the_growth_is_a_likelihood_ratio(bet: float, hits: int) -> None:
    centre = 0.07
    alternative = centre + bet * (1 - centre)
    data = np.array([1] * hits + [0] * (10 - hits))
    ratio = stats.bernoulli.logpmf(data, alternative).sum() - stats.bernoulli.logpmf(data, centre).sum()
    assert _growth(_bernoulli(10, hits), bet / centre, centre, exact=True) == pytest.approx(ratio)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from(_BETS), st.floats(0.05, 0.95))
def test_sums_and_squares_never_claim_more_than_the_product(losses: list[float], bet: float, centre: float) -> None:
    y = np.array(losses)
    product = float(np.log1p(bet / centre * (y - centre)).sum())
    known = _growth(_Losses(len(y), float(y.sum()), float((y**2).sum())), bet / centre, centre, exact=False)
    assert known <= product + 1e-9
    if len(y) <= 2:
        assert known == pytest.approx(product, abs=1e-6)


@pytest.mark.parametrize(
    ("which", "share"), [(("errors",), 0.5), (("latency",), 0.5), (("reward",), 0.5), (("errors", "reward"), 0.05)]
)
def test_at_the_margin_errors_stay_within_their_bounds_though_one_looks_every_second(
    which: tuple[str, ...], share: float
) -> None:
    runs = 200
    false, cleared = without_cause(*at_the_margin(which), runs, 60, share)
    allowed = 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert false <= allowed
    assert np.isfinite(cleared).mean() <= allowed


@pytest.mark.parametrize("harm", sorted(HARMS))
def test_what_is_simulated_by_the_thousand_is_what_the_judge_would_say(harm: str) -> None:
    assert disagreement(baseline(harm), HARMS[harm], runs=2, seconds=40, share=0.2) < 1e-9


def test_the_bound_of_false_alarms_is_used_not_just_kept() -> None:
    """With a coin that is worse by exactly the margin, alarms do occur: the test above can fail."""
    rng, runs, alarms = np.random.default_rng(5), 400, 0
    bounds = CanaryBounds(metrics=("errors",), alpha=0.2)
    for _ in range(runs):
        judge = CanaryJudge(bounds)
        judge.update(Counts(decisions=4000, errors=1000), Counts())
        for _ in range(60):
            bad, worse = int(rng.binomial(50, 0.2)), int(rng.binomial(50, 0.22))
            judge.update(Counts(50 - bad, bad), Counts(50 - worse, worse))
            if judge.verdict() == "harm":
                alarms += 1
                break
    assert 0.01 <= alarms / runs <= 0.2 + 2 * math.sqrt(0.2 * 0.8 / runs)


@pytest.mark.parametrize("harm", sorted(HARMS))
def test_stated_harms_are_seen_within_a_minute_at_five_percent_of_a_hundred_a_second(harm: str) -> None:
    times = [rollout(baseline(harm), HARMS[harm], seed, seconds=60)[0] for seed in range(20)]
    assert None not in times


@pytest.mark.parametrize("stable", sorted({baseline(harm) for harm in HARMS}, key=lambda traffic: traffic.sigma))
def test_a_canary_that_turns_bad_after_five_good_minutes_is_seen_within_one(stable: Traffic) -> None:
    good = Rollouts(40, 0.05, seed=3)
    for _ in range(300):
        good.second(stable, stable)
    assert not good.harmed().any()
    for harm in (harm for harm in HARMS if baseline(harm) == stable):
        assert delays(good.branch(), harm)[-1] <= 60


def test_an_equal_version_is_cleared_and_each_step_anew() -> None:
    stable = Traffic()
    cleared = [rollout(stable, stable, seed, seconds=120, share=0.5) for seed in range(6)]
    assert all(harm is None and safe is not None for harm, safe in cleared)
    judge = CanaryJudge(ONLY_ERRORS)
    judge.update(Counts(1000, 5), Counts())
    for _ in range(10):
        judge.update(Counts(100, 1), Counts(100, 0))
    assert judge.verdict() == "no_harm"
    assert judge.decisions == 1000
    judge.next_step()
    assert (judge.verdict(), judge.decisions) == ("undecided", 0)


def test_all_metrics_must_be_clear_and_one_is_enough_for_harm() -> None:
    judge = CanaryJudge(CanaryBounds(metrics=("errors", "reward")))
    judge.update(Counts(1000, 5, rewards=100, reward_sum=50.0, reward_squares=30.0), Counts())
    for _ in range(20):
        judge.update(Counts(100, 1), Counts(100, 0))
    evidence = judge.evidence()
    assert (evidence["errors"]["says"], evidence["reward"]["says"]) == ("no_harm", "undecided")
    assert evidence["reward"]["canary_loss"] is None
    assert judge.verdict() == "undecided"
    for _ in range(20):
        judge.update(Counts(100, 1), Counts(50, 50))
    assert judge.verdict() == "harm"
    assert judge.evidence()["errors"]["harm_needed"] == 40


def test_a_judge_goes_on_from_its_state_as_if_it_had_never_stopped() -> None:
    rng = np.random.default_rng(3)
    stable, canary = Traffic(), Traffic(errors=0.03)
    ever, again = CanaryJudge(CanaryBounds()), CanaryJudge(CanaryBounds())
    for second in range(60):
        one, other = stable.second(60, rng)[0], canary.second(second % 4, rng)[0]
        ever.update(one, other)
        again.update(one, other)
        if second % 7 == 0:
            again = CanaryJudge(CanaryBounds(), json.loads(json.dumps(again.state(), allow_nan=False)))
    assert again.evidence() == ever.evidence()
    assert again.state() == ever.state()


def test_a_record_of_before_is_read_with_what_its_gamblers_had_held_back() -> None:
    """What the judge said that put half of the money in at once, and 1 / j (j - 1) of the rest with block j."""
    none = {"n": 0.0, "total": 0.0, "squares": 0.0}
    stable = {"n": 1293.0, "total": 8.0, "squares": 8.0}
    lost = [-2.4112, -2.6364, -3.1652, -4.2212, -5.9552, -9.322, -9.322, -9.322]
    won = [-2.2579, -2.252, -2.2384, -2.2111, -2.1644, -2.0867, -1.9899, -1.9127]
    errors = {
        "memory": stable,
        "block": {"canary": none, "stable": none},
        "seen": {"canary": {"n": 15.0, "total": 0.0, "squares": 0.0}, "stable": stable},
        "harm": {"blocks": 3, "logs": lost},
        "safe": {"blocks": 3, "logs": won},
    }
    record = {"metrics": {"errors": errors}, "histogram": [], "slow_from": None, "decisions": 15}
    judge = CanaryJudge(ONLY_ERRORS, record)
    evidence = judge.evidence()["errors"]
    assert evidence["harm"] == pytest.approx(0.3877, rel=1e-3)
    assert evidence["no_harm"] == pytest.approx(1.116, rel=1e-3)
    for _ in range(20):
        judge.update(Counts(95, 0), Counts(4, 1))
    assert judge.verdict() == "harm"
    # Money of the old schedule is not put in twice.
    held = judge.state()["metrics"]["errors"]["harm"]["held"]
    assert 0 < held < 0.5 / 3


def test_what_one_side_alone_counted_waits_for_the_other() -> None:
    together, apart = CanaryJudge(ONLY_ERRORS), CanaryJudge(ONLY_ERRORS)
    for judge in (together, apart):
        judge.update(Counts(1000, 5), Counts())
    together.update(Counts(300, 3), Counts(7, 2))
    apart.update(Counts(100, 1), Counts())
    apart.update(Counts(200, 2), Counts())
    apart.update(Counts(), Counts(7, 2))
    assert apart.evidence() == together.evidence()


def test_counts_add_and_subtract() -> None:
    one = Counts(5, 1, (1, 4), 2, 1.5, 1.25)
    assert Counts().plus(one) == one
    assert one.plus(one).plus(one, -1) == one


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 0.0),
        ("alpha", 0.9),
        ("beta", math.nan),
        ("errors", -0.1),
        ("latency", "x"),
        ("reward", math.inf),
        ("metrics", ()),
        ("metrics", ("errors", "errors")),
        ("metrics", ("speed",)),
    ],
)
def test_impossible_bounds_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CanaryBounds(**{field: value})
    assert caught.value.field == field
