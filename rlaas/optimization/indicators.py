"""How good a front is: hypervolume, expected utility, sparsity and inverted generational distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError
from rlaas.fronts import Front
from rlaas.objectives import Objective, ObjectiveVector, normalise

__all__ = ["expected_utility", "front_hypervolume", "hypervolume", "igd", "sparsity"]

FloatArray = NDArray[np.float64]

EXACT_UP_TO = 5
"""Objectives up to which hypervolume is exact; beyond, its cost explodes and a quasi-Monte-Carlo estimate serves."""


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume that the points [n, m] (smaller is better) dominate up to the reference point [m].

    Points that do not dominate the reference add nothing. Exact to 5 objectives (moocore), beyond that moocore's
    deterministic approximation with a fixed seed, about 1e-3 relative.

    Raises:
        InvalidInputError: shapes that do not fit, or a NaN.
    """
    import moocore

    corner = np.asarray(reference, dtype=np.float64)
    array = _points(points, "points", len(corner) if corner.ndim == 1 else None)
    if corner.shape != (array.shape[1],) or not np.isfinite(corner).all():
        raise InvalidInputError(
            f"reference must be {array.shape[1]} finite numbers, got {corner.tolist()}", field="reference"
        )
    array = array[(array < corner).all(axis=1)]
    if not len(array):
        return 0.0
    # One order whatever the caller's, dominated points left out: sets that dominate the same volume give the same bits.
    array = np.unique(array[moocore.is_nondominated(array)], axis=0)
    if array.shape[1] <= EXACT_UP_TO:
        return float(moocore.hypervolume(array, ref=corner))
    return float(moocore.hv_approx(array, ref=corner, seed=0))


def front_hypervolume(
    front: Front | ArrayLike,
    objectives: Sequence[Objective] | None = None,
    reference: ObjectiveVector | ArrayLike | None = None,
) -> float:
    """Hypervolume in normalised goodness units, comparable across scenarios and runs.

    Every objective is mapped to goodness (1 at the better end of its frozen range, 0 at the worse), so with the
    default reference a front that reaches the better end of every objective has hypervolume 1.

    Args:
        front: a front, or objective values [n, n_objectives] in their units (an empty sequence gives 0).
        objectives: of the values; a front brings its own.
        reference: objective values in their units, such as a baseline's; default the worse end of every range.
            Freeze it for a run: figures against different references do not compare.

    Raises:
        InvalidInputError: values without objectives, or a reference that does not fit.
    """
    if isinstance(front, Front):
        objectives, values = front.objectives, front.values()
    elif objectives is None:
        raise InvalidInputError("objective values need their objectives; pass objectives=", field="objectives")
    else:
        values = _points(front, "values", len(objectives))
    names = [o.name for o in objectives]
    if reference is None:
        corner = np.zeros(len(names))
    else:
        if isinstance(reference, Mapping):
            if set(reference) != set(names):
                raise InvalidInputError(
                    f"reference has {', '.join(reference)}; expected {', '.join(names)}", field="reference"
                )
            reference = [reference[name] for name in names]
        given = np.asarray(reference, dtype=np.float64)
        if given.shape != (len(names),):
            raise InvalidInputError(
                f"reference has shape {given.shape}; expected one value for each of {', '.join(names)}",
                field="reference",
            )
        corner = normalise(objectives, given)
    return hypervolume(-normalise(objectives, values), -corner)


def expected_utility(points: ArrayLike, preferences: ArrayLike) -> float:
    """Mean over preferences of the best weighted sum that some point gives.

    ``1/k sum_w max_p w . p``: the expected utility metric of Zintgraf et al. 2015 ("Quality assessment of MORL
    algorithms: a utility-based approach") for linear utilities, as MORL-Baselines computes it
    (``morl_baselines.common.performance_indicators.expected_utility``).

    Args:
        points: [n, m], larger is better.
        preferences: weights [k, m].

    Raises:
        InvalidInputError: no point, no preference, shapes that do not fit, or a NaN.
    """
    weights = _points(preferences, "preferences", None)
    array = _points(points, "points", weights.shape[1])
    if not len(array) or not len(weights):
        raise InvalidInputError("expected_utility needs at least one point and one preference", field="points")
    return float((weights @ array.T).max(axis=1).mean())


def sparsity(points: ArrayLike) -> float:
    """Mean squared gap between neighbours of the front, summed over objectives; 0 for fewer than two points.

    ``1/(n - 1) sum_j sum_i (P_j[i] - P_j[i + 1])^2`` with ``P_j`` the sorted values of objective j over the n
    non-dominated points (Xu et al. 2020, "Prediction-guided multi-objective reinforcement learning", section 3), as
    MORL-Baselines computes it. Smaller is denser; it says nothing about how far out the front lies: a single point is
    perfect by it.

    Args:
        points: [n, m], larger is better. Dominated points and repetitions are left out.

    Raises:
        InvalidInputError: not a table of numbers, or a NaN.
    """
    import moocore

    array = _points(points, "points", None)
    array = array[moocore.is_nondominated(-array)]
    if len(array) < 2:
        return 0.0
    return float(np.square(np.diff(np.sort(array, axis=0), axis=0)).sum() / (len(array) - 1))


def igd(points: ArrayLike, front: ArrayLike) -> float:
    """Mean distance from each point of the true front [k, m] to the nearest of the points [n, m].

    For NSGA-III's published figures the true front is where the reference lines meet it:
    ``problem.pareto_front(ref_dirs)`` of pymoo.

    Raises:
        InvalidInputError: no point, shapes that do not fit, or a NaN.
    """
    import moocore

    true_front = _points(front, "front", None)
    found = _points(points, "points", true_front.shape[1])
    if not len(found) or not len(true_front):
        raise InvalidInputError("igd needs at least one point on both sides", field="points")
    return float(moocore.igd(found, true_front))


def _points(values: ArrayLike, name: str, columns: int | None) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 and columns is not None:
        return np.empty((0, columns))
    if array.ndim != 2 or (columns is not None and array.shape[1] != columns):
        raise InvalidInputError(f"{name} have shape {array.shape}; expected [n, {columns or 'm'}]", field=name)
    if np.isnan(array).any():
        raise InvalidInputError(f"{name} hold a NaN; leave unknown candidates out", field=name)
    return array
