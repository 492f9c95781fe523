"""Delay distributions from the histograms that the kernels fill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.engine.arrays import BINS
from rlaas.scenarios.network5g.reference import SLICES

__all__ = ["DELAY_EDGES_MS", "delay_statistics"]

Float64Array = NDArray[np.float64]

DELAY_EDGES_MS: Float64Array = 0.1 * 2.0 ** (np.arange(BINS + 1) * np.log2(1e6) / BINS)
"""Edges of the bins in ms: 0.1 ms to 100 s, logarithmic; the first and the last take what lies beyond."""


def delay_statistics(
    histogram: Float64Array, budgets_ms: Sequence[float], edges_ms: Float64Array = DELAY_EDGES_MS
) -> dict[str, dict[str, float]]:
    """Mean, quantiles and lateness by slice.

    Args:
        histogram: packets by slice and bin [3, BINS].
        budgets_ms: delay budget of each slice.
        edges_ms: edges of the bins [BINS + 1].

    Returns:
        For each slice ``mean_ms``, ``p95_ms``, ``p99_ms``, ``p99999_ms`` (interpolated within a bin, logarithmically)
        and ``late``, the share of packets beyond the budget; NaN without packets.
    """
    logs = np.log(edges_ms)
    found = {}
    for name, counts, budget in zip(SLICES, histogram, budgets_ms, strict=True):
        total = counts.sum()
        if total <= 0:
            found[name] = dict.fromkeys(("mean_ms", "p95_ms", "p99_ms", "p99999_ms", "late"), float("nan"))
            continue
        below = np.concatenate([[0.0], np.cumsum(counts)]) / total
        quantiles = {
            label: float(np.exp(np.interp(share, below, logs)))
            for label, share in (("p95_ms", 0.95), ("p99_ms", 0.99), ("p99999_ms", 0.99999))
        }
        centres = np.sqrt(edges_ms[:-1] * edges_ms[1:])
        late = 1.0 - float(np.interp(np.log(budget), logs, below))
        found[name] = {"mean_ms": float(counts @ centres / total), **quantiles, "late": late}
    return found
