"""Arguments of load, vector_env, evaluate and of the mappings by name: refused by name, in one line."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.toy import ToyScenario

from rlaas import scenarios
from rlaas.errors import ConfigurationError, InvalidInputError, UnknownNameError
from rlaas.scenarios.choices import Choices

TOY = ToyScenario()


@pytest.mark.parametrize("name", [None, 3, ["network5g"], b"recsys"], ids=repr)
def test_a_scenario_that_is_no_name_is_refused_with_the_choices(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be one of network5g, recsys or module:attribute, got") as caught:
        scenarios.load(name)
    assert caught.value.field == "scenario"


@pytest.mark.parametrize("num_envs", ["3", 2.0, True, 0, None], ids=repr)
def test_a_number_of_environments_is_a_whole_number(num_envs: Any) -> None:
    with pytest.raises(InvalidInputError, match="num_envs must be a whole number >= 1") as caught:
        TOY.vector_env(num_envs)
    assert caught.value.field == "num_envs"


@pytest.mark.parametrize("seed", ["1", 1.0, {1, 2}, [1, True], -1], ids=repr)
def test_a_seed_of_the_environments_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(InvalidInputError, match="seed must be a whole number >= 0") as caught:
        TOY.vector_env(2, seed=seed)
    assert caught.value.field == "seed"


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"steps": 1.5}, "steps", "steps must be a whole number >= 1, got 1.5"),
        ({"steps": "9"}, "steps", "steps must be a whole number >= 1, got '9'"),
        ({"steps": 0}, "steps", "steps must be a whole number >= 1, got 0"),
        ({"warmup": -1}, "warmup", "warmup must be a whole number >= 0, got -1"),
        ({"warmup": None}, "warmup", "warmup must be a whole number >= 0, got None"),
        ({"replicas": True}, "replicas", "replicas must be a whole number >= 1, got True"),
        ({"seeds": ()}, "seeds", "seeds must hold at least one seed"),
        ({"seeds": 3}, "seeds", "seeds must be a list of whole numbers >= 0, got 3"),
        ({"seeds": "12"}, "seeds", "seeds must be a list of whole numbers >= 0, got '12'"),
        ({"seeds": [1, 2.0]}, "seeds", r"seeds\[1\] must be a whole number >= 0, got 2.0"),
        ({"seeds": [-1]}, "seeds", r"seeds\[0\] must be a whole number >= 0, got -1"),
        ({"seeds": [4, 1, 4]}, "seeds", "seeds must differ from each other, got 4 more than once"),
    ],
    ids=str,
)
def test_an_evaluation_of_anything_else_is_refused(changes: dict[str, Any], field: str, message: str) -> None:
    given: dict[str, Any] = {"seeds": (1, 2), "steps": 3, "warmup": 0, "replicas": 1, **changes}
    with pytest.raises(InvalidInputError, match=message) as caught:
        scenarios.evaluate(TOY, TOY.baselines["half"].make(), given.pop("seeds"), **given)
    assert caught.value.field == field
    given = {"seeds": (1, 2), "steps": 3, **changes}
    with pytest.raises(InvalidInputError, match=message):
        scenarios.ConfigurationProblem(TOY, "static", given.pop("seeds"), **given)


def test_seeds_may_come_as_a_range_or_an_array() -> None:
    half = TOY.baselines["half"]
    results = [scenarios.evaluate(TOY, half.make(), s, steps=5) for s in ((3, 4), range(3, 5), np.array([3, 4]))]
    for other in results[1:]:
        assert other.seeds == (3, 4)
        np.testing.assert_array_equal(other.values, results[0].values)


@pytest.mark.parametrize(
    ("mapping", "field", "choices"),
    [("baselines", "baseline", "full, half"), ("modes", "mode", "balanced, cheap"), ("tunables", "tunable", "static")],
)
def test_a_name_that_is_not_there_names_the_choices(mapping: str, field: str, choices: str) -> None:
    names = getattr(TOY, mapping)
    with pytest.raises(UnknownNameError, match=f"^unknown {field} 'x'; allowed: {choices}$") as caught:
        names["x"]
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, ConfigurationError)
    assert caught.value.field == field
    assert isinstance(names, Mapping)
    assert "x" not in names
    assert names.get("x") is None
    with pytest.raises(UnknownNameError, match=f"unknown {field} '3'"):
        names[3]


def test_choices_stay_choices_in_copies() -> None:
    choices = Choices("fruit", {"apple": 1})
    for again in (copy.deepcopy(choices), pickle.loads(pickle.dumps(choices))):
        assert again == {"apple": 1}
        with pytest.raises(UnknownNameError, match="unknown fruit 'pear'; allowed: apple"):
            again["pear"]
