"""The compiled parts of a survival, each against the plain way to say the same."""

from __future__ import annotations

import moocore
import numpy as np
import pytest

from rlaas.optimization.niching import associate, preserve_niches
from rlaas.optimization.ranking import non_domination_ranks
from rlaas.optimization.variation import distinct_rows


@pytest.mark.parametrize("n_obj", [2, 3, 5, 15])
@pytest.mark.parametrize("n", [1, 64, 65, 300])
@pytest.mark.parametrize("steps", [None, 1, 3])
def test_ranks_are_those_of_moocore(n_obj: int, n: int, steps: int | None) -> None:
    F = np.random.default_rng(n).random((n, n_obj))
    if steps is not None:  # ties in single objectives, and rows that are equal altogether
        F = np.round(F * steps)
        F[n // 2 :: 3] = F[0]
        F[F == 0] *= -1  # -0 is 0
    expected = np.asarray(moocore.pareto_rank(F))
    np.testing.assert_array_equal(non_domination_ranks(F, n), expected)
    # Only the ranks that complete what is wanted are told; those behind it stay behind.
    wanted = max(1, n // 3)
    found = non_domination_ranks(F, wanted)
    last = np.sort(expected)[wanted - 1]
    np.testing.assert_array_equal(found[expected <= last], expected[expected <= last])
    assert (found[expected > last] > last).all()


def test_a_row_is_associated_the_same_alone_and_among_others() -> None:
    rng = np.random.default_rng(3)
    for n_obj, lines in ((3, 91), (15, 135)):
        F = rng.random((150, n_obj))
        directions = rng.random((n_obj, lines))
        directions[:, 7] = directions[:, 70]  # equal lines: the first one counts
        directions /= np.linalg.norm(directions, axis=0)
        F[:3] = directions[:, 7]
        ideal, nadir = np.zeros(n_obj), np.ones(n_obj)
        nearest, along, beside = associate(F, ideal, nadir, directions)
        assert (nearest[:3] == 7).all()
        alone = [associate(F[i : i + 1], ideal, nadir, directions) for i in range(len(F))]
        for together, one_by_one in zip((nearest, along, beside), zip(*alone, strict=True), strict=True):
            np.testing.assert_array_equal(together, np.concatenate(one_by_one))
        farthest = F @ directions
        assert (farthest[np.arange(150), nearest] >= farthest.max(axis=1) - 1e-12).all()


@pytest.mark.parametrize("lines", [1, 3, 40])  # many candidates a line, and few
def test_an_empty_niche_takes_its_nearest_candidate(lines: int) -> None:
    rng = np.random.default_rng(lines)
    nearest, distance = rng.integers(0, lines, 200), np.round(rng.random(200), 2)
    occupied = np.unique(nearest)
    taken = np.zeros(lines, dtype=np.int64)
    chosen = preserve_niches(nearest, distance, taken, len(occupied), lines, 5)
    assert sorted(nearest[chosen]) == occupied.tolist()
    for row in chosen:
        rivals = np.flatnonzero(nearest == nearest[row])
        assert row == rivals[np.argmin(distance[rivals])]  # of equally near ones the first
    everyone = preserve_niches(nearest, distance, np.zeros(lines, dtype=np.int64), 200, lines, 5)
    assert sorted(everyone) == list(range(200))


def test_of_equal_rows_the_first_is_left() -> None:
    F = np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0], [-0.0, 3.0], [2.0, 1.0]])
    assert distinct_rows(F, np.array([0, 1, 2, 3, 4])).tolist() == [0, 1, 4]
    assert distinct_rows(F, np.array([2, 3])).tolist() == [2, 3]
