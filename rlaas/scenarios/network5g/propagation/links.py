"""From an SINR to a rate: CQI tables, thresholds, block errors, layers, and the carrier's resource blocks.

Efficiencies in bit/s/Hz of the resource elements that carry data, rates in Mbit/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice

__all__ = [
    "BLOCK_ERROR_SLOPE",
    "CQI_64QAM",
    "CQI_256QAM",
    "CQI_LOW_RATE",
    "CQI_TABLES",
    "GRID_BINS_PER_DB",
    "GRID_ENTRIES",
    "GRID_START_DB",
    "RESOURCE_BLOCKS",
    "RateTable",
    "block_error",
    "peak_rate_mbit_s",
    "rate_table",
    "resource_blocks",
    "slot_ms",
    "thresholds_db",
]

FloatArray = NDArray[np.floating[Any]]

# Modulation order (bit per symbol) and code rate * 1024 of CQI 1 to 15.
# fmt: off
_SCHEMES: Mapping[str, tuple[tuple[int, int], ...]] = MappingProxyType({
    "64qam": (  # TS 38.214 table 5.2.2.1-2
        (2, 78), (2, 120), (2, 193), (2, 308), (2, 449), (2, 602), (4, 378), (4, 490), (4, 616),
        (6, 466), (6, 567), (6, 666), (6, 772), (6, 873), (6, 948),
    ),
    "256qam": (  # TS 38.214 table 5.2.2.1-3
        (2, 78), (2, 193), (2, 449), (4, 378), (4, 490), (4, 616), (6, 466), (6, 567), (6, 666),
        (6, 772), (6, 873), (8, 711), (8, 797), (8, 885), (8, 948),
    ),
    "low_rate": (  # TS 38.214 table 5.2.2.1-4 ("table 3"), made for a block error rate of 1e-5
        (2, 30), (2, 50), (2, 78), (2, 120), (2, 193), (2, 308), (2, 449), (2, 602), (4, 378),
        (4, 490), (4, 616), (6, 466), (6, 567), (6, 666), (6, 772),
    ),
})

RESOURCE_BLOCKS: Mapping[int, Mapping[int, int]] = MappingProxyType({
    15: MappingProxyType({
        5: 25, 10: 52, 15: 79, 20: 106, 25: 133, 30: 160, 35: 188, 40: 216, 45: 242, 50: 270,
    }),
    30: MappingProxyType({
        5: 11, 10: 24, 15: 38, 20: 51, 25: 65, 30: 78, 35: 92, 40: 106, 45: 119, 50: 133,
        60: 162, 70: 189, 80: 217, 90: 245, 100: 273,
    }),
    60: MappingProxyType({
        10: 11, 15: 18, 20: 24, 25: 31, 30: 38, 35: 44, 40: 51, 45: 58, 50: 65,
        60: 79, 70: 93, 80: 107, 90: 121, 100: 135,
    }),
})
"""Resource blocks by subcarrier spacing in kHz and bandwidth in MHz, TS 38.101-1 table 5.3.2-1."""
# fmt: on


def _efficiency(name: str) -> NDArray[np.float64]:
    values = np.array([0.0, *(order * rate / 1024 for order, rate in _SCHEMES[name])])
    values.setflags(write=False)
    return values


CQI_64QAM = _efficiency("64qam")
"""Efficiency of CQI 0 (outage) to 15 [16] with up to 64QAM: modulation order times code rate."""
CQI_256QAM = _efficiency("256qam")
"""Efficiency of CQI 0 to 15 [16] with up to 256QAM."""
CQI_LOW_RATE = _efficiency("low_rate")
"""Efficiency of CQI 0 to 15 [16] of the table made for a block error rate of 1e-5."""
CQI_TABLES: Mapping[str, NDArray[np.float64]] = MappingProxyType(
    {"64qam": CQI_64QAM, "256qam": CQI_256QAM, "low_rate": CQI_LOW_RATE}
)
"""The three tables by name."""
LAYERS = range(1, 9)
SUBCARRIERS_PER_BLOCK = 12
SYMBOLS_PER_SLOT = 14

GRID_START_DB = -20.0
"""SINR of the lower edge of the first bin of a rate table."""
GRID_BINS_PER_DB = 4
"""Bins of a rate table per dB."""
GRID_ENTRIES = 260
"""Bins of a rate table: -20 to 45 dB."""

TARGET_BLOCK_ERROR = 0.1
BLOCK_ERROR_SLOPE = 2.4
"""Slope of the logistic block-error curve in 1/dB: errors fall from 10 % to 1 % over the first dB.

Codes alone are steeper (a few tenths of a dB on a still channel). What a link sees is the code smeared by what is left
of fading and measurement error inside a decision interval; this one figure stands for both.
"""


def thresholds_db(efficiency: NDArray[np.float64], *, shannon_share: float = 0.75) -> NDArray[np.float64]:
    """SINR from which each CQI 1..15 of a table [16] is usable [15]: 10 log10(2^(efficiency / share) - 1) dB.

    The share is how much of Shannon's capacity the coding reaches: 0.75 at a block error rate of 0.1.

    Raises:
        ConfigurationError: a share outside (0, 1].
    """
    if not 0.0 < shannon_share <= 1.0:
        raise ConfigurationError(f"shannon_share must lie in (0, 1], not {shannon_share:g}", field="shannon_share")
    return np.asarray(10.0 * np.log10(2.0 ** (efficiency[1:] / shannon_share) - 1.0))


def block_error(margin_db: FloatArray, *, slope: float = BLOCK_ERROR_SLOPE) -> FloatArray:
    """Share of blocks [...] lost at ``margin_db`` = SINR - threshold: a logistic curve through 0.1 at 0 dB.

    1 / (1 + 9 exp(slope * margin)); see :data:`BLOCK_ERROR_SLOPE` for the slope.
    """
    odds = (1.0 - TARGET_BLOCK_ERROR) / TARGET_BLOCK_ERROR
    # Beyond 80 the exponential leaves float32, and the curve has long reached its ends.
    return np.asarray(1.0 / (1.0 + odds * np.exp(np.clip(slope * margin_db, -80.0, 80.0))))


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTable:
    """The best entry of a CQI table and number of layers for every SINR, on a uniform grid in dB.

    A kernel reads ``index[min(max(int((sinr_db + 20) * 4), 0), 259)]``; the entry chosen for a bin is usable from
    the bin's lower edge on, so a choice is never optimistic. Entry 0 is outage: efficiency 0.

    Attributes:
        index: entry by bin [260], int16.
        efficiency: bit/s/Hz of all layers together by entry [1 + 15 * layers], float32.
        threshold_db: wideband SINR at which an entry loses one block in ten [entries], float32; entry 0: -300.
        layers: layers by entry [entries], int32.
        cqi: CQI by entry [entries], int32.
    """

    index: NDArray[np.int16]
    efficiency: NDArray[np.float32]
    threshold_db: NDArray[np.float32]
    layers: NDArray[np.int32]
    cqi: NDArray[np.int32]

    def lookup(self, sinr_db: FloatArray) -> NDArray[np.int16]:
        """The entry that a kernel would choose [...] at ``sinr_db``."""
        bins = np.floor((sinr_db - GRID_START_DB) * GRID_BINS_PER_DB)
        return np.asarray(self.index[np.clip(bins, 0, GRID_ENTRIES - 1).astype(np.int64)])


def rate_table(table: NDArray[np.float64], *, layers: int = 1, shannon_share: float = 0.75) -> RateTable:
    """Ideal rank and rate adaptation over one to ``layers`` layers.

    r layers share the power equally and do not disturb one another: each sees the SINR less 10 log10 r, and together
    they carry r times the efficiency. That is the most a well-conditioned channel gives, so with several layers the
    rates are an upper bound.

    Args:
        table: efficiency of CQI 0 to 15, one of :data:`CQI_TABLES`.
        layers: 1 to 8.
        shannon_share: see :func:`thresholds_db`.

    Raises:
        ConfigurationError: no such number of layers or share.
    """
    single = table[1:]
    _check_layers(layers)
    ranks = np.repeat(np.arange(1, layers + 1), len(single))
    efficiency = ranks * np.tile(single, layers)
    threshold = np.tile(thresholds_db(table, shannon_share=shannon_share), layers) + 10.0 * np.log10(ranks)
    edges = GRID_START_DB + np.arange(GRID_ENTRIES) / GRID_BINS_PER_DB
    usable = np.where(threshold <= edges[:, None], efficiency, 0.0)
    # Of equal efficiencies the first, with fewest layers, wins; nothing usable means outage.
    best = np.where(usable.max(axis=1) > 0.0, 1 + usable.argmax(axis=1), 0)
    return RateTable(
        index=best.astype(np.int16),
        efficiency=np.concatenate([[0.0], efficiency]).astype(np.float32),
        threshold_db=np.concatenate([[-300.0], threshold]).astype(np.float32),
        layers=np.concatenate([[0], ranks]).astype(np.int32),
        cqi=np.concatenate([[0], np.tile(np.arange(1, len(single) + 1), layers)]).astype(np.int32),
    )


def resource_blocks(bandwidth_mhz: float, subcarrier_khz: int) -> int:
    """Resource blocks of a carrier, TS 38.101-1 table 5.3.2-1.

    Raises:
        ConfigurationError: a subcarrier spacing, or a bandwidth with this spacing, that the table does not have.
    """
    row = RESOURCE_BLOCKS.get(subcarrier_khz)
    if row is None:
        raise ConfigurationError(
            f"unknown subcarrier_khz {subcarrier_khz!r}; allowed: {_listed(RESOURCE_BLOCKS)}", field="subcarrier_khz"
        )
    if bandwidth_mhz not in row:
        raise ConfigurationError(
            f"unknown bandwidth_mhz {bandwidth_mhz!r} at {subcarrier_khz} kHz; allowed: {_listed(row)}",
            field="bandwidth_mhz",
        )
    return row[int(bandwidth_mhz)]


def slot_ms(subcarrier_khz: int) -> float:
    """Length of a slot of 14 symbols: 1 ms at 15 kHz, halved by every doubling, TS 38.211 section 4.3.2.

    Raises:
        ConfigurationError: not 15, 30, 60 or 120 kHz.
    """
    if subcarrier_khz not in (15, 30, 60, 120):
        raise ConfigurationError(
            f"unknown subcarrier_khz {subcarrier_khz!r}; allowed: 15, 30, 60, 120", field="subcarrier_khz"
        )
    return 15.0 / subcarrier_khz


def peak_rate_mbit_s(
    *, bandwidth_mhz: float, subcarrier_khz: int, layers: int = 1, table: str = "256qam", overhead: float = 0.14
) -> float:
    """Highest rate of one cell, TS 38.306 section 4.1.2, with every slot in the downlink.

    layers * efficiency * 12 * resource blocks * symbols per second * (1 - overhead).

    Args:
        bandwidth_mhz: of the carrier.
        subcarrier_khz: spacing of its subcarriers.
        layers: spatial layers, 1 to 8.
        table: name of one of :data:`CQI_TABLES`.
        overhead: share of resource elements without data; 0.14 for the downlink below 7 GHz.

    Raises:
        ConfigurationError: a combination that does not exist.
    """
    name = check_choice(table, CQI_TABLES, field="table")
    _check_layers(layers)
    if not 0.0 <= overhead < 1.0:
        raise ConfigurationError(f"overhead must lie in [0, 1), not {overhead:g}", field="overhead")
    symbols_per_s = SYMBOLS_PER_SLOT / (slot_ms(subcarrier_khz) * 1e-3)
    elements = SUBCARRIERS_PER_BLOCK * resource_blocks(bandwidth_mhz, subcarrier_khz) * symbols_per_s
    return float(layers * CQI_TABLES[name][-1] * elements * (1.0 - overhead) / 1e6)


def _check_layers(layers: int) -> None:
    if layers not in LAYERS:
        raise ConfigurationError(f"layers must lie in 1..{LAYERS[-1]}, not {layers!r}", field="layers")


def _listed(values: Mapping[int, object]) -> str:
    return ", ".join(str(value) for value in sorted(values))
