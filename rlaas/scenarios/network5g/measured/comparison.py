"""How far a simulated quantity is from a measured one: distances of distributions and a picture of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wasserstein_distance

from rlaas.errors import InvalidInputError

__all__ = ["QUANTILES", "DistributionComparison", "QuantilePair", "compare", "plot_distributions"]

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Quantiles that a comparison states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantilePair:
    """One quantile of both samples."""

    level: float
    simulated: float
    measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionComparison:
    """A simulated sample against a measured one.

    Attributes:
        name: the quantity.
        unit: its unit; also of ``wasserstein`` and ``median_shift``.
        n_simulated: values in the simulated sample.
        n_measured: values in the measured sample.
        wasserstein: mean distance between equal quantiles (earth mover's distance).
        wasserstein_iqr: the same over the interquartile range of the measured sample; None if that is 0.
        shape_iqr: the same once both medians are 0, what a shift cannot explain; None if that range is 0.
        median_shift: simulated less measured median.
        ks: largest distance between the two cumulative distributions (Kolmogorov-Smirnov), 0 to 1.
        quantiles: a few quantiles of both.
    """

    name: str
    unit: str
    n_simulated: int
    n_measured: int
    wasserstein: float
    wasserstein_iqr: float | None
    shape_iqr: float | None
    median_shift: float
    ks: float
    quantiles: tuple[QuantilePair, ...]


def compare(simulated: ArrayLike, measured: ArrayLike, name: str, unit: str) -> DistributionComparison:
    """Compare two samples; NaN means not measured and is left out.

    Raises:
        InvalidInputError: a sample is empty or holds an infinite value.
    """
    ours, real = _sample(simulated, f"{name} (simulated)"), _sample(measured, f"{name} (measured)")
    low, high = np.quantile(real, [0.25, 0.75])
    spread = float(high - low)
    distance = float(wasserstein_distance(ours, real))
    shift = float(np.median(ours) - np.median(real))
    shape = float(wasserstein_distance(ours - shift, real))
    quantiles = zip(QUANTILES, np.quantile(ours, QUANTILES), np.quantile(real, QUANTILES), strict=True)
    return DistributionComparison(
        name=name,
        unit=unit,
        n_simulated=ours.size,
        n_measured=real.size,
        wasserstein=distance,
        wasserstein_iqr=distance / spread if spread > 0.0 else None,
        shape_iqr=shape / spread if spread > 0.0 else None,
        median_shift=shift,
        ks=_largest_gap(ours, real),
        quantiles=tuple(QuantilePair(level=q, simulated=float(a), measured=float(b)) for q, a, b in quantiles),
    )


def plot_distributions(simulated: ArrayLike, measured: ArrayLike, name: str, unit: str) -> Any:
    """Both cumulative distributions as a ``matplotlib.figure.Figure``; needs no display.

    Raises:
        InvalidInputError: as :func:`compare`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.5), layout="constrained")
    axes = figure.subplots()
    for values, label in ((simulated, "simulated"), (measured, "measured")):
        sample = np.sort(_sample(values, f"{name} ({label})"))
        axes.step(sample, np.arange(1, sample.size + 1) / sample.size, where="post", label=label)
    axes.set_xlabel(f"{name} [{unit}]")
    axes.set_ylabel("share of values at or below")
    axes.set_ylim(0.0, 1.0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _largest_gap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Largest distance between the two cumulative distributions; each steps only where a sample has a value."""
    places = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), places, side="right") / sample.size for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64).ravel()
    sample = sample[~np.isnan(sample)]
    if not sample.size:
        raise InvalidInputError(f"{name} holds no values; at least 1 is needed", field=name)
    if not np.isfinite(sample).all():
        raise InvalidInputError(f"{name} holds an infinite value; allowed: finite numbers, NaN for none", field=name)
    return sample
