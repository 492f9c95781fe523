"""Shares that depend on the context: the same as the offline allocators', exact, sticky, and drawn anew elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from rlaas.experiments.allocation import ContextualAllocation, LinearThompson, ObjectiveThompson
from rlaas.experiments.allocation.quadrature import probability_best
from rlaas.experiments.conditional import (
    ArmPosterior,
    ConditionalAssigner,
    ConditionalSpec,
    Feature,
    FeatureReader,
    draw_coefficients,
)
from rlaas.objectives import Objective, Preference

FEATURES = (
    Feature(source="context", name="age", center=40.0, scale=15.0),
    Feature(source="observation", name="load", index=2, scale=0.5),
)
OBJECTIVES = (
    Objective(name="latency", unit="ms", direction="minimize", low=0.0, high=10.0),
    Objective(name="throughput", unit="", direction="maximize", low=0.0, high=1.0),
)


def _learnt(seed: int, arms: int) -> LinearThompson:
    rng = np.random.default_rng(seed)
    names = [f"v{k}" for k in range(arms)]
    x, arm = rng.normal(size=(60, 2)), rng.integers(0, arms, 60)
    reward = x[:, 0] * (arm - 0.5) + rng.normal(size=60)
    return LinearThompson(arms=tuple(names), n_features=2, minimum_share=0.05).updated(np.array(names)[arm], x, reward)


def _spec(model: LinearThompson, draws: int = 512, seed: int = 3) -> ConditionalSpec:
    return ConditionalSpec(features=FEATURES, arms=model.posteriors(), minimum_share=0.05, draws=draws, seed=seed)


def _context(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return np.array([rng.normal(40, 15), rng.normal(0, 0.5)], dtype=np.float32)


@pytest.mark.parametrize("arms", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_shares_are_those_of_the_offline_allocation_on_the_same_draws(seed: int, arms: int) -> None:
    model = _learnt(seed, arms)
    spec = _spec(model)
    assigner = ConditionalAssigner(spec, "s", {})
    offline = ContextualAllocation(1, model.arms, draw_coefficients(spec.arms, 512, 3), 0.05)
    rng = np.random.default_rng(seed)
    for _ in range(40):
        x = _context(rng)
        scaled = (x.astype(np.float64) - [40.0, 0.0]) / [15.0, 0.5]
        shares = assigner.shares(x)
        assert list(shares) == pytest.approx(offline.shares([scaled])[0].tolist(), abs=1e-9)
        assert min(shares) >= 0.05 - 1e-12
        assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("arms", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_shares_come_close_to_the_posterior_probability_of_being_best(seed: int, arms: int) -> None:
    model = _learnt(seed, arms)
    assigner = ConditionalAssigner(_spec(model, draws=10_000, seed=seed), "s", {})
    x = _context(np.random.default_rng(seed))
    best = probability_best(model.means((x - np.array([40.0, 0.0])) / [15.0, 0.5]))
    expected = 0.05 + (1 - 0.05 * arms) * best
    # Five standard deviations of a share of 10,000 draws.
    assert list(assigner.shares(x)) == pytest.approx(expected.tolist(), abs=5 * 0.5 / 100)


@pytest.mark.parametrize("seed", range(5))
def test_shares_at_a_preference_come_close_to_the_probability_by_quadrature(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = ObjectiveThompson.of(
        ["A", "B", "C"],
        OBJECTIVES,
        {"fast": Preference.of(OBJECTIVES, {"latency": 1.0})},
        {"fast": 1.0},
        minimum_share=0.1,
    )
    arm = rng.integers(0, 3, 90)
    outcome = np.column_stack([rng.normal(5 - arm, 2), rng.normal(0.5 - 0.1 * arm, 0.2)])
    model = model.updated(np.array(["A", "B", "C"])[arm], outcome)
    spec = ConditionalSpec(
        objectives=("latency", "throughput"),
        arms=model.posteriors(),
        minimum_share=0.1,
        draws=10_000,
        seed=seed,
    )
    assigner = ConditionalAssigner(spec, "s", {})
    for weight in (0.0, 0.3, 1.0):
        x = np.array([weight, 1 - weight], dtype=np.float32)
        best = 0.1 + 0.7 * probability_best(model.means_at(x.tolist()))
        assert list(assigner.shares(x)) == pytest.approx(best.tolist(), abs=5 * 0.5 / 100)


@pytest.mark.parametrize("arms", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_units_get_their_variant_as_often_as_the_propensity_says(seed: int, arms: int) -> None:
    assigner = ConditionalAssigner(_spec(_learnt(seed, arms)), f"salt {seed}", {})
    x = _context(np.random.default_rng(seed))
    shares = dict(zip(assigner.arms, assigner.shares(x), strict=True))
    found = [assigner.assign(f"u{i}", x) for i in range(4_000)]
    assert {one.propensity for one in found} <= set(shares.values())
    for name, share in shares.items():
        count = sum(one.variant == name for one in found)
        assert abs(count - 4_000 * share) < 4.5 * math.sqrt(4_000 * share * (1 - share))
    assert [assigner.assign(f"u{i}", x) for i in range(50)] == found[:50]


def test_another_context_draws_a_unit_anew_whatever_it_had_before() -> None:
    posterior = {"spread": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), "degrees": 5.0}
    arms = tuple(ArmPosterior(name=name, location=(0.0, 0.0, 0.0), **posterior) for name in "AB")  # type: ignore[arg-type]
    spec = ConditionalSpec(features=FEATURES, arms=arms, minimum_share=0.05, draws=512, seed=1)
    assigner = ConditionalAssigner(spec, "s", {})
    first, second = (np.array([40.0, value], dtype=np.float32) for value in (0.0, 0.001))
    pairs = [[assigner.assign(f"u{i}", x).variant == "A" for x in (first, second)] for i in range(3_000)]
    table = np.histogram2d(*np.array(pairs, dtype=float).T, bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_without_a_posterior_the_weights_hold_at_every_context() -> None:
    spec = ConditionalSpec(features=FEATURES, minimum_share=0.05, draws=100, seed=0)
    assigner = ConditionalAssigner(spec, "s", {"A": 0.7, "B": 0.3})
    rng = np.random.default_rng(0)
    assert {tuple(assigner.shares(_context(rng))) for _ in range(5)} == {(0.7, 0.3)}


def test_features_are_read_alike_from_what_was_sent_and_from_what_the_network_sees() -> None:
    reader = FeatureReader(FEATURES)
    sent = [0.1, 0.2, 0.3]
    one = reader(sent, {"age": 34})
    other = reader(np.array(sent, dtype=np.float32), {"age": 34.0})
    assert one is not None
    assert other is not None
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("age", [None, True, "34", math.nan, math.inf, 1e31, 10**400, [34]])
def test_a_unit_without_a_usable_feature_has_no_context(age: Any) -> None:
    assert FeatureReader(FEATURES)([0.0, 0.0, 0.5], {"age": age}) is None
    assert FeatureReader(FEATURES)([0.0, 0.0, 0.5], {}) is None
    assert FeatureReader(FEATURES)([0.0, 0.0, math.nan], {"age": 3}) is None


ARM = {"name": "A", "location": (0.0,) * 3, "spread": ((0.0,) * 3,) * 3, "degrees": 2.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objectives": ("a",)}, "one of them"),
        ({"features": ()}, "one of them"),
        ({"arms": ({**ARM, "location": (0.0,) * 2},)}, "expected 3 coefficients"),
        ({"arms": ({**ARM, "degrees": 0.5},)}, "greater than or equal to 1"),
        ({"arms": ({**ARM, "location": (0.0, 0.0, math.nan)},)}, "finite"),
        ({"arms": (ARM, {**ARM, "name": "B"}), "minimum_share": 0.6}, "at most 0.5 each"),
        ({"features": ({"source": "observation", "name": "x"},)}, "needs its index"),
    ],
)
def test_what_cannot_be_served_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ConditionalSpec.model_validate(
            {"features": FEATURES, "minimum_share": 0.05, "draws": 100, "seed": 0, **changes}
        )
