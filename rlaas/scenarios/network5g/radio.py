"""Radio formulas of 3GPP TR 38.901 and the rate tables of TS 38.214: pure functions on arrays.

Distances in m, frequencies in GHz, angles in degrees, gains and losses in dB.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CQI_64QAM",
    "CQI_LOW_RATE",
    "array_gain_db",
    "azimuth_attenuation_db",
    "cqi",
    "cqi_thresholds_db",
    "element_gain_db",
    "elevation_attenuation_db",
    "los_probability",
    "uma_path_loss_db",
]

FloatArray = NDArray[np.floating[Any]]

# Efficiency in bit/s/Hz of CQI 0 (outage) to 15.
# fmt: off
CQI_64QAM = np.array([  # TS 38.214 table 5.2.2.1-2
    0, 0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766,
    1.9141, 2.4063, 2.7305, 3.3223, 3.9023, 4.5234, 5.1152, 5.5547,
])
CQI_LOW_RATE = np.array([  # TS 38.214 table 5.2.2.1-4 ("table 3"), made for a block error rate of 1e-5
    0, 0.0586, 0.0977, 0.1523, 0.2344, 0.3770, 0.6016, 0.8770,
    1.1758, 1.4766, 1.9141, 2.4063, 2.7305, 3.3223, 3.9023, 4.5234,
])
# fmt: on

ELEMENT_GAIN_DB = 8.0
MAXIMUM_ATTENUATION_DB = 30.0
BEAMWIDTH_DEG = 65.0
LIGHT_M_S = 3e8
SHADOW_DB = {True: 4.0, False: 6.0}
"""Standard deviation of UMa shadowing by line of sight, TR 38.901 table 7.4.1-1."""
SHADOW_CORRELATION_M = {True: 37.0, False: 50.0}
"""Decorrelation distance of UMa shadowing by line of sight, TR 38.901 table 7.5-6."""


def uma_path_loss_db(
    distance_2d: FloatArray,
    *,
    carrier_ghz: float,
    site_height: float = 25.0,
    user_height: float = 1.5,
) -> tuple[FloatArray, FloatArray]:
    """Urban-macro path loss with and without line of sight, TR 38.901 table 7.4.1-1 (user height below 13 m).

    Args:
        distance_2d: horizontal distance [...].
        carrier_ghz: carrier frequency.
        site_height, user_height: antenna heights.

    Returns:
        Path loss with line of sight and without [...], in the dtype of ``distance_2d``.
    """
    height = site_height - user_height
    breakpoint_m = 4 * (site_height - 1) * (user_height - 1) * carrier_ghz * 1e9 / LIGHT_M_S
    log_d = 0.5 * np.log10(distance_2d * distance_2d + height * height)
    log_f = 20 * math.log10(carrier_ghz)
    near = 28.0 + 22.0 * log_d + log_f
    far = 28.0 + 40.0 * log_d + log_f - 9.0 * math.log10(breakpoint_m**2 + height**2)
    los = np.where(distance_2d <= breakpoint_m, near, far)
    nlos = np.maximum(los, 13.54 + 39.08 * log_d + log_f - 0.6 * (user_height - 1.5))
    return los, nlos


def los_probability(distance_2d: FloatArray, *, decay_m: float = 63.0) -> FloatArray:
    """Probability of line of sight [...], TR 38.901 table 7.4.2-1 (UMa: decay 63 m, UMi: 36 m; user below 13 m)."""
    near = 18.0 / np.maximum(distance_2d, 18.0)
    return np.asarray(near + np.exp(-distance_2d / decay_m) * (1.0 - near))


def azimuth_attenuation_db(azimuth_deg: FloatArray) -> FloatArray:
    """-A_H [...] >= 0 at ``azimuth_deg`` off boresight in [-180, 180], TR 38.901 table 7.3-1."""
    return np.asarray(np.minimum(12.0 * (azimuth_deg / BEAMWIDTH_DEG) ** 2, MAXIMUM_ATTENUATION_DB))


def elevation_attenuation_db(below_horizon_deg: FloatArray) -> FloatArray:
    """-A_V [...] >= 0 of an element that looks at the horizon, TR 38.901 table 7.3-1."""
    return np.asarray(np.minimum(12.0 * (below_horizon_deg / BEAMWIDTH_DEG) ** 2, MAXIMUM_ATTENUATION_DB))


def element_gain_db(attenuation_db: FloatArray) -> FloatArray:
    """Element gain in dBi [...] for the sum of azimuth and elevation attenuation, at least 30 dB below its peak."""
    return ELEMENT_GAIN_DB - np.minimum(attenuation_db, MAXIMUM_ATTENUATION_DB)


def array_gain_db(sine_below: FloatArray, tilt_deg: FloatArray, *, elements: int, floor_db: float) -> FloatArray:
    """Gain [...] of a vertical half-wavelength array of unit norm steered to ``tilt_deg`` below the horizon.

    20 log10 |a(theta)^H w| = 20 log10 (|sin(M x) / sin x| / sqrt M), x = pi/2 (sin elevation - sin tilt).

    Args:
        sine_below: sine of the angle below the horizon at which the user is seen [...].
        tilt_deg: electrical tilt, broadcastable.
        elements: M.
        floor_db: null filling: the gain never falls below this.
    """
    half = sine_below.dtype.type(np.pi / 2) * (sine_below - np.sin(np.deg2rad(tilt_deg)))
    # Moving a vanishing sine away from 0 keeps the quotient at its limit M to float precision.
    half = np.where(np.abs(half) < 1e-4, sine_below.dtype.type(1e-4), half)
    quotient = np.sin(elements * half) / np.sin(half)
    power = quotient * quotient / elements
    return np.asarray(10.0 * np.log10(np.maximum(power, 10 ** (floor_db / 10))))


def cqi_thresholds_db(efficiencies: NDArray[np.float64], *, shannon_share: float = 0.75) -> NDArray[np.float64]:
    """SINR from which each CQI 1..15 is usable [15]: 10 log10(2^(eff / share) - 1) dB.

    The share is how much of Shannon's capacity the coding reaches: 0.75 at a block error rate of 0.1.
    """
    return np.asarray(10.0 * np.log10(2.0 ** (efficiencies[1:] / shannon_share) - 1.0))


def cqi(sinr_db: FloatArray, thresholds_db: NDArray[np.float64]) -> NDArray[np.int64]:
    """Highest usable CQI [...], 0 for outage."""
    return np.asarray(np.searchsorted(thresholds_db, sinr_db, side="right"), dtype=np.int64)
