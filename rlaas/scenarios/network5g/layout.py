"""Where the cells stand: sites on a hexagonal grid, sectors, neighbours and the wrapped plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIZES", "Layout", "layout"]

FloatArray = NDArray[np.floating[Any]]

SIZES = ("small", "medium", "large")
USERS = {"small": 15, "medium": 70, "large": 420}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Cells of one network.

    Attributes:
        sites: positions [n_sites, 2] in m.
        site_of_cell: site index of each cell [n_cells].
        azimuth_deg: boresight of each cell [n_cells], or None where cells are omnidirectional.
        neighbours: indices of the nearest other cells [n_cells, n_neighbours].
        periods: the two translation vectors [2, 2] under which the plane repeats, or None without wrap-around.
        radius_m: radius around the origin in which users move, for a plane that does not wrap.
        colour: class 0..2 of each cell; cells of one class are never neighbours where the grid allows it [n_cells].
    """

    sites: NDArray[np.float64]
    site_of_cell: NDArray[np.int64]
    azimuth_deg: NDArray[np.float64] | None
    neighbours: NDArray[np.int64]
    periods: NDArray[np.float64] | None
    radius_m: float
    colour: NDArray[np.int64]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.site_of_cell)

    def nearest_image(self, dx: FloatArray, dy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The shortest of all equivalent displacements [...] on the wrapped plane (unchanged without wrap-around).

        In coordinates of the two periods (60 degrees apart, equal length) the rounded remainder is already the
        shortest one except where both parts have the same sign; then one more period along the larger part helps.
        """
        if self.periods is None:
            return dx, dy
        (ax, ay), (bx, by) = self.periods
        scale = ax * by - ay * bx
        f = (by * dx - bx * dy) / scale
        g = (ax * dy - ay * dx) / scale
        f, g = f - np.rint(f), g - np.rint(g)
        first = np.abs(f) >= np.abs(g)
        further = np.where(first, np.abs(2 * f + g), np.abs(f + 2 * g)) > 1
        f, g = (
            np.where(further & first, f - np.sign(f), f),
            np.where(further & ~first, g - np.sign(g), g),
        )
        return f * ax + g * bx, f * ay + g * by


def _neighbours(
    centres: NDArray[np.float64],
    image: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]],
    count: int,
) -> NDArray[np.int64]:
    dx, dy = image(
        centres[:, None, 0] - centres[None, :, 0],
        centres[:, None, 1] - centres[None, :, 1],
    )
    distance = np.hypot(dx, dy)
    np.fill_diagonal(distance, np.inf)
    # Rounding makes equal distances tie, and a stable sort then keeps cell order.
    return np.argsort(np.round(distance, 6), axis=1, kind="stable")[:, :count]


def layout(size: str, inter_site_m: float) -> Layout:
    """The cells of a size.

    ``small``: three sites on an equilateral triangle, one 65-degree sector each, facing the common centre; users
    move in the disc between them. ``medium``: seven omnidirectional sites, wrapped around. ``large``: the same
    seven sites with three sectors each. Only 7-site clusters tile the plane, so ``small`` does not wrap.
    """
    first = np.array([inter_site_m, 0.0])
    second = np.array([inter_site_m / 2, inter_site_m * math.sqrt(3) / 2])
    if size == "small":
        angles = np.deg2rad([90.0, 210.0, 330.0])
        sites = inter_site_m / math.sqrt(3) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return Layout(
            sites=sites,
            site_of_cell=np.arange(3),
            azimuth_deg=np.array([-90.0, 30.0, 150.0]),
            neighbours=np.array([[1, 2], [0, 2], [0, 1]]),
            periods=None,
            radius_m=inter_site_m / 2,
            colour=np.arange(3),
        )
    steps = [(0, 0), (1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)]
    sites = np.array([i * first + j * second for i, j in steps])
    sectors = 3 if size == "large" else 1
    periods = np.array([2 * first + second, 3 * second - first])
    site_of_cell = np.repeat(np.arange(7), sectors)
    azimuth = np.tile([30.0, 150.0, -90.0], 7) if sectors > 1 else None
    centres = sites[site_of_cell]
    if azimuth is not None:
        radians = np.deg2rad(azimuth)
        centres = centres + inter_site_m / 3 * np.stack([np.cos(radians), np.sin(radians)], axis=1)
    # Seven wrapped omnidirectional sites are all neighbours of one another: one of them has a colour of its own.
    colour = np.tile(np.arange(3), 7) if sectors > 1 else np.array([0, 1, 2, 1, 2, 1, 2])
    bare = Layout(
        sites=sites,
        site_of_cell=site_of_cell,
        azimuth_deg=azimuth,
        neighbours=np.empty((0, 0), dtype=np.int64),
        periods=periods,
        radius_m=0.0,
        colour=colour,
    )
    return Layout(
        sites=sites,
        site_of_cell=site_of_cell,
        azimuth_deg=azimuth,
        neighbours=_neighbours(centres, bare.nearest_image, 6),
        periods=periods,
        radius_m=0.0,
        colour=colour,
    )
