"""Reference directions: where on the front a decomposing search looks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice, shown

__all__ = ["DIRECTIONS", "das_dennis", "energy_directions", "layered_directions", "reference_directions"]

FloatArray = NDArray[np.float64]

DIRECTIONS = ("das-dennis", "energy", "layered")

# Divisions of the unit simplex per objective count (Deb & Jain 2014, table I for 3, 5, 8, 10, 15); a second layer
# inside the first from 6 objectives on, where one layer would leave the middle empty at any affordable size.
_ONE_LAYER = {2: 49, 3: 12, 4: 6, 5: 6}
_TWO_LAYERS_FROM = 6
_COARSE_FROM = 11

_MOST = 100_000
"""Directions beyond which a request is taken for a mistake: their number grows with the power of the objectives."""


def reference_directions(
    n_obj: int, population: int | None = None, method: str = "das-dennis", *, seed: int = 1
) -> FloatArray:
    """Directions [n_directions, n_obj], each non-negative with sum 1.

    Args:
        n_obj: objectives, at least 2.
        population: at most this many directions (with ``energy`` exactly this many); default the usual divisions for
            ``n_obj`` (50, 91, 84 and 210 directions for 2 to 5 objectives, two layers from 6 on).
        method: ``das-dennis``, ``layered`` (an inner layer beside the outer one) or ``energy`` (any number).
        seed: of ``energy``.

    Raises:
        ConfigurationError: fewer than 2 objectives, a population below ``n_obj`` (the corners alone), or an unknown
            method.
    """
    check_choice(method, DIRECTIONS, field="directions")
    if n_obj < 2:
        raise ConfigurationError(f"reference directions need at least 2 objectives, got {n_obj}", field="n_obj")
    if population is not None and population < n_obj:
        raise ConfigurationError(
            f"population must be at least the number of objectives ({n_obj}), got {population}", field="population"
        )
    if method == "energy":
        return energy_directions(n_obj, population or len(reference_directions(n_obj)), seed=seed)
    two_layers = method == "layered" or (population is None and n_obj >= _TWO_LAYERS_FROM)
    if population is None:
        if two_layers:
            return layered_directions(n_obj, (3, 2) if n_obj < _COARSE_FROM else (2, 1))
        return das_dennis(n_obj, _ONE_LAYER[n_obj])
    divisions = 1
    while _count(n_obj, divisions + 1, two_layers) <= population:
        divisions += 1
    if two_layers and divisions > 1:
        return layered_directions(n_obj, (divisions, divisions - 1))
    return das_dennis(n_obj, divisions)


def _count(n_obj: int, divisions: int, two_layers: bool) -> int:
    outer = comb(divisions + n_obj - 1, n_obj - 1)
    return outer + comb(divisions + n_obj - 2, n_obj - 1) if two_layers else outer


def das_dennis(n_obj: int, divisions: int) -> FloatArray:
    """Every direction with whole multiples of 1/divisions [n, n_obj] (Das & Dennis 1998), the first objective rising.

    Raises:
        ConfigurationError: fewer than 2 objectives or 1 division, or more than 100,000 directions.
    """
    if n_obj < 2 or divisions < 1:
        raise ConfigurationError(
            f"das_dennis needs at least 2 objectives and 1 division, got {n_obj} and {divisions}", field="divisions"
        )
    count = comb(divisions + n_obj - 1, n_obj - 1)
    if count > _MOST:
        raise ConfigurationError(
            f"{divisions} divisions of {n_obj} objectives are {count:,} directions; allowed: up to {_MOST:,}",
            field="divisions",
        )
    # Stars and bars: the gaps between n_obj - 1 bars among the divisions.
    bars = np.array(list(combinations(range(divisions + n_obj - 1), n_obj - 1)), dtype=np.int64)
    edges = np.column_stack([np.full(count, -1), bars, np.full(count, divisions + n_obj - 1)])
    return (np.diff(edges, axis=1) - 1) / divisions


def layered_directions(n_obj: int, divisions: Sequence[int], shrink: Sequence[float] | None = None) -> FloatArray:
    """Das-Dennis layers inside each other [n, n_obj] (Deb & Jain 2014, section IV-B and figure 4).

    Args:
        n_obj: objectives, at least 2.
        divisions: of each layer, the outermost first.
        shrink: size of each layer about the centre of the simplex, in (0, 1]; default 1 for the outermost and evenly
            smaller inwards (1, 1/2 for two).

    Raises:
        ConfigurationError: no layer, another number of sizes, or a size out of range.
    """
    sizes = [1 - i / len(divisions) for i in range(len(divisions))] if shrink is None else list(shrink)
    if not divisions or len(sizes) != len(divisions) or not all(0 < size <= 1 for size in sizes):
        raise ConfigurationError(
            f"layers need one size in (0, 1] each; got divisions {shown(list(divisions))}, sizes {shown(sizes)}",
            field="shrink",
        )
    layers = [size * das_dennis(n_obj, n) + (1 - size) / n_obj for size, n in zip(sizes, divisions, strict=True)]
    return np.concatenate(layers)


def energy_directions(n_obj: int, count: int, *, seed: int = 1) -> FloatArray:
    """Exactly ``count`` directions [count, n_obj] of least Riesz s-energy (Blank, Deb, Dhebar, Bandaru & Seada 2021).

    Takes seconds for some hundred directions (pymoo computes them).

    Raises:
        ConfigurationError: fewer directions than objectives.
    """
    if n_obj < 2 or count < n_obj:
        raise ConfigurationError(
            f"energy directions need at least 2 objectives and as many directions, got {n_obj} and {count}",
            field="population",
        )
    from pymoo.util.ref_dirs import get_reference_directions

    directions: FloatArray = get_reference_directions("energy", n_obj, count, seed=seed)
    return np.asarray(directions, dtype=np.float64)
