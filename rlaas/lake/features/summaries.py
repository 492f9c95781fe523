"""How the values of a feature are distributed over a window of time: what drift is looked for in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.lake.features.events import EntityCodes, EventReader
from rlaas.lake.features.sources import open_source
from rlaas.lake.features.states import transform
from rlaas.lake.features.store import FeatureVersion
from rlaas.lake.tables import Lake

__all__ = ["FeatureSummary", "summarize", "summarize_values"]

Floats = NDArray[np.float64]
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """Distribution of some values.

    Attributes:
        feature: ``name@version``.
        count: finite values.
        missing: others.
        mean, std: of the finite ones; NaN-free: 0 where there are none. ``std`` divides by the count.
        quantiles: value by share, of :data:`QUANTILES`; empty where there are no values.
        edges: of the histogram [n_bins + 1], ascending.
        counts: values in each bin [n_bins + 2]: below the first edge, the bins, and from the last edge on.
    """

    feature: str
    count: int
    missing: int
    mean: float
    std: float
    quantiles: dict[float, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**asdict(self), "quantiles": {f"{share:g}": value for share, value in self.quantiles.items()}}


def summarize_values(
    feature: str, values: Floats, *, edges: Sequence[float] | None = None, bins: int = 20
) -> FeatureSummary:
    """Distribution of ``values`` [n].

    Args:
        feature: what they are.
        values: NaN and infinite ones count as missing.
        edges: of the histogram, ascending, as a reference has them; default the quantiles of ``values``, so that each
            bin holds about as many, without repetitions.
        bins: their number, where ``edges`` are made.

    Raises:
        InvalidInputError: edges that are not ascending, or no bin.
    """
    found = np.asarray(values, dtype=np.float64)
    finite = found[np.isfinite(found)]
    if edges is None:
        if bins < 1:
            raise InvalidInputError(f"bins must be >= 1, got {bins}", field="bins")
        borders = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1))) if len(finite) else np.empty(0)
    else:
        borders = np.asarray(edges, dtype=np.float64)
        if not np.isfinite(borders).all() or not (np.diff(borders) > 0).all():
            raise InvalidInputError("edges must be finite and ascending", field="edges")
    counts = np.bincount(np.searchsorted(borders, finite, side="right"), minlength=len(borders) + 1)
    return FeatureSummary(
        feature=feature,
        count=len(finite),
        missing=len(found) - len(finite),
        mean=float(finite.mean()) if len(finite) else 0.0,
        std=float(finite.std()) if len(finite) else 0.0,
        quantiles=dict(zip(QUANTILES, np.quantile(finite, QUANTILES).tolist(), strict=True)) if len(finite) else {},
        edges=tuple(borders.tolist()),
        counts=tuple(counts.tolist()),
    )


def summarize(
    lake: Lake,
    features: Sequence[FeatureVersion],
    *,
    start_us: int,
    end_us: int,
    edges: dict[str, Sequence[float]] | None = None,
    bins: int = 20,
) -> list[FeatureSummary]:
    """Distribution of the values that features took in [start, end), one for each event that became available then.

    Args:
        lake: of the sources.
        features: to look at.
        start_us, end_us: UTC microseconds.
        edges: of the histogram by ``name@version``, for example those of an earlier summary.
        bins: where there are none, as of :func:`summarize_values`.

    Raises:
        InvalidInputError: the window ends before it begins.
        LakeError: a source is damaged.
    """
    if end_us <= start_us:
        raise InvalidInputError("end_us must be after start_us", field="end_us")
    return [
        summarize_values(one.key, _values(lake, one, start_us, end_us), edges=(edges or {}).get(one.key), bins=bins)
        for one in features
    ]


def _values(lake: Lake, feature: FeatureVersion, start_us: int, end_us: int) -> Floats:
    reader, codes = EventReader([feature.definition]), EntityCodes()
    state = open_source(feature.definition.source, lake)
    columns: list[list[NDArray[Any]]] = [[], [], [], []]
    for table in state.read(state.dataset, reader.columns):
        events = reader.events(table)
        keep = events.available < end_us
        entity = codes.of(events.entities)
        for column, part in zip(columns, (entity, events.available, events.times, events.values[0]), strict=True):
            column.append(part[keep])
    if not columns[0]:
        return np.empty(0)
    code, available, times, values = (np.concatenate(column) for column in columns)
    order = np.lexsort((times, available, code))
    code, available, times, values = code[order], available[order], times[order], values[order]
    found, _ = transform(feature.definition, code, available, times, values)
    counts = ~np.isnan(values)
    return np.asarray(found[(available >= start_us) & counts])
