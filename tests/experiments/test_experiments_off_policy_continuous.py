from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.experiments.continuous import CONTINUOUS_ESTIMATORS, cross_fitted_values, estimate_continuous
from rlaas.experiments.off_policy import Estimate, estimate
from rlaas.exploration import BoxHead

HEAD = BoxHead([-1.0], [1.0], deterministic=False)
EPSILON = 0.2


def _outputs(
    context: NDArray[np.float64], shift: float, slope: float, log_std: float
) -> dict[str, NDArray[np.float32]]:
    mean = (shift + slope * context)[:, None].astype(np.float32)
    return {"mean": mean, "log_std": np.full_like(mean, log_std)}


def _logging(context: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    return _outputs(context, -0.2, 0.3, -0.9)


def _evaluation(context: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    return _outputs(context, 0.25, 0.6, -0.6)


def _mean_reward(context: Any, action: Any) -> Any:
    return 1.5 + action - (action - 0.7 * context) ** 2 + 0.1 * np.sin(4 * action)


class Log(NamedTuple):
    context: NDArray[np.float64]
    action: NDArray[np.float64]
    reward: NDArray[np.float64]
    logged: NDArray[np.float64]
    asked: NDArray[np.float64]


def _log(n: int, seed: int, epsilon: float = EPSILON) -> Log:
    """Contexts are -1, 0 or 1, so that the value is three integrals."""
    rng = np.random.default_rng(seed)
    context = rng.integers(-1, 2, n).astype(float)
    action, logged = HEAD.act(_logging(context), rng, epsilon)
    assert logged is not None
    asked = HEAD.propensities(_evaluation(context), action, 0.0, greedy=False)
    return Log(context, action, _mean_reward(context, action[:, 0]) + rng.normal(0, 0.3, n), logged, asked)


def _value() -> float:
    """By quadrature over the normal before the tanh."""
    total = 0.0
    for context in (-1.0, 0.0, 1.0):
        normal = stats.norm(0.25 + 0.6 * context, math.exp(-0.6))
        total += integrate.quad(lambda u, c=context, d=normal: _mean_reward(c, np.tanh(u)) * d.pdf(u), -8, 8)[0] / 3
    return total


VALUE = _value()


def _model(log: Log, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng([seed, 1])
    drawn = [HEAD.act(_evaluation(log.context), rng, 0.0)[0] for _ in range(8)]
    return cross_fitted_values(log.context[:, None], log.action, log.reward, np.stack(drawn, axis=1), seed=seed)


def _estimates(log: Log, seed: int) -> dict[str, Estimate]:
    predicted, direct = _model(log, seed)
    found = {}
    for name in CONTINUOUS_ESTIMATORS:
        model = {"predicted": predicted, "direct": direct} if name in ("dr", "sndr") else {}
        found[name] = estimate_continuous(log.reward, log.logged, log.asked, estimator=name, **model)
    return found


RUNS = 400


@pytest.fixture(scope="module")
def repeated() -> dict[str, list[Estimate]]:
    found: dict[str, list[Estimate]] = {name: [] for name in CONTINUOUS_ESTIMATORS}
    for seed in range(RUNS):
        for name, one in _estimates(_log(400, seed), seed).items():
            found[name].append(one)
    return found


@pytest.mark.parametrize("name", CONTINUOUS_ESTIMATORS)
def test_intervals_hold_the_value_that_quadrature_gives(repeated: dict[str, list[Estimate]], name: str) -> None:
    values = np.array([e.value for e in repeated[name]])
    assert abs(values.mean() - VALUE) < 4 * values.std(ddof=1) / math.sqrt(RUNS)
    hits = sum(e.low <= VALUE <= e.high for e in repeated[name])
    assert stats.binom.ppf(1e-4, RUNS, 0.95) <= hits <= stats.binom.isf(1e-4, RUNS, 0.97)
    assert np.mean([e.standard_error for e in repeated[name]]) == pytest.approx(values.std(ddof=1), rel=0.12)


def test_a_model_and_normalising_take_variance_away(repeated: dict[str, list[Estimate]]) -> None:
    spread = {name: float(np.std([e.value for e in found])) for name, found in repeated.items()}
    assert spread["ipw"] > 1.2 * spread["snipw"] > 1.2 * spread["dr"]
    assert spread["dr"] == pytest.approx(spread["sndr"], rel=0.1)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_densities_and_log_densities_agree(seed: int) -> None:
    log = _log(80, seed)
    for name in ("ipw", "snipw"):
        other = estimate(log.reward, np.exp(log.logged), np.exp(log.asked), estimator=name)
        found = estimate_continuous(log.reward, log.logged, log.asked, estimator=name)
        for field in ("value", "standard_error", "low", "high", "effective_sample_size", "largest_weight"):
            assert getattr(found, field) == pytest.approx(getattr(other, field), rel=1e-9)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), level=st.floats(-3, 3))
def test_the_logging_policy_itself_and_a_model_that_says_nothing(seed: int, level: float) -> None:
    log = _log(60, seed)
    same = {name: estimate_continuous(log.reward, log.logged, log.logged, estimator=name) for name in ("ipw", "snipw")}
    for found in same.values():
        assert found.value == pytest.approx(log.reward.mean())
        assert found.effective_sample_size == pytest.approx(60)
    flat = {"predicted": np.full(60, level), "direct": np.full(60, level)}
    plain = estimate_continuous(log.reward, log.logged, log.asked)
    levelled = estimate_continuous(log.reward, log.logged, log.asked, estimator="sndr", **flat)
    assert levelled.value == pytest.approx(plain.value)
    assert levelled.standard_error == pytest.approx(plain.standard_error)


def test_units_count_as_one() -> None:
    log = _log(300, 1)
    unit = np.repeat(np.arange(100), 3)
    thrice = Log(*(np.repeat(column[:100], 3, axis=0) for column in log))
    once = estimate_continuous(*(column[:100] for column in (log.reward, log.logged, log.asked)))
    by_unit = estimate_continuous(thrice.reward, thrice.logged, thrice.asked, unit=unit)
    assert by_unit.value == pytest.approx(once.value)
    assert by_unit.standard_error == pytest.approx(once.standard_error)
    by_row = estimate_continuous(thrice.reward, thrice.logged, thrice.asked)
    assert by_row.standard_error < 0.7 * once.standard_error


def test_no_overlap_no_estimate() -> None:
    log = _log(2_000, 2, epsilon=0.0)
    far = HEAD.propensities(_outputs(log.context, 3.0, 0.0, -3.0), log.action, 0.0, greedy=False)
    for name in ("ipw", "snipw"):
        with pytest.raises(InvalidInputError, match=r"no overlap: .* exploration \(epsilon > 0\)") as caught:
            estimate_continuous(log.reward, log.logged, far, estimator=name)
        assert caught.value.field == "evaluation_log_density"
    with pytest.raises(InvalidInputError, match="no overlap: none of the 2000 logged actions"):
        estimate_continuous(log.reward, log.logged, np.full(2_000, -np.inf))
    # With a uniform share in the log there is some, and the effective sample says how little.
    explored = _log(2_000, 2, epsilon=0.5)
    far = HEAD.propensities(_outputs(explored.context, 0.9, 0.0, -2.5), explored.action, 0.0, greedy=False)
    found = estimate_continuous(explored.reward, explored.logged, far)
    assert 20 < found.effective_sample_size < 200
    assert found.largest_weight <= math.exp(far.max()) / (0.5 / 2) + 1e-9


def test_a_log_of_a_deterministic_policy_is_refused() -> None:
    log = _log(50, 3)
    with pytest.raises(InvalidInputError, match=r"missing in 50 of 50 rows.*deterministic") as caught:
        estimate_continuous(log.reward, [None] * 50, log.asked)
    assert caught.value.field == "log_density"


def test_densities_of_another_box_are_refused() -> None:
    log = _log(2_000, 4)
    with pytest.raises(InvalidInputError, match=r"average .* instead of 1"):
        estimate_continuous(log.reward, log.logged - 2.0, log.asked)


def test_no_row_is_predicted_by_a_model_that_saw_it() -> None:
    log = _log(90, 5)
    unit = np.arange(90) // 3
    arguments = (log.context[:, None], log.action, log.reward, log.action)
    before = cross_fitted_values(*arguments, unit=unit, seed=1)
    np.testing.assert_allclose(before[0], before[1])  # asked about the logged actions themselves
    changed = log.reward.copy()
    changed[31] += 5.0
    after = cross_fitted_values(log.context[:, None], log.action, changed, log.action, unit=unit, seed=1)
    assert (after[0][unit == unit[31]] == before[0][unit == unit[31]]).all()
    assert (after[0] != before[0]).any()


def test_the_model_recovers_a_quadratic() -> None:
    rng = np.random.default_rng(6)
    x, action = rng.normal(size=(500, 2)), rng.uniform(-1, 1, (500, 2))
    reward = 1 + x @ [0.5, -1] + action[:, 0] * action[:, 1] - action[:, 1] ** 2 + x[:, 0] * action[:, 0]
    drawn = rng.uniform(-1, 1, (500, 3, 2))
    predicted, direct = cross_fitted_values(x, action, reward, drawn, ridge=1e-6)
    np.testing.assert_allclose(predicted, reward, atol=1e-4)
    wanted = 1 + x @ [0.5, -1] + (drawn[..., 0] * drawn[..., 1] - drawn[..., 1] ** 2).mean(axis=1)
    np.testing.assert_allclose(direct, wanted + x[:, 0] * drawn[..., 0].mean(axis=1), atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"estimator": "dm"}, "estimator", "allowed: dr, ipw, sndr, snipw"),
        ({"confidence": 1.0}, "confidence", r"in \(0, 1\)"),
        ({"log_density": [0.0] * 3}, "evaluation_log_density", r"expected \(n,\) for both"),
        ({"log_density": [-math.inf] * 50}, "log_density", r"log_density\[0\] is -inf"),
        ({"log_density": [-900.0] * 50}, "log_density", r"at most 1e\+60"),
        ({"evaluation_log_density": [math.nan] * 50}, "evaluation_log_density", "or -inf for never"),
        ({"evaluation_log_density": [math.inf] * 50}, "evaluation_log_density", "or -inf for never"),
        ({"predicted": [0.0] * 50}, "predicted", "has no model"),
        ({"estimator": "dr", "predicted": [0.0] * 50}, "direct", "needs direct"),
        ({"estimator": "dr", "predicted": [0.0] * 50, "direct": [0.0]}, "direct", r"expected \(50,\)"),
        ({"reward": [1.0]}, "reward", "at least 2"),
        ({"reward": [math.nan] * 50}, "reward", "finite"),
    ],
)
def test_bad_input_names_the_field(changed: dict[str, Any], field: str, says: str) -> None:
    log = _log(50, 7)
    arguments = {"reward": log.reward, "log_density": log.logged, "evaluation_log_density": log.asked} | changed
    with pytest.raises((InvalidInputError, ConfigurationError), match=says) as caught:
        estimate_continuous(**arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"folds": 1}, "folds"),
        ({"folds": 60}, "folds"),
        ({"ridge": 0.0}, "ridge"),
        ({"seed": -1}, "seed"),
        ({"evaluation_action": np.zeros((50, 2))}, "evaluation_action"),
        ({"action": np.full((50, 1), np.nan)}, "action"),
        ({"features": np.zeros((3, 1))}, "features"),
    ],
)
def test_bad_options_of_the_model_say_so(changed: dict[str, Any], field: str) -> None:
    log = _log(50, 8)
    arguments: dict[str, Any] = {"features": None, "action": log.action, "evaluation_action": log.action} | changed
    with pytest.raises((InvalidInputError, ConfigurationError)) as caught:
        cross_fitted_values(reward=log.reward, **arguments)
    assert caught.value.field == field
