"""Path loss, line of sight, shadowing and building entry of 3GPP TR 38.901 (release 16 and later).

Distances and heights in m, frequencies in GHz, losses in dB. Two environments: ``uma`` (urban macro, antennas above the
roofs) and ``umi`` (urban micro street canyon, antennas below them). Users stand below 13 m, where the effective
environment height is 1 m and the probability of line of sight needs no correction for height.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, check_choice

__all__ = [
    "ENTRY_SPREAD_DB",
    "ENVIRONMENTS",
    "INDOOR_DB_PER_M",
    "INDOOR_DEPTH_M",
    "Environment",
    "breakpoint_m",
    "entry_loss_db",
    "environment",
    "los_probability",
    "path_loss_db",
    "uma_path_loss_db",
    "umi_path_loss_db",
]

FloatArray = NDArray[np.floating[Any]]

LIGHT_M_S = 3e8
"""TR 38.901 table 7.4.1-1 note 1 takes the speed of light as 3.0e8 m/s."""
ENVIRONMENT_HEIGHT_M = 1.0
"""Effective height h_E of the environment for a user below 13 m, table 7.4.1-1 note 1."""
USER_HEIGHTS_M = (1.5, 13.0)
"""Heights for which the formulas below hold as they stand."""
CARRIERS_GHZ = (0.5, 100.0)
"""Range of carrier frequencies of TR 38.901."""

INDOOR_DEPTH_M = 25.0
"""The depth inside a building is the smaller of two uniform draws on [0, 25] m, TR 38.901 section 7.4.3.1."""
INDOOR_DB_PER_M = 0.5
"""Loss inside a building, TR 38.901 table 7.4.3-2."""
ENTRY_SPREAD_DB: Mapping[str, float] = MappingProxyType({"low": 4.4, "high": 6.5})
"""Standard deviation of the entry loss of low-loss and high-loss buildings, TR 38.901 table 7.4.3-2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The figures of TR 38.901 that differ between environments.

    Attributes:
        name: ``uma`` or ``umi``.
        los_decay_m: decay D of the probability of line of sight, table 7.4.2-1.
        shadow_los_db, shadow_nlos_db, shadow_indoor_db: standard deviation of shadowing with line of sight, without it
            and from outdoors to indoors, tables 7.4.1-1 and 7.5-6.
        correlation_los_m, correlation_nlos_m, correlation_indoor_m: distance at which the correlation of shadowing has
            fallen to 1/e, table 7.5-6.
        correlation_state_m: the same for the state of being in sight or not, table 7.6.3.1-2.
        site_height_m: antenna height of the standard's scenario, table 7.2-1.
        inter_site_m: distance between sites of the standard's scenario, table 7.2-1.
        spacing_m: grid spacing at which a map still resolves the shadowing of users outdoors.
    """

    name: str
    los_decay_m: float
    shadow_los_db: float
    shadow_nlos_db: float
    shadow_indoor_db: float
    correlation_los_m: float
    correlation_nlos_m: float
    correlation_indoor_m: float
    correlation_state_m: float
    site_height_m: float
    inter_site_m: float
    spacing_m: float


ENVIRONMENTS: Mapping[str, Environment] = MappingProxyType(
    {
        "uma": Environment(
            name="uma",
            los_decay_m=63.0,
            shadow_los_db=4.0,
            shadow_nlos_db=6.0,
            shadow_indoor_db=7.0,
            correlation_los_m=37.0,
            correlation_nlos_m=50.0,
            correlation_indoor_m=7.0,
            correlation_state_m=50.0,
            site_height_m=25.0,
            inter_site_m=500.0,
            spacing_m=10.0,
        ),
        "umi": Environment(
            name="umi",
            los_decay_m=36.0,
            shadow_los_db=4.0,
            shadow_nlos_db=7.82,
            shadow_indoor_db=7.0,
            correlation_los_m=10.0,
            correlation_nlos_m=13.0,
            correlation_indoor_m=7.0,
            correlation_state_m=50.0,
            site_height_m=10.0,
            inter_site_m=200.0,
            spacing_m=5.0,
        ),
    }
)
"""Environments by name."""


def environment(name: str) -> Environment:
    """The environment called ``name``.

    Raises:
        ConfigurationError: no such environment.
    """
    return ENVIRONMENTS[check_choice(name, ENVIRONMENTS, field="propagation")]


def breakpoint_m(*, carrier_ghz: float, site_height_m: ArrayLike, user_height_m: float) -> FloatArray:
    """Breakpoint distance d'_BP = 4 h'_BS h'_UT f / c [...], TR 38.901 table 7.4.1-1 note 1; primes mean minus 1 m."""
    heights = (np.asarray(site_height_m, dtype=np.float64) - ENVIRONMENT_HEIGHT_M) * (
        user_height_m - ENVIRONMENT_HEIGHT_M
    )
    return np.asarray(4.0 * heights * carrier_ghz * 1e9 / LIGHT_M_S)


def uma_path_loss_db(
    distance_2d: FloatArray, *, carrier_ghz: float, site_height_m: ArrayLike = 25.0, user_height_m: float = 1.5
) -> tuple[FloatArray, FloatArray]:
    """Urban-macro path loss, TR 38.901 table 7.4.1-1.

    With d the distance in space and f the carrier: in sight 28 + 22 log d + 20 log f up to the breakpoint and
    28 + 40 log d + 20 log f - 9 log(d'_BP^2 + (h_BS - h_UT)^2) beyond it; out of sight the larger of that and
    13.54 + 39.08 log d + 20 log f - 0.6 (h_UT - 1.5).

    Args:
        distance_2d: horizontal distance [...], from 10 m to 5 km.
        carrier_ghz: carrier frequency.
        site_height_m: antenna height, broadcastable.
        user_height_m: below 13.

    Returns:
        Path loss with line of sight and without [...].

    Raises:
        ConfigurationError: a carrier or height for which the standard has no formula.
    """
    log_d, log_f, far, rise = _terms(distance_2d, carrier_ghz, site_height_m, user_height_m)
    near = 28.0 + 22.0 * log_d + 20.0 * log_f
    los = np.where(far, 28.0 + 40.0 * log_d + 20.0 * log_f - 9.0 * rise, near)
    return los, np.maximum(los, 13.54 + 39.08 * log_d + 20.0 * log_f - 0.6 * (user_height_m - 1.5))


def umi_path_loss_db(
    distance_2d: FloatArray, *, carrier_ghz: float, site_height_m: ArrayLike = 10.0, user_height_m: float = 1.5
) -> tuple[FloatArray, FloatArray]:
    """Street-canyon path loss, TR 38.901 table 7.4.1-1.

    In sight 32.4 + 21 log d + 20 log f up to the breakpoint and
    32.4 + 40 log d + 20 log f - 9.5 log(d'_BP^2 + (h_BS - h_UT)^2) beyond it; out of sight the larger of that and
    22.4 + 35.3 log d + 21.3 log f - 0.3 (h_UT - 1.5). Arguments, result and errors as :func:`uma_path_loss_db`.
    """
    log_d, log_f, far, rise = _terms(distance_2d, carrier_ghz, site_height_m, user_height_m)
    near = 32.4 + 21.0 * log_d + 20.0 * log_f
    los = np.where(far, 32.4 + 40.0 * log_d + 20.0 * log_f - 9.5 * rise, near)
    return los, np.maximum(los, 22.4 + 35.3 * log_d + 21.3 * log_f - 0.3 * (user_height_m - 1.5))


def path_loss_db(
    name: str, distance_2d: FloatArray, *, carrier_ghz: float, site_height_m: ArrayLike, user_height_m: float
) -> tuple[FloatArray, FloatArray]:
    """:func:`uma_path_loss_db` or :func:`umi_path_loss_db` by the name of the environment.

    Raises:
        ConfigurationError: no such environment, or a carrier or height for which it has no formula.
    """
    loss = uma_path_loss_db if environment(name).name == "uma" else umi_path_loss_db
    return loss(distance_2d, carrier_ghz=carrier_ghz, site_height_m=site_height_m, user_height_m=user_height_m)


def los_probability(distance_2d: FloatArray, *, decay_m: float = 63.0) -> FloatArray:
    """Probability of line of sight [...], TR 38.901 table 7.4.2-1 (UMa: decay 63 m, UMi: 36 m; user below 13 m).

    1 up to 18 m, then 18/d + exp(-d/D) (1 - 18/d). A user indoors counts the distance to the outer wall.
    """
    near = 18.0 / np.maximum(distance_2d, 18.0)
    return np.asarray(near + np.exp(-distance_2d / decay_m) * (1.0 - near))


def entry_loss_db(carrier_ghz: float, *, building: Literal["low", "high"] = "low") -> float:
    """Mean loss on entering a building, without the way inside, TR 38.901 tables 7.4.3-1 and 7.4.3-2.

    Low loss (old buildings): 5 - 10 log(0.3 10^(-(2 + 0.2 f)/10) + 0.7 10^(-(5 + 4 f)/10)), glass and concrete.
    High loss (coated glass): 5 - 10 log(0.7 10^(-(23 + 0.3 f)/10) + 0.3 10^(-(5 + 4 f)/10)).
    To this come 0.5 dB per metre inside and a normal deviate of :data:`ENTRY_SPREAD_DB`, both once per user.

    Raises:
        ConfigurationError: a building or carrier that the table does not know.
    """
    check_choice(building, ENTRY_SPREAD_DB, field="building")
    _check_range("carrier_ghz", carrier_ghz, CARRIERS_GHZ)
    concrete = 5.0 + 4.0 * carrier_ghz
    share, glass = (0.3, 2.0 + 0.2 * carrier_ghz) if building == "low" else (0.7, 23.0 + 0.3 * carrier_ghz)
    through = share * 10.0 ** (-glass / 10.0) + (1.0 - share) * 10.0 ** (-concrete / 10.0)
    return float(5.0 - 10.0 * np.log10(through))


def _terms(
    distance_2d: FloatArray, carrier_ghz: float, site_height_m: ArrayLike, user_height_m: float
) -> tuple[FloatArray, float, NDArray[np.bool_], FloatArray]:
    """log10 d, log10 f, whether beyond the breakpoint, and log10(d'_BP^2 + height^2)."""
    _check_range("carrier_ghz", carrier_ghz, CARRIERS_GHZ)
    _check_range("user_height_m", user_height_m, USER_HEIGHTS_M)
    site_height = np.asarray(site_height_m, dtype=np.float64)
    if not np.all(site_height > user_height_m):
        raise ConfigurationError(
            f"site_height_m must exceed user_height_m = {user_height_m:g}, not {site_height.min():g}",
            field="site_height_m",
        )
    height = site_height - user_height_m
    limit = breakpoint_m(carrier_ghz=carrier_ghz, site_height_m=site_height, user_height_m=user_height_m)
    log_d = 0.5 * np.log10(distance_2d * distance_2d + height * height)
    return log_d, float(np.log10(carrier_ghz)), distance_2d > limit, np.log10(limit * limit + height * height)


def _check_range(field: str, value: float, allowed: tuple[float, float]) -> None:
    low, high = allowed
    if not low <= value <= high:
        raise ConfigurationError(f"{field} must lie in [{low:g}, {high:g}], not {value:g}", field=field)
