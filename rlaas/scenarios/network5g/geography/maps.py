"""Maps of a network: gain, elevation and beam towards every cell on a grid, made once and looked up at every step.

A map is one *realisation* of shadowing and line of sight. An environment picks a realisation at reset; its users then
walk through a fixed landscape, as in TR 38.901's spatially consistent procedures, and a step takes no logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import ndtri

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.geography.fields import FieldSampler, interpolated_variance
from rlaas.scenarios.network5g.geography.layout import Layout
from rlaas.scenarios.network5g.propagation import antennas, pathloss

__all__ = [
    "INDOOR",
    "LANES",
    "MAXIMUM_BYTES",
    "OUTDOOR",
    "PADDING_DB",
    "Maps",
    "build_maps",
    "fitting_resolution",
    "map_bytes",
]

FloatArray = NDArray[np.floating[Any]]
Float32Array = NDArray[np.float32]

OUTDOOR, INDOOR = 0, 1
LANES = 8
"""Cells are padded to a multiple of this, so that a row starts on a 32-byte boundary."""
PADDING_DB = -300.0
MAXIMUM_BYTES = 4 * 2**30
SEED = 38901


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """What the ground does to the signal of every cell; shared between environments, so never to be written to.

    A position p has grid coordinates (f, g) = inverse @ (p - origin); node (i, j) is row i * n_g + j. On a wrapped
    plane indices count modulo the shape; otherwise (f, g) of any position in the layout's disc has all four
    neighbours. All values are read by bilinear interpolation.

    Attributes:
        origin: position of node (0, 0) [2] in m.
        basis: grid vectors as columns [2, 2] in m.
        inverse: inverse of the basis [2, 2].
        shape: nodes along both grid vectors.
        wraps: whether the grid is a torus.
        cells: number of cells; the columns after them are padding of -300 dB (``link_db``, ``mean_db``) or 0.
        link_db: element gain - path loss - shadowing [realisations, 2, nodes, cells_padded], outdoors (0) and
            indoors (1). Indoors the loss of entering a building is not included: it belongs to the user.
        sine_below: sine of the angle below the horizon at which a cell sees a node [nodes, cells_padded].
        beam_db: gain of the best horizontal beam [nodes, cells_padded].
        mean_db: element gain - expected path loss [nodes, cells_padded]: what a planning tool knows.
        penetration: of entering a building, once per indoor user: mean in dB, dB per metre inside, and standard
            deviation in dB.
    """

    origin: NDArray[np.float64]
    basis: NDArray[np.float64]
    inverse: NDArray[np.float64]
    shape: tuple[int, int]
    wraps: bool
    cells: int
    link_db: Float32Array
    sine_below: Float32Array
    beam_db: Float32Array
    mean_db: Float32Array
    penetration: tuple[float, float, float]

    @property
    def cells_padded(self) -> int:
        """Columns of every map."""
        return int(self.link_db.shape[3])

    @property
    def realisations(self) -> int:
        """Number of independent landscapes."""
        return int(self.link_db.shape[0])

    @property
    def nbytes(self) -> int:
        """Memory of the four maps: 4 (2 realisations + 3) nodes * cells_padded."""
        return self.link_db.nbytes + self.sine_below.nbytes + self.beam_db.nbytes + self.mean_db.nbytes

    def coordinates(self, position: FloatArray) -> NDArray[np.float64]:
        """Grid coordinates [..., 2] of positions [..., 2] in m."""
        return np.asarray((position - self.origin) @ self.inverse.T)

    def nodes(self) -> NDArray[np.float64]:
        """Positions of all nodes [nodes, 2] in m."""
        return _node_positions(self.origin, self.basis, self.shape)

    def sample(self, values: Float32Array, position: FloatArray) -> Float32Array:
        """Bilinear interpolation of a map [nodes, k] at positions [..., 2], giving [..., k].

        Positions beyond a grid that does not wrap are moved to its border.
        """
        fg = self.coordinates(position)
        n_f, n_g = self.shape
        if not self.wraps:
            fg = np.clip(fg, 0.0, np.array([n_f - 1.0, n_g - 1.0]))
        low = np.floor(fg)
        if not self.wraps:
            low = np.minimum(low, np.array([n_f - 2.0, n_g - 2.0]))
        u, v = np.moveaxis(fg - low, -1, 0)[..., None].astype(np.float32)
        i, j = np.moveaxis(low.astype(np.int64), -1, 0)
        i0, i1 = (i % n_f) * n_g, ((i + 1) % n_f) * n_g
        j0, j1 = j % n_g, (j + 1) % n_g
        near = values[i0 + j0] * (1 - v) + values[i0 + j1] * v
        far = values[i1 + j0] * (1 - v) + values[i1 + j1] * v
        return np.asarray(near * (1 - u) + far * u, dtype=np.float32)


def map_bytes(layout: Layout, *, spacing_m: float, realisations: int) -> int:
    """Memory that the maps of a layout would take, in bytes, without making them."""
    _, _, (n_f, n_g) = _frame(layout, spacing_m)
    return 4 * (2 * realisations + 3) * n_f * n_g * _padded(layout.cells)


def build_maps(
    layout: Layout,
    *,
    carrier_ghz: float,
    site_height_m: float,
    user_height_m: float = 1.5,
    propagation: str = "uma",
    minimum_distance_m: float = 10.0,
    los_correlation_m: float | None = None,
    columns: int = 1,
    building: Literal["low", "high"] = "low",
    spacing_m: float | None = None,
    realisations: int = 16,
    seed: int = SEED,
) -> Maps:
    """The maps of a network; equal arguments give the same object as long as it is remembered.

    Realisation r depends on the seed and r, not on the number of realisations. Sectors of a site share line of sight
    and shadowing. Shadowing in sight and out of sight are independent fields, as in TR 38.901; both are raised by the
    small factor that bilinear interpolation takes away on average (6 to 14 % of the standard deviation outdoors at the
    default spacing, 19 to 33 % indoors, where the decorrelation distance is as short as the spacing).

    Args:
        layout: where the cells stand; its own heights, where it has them, take precedence.
        carrier_ghz: carrier frequency.
        site_height_m: antenna height.
        user_height_m: 1.5 to 13.
        propagation: ``uma`` or ``umi``.
        minimum_distance_m: users nearer than this to a site count as this far away; the formulas start at 10 m.
        los_correlation_m: decorrelation distance of line of sight; by default the environment's.
        columns: columns of an antenna panel: 1 (no beams), 2, 4 or 8.
        building: loss on entering buildings: ``low`` (old ones) or ``high`` (coated glass).
        spacing_m: distance between nodes; by default 10 (uma) or 5 (umi). Wrapped planes round it down.
        realisations: independent landscapes.
        seed: of all of them.

    Raises:
        ConfigurationError: an option that is out of range, or maps of more than 4 GiB.
    """
    place = pathloss.environment(propagation)
    spacing = place.spacing_m if spacing_m is None else spacing_m
    correlation = place.correlation_state_m if los_correlation_m is None else los_correlation_m
    for name, value in (
        ("spacing_m", spacing),
        ("los_correlation_m", correlation),
        ("minimum_distance_m", minimum_distance_m),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ConfigurationError(f"{name} must be positive, not {value:g}", field=name)
    if realisations < 1:
        raise ConfigurationError(f"realisations must be at least 1, not {realisations}", field="realisations")
    if seed < 0:
        raise ConfigurationError(f"seed must not be negative, not {seed}", field="seed")
    if columns not in antennas.COLUMNS or (columns > 1 and layout.azimuth_deg is None):
        allowed = antennas.COLUMNS if layout.azimuth_deg is not None else (1,)
        raise ConfigurationError(
            f"unknown columns {columns!r}; allowed for {layout.name}: {', '.join(map(str, allowed))}", field="columns"
        )
    size = map_bytes(layout, spacing_m=spacing, realisations=realisations)
    if size > MAXIMUM_BYTES:
        raise ConfigurationError(
            f"the maps of {layout.cells} cells would take {size / 2**30:.1f} GiB with points {spacing:g} m apart, more "
            f"than {MAXIMUM_BYTES >> 30}: take fewer cells, or sites closer together",
            field="cells",
        )
    return _build(
        layout,
        float(carrier_ghz),
        float(site_height_m),
        float(user_height_m),
        propagation,
        float(minimum_distance_m),
        float(correlation),
        int(columns),
        building,
        float(spacing),
        int(realisations),
        int(seed),
    )


def fitting_resolution(layout: Layout, *, spacing_m: float, realisations: int) -> tuple[float, int]:
    """Spacing in m and number of realisations with which the maps of a large network fit into ``MAXIMUM_BYTES``.

    Landscapes are given up first, down to two: in a large network every one of them holds many places. Then points
    move apart, up to 80 m.
    """
    while map_bytes(layout, spacing_m=spacing_m, realisations=realisations) > MAXIMUM_BYTES:
        if realisations > 2:
            realisations = max(realisations // 2, 2)
        elif spacing_m < 80.0:
            spacing_m *= 2.0
        else:
            break
    return spacing_m, realisations


@lru_cache(maxsize=4)
def _build(
    layout: Layout,
    carrier_ghz: float,
    site_height_m: float,
    user_height_m: float,
    propagation: str,
    minimum_distance_m: float,
    los_correlation_m: float,
    columns: int,
    building: Literal["low", "high"],
    spacing_m: float,
    realisations: int,
    seed: int,
) -> Maps:
    place = pathloss.environment(propagation)
    origin, basis, shape = _frame(layout, spacing_m)
    nodes = _node_positions(origin, basis, shape)
    count, cells, padded = len(nodes), layout.cells, _padded(layout.cells)
    heights = np.full(cells, site_height_m) if layout.height_m is None else layout.height_m
    # [cells, nodes] while computing, transposed at the end: a kernel reads all cells of one node.
    in_sight = np.empty((cells, count), dtype=np.float32)
    out_of_sight = np.empty((cells, count), dtype=np.float32)
    sine_below = np.zeros((count, padded), dtype=np.float32)
    beam_db = np.zeros((count, padded), dtype=np.float32)
    mean_db = np.full((count, padded), PADDING_DB, dtype=np.float32)
    chance = np.empty((len(layout.sites), count))
    for cell, site in enumerate(layout.site_of_cell.tolist()):
        dx, dy = layout.nearest_image(nodes[:, 0] - layout.sites[site, 0], nodes[:, 1] - layout.sites[site, 1])
        distance = np.maximum(np.hypot(dx, dy), minimum_distance_m)
        los_db, nlos_db = pathloss.path_loss_db(
            propagation,
            distance,
            carrier_ghz=carrier_ghz,
            site_height_m=float(heights[cell]),
            user_height_m=user_height_m,
        )
        height = float(heights[cell]) - user_height_m
        space = np.hypot(distance, height)
        sine = height / space
        attenuation = antennas.elevation_attenuation_db(np.rad2deg(np.arcsin(sine)))
        azimuth = math.nan if layout.azimuth_deg is None else float(layout.azimuth_deg[cell])
        peak_db = antennas.omnidirectional_gain_db()
        if not math.isnan(azimuth):
            peak_db = antennas.ELEMENT_GAIN_DB
            off = np.rad2deg(np.arctan2(dy, dx)) - azimuth
            off -= 360.0 * np.rint(off / 360.0)
            attenuation = attenuation + antennas.azimuth_attenuation_db(off)
            if columns > 1:
                beam_db[:, cell] = antennas.best_beam_db(np.sin(np.deg2rad(off)) * distance / space, columns)
        gain = antennas.element_gain_db(attenuation, peak_db)
        probability = pathloss.los_probability(distance, decay_m=place.los_decay_m)
        chance[site] = probability
        in_sight[cell], out_of_sight[cell] = gain - los_db, gain - nlos_db
        sine_below[:, cell] = sine
        mean_db[:, cell] = gain - (probability * los_db + (1.0 - probability) * nlos_db)
    link_db = np.full((realisations, 2, count, padded), PADDING_DB, dtype=np.float32)
    landscape = _Landscape(place, basis, shape, wraps=layout.wraps, los_correlation_m=los_correlation_m)
    threshold = ndtri(chance).astype(np.float32)
    for realisation in range(realisations):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, realisation])))
        sight, outdoor, indoor = landscape.draw(threshold, generator)
        unshadowed = np.where(sight[layout.site_of_cell], in_sight, out_of_sight)
        link_db[realisation, OUTDOOR, :, :cells] = (unshadowed - outdoor[layout.site_of_cell]).T
        link_db[realisation, INDOOR, :, :cells] = (unshadowed - indoor[layout.site_of_cell]).T
    return Maps(
        origin=origin,
        basis=basis,
        inverse=np.linalg.inv(basis).astype(np.float64),
        shape=shape,
        wraps=layout.wraps,
        cells=cells,
        link_db=link_db,
        sine_below=sine_below,
        beam_db=beam_db,
        mean_db=mean_db,
        penetration=(
            pathloss.entry_loss_db(carrier_ghz, building=building),
            pathloss.INDOOR_DB_PER_M,
            pathloss.ENTRY_SPREAD_DB[building],
        ),
    )


class _Landscape:
    """The correlated fields of one network, ready to be drawn realisation by realisation."""

    def __init__(
        self,
        place: pathloss.Environment,
        basis: NDArray[np.float64],
        shape: tuple[int, int],
        *,
        wraps: bool,
        los_correlation_m: float,
    ) -> None:
        self._sight = FieldSampler(basis, shape, decorrelation_m=los_correlation_m, wraps=wraps)
        self._shadows = [
            (
                FieldSampler(basis, shape, decorrelation_m=correlation, wraps=wraps),
                np.float32(sigma / math.sqrt(interpolated_variance(basis, correlation))),
            )
            for sigma, correlation in (
                (place.shadow_los_db, place.correlation_los_m),
                (place.shadow_nlos_db, place.correlation_nlos_m),
                (place.shadow_indoor_db, place.correlation_indoor_m),
            )
        ]

    def draw(
        self, threshold: Float32Array, generator: np.random.Generator
    ) -> tuple[NDArray[np.bool_], Float32Array, Float32Array]:
        """Line of sight, and shadowing outdoors and indoors in dB, [sites, nodes] each.

        Args:
            threshold: normal quantile of the probability of line of sight [sites, nodes].
            generator: of this realisation.
        """
        sites, count = threshold.shape
        sight = self._sight.draw(sites, generator).reshape(sites, count) < threshold
        los, nlos, indoor = (
            sigma * sampler.draw(sites, generator).reshape(sites, count) for sampler, sigma in self._shadows
        )
        return sight, np.where(sight, los, nlos), indoor


def _frame(layout: Layout, spacing_m: float) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]:
    """Origin [2], basis [2, 2] and shape of the grid."""
    if layout.periods is not None:
        lengths = np.linalg.norm(layout.periods, axis=1)
        n_f, n_g = (fft.next_fast_len(max(2, math.ceil(float(length) / spacing_m))) for length in lengths)
        return np.zeros(2), np.ascontiguousarray((layout.periods / np.array([[n_f], [n_g]])).T), (n_f, n_g)
    # One node more than the disc needs on either side.
    nodes = math.ceil(2 * layout.radius_m / spacing_m) + 3
    return np.full(2, -(layout.radius_m + spacing_m)), spacing_m * np.eye(2), (nodes, nodes)


def _node_positions(
    origin: NDArray[np.float64], basis: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    f, g = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    return np.asarray(origin + np.stack([f.ravel(), g.ravel()], axis=1) @ basis.T)


def _padded(cells: int) -> int:
    return -(-cells // LANES) * LANES
