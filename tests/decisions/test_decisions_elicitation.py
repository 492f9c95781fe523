"""Pairwise questions: simulated people with known weights, and the geometry against other people's and by sampling."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from rlaas.decisions import resolve
from rlaas.decisions.elicitation import Answer, Comparison, Elicitation
from rlaas.decisions.elicitation.region import WeightRegion
from rlaas.errors import ConflictError, InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, normalise

FloatArray = NDArray[np.float64]


def _front(values: FloatArray | list[list[float]]) -> Front:
    objectives = [
        Objective(name=f"o{j}", unit="ms", direction="minimize", low=0.0, high=10.0) for j in range(len(values[0]))
    ]
    candidates = [
        Candidate(name=f"c{i:02}", kind="policy", mean=tuple(map(float, row)), half_width=(0.0,) * len(row))
        for i, row in enumerate(values)
    ]
    return Front.of("toy", objectives, candidates)


def _round(candidates: int, objectives: int, rng: np.random.Generator) -> Front:
    """Random candidates on a sphere, where every one is best under some weights."""
    points = np.sqrt(rng.dirichlet(np.ones(objectives), candidates))
    return _front(10.0 * (1.0 - points))


def _says(front: Front, weights: FloatArray, a: Candidate, b: Candidate) -> Answer:
    first, second = normalise(front.objectives, [a.mean, b.mean]) @ weights
    return "a" if first >= second else "b"


def _regret(front: Front, weights: FloatArray, candidate: Candidate) -> float:
    utility = normalise(front.objectives, front.values()) @ weights
    return float(utility.max() - normalise(front.objectives, candidate.mean) @ weights)


def _interview(state: Elicitation, weights: FloatArray) -> Elicitation:
    while (question := state.question()) is not None:
        state = state.answer(_says(state.front, weights, question.a, question.b))
    return state


@pytest.mark.parametrize(
    ("candidates", "objectives", "tolerance"), [(20, 2, 0.01), (40, 3, 0.01), (30, 4, 0.0), (12, 6, 0.01)]
)
def test_a_person_gets_the_best_candidate_and_the_region_shrinks_around_their_weights(
    candidates: int, objectives: int, tolerance: float
) -> None:
    for seed in range(2 if objectives > 5 else 4):
        rng = np.random.default_rng([seed, objectives])
        front, weights = _round(candidates, objectives, rng), rng.dirichlet(np.ones(objectives))
        truth = Preference.of(front.objectives, weights)
        state = Elicitation(front, tolerance=tolerance)
        assert state.remaining == 1.0
        while (question := state.question()) is not None:
            following = state.answer(_says(front, weights, question.a, question.b))
            assert following.remaining < state.remaining
            assert following.max_regret <= state.max_regret + 1e-9
            assert {c.name for c in following.possible} <= {c.name for c in state.possible}
            assert following.agrees(truth)
            state = following
        assert state.done
        assert state.agrees(state.result())
        assert _regret(front, weights, state.recommended) <= state.max_regret + 1e-9 <= tolerance + 1e-8
        assert len(state.answers) <= 5 * (objectives - 1) + 1


def test_asking_well_takes_fewer_questions_than_asking_at_random() -> None:
    """Both stop at the same certified regret; the rival draws pairs of the front until then."""
    ours, rivals = 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        front, weights = _round(30, 3, rng), rng.dirichlet(np.ones(3))
        ours += len(_interview(Elicitation(front), weights).answers)
        state = Elicitation(front)
        pairs = list(combinations(front.candidates, 2))
        for k in rng.permutation(len(pairs)):
            if state.max_regret <= state.tolerance:
                break
            a, b = pairs[k]
            state = state.compare(a.name, b.name, _says(front, weights, a, b))
        rivals += len(state.answers)
    assert ours <= 0.5 * rivals, f"{ours} questions against {rivals}"


def test_the_recommendation_is_what_the_resolver_takes_under_the_result_once_one_candidate_is_left() -> None:
    rng = np.random.default_rng(5)
    front, weights = _round(25, 3, rng), rng.dirichlet(np.ones(3))
    state = _interview(Elicitation(front, tolerance=0.0), weights)
    assert state.possible == (state.recommended,)
    mode = Mode(name="asked", preference=state.result())
    assert resolve(front, mode=mode, method="weighted_sum").candidate == state.recommended
    assert state.recommended.name == front.candidates[int(np.argmax(10 - front.values() @ weights))].name


@pytest.mark.parametrize("objectives", [2, 3, 4, 5, 6])
def test_regret_and_possible_candidates_against_brute_force(objectives: int) -> None:
    """Oracle: one linear program per pair for regrets, and weights drawn from the simplex for who can be best."""
    rng = np.random.default_rng(objectives)
    front = _round(9, objectives, rng)
    goodness = normalise(front.objectives, front.values())
    weights = rng.dirichlet(np.ones(objectives))
    state = Elicitation(front, tolerance=0.0)
    while len(state.answers) < 2 and (question := state.question()) is not None:
        state = state.answer(_says(front, weights, question.a, question.b))
    by_name = dict(zip((c.name for c in front.candidates), goodness, strict=True))
    cuts = [(by_name[c.a] - by_name[c.b]) * (1 if c.answer == "a" else -1) for c in state.answers]
    worst = np.array([[_pairwise(goodness[j] - goodness[i], cuts) for j in range(9)] for i in range(9)])
    best = [c.name for c in front.candidates].index(state.recommended.name)
    assert state.max_regret == pytest.approx(worst[best].max(), abs=1e-7)
    if objectives <= 5:
        assert state.max_regret == pytest.approx(worst.max(axis=1).min(), abs=1e-7)
    drawn = rng.dirichlet(np.ones(objectives), 20_000)
    inside = drawn[(drawn @ np.array(cuts).T >= 0).all(axis=1)]
    winners = {front.candidates[i].name for i in (inside @ goodness.T).argmax(axis=1)}
    assert winners <= {c.name for c in state.possible}
    assert state.remaining == pytest.approx(len(inside) / len(drawn), abs=0.015 if objectives <= 5 else 0.06)


def _pairwise(direction: FloatArray, cuts: list[FloatArray]) -> float:
    size = len(direction)
    found = linprog(
        -direction, A_ub=-np.array(cuts), b_ub=np.zeros(len(cuts)), A_eq=np.ones((1, size)), b_eq=[1], bounds=(0, 1)
    )
    return -float(found.fun)


@settings(max_examples=40, deadline=None)
@given(objectives=st.integers(2, 6), cuts=st.integers(0, 8), seed=st.integers(0, 2**32 - 1))
def test_regions_hold_their_samples_and_their_extremes(objectives: int, cuts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.dirichlet(np.ones(objectives))
    normals = rng.standard_normal((cuts, objectives)) * 10.0 ** rng.integers(-3, 3, (cuts, 1))
    # Half-spaces that all keep a ball around one point, some of them nearly touching it.
    bounds = normals @ inside - np.linalg.norm(normals, axis=1) * 10.0 ** rng.uniform(-4, 0, cuts)
    region = WeightRegion(objectives).cut(normals, bounds)
    if region.empty:  # the point itself may lie at the border of the simplex
        assert inside.min() < 1e-5
        return
    assert region.contains(inside)
    assert region.contains(region.centre)
    sample = region.sample(50, rng)
    assert np.allclose(sample.sum(axis=1), 1)
    assert all(region.contains(weights, 1e-7) for weights in sample)
    directions = rng.standard_normal((3, objectives))
    highest = region.highest(directions)
    assert (directions @ sample.T <= highest[:, None] + 1e-6).all()
    assert highest == pytest.approx([region._highest(direction) for direction in directions], abs=1e-6)
    again = np.random.default_rng(seed + 1)
    assert np.array_equal(region.sample(5, again), region.sample(5, np.random.default_rng(seed + 1)))


@pytest.mark.parametrize("objectives", [3, 6])
def test_samples_are_uniform(objectives: int) -> None:
    """The mean of the simplex is its centre, and a weight exceeds 1/2 with probability 2^(1 - m)."""
    sample = WeightRegion(objectives).sample(20_000, np.random.default_rng(1))
    assert sample.mean(axis=0) == pytest.approx(np.full(objectives, 1 / objectives), abs=0.01)
    assert (sample > 0.5).mean(axis=0) == pytest.approx(np.full(objectives, 2.0 ** (1 - objectives)), abs=0.01)


def test_share_is_the_volume() -> None:
    half = WeightRegion(3).cut([[1.0, -1.0, 0.0]], [0.0])
    assert half.exact_share == pytest.approx(0.5)
    corner = WeightRegion(4).cut([[1.0, 0.0, 0.0, 0.0]], [0.5])
    assert corner.exact_share == pytest.approx(1 / 8)
    assert WeightRegion(2).cut([[1.0, 0.0]], [0.75]).exact_share == pytest.approx(0.25)
    assert WeightRegion(6).exact_share is None


def test_equal_leaves_a_band_and_is_not_asked_again() -> None:
    front = _round(12, 3, np.random.default_rng(3))
    state = Elicitation(front, tolerance=0.0, indifference=0.02)
    for _ in range(200):
        question = state.question()
        if question is None:
            break
        asked = {frozenset((c.a, c.b)) for c in state.answers}
        assert frozenset((question.a.name, question.b.name)) not in asked
        state = state.answer("equal")
        difference = normalise(front.objectives, question.a.mean) - normalise(front.objectives, question.b.mean)
        assert abs(difference @ state.result().array()) <= 0.02
    assert state.done
    assert state.remaining < 0.05


TRIANGLE = [[0.0, 9.0, 9.0], [9.0, 0.0, 9.0], [9.0, 9.0, 0.0], [4.0, 4.0, 4.0]]


def test_a_contradiction_names_the_answers_and_can_be_undone() -> None:
    state = Elicitation(_front(TRIANGLE))
    state = state.compare("c00", "c01", "a").compare("c02", "c03", "b").compare("c01", "c02", "a")
    with pytest.raises(
        ConflictError, match=r"answer 4 .*c02 over c00.* contradicts answers 1 .*c00 over c01.*, 3"
    ) as it:
        state.compare("c02", "c00", "a")
    assert it.value.field == "answers"
    assert "c02, c03" not in str(it.value)
    mended = state.undo(1).compare("c02", "c00", "a")
    assert [str(c) for c in mended.answers] == ["c03 over c02", "c01 over c02", "c02 over c00"]
    assert len(state.answers) == 3
    assert [str(c) for c in state.undo().answers] == ["c00 over c01", "c03 over c02"]
    # 4 times as strong a preference as the corners allow: c03 is better than c00 wherever c01 beats c00.
    with pytest.raises(ConflictError, match="c00 over c03"):
        Elicitation(_front(TRIANGLE)).compare("c01", "c00", "a").compare("c00", "c03", "a")
    for number in (0, 4, True, "1"):
        with pytest.raises(InvalidInputError, match="1 to 3"):
            state.undo(number)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="nothing was answered"):
        Elicitation(_front(TRIANGLE)).undo()


def test_what_no_weights_allow_is_said() -> None:
    values = _front(TRIANGLE)
    dominated = Candidate(name="bad", kind="policy", mean=(9.5, 9.5, 9.5), half_width=(0.0,) * 3)
    front = Front(scenario="toy", objectives=values.objectives, candidates=(*values.candidates, dominated))
    state = Elicitation(front)
    assert "bad" not in [c.name for c in state.possible]
    with pytest.raises(ConflictError, match="holds under no weights"):
        state.compare("bad", "c03", "a")
    assert state.compare("c03", "bad", "a").remaining == pytest.approx(1.0)


def test_json_round_trip_and_replay_give_the_same_questions() -> None:
    front = _round(20, 3, np.random.default_rng(8))
    state = Elicitation(front, seed=4, tolerance=0.0).answer_all("ab")  # type: ignore[arg-type]
    back = Elicitation.from_dict(json.loads(json.dumps(state.to_dict())), front)
    assert back.to_dict() == state.to_dict()
    assert back.summary() == state.summary() == json.loads(json.dumps(state.summary()))
    assert Front.from_dict(front.to_dict()) == front
    shuffled = Front(scenario="toy", objectives=front.objectives, candidates=front.candidates[::-1])
    other = Elicitation(shuffled, seed=4, tolerance=0.0).answer("a").answer("b")
    assert other.question() == state.question()
    assert Elicitation.from_dict(state.to_dict(), shuffled).summary() == state.summary()
    question = state.question()
    assert question is not None
    assert question.a.name in question.text
    assert f"o0 {question.a.mean[0]:.4g} ms" in question.text


def test_a_stored_state_that_does_not_fit_is_refused() -> None:
    front = _front(TRIANGLE)
    good = Elicitation(front).answer("a").to_dict()
    changed = _front([[1.0, 9.0, 9.0], *TRIANGLE[1:]])
    with pytest.raises(ConflictError, match="another front"):
        Elicitation.from_dict(good, changed)
    bad: list[tuple[object, str]] = [
        (None, "elicitation"),
        ({**good, "extra": 1}, "elicitation"),
        ({k: v for k, v in good.items() if k != "seed"}, "elicitation"),
        ({**good, "schema_version": 2}, "schema_version"),
        ({**good, "answers": "ab"}, "answers"),
        ({**good, "answers": ["a"]}, "answers[0]"),
        ({**good, "answers": [{"a": "c00", "b": 1, "answer": "a"}]}, "answers[0]"),
        ({**good, "answers": [{"a": "c00", "b": "nobody", "answer": "a"}]}, "answers"),
        ({**good, "answers": [{"a": "c00", "b": "c00", "answer": "a"}]}, "answers"),
        ({**good, "answers": [{"a": "c00", "b": "c01", "answer": "maybe"}]}, "answer"),
        ({**good, "answers": good["answers"] * 201}, "answers"),
        ({**good, "tolerance": True}, "tolerance"),
        ({**good, "tolerance": math.nan}, "tolerance"),
        ({**good, "tolerance": 10**400}, "tolerance"),
        ({**good, "indifference": 0}, "indifference"),
        ({**good, "indifference": "0.1"}, "indifference"),
        ({**good, "seed": -1}, "seed"),
        ({**good, "seed": 1.0}, "seed"),
    ]
    for document, field in bad:
        with pytest.raises(InvalidInputError) as caught:
            Elicitation.from_dict(document, front)
        assert caught.value.field == field, document


def test_bad_answers_and_fronts() -> None:
    state = Elicitation(_front(TRIANGLE))
    with pytest.raises(InvalidInputError, match="allowed: a, b, equal"):
        state.answer("A")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"no candidate 'c09'.*allowed: c00, c01"):
        state.compare("c09", "c00", "a")
    done = _interview(state, np.array([1.0, 0.0, 0.0]))
    with pytest.raises(ConflictError, match="nothing left to ask"):
        done.answer("a")
    with pytest.raises(ConflictError, match="nothing left to ask"):
        state.answer_all("a" * 50)  # type: ignore[arg-type]
    objectives = _front(TRIANGLE).objectives
    with pytest.raises(InvalidInputError, match="no candidate"):
        Elicitation(Front(scenario="toy", objectives=objectives, candidates=()))
    short = Candidate(name="short", kind="policy", mean=(1.0,), half_width=(0.0,))
    with pytest.raises(InvalidInputError, match="has 1 objectives; expected 3"):
        Elicitation(Front(scenario="toy", objectives=objectives, candidates=(short,)))
    with pytest.raises(InvalidInputError, match="normalisation ranges away"):
        Elicitation(_front([[1e200, 0.0], [0.0, 1.0]]))
    with pytest.raises(InvalidInputError, match="unknown preference objective"):
        state.agrees(Preference.of(["o0", "other"], [1, 1]))


@pytest.mark.parametrize("values", [[[3.0]], [[1.0, 2.0]], [[5.0, 5.0], [5.0 - 1e-12, 5.0 + 1e-12]]])
def test_where_there_is_nothing_to_choose_nothing_is_asked(values: list[list[float]]) -> None:
    state = Elicitation(_front(values))
    assert state.question() is None
    assert state.done
    assert state.max_regret == pytest.approx(0.0, abs=1e-9)
    assert sum(state.result().weights) == pytest.approx(1.0)
    assert state.recommended.name == "c00" or len(values) > 1


def test_comparison_text() -> None:
    assert str(Comparison(a="x", b="y", answer="b")) == "y over x"
    assert str(Comparison(a="x", b="y", answer="equal")) == "x as good as y"
