"""Fronts hold what no other candidate dominates, and survive JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.fronts import Candidate, Front, non_dominated
from rlaas.objectives import Objective

BOTH = (
    Objective(name="latency", unit="ms", direction="minimize", low=1.0, high=5.0),
    Objective(name="rate", unit="Mbit/s", direction="maximize", low=0.0, high=10.0),
)


def _candidate(name: str, latency: float, rate: float) -> Candidate:
    return Candidate(name=name, kind="policy", mean=(latency, rate), half_width=(0.1, 0.1), seeds=(1, 2))


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(2, 4)), elements=st.integers(0, 5)))
def test_non_dominated_agrees_with_the_definition_and_moocore(points: np.ndarray) -> None:
    def dominated(point: np.ndarray) -> bool:
        return bool(((points <= point).all(axis=1) & (points < point).any(axis=1)).any())

    first = [not (points[:i] == point).all(axis=1).any() for i, point in enumerate(points)]
    expected = [not dominated(point) and new for point, new in zip(points, first, strict=True)]
    np.testing.assert_array_equal(non_dominated(points), expected)
    np.testing.assert_array_equal(non_dominated(points), moocore.is_nondominated(points))


def test_front_drops_the_dominated_and_round_trips() -> None:
    front = Front.of("toy", BOTH, [_candidate("a", 1, 5), _candidate("b", 2, 4), _candidate("c", 3, 9)], "abc")
    assert [c.name for c in front.candidates] == ["a", "c"]
    assert Front.from_dict(json.loads(json.dumps(front.to_dict()))) == front


def test_hyperparameters_are_candidates_too() -> None:
    tuned = Candidate(
        name="lr-3", kind="hyperparameters", mean=(0.5, 9), half_width=(0.1, 0.1), parameters={"lr": 3e-4}
    )
    front = Front.of("toy", BOTH, [_candidate("a", 1, 10), tuned])
    assert Front.from_dict(json.loads(json.dumps(front.to_dict()))) == front
    with pytest.raises(ConfigurationError, match="allowed: configuration, hyperparameters, policy"):
        replace(tuned, kind="plan")  # type: ignore[arg-type]


def test_an_unknown_half_width_survives_json() -> None:
    lone = Candidate(name="lone", kind="policy", mean=(1, 2), half_width=(math.inf, 0.5), seeds=(3,))
    front = Front.of("toy", BOTH, [lone])
    text = json.dumps(front.to_dict(), allow_nan=False)
    assert json.loads(text)["candidates"][0]["half_width"] == [None, 0.5]
    assert Front.from_dict(json.loads(text)) == front


class TestVersion:
    def test_it_names_the_content(self) -> None:
        a, c = _candidate("a", 1, 5), _candidate("c", 3, 9)
        front = Front.of("toy", BOTH, [a, c])
        assert len(front.version) == 16
        assert int(front.version, 16) >= 0
        assert Front.from_dict(json.loads(json.dumps(front.to_dict()))).version == front.version
        assert Front.of("toy", BOTH, [c, a]).version == front.version
        zero, minus_zero = (Front.of("toy", BOTH, [_candidate("a", 0.0 * sign, 5)]) for sign in (1, -1))
        assert zero.version == minus_zero.version

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "b"},
            {"kind": "configuration"},
            {"mean": (1.0, 5.0000001)},
            {"half_width": (0.1, math.inf)},
            {"seeds": (1,)},
            {"parameters": {"größe": 1}},
        ],
    )
    def test_any_change_of_a_candidate_changes_it(self, change: dict[str, object]) -> None:
        candidate = _candidate("a", 1, 5)
        changed = Front.of("toy", BOTH, [replace(candidate, **change)])  # type: ignore[arg-type]
        assert changed.version != Front.of("toy", BOTH, [candidate]).version

    def test_objectives_and_their_order_count(self) -> None:
        front = Front.of("toy", BOTH, [_candidate("a", 1, 5)])
        wider = (BOTH[0], replace(BOTH[1], high=20.0))
        others = [Front.of("toy", objectives, front.candidates) for objectives in (wider, BOTH[::-1])]
        assert len({front.version, *(other.version for other in others)}) == 3

    def test_parameters_that_json_cannot_hold_are_refused(self) -> None:
        for value in (math.nan, object()):
            candidate = replace(_candidate("a", 1, 5), parameters={"x": value})
            with pytest.raises(InvalidInputError, match="parameters that JSON cannot hold"):
                _ = Front.of("toy", BOTH, [candidate]).version


@pytest.mark.parametrize(
    "value", [None, "fast", True, math.nan, math.inf, 10**400, [1.0]], ids=lambda value: str(value)[:9]
)
def test_a_value_that_is_no_finite_number_is_refused_by_its_objective(value: object) -> None:
    document = Front.of("toy", BOTH, [_candidate("a", 1, 5)]).to_dict()
    document["candidates"][0]["mean"][1] = value
    with pytest.raises(InvalidInputError, match=r"candidate 'a': rate must be a finite number, got ") as caught:
        Front.from_dict(document)
    assert caught.value.field == "mean.rate"
    with pytest.raises(
        InvalidInputError, match=r"candidate 'a' has a non-finite objective: mean\[1\] must be a finite"
    ):
        Candidate(name="a", kind="policy", mean=(1.0, value), half_width=(0.1, 0.1))  # type: ignore[arg-type]


def test_a_wrong_number_of_means_is_counted() -> None:
    document = Front.of("toy", BOTH, [_candidate("a", 1, 5)]).to_dict()
    document["candidates"][0].update(mean=[1.0, 2.0, 3.0], half_width=[0.1, 0.1, 0.1])
    with pytest.raises(InvalidInputError, match="candidate 'a' has 3 means; expected 2"):
        Front.from_dict(document)
    lone = Candidate(name="a", kind="policy", mean=(1.0,), half_width=(0.1,))
    with pytest.raises(InvalidInputError, match="candidate 'a' has 1 means; expected 2"):
        Front.of("toy", BOTH, [lone])


def test_bad_fronts_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        Front.of("toy", BOTH, [])
    with pytest.raises(InvalidInputError, match="occurs twice"):
        Front.of("toy", BOTH, [_candidate("a", 1, 5), _candidate("a", 2, 6)])
    with pytest.raises(InvalidInputError, match="non-finite"):
        _candidate("a", float("nan"), 5)
    with pytest.raises(InvalidInputError, match="lacks 'scenario'"):
        Front.from_dict({"schema_version": 1})
    with pytest.raises(InvalidInputError, match="schema_version 2"):
        Front.from_dict({"schema_version": 2})


@pytest.mark.parametrize("default", [[1.0], [1.0, None], [1.0, float("nan")], [1.0, True]])
def test_a_default_that_does_not_fit_is_refused(default: list[object]) -> None:
    document = Front.of("toy", BOTH, [_candidate("a", 1.0, 2.0)]).to_dict()
    with pytest.raises(InvalidInputError, match="expected a finite number for each of 2 objectives"):
        Front.from_dict({**document, "default": default})
    assert Front.from_dict({**document, "default": [2, 1.5]}).default == (2.0, 1.5)
