"""Preferences, normalisation, rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Mode, Objective, Preference, Rule, normalise, to_minimisation

LATENCY = Objective(name="latency", unit="ms", direction="minimize", low=1.0, high=5.0)
RATE = Objective(name="rate", unit="Mbit/s", direction="maximize", low=0.0, high=10.0)
BOTH = (LATENCY, RATE)


@given(st.lists(st.floats(0, 1e308, allow_subnormal=False), min_size=1, max_size=8).filter(any))
def test_any_non_negative_weights_become_a_preference(weights: list[float]) -> None:
    preference = Preference.of([f"o{i}" for i in range(len(weights))], weights)
    assert math.isclose(sum(preference.weights), 1.0, rel_tol=1e-12)
    assert all(w >= 0 for w in preference.weights)


@pytest.mark.parametrize(
    ("weights", "field"),
    [
        ({"latency": -1, "rate": 2}, "preference.latency"),
        ({"latency": 0, "rate": 0}, "preference"),
        ({}, "preference"),
        ({"latency": math.nan}, "preference.latency"),
        ({"rate": math.inf}, "preference.rate"),
        ({"rate": True}, "preference.rate"),
        ({"rate": "1"}, "preference.rate"),
        ({"speed": 1}, "preference objective"),
        ([1.0], "preference"),
    ],
)
def test_bad_preferences_name_the_field(weights: object, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Preference.of(BOTH, weights)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_normalise_is_affine_unclipped_and_turns_better_into_more() -> None:
    got = normalise(BOTH, [[1.0, 10.0], [5.0, 0.0], [9.0, 20.0]])
    np.testing.assert_allclose(got, [[1, 1], [0, 0], [-1, 2]])


def test_to_minimisation_negates_what_is_maximised() -> None:
    np.testing.assert_array_equal(to_minimisation(BOTH, [2.0, 3.0]), [2.0, -3.0])


def test_rules_measure_their_violation() -> None:
    assert Rule(objective="latency", at_most=2.0).violation(3.0) == 1.0
    assert Rule(objective="latency", at_most=2.0).violation(1.0) == 0.0
    assert Rule(objective="rate", at_least=4.0).violation(1.0) == 3.0
    assert str(Rule(objective="rate", at_least=4.0)) == "rate >= 4"


def test_impossible_objectives_rules_and_modes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="low < high"):
        Objective(name="x", unit="", direction="maximize", low=1.0, high=1.0)
    with pytest.raises(ConfigurationError, match="minimize"):
        Objective(name="x", unit="", direction="up", low=0.0, high=1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="exactly one"):
        Rule(objective="x")
    with pytest.raises(ConfigurationError, match="rate"):
        Mode(name="m", preference=Preference.uniform(BOTH), rules=(Rule(objective="x", at_most=1),))
