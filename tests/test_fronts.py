"""Fronts hold what no other candidate dominates, and survive JSON."""

from __future__ import annotations

import json

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlaas.errors import InvalidInputError
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
def test_non_dominated_agrees_with_moocore(points: np.ndarray) -> None:
    np.testing.assert_array_equal(non_dominated(points), moocore.is_nondominated(points))


def test_front_drops_the_dominated_and_round_trips() -> None:
    front = Front.of("toy", BOTH, [_candidate("a", 1, 5), _candidate("b", 2, 4), _candidate("c", 3, 9)], "abc")
    assert [c.name for c in front.candidates] == ["a", "c"]
    assert Front.from_dict(json.loads(json.dumps(front.to_dict()))) == front


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
