from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.indicators.hv import HV
from pymoo.indicators.igd import IGD

from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective
from rlaas.optimization import expected_utility, front_hypervolume, hypervolume, igd, sparsity

OBJECTIVES = (
    Objective(name="latency", unit="", direction="minimize", low=0.5, high=1.5),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0, high=20),
)


def test_hypervolume_of_known_figures() -> None:
    assert hypervolume([[1, 3], [2, 2], [3, 1]], [4, 4]) == pytest.approx(6.0)
    assert hypervolume([[0, 0, 0]], [2, 3, 4]) == pytest.approx(24.0)
    assert hypervolume([[5, 0], [4, 4]], [4, 4]) == 0.0  # nothing beyond the reference counts
    assert hypervolume([], [4, 4]) == 0.0


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_hypervolume_agrees_with_pymoo(m: int) -> None:
    points = np.random.default_rng(m).uniform(0, 1.2, size=(40, m))
    reference = np.full(m, 1.1)
    assert hypervolume(points, reference) == pytest.approx(HV(ref_point=reference)(points), rel=1e-9)


def test_hypervolume_beyond_five_objectives_is_close_to_exact() -> None:
    points = np.random.default_rng(0).uniform(0, 1, size=(20, 6))
    exact = moocore.hypervolume(points, ref=np.ones(6))
    assert hypervolume(points, np.ones(6)) == pytest.approx(exact, rel=5e-3)
    assert hypervolume(points, np.ones(6)) == hypervolume(points, np.ones(6))


@settings(deadline=None)
@given(arrays(np.float64, (8, 3), elements=st.floats(0, 1)), arrays(np.float64, 3, elements=st.floats(0, 1)))
def test_hypervolume_never_falls_when_a_point_is_added(points: np.ndarray, extra: np.ndarray) -> None:
    before = hypervolume(points, np.ones(3))
    after = hypervolume(np.vstack([points, extra]), np.ones(3))
    assert 0 <= before <= after + 1e-12
    assert after <= 1 + 1e-12


def test_front_hypervolume_is_one_for_the_better_end_of_every_range() -> None:
    assert front_hypervolume([[0.5, 20.0]], OBJECTIVES) == pytest.approx(1.0)
    assert front_hypervolume([[1.0, 10.0]], OBJECTIVES) == pytest.approx(0.25)
    assert front_hypervolume([[1.5, 20.0]], OBJECTIVES) == 0.0
    assert front_hypervolume([], OBJECTIVES) == 0.0


def test_front_hypervolume_against_a_baseline() -> None:
    front = Front.of(
        "toy",
        OBJECTIVES,
        [Candidate(name="a", kind="configuration", mean=(0.8, 15.0), half_width=(0.0, 0.0))],
    )
    # .2 of the latency range times .25 of the throughput range beyond the baseline.
    expected = pytest.approx(0.2 * 0.25)
    assert front_hypervolume(front, reference={"throughput": 10.0, "latency": 1.0}) == expected
    assert front_hypervolume(front, reference=[1.0, 10.0]) == expected
    assert front_hypervolume(front.values(), OBJECTIVES, [1.0, 10.0]) == expected


def test_igd_agrees_with_pymoo() -> None:
    rng = np.random.default_rng(1)
    found, front = rng.uniform(size=(30, 3)), rng.uniform(size=(50, 3))
    assert igd(found, front) == pytest.approx(IGD(front)(found), rel=1e-12)
    assert igd(front, front) == 0.0


def test_bad_input_names_the_field() -> None:
    with pytest.raises(InvalidInputError, match="hold a NaN"):
        hypervolume([[np.nan, 1]], [2, 2])
    with pytest.raises(InvalidInputError, match=r"expected \[n, 2\]"):
        hypervolume([[1, 1, 1]], [2, 2])
    with pytest.raises(InvalidInputError, match="pass objectives="):
        front_hypervolume([[1.0, 2.0]])
    with pytest.raises(InvalidInputError, match="reference has latency; expected latency, throughput"):
        front_hypervolume([[1.0, 2.0]], OBJECTIVES, {"latency": 1.0})
    with pytest.raises(InvalidInputError, match="one value for each of latency, throughput"):
        front_hypervolume([[1.0, 2.0]], OBJECTIVES, [1.0])
    with pytest.raises(InvalidInputError, match="at least one point"):
        igd([], [[1.0, 2.0]])
    with pytest.raises(InvalidInputError, match=r"points have shape \(1, 3\); expected \[n, 2\]"):
        expected_utility([[1.0, 2.0, 3.0]], [[0.5, 0.5]])
    with pytest.raises(InvalidInputError, match="at least one point and one preference"):
        expected_utility(np.empty((0, 2)), [[0.5, 0.5]])
    with pytest.raises(InvalidInputError, match="hold a NaN"):
        sparsity([[np.nan, 1.0]])


def test_expected_utility_and_sparsity_of_known_figures() -> None:
    # Each corner takes its own best point, equal weights the middle one: (4 + 3 + 3) / 3.
    points = [[4.0, 0.0], [3.0, 3.0], [0.0, 3.0], [1.0, 1.0]]
    assert expected_utility(points, [[1, 0], [0, 1], [0.5, 0.5]]) == pytest.approx(10 / 3)
    # Only (4, 0) and (3, 3) are not dominated: gaps 1 and 3.
    assert sparsity(points) == pytest.approx(1.0 + 9.0)
    assert sparsity([[1.0, 2.0], [1.0, 2.0]]) == 0.0


@pytest.mark.parametrize("m", [2, 3, 4])
def test_expected_utility_and_sparsity_agree_with_morl_baselines(m: int) -> None:
    theirs = pytest.importorskip("morl_baselines.common.performance_indicators")
    rng = np.random.default_rng(m)
    points, weights = rng.normal(size=(60, m)), rng.dirichlet(np.ones(m), size=30)
    front = points[moocore.is_nondominated(-points)]
    assert 2 < len(front) < 60
    assert expected_utility(points, weights) == pytest.approx(theirs.expected_utility(list(front), list(weights)))
    assert sparsity(points) == pytest.approx(theirs.sparsity(list(front)))
    reference = np.full(m, -4.0)
    assert hypervolume(-points, -reference) == pytest.approx(theirs.hypervolume(reference, list(front)))
