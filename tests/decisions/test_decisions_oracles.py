"""Methods and resolver beside pymcdm and scikit-criteria on 1,000 random decision matrices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from decision_kit import front_of, mode_of, objectives_of

from rlaas.decisions import METHODS, Topsis, Vikor, WeightedSum, resolve
from rlaas.decisions.methods import DecisionMatrix
from rlaas.objectives import Objective

pymcdm = pytest.importorskip("pymcdm")
MATRICES = 1000

# pymcdm warns of candidates that dominate or are dominated, which random matrices have.
pytestmark = pytest.mark.filterwarnings("ignore:Alternatives with indices:UserWarning")


def _cases(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[Objective, ...]]]:
    """Positive values of mixed magnitudes, weights, and objectives whose ranges are the columns' own."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        n, m = int(rng.integers(2, 13)), int(rng.integers(2, 7))
        values = rng.uniform(0.1, 1.0, (n, m)) * 10.0 ** rng.integers(-3, 4, m)
        objectives = tuple(
            Objective(name=o.name, unit="", direction=o.direction, low=float(low), high=float(high))
            for o, low, high in zip(objectives_of(m), values.min(axis=0), values.max(axis=0), strict=True)
        )
        yield values, rng.dirichlet(np.ones(m)), objectives


def _signs(objectives: tuple[Objective, ...]) -> np.ndarray:
    return np.array([o.sign for o in objectives])


def test_scores_equal_pymcdm() -> None:
    from pymcdm.methods import TOPSIS, VIKOR, WSM
    from pymcdm.normalizations import minmax_normalization, vector_normalization

    vector, minmax = TOPSIS(vector_normalization), TOPSIS(minmax_normalization)
    vikor, weighted_sum = VIKOR(v=0.3), WSM(minmax_normalization)
    for values, weights, objectives in _cases(MATRICES, seed=1):
        matrix = DecisionMatrix.of(objectives, front_of(values, objectives).candidates)
        signs = _signs(objectives)
        ours = {
            name: method.scores(matrix, weights[None])[0]
            for name, method in {
                "vector": Topsis(normalisation="vector"),
                "minmax": Topsis(normalisation="minmax"),
                "vikor": Vikor(v=0.3),
                "weighted_sum": WeightedSum(),
            }.items()
        }
        np.testing.assert_allclose(ours["vector"], vector(values, weights, signs), atol=1e-9)
        np.testing.assert_allclose(ours["minmax"], minmax(values, weights, signs), atol=1e-9)
        np.testing.assert_allclose(ours["weighted_sum"], weighted_sum(values, weights, signs), atol=1e-9)
        np.testing.assert_allclose(1 - ours["vikor"], vikor(values, weights, signs), atol=1e-8)


def test_choices_equal_pymcdm() -> None:
    """Every matrix is resolved by one method in turn, certificate and all."""
    from pymcdm.methods import TOPSIS, VIKOR, WSM
    from pymcdm.normalizations import minmax_normalization, vector_normalization

    turns = [
        ("topsis", "vector", TOPSIS(vector_normalization), 1),
        ("topsis", "minmax", TOPSIS(minmax_normalization), 1),
        ("vikor", "vector", VIKOR(), -1),
        ("weighted_sum", "vector", WSM(minmax_normalization), 1),
    ]
    for number, (values, weights, objectives) in enumerate(_cases(MATRICES, seed=2)):
        name, normalisation, theirs, better = turns[number % len(turns)]
        front = front_of(values, objectives)
        choice = resolve(front, mode=mode_of(weights), method=name, normalisation=normalisation)
        scores = better * theirs(values, weights, _signs(objectives))
        order = np.argsort(-scores)
        assert choice.candidate.name == front.candidates[order[0]].name
        assert choice.certificate.runner_up == front.candidates[order[1]].name


def test_scores_and_compromise_sets_equal_scikit_criteria() -> None:
    skcriteria = pytest.importorskip("skcriteria")
    from skcriteria.agg.similarity import TOPSIS
    from skcriteria.agg.simple import WeightedSumModel
    from skcriteria.agg.vikor import VIKOR
    from skcriteria.preprocessing.scalers import VectorScaler

    scaler, closeness, vikor, weighted_sum = VectorScaler(target="matrix"), TOPSIS(), VIKOR(), WeightedSumModel()
    for values, weights, objectives in _cases(MATRICES, seed=3):
        matrix = DecisionMatrix.of(objectives, front_of(values, objectives).candidates)
        table = skcriteria.mkdm(values, objectives=[int(s) for s in _signs(objectives)], weights=weights)
        goodness = skcriteria.mkdm(matrix.goodness, objectives=[1] * len(objectives), weights=weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = closeness.evaluate(scaler.transform(table)).e_.similarity
            compromise = vikor.evaluate(table)
            additive = weighted_sum.evaluate(goodness).e_.score
        np.testing.assert_allclose(Topsis(normalisation="vector").scores(matrix, weights[None])[0], expected, atol=1e-9)
        np.testing.assert_allclose(
            Topsis().scores(matrix, weights[None])[0], closeness.evaluate(goodness).e_.similarity, atol=1e-9
        )
        np.testing.assert_allclose(WeightedSum().scores(matrix, weights[None])[0], additive, atol=1e-9)
        ours = Vikor().distances(matrix, weights)
        np.testing.assert_allclose(ours["Q"], compromise.e_.q_k, atol=1e-8)
        np.testing.assert_allclose(ours["S"], compromise.e_.s_k, atol=1e-9)
        np.testing.assert_allclose(ours["R"], compromise.e_.r_k, atol=1e-9)
        (note,) = Vikor().notes(matrix, weights)
        named = set(note.split("compromise set: ")[1].split(", "))
        assert named == {f"c{i:02}" for i in np.flatnonzero(compromise.rank_ == 1)}


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize(
    "rows",
    [
        [[0.3, 0.7]],
        [[0.3, 0.7]] * 4,
        [[0.0, 0.0]] * 2,
        [[0.5, 0.1], [0.5, 0.9], [0.5, 0.4]],
        [[0.5, 0.5], [0.5, 0.5], [0.1, 0.2]],
        [[1e300, -1e300], [-1e300, 1e300], [0.0, 0.0]],
        [[5e-324, 0.0], [0.0, 5e-324]],
        [[-3.0, -2.0], [-1.0, -5.0]],
    ],
    ids=["one", "identical", "zeros", "constant", "twins", "huge", "tiny", "negative"],
)
def test_degenerate_matrices_have_an_answer(method: str, rows: list[list[float]]) -> None:
    """Where pymcdm divides 0 by 0 or refuses."""
    choice = resolve(front_of(rows), mode=mode_of([0.6, 0.4]), method=method)
    assert np.isfinite(list(choice.scores.values())).all()
    best = max(choice.scores.values())
    tied = [name for name, score in choice.scores.items() if score >= best - 1e-12]
    assert choice.candidate.name == min(tied)
