"""VIKOR: the compromise between the good of all objectives and the regret of the worst served one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.methods.base import DecisionMatrix
from rlaas.errors import InvalidInputError, shown

__all__ = ["Vikor"]

FloatArray = NDArray[np.float64]

# Below this the spread of S or R is rounding: dividing by it would rank candidates by noise.
NO_SPREAD = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Vikor:
    """Multicriteria compromise ranking (Opricovic & Tzeng 2004, European Journal of Operational Research 156).

    With ``f*`` and ``f-`` the best and worst value present in a column, ``S`` is the weighted sum and ``R`` the
    weighted maximum of ``(f* - f) / (f* - f-)``, and ``Q = v (S - S*) / (S- - S*) + (1 - v) (R - R*) / (R- - R*)``;
    the score is ``1 - Q``. A column without spread adds nothing; where S or R has none, its part of Q is 0.

    Attributes:
        v: weight of the group's good against the single regret, in [0, 1].

    Raises:
        InvalidInputError: ``v`` outside [0, 1].
    """

    v: float = 0.5
    name = "vikor"
    work = 1

    def __post_init__(self) -> None:
        number = isinstance(self.v, int | float) and not isinstance(self.v, bool)
        if not number or not 0 <= self.v <= 1:
            raise InvalidInputError(f"v must be a number in [0, 1], got {shown(self.v)}", field="v")

    def scores(self, matrix: DecisionMatrix, weights: FloatArray) -> FloatArray:
        """``1 - Q`` [k, n] in [0, 1]."""
        return np.asarray(1.0 - self._measures(matrix, weights)[2])

    def distances(self, matrix: DecisionMatrix, weights: FloatArray) -> Mapping[str, FloatArray]:
        """``S``, ``R`` and ``Q`` [n] of the paper; smaller is better."""
        return {name: m[0] for name, m in zip("SRQ", self._measures(matrix, weights[None]), strict=True)}

    def notes(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[str, ...]:
        """The conditions C1 (acceptable advantage) and C2 (acceptable stability), and the compromise set."""
        if len(matrix) == 1:
            return ()
        s, r, q = (m[0] for m in self._measures(matrix, weights[None]))
        order = np.argsort(np.where(q - q.min() <= NO_SPREAD, q.min(), q), kind="stable")
        first = order[0]
        step = 1.0 / (len(matrix) - 1)
        advantage = bool(q[order[1]] - q[first] >= step)
        stable = bool(s[first] <= s.min() + NO_SPREAD or r[first] <= r.min() + NO_SPREAD)
        members = order[: 1 if stable else 2] if advantage else order[q[order] - q[first] < step]
        words = f"C1 (acceptable advantage) {_met(advantage)}, C2 (acceptable stability) {_met(stable)}"
        names = ", ".join(matrix.candidates[i].name for i in members)
        return (f"{words}; compromise set: {names}",)

    def _measures(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """S, R and Q [k, n]."""
        best, worst = matrix.goodness.max(axis=0), matrix.goodness.min(axis=0)
        spread = np.where(best > worst, best - worst, 1.0)
        regret = (best - matrix.goodness) / spread
        s = np.asarray(weights @ regret.T)
        r = np.zeros_like(s)
        for j in range(regret.shape[1]):  # column by column: [k, n, m] at once would not fit the cache
            np.maximum(r, weights[:, j, None] * regret[:, j], out=r)
        return s, r, self.v * _scaled(s) + (1.0 - self.v) * _scaled(r)


def _scaled(measure: FloatArray) -> FloatArray:
    low = measure.min(axis=1, keepdims=True)
    spread = measure.max(axis=1, keepdims=True) - low
    return np.asarray(np.where(spread > NO_SPREAD, (measure - low) / np.where(spread > NO_SPREAD, spread, 1.0), 0.0))


def _met(condition: bool) -> str:
    return "is met" if condition else "is not met"
