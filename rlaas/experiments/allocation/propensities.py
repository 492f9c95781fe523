"""Propensities as they were logged, changing from batch to batch, and whether the arms came as often as they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.allocation.moments import by_arm, checked_arms
from rlaas.experiments.comparison import numeric

__all__ = ["PropensityCheck", "logged_rows", "propensity_check"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SUM = 1e-6
"""Propensities of a row may miss 1 by this: float32 in a log."""


@dataclass(frozen=True, slots=True)
class PropensityCheck:
    """Whether the arms came as often as the logged propensities say.

    Attributes:
        p_value: of the chi-square test; a small one (below 0.001 by custom) says that the assignment or the log is
            broken, and that no estimate should be believed.
        statistic, degrees: of the test.
        excess: rows of each arm beyond what was expected.
        z: excess over its standard deviation, by arm.
    """

    p_value: float
    statistic: float
    degrees: int
    excess: Mapping[str, float]
    z: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The check as plain JSON types."""
        return {
            "p_value": self.p_value,
            "statistic": self.statistic,
            "degrees": self.degrees,
            "excess": dict(self.excess),
            "z": dict(self.z),
        }


def propensity_check(arms: Sequence[str], arm: ArrayLike, propensity: ArrayLike) -> PropensityCheck:
    """Sample ratio check against propensities that change over time, at a fixed horizon.

    The excess of each arm, the sum of 1[arm_t = w] - e_t(w), is a martingale with covariance sum of
    diag(e_t) - e_t e_t'. Its squared length in that covariance is chi-square; with constant propensities this is
    Pearson's test.

    Args:
        arms: names, in the order of the columns of ``propensity``.
        arm: name of each row's arm [n].
        propensity: of every arm in each row [n, n_arms], as logged; rows sum to 1.

    Raises:
        InvalidInputError: rows that do not fit, impossible propensities, or a row whose arm had propensity 0.
    """
    names, chosen, logged = logged_rows(arms, arm, propensity)
    counts = np.bincount(chosen, minlength=len(names))
    excess = counts - logged.sum(axis=0)
    covariance = np.diag(logged.sum(axis=0)) - logged.T @ logged
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    # Rows that could have gone only one way add nothing; what is left has one direction less than arms in play, or
    # more where groups of arms were never in play together.
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * max(float(values.max()), 1.0)
    degrees = int(kept.sum())
    statistic = float(((vectors.T @ excess)[kept] ** 2 / values[kept]).sum())
    z = np.divide(excess, spread, out=np.zeros_like(excess), where=spread > 0)
    return PropensityCheck(
        p_value=float(stats.chi2.sf(statistic, degrees)) if degrees else 1.0,
        statistic=statistic,
        degrees=degrees,
        excess=dict(zip(names, excess.tolist(), strict=True)),
        z=dict(zip(names, z.tolist(), strict=True)),
    )


def logged_rows(arms: Sequence[str], arm: ArrayLike, propensity: ArrayLike) -> tuple[list[str], IntArray, FloatArray]:
    """Names, index of each row's arm [n] and propensities [n, n_arms], checked."""
    checked_arms(arms)
    names = list(arms)
    logged = numeric(propensity, "propensity")
    if logged.ndim != 2 or logged.shape[1] != len(names) or len(logged) < 2:
        raise InvalidInputError(
            f"propensity has shape {logged.shape}; expected (n, {len(names)}), 2 rows or more", field="propensity"
        )
    rows = by_arm(names, arm, np.arange(len(logged)), "row")
    chosen = np.empty(len(logged), dtype=np.int64)
    for k, name in enumerate(names):
        chosen[rows[name][:, 0].astype(np.int64)] = k
    wrong = ~((logged >= 0) & (logged <= 1)).all(axis=1) | ~(np.abs(logged.sum(axis=1) - 1) <= _SUM)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInputError(
            f"propensity[{row}] is {shown(logged[row].tolist())}; expected shares of all arms that sum to 1",
            field="propensity",
        )
    never = logged[np.arange(len(logged)), chosen] == 0
    if never.any():
        row = int(never.argmax())
        raise InvalidInputError(
            f"row {row} has arm {names[chosen[row]]!r}, whose propensity is 0; the split was not kept",
            field="propensity",
        )
    return names, chosen, logged
