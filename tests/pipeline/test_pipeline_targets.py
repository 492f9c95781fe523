"""The target table: value, bound, guards; against a bootstrap of the same thing by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support.toy import ToyScenario

from rlaas.errors import InvalidInputError
from rlaas.pipeline import judge_targets, pseudo_values
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import spread_subset
from rlaas.scenarios import Evaluation

Worlds = tuple[ToyScenario, Evaluation, np.ndarray, np.ndarray]


def _evaluation(scenario: ToyScenario, numerators: np.ndarray, denominators: np.ndarray) -> Evaluation:
    return Evaluation(
        seeds=tuple(range(len(numerators))),
        values=scenario.objective_values(numerators, denominators),
        numerators=numerators,
        denominators=denominators,
        seconds=0.0,
    )


@pytest.fixture
def worlds() -> Worlds:
    rng = np.random.default_rng(3)
    scenario = ToyScenario()
    denominators = np.full((12, 2), 100.0)
    numerators = denominators * np.array([2.0, 5.0]) + rng.normal(0, 10, (12, 2))
    return scenario, _evaluation(scenario, numerators, denominators), numerators, denominators


def test_bound_agrees_with_scipys_paired_bootstrap(
    worlds: Worlds,
) -> None:
    scenario, default, numerators, denominators = worlds
    shift = np.random.default_rng(5).normal([-60, 0], 5, numerators.shape)
    ours = _evaluation(scenario, numerators + shift, denominators)
    (row, _) = judge_targets(scenario, default, [ours], seed=1).rows
    assert row.objective == "cost"
    assert row.value == pytest.approx(ours.numerators[:, 0].sum() / default.numerators[:, 0].sum() - 1)

    def relative(index: np.ndarray) -> np.ndarray:
        i = index.astype(int)
        return ours.numerators[i, 0].sum(axis=-1) / default.numerators[i, 0].sum(axis=-1) - 1

    oracle = stats.bootstrap(
        (np.arange(12),),
        lambda index, axis: relative(np.moveaxis(index, axis, -1)),
        vectorized=True,
        n_resamples=4000,
        confidence_level=1 - 2 * 0.05 / 2,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    assert row.bound == pytest.approx(oracle.confidence_interval.high, abs=0.01)
    assert row.met == (row.bound < -0.2)
    assert row.met


def test_a_broken_guard_takes_the_gain_back(worlds: Worlds) -> None:
    scenario, default, numerators, denominators = worlds
    ours = _evaluation(scenario, numerators * [0.5, 0.5], denominators)
    verdict = judge_targets(scenario, default, [ours])
    assert verdict.rows[0].met
    assert not verdict.guards_hold
    assert not any(row["met"] for row in verdict.to_dict().values())


def test_the_default_meets_no_relative_target_against_itself(
    worlds: Worlds,
) -> None:
    scenario, default, _, _ = worlds
    verdict = judge_targets(scenario, default, [default, default])
    assert verdict.rows[0].value == pytest.approx(0.0, abs=1e-12)
    assert verdict.rows[0].bound == pytest.approx(0.0, abs=1e-12)
    assert not verdict.rows[0].met


def test_one_seed_proves_nothing(worlds: Worlds) -> None:
    scenario, default, numerators, denominators = worlds
    one = default.on_seeds([0])
    ours = _evaluation(scenario, numerators[:1] * 0.1, denominators[:1])
    assert not any(row.met for row in judge_targets(scenario, one, [ours]).rows)


def test_other_seeds_are_refused(worlds: Worlds) -> None:
    scenario, default, _, _ = worlds
    with pytest.raises(InvalidInputError, match="different seeds"):
        judge_targets(scenario, default, [default.on_seeds([1, 2])])


def test_pseudo_values_estimate_what_the_delta_method_does() -> None:
    """For one ratio the jackknife's standard error is the delta method's, up to O(1/n)."""
    rng = np.random.default_rng(0)
    scenario = ToyScenario()
    from rlaas.objectives import Preference

    den = rng.integers(1, 20, (400, 1)).repeat(2, axis=1).astype(float)
    num = den * 2.0 + rng.normal(0, 1, (400, 2))
    values = pseudo_values(scenario, num, den, Preference.of(scenario.objectives, [1.0, 0.0]))
    ratio = num[:, 0].sum() / den[:, 0].sum()
    linear = (num[:, 0] - ratio * den[:, 0]) / den[:, 0].mean()
    span = scenario.objectives[0].high - scenario.objectives[0].low
    assert values.std(ddof=1) / 20 == pytest.approx(linear.std(ddof=1) / span / 20, rel=0.02)
    assert values.mean() == pytest.approx(1 - (ratio - scenario.objectives[0].low) / span, abs=1e-3)


def test_seeds_of_different_purposes_never_meet() -> None:
    drawn = [set(seeds_for(p, s, 50)) for p in ("search", "front", "table", "traffic") for s in range(20)]
    assert len(set().union(*drawn)) == sum(len(d) for d in drawn)
    assert seeds_for("front", 1, 5) == seeds_for("front", 1, 5)


def test_spread_subset_keeps_the_extremes() -> None:
    points = np.array([[0.0, 1.0], [0.5, 0.5], [0.51, 0.5], [1.0, 0.0]])
    assert set(spread_subset(points, 3)) >= {0, 3}
    assert spread_subset(points, 10) == [0, 1, 2, 3]
    assert len(set(spread_subset(np.ones((5, 2)), 3))) <= 5
