"""Names, ranges and values of a search space."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rlaas.errors import ConfigurationError
from rlaas.training import TrainingConfig
from rlaas.tuning import space as spaces

BASE = TrainingConfig(scenario="training_toys:Toy", sac={"tau": 0.02}, batch_size=64)
PARAMETER: TypeAdapter[Any] = TypeAdapter(spaces.Parameter)


def parameters(**documents: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): PARAMETER.validate_python(document) for name, document in documents.items()}


SPACE = parameters(
    learning_rate={"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    gamma={"kind": "uniform", "low": 0.5, "high": 0.99},
    batch_size={"kind": "int", "low": 32, "high": 64},
    preference_hold={"kind": "logint", "low": 1, "high": 100},
    hidden={"kind": "choice", "values": [[64, 64], [32]]},
    sac__target_entropy={"kind": "choice", "values": [None, -1.5]},
)


def test_values_come_back_from_a_point() -> None:
    values = {"hidden": [32], "sac.target_entropy": None, "gamma": 0.5, "batch_size": 33}
    point = spaces.encoded(SPACE, values)
    assert point["hidden"] == "[32]"
    assert spaces.values_of(point) == values
    trained = spaces.with_values(BASE, values)
    assert trained.hidden == (32,)
    assert trained.sac.target_entropy is None
    assert trained.sac.tau == 0.02, "what is not searched stays"
    assert trained.batch_size == 33


@pytest.mark.parametrize("name", ["learning_rate", "gamma", "batch_size", "preference_hold", "hidden"])
def test_tune_and_optuna_draw_from_the_same_range(name: str) -> None:
    domain, distribution = spaces.domains(SPACE)[name], spaces.distributions(SPACE)[f"point/{name}"]
    drawn = [domain.sample() for _ in range(500)]
    if name == "hidden":
        assert set(drawn) == set(distribution.choices) == {"[64, 64]", "[32]"}
        return
    assert (distribution.low, distribution.high) == (SPACE[name].low, SPACE[name].high)
    assert SPACE[name].low <= min(drawn)
    assert max(drawn) <= SPACE[name].high
    if name == "batch_size":
        assert {32, 64} <= set(drawn), "both ends are included"


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1e-9, 1e6))
def test_nudged_points_stay_within_the_space(gamma: float, batch: float, rate: float) -> None:
    point = {"learning_rate": rate, "gamma": gamma, "batch_size": batch, "preference_hold": 7, "hidden": "[32]"}
    moved = spaces.within({name: SPACE[name] for name in point}, point)
    assert 1e-4 <= moved["learning_rate"] <= 1e-2
    assert 0.5 <= moved["gamma"] <= 0.99
    assert isinstance(moved["batch_size"], int)
    assert 32 <= moved["batch_size"] <= 64
    assert (moved["preference_hold"], moved["hidden"]) == (7, "[32]")


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"kind": "uniform", "low": 2, "high": 1}, "low 2 must be below high 1"),
        ({"kind": "loguniform", "low": 0, "high": 1}, "must be above 0"),
        ({"kind": "int", "low": 1.5, "high": 3}, "valid integer"),
        ({"kind": "choice", "values": [1]}, "at least 2 items"),
        ({"kind": "choice", "values": [[1], [1]]}, "twice"),
        ({"kind": "normal", "low": 1, "high": 2}, "'uniform', 'loguniform', 'int', 'logint', 'choice'"),
        ({"kind": "uniform", "low": 0, "high": 1, "step": 2}, "Extra inputs"),
    ],
)
def test_ranges_are_checked(document: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PARAMETER.validate_python(document)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "document", "complaint"),
    [
        (
            "learning_rates",
            {"kind": "uniform", "low": 0.1, "high": 1},
            "no such field of a training configuration; allow",
        ),
        ("sac", {"kind": "choice", "values": [1, 2]}, "no such field"),
        ("seed", {"kind": "int", "low": 1, "high": 9}, "cannot be searched"),
        ("gamma", {"kind": "uniform", "low": 0.5, "high": 1.0}, "less than 1"),
        ("sac.tau", {"kind": "uniform", "low": 0, "high": 0.5}, "greater than 0"),
        ("hidden", {"kind": "choice", "values": [[64], [0]]}, "each width must be at least 1"),
        ("algorithm", {"kind": "choice", "values": ["sac", "dqn"]}, "'sac' or 'ppo'"),
    ],
)
def test_what_a_training_configuration_refuses_is_refused_by_name(
    name: str, document: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"space.{name}") as caught:
        spaces.check_space({name: PARAMETER.validate_python(document)}, BASE)
    assert complaint in caught.value.message
    assert caught.value.field == f"space.{name}"


def test_known_names_reach_into_the_algorithms() -> None:
    names = spaces.known_names()
    assert {"learning_rate", "hidden", "sac.tau", "ppo.clip"} <= set(names)
    assert not {"sac", "ppo", "seed", "steps", "evaluation_seeds"} & set(names)
