"""Where the cells stand: sites on a hexagonal grid, sectors, neighbours and the wrapped plane."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice

__all__ = ["MAXIMUM_CELLS", "SIZES", "USERS", "Layout", "colours", "hexagonal", "layout_of_size", "nearest_cells"]

FloatArray = NDArray[np.floating[Any]]

SIZES = ("small", "medium", "large")
USERS = {"small": 15, "medium": 70, "large": 420}
MAXIMUM_CELLS = 1000
NEIGHBOURS = 6
SECTORS_DEG = (30.0, 150.0, -90.0)
"""Boresights of the three sectors of a site."""
FACING_SITES = range(2, 7)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Cells of one network. Two layouts are equal, and hash alike, when all their contents are.

    Attributes:
        name: what the network is called.
        sites: positions [n_sites, 2] in m.
        site_of_cell: site index of each cell [n_cells].
        azimuth_deg: boresight of each cell [n_cells], counter-clockwise from east, NaN for a cell without direction;
            None where no cell has one.
        neighbours: indices of the nearest other cells [n_cells, n_neighbours], nearest first; [1, 0] for a single cell.
        periods: the two translation vectors [2, 2] under which the plane repeats, or None without wrap-around.
        radius_m: radius around the origin in which users move, for a plane that does not wrap.
        colour: class 0..2 of each cell; cells of one class are never neighbours where the grid allows it [n_cells].
        centres: middle of each cell's area [n_cells, 2] in m.
        height_m: antenna height of each cell [n_cells], or None where one height is configured for all.
        power_dbm: transmit power of each cell [n_cells], or None where one power is configured for all.
        cell_names: name of each cell, or empty.
        anchor: where the origin lies in the coordinates of the file that a layout was read from: (x, y) in m, or
            (latitude, longitude) in degrees.
        key: digest of everything above.
    """

    name: str
    sites: NDArray[np.float64]
    site_of_cell: NDArray[np.int64]
    azimuth_deg: NDArray[np.float64] | None
    neighbours: NDArray[np.int64]
    periods: NDArray[np.float64] | None
    radius_m: float
    colour: NDArray[np.int64]
    centres: NDArray[np.float64]
    height_m: NDArray[np.float64] | None = None
    power_dbm: NDArray[np.float64] | None = None
    cell_names: tuple[str, ...] = ()
    anchor: tuple[float, float] = (0.0, 0.0)
    key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(repr((self.name, self.radius_m, self.cell_names, self.anchor)).encode())
        for array in (
            self.sites,
            self.site_of_cell,
            self.azimuth_deg,
            self.neighbours,
            self.periods,
            self.colour,
            self.centres,
            self.height_m,
            self.power_dbm,
        ):
            digest.update(b"-" if array is None else f"{array.shape}{array.dtype}".encode() + array.tobytes())
            if array is not None:
                # The key speaks for the contents, so the contents must stay.
                array.setflags(write=False)
        object.__setattr__(self, "key", digest.hexdigest())

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.key == other.key

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.site_of_cell)

    @property
    def wraps(self) -> bool:
        """Whether the plane repeats, so that no cell stands at an edge."""
        return self.periods is not None

    def powers_dbm(self, power_dbm: float) -> NDArray[np.float64]:
        """Transmit power of each cell [n_cells]: its own where the layout has one, else ``power_dbm``."""
        return np.full(self.cells, float(power_dbm)) if self.power_dbm is None else self.power_dbm.copy()

    def nearest_image(self, dx: FloatArray, dy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The shortest of all equivalent displacements [...] on the wrapped plane (unchanged without wrap-around)."""
        return _nearest_image(self.periods, dx, dy)


def _nearest_image(
    periods: NDArray[np.float64] | None, dx: FloatArray, dy: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The shortest equivalent displacement.

    In coordinates of the two periods (60 degrees apart, equal length) the rounded remainder is already the
    shortest one except where both parts have the same sign; then one more period along the larger part helps.
    """
    if periods is None:
        return dx, dy
    (ax, ay), (bx, by) = periods.tolist()
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


def nearest_cells(centres: FloatArray, periods: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """The up to six nearest other cells of every cell [n_cells, min(6, n_cells - 1)], nearest first.

    Args:
        centres: middle of each cell's area [n_cells, 2] in m.
        periods: translation vectors of a wrapped plane.
    """
    dx, dy = _nearest_image(
        periods,
        centres[:, None, 0] - centres[None, :, 0],
        centres[:, None, 1] - centres[None, :, 1],
    )
    distance = np.hypot(dx, dy)
    np.fill_diagonal(distance, np.inf)
    count = min(NEIGHBOURS, len(centres) - 1)
    # Rounding makes equal distances tie, and a stable sort then keeps cell order.
    return np.ascontiguousarray(np.argsort(np.round(distance, 6), axis=1, kind="stable")[:, :count])


def colours(neighbours: NDArray[np.int64]) -> NDArray[np.int64]:
    """A class 0..2 for every cell [n_cells]: the one that fewest of its neighbours coloured so far have."""
    colour = np.full(len(neighbours), -1, dtype=np.int64)
    for cell, near in enumerate(neighbours):
        used = colour[near]
        colour[cell] = int(np.argmin(np.bincount(used[used >= 0], minlength=3)))
    return colour


def hexagonal(
    cells: int, *, sectors: int = 1, inter_site_m: float = 500.0, facing: bool = False, name: str | None = None
) -> Layout:
    """Any number of cells on a hexagonal grid, filled from the middle outward.

    Full rings of sites (7, 19, 37, ... sites) tile the plane: their network wraps around and has no edge. Any other
    number does not; users then move in a disc that covers the cells.

    Args:
        cells: number of cells, 1 to 1000.
        sectors: cells per site: 1 (in all directions) or 3 (of 65 degrees).
        inter_site_m: distance between neighbouring sites in m.
        facing: two to six single-sector sites on a ring with neighbours ``inter_site_m`` apart, all looking at its
            middle, where the users are.
        name: of the network; by default it says what it is.

    Raises:
        ConfigurationError: an impossible combination.
    """
    if not 1 <= cells <= MAXIMUM_CELLS:
        raise ConfigurationError(f"cells must lie in 1..{MAXIMUM_CELLS}, not {cells!r}", field="cells")
    if sectors not in (1, 3):
        raise ConfigurationError(f"unknown sectors {sectors!r}; allowed: 1, 3", field="sectors")
    if cells % sectors:
        raise ConfigurationError(f"cells must be a multiple of sectors = {sectors}, not {cells}", field="cells")
    if not (math.isfinite(inter_site_m) and inter_site_m > 0):
        raise ConfigurationError(f"inter_site_m must be positive, not {inter_site_m:g}", field="inter_site_m")
    if facing:
        return _facing(cells, sectors, inter_site_m, name)
    steps, rings = _spiral(cells // sectors)
    first = np.array([inter_site_m, 0.0])
    second = np.array([inter_site_m / 2, inter_site_m * math.sqrt(3) / 2])
    sites = steps[:, :1] * first + steps[:, 1:] * second
    wraps = rings > 0 and len(steps) == 3 * rings * (rings + 1) + 1
    periods = None
    radius = 0.0
    if wraps:
        # A full hexagon of k rings tiles the plane by (k + 1, k) and the same turned by 60 degrees.
        periods = np.array([(rings + 1) * first + rings * second, (2 * rings + 1) * second - rings * first])
    else:
        sites = sites - sites.mean(axis=0)
        # A hexagonal cell reaches 1/sqrt 3 of the distance between sites, a sector's own hexagon 2/3 of it.
        reach = inter_site_m * (1 / math.sqrt(3) if sectors == 1 else 2 / 3)
        radius = float(np.hypot(sites[:, 0], sites[:, 1]).max()) + reach
    site_of_cell = np.repeat(np.arange(len(sites)), sectors)
    centres = sites[site_of_cell]
    azimuth = None
    colour = (steps[:, 0] - steps[:, 1]) % 3
    if sectors > 1:
        azimuth = np.tile(SECTORS_DEG, len(sites))
        radians = np.deg2rad(azimuth)
        centres = centres + inter_site_m / 3 * np.stack([np.cos(radians), np.sin(radians)], axis=1)
        colour = np.tile(np.arange(3), len(sites))
    return Layout(
        name=name or f"hexagonal-{cells}x{sectors}",
        sites=sites,
        site_of_cell=site_of_cell,
        azimuth_deg=azimuth,
        neighbours=nearest_cells(centres, periods),
        periods=periods,
        radius_m=radius,
        colour=colour.astype(np.int64),
        centres=centres,
    )


def layout_of_size(size: str, inter_site_m: float) -> Layout:
    """The cells of a size.

    ``small``: three sites on an equilateral triangle, one 65-degree sector each, facing the common centre; users
    move in the disc between them. ``medium``: seven omnidirectional sites, wrapped around. ``large``: the same
    seven sites with three sectors each. Three cells do not tile the plane with room for interference, so ``small``
    does not wrap.

    Raises:
        ConfigurationError: no such size, or a distance that is not positive.
    """
    check_choice(size, SIZES, field="size")
    if size == "small":
        return hexagonal(3, inter_site_m=inter_site_m, facing=True, name=size)
    cells, sectors = (7, 1) if size == "medium" else (21, 3)
    return hexagonal(cells, sectors=sectors, inter_site_m=inter_site_m, name=size)


def _facing(cells: int, sectors: int, inter_site_m: float, name: str | None) -> Layout:
    if sectors != 1 or cells not in FACING_SITES:
        raise ConfigurationError(
            f"facing needs sectors = 1 and {FACING_SITES[0]} to {FACING_SITES[-1]} cells, not {sectors} and {cells}",
            field="facing",
        )
    ring_m = inter_site_m / (2 * math.sin(math.pi / cells))
    degrees = 90.0 + 360.0 / cells * np.arange(cells, dtype=np.float64)
    angles = np.deg2rad(degrees)
    sites = ring_m * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    neighbours = nearest_cells(sites)
    return Layout(
        name=name or f"facing-{cells}",
        sites=sites,
        site_of_cell=np.arange(cells),
        azimuth_deg=np.asarray(degrees % 360.0 - 180.0, dtype=np.float64),
        neighbours=neighbours,
        periods=None,
        # Nobody stands right under an antenna; for three sites this is half their distance.
        radius_m=ring_m * math.sqrt(3) / 2,
        colour=colours(neighbours),
        # Each looks at the same middle; a third of the way there is as far as from a sector to its own.
        centres=sites * (1 - inter_site_m / 3 / ring_m),
    )


def _spiral(count: int) -> tuple[NDArray[np.int64], int]:
    """Grid coordinates [count, 2] of sites filled from the middle outward, and the number of rings begun."""
    steps = [(0, 0)]
    ring = 0
    while len(steps) < count:
        ring += 1
        i, j = ring, 0
        for di, dj in ((-1, 1), (-1, 0), (0, -1), (1, -1), (1, 0), (0, 1)):
            for _ in range(ring):
                steps.append((i, j))
                i, j = i + di, j + dj
    return np.array(steps[:count], dtype=np.int64), ring
