"""How a quantity changes along a way: for measured drives and simulated walks alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g.measured.drive_tests import DriveTrace

__all__ = ["SpatialStatistics", "rsrp_paths", "spatial_statistics", "speeds_m_s"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialStatistics:
    """Statistics of a quantity by distance driven; arrays [lags].

    Attributes:
        lag_m: distance between the two places of a pair.
        correlation: correlation of the deviations from each path's mean (or trend).
        change_db: median absolute change over the distance.
        pairs: how many pairs each figure rests on.
        decorrelation_m: where the correlation falls below 1/e, on a line between lags; None if it does not.
        sigma_db: standard deviation of the deviations.
    """

    lag_m: FloatArray
    correlation: FloatArray
    change_db: FloatArray
    pairs: NDArray[np.int64]
    decorrelation_m: float | None
    sigma_db: float


def rsrp_paths(traces: Sequence[DriveTrace]) -> list[tuple[FloatArray, FloatArray]]:
    """Way driven in m and RSRP in dBm of the serving cell, [rows] each, of every trace that moves."""
    return [(trace.distance_m, trace.rsrp_dbm) for trace in traces if trace.moves]


def speeds_m_s(traces: Sequence[DriveTrace]) -> FloatArray:
    """Speed along the way [rows of all traces], from the positions: the one that a replay of them has."""
    return np.concatenate([np.diff(trace.distance_m) / np.diff(trace.time_s) for trace in traces])


def spatial_statistics(
    paths: Sequence[tuple[FloatArray, FloatArray]],
    *,
    step_m: float = 10.0,
    maximum_lag_m: float = 500.0,
    trend_m: float | None = None,
) -> SpatialStatistics:
    """Autocorrelation along paths, pooled over them.

    Values are averaged over pieces of ``step_m``, so that time standing still counts once. With ``trend_m`` the moving
    average over that length is taken off first, which removes the slow change of path loss and leaves shadowing (it
    also biases the correlation at lags near ``trend_m`` downwards); without it each path's mean is.

    Args:
        paths: (distance in m, value in dB), [rows] each; NaN where there is no value.
        step_m: length of a piece.
        maximum_lag_m: longest distance looked at.
        trend_m: length of the moving average, or None.

    Raises:
        InvalidInputError: no path has two values.
    """
    lags = np.arange(int(maximum_lag_m // step_m) + 1)
    product, pairs = np.zeros(lags.size), np.zeros(lags.size, dtype=np.int64)
    change: list[list[FloatArray]] = [[] for _ in lags]
    lag_m = np.asarray(lags * step_m, dtype=np.float64)
    pieces = [_deviations(_pieces(distance, value, step_m), step_m, trend_m) for distance, value in paths]
    for piece in pieces:
        for lag in lags[: piece.size]:
            first, second = piece[: piece.size - lag], piece[lag:]
            both = ~np.isnan(first) & ~np.isnan(second)
            product[lag] += first[both] @ second[both]
            change[lag].append(np.abs(first[both] - second[both]))
            pairs[lag] += np.count_nonzero(both)
    if not pieces or pairs[0] < 2:
        raise InvalidInputError("no path holds two values; spatial statistics need some", field="paths")
    known = pairs > 0
    covariance = np.divide(product, pairs, out=np.full(lags.size, np.nan), where=known)
    correlation = covariance / covariance[0]
    return SpatialStatistics(
        lag_m=lag_m,
        correlation=correlation,
        change_db=np.array([np.median(np.concatenate(c)) if n else np.nan for c, n in zip(change, pairs, strict=True)]),
        pairs=pairs,
        decorrelation_m=_crossing(lag_m, correlation, 1.0 / np.e),
        sigma_db=float(np.sqrt(covariance[0])),
    )


def _pieces(distance: FloatArray, value: FloatArray, step_m: float) -> FloatArray:
    """Mean value by piece of the way [pieces], NaN where there is none."""
    valid = ~np.isnan(value)
    piece = (distance // step_m).astype(np.int64)
    count = np.bincount(piece[valid], minlength=piece[-1] + 1)
    total = np.bincount(piece[valid], weights=value[valid], minlength=piece[-1] + 1)
    return np.asarray(np.divide(total, count, out=np.full(count.size, np.nan), where=count > 0), dtype=np.float64)


def _deviations(values: FloatArray, step_m: float, trend_m: float | None) -> FloatArray:
    """Values less their mean or their moving average."""
    valid = ~np.isnan(values)
    if not valid.any():
        return values
    if trend_m is None:
        return np.asarray(values - values[valid].mean())
    window = np.ones(2 * int(trend_m / step_m / 2) + 1)
    # "full" cut to the middle: "same" would answer with the window's length where that is the longer one.
    edge = window.size // 2
    total = np.convolve(np.where(valid, values, 0.0), window)[edge : edge + values.size]
    count = np.convolve(valid.astype(np.float64), window)[edge : edge + values.size]
    return np.asarray(values - np.divide(total, count, out=np.full(values.size, np.nan), where=count > 0.5))


def _crossing(lag_m: FloatArray, correlation: FloatArray, level: float) -> float | None:
    below = np.flatnonzero(correlation < level)
    if not below.size:
        return None
    after = below[0]
    before = after - 1
    share = (correlation[before] - level) / (correlation[before] - correlation[after])
    return float(lag_m[before] + share * (lag_m[after] - lag_m[before]))
