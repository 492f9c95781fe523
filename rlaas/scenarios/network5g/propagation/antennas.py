"""Antennas: the sector element of 3GPP TR 38.901, the tilted column of elements, and horizontal beams.

A cell's antenna is a panel of ``elements`` rows and ``columns`` columns, half a wavelength apart. Three gains add in
dB: that of one element, that of the column steered to a tilt (:func:`tilt_gain_db`) and that of the beam across the
columns (:func:`best_beam_db`). Steering vectors have unit norm, so that an array moves power and makes none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError

__all__ = [
    "COLUMNS",
    "ELEMENTS",
    "OVERSAMPLING",
    "TiltTable",
    "azimuth_attenuation_db",
    "beam_gains",
    "best_beam_db",
    "codebook",
    "element_gain_db",
    "elevation_attenuation_db",
    "omnidirectional_gain_db",
    "tilt_gain_db",
    "tilt_table",
]

FloatArray = NDArray[np.floating[Any]]

ELEMENT_GAIN_DB = 8.0
MAXIMUM_ATTENUATION_DB = 30.0
BEAMWIDTH_DEG = 65.0

ELEMENTS = (1, 2, 4, 8, 16)
"""Numbers of rows of a panel."""
COLUMNS = (1, 2, 4, 8)
"""Numbers of columns of a panel."""
OVERSAMPLING = 4
"""Beams per column: O_1 of the type I codebook, TS 38.214 table 5.2.2.2.1-2."""


def azimuth_attenuation_db(azimuth_deg: FloatArray) -> FloatArray:
    """-A_H [...] >= 0 at ``azimuth_deg`` off boresight in [-180, 180], TR 38.901 table 7.3-1."""
    return np.asarray(np.minimum(12.0 * (azimuth_deg / BEAMWIDTH_DEG) ** 2, MAXIMUM_ATTENUATION_DB))


def elevation_attenuation_db(below_horizon_deg: FloatArray) -> FloatArray:
    """-A_V [...] >= 0 of an element that looks at the horizon, TR 38.901 table 7.3-1."""
    return np.asarray(np.minimum(12.0 * (below_horizon_deg / BEAMWIDTH_DEG) ** 2, MAXIMUM_ATTENUATION_DB))


def element_gain_db(attenuation_db: FloatArray, peak_db: float = ELEMENT_GAIN_DB) -> FloatArray:
    """Element gain in dBi [...] for the sum of azimuth and elevation attenuation, at least 30 dB below its peak."""
    return np.asarray(peak_db - np.minimum(attenuation_db, MAXIMUM_ATTENUATION_DB))


@cache
def omnidirectional_gain_db() -> float:
    """Peak gain in dBi of an element that looks in all directions: it radiates what one of a sector radiates.

    The model of TR 38.901 gives the sector's only. Without its azimuth pattern the same peak would send out five times
    the power that is fed in.
    """
    elevation = np.deg2rad(np.linspace(-90.0, 90.0, 721))
    azimuth = np.linspace(-180.0, 180.0, 1441)
    vertical = elevation_attenuation_db(np.rad2deg(elevation))
    both = element_gain_db(vertical[:, None] + azimuth_attenuation_db(azimuth)[None, :], 0.0)
    sector = (10 ** (0.1 * both)).mean(axis=1)
    around = 10 ** (0.1 * element_gain_db(vertical, 0.0))
    weight = np.cos(elevation)
    return float(ELEMENT_GAIN_DB + 10.0 * np.log10((sector * weight).sum() / (around * weight).sum()))


def tilt_gain_db(offset: FloatArray, *, elements: int = 8, floor_db: float = -11.0) -> FloatArray:
    """Gain [...] of a column of half-wavelength elements of unit norm.

    |a(theta)^H w|^2 = (sin(M x) / sin x)^2 / M with x = pi/2 * offset; for M = 2^k the quotient is the product
    2^k cos x cos 2x ... cos 2^(k-1) x, which has no 0/0 at the peak.

    Args:
        offset: sine of the angle below the horizon at which a user is seen, minus the sine of the tilt [...].
        elements: M, one of :data:`ELEMENTS`.
        floor_db: null filling: the gain never falls below this.

    Raises:
        ConfigurationError: a number of elements that is not offered.
    """
    _check_count("elements", elements, ELEMENTS)
    x = 0.5 * np.pi * np.asarray(offset)
    power = np.full(x.shape, float(elements))
    for doubling in range(elements.bit_length() - 1):
        power *= np.cos(2**doubling * x) ** 2
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (floor_db / 10.0))))


@dataclass(frozen=True, slots=True, kw_only=True)
class TiltTable:
    """:func:`tilt_gain_db` on a uniform grid over |offset| in [0, 2]; the gain is an even function.

    A kernel reads ``gain_db[int(abs(offset) * scale + 0.5)]``.

    Attributes:
        gain_db: gain [entries], float32.
        scale: entries per unit of offset.
    """

    gain_db: NDArray[np.float32]
    scale: float

    def __call__(self, offset: FloatArray) -> NDArray[np.float32]:
        """The gain that a kernel would read [...]."""
        index = (np.abs(offset) * self.scale + 0.5).astype(np.int64)
        return np.asarray(self.gain_db[index])


def tilt_table(*, elements: int = 8, floor_db: float = -11.0, entries: int = 4097) -> TiltTable:
    """The vertical pattern as a table.

    With the 4,097 entries (16 KiB) of the default a look-up is within 0.1 dB of the formula for up to 8 elements.

    Raises:
        ConfigurationError: a number of elements that is not offered, or fewer than two entries.
    """
    if entries < 2:
        raise ConfigurationError(f"entries must be at least 2, not {entries}", field="entries")
    gain = tilt_gain_db(np.linspace(0.0, 2.0, entries), elements=elements, floor_db=floor_db)
    return TiltTable(gain_db=np.ascontiguousarray(gain, dtype=np.float32), scale=(entries - 1) / 2.0)


def codebook(columns: int) -> NDArray[np.complex128]:
    """Horizontal DFT beams [beams, columns] of unit norm, four per column.

    Beam k points at sin(azimuth) = 2 k / beams (modulo 2): w_m = exp(i pi m 2 k / beams) / sqrt(columns).
    All beams together radiate alike in every direction: the mean of |a^H w|^2 over them is 1.

    Raises:
        ConfigurationError: a number of columns that is not offered.
    """
    _check_count("columns", columns, COLUMNS)
    beams = 1 if columns == 1 else OVERSAMPLING * columns
    phase = 2.0 * np.pi * np.outer(np.arange(beams), np.arange(columns)) / beams
    return np.asarray(np.exp(1j * phase) / np.sqrt(columns))


def beam_gains(sine_azimuth: FloatArray, columns: int) -> FloatArray:
    """Power gain |a^H w|^2 [..., beams] of every beam of the codebook towards ``sine_azimuth`` [...].

    The direction cosine along the row of columns is sin(azimuth off boresight) * cos(elevation).
    """
    book = codebook(columns)
    arriving = np.exp(1j * np.pi * np.asarray(sine_azimuth)[..., None] * np.arange(columns))
    return np.asarray(np.abs(arriving.conj() @ book.T) ** 2)


def best_beam_db(sine_azimuth: FloatArray, columns: int) -> FloatArray:
    """Gain [...] of the best beam for a user at ``sine_azimuth``: what its serving cell gives it.

    At most 10 log10(columns); towards a user that it does not serve a cell's beam is one of the others, whose mean
    power gain is 1 (0 dB). Between two of the oversampled beams the loss stays below 0.3 dB.
    """
    _check_count("columns", columns, COLUMNS)
    offset = np.asarray(sine_azimuth, dtype=np.float64)
    if columns == 1:
        return np.zeros(offset.shape)
    # The best beam is the nearest one, and its gain is that of a column of the same length off by the difference.
    step = 2.0 / (OVERSAMPLING * columns)
    return tilt_gain_db(offset - step * np.rint(offset / step), elements=columns, floor_db=-300.0)


def _check_count(field: str, value: int, allowed: tuple[int, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"unknown {field} {value!r}; allowed: {', '.join(str(count) for count in allowed)}", field=field
        )
