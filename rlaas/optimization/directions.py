"""Reference directions: where on the front a decomposing search looks."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError

__all__ = ["reference_directions"]

FloatArray = NDArray[np.float64]

# Divisions of the unit simplex per objective count (Deb & Jain 2014, table I for 3, 5, 8, 10, 15); a second layer
# inside the first from 6 objectives on, where one layer would leave the middle empty at any affordable size.
_ONE_LAYER = {2: 49, 3: 12, 4: 6, 5: 6}
_TWO_LAYERS_FROM = 6
_COARSE_FROM = 11


def reference_directions(n_obj: int, population: int | None = None) -> FloatArray:
    """Das-Dennis directions [n_directions, n_obj], each non-negative with sum 1.

    Args:
        n_obj: objectives, at least 2.
        population: at most this many directions; default the usual divisions for ``n_obj``
            (50, 91, 84 and 210 directions for 2 to 5 objectives).

    Raises:
        ConfigurationError: fewer than 2 objectives, or a population below ``n_obj`` (the corners alone).
    """
    if n_obj < 2:
        raise ConfigurationError(f"reference directions need at least 2 objectives, got {n_obj}", field="n_obj")
    if population is not None:
        if population < n_obj:
            raise ConfigurationError(
                f"population must be at least the number of objectives ({n_obj}), got {population}", field="population"
            )
        divisions = 1
        while comb(divisions + n_obj, n_obj - 1) <= population:
            divisions += 1
        return _das_dennis(n_obj, divisions)
    if n_obj < _TWO_LAYERS_FROM:
        return _das_dennis(n_obj, _ONE_LAYER[n_obj])
    outer, inner = (3, 2) if n_obj < _COARSE_FROM else (2, 1)
    # The inner layer is shrunk halfway towards the centre of the simplex.
    return np.concatenate([_das_dennis(n_obj, outer), 0.5 * _das_dennis(n_obj, inner) + 0.5 / n_obj])


def _das_dennis(n_obj: int, divisions: int) -> FloatArray:
    from pymoo.util.ref_dirs import get_reference_directions

    directions: Any = get_reference_directions("das-dennis", n_obj, n_partitions=divisions)
    return np.asarray(directions, dtype=np.float64)
