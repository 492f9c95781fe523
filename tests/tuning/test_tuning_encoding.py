"""Spaces as boxes: every place is a point of the space, drawn as Optuna draws it, and points are told apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from pydantic import TypeAdapter
from scipy import stats

from rlaas.tuning import space as spaces
from rlaas.tuning.encoding import BoxEncoding

PARAMETER: TypeAdapter[Any] = TypeAdapter(spaces.Parameter)


def parameters(**documents: dict[str, Any]) -> dict[str, Any]:
    return {name: PARAMETER.validate_python(document) for name, document in documents.items()}


SPACE = parameters(
    learning_rate={"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    gamma={"kind": "uniform", "low": 0.5, "high": 0.99},
    epochs={"kind": "int", "low": 2, "high": 8},
    hold={"kind": "logint", "low": 1, "high": 100},
    steps={"kind": "int", "low": 0, "high": 10**6},
    minibatch={"kind": "choice", "values": [1024, 256, 512]},
    entropy={"kind": "choice", "values": [None, -1.5]},
    hidden={"kind": "choice", "values": [[64, 64], [32], [16]]},
)
FINITE = parameters(
    epochs={"kind": "int", "low": -1, "high": 2},
    hold={"kind": "logint", "low": 1, "high": 20},
    minibatch={"kind": "choice", "values": [1024, 256]},
    hidden={"kind": "choice", "values": [[64, 64], [32], [16]]},
)
WIDTH = 7 + 3  # a variable for each, three for the choice without an order


def rows(width: int) -> st.SearchStrategy[Any]:
    return st.lists(st.floats(0, 1), min_size=width, max_size=width).map(np.array)


@given(rows(WIDTH))
def test_every_place_is_a_point_of_the_space(row: Any) -> None:
    encoding = BoxEncoding(SPACE)
    assert encoding.n_var == WIDTH
    point = encoding.point(row)
    assert point == spaces.within(SPACE, point), "numbers in range, whole ones whole, floats plain"
    for name in ("minibatch", "entropy", "hidden"):
        assert point[name] in SPACE[name].labels()
    assert all(type(value) in (int, float, str) for value in point.values())
    assert len(encoding.cells(row)) == len(SPACE)


def test_the_ends_of_the_box_are_the_ends_of_every_range() -> None:
    encoding = BoxEncoding(SPACE)
    low, high = encoding.point(np.zeros(WIDTH)), encoding.point(np.ones(WIDTH))
    for name in ("learning_rate", "gamma", "epochs", "hold", "steps"):
        assert low[name] == pytest.approx(SPACE[name].low)
        assert high[name] == pytest.approx(SPACE[name].high)
    assert (low["minibatch"], high["minibatch"]) == ("256", "1024"), "numbers are ordered, however they were given"


@pytest.mark.parametrize("name", list(SPACE))
def test_values_are_drawn_as_optuna_draws_them(name: str) -> None:
    import optuna

    encoding = BoxEncoding({name: SPACE[name]})
    rng = np.random.default_rng(3)
    ours = [encoding.point(row)[name] for row in rng.uniform(size=(4_000, encoding.n_var))]
    distribution = spaces.distributions({name: SPACE[name]}, "")[name]
    study = optuna.create_study(sampler=RandomSampler(seed=5))
    theirs = [study.ask({name: distribution}).params[name] for _ in range(1_000)]
    if isinstance(distribution, CategoricalDistribution):
        counts = [ours.count(label) for label in distribution.choices]
        assert stats.chisquare(counts).pvalue > 1e-3
    else:
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_cells_tell_points_apart_and_numbers_name_each_once() -> None:
    encoding = BoxEncoding(FINITE)
    assert encoding.size == 4 * 20 * 2 * 3
    rng = np.random.default_rng(0)
    points, cells = set(), set()
    for number in range(encoding.size):
        row = encoding.row(number, rng)
        assert ((row >= 0) & (row <= 1)).all()
        points.add(tuple(encoding.point(row).values()))
        cells.add(encoding.cells(row))
    assert len(points) == len(cells) == encoding.size


@given(rows(6), rows(6))
def test_points_of_a_finite_space_are_equal_where_their_cells_are(one: Any, other: Any) -> None:
    encoding = BoxEncoding(FINITE)
    assert (encoding.cells(one) == encoding.cells(other)) == (encoding.point(one) == encoding.point(other))


def test_numbers_closer_than_a_thousandth_of_their_range_are_one() -> None:
    encoding = BoxEncoding({"gamma": SPACE["gamma"]})
    assert encoding.size is None
    assert encoding.cells(np.array([0.5001])) == encoding.cells(np.array([0.5004])) == (500,)
    assert encoding.cells(np.array([0.51])) != encoding.cells(np.array([0.5]))


def test_a_place_adds_small_moves_up_until_a_whole_number_changes() -> None:
    encoding = BoxEncoding({"epochs": SPACE["epochs"]})
    place, seen = np.array([0.5]), []
    for _ in range(20):
        place = place + 0.02  # what polynomial mutation moves a variable by
        seen.append(encoding.point(place)["epochs"])
    assert sorted(set(seen)) == [5, 6, 7, 8]
    assert seen == sorted(seen)


def test_a_choice_of_booleans_has_no_order() -> None:
    mixed = parameters(x={"kind": "choice", "values": [True, 3, 0.5]}, y={"kind": "choice", "values": [3, 0.5, 1]})
    assert BoxEncoding({"x": mixed["x"]}).n_var == 3
    assert BoxEncoding({"y": mixed["y"]}).n_var == 1


def test_huge_whole_numbers_keep_to_their_range() -> None:
    space = parameters(a={"kind": "int", "low": -(2**70), "high": 2**70}, b={"kind": "logint", "low": 1, "high": 2**70})
    encoding = BoxEncoding(space)
    for row in np.random.default_rng(1).uniform(size=(200, 2)):
        point = encoding.point(row)
        assert abs(point["a"]) <= 2**70
        assert 1 <= point["b"] <= 2**70
    assert encoding.size is None
    assert math.isclose(encoding.point(np.ones(2))["b"], 2**70)
