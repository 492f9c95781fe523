from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.experiments.allocation.objectives import ObjectiveThompson
from rlaas.experiments.allocation.priors import GaussianPrior
from rlaas.experiments.allocation.states import allocator_from_dict
from rlaas.experiments.allocation.thompson import Thompson
from rlaas.objectives import Mode, Objective, Preference, normalise

OBJECTIVES = (
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0.0, high=100.0),
    Objective(name="energy", unit="W", direction="minimize", low=200.0, high=1000.0),
)
ARMS = ("fast", "frugal", "both bad")
MEANS = np.array([[80.0, 800.0], [40.0, 300.0], [35.0, 850.0]])
MODES = {
    "peak": Preference.of(OBJECTIVES, [0.9, 0.1]),
    "night": Mode(name="night", preference=Preference.of(OBJECTIVES, [0.2, 0.8])),
}


def _outcomes(n: int, seed: int, arm: int) -> NDArray[np.float64]:
    noise = np.array([[400.0, 900.0], [900.0, 6400.0]])  # more throughput costs energy
    return np.random.default_rng([seed, arm]).multivariate_normal(MEANS[arm], noise, n)


def _fed(n: int, seed: int, traffic: Any = None, **options: Any) -> ObjectiveThompson:
    allocator = ObjectiveThompson.of(ARMS, OBJECTIVES, MODES, traffic or {"peak": 3, "night": 1}, **options)
    rows = np.concatenate([_outcomes(n, seed, arm) for arm in range(3)])
    return allocator.updated(np.repeat(ARMS, n), rows)


@pytest.mark.parametrize("seed", range(5))
def test_posterior_of_a_mode_agrees_with_draws_of_a_normal_inverse_wishart(seed: int) -> None:
    """Built from the textbook's formulas and scipy's distributions, then projected on the preference."""
    n, draws, rng = 6, 20_000, np.random.default_rng(seed)
    allocator = _fed(n, seed, prior_count=1.5, prior_degrees=3.0, prior_variance=0.1)
    weights = np.array(MODES["peak"].weights)  # type: ignore[union-attr]
    utility = []
    for arm in range(3):
        seen = normalise(OBJECTIVES, _outcomes(n, seed, arm))
        mean, prior, count = seen.mean(axis=0), np.full(2, 0.5), 1.5
        # nu0 - d + 1 = 3 degrees in each direction; Psi0 = degrees x variance x identity.
        nu, psi = 3.0 + 2 - 1 + n, 3.0 * 0.1 * np.eye(2)
        psi = psi + (seen - mean).T @ (seen - mean) + count * n / (count + n) * np.outer(mean - prior, mean - prior)
        sigma = stats.invwishart(nu, psi).rvs(draws, random_state=rng)
        centre = (count * prior + n * mean) / (count + n)
        noise = np.einsum("nij,nj->ni", np.linalg.cholesky(sigma / (count + n)), rng.standard_normal((draws, 2)))
        utility.append((centre + noise) @ weights)
    table = np.array(utility)
    means = allocator.means("peak")
    for arm in range(3):
        ours = stats.t(means.degrees[arm], means.location[arm], means.scale[arm])
        assert stats.kstest(table[arm], ours.cdf).pvalue > 1e-4
    verdict = allocator.verdicts()["peak"]
    sampled = np.bincount(table.argmax(axis=0), minlength=3) / draws
    for arm, share in zip(ARMS, sampled, strict=True):
        assert verdict.probability_best[arm] == pytest.approx(share, abs=4.5 * np.sqrt(0.25 / draws))


def test_one_objective_is_gaussian_thompson() -> None:
    only = (Objective(name="x", unit="", direction="maximize", low=0.0, high=1.0),)
    rng = np.random.default_rng(0)
    arm, x = rng.choice(ARMS, 60), rng.random(60)
    many = ObjectiveThompson.of(ARMS, only, {"all": Preference.uniform(only)}, {"all": 1.0}).updated(arm, x[:, None])
    one = Thompson(arms=ARMS, prior=GaussianPrior()).updated(arm, x)
    assert many.shares() == pytest.approx(one.shares(), abs=1e-12)
    assert many.verdicts()["all"].expected_loss == pytest.approx(one.expected_loss(), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_one_experiment_answers_for_every_mode(seed: int) -> None:
    """The mode without traffic learns too: its best arm is found by outcomes of the other one's decisions."""
    rng = np.random.default_rng(seed)
    allocator = ObjectiveThompson.of(ARMS, OBJECTIVES, MODES, {"peak": 1, "night": 0}, minimum_share=0.05)
    for _ in range(10):
        shares = np.array(list(allocator.shares().values()))
        arm = rng.choice(3, 60, p=shares / shares.sum())
        rows = MEANS[arm] + rng.multivariate_normal([0, 0], [[400.0, 900.0], [900.0, 6400.0]], 60)
        allocator = allocator.updated(np.array(ARMS)[arm], rows)
    verdicts = allocator.verdicts()
    assert (verdicts["peak"].best, verdicts["night"].best) == ("fast", "frugal")
    assert verdicts["night"].probability_best["frugal"] > 0.99
    assert verdicts["night"].expected_loss["frugal"] < 1e-3 < 0.1 < verdicts["night"].expected_loss["fast"]
    truth = normalise(OBJECTIVES, MEANS) @ np.array([0.2, 0.8])
    assert verdicts["night"].utility["fast"] == pytest.approx(truth[0], abs=0.05)
    assert allocator.shares()["fast"] > 0.85  # all traffic is of the peak
    assert json.loads(json.dumps(verdicts["peak"].to_dict()))["best"] == "fast"


def test_shares_mix_the_modes_by_their_traffic() -> None:
    allocator = _fed(4, 1, minimum_share={"both bad": 0.1})
    by_mode, mix = allocator.shares_by_mode(), allocator.shares()
    for arm in ARMS:
        assert mix[arm] == pytest.approx(0.75 * by_mode["peak"][arm] + 0.25 * by_mode["night"][arm], abs=1e-12)
    assert mix["both bad"] >= 0.1
    assert allocator.allocation().shares == mix
    assert allocator.allocation("night").shares == by_mode["night"]
    assert _fed(4, 1, top_two=0.5).shares() != _fed(4, 1).shares()


def test_state_comes_back_bit_for_bit() -> None:
    allocator = _fed(7, 3, top_two=0.6, minimum_share=0.02)
    text = json.dumps(allocator.to_dict(), allow_nan=False)
    back = allocator_from_dict(json.loads(text))
    assert isinstance(back, ObjectiveThompson)
    assert back == allocator
    assert json.dumps(back.to_dict()) == text
    assert back.shares() == allocator.shares()
    rows = _outcomes(3, 9, 0)
    assert back.updated(["fast"] * 3, rows).to_dict() == allocator.updated(["fast"] * 3, rows).to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"traffic": {"peak": 1.0}}, "traffic"),
        ({"traffic": {"peak": 0.5, "night": 0.2}}, "traffic"),
        ({"modes": {"peak": [0.5, 0.4], "night": [0, 1]}}, "modes.peak"),
        ({"modes": {"peak": [1.0], "night": [1.0]}}, "modes.peak"),
        ({"objectives": []}, "objectives"),
        ({"objectives": [{"name": "x", "colour": 1}]}, "objectives"),
        ({"moments": [{"n": 0, "mean": [0.0], "scatter": [[0.0]]}] * 3}, "moments"),
        ({"prior_degrees": 1.0}, "prior_degrees"),
    ],
)
def test_impossible_states_name_their_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        allocator_from_dict({**_fed(2, 0).to_dict(), **change})


def test_impossible_input_is_refused() -> None:
    allocator = _fed(2, 0)
    with pytest.raises(InvalidInputError, match="2 values per row: throughput, energy"):
        allocator.updated(["fast"], [[1.0]])
    with pytest.raises(InvalidInputError, match="unknown mode"):
        allocator.means("dusk")
    with pytest.raises(InvalidInputError, match=r"modes\.day weighs a, b"):
        ObjectiveThompson.of(ARMS, OBJECTIVES, {"day": Preference.uniform(("a", "b"))}, {"day": 1})
    with pytest.raises(InvalidInputError, match="traffic"):
        ObjectiveThompson.of(ARMS, OBJECTIVES, MODES, {"dusk": 1})
