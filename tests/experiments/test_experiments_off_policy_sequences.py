from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from support.solved_tasks import ACTIONS, STATES, SolvedTask

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.experiments.gate import unit_correlation
from rlaas.experiments.off_policy import estimate
from rlaas.experiments.sequential_off_policy import (
    SESSION_ESTIMATORS,
    SessionEstimate,
    SessionLog,
    cross_fitted_action_values,
    estimate_logged,
    estimate_sessions,
    fit_q,
    fitted_q_estimate,
    fitted_q_evaluation,
    session_estimate,
)

HORIZON, DISCOUNT = 4, 0.9
FloatArray = NDArray[np.float64]


def _mdp(seed: int) -> SolvedTask:
    return SolvedTask.draw(seed, most_ends=0.3)


def _log(mdp: SolvedTask, n: int, seed: int, horizon: int = HORIZON) -> SessionLog:
    return mdp.log(n, horizon, seed)


def _estimate(log: SessionLog, name: str, prediction: Any = None, **options: Any) -> SessionEstimate:
    options = {"discount": DISCOUNT, "horizon": HORIZON} | options
    if name == "fqe":
        return fitted_q_evaluation(log, **options)
    return estimate_sessions(log, estimator=name, prediction=prediction, **options)  # type: ignore[arg-type]


def _rows(log: SessionLog, which: Any) -> SessionLog:
    """Some rows of a log, in any order."""
    columns = {name: getattr(log, name) for name in SessionLog.__dataclass_fields__}
    return SessionLog(**{k: None if values is None else np.asarray(values)[which] for k, values in columns.items()})


def _values(log: SessionLog, seed: int = 0) -> FloatArray:
    return cross_fitted_action_values(log, horizon=HORIZON, discount=DISCOUNT, seed=seed)


TASKS, RUNS, SESSIONS = 5, 60, 250


@pytest.fixture(scope="module")
def repeated() -> list[tuple[float, dict[str, list[SessionEstimate]]]]:
    """Every estimator on many logs of each of several tasks, and the tasks' exact values."""
    everything = []
    for task in range(TASKS):
        mdp = _mdp(task)
        found: dict[str, list[SessionEstimate]] = {name: [] for name in SESSION_ESTIMATORS}
        for run in range(RUNS):
            log = _log(mdp, SESSIONS, 1_000 * task + run)
            for name in SESSION_ESTIMATORS:
                found[name].append(_estimate(log, name, _values(log) if name == "pddr" else None))
        everything.append((mdp.value(HORIZON, DISCOUNT), found))
    return everything


@pytest.mark.parametrize("name", SESSION_ESTIMATORS)
def test_intervals_hold_the_value_that_dynamic_programming_gives(repeated: Any, name: str) -> None:
    hits = [sum(e.low <= value <= e.high for e in found[name]) for value, found in repeated]
    assert sum(hits) >= stats.binom.ppf(1e-3, TASKS * RUNS, 0.95)
    assert min(hits) >= stats.binom.ppf(1e-3 / TASKS, RUNS, 0.95)
    assert sum(hits) <= stats.binom.isf(1e-3, TASKS * RUNS, 0.98)  # no interval is a barn door


@pytest.mark.parametrize("name", SESSION_ESTIMATORS)
def test_values_are_right_on_average_and_spread_as_they_say(repeated: Any, name: str) -> None:
    for value, found in repeated:
        values = np.array([e.value for e in found[name]])
        # Ratios and fits have a bias of order 1 / n, which is below this error.
        assert abs(values.mean() - value) < 4.5 * values.std(ddof=1) / math.sqrt(RUNS)
    ratio = [np.mean([e.standard_error for e in f[name]]) / np.std([e.value for e in f[name]]) for _, f in repeated]
    assert np.mean(ratio) == pytest.approx(1, abs=0.12)


def test_models_take_variance_away(repeated: Any) -> None:
    spread = {n: np.mean([np.std([e.value for e in f[n]]) for _, f in repeated]) for n in SESSION_ESTIMATORS}
    assert spread["pdis"] > 1.1 * spread["pddr"] > 1.1 * spread["fqe"]
    size = {
        n: np.mean([np.mean([e.effective_sample_size for e in f[n]]) for _, f in repeated]) for n in ("wpdis", "fqe")
    }
    assert size["fqe"] > 1.2 * size["wpdis"]  # visits are easier to match than whole sessions


def _by_hand(log: SessionLog, q: FloatArray) -> dict[str, float]:
    """The definitions, session by session."""
    session, step = np.asarray(log.session), np.asarray(log.step)
    taken, pi = np.asarray(log.action), np.asarray(log.evaluation_probability)
    reward, weight = np.asarray(log.reward), pi[np.arange(len(taken)), taken] / np.asarray(log.propensity)
    names = np.unique(session)
    rho, gained, robust = np.ones((len(names), HORIZON)), np.zeros((len(names), HORIZON)), []
    for i, name in enumerate(names):
        rows = np.flatnonzero(session == name)[np.argsort(step[session == name])]
        so_far = 1.0
        for t in range(HORIZON):
            if t < len(rows):
                so_far *= weight[rows[t]]
                gained[i, t] = reward[rows[t]]
            rho[i, t] = so_far
        ahead = 0.0
        for row in rows[::-1]:  # Jiang & Li 2016, equation 10
            residual = reward[row] + DISCOUNT * ahead - q[row, taken[row]]
            ahead = pi[row] @ q[row] + weight[row] * residual
        robust.append(ahead)
    discounts = DISCOUNT ** np.arange(HORIZON)
    return {
        "pdis": float(((rho * gained) @ discounts).mean()),
        "wpdis": float(((rho * gained).sum(axis=0) / rho.sum(axis=0)) @ discounts),
        "pddr": float(np.mean(robust)),
    }


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_estimators_agree_with_their_definitions_whatever_the_order_of_rows(seed: int) -> None:
    log, rng = _log(_mdp(seed % 7), 30, seed), np.random.default_rng(seed)
    q = rng.normal(size=(len(np.asarray(log.reward)), ACTIONS))
    order = rng.permutation(len(q))
    moved = _rows(log, order)
    for name, value in _by_hand(log, q).items():
        prediction = q if name == "pddr" else None
        assert _estimate(log, name, prediction).value == pytest.approx(value, abs=1e-10)
        assert _estimate(moved, name, None if prediction is None else q[order]).value == pytest.approx(value, abs=1e-10)
    nothing = _estimate(log, "pddr", np.zeros_like(q))
    assert nothing.value == pytest.approx(_estimate(log, "pdis").value, abs=1e-10)
    assert nothing.standard_error == pytest.approx(_estimate(log, "pdis").standard_error, abs=1e-10)


def test_sessions_of_one_step_are_a_bandit() -> None:
    mdp = _mdp(1)
    log = _log(mdp, 400, 3, horizon=1)
    ended = replace(log, terminated=np.ones(400))
    q = np.random.default_rng(0).normal(size=(400, ACTIONS))
    for name, other in (("pdis", "ipw"), ("wpdis", "snipw"), ("pddr", "dr")):
        model = q if name == "pddr" else None
        found = estimate_sessions(ended, estimator=name, prediction=model)  # type: ignore[arg-type]
        bandit = estimate(
            log.reward,
            log.propensity,
            log.evaluation_probability,
            action=log.action,
            prediction=model,
            estimator=other,  # type: ignore[arg-type]
        )
        for field in ("value", "standard_error", "low", "high", "effective_sample_size", "mean_weight"):
            assert getattr(found, field) == pytest.approx(getattr(bandit, field), rel=1e-9)


def test_fitted_q_of_a_table_is_dynamic_programming_on_the_frequencies() -> None:
    log = _log(_mdp(2), 500, 4)
    state, following = np.asarray(log.features).argmax(axis=1), np.asarray(log.next_features).argmax(axis=1)
    taken, pi = np.asarray(log.action), _mdp(2).evaluation
    ahead = np.zeros(STATES)
    for k in range(1, HORIZON + 1):
        table = np.zeros((STATES, ACTIONS))
        for s in range(STATES):
            for a in range(ACTIONS):
                at = (state == s) & (taken == a)
                goes_on = ~np.asarray(log.terminated)[at]
                table[s, a] = (np.asarray(log.reward)[at] + DISCOUNT * goes_on * ahead[following[at]]).mean()
        ahead = (pi * table).sum(axis=1)
        fitted = fit_q(log, horizon=HORIZON, discount=DISCOUNT, ridge=1e-9)
        np.testing.assert_allclose(fitted.predict(np.eye(STATES), np.full(STATES, k)), table, atol=1e-8)
    first = state[np.asarray(log.step) == 0]
    found = fitted_q_evaluation(log, horizon=HORIZON, discount=DISCOUNT, ridge=1e-9)
    assert found.value == pytest.approx(ahead[first].mean(), abs=1e-8)


def test_the_spread_of_fitted_q_is_that_of_a_bootstrap_of_sessions() -> None:
    log, rng = _log(_mdp(3), 300, 5), np.random.default_rng(0)
    rows = [np.flatnonzero(np.asarray(log.session) == name) for name in range(300)]
    values = []
    for _ in range(150):
        drawn = [rows[i] for i in rng.integers(0, 300, 300)]
        again = replace(_rows(log, np.concatenate(drawn)), session=np.repeat(np.arange(300), [len(r) for r in drawn]))
        values.append(_estimate(again, "fqe").value)
    assert _estimate(log, "fqe").standard_error == pytest.approx(np.std(values, ddof=1), rel=0.2)


def test_the_logging_policy_itself_has_all_of_its_sessions() -> None:
    mdp = _mdp(4)
    log = _log(mdp._replace(evaluation=mdp.logging), 200, 6)
    returns = np.bincount(log.session, weights=np.asarray(log.reward) * DISCOUNT ** np.asarray(log.step))
    for name in ("pdis", "wpdis"):
        found = _estimate(log, name)
        assert found.value == pytest.approx(returns.mean())
        assert found.effective_sample_size == pytest.approx(200)
        assert found.standard_error == pytest.approx(stats.sem(returns), rel=0.2 if name == "wpdis" else 1e-9)
    fitted = _estimate(log, "fqe")
    assert fitted.effective_sample_size > 190
    assert fitted.value == pytest.approx(returns.mean(), abs=2 * fitted.standard_error)


def test_no_session_is_valued_by_a_fit_that_saw_it() -> None:
    log = _log(_mdp(5), 40, 7)
    before = _values(log, seed=1)
    reward = np.asarray(log.reward).copy()
    row = int(np.flatnonzero(np.asarray(log.session) == 17)[0])
    reward[row] = 50.0
    after = _values(replace(log, reward=reward), seed=1)
    own = np.asarray(log.session) == 17
    assert (after[own] == before[own]).all()
    assert abs(after - before).max() > 0.1


def test_fitted_q_takes_sessions_that_were_cut_and_weights_do_not() -> None:
    log = _log(_mdp(6), 300, 8)
    kept = (np.asarray(log.session) % 3 > 0) | (np.asarray(log.step) < 2)
    cut = _rows(log, kept)
    whole, short = _estimate(log, "fqe"), _estimate(cut, "fqe")
    assert short.value == pytest.approx(whole.value, abs=3 * short.standard_error)
    with pytest.raises(InvalidInputError, match=r"was cut after 2 steps.*shorter horizon") as caught:
        _estimate(cut, "pdis")
    assert caught.value.field == "terminated"
    assert _estimate(cut, "pdis", horizon=2).horizon == 2


def test_a_horizon_that_no_session_reaches_is_refused() -> None:
    n = 200
    action = np.tile([0, 1], n)  # step 0 takes 0, step 1 takes 1
    log = SessionLog(
        session=np.repeat(np.arange(n), 2),
        step=np.tile([0, 1], n),
        reward=np.ones(2 * n),
        terminated=np.tile([0, 1], n),
        propensity=np.full(2 * n, 0.5),
        evaluation_probability=np.tile([1.0, 0.0], (2 * n, 1)),
        action=action,
    )
    with pytest.raises(InvalidInputError, match=r"none of 200 sessions follows .* beyond step 1") as caught:
        estimate_sessions(log, estimator="pdis")
    assert caught.value.field == "horizon"


@pytest.mark.parametrize("name", SESSION_ESTIMATORS)
def test_sessions_of_one_unit_count_as_one(name: str) -> None:
    log = _log(_mdp(1), 150, 13)
    alone = _estimate(log, name, _values(log) if name == "pddr" else None)
    n = len(np.asarray(log.session))
    # Every session three times over: as sessions of their own they would be three times the evidence.
    thrice = replace(
        _rows(log, np.tile(np.arange(n), 3)),
        session=np.asarray(log.session)[np.tile(np.arange(n), 3)] + 1_000 * np.repeat(np.arange(3), n),
        unit=np.tile(np.asarray(log.session), 3),
    )
    prediction = np.tile(_values(log), (3, 1)) if name == "pddr" else None
    found = _estimate(thrice, name, prediction)
    assert found.n == 3 * alone.n
    rel = 1e-3 if name == "fqe" else 1e-9  # three times the rows weigh the same penalty less
    for field in ("value", "standard_error", "low", "high", "unlogged"):
        assert getattr(found, field) == pytest.approx(getattr(alone, field), rel=rel, abs=1e-9)
    assert _estimate(replace(thrice, unit=None), name, prediction).standard_error < 0.6 * alone.standard_error
    with pytest.raises(InvalidInputError, match="at least 2 units") as caught:
        _estimate(replace(log, unit=np.zeros(n)), name, _values(log) if name == "pddr" else None)
    assert caught.value.field == "unit"


def test_fitted_q_does_without_the_rows_of_which_nobody_knows_what_followed() -> None:
    log = _log(_mdp(2), 400, 14)
    following = np.asarray(log.next_features).astype(float)
    open_ends = (np.asarray(log.step) == HORIZON - 1) & ~np.asarray(log.terminated)
    following[open_ends] = np.nan
    cut = replace(log, next_features=following)
    kept = ~open_ends
    fitted, wanted = (fit_q(one, horizon=3, discount=DISCOUNT) for one in (cut, _rows(log, kept)))
    np.testing.assert_allclose(fitted.coefficient, wanted.coefficient)
    found, whole = _estimate(cut, "fqe"), _estimate(log, "fqe")
    assert found.value == pytest.approx(whole.value, abs=3 * whole.standard_error)
    assert found.standard_error > whole.standard_error
    assert np.isfinite(_values(cut)).all()
    following[np.flatnonzero(kept & ~np.asarray(log.terminated))[0], 0] = np.nan
    with pytest.raises(InvalidInputError, match="NaN throughout a row") as caught:
        _estimate(replace(log, next_features=following), "fqe")
    assert caught.value.field == "next_features"


@pytest.mark.parametrize("name", SESSION_ESTIMATORS)
def test_what_each_unit_adds_says_how_two_estimates_move_together(name: str) -> None:
    mdp = _mdp(3)
    found, logged = [], []
    for seed in range(60):
        log = _log(mdp, 150, 500 + seed)
        one, mine = _with_deviations(log, name)
        other, theirs = estimate_logged(log, discount=DISCOUNT, horizon=HORIZON)
        assert mine.sum() == pytest.approx(0, abs=1e-8)
        found.append((one.value, unit_correlation(mine, theirs)))
        logged.append(other.value)
    seen = np.corrcoef([value for value, _ in found], logged)[0, 1]
    said = np.mean([rho for _, rho in found])
    assert np.arctanh(said) == pytest.approx(np.arctanh(seen), abs=3.3 / math.sqrt(57))  # Fisher's z


def _with_deviations(log: SessionLog, name: str) -> tuple[SessionEstimate, FloatArray]:
    if name == "fqe":
        return fitted_q_estimate(log, discount=DISCOUNT, horizon=HORIZON)
    prediction = _values(log) if name == "pddr" else None
    return session_estimate(log, estimator=name, prediction=prediction, discount=DISCOUNT, horizon=HORIZON)  # type: ignore[arg-type]


def test_result_is_plain_json() -> None:
    found = _estimate(_log(_mdp(0), 60, 9), "wpdis").to_dict()
    assert set(json.loads(json.dumps(found, allow_nan=False))) == set(SessionEstimate.__dataclass_fields__)


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"propensity": None}, "propensity", r"expected \(\d+,\)|missing"),
        ({"session": None}, "session", "one per row"),
        ({"step": "twice"}, "step", "without gaps or repeats"),
        ({"step": "half"}, "step", "one whole number"),
        ({"terminated": "early"}, "terminated", "before the last step"),
        ({"action": None}, "action", "needs the logged action"),
        ({"estimator": "best"}, "estimator", "allowed: pddr, pdis, wpdis"),
        ({"prediction": 0.0}, "prediction", "has no model"),
        ({"estimator": "pddr"}, "prediction", "needs a prediction"),
        ({"discount": 1.5}, "discount", r"in \(0, 1\]"),
        ({"horizon": 0}, "horizon", "whole number of steps"),
        ({"confidence": 0}, "confidence", r"in \(0, 1\)"),
    ],
)
def test_bad_input_names_the_field(changed: dict[str, Any], field: str, says: str) -> None:
    log = _log(_mdp(0), 30, 10)
    step, n = np.asarray(log.step).astype(float), len(np.asarray(log.step))
    special = {"twice": np.zeros(n), "half": step + 0.5, "early": np.ones(n)}
    columns = {k: special.get(str(v), v) for k, v in changed.items() if k in SessionLog.__dataclass_fields__}
    options = {k: v for k, v in changed.items() if k not in columns}
    with pytest.raises((InvalidInputError, ConfigurationError), match=says) as caught:
        estimate_sessions(replace(log, **columns), **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"features": None}, "features"),
        ({"next_probability": np.ones(3)}, "next_probability"),
        ({"next_probability": "halved"}, "next_probability"),
        ({"next_features": np.zeros((3, 3))}, "next_features"),
        ({"next_features": "no numbers"}, "next_features"),
        ({"evaluation_probability": "of the action"}, "evaluation_probability"),
        ({"propensity": "missing"}, "propensity"),
        ({"ridge": 0.0}, "ridge"),
        ({"horizon": 1.5}, "horizon"),
    ],
)
def test_bad_input_of_fitted_q_names_the_field(changed: dict[str, Any], field: str) -> None:
    log = _log(_mdp(0), 30, 11)
    special = {
        "halved": np.asarray(log.next_probability) / 2,
        "no numbers": np.full_like(np.asarray(log.next_features), np.nan),
        "of the action": np.asarray(log.propensity),
        "missing": np.full(len(np.asarray(log.reward)), np.nan),
    }
    columns = {
        k: special[v] if isinstance(v, str) else v for k, v in changed.items() if k in SessionLog.__dataclass_fields__
    }
    options = {k: v for k, v in changed.items() if k not in columns}
    with pytest.raises((InvalidInputError, ConfigurationError)) as caught:
        fitted_q_evaluation(replace(log, **columns), **options)
    assert caught.value.field == field


def test_bad_folds_say_so() -> None:
    log = _log(_mdp(0), 4, 12)
    for folds in (1, 5):
        with pytest.raises((InvalidInputError, ConfigurationError)) as caught:
            cross_fitted_action_values(log, horizon=2, folds=folds)
        assert caught.value.field == "folds"
