"""The archive holds what nothing that was offered dominates."""

from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlaas.errors import InvalidInputError
from rlaas.optimization.archive import Archive

# Whole numbers bring ties and duplicates, floats everything else.
POINTS = st.tuples(st.integers(0, 60), st.integers(1, 5)).flatmap(
    lambda shape: st.one_of(
        hnp.arrays(np.float64, shape, elements=st.integers(0, 4)),
        hnp.arrays(np.float64, shape, elements=st.floats(-1e300, 1e300)),
    )
)


def _sphere(n: int, m: int, seed: int) -> np.ndarray:
    points = np.abs(np.random.default_rng(seed).normal(size=(n, m)))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@given(points=POINTS, cut=st.integers(0, 60))
def test_members_are_what_moocore_keeps(points: np.ndarray, cut: int) -> None:
    archive = Archive(points.shape[1])
    archive.insert_many(points[:cut])
    for point in points[cut:]:
        archive.insert(point)
    # Of equal points the first stays, as with moocore.
    expected = np.flatnonzero(moocore.is_nondominated(points, keep_weakly=False))
    np.testing.assert_array_equal(archive.members, expected)
    np.testing.assert_array_equal(archive.points(), points[expected])
    assert archive.offered == len(points)
    assert len(archive) == len(expected)


@given(points=POINTS, order=st.randoms(use_true_random=False))
def test_order_changes_nothing_but_who_owns_equal_points(points: np.ndarray, order: object) -> None:
    shuffled = list(range(len(points)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Archive(points.shape[1]), Archive(points.shape[1])
    one.insert_many(points)
    other.insert_many(points[shuffled], shuffled)
    np.testing.assert_array_equal(np.unique(one.points(), axis=0), np.unique(other.points(), axis=0))
    np.testing.assert_array_equal(other.points(), points[other.members])


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_large_archives_agree_with_moocore(m: int) -> None:
    # Beyond one block of the scan and the first capacity, with members thrown out and duplicates.
    rng = np.random.default_rng(m)
    points = _sphere(4000, m, seed=m) * rng.uniform(1.0, 1.05, (4000, 1))
    points = np.concatenate([points, points[rng.integers(0, 4000, 500)]])
    rng.shuffle(points)
    archive = Archive(m)
    archive.insert_many(points)
    expected = np.flatnonzero(moocore.is_nondominated(points, keep_weakly=False))
    np.testing.assert_array_equal(archive.members, expected)
    entered = archive.insert_many(points)
    assert not entered.any()
    np.testing.assert_array_equal(archive.members, expected)


def test_insert_says_whether_the_point_entered() -> None:
    archive = Archive(2)
    assert archive.insert([1, 2], payload=40)
    assert not archive.insert([1, 2], payload=41)
    assert not archive.insert([2, 2], payload=42)
    assert archive.insert([2, 1], payload=7)
    assert archive.members.tolist() == [7, 40]
    assert archive.points().tolist() == [[2, 1], [1, 2]]
    # The first enters and is thrown out by the second.
    assert archive.insert_many([[0, 5], [0, 0], [3, 3]], [1, 2, 3]).tolist() == [True, True, False]
    assert archive.members.tolist() == [2]


def test_memory_follows_members_not_offers() -> None:
    archive = Archive(3)
    rng = np.random.default_rng(0)
    for generation in range(200):
        archive.insert_many(rng.random((100, 3)) + 1.0 / (generation + 1))
    sizes = {name: value.nbytes for name, value in vars(archive).items() if isinstance(value, np.ndarray)}
    assert archive.offered == 20_000
    assert sum(sizes.values()) < 20_000 * 8  # less than one number for each point that was offered


@given(points=POINTS)
def test_a_restored_archive_goes_on_alike(points: np.ndarray) -> None:
    half = len(points) // 2
    whole, first = Archive(points.shape[1]), Archive(points.shape[1])
    whole.insert_many(points)
    first.insert_many(points[:half])
    second = Archive(points.shape[1])
    second.restore(first.state())
    second.insert_many(points[half:])
    np.testing.assert_array_equal(second.members, whole.members)
    np.testing.assert_array_equal(second.points(), whole.points())
    assert second.offered == whole.offered


class TestBoxes:
    @settings(max_examples=200)
    @given(
        points=st.tuples(st.integers(0, 60), st.integers(1, 4)).flatmap(
            lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-3, 3, width=16))
        ),
        epsilon=st.sampled_from([0.25, 0.7, 1.0, 5.0]),
    )
    def test_every_offer_is_nearly_matched_and_no_member_is_dominated(self, points: np.ndarray, epsilon: float) -> None:
        archive = Archive(points.shape[1], epsilon=epsilon)
        archive.insert_many(points)
        members = archive.points()
        assert moocore.is_nondominated(points, keep_weakly=True)[archive.members].all()
        boxes = np.floor(members / epsilon)
        assert len(np.unique(boxes, axis=0)) == len(members)
        assert moocore.is_nondominated(boxes, keep_weakly=True).all()
        for point in points:
            assert (members <= point + epsilon).all(axis=1).any()

    def test_size_is_bounded(self) -> None:
        archive = Archive(3, epsilon=[0.1, 0.1, 0.2])
        archive.insert_many(_sphere(20_000, 3, seed=1))
        assert 20 < len(archive) <= 11 * 6

    def test_within_a_box_the_better_then_the_nearer_stays(self) -> None:
        archive = Archive(2, epsilon=1.0)
        assert archive.insert([0.5, 0.5])
        assert not archive.insert([0.6, 0.5])  # dominated
        assert not archive.insert([0.1, 0.8])  # further from the corner
        assert archive.insert([0.1, 0.6])  # nearer
        assert archive.insert([0.1, 0.5])  # dominates
        assert archive.members.tolist() == [4]

    def test_state_of_other_boxes_is_refused(self) -> None:
        fine, coarse = Archive(2, epsilon=0.1), Archive(2, epsilon=1.0)
        fine.insert_many([[0.1, 0.9], [0.9, 0.1]])
        coarse.insert([5.0, 5.0])
        with pytest.raises(InvalidInputError, match="1 of the 2 points are dominated"):
            coarse.restore(fine.state())
        assert coarse.points().tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize(
    ("points", "payloads", "message"),
    [
        ([[1.0, np.nan]], None, r"points\[0, 1\] is nan"),
        ([[1.0, 2.0], [-np.inf, 0.0]], None, r"points\[1, 0\] is -inf"),
        ([[1.0, 2.0, 3.0]], None, r"points have shape \(1, 3\); expected \[n, 2\]"),
        ([1.0, 2.0], None, r"expected \[n, 2\]"),
        ([["a", "b"]], None, "points must be numbers"),
        ([[1.0], [1.0, 2.0]], None, "points must be numbers"),
        ([[1.0, 2.0]], [1, 2], "payloads must be 1 whole numbers"),
        ([[1.0, 2.0]], [0.5], "payloads must be 1 whole numbers"),
        ([[1.0, 2.0]], [True], "payloads must be 1 whole numbers"),
    ],
)
def test_bad_points_change_nothing(points: object, payloads: object, message: str) -> None:
    archive = Archive(2)
    archive.insert([0.0, 3.0])
    with pytest.raises(InvalidInputError, match=message):
        archive.insert_many(points, payloads)  # type: ignore[arg-type]
    assert archive.points().tolist() == [[0.0, 3.0]]
    assert archive.offered == 1


@pytest.mark.parametrize("n_obj", [0, -1, True, 2.0, "2"])
def test_number_of_objectives_is_checked(n_obj: object) -> None:
    with pytest.raises(InvalidInputError, match="n_obj must be a whole number >= 1"):
        Archive(n_obj)  # type: ignore[arg-type]


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf, [0.1], [0.1, 0.0], "wide"])
def test_boxes_are_checked(epsilon: object) -> None:
    with pytest.raises(InvalidInputError, match="epsilon must be"):
        Archive(2, epsilon=epsilon)  # type: ignore[arg-type]


def test_boxes_that_cannot_be_numbered_are_refused() -> None:
    archive = Archive(2, epsilon=1e-300)
    with pytest.raises(InvalidInputError, match="use a larger epsilon"):
        archive.insert([1e300, 0.0])
    assert len(archive) == 0


def test_a_single_point_has_its_own_shape_check() -> None:
    with pytest.raises(InvalidInputError, match=r"point has shape \(1, 2\); expected \(2,\)"):
        Archive(2).insert([[1.0, 2.0]])
