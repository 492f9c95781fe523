from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from decision_kit import NAMES, front_of, mode_of, objectives_of, tables, weight_vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.decisions import (
    METHODS,
    Knee,
    Lexicographic,
    Method,
    Nash,
    Topsis,
    Vikor,
    WeightedSum,
    method_named,
    resolve,
)
from rlaas.decisions.methods import DecisionMatrix
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective, Preference

BOTH_UP = tuple(Objective(name=n, unit="", direction="maximize", low=0, high=1) for n in "ab")


def _matrix(rows: list[list[float]], objectives: tuple[Objective, ...] = BOTH_UP) -> DecisionMatrix:
    return DecisionMatrix.of(objectives, front_of(rows, objectives).candidates)


def _scores(method: Method, rows: list[list[float]], weights: list[float]) -> list[float]:
    return method.scores(_matrix(rows), np.array([weights]))[0].tolist()


class TestVikor:
    """The example of the class: f* = (1, 1), f- = (0, 0), weights 1/2."""

    ROWS: ClassVar = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]]

    def test_by_hand(self) -> None:
        figures = Vikor().distances(_matrix(self.ROWS), np.array([0.5, 0.5]))
        np.testing.assert_allclose(figures["S"], [0.5, 0.5, 0.4])
        np.testing.assert_allclose(figures["R"], [0.5, 0.5, 0.2])
        np.testing.assert_allclose(figures["Q"], [1, 1, 0])

    def test_v_weighs_the_group_against_the_single(self) -> None:
        rows = [[1.0, 0.1], [0.5, 0.5], [0.0, 1.0]]
        assert np.argmax(_scores(Vikor(v=1), rows, [0.5, 0.5])) == 0
        assert np.argmax(_scores(Vikor(v=0), rows, [0.5, 0.5])) == 1

    def test_conditions_are_named(self) -> None:
        (note,) = Vikor().notes(_matrix(self.ROWS), np.array([0.5, 0.5]))
        assert note == ("C1 (acceptable advantage) is met, C2 (acceptable stability) is met; compromise set: c02")
        near = [[0.6, 0.6], [0.61, 0.57], [1.0, 0.0], [0.0, 1.0]]
        (note,) = Vikor().notes(_matrix(near), np.array([0.5, 0.5]))
        assert "C1 (acceptable advantage) is not met" in note
        assert note.endswith("compromise set: c00, c01")


class TestKnee:
    def test_the_bulge_wins(self) -> None:
        rows = [[0.0, 1.0], [0.3, 0.75], [0.7, 0.7], [0.75, 0.3], [1.0, 0.0]]
        scores = _scores(Knee(), rows, [0.5, 0.5])
        assert int(np.argmax(scores)) == 2

    def test_weights_stretch_the_axes(self) -> None:
        rows = [[0.0, 1.0], [0.45, 0.9], [0.9, 0.45], [1.0, 0.0]]
        assert int(np.argmax(_scores(Knee(), rows, [0.8, 0.2]))) == 2
        assert int(np.argmax(_scores(Knee(), rows, [0.2, 0.8]))) == 1

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_is_the_expected_marginal_utility(self, size: int) -> None:
        """Against 200,000 random utilities, candidate by candidate as the paper defines it."""
        rng = np.random.default_rng(size)
        goodness = np.abs(rng.normal(size=(9, size)))
        goodness /= np.linalg.norm(goodness, axis=1, keepdims=True)
        weights = rng.dirichlet(np.ones(size))
        utilities = (rng.dirichlet(np.ones(size), 200_000) * weights) @ goodness.T
        expected = [
            np.maximum(utilities[:, i] - np.delete(utilities, i, axis=1).max(axis=1), 0).mean() for i in range(9)
        ]
        objectives = tuple(Objective(name=n, unit="", direction="maximize", low=0, high=1) for n in NAMES[:size])
        matrix = DecisionMatrix.of(objectives, front_of(goodness, objectives).candidates)
        figures = Knee().distances(matrix, weights)
        np.testing.assert_allclose(figures["marginal_utility"], expected, atol=0.08 * max(expected))
        shares = np.bincount(utilities.argmax(axis=1), minlength=9) / len(utilities)
        np.testing.assert_allclose(figures["best_share"], shares, atol=0.03)

    def test_the_best_in_an_objective_is_no_knee(self) -> None:
        """However far ahead it is under utilities that see little else."""
        rows = [[0.0, 1.0], [0.1, 0.2], [0.15, 0.1], [1.0, 0.0]]
        scores = _scores(Knee(), rows, [0.5, 0.5])
        assert max(scores) == scores[0] == scores[3] == 0.0

    @pytest.mark.parametrize("rows", [[[0.2, 0.9], [0.9, 0.3]], [[0.9, 0.9], [0.1, 0.3], [0.2, 0.2]]])
    def test_without_a_knee_the_weighted_sum_decides_and_it_is_said(self, rows: list[list[float]]) -> None:
        choice = resolve(front_of(rows, BOTH_UP), mode=mode_of([0.7, 0.3]), method="knee")
        expected = resolve(front_of(rows, BOTH_UP), mode=mode_of([0.7, 0.3]), method="weighted_sum")
        assert choice.candidate == expected.candidate
        assert choice.certificate.notes == ("the front has no knee between its extremes, so the weighted sum decided",)


class TestLexicographic:
    def test_order_by_weight(self) -> None:
        rows = [[1.0, 0.0], [0.0, 1.0]]
        assert np.argmax(_scores(Lexicographic(), rows, [0.6, 0.4])) == 0
        assert np.argmax(_scores(Lexicographic(), rows, [0.4, 0.6])) == 1

    def test_within_the_tolerance_the_next_objective_decides(self) -> None:
        rows = [[0.80, 0.1], [0.795, 0.8], [0.7, 1.0]]
        assert np.argmax(_scores(Lexicographic(), rows, [0.6, 0.4])) == 1
        assert np.argmax(_scores(Lexicographic(tolerance=0.0), rows, [0.6, 0.4])) == 0
        assert np.argmax(_scores(Lexicographic(tolerance=0.15), rows, [0.6, 0.4])) == 2

    def test_equal_weights_are_one_level(self) -> None:
        (note,) = Lexicographic().notes(_matrix([[1.0, 0.0]]), np.array([0.5, 0.5]))
        assert note == "order of objectives: a = b, each within 0.01 of its range"
        assert np.argmax(_scores(Lexicographic(), [[1.0, 0.0], [0.6, 0.6], [0.0, 1.0]], [0.5, 0.5])) == 1

    @settings(deadline=None, max_examples=40)
    @given(st.data())
    def test_winner_is_that_of_plain_elimination(self, data: st.DataObject) -> None:
        rows = data.draw(tables())
        weights = data.draw(weight_vectors(rows.shape[1]))
        matrix = DecisionMatrix.of(objectives_of(rows.shape[1]), front_of(rows).candidates)
        share = np.array(weights) / sum(weights)
        left = list(range(len(rows)))
        for weight in sorted({w for w in weights if w}, reverse=True):
            columns = [j for j, w in enumerate(weights) if w == weight]
            level = {i: np.mean([matrix.goodness[i, j] for j in columns]) for i in left}
            left = [i for i in left if level[i] >= max(level.values()) - 0.01]
        total = {i: matrix.goodness[i] @ share for i in left}
        expected = next(i for i in left if total[i] >= max(total.values()) - 1e-12)
        choice = resolve(front_of(rows), mode=mode_of(weights), method="lexicographic")
        assert choice.candidate.name == f"c{expected:02}"


class TestNash:
    def test_product_of_gains(self) -> None:
        rows = [[0.9, 0.3], [0.6, 0.6], [0.3, 0.9]]
        method = Nash(disagreement={"a": 0.2, "b": 0.2})
        scores = _scores(method, rows, [0.5, 0.5])
        assert scores == pytest.approx([math.sqrt(0.7 * 0.1), 0.4, math.sqrt(0.7 * 0.1)])
        assert _scores(method, rows, [0.9, 0.1])[0] == pytest.approx(0.7**0.9 * 0.1**0.1)

    def test_the_default_of_a_front_is_where_bargaining_ends_without_an_agreement(self) -> None:
        front = front_of([[0.1, 0.15], [0.7, 0.3]])
        names = [o.name for o in front.objectives]
        values = [o.low + (0.2 if o.sign > 0 else 0.8) * (o.high - o.low) for o in front.objectives]
        known = replace(front, default=tuple(values))
        mode = mode_of([0.9, 0.1])
        given_ = resolve(front, mode=mode, method="nash", disagreement=dict(zip(names, values, strict=True)))
        found = resolve(known, mode=mode, method="nash")
        assert found.scores == given_.scores
        assert found.candidate.name == given_.candidate.name != resolve(front, mode=mode, method="nash").candidate.name
        assert "better than the scenario's default" in found.certificate.notes[0]
        assert known.version != front.version
        assert Front.from_dict(known.to_dict()) == known

    def test_who_loses_against_the_disagreement_is_out(self) -> None:
        rows = [[1.0, 0.15], [0.3, 0.3]]
        method = Nash(disagreement={"a": 0.2, "b": 0.2})
        assert _scores(method, rows, [0.9, 0.1]) == pytest.approx([-0.05, 0.1])
        (note,) = method.notes(_matrix(rows), np.array([0.9, 0.1]))
        assert note == "1 of 2 candidates are better than the disagreement point for every objective with a weight"

    def test_without_agreement_the_least_loss_decides_and_it_is_said(self) -> None:
        rows = [[1.0, 0.0], [0.15, 0.18], [0.0, 1.0]]
        choice = resolve(
            front_of(rows, BOTH_UP), mode=mode_of([0.5, 0.5]), method="nash", disagreement={"a": 0.2, "b": 0.2}
        )
        assert choice.candidate.name == "c01"
        assert (
            "there is no Nash solution: the least loss of the worst served objective decided"
            in (choice.certificate.notes[0])
        )
        assert choice.certificate.score == pytest.approx(-0.05)

    def test_an_objective_without_weight_has_no_veto(self) -> None:
        assert _scores(Nash(disagreement={"a": 0.2, "b": 0.2}), [[0.9, 0.0], [0.3, 0.3]], [1.0, 0.0])[0] > 0

    def test_directions_and_units_of_the_disagreement(self) -> None:
        objectives = (
            Objective(name="a", unit="ms", direction="minimize", low=0, high=100),
            Objective(name="b", unit="Mbit/s", direction="maximize", low=0, high=20),
        )
        matrix = _matrix([[40.0, 15.0]], objectives)
        figures = Nash(disagreement={"a": 60.0, "b": 10.0}).distances(matrix, np.array([0.5, 0.5]))
        assert figures["least_gain"].tolist() == pytest.approx([0.2])
        assert figures["mean_gain"].tolist() == pytest.approx([0.225])

    @settings(deadline=None)
    @given(st.data())
    def test_solution_does_not_depend_on_the_ranges(self, data: st.DataObject) -> None:
        """Nash's axiom of invariance under affine maps of the utilities."""
        rows = data.draw(tables(size=2))
        scale = data.draw(st.tuples(*[st.floats(0.2, 5)] * 2))
        weights = np.array([data.draw(weight_vectors(2))], dtype=float)
        weights /= weights.sum()
        stretched = tuple(
            Objective(name=o.name, unit="", direction=o.direction, low=-s, high=3 * s)
            for o, s in zip(objectives_of(2), scale, strict=True)
        )
        method = Nash(disagreement={"a": 0.9, "b": 0.1})
        plain = method.scores(DecisionMatrix.of(objectives_of(2), front_of(rows).candidates), weights)[0]
        other = method.scores(DecisionMatrix.of(stretched, front_of(rows).candidates), weights)[0]
        inside = plain > 0
        assert (inside == (other > 0)).all()
        if inside.any():
            np.testing.assert_allclose(other[inside] / other.max(), plain[inside] / plain.max(), rtol=1e-9)


@pytest.mark.parametrize("name", sorted(METHODS))
class TestEveryMethod:
    def test_answers_by_its_name(self, name: str) -> None:
        assert method_named(name).name == name
        assert resolve(front_of([[0.5, 0.5]]), mode=mode_of([1, 1]), method=name).certificate.method == name

    @settings(deadline=None, max_examples=30)
    @given(data=st.data())
    def test_many_weights_at_once_score_as_one_by_one(self, name: str, data: st.DataObject) -> None:
        rows = data.draw(tables())
        drawn = data.draw(st.lists(weight_vectors(rows.shape[1]), min_size=1, max_size=4))
        weights = np.array(drawn, dtype=float) / np.sum(drawn, axis=1, keepdims=True)
        matrix = DecisionMatrix.of(objectives_of(rows.shape[1]), front_of(rows).candidates)
        method = method_named(name)
        together = method.scores(matrix, weights)
        assert together.shape == (len(weights), len(rows))
        for row, vector in zip(together, weights, strict=True):
            np.testing.assert_allclose(row, method.scores(matrix, vector[None])[0], atol=1e-12)
            for figures in method.distances(matrix, vector).values():
                assert np.isfinite(figures).all()
                assert figures.shape == (len(rows),)

    @settings(deadline=None, max_examples=25)
    @given(data=st.data())
    def test_order_of_the_front_does_not_matter(self, name: str, data: st.DataObject) -> None:
        rows = data.draw(tables(max_rows=5))
        mode = mode_of(data.draw(weight_vectors(rows.shape[1])))
        front = front_of(rows)
        shuffled = Front(
            scenario="toy", objectives=front.objectives, candidates=tuple(data.draw(st.permutations(front.candidates)))
        )
        first, second = (resolve(f, mode=mode, method=name) for f in (front, shuffled))
        assert second.candidate == first.candidate
        assert second.scores == first.scores
        documents = [choice.certificate.to_dict() for choice in (first, second)]
        for document in documents:  # a front in another order says something else and has another version
            del document["front_version"]
        assert documents[0] == documents[1]

    @settings(deadline=None, max_examples=25)
    @given(data=st.data())
    def test_units_do_not_matter(self, name: str, data: st.DataObject) -> None:
        """Powers of two change no rounding, so the answer has to be the same bit for bit."""
        rows = data.draw(tables())
        size = rows.shape[1]
        mode = mode_of(data.draw(weight_vectors(size)))
        powers = 2.0 ** np.array(data.draw(st.lists(st.integers(-8, 8), min_size=size, max_size=size)))
        scaled = tuple(
            Objective(name=o.name, unit="", direction=o.direction, low=0, high=float(power))
            for o, power in zip(objectives_of(size), powers, strict=True)
        )
        plain = resolve(front_of(rows), mode=mode, method=name)
        other = resolve(front_of(rows * powers, scaled), mode=mode, method=name)
        assert other.scores == plain.scores
        assert other.candidate.name == plain.candidate.name

    @settings(deadline=None, max_examples=30)
    @given(data=st.data())
    def test_no_candidate_that_is_better_everywhere_loses(self, name: str, data: st.DataObject) -> None:
        rows = data.draw(tables(size=3))
        weights = data.draw(weight_vectors(3))
        matrix = DecisionMatrix.of(objectives_of(3), front_of(rows).candidates)
        chosen = int(resolve(front_of(rows), mode=mode_of(weights), method=name).candidate.name[1:])
        if name != "lexicographic":
            assert not (matrix.goodness > matrix.goodness[chosen] + 1e-9).all(axis=1).any()
        else:  # within its tolerance differences do not count
            assert not (matrix.goodness > matrix.goodness[chosen] + 0.0101).all(axis=1).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vikor(v=1.5), r"v must be a number in \[0, 1\], got 1.5"),
        (lambda: Vikor(v=math.nan), r"v must be a number in \[0, 1\], got nan"),
        (lambda: Vikor(v=True), r"v must be a number in \[0, 1\], got True"),
        (lambda: Lexicographic(tolerance=-1), "tolerance must be a finite number >= 0"),
        (lambda: Lexicographic(tolerance=math.inf), "tolerance must be a finite number >= 0"),
        (lambda: Topsis(normalisation="sum"), "unknown normalisation 'sum'; allowed: minmax, range, vector"),
        (lambda: Nash(disagreement={"a": math.nan}), "disagreement.a must be a finite number, got nan"),
        (lambda: Nash(disagreement={"a": "1"}), "disagreement.a must be a finite number, got '1'"),  # type: ignore[dict-item]
        (lambda: method_named("électre"), "unknown method 'électre'; allowed: knee, lexicographic, nash"),
        (lambda: method_named("knee", normalisation="sum"), "unknown normalisation 'sum'"),
    ],
)
def test_bad_settings_name_the_field(make: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"a": 0.1}, "disagreement lacks b; it needs a value for each of a, b"),
        ({"a": 0.1, "b": 0.1, "z": 0.1}, "unknown disagreement objective 'z'; allowed: a, b"),
    ],
)
def test_a_disagreement_over_other_objectives_is_refused(point: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        resolve(front_of([[0.5, 0.5]]), mode=mode_of([1, 1]), method="nash", disagreement=point)


def test_values_that_overflow_their_range_are_refused() -> None:
    narrow = (Objective(name="a", unit="", direction="maximize", low=0, high=1e-300), *objectives_of(2)[1:])
    with pytest.raises(
        InvalidInputError, match=r"candidate 'c01': a is 1e\+300; a choice needs values that are finite"
    ):
        resolve(front_of([[0.0, 0.0], [1e300, 0.0]], narrow), mode=mode_of([1, 1]))


def test_a_candidate_of_another_width_is_refused() -> None:
    odd = Candidate(name="odd", kind="policy", mean=(1.0,), half_width=(0.0,))
    front = Front(scenario="toy", objectives=objectives_of(2), candidates=(odd,))
    with pytest.raises(InvalidInputError, match=r"candidate 'odd' has 1 objectives; expected 2 \(a, b\)"):
        resolve(front, mode=mode_of([1, 1]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_candidate_with_an_unknown_objective_cannot_enter_a_front(value: float) -> None:
    with pytest.raises(InvalidInputError, match="candidate 'c00' has a non-finite objective"):
        front_of([[value, 0.0]])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((math.nan, 1.0), "preference.a must be finite and >= 0, got nan"),
        ((-0.5, 1.5), "preference.a must be finite and >= 0, got -0.5"),
        ((0.0, 0.0), "preference sums to 0"),
        ((1.0,), "has 1 weights"),
    ],
)
def test_a_preference_that_nobody_checked_is_checked(weights: tuple[float, ...], message: str) -> None:
    mode = mode_of([1, 1])
    broken = type(mode)(name="mode", preference=Preference(("a", "b"), weights))
    with pytest.raises(InvalidInputError, match=message):
        resolve(front_of([[0.5, 0.5]]), mode=broken)


def test_weighted_sum_shortfall() -> None:
    figures = WeightedSum().distances(_matrix([[1.0, 0.0], [0.5, 0.5]]), np.array([0.25, 0.75]))
    assert figures["shortfall"].tolist() == pytest.approx([0.375, 0.125])
