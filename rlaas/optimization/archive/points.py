"""The archive of a search: of everything that was offered, what nothing dominates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError, shown

__all__ = ["Archive"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

FIRST_CAPACITY = 256


class Archive:
    """Non-dominated objective vectors, all minimised, each with a whole number that says whose they are.

    No member is dominated by anything that was ever offered. Without ``epsilon`` the members are all of the
    non-dominated points, whatever the order of insertion; of equal points the first stays. One insertion compares
    the point with every member in one vectorised pass, so it costs O(members): for some ten thousand members that is
    microseconds, less than walking a tree (Jaszkiewicz & Lust 2018), which pays beyond that. Memory grows with the
    members only, never with what was offered.

    With ``epsilon`` it is the archive of Laumanns, Thiele, Deb & Zitzler 2002 ("Combining convergence and diversity in
    evolutionary multiobjective optimization"): objective space is cut into boxes of that size, boxes that another one
    dominates are empty, and a box holds one point. For every point ever offered there is then a member that is worse
    by less than ``epsilon`` in each objective, and there are at most ``prod(range / epsilon + 1)`` members, the
    product taken over all objectives but the one with most boxes: memory is bounded however long the search runs.
    Which of several incomparable points of a box stays depends on the order of insertion where they are equally near
    to its lower corner, and on it alone.

    Args:
        n_obj: objectives of every point, at least 1.
        epsilon: size of a box, positive, one number or one for each objective [n_obj]; None keeps every
            non-dominated point.

    Raises:
        InvalidInputError: an impossible ``n_obj`` or ``epsilon``.
    """

    def __init__(self, n_obj: int, *, epsilon: ArrayLike | None = None) -> None:
        if isinstance(n_obj, bool) or not isinstance(n_obj, int | np.integer) or n_obj < 1:
            raise InvalidInputError(f"n_obj must be a whole number >= 1, got {shown(n_obj)}", field="n_obj")
        self.n_obj = int(n_obj)
        self._epsilon = None if epsilon is None else _box(epsilon, self.n_obj)
        self._box_sizes = np.ones(self.n_obj) if self._epsilon is None else self._epsilon
        self._points: FloatArray = np.empty((self.n_obj, FIRST_CAPACITY))
        # Without boxes a point is its own key, and both are one array.
        self._keys: FloatArray = self._points if self._epsilon is None else np.empty_like(self._points)
        self._payloads: IntArray = np.empty(FIRST_CAPACITY, dtype=np.int64)
        self._size = 0
        self._offered = 0

    def __len__(self) -> int:
        return self._size

    @property
    def offered(self) -> int:
        """Points that were offered so far, members or not."""
        return self._offered

    def insert(self, point: ArrayLike, payload: int | None = None) -> bool:
        """Offer one point [n_obj]; true if it became a member.

        Args:
            point: finite objectives.
            payload: whose they are; default the number of points that were offered before.

        Raises:
            InvalidInputError: a point of another shape or with a value that is not finite; nothing was changed.
        """
        row = _floats(point, "point")
        if row.shape != (self.n_obj,):
            raise InvalidInputError(f"point has shape {row.shape}; expected ({self.n_obj},)", field="point")
        return bool(self.insert_many(row[None], None if payload is None else [payload])[0])

    def insert_many(self, points: ArrayLike, payloads: ArrayLike | None = None) -> BoolArray:
        """Offer points [n, n_obj] in their order.

        Args:
            points: finite objectives.
            payloads: whose they are [n]; default the running number of each among all that were offered.

        Returns:
            Whether each became a member when its turn came [n]; a later one may have thrown it out again.

        Raises:
            InvalidInputError: points of another shape, with a value that is not finite, or too far away for the
                boxes; nothing was changed.
        """
        rows = np.ascontiguousarray(_floats(points, "points"))
        if rows.ndim != 2 or rows.shape[1] != self.n_obj:
            raise InvalidInputError(f"points have shape {rows.shape}; expected [n, {self.n_obj}]", field="points")
        if not np.isfinite(rows).all():
            i, j = (int(index[0]) for index in np.nonzero(~np.isfinite(rows)))
            raise InvalidInputError(
                f"points[{i}, {j}] is {rows[i, j]}; an archive takes finite objectives, leave unknown ones out",
                field="points",
            )
        owners = self._owners(payloads, len(rows))
        keys = self._keys_of(rows)
        self._reserve(self._size + len(rows))
        entered = np.zeros(len(rows), dtype=np.bool_)
        from rlaas.optimization.archive.kernels import insert_rows  # the compiler is loaded only where it is needed

        self._size = int(
            insert_rows(
                self._points, self._keys, self._payloads, self._size, rows, keys, owners, self._box_sizes, entered
            )
        )
        self._offered += len(rows)
        return entered

    @property
    def members(self) -> IntArray:
        """Payloads of the members, ascending [len(self)]."""
        return self._payloads[self._order()]

    def points(self) -> FloatArray:
        """Objectives of the members [len(self), n_obj], in the order of :attr:`members`."""
        return np.ascontiguousarray(self._points[:, self._order()].T)

    def state(self) -> dict[str, Any]:
        """Everything that decides how the archive goes on, as arrays and plain JSON types."""
        return {"points": self.points(), "payloads": self.members, "offered": self._offered}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state`` of an archive that was built alike.

        Raises:
            InvalidInputError: points that do not fit, or that dominate each other; nothing was changed.
        """
        other = Archive(self.n_obj, epsilon=self._epsilon)
        other.insert_many(state["points"], state["payloads"])
        if len(other) != len(state["points"]):
            raise InvalidInputError(
                f"{len(state['points']) - len(other)} of the {len(state['points'])} points are dominated by others; "
                "expected the state of an archive with the same epsilon",
                field="points",
            )
        self._points, self._keys, self._payloads = other._points, other._keys, other._payloads
        self._size, self._offered = len(other), int(state["offered"])

    def _order(self) -> IntArray:
        return np.argsort(self._payloads[: self._size], kind="stable")

    def _owners(self, payloads: ArrayLike | None, count: int) -> IntArray:
        if payloads is None:
            return np.arange(self._offered, self._offered + count, dtype=np.int64)
        owners = np.asarray(payloads)
        if owners.shape != (count,) or (count and owners.dtype.kind not in "iu"):
            raise InvalidInputError(
                f"payloads must be {count} whole numbers, one for each point, got {shown(payloads)}", field="payloads"
            )
        return np.ascontiguousarray(owners, dtype=np.int64)

    def _keys_of(self, rows: FloatArray) -> FloatArray:
        if self._epsilon is None:
            return rows
        with np.errstate(over="ignore"):
            keys: FloatArray = np.floor(rows / self._epsilon)
        if not np.isfinite(keys).all():
            raise InvalidInputError(
                "a point lies too many boxes away from 0 to be numbered; use a larger epsilon", field="epsilon"
            )
        return keys

    def _reserve(self, wanted: int) -> None:
        """Room for ``wanted`` members: twice as much as before, so that growth costs a constant per insertion."""
        capacity = self._points.shape[1]
        if wanted <= capacity:
            return
        grown = max(wanted, 2 * capacity)
        self._points = _wider(self._points, grown)
        self._keys = self._points if self._epsilon is None else _wider(self._keys, grown)
        self._payloads = _wider(self._payloads[None], grown)[0]


def _wider(columns: Any, capacity: int) -> Any:
    wide = np.empty((len(columns), capacity), dtype=columns.dtype)
    wide[:, : columns.shape[1]] = columns
    return wide


def _floats(values: ArrayLike, field: str) -> FloatArray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise InvalidInputError(f"{field} must be numbers: {problem}", field=field) from problem


def _box(epsilon: ArrayLike, n_obj: int) -> FloatArray:
    sizes = _floats(epsilon, "epsilon")
    if sizes.shape not in ((), (n_obj,)) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise InvalidInputError(
            f"epsilon must be a positive number, or one for each of {n_obj} objectives, got {shown(epsilon)}",
            field="epsilon",
        )
    return np.full(n_obj, sizes)
