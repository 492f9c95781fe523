from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.experiments.allocation.moments import Moments
from rlaas.experiments.allocation.priors import BetaPrior, GaussianPrior
from rlaas.experiments.allocation.quadrature import StudentMeans
from rlaas.experiments.allocation.states import allocator_from_dict
from rlaas.experiments.allocation.thompson import Fixed, Thompson

ARMS = ("old", "new", "newer")


def _fed(seed: int, **options: Any) -> Thompson:
    rng = np.random.default_rng(seed)
    allocator = Thompson(arms=ARMS, seed=seed, **options)
    for _ in range(3):
        allocator = allocator.updated(rng.choice(ARMS, 40), rng.random(40).round(3))
    return allocator


def test_beta_posterior_counts_successes() -> None:
    allocator = Thompson(arms=("a", "b")).updated(["a", "a", "a", "b"], [1, 0, 1, 0])
    # Beta(3, 2) against Beta(1, 2): P(a > b) = integral of 12 x^2 (1 - x) (1 - (1 - x)^2).
    exact = integrate.quad(lambda x: stats.beta(3, 2).pdf(x) * stats.beta(1, 2).cdf(x), 0, 1)[0]
    assert allocator.shares()["a"] == pytest.approx(exact, rel=1e-10)
    assert sum(allocator.shares().values()) == pytest.approx(1)
    assert allocator.batch == 1


def test_gaussian_posterior_is_bayes_rule_integrated_over_the_variance() -> None:
    rng = np.random.default_rng(4)
    rewards = rng.normal(2.0, 1.5, 7)
    prior = GaussianPrior(mean=1.0, count=2.0, variance=0.8, degrees=3.0)
    posterior = prior.means((Moments.of(rewards[:, None]), Moments.empty()))
    assert isinstance(posterior, StudentMeans)
    ours = stats.t(posterior.degrees[0], posterior.location[0], posterior.scale[0])

    def joint(variance: float, mean: float) -> float:
        sd = np.sqrt(variance)
        return float(
            stats.norm.pdf(mean, prior.mean, sd / np.sqrt(prior.count))
            * stats.invgamma.pdf(variance, 1.5, scale=1.5 * prior.variance)
            * np.prod(stats.norm.pdf(rewards, mean, sd))
        )

    density = [integrate.quad(joint, 0, np.inf, args=(mean,))[0] for mean in (0.7, 1.5, 2.6)]
    # Up to the constant that normalises it.
    assert density / np.array(density[0]) == pytest.approx(ours.pdf([0.7, 1.5, 2.6]) / ours.pdf(0.7), rel=1e-6)
    # An arm without rewards has the prior's own marginal.
    assert (posterior.location[1], posterior.degrees[1]) == (1.0, 3.0)
    assert posterior.scale[1] == pytest.approx(np.sqrt(0.8 / 2))


def test_known_variance_gives_the_normal_posterior() -> None:
    prior = GaussianPrior(mean=0.0, count=1e-9, variance=4.0, degrees=None)
    allocator = Thompson(arms=("a", "b"), prior=prior).updated(["a"] * 8 + ["b"] * 2, [1.0] * 8 + [0.0] * 2)
    assert allocator.shares()["a"] == pytest.approx(stats.norm.cdf(1 / np.sqrt(4 / 8 + 4 / 2)), rel=1e-6)


@pytest.mark.parametrize("prior", [BetaPrior(), GaussianPrior()])
@pytest.mark.parametrize("seed", range(5))
def test_sums_and_rows_and_halves_of_batches_agree(seed: int, prior: Any) -> None:
    rng = np.random.default_rng(seed)
    arm, reward = rng.choice(ARMS, 90), rng.random(90)
    rows = Thompson(arms=ARMS, prior=prior).updated(arm, reward)
    halves = Thompson(arms=ARMS, prior=prior).updated(arm[:37], reward[:37]).updated(arm[37:], reward[37:])
    sums = {a: (int((arm == a).sum()), reward[arm == a].sum(), (reward[arm == a] ** 2).sum()) for a in ARMS}
    summed = Thompson(arms=ARMS, prior=prior).updated_by_sums(
        {a: (n, float(s), float(q)) for a, (n, s, q) in sums.items()}
    )
    assert halves.shares() == pytest.approx(rows.shares(), abs=1e-10)
    assert summed.shares() == pytest.approx(rows.shares(), abs=1e-10)
    assert (rows.batch, halves.batch, summed.batch) == (1, 2, 1)


def test_moments_do_not_lose_digits_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    values = 1e9 + rng.normal(size=(1000, 2))
    merged = Moments.of(values[:300]).merged(Moments.of(values[300:]))
    assert np.array(merged.scatter) / 999 == pytest.approx(np.cov(values.T), abs=1e-6)
    assert merged.n == 1000


@pytest.mark.parametrize("minimum", [0.0, 0.1, {"old": 0.3}, {"old": 0.2, "newer": 0.05}])
def test_minimum_share_is_kept_and_mixed(minimum: Any) -> None:
    plain = _fed(1)
    kept = _fed(1, minimum_share=minimum)
    least = {arm: minimum.get(arm, 0.0) if isinstance(minimum, dict) else minimum for arm in ARMS}
    for arm, share in kept.shares().items():
        assert share >= least[arm]
        assert share == pytest.approx(least[arm] + (1 - sum(least.values())) * plain.probability_best()[arm])
    assert sum(kept.shares().values()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_shares_of_that_many_and_near_the_exact_ones(seed: int) -> None:
    drawn, exact = _fed(seed, draws=4000), _fed(seed)
    for arm, share in drawn.shares().items():
        assert share * 4000 == pytest.approx(round(share * 4000), abs=1e-9)
        p = exact.shares()[arm]
        assert abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / 4000)
        assert abs(drawn.expected_loss()[arm] - exact.expected_loss()[arm]) < 0.01
    assert drawn.shares() == drawn.shares()
    assert drawn.shares() != drawn.model_copy(update={"seed": seed + 1}).shares()


def test_many_arms_need_draws() -> None:
    arms = tuple(f"arm {i}" for i in range(60))
    with pytest.raises(ConfigurationError, match="set draws"):
        Thompson(arms=arms).shares()
    assert sum(Thompson(arms=arms, draws=1000).shares().values()) == pytest.approx(1)


def test_top_two_goes_on_trying_a_rival() -> None:
    arm, reward = ["old"] * 300 + ["new"] * 300 + ["newer"] * 30, [1, 0] * 150 + [1] * 250 + [0] * 50 + [1, 0] * 15
    plain = Thompson(arms=ARMS).updated(arm, reward).shares()
    both = Thompson(arms=ARMS, top_two=0.5).updated(arm, reward).shares()
    assert plain["new"] > 0.999
    assert both["new"] == pytest.approx(0.5, abs=1e-3)
    # The second is the arm that is least known, not the one with as bad a mean and ten times its rows.
    assert both["newer"] > 0.49


def test_units_are_divided_by_the_shares_anew_in_each_batch() -> None:
    allocator = Thompson(arms=ARMS, minimum_share=0.05).updated(["old"] * 6 + ["new"] * 6, [1] * 4 + [0] * 2 + [0] * 6)
    first, second = allocator.allocation(), allocator.updated([], []).allocation()
    units = [f"user-{i}" for i in range(6000)]
    one, two = ([a.assign(unit, "salt") for unit in units] for a in (first, second))
    counts = [sum(a.variant == arm for a in one) for arm in ARMS]
    expected = [6000 * first.shares[arm] for arm in ARMS]
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    for assignment in one[:20]:
        assert assignment.propensity == pytest.approx(first.shares[assignment.variant], abs=1e-15)
    assert first.shares == second.shares
    # Given the first batch's arm, the second one's still has its share.
    table = np.array(
        [[sum(a.variant == x and b.variant == y for a, b in zip(one, two, strict=True)) for y in ARMS] for x in ARMS]
    )
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_fixed_shares_do_not_move() -> None:
    allocator = Fixed(arms=ARMS, weights={"old": 2, "new": 1, "newer": 1})
    after = allocator.updated(["old", "new"], [1.0, 5.0]).updated_by_sums({"new": (3, 2.0, 2.0)})
    assert after.shares() == allocator.shares() == {"old": 0.5, "new": 0.25, "newer": 0.25}
    assert after.batch == 2
    assert allocator_from_dict(json.loads(json.dumps(after.to_dict()))) == after


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(ARMS), st.floats(0, 1)), min_size=0, max_size=30),
    st.sampled_from(["beta", "gaussian", "known"]),
    st.sampled_from([None, 0.5, 0.9]),
    st.sampled_from([None, 200]),
)
def test_state_comes_back_bit_for_bit(rows: Any, kind: str, top_two: Any, draws: Any) -> None:
    prior = {"beta": BetaPrior(successes=0.5), "gaussian": GaussianPrior(), "known": GaussianPrior(degrees=None)}[kind]
    arms, rewards = [a for a, _ in rows], [r for _, r in rows]
    allocator = Thompson(arms=ARMS, prior=prior, top_two=top_two, draws=draws, minimum_share={"new": 0.1}, seed=7)
    allocator = allocator.updated(arms, rewards)
    text = json.dumps(allocator.to_dict(), allow_nan=False)
    back = allocator_from_dict(json.loads(text))
    assert isinstance(back, Thompson)
    assert back == allocator
    assert json.dumps(back.to_dict()) == text
    assert list(back.shares().values()) == list(allocator.shares().values())
    assert back.updated(["old"], [0.3]).to_dict() == allocator.updated(["old"], [0.3]).to_dict()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"arms": ("a",)}, "arms"),
        ({"arms": ("a", "a")}, "arms"),
        ({"minimum_share": 0.6}, "minimum_share"),
        ({"minimum_share": {"c": 0.1}}, "minimum_share"),
        ({"top_two": 0.0}, "top_two"),
        ({"draws": 5}, "draws"),
        ({"seed": -1}, "seed"),
        ({"speed": 1}, "speed"),
        ({"schema_version": 2}, "schema_version"),
        ({"moments": (Moments.empty(),)}, "moments"),
        ({"prior": {"kind": "cauchy"}}, "prior"),
    ],
)
def test_impossible_options_name_their_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Thompson(**{"arms": ("a", "b"), **options})
    assert str(caught.value.field).startswith(field)


@pytest.mark.parametrize(
    ("arm", "reward", "message"),
    [
        (["a"], [1.5], r"within \[0, 1\]"),
        (["a", "c"], [1, 0], "arms are a, b"),
        (["a"], [float("nan")], "finite"),
        (["a", "b"], [1], "one arm and one row"),
        (["a"], [[1, 0]], "one number per row"),
        (["a"], ["x"], "numbers"),
    ],
)
def test_impossible_rows_are_refused(arm: Any, reward: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Thompson(arms=("a", "b")).updated(arm, reward)


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        ({"c": (1, 1.0, 1.0)}, "arms are a, b"),
        ({"a": (2, 4.0, 8.0)}, r"expected \[0, 1\]"),
        ({"a": (2, 1.0, 0.1)}, "less than 2 rewards"),
        ({"a": (0, 1.0, 1.0)}, "a count"),
        ({"a": (-1, 1.0, 1.0)}, "a count"),
        ({"a": (1, float("nan"), 1.0)}, "finite"),
    ],
)
def test_impossible_sums_are_refused(sums: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Thompson(arms=("a", "b")).updated_by_sums(sums)


@pytest.mark.parametrize(
    "document", [3, {}, {"kind": "ucb"}, {"kind": "thompson"}, {"kind": "thompson", "arms": ["a", 3]}]
)
def test_states_that_are_none_are_refused(document: Any) -> None:
    with pytest.raises(InvalidInputError):
        allocator_from_dict(document)


def test_fixed_weights_must_fit() -> None:
    for weights in ({"old": 1}, {"old": 0, "new": 0, "newer": 0}, {"old": -1, "new": 1, "newer": 1}):
        with pytest.raises(InvalidInputError, match="weights"):
            Fixed(arms=ARMS, weights=weights)
