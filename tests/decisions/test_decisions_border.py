from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from decision_kit import Columns, curved_front, front_of, mode_of, weight_vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.decisions import METHODS, border, resolve
from rlaas.errors import InvalidInputError
from rlaas.objectives import Objective, Rule

UP = tuple(Objective(name=n, unit="", direction="maximize", low=0, high=1) for n in "ab")
FRONT = front_of([[1.0, 0.0], [0.75, 0.75], [0.0, 1.0]], UP)
A, B = mode_of([1, 0], name="all a"), mode_of([0, 1], name="all b")


def test_crossings_by_hand() -> None:
    found = border(FRONT, A, B, "weighted_sum")
    assert (found.first, found.last) == ("c00", "c02")
    assert [(c.before, c.after) for c in found.crossings] == [("c00", "c01"), ("c01", "c02")]
    assert [c.at for c in found.crossings] == pytest.approx([0.25, 0.75])
    assert found.crossings[0].weights == pytest.approx({"a": 0.75, "b": 0.25})
    assert str(found) == (
        "From all a to all b: at 25 % of the way (a 0.75, b 0.25) c00 gives way to c01; "
        "at 75 % of the way (a 0.25, b 0.75) c01 gives way to c02."
    )
    document = json.loads(json.dumps(found.to_dict()))
    assert document["crossings"][1]["after"] == "c02"
    assert document["front_version"] == resolve(FRONT, mode=A).certificate.front_version


def test_one_candidate_all_the_way() -> None:
    found = border(front_of([[0.2, 0.9], [0.4, 0.1]]), A, B)
    assert found.crossings == ()
    assert str(found) == "c00 stays the choice all the way from all a to all b."


def test_two_changes_within_one_step_are_told_apart() -> None:
    """c01 wins between shares .5000 and .5004 only, inside the step of 1/1000 from .5 to .501."""
    goodness = [[1.0, 0.0], [0.5002, 0.4998], [0.0, 0.9992]]
    found = border(front_of(goodness, UP), A, B, "weighted_sum")
    steps = [(c.before, c.after) for c in found.crossings]
    assert steps[0][0] == "c00"
    assert steps[-1][1] == "c02"
    assert all(first[1] == second[0] for first, second in itertools.pairwise(steps))


@settings(deadline=None, max_examples=40)
@given(
    weights=st.tuples(weight_vectors(3), weight_vectors(3)),
    method=st.sampled_from(sorted(set(METHODS) - {"knee"})),
    seed=st.integers(0, 50),
)
def test_resolving_on_both_sides_agrees(
    weights: tuple[tuple[float, ...], tuple[float, ...]], method: str, seed: int
) -> None:
    front = curved_front(10, seed)
    a, b = (mode_of(w, name=str(i)) for i, w in enumerate(weights))
    found = border(front, a, b, method)
    assert found.first == resolve(front, mode=a, method=method).candidate.name
    assert found.last == resolve(front, mode=b, method=method).candidate.name
    names = [found.first, *(c.after for c in found.crossings)]
    assert names[-1] == found.last
    places = [c.at for c in found.crossings]
    assert places == sorted(places)
    start, end = a.preference.array(), b.preference.array()
    for crossing in found.crossings:
        for at, name in ((crossing.at - 1e-7, crossing.before), (crossing.at + 1e-7, crossing.after)):
            alone = all(abs(at - other) > 1e-6 for other in places if other != crossing.at)
            if 0 < at < 1 and alone:
                beside = mode_of((1 - at) * start + at * end)
                assert resolve(front, mode=beside, method=method).candidate.name == name
    for crossing in found.crossings:
        assert sum(crossing.weights.values()) == pytest.approx(1)
        assert crossing.before != crossing.after


def test_rules_of_both_modes_hold_all_the_way() -> None:
    ruled = mode_of([0, 1], Rule(objective="a", at_least=0.5), name="ruled")
    assert border(FRONT, A, ruled, "weighted_sum").last == "c01"
    prepared = Columns(((1.0,), (0.0,), (0.0,)), ("not c00",))
    assert border(FRONT, A, B, "weighted_sum", rules=prepared).first == "c01"


def test_bad_requests_name_the_field() -> None:
    with pytest.raises(InvalidInputError, match="unknown method 'vote'"):
        border(FRONT, A, B, "vote")
    with pytest.raises(InvalidInputError, match="mode 'mode' has 3 weights"):
        border(FRONT, A, mode_of([1, 1, 1]))


def test_weights_at_the_ends_are_the_modes() -> None:
    """Rounding at an end must not leave the simplex."""
    front = curved_front(6)
    a, b = mode_of([0.1, 0.2, 0.7]), mode_of([0.7, 0.2, 0.1])
    for crossing in border(front, a, b).crossings:
        assert np.all(np.array(list(crossing.weights.values())) >= 0)
