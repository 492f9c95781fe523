"""The cells of a real network, read from a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.geography.layout import MAXIMUM_CELLS, Layout, colours, nearest_cells

__all__ = ["read_sites", "tangent_plane_m"]

SAME_SITE_M = 2.0
"""Cells nearer than this share a site: its sectors' antennas stand on one roof."""
LONE_SITE_SPACING_M = 500.0
"""Distance between sites assumed where a file has a single one."""

# WGS 84 ellipsoid.
EQUATORIAL_M = 6_378_137.0
ECCENTRICITY_2 = 6.694_379_990_14e-3


@dataclass(frozen=True, slots=True)
class _Column:
    """Range of a numeric column; ``blank`` when a cell may leave it empty."""

    low: float
    high: float
    blank: bool = False
    open_end: bool = False

    def allowed(self) -> str:
        return f"a number in [{self.low:g}, {self.high:g}{')' if self.open_end else ']'}" + (
            " or nothing" if self.blank else ""
        )


_COLUMNS: Mapping[str, _Column] = {
    "x_m": _Column(-1e7, 1e7),
    "y_m": _Column(-1e7, 1e7),
    "latitude": _Column(-89.0, 89.0),
    "longitude": _Column(-180.0, 180.0),
    "azimuth_deg": _Column(0.0, 360.0, blank=True, open_end=True),
    "height_m": _Column(2.0, 500.0, blank=True),
    "power_dbm": _Column(0.0, 60.0, blank=True),
}


def read_sites(path: str | Path, *, radius_m: float | None = None) -> Layout:
    """The layout of a real network from a CSV file with one line per cell.

    Columns: ``x_m`` and ``y_m`` (metres east and north of anywhere), or ``latitude`` and ``longitude`` (degrees,
    WGS 84); ``azimuth_deg``, the compass bearing of the sector (clockwise from north, 0 up to but not 360; empty: in
    all directions); if wanted ``name``, ``height_m`` and ``power_dbm``, each for all cells or for none. Other columns
    are passed over. The origin moves to the middle of the sites; the layout's ``anchor`` says where that is.

    Args:
        path: of the file, UTF-8.
        radius_m: radius around the origin in which users move; by default a disc that covers the cells.

    Returns:
        A layout that does not wrap. Its azimuths are counter-clockwise from east, like those of every layout.

    Raises:
        ConfigurationError: naming file, line, column and what is allowed there.
    """
    file = Path(path)
    header, rows = _read(file)
    geographic = _position_columns(file, header)
    first, second = ("latitude", "longitude") if geographic else ("x_m", "y_m")
    raw = np.array([[_number(file, row, first), _number(file, row, second)] for row in rows])
    if geographic:
        anchor = _middle_of_earth(raw)
        position = tangent_plane_m(raw[:, 0], raw[:, 1], latitude=anchor[0], longitude=anchor[1])
    else:
        middle = (raw.min(axis=0) + raw.max(axis=0)) / 2
        anchor = (float(middle[0]), float(middle[1]))
        position = raw - middle
    bearing = np.array([_number(file, row, "azimuth_deg") for row in rows])
    sites, site_of_cell = _sites(position)
    names = _names(file, header, rows)
    _refuse_twins(file, rows, site_of_cell, bearing)
    azimuth = (90.0 - bearing + 180.0) % 360.0 - 180.0
    spacing = _typical_spacing_m(sites)
    radians = np.deg2rad(np.nan_to_num(azimuth))
    ahead = np.where(np.isnan(azimuth), 0.0, spacing / 3)
    centres = sites[site_of_cell] + ahead[:, None] * np.stack([np.cos(radians), np.sin(radians)], axis=1)
    neighbours = nearest_cells(centres)
    if radius_m is None:
        radius_m = float(np.hypot(sites[:, 0], sites[:, 1]).max()) + 2 / 3 * spacing
    elif not (math.isfinite(radius_m) and radius_m > 0):
        raise ConfigurationError(f"radius_m must be positive, not {radius_m:g}", field="radius_m")
    return Layout(
        name=file.stem,
        sites=sites,
        site_of_cell=site_of_cell,
        azimuth_deg=None if bool(np.isnan(azimuth).all()) else azimuth,
        neighbours=neighbours,
        periods=None,
        radius_m=float(radius_m),
        colour=colours(neighbours),
        centres=centres,
        height_m=_optional(file, header, rows, "height_m"),
        power_dbm=_optional(file, header, rows, "power_dbm"),
        cell_names=names,
        anchor=anchor,
    )


def tangent_plane_m(
    latitudes: NDArray[np.float64], longitudes: NDArray[np.float64], *, latitude: float, longitude: float
) -> NDArray[np.float64]:
    """Metres east and north [n, 2] of a point on the WGS 84 ellipsoid, on the plane that touches it there.

    Uses the radii of curvature along the meridian and across it at the point; over 30 km the error is below 0.3 %.
    """
    phi = math.radians(latitude)
    bend = 1.0 - ECCENTRICITY_2 * math.sin(phi) ** 2
    across = EQUATORIAL_M / math.sqrt(bend)
    along = EQUATORIAL_M * (1.0 - ECCENTRICITY_2) / bend**1.5
    turn = (longitudes - longitude + 180.0) % 360.0 - 180.0
    return np.stack(
        [np.deg2rad(turn) * across * math.cos(phi), np.deg2rad(latitudes - latitude) * along],
        axis=1,
    )


_Row = tuple[int, dict[str, str]]


def _read(file: Path) -> tuple[list[str], list[_Row]]:
    """Header and the non-empty rows with their line numbers."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restkey="(too many)", strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            rows: list[_Row] = []
            for row in reader:
                if "(too many)" in row:
                    raise ConfigurationError(
                        f"{file}: line {reader.line_num} has more values than the header's {len(header)}", field="sites"
                    )
                # Missing fields are no empty ones: a row that lost a comma would move its values to other columns.
                short = [name for name in header if row[name] is None]
                if short:
                    raise ConfigurationError(
                        f"{file}: line {reader.line_num}, column {short[0]} is missing: {len(header) - len(short)} "
                        f"values, the header has {len(header)}",
                        field=short[0],
                    )
                rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    except OSError as error:
        raise ConfigurationError(f"sites: {file} cannot be read: {error.strerror or error}", field="sites") from error
    except ConfigurationError:
        raise
    except (ValueError, csv.Error) as error:  # a ValueError: bytes that are no UTF-8, or a path with a null in it
        raise ConfigurationError(f"{file}: not a CSV file in UTF-8: {error}", field="sites") from error
    if not rows:
        raise ConfigurationError(f"{file}: no cells; a header and at least one line are needed", field="sites")
    if len(rows) > MAXIMUM_CELLS:
        raise ConfigurationError(f"{file}: {len(rows)} cells; at most {MAXIMUM_CELLS} are allowed", field="sites")
    return header, rows


def _position_columns(file: Path, header: list[str]) -> bool:
    """Whether positions are geographic."""
    plane, earth = {"x_m", "y_m"} <= set(header), {"latitude", "longitude"} <= set(header)
    if plane == earth:
        problem = "both are there" if plane else f"found: {', '.join(header) or '(none)'}"
        raise ConfigurationError(
            f"{file}: columns x_m and y_m, or latitude and longitude, are needed; {problem}", field="sites"
        )
    if "azimuth_deg" not in header:
        raise ConfigurationError(
            f"{file}: column azimuth_deg is missing (empty values mean a cell in all directions); "
            f"found: {', '.join(header)}",
            field="azimuth_deg",
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ConfigurationError(f"{file}: column {repeated[0]} is there more than once", field=repeated[0])
    return earth


def _number(file: Path, row: _Row, column: str) -> float:
    """The number in a column, NaN where it is empty and may be."""
    line, values = row
    text, rule = values[column], _COLUMNS[column]
    if not text and rule.blank:
        return math.nan
    try:
        # Python's own spellings of numbers, 1_000 and other scripts' digits, are slips of the pen in a table.
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    inside = rule.low <= number <= rule.high and not (rule.open_end and number == rule.high)
    if not inside:
        raise ConfigurationError(
            f"{file}: line {line}, column {column}: {text[:40]!r} is not {rule.allowed()}", field=column
        )
    return number


def _optional(file: Path, header: list[str], rows: list[_Row], column: str) -> NDArray[np.float64] | None:
    if column not in header:
        return None
    values = np.array([_number(file, row, column) for row in rows])
    blank = np.isnan(values)
    if blank.all():
        return None
    if blank.any():
        line = rows[int(np.argmax(blank))][0]
        raise ConfigurationError(
            f"{file}: line {line}, column {column} is empty; give it for all cells or for none", field=column
        )
    return values


def _names(file: Path, header: list[str], rows: list[_Row]) -> tuple[str, ...]:
    if "name" not in header:
        return ()
    seen: dict[str, int] = {}
    for line, values in rows:
        name = values["name"]
        if name and name in seen:
            raise ConfigurationError(
                f"{file}: line {line}, column name: {name[:40]!r} is also on line {seen[name]}; names must differ",
                field="name",
            )
        seen[name] = line
    return tuple(values["name"] for _, values in rows)


def _sites(position: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Site positions [n_sites, 2] and the site of each cell: a cell joins the first site within 2 m."""
    sites: list[NDArray[np.float64]] = []
    site_of_cell = np.empty(len(position), dtype=np.int64)
    for cell, place in enumerate(position):
        distance = np.linalg.norm(np.array(sites).reshape(-1, 2) - place, axis=1)
        if sites and distance.min() < SAME_SITE_M:
            site_of_cell[cell] = int(distance.argmin())
        else:
            site_of_cell[cell] = len(sites)
            sites.append(place)
    return np.array(sites), site_of_cell


def _refuse_twins(file: Path, rows: list[_Row], site_of_cell: NDArray[np.int64], bearing: NDArray[np.float64]) -> None:
    seen: dict[tuple[int, float | None], int] = {}
    for (line, _), site, angle in zip(rows, site_of_cell.tolist(), bearing.tolist(), strict=True):
        cell = (site, None if math.isnan(angle) else angle)
        if cell in seen:
            raise ConfigurationError(
                f"{file}: line {line} repeats the cell of line {seen[cell]}: cells of one site must differ in "
                "azimuth_deg",
                field="azimuth_deg",
            )
        seen[cell] = line


def _typical_spacing_m(sites: NDArray[np.float64]) -> float:
    """Median distance from a site to the nearest other one."""
    if len(sites) == 1:
        return LONE_SITE_SPACING_M
    distance = np.linalg.norm(sites[:, None] - sites[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return float(np.median(distance.min(axis=1)))


def _middle_of_earth(degrees: NDArray[np.float64]) -> tuple[float, float]:
    """Middle latitude and longitude; a network across the date line keeps together."""
    latitude = float(degrees[:, 0].min() + degrees[:, 0].max()) / 2
    reference = float(degrees[0, 1])
    turn = (degrees[:, 1] - reference + 180.0) % 360.0 - 180.0
    longitude = reference + float(turn.min() + turn.max()) / 2
    return latitude, (longitude + 180.0) % 360.0 - 180.0
