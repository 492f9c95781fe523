from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
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
    # 1e-4 either way of a binomial at 95 %; what is added for skewness may cover a little more.
    assert stats.binom.ppf(1e-4, SEEDS, 0.95) <= hits <= stats.binom.isf(1e-4, SEEDS, 0.965)


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
        # Where no weight is heavy, next to nothing is added to Student's interval.
        assert found.low <= min(interval[0], other.mean) + 1e-9
        assert found.high >= max(interval[1], other.mean) - 1e-9
        assert found.high - found.low < 1.1 * (max(interval[1], other.mean) - min(interval[0], other.mean))
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
        (
            {"unit": np.arange(400.0) + np.where(np.arange(400) < 3, np.nan, 0)},
            "unit",
            "missing in 3 of 400 rows, such",
        ),
        ({"unit": ["a"] * 399 + [None]}, "unit", "missing in 1 of 400 rows, such as 399"),
        ({"unit": ["a"] * 399 + [math.nan]}, "unit", "missing in 1 of 400 rows, such as 399"),
        ({"unit": [pd.NA] * 400}, "unit", "without nulls"),
        ({"unit": np.array(["NaT"] * 400, dtype="datetime64[s]")}, "unit", "missing in 400"),
        ({"unit": [["a"], ["b", "c"]] * 200}, "unit", "text or numbers"),
        ({"propensity": _with(PROPENSITY, 7, 1e-320)}, "propensity", r"propensity\[7\] is 1e-320 .* at most 1e\+60"),
        ({"reward": np.full(400, 1e300)}, "reward", r"within \+-1e\+60"),
        ({"prediction": np.full((400, ACTIONS), -1e300)}, "prediction", r"within \+-1e\+60"),
        ({"reward": None}, "reward", "at least 2"),
        ({"reward": ["much"] * 400}, "reward", "must hold numbers"),
        ({"reward": [[1.0], [1.0, 2.0]]}, "reward", "regular array"),
        ({"reward": np.ones(400, dtype=complex)}, "reward", "must hold numbers, got complex128"),
        ({"reward": np.ma.masked_all(400)}, "reward", "masked"),
        ({"evaluation_probability": "all"}, "evaluation_probability", "must hold numbers"),
        ({"prediction": [["a"]]}, "prediction", "must hold numbers"),
        ({"logging_probability": {}}, "logging_probability", "must hold numbers"),
        ({"action": [[1], [1, 2]]}, "action", "one whole number per row"),
        ({"confidence": "high"}, "confidence", "expected a number"),
        ({"confidence": None}, "confidence", "expected a number"),
        ({"estimator": "dros", "parameter": "inf"}, "parameter", "expected a number"),
        ({"estimator": "dros", "parameter": 10**400}, "parameter", "beyond what a float holds"),
        ({"estimator": ["dr"]}, "estimator", "allowed: dm"),
        ({"reward_range": (1.0, 0.0)}, "reward_range", "lowest and the highest"),
        ({"reward_range": 1.0}, "reward_range", "lowest and the highest"),
        ({"reward_range": (0.0, 0.5)}, "reward", r"expected 0 to 0.5, the reward_range"),
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
    with pytest.raises(InvalidInputError, match=r"none of the 2000 logged actions .* does not cover") as nothing:
        estimate(log.reward, log.propensity, np.zeros(2000))
    assert nothing.value.field == "evaluation_probability"
    with pytest.raises(InvalidInputError, match="average 2 instead of 1: propensity or") as caught:
        estimate(log.reward, log.propensity / 2, log.propensity)
    assert caught.value.field == "propensity"
    # Where all probabilities are known, a mean below 1 has no excuse either.
    kept = np.flatnonzero(WORLD.evaluation[log.context, log.action] < log.propensity)
    some = Log(*(column[kept] for column in log))
    with pytest.raises(InvalidInputError, match="were not drawn by these probabilities") as biased:
        _estimate(some, "ipw", logging_probability=WORLD.logging[some.context])
    assert biased.value.field == "logging_probability"


def _rare(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Actions logged with probability .999 and .001, and their propensities."""
    action = (np.random.default_rng(seed).random(n) < 0.001).astype(np.int64)
    return action, np.array([0.999, 0.001])[action]


def test_a_sound_log_is_hardly_ever_refused() -> None:
    distributions = [np.array([0.5, 0.5]), np.array([0.999, 0.001]), np.array([0.9, 0.1])]
    for seed in range(400):
        action, propensity = _rare(500, seed)
        for distribution in distributions:
            for logging in (None, np.tile([0.999, 0.001], (500, 1))):
                found = estimate(
                    action.astype(float),
                    propensity,
                    np.tile(distribution, (500, 1)),
                    action=action,
                    logging_probability=logging,
                    estimator="ipw",
                )
                assert found.n == 500
    # Weights that are short-tailed above and long-tailed below, where a t statistic would refuse every tenth log.
    for seed in range(400):
        taken = np.random.default_rng(seed).random(20) < 0.9
        estimate(np.ones(20), np.where(taken, 0.9, 0.1), np.where(taken, 1.0, 0.0))


def test_what_is_not_logged_could_be_worth_anything() -> None:
    _, propensity = _rare(500, next(s for s in range(50) if not _rare(500, s)[0].any()))
    reward = np.random.default_rng(0).integers(0, 2, 500).astype(float)
    half = 0.5 / 0.999
    for name in MODEL_FREE:
        found = estimate(reward, propensity, np.full(500, 0.5), estimator=name)
        assert found.to_dict()["unlogged"] == found.unlogged == pytest.approx(1 - half)
        # The half that is not logged may bring every reward or none; the other half brings what was seen.
        assert found.low <= half * reward.mean()
        assert found.high >= half * reward.mean() + 1 - half
    assert estimate(reward, np.full(500, 0.5), np.full(500, 0.5)).unlogged == 0


def _heavy(seed: int) -> World:
    rng = np.random.default_rng(seed)
    context = rng.dirichlet(np.full(10, 5.0))
    logging, evaluation = rng.dirichlet(np.full(20, 0.7), 10), rng.dirichlet(np.full(20, 0.2), 10)
    return World(context, logging, evaluation, rng.uniform(0.0, 0.1, (10, 20)))


def test_intervals_reach_far_where_a_few_heavy_rows_decide() -> None:
    """20 actions, some 200 effective of 5,000 rows, rare rewards: Student's intervals fail here."""
    world, runs = _heavy(3), 150
    rng = np.random.default_rng(0)
    edges, held = world.logging.cumsum(axis=1), np.zeros(4)
    for _ in range(runs):
        context = rng.choice(10, 5_000, p=world.context)
        action = np.minimum((rng.random(5_000)[:, None] > edges[context]).sum(axis=1), 19)
        reward = (rng.random(5_000) < world.mean[context, action]).astype(float)
        columns = reward, world.logging[context, action], world.evaluation[context, action]
        ipw, snipw = (estimate(*columns, estimator=name) for name in MODEL_FREE)
        ranged = estimate(*columns, estimator="snipw", reward_range=(0, 1))
        assert ranged.low <= ranged.value == snipw.value <= ranged.high
        student = abs(ipw.value - world.value) <= stats.t.ppf(0.975, 4_999) * ipw.standard_error
        held += [student, *(e.low <= world.value <= e.high for e in (ipw, snipw, ranged))]
    share = held / runs
    assert share[0] < 0.85
    assert (share[1:3] > 0.88).all()
    assert share[3] >= 0.95


def test_a_value_does_not_move_with_its_confidence() -> None:
    for seed in range(20):
        log = _log(300, seed)
        for name in TUNED:
            found = [_estimate(log, name, _wrong_model(log), confidence=level) for level in (0.5, 0.9, 0.99, 0.9999)]
            assert len({(e.value, e.parameter) for e in found}) == 1
            widths = [e.high - e.low for e in found]
            assert widths == sorted(widths)


def test_a_huge_parameter_is_no_shrinkage() -> None:
    log = _log(60, 1)
    for name in TUNED:
        found = _estimate(log, name, _wrong_model(log), parameter=1.7e308)
        assert found.value == pytest.approx(_estimate(log, "dr", _wrong_model(log)).value, abs=1e-12)
        assert math.isfinite(found.standard_error)


def test_units_are_told_apart_whatever_names_them() -> None:
    log = _log(60, 2)
    number = np.arange(60) // 3
    plain = _estimate(log, "snipw", unit=number)
    for unit in (number.tolist(), number.astype(float), number.astype(str), [f"u{i}" for i in number], number - 7):
        assert _estimate(log, "snipw", unit=unit).standard_error == pytest.approx(plain.standard_error, rel=1e-12)
    mixed = [int(i) if i % 2 else f"{i - 1}" for i in number]  # 1 and "1" are two users
    assert _estimate(log, "snipw", unit=mixed).standard_error == pytest.approx(plain.standard_error, rel=1e-12)


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
        ({"ridge": "much"}, "expected a finite number > 0"),
        ({"folds": 2.5}, "whole number"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"n_actions": "two"}, "n_actions is 'two'"),
        ({"row": [1, 2, None, 3]}, "row is missing in 1 of 4 rows"),
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
