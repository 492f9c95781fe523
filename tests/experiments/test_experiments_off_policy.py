from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.experiments.off_policy import BIASED, ESTIMATORS, GRID, MODEL_FREE, TUNED, Estimate, EstimatorName, estimate
from rlaas.experiments.reward_model import cross_fitted_prediction, fit_reward_model

CONTEXTS, ACTIONS = 3, 5


class World(NamedTuple):
    """A bandit whose every probability is known, so that the value of a policy is a sum, not an estimate."""

    context: NDArray[np.float64]  # [CONTEXTS]
    logging: NDArray[np.float64]  # [CONTEXTS, ACTIONS]
    evaluation: NDArray[np.float64]
    mean: NDArray[np.float64]

    @property
    def value(self) -> float:
        return float(self.context @ (self.evaluation * self.mean).sum(axis=1))


class Log(NamedTuple):
    context: NDArray[np.int64]
    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    propensity: NDArray[np.float64]


def _world() -> World:
    rng = np.random.default_rng(11)
    logging = rng.dirichlet(np.full(ACTIONS, 3.0), CONTEXTS)
    evaluation = rng.dirichlet(np.full(ACTIONS, 1.5), CONTEXTS)
    return World(np.array([0.5, 0.3, 0.2]), logging, evaluation, rng.uniform(0.5, 0.95, (CONTEXTS, ACTIONS)))


WORLD = _world()


def _log(n: int, seed: int, world: World = WORLD) -> Log:
    rng = np.random.default_rng(seed)
    context = rng.choice(CONTEXTS, n, p=world.context)
    edges = world.logging.cumsum(axis=1)[context]
    action = np.minimum((rng.random(n)[:, None] > edges).sum(axis=1), ACTIONS - 1)
    reward = (rng.random(n) < world.mean[context, action]).astype(float)
    return Log(context, action, reward, world.logging[context, action])


def _estimate(log: Log, name: EstimatorName, prediction: Any = None, **options: Any) -> Estimate:
    return estimate(
        log.reward,
        log.propensity,
        WORLD.evaluation[log.context],
        estimator=name,
        action=log.action,
        prediction=prediction,
        **options,
    )


def _wrong_model(log: Log) -> NDArray[np.float64]:
    return WORLD.mean[log.context] * 0.5 + 0.15


SEEDS = 600
ROWS = 500


@pytest.fixture(scope="module")
def repeated() -> dict[str, list[Estimate]]:
    """Every estimator on many logs of the same world, with a wrong model (``name``) and the true one (``name*``)."""
    found: dict[str, list[Estimate]] = {}
    for seed in range(SEEDS):
        log = _log(ROWS, seed)
        wrong, true = _wrong_model(log), WORLD.mean[log.context]
        for name in ESTIMATORS:
            if name in MODEL_FREE:
                found.setdefault(name, []).append(_estimate(log, name))
                continue
            options = {"parameter": 1.0} if name in TUNED else {}
            found.setdefault(name, []).append(_estimate(log, name, wrong, **options))
            found.setdefault(f"{name}*", []).append(_estimate(log, name, true, **options))
    return found


def _values(estimates: list[Estimate]) -> NDArray[np.float64]:
    return np.array([e.value for e in estimates])


@pytest.mark.parametrize("name", ["ipw", "snipw", "dr", "sndr", "dm*", "dr*", "sndr*", "switch_dr*", "dros*"])
def test_unbiased_where_weights_or_model_are_right(repeated: dict[str, list[Estimate]], name: str) -> None:
    values = _values(repeated[name])
    error = values.std(ddof=1) / math.sqrt(SEEDS)
    # Ratios have a bias of order 1 / n, which is below this error.
    assert abs(values.mean() - WORLD.value) < 4 * error


def test_shrinking_towards_a_wrong_model_keeps_a_part_of_its_bias(repeated: dict[str, list[Estimate]]) -> None:
    bias = {name: float(WORLD.value - _values(repeated[name]).mean()) for name in ("dm", "switch_dr", "dros", "dr")}
    assert bias["dm"] > bias["switch_dr"] > bias["dr"] + 0.005
    assert bias["dm"] > bias["dros"] > bias["dr"] + 0.005


@pytest.mark.parametrize("name", ["ipw", "snipw", "dr", "sndr", "dr*", "sndr*"])
def test_intervals_cover_at_their_level(repeated: dict[str, list[Estimate]], name: str) -> None:
    hits = sum(e.low <= WORLD.value <= e.high for e in repeated[name])
    # 1e-4 either way of a binomial at 95 %.
    assert stats.binom.ppf(1e-4, SEEDS, 0.95) <= hits <= stats.binom.isf(1e-4, SEEDS, 0.95)


@pytest.mark.parametrize("name", ["dm", "switch_dr", "dros", "dm*", "switch_dr*", "dros*"])
def test_intervals_cover_even_where_the_value_leans_on_a_wrong_model(
    repeated: dict[str, list[Estimate]], name: str
) -> None:
    hits = sum(e.low <= WORLD.value <= e.high for e in repeated[name])
    assert hits >= stats.binom.ppf(1e-4, SEEDS, 0.95)
    assert all(e.low <= e.value <= e.high for e in repeated[name])
    # Alone, the spread of these values would promise what it cannot hold.
    alone = sum(abs(e.value - WORLD.value) <= 2 * e.standard_error for e in repeated[name])
    assert (alone < 0.05 * SEEDS) == (not name.endswith("*"))


@pytest.mark.parametrize("name", ["ipw", "snipw", "dr", "sndr", "dr*", "dm*"])
def test_standard_error_is_the_spread_over_logs(repeated: dict[str, list[Estimate]], name: str) -> None:
    spread = _values(repeated[name]).std(ddof=1)
    assert np.mean([e.standard_error for e in repeated[name]]) == pytest.approx(spread, rel=0.1)


def test_variance_falls_in_the_order_that_theory_gives(repeated: dict[str, list[Estimate]]) -> None:
    spread = {name: float(_values(estimates).std(ddof=1)) for name, estimates in repeated.items()}
    assert spread["ipw"] > 1.2 * spread["snipw"]  # rewards well above 0: the normalised weights cancel their level
    assert spread["ipw"] > 1.2 * spread["dr"] > 1.2 * spread["dr*"]
    assert spread["dr*"] > spread["dros*"] > spread["dm*"]
    assert spread["dr"] > spread["dros"]


@pytest.mark.parametrize("name", ["ipw", "snipw", "dr", "sndr"])
def test_consistent(name: EstimatorName) -> None:
    log = _log(400_000, 1)
    found = _estimate(log, name, _wrong_model(log))
    assert found.value == pytest.approx(WORLD.value, abs=4 * found.standard_error)
    assert found.standard_error < 0.003


def test_self_normalised_agrees_with_weighted_least_squares() -> None:
    log = _log(400, 3)
    weight = WORLD.evaluation[log.context, log.action] / log.propensity
    fit = sm.WLS(log.reward, np.ones(400), weights=weight).fit(cov_type="HC1")
    found = _estimate(log, "snipw")
    assert found.value == pytest.approx(fit.params[0], rel=1e-12)
    assert found.standard_error == pytest.approx(fit.bse[0], rel=1e-9)
    unit = np.random.default_rng(0).integers(0, 80, 400)
    clustered = sm.WLS(log.reward, np.ones(400), weights=weight).fit(
        cov_type="cluster", cov_kwds={"groups": unit, "use_correction": False}
    )
    by_unit = _estimate(log, "snipw", unit=unit)
    n_units = len(np.unique(unit))
    assert by_unit.standard_error == pytest.approx(clustered.bse[0] * math.sqrt(n_units / (n_units - 1)), rel=1e-9)


def test_means_of_rows_agree_with_statsmodels() -> None:
    log = _log(400, 4)
    q = _wrong_model(log)
    probability = WORLD.evaluation[log.context]
    weight = probability[np.arange(400), log.action] / log.propensity
    residual = log.reward - q[np.arange(400), log.action]
    direct = (probability * q).sum(axis=1)
    lam, tau = 2.5, 1.3
    pseudo: dict[EstimatorName, NDArray[np.float64]] = {
        "dm": direct,
        "ipw": weight * log.reward,
        "dr": direct + weight * residual,
        "switch_dr": direct + weight * (weight <= tau) * residual,
        "dros": direct + lam * weight / (weight**2 + lam) * residual,
    }
    for name, rows in pseudo.items():
        options = {"switch_dr": {"parameter": tau}, "dros": {"parameter": lam}}.get(name, {})
        found, other = _estimate(log, name, q, **options), DescrStatsW(rows)
        assert found.value == pytest.approx(other.mean, rel=1e-12)
        assert found.standard_error == pytest.approx(other.std_mean, rel=1e-9)
        interval = DescrStatsW(pseudo["dr"] if name in BIASED else rows).tconfint_mean()
        stretched = (min(interval[0], other.mean), max(interval[1], other.mean))
        assert (found.low, found.high) == pytest.approx(stretched, rel=1e-9)
        assert found.effective_sample_size == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
        assert found.largest_weight == weight.max()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_ends_of_the_tuned_families_are_dr_and_dm(seed: int) -> None:
    log = _log(60, seed)
    q = _wrong_model(log)
    for name in TUNED:
        for parameter, end in ((math.inf, "dr"), (0.0, "dm")):
            found = _estimate(log, name, q, parameter=parameter)
            assert found.value == pytest.approx(_estimate(log, end, q).value, abs=1e-12)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-5, 5))
def test_evaluating_the_logging_policy_gives_the_mean_reward(seed: int, shift: float) -> None:
    log = _log(60, seed)
    reward = log.reward + shift
    for name in MODEL_FREE:
        found = estimate(reward, log.propensity, log.propensity, estimator=name)
        assert found.value == pytest.approx(reward.mean(), abs=1e-9)
        assert found.effective_sample_size == pytest.approx(60)
    # A model that knows the rewards leaves nothing to weigh.
    moved = _estimate(log._replace(reward=reward), "snipw")
    assert moved.value == pytest.approx(_estimate(log, "snipw").value + shift, abs=1e-9)


def test_one_probability_per_row_and_the_whole_distribution_agree() -> None:
    log = _log(100, 5)
    of_logged = WORLD.evaluation[log.context, log.action]
    for name in MODEL_FREE:
        assert estimate(log.reward, log.propensity, of_logged, estimator=name) == _estimate(log, name)


def test_slope_leaves_a_wrong_model_and_keeps_a_right_one() -> None:
    log = _log(20_000, 6)
    far = np.full((20_000, ACTIONS), 3.0)
    for name in TUNED:
        wrong = _estimate(log, name, far)
        assert wrong.parameter is not None
        # What bias is left is within what the two doubled intervals cannot tell apart.
        unbiased = _estimate(log, "dr", far)
        assert abs(wrong.value - unbiased.value) <= 2 * 1.96 * (wrong.standard_error + unbiased.standard_error) * 1.01
        assert wrong.parameter >= 3.0
        assert _estimate(log, name, WORLD.mean[log.context]).parameter == min(GRID)


def test_result_is_plain_json() -> None:
    log = _log(50, 7)
    found = _estimate(log, "dros", _wrong_model(log), parameter=math.inf).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False))["parameter"] == "inf"
    assert set(found) == set(Estimate.__dataclass_fields__)


def _call(**changed: Any) -> dict[str, Any]:
    log = _log(400, 8)
    given_: dict[str, Any] = {
        "reward": log.reward,
        "propensity": log.propensity,
        "evaluation_probability": WORLD.evaluation[log.context],
        "action": log.action,
        "prediction": WORLD.mean[log.context],
        "estimator": "dr",
    }
    return given_ | changed


def _with(values: NDArray[np.float64], row: int, value: float) -> NDArray[np.float64]:
    copy = values.copy()
    copy[row] = value
    return copy


PROPENSITY = _call()["propensity"]
DISTRIBUTION = _call()["evaluation_probability"]


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"propensity": [None] * 400}, "propensity", "missing in 400 of 400 rows.*deterministic"),
        ({"propensity": _with(PROPENSITY, 7, np.nan)}, "propensity", "missing in 1 of 400 rows, such as 7"),
        ({"propensity": _with(PROPENSITY, 7, 0.0)}, "propensity", r"propensity\[7\] is 0.0"),
        ({"propensity": PROPENSITY[:9]}, "propensity", r"expected \(400,\)"),
        ({"propensity": ["much"] * 400}, "propensity", "must hold numbers"),
        ({"evaluation_probability": DISTRIBUTION * 1.1}, "evaluation_probability", "sums to 1.1"),
        ({"evaluation_probability": -DISTRIBUTION}, "evaluation_probability", ">= 0"),
        ({"evaluation_probability": DISTRIBUTION[:5]}, "evaluation_probability", r"\(400,\) or \(400, n_actions\)"),
        ({"evaluation_probability": DISTRIBUTION[:, 0]}, "evaluation_probability", "one column per action"),
        ({"action": None}, "action", "needs the logged action"),
        ({"action": np.zeros(3, dtype=int)}, "action", "3 rows; expected 400"),
        ({"action": np.full(400, ACTIONS)}, "action", "expected 0 to 4"),
        ({"action": np.zeros(400)}, "action", "whole numbers"),
        ({"action": np.zeros((400, 1), dtype=int)}, "action", r"expected \(n,\)"),
        ({"prediction": None}, "prediction", "use ipw or snipw"),
        ({"prediction": np.full((400, ACTIONS), np.nan)}, "prediction", "finite"),
        ({"reward": [1.0]}, "reward", "at least 2"),
        ({"reward": np.full(400, np.inf)}, "reward", "finite"),
        ({"unit": np.zeros(400)}, "unit", "at least 2 units"),
        ({"unit": [1, 2]}, "unit", "one per row"),
        ({"estimator": "best"}, "estimator", "allowed: dm, dr, dros, ipw"),
        ({"parameter": 1.0}, "parameter", "switch_dr or dros only"),
        ({"estimator": "dros", "parameter": -1.0}, "parameter", ">= 0"),
        ({"estimator": "dros", "parameter": math.nan}, "parameter", ">= 0"),
        ({"confidence": 1.0}, "confidence", r"in \(0, 1\)"),
        ({"logging_probability": np.ones(4)}, "logging_probability", r"expected \(400, 5\)"),
        ({"logging_probability": np.full((400, 5), 0.2)}, "logging_probability", "disagrees"),
    ],
)
def test_bad_input_names_the_field(changed: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises((InvalidInputError, ConfigurationError), match=says) as caught:
        estimate(**_call(**changed))
    assert caught.value.field == field


def test_an_action_that_the_log_cannot_take_is_refused() -> None:
    logging = WORLD.logging.copy()
    logging[1] = [0.5, 0.5, 0.0, 0.0, 0.0]
    log = _log(300, 9, WORLD._replace(logging=logging))
    of_all = logging[log.context]
    with pytest.raises(InvalidInputError, match=r"takes action 2 with probability .* never takes") as caught:
        _estimate(log, "ipw", logging_probability=of_all)
    assert caught.value.field == "evaluation_probability"
    covered = np.where(of_all > 0, 0.2, 0.0)
    covered /= covered.sum(axis=1, keepdims=True)
    found = estimate(
        log.reward, log.propensity, covered, action=log.action, logging_probability=of_all, estimator="ipw"
    )
    assert found.n == 300


def test_weights_that_no_sound_log_has_are_refused() -> None:
    log = _log(2000, 10)
    with pytest.raises(InvalidInputError, match=r"does not cover.*average 0 instead of 1.*100%"):
        estimate(log.reward, log.propensity, np.zeros(2000))
    # Half of what the policy would do is never logged.
    with pytest.raises(InvalidInputError, match=r"does not cover the evaluation policy: the weights average 0.5"):
        estimate(log.reward, log.propensity, log.propensity * 0.5)
    with pytest.raises(InvalidInputError, match="average 2 instead of 1: propensity or") as caught:
        estimate(log.reward, log.propensity / 2, log.propensity)
    assert caught.value.field == "propensity"


def test_reward_model_agrees_with_statsmodels_where_the_penalty_vanishes() -> None:
    rng = np.random.default_rng(12)
    x, action = rng.normal(size=(800, 2)), rng.integers(0, 3, 800)
    level = -0.5 + x @ [0.8, -0.4] + np.array([0.0, 0.5, -0.7])[action]
    reward = (rng.random(800) < 1 / (1 + np.exp(-level))).astype(float)
    design = np.hstack([(action[:, None] == np.arange(3)).astype(float), x])
    logit = sm.Logit(reward, design).fit(disp=0)
    # The intercept and the effects of the actions are one number too many: only their sums are determined.
    model = fit_reward_model(x, action, reward, n_actions=3, ridge=1e-7)
    assert model.intercept + model.action_effect == pytest.approx(logit.params[:3], abs=1e-4)
    assert model.feature_effect == pytest.approx(logit.params[3:], abs=1e-4)
    chosen = model.predict(x)[np.arange(800), action]
    assert chosen == pytest.approx(logit.predict(design), abs=1e-4)
    ols = sm.OLS(reward, design).fit()
    linear = fit_reward_model(x, action, reward, n_actions=3, ridge=1e-7, link="linear")
    assert linear.predict(x)[np.arange(800), action] == pytest.approx(ols.fittedvalues, abs=1e-5)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), ridge=st.floats(0.01, 100), link=st.sampled_from(["logistic", "linear"]))
def test_reward_model_is_a_stationary_point_of_its_penalised_likelihood(seed: int, ridge: float, link: Any) -> None:
    rng = np.random.default_rng(seed)
    x, action = rng.normal(size=(80, 3)), rng.integers(0, 6, 80)
    reward = rng.integers(0, 2, 80).astype(float)
    model = fit_reward_model(x, action, reward, n_actions=6, ridge=ridge, link=link)
    residual = reward - model.predict(x)[np.arange(80), action]
    by_action = np.bincount(action, weights=residual, minlength=6)
    assert by_action == pytest.approx(ridge * model.action_effect, abs=1e-3)
    assert x.T @ residual == pytest.approx(ridge * model.feature_effect, abs=1e-3)
    assert residual.sum() == pytest.approx(0, abs=1e-3)


def test_unseen_actions_get_the_common_level_and_one_sided_rewards_stay_finite() -> None:
    action = np.array([0, 0, 1, 1])
    model = fit_reward_model(None, action, [1.0, 0.0, 1.0, 0.0], n_actions=3)
    assert model.predict(np.zeros((1, 0)))[0] == pytest.approx([0.5, 0.5, 0.5])
    for level in (0.0, 1.0):
        found = fit_reward_model(None, action, np.full(4, level), n_actions=3).predict(np.zeros((1, 0)))
        assert np.isfinite(found).all()
        assert (abs(found - level) < 0.2).all()


def test_no_row_is_predicted_by_a_model_that_saw_it() -> None:
    rng = np.random.default_rng(13)
    action, reward = rng.integers(0, 4, 60), rng.integers(0, 2, 60).astype(float)
    row = np.arange(60) // 2
    prediction = cross_fitted_prediction(None, action, reward, n_actions=4, row=row, seed=1)
    for changed in (0, 31):
        other = reward.copy()
        other[changed] = 1 - other[changed]
        moved = cross_fitted_prediction(None, action, other, n_actions=4, row=row, seed=1)
        assert (moved[row == row[changed]] == prediction[row == row[changed]]).all()
        assert (moved != prediction).any()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"folds": 1}, "at least 2"),
        ({"folds": 9}, "4 distinct rows cannot be split into 9 folds"),
        ({"row": [1, 2]}, r"expected \(4,\)"),
        ({"ridge": 0.0}, "ridge is 0.0"),
        ({"link": "probit"}, "unknown link 'probit'; allowed: linear, logistic"),
        ({"reward": [0.0, 1.0, 2.0, 0.0]}, "use link='linear'"),
        ({"features": np.zeros((3, 1))}, "features has shape"),
    ],
)
def test_bad_options_of_the_reward_model_say_so(changed: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {
        "features": None,
        "action": np.array([0, 1, 0, 1]),
        "reward": [0.0, 1.0, 1.0, 0.0],
        "n_actions": 2,
        "folds": 2,
    }
    with pytest.raises((InvalidInputError, ConfigurationError), match=says):
        cross_fitted_prediction(**(arguments | changed))
