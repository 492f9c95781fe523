"""Columns of the lake as arrays: lists as matrices, values outside a space, objectives that are missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.scenarios import Scenario

__all__ = ["BoolArray", "FloatMatrix", "action_width", "matrix_of", "missing_objective", "outside", "outside_action"]

BoolArray = NDArray[np.bool_]
FloatMatrix = NDArray[np.float64]

# Logged numbers went through float32 once.
TOLERANCE = 1e-5


def matrix_of(column: pa.ChunkedArray, width: int) -> tuple[FloatMatrix, BoolArray]:
    """Lists as a matrix [n, width], and which rows [n] have another length or a number that is not finite."""
    lists = column.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    wrong = lengths != width
    matrix = np.full((len(lengths), width), np.nan)
    flat = pc.list_flatten(lists.filter(pa.array(~wrong)))
    matrix[~wrong] = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, width)
    wrong = wrong | ~np.isfinite(matrix).all(axis=1)
    return matrix, wrong


def outside(values: FloatMatrix, low: NDArray[Any], high: NDArray[Any]) -> BoolArray:
    """Which values [n, width] lie outside their bounds [width], by more than logging may move them."""
    slack = TOLERANCE * np.maximum(1.0, np.abs(values))
    return np.asarray((values < low - slack) | (values > high + slack))


def action_width(scenario: Scenario) -> int:
    """Numbers in a logged action; one, the index, for a discrete one."""
    action = scenario.single_action_space
    return 1 if isinstance(action, spaces.Discrete) else int(np.prod(action.shape))


def outside_action(actions: FloatMatrix, scenario: Scenario) -> BoolArray:
    """Which parts of actions [n, width] the scenario does not have."""
    action = scenario.single_action_space
    if isinstance(action, spaces.Discrete):
        return np.asarray((actions != np.floor(actions)) | (actions < 0) | (actions >= int(action.n)))
    if isinstance(action, spaces.MultiDiscrete):
        return np.asarray((actions != np.floor(actions)) | (actions < 0) | (actions >= action.nvec.reshape(-1)))
    return outside(actions, action.low.reshape(-1), action.high.reshape(-1))


def missing_objective(outcomes: pa.ChunkedArray, scenario: Scenario) -> tuple[BoolArray, list[tuple[str, BoolArray]]]:
    """Outcomes [n] that have neither all objectives nor all parts they are made of, as finite numbers.

    Also, by objective, where it is there.
    """

    def there(names: Iterable[str]) -> dict[str, BoolArray]:
        found = {name: pc.is_finite(pc.map_lookup(outcomes, name, "first")) for name in names}
        return {name: pc.fill_null(mask, False).to_numpy().astype(np.bool_) for name, mask in found.items()}

    objectives = there(o.name for o in scenario.objectives)
    enough = np.all(list(objectives.values()), axis=0) | np.all(list(there(scenario.measures).values()), axis=0)
    return np.asarray(~enough), list(objectives.items())
