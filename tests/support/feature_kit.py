"""Definitions of features, events for them, and what their values are by a naive computation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlaas.lake.features import FeatureDefinition, FeatureStore, FeatureVersion

Event = tuple[str, int, int, float | None]
"""Entity, time, arrival (UTC microseconds), value."""

AGGREGATES = ("last", "count", "sum", "mean", "min", "max")


def definition(name: str = "load", **changes: Any) -> FeatureDefinition:
    document: dict[str, Any] = {
        "name": name,
        "entity": "cell",
        "source": {"table": "bronze.decisions", "entity": "unit"},
        "value": "context.load",
        "ttl_s": 60,
        "owner": "tests",
        **changes,
    }
    return FeatureDefinition.model_validate(document)


def over_events(path: Path, aggregate: str, window_s: float | None = None, **changes: Any) -> FeatureDefinition:
    """A feature over a table of events as :func:`event_table` makes it."""
    changes = {"ttl_s": 1e6, "name": aggregate if window_s is None else f"{aggregate}_window", **changes}
    return definition(
        source={"path": str(path), "entity": "cell", "arrived": "arrived_us"},
        value="load",
        transformation={"aggregate": aggregate, "window_s": window_s},
        **changes,
    )


def event_table(events: Sequence[Event]) -> pa.Table:
    names = {"cell": pa.string(), "time_us": pa.int64(), "arrived_us": pa.int64(), "load": pa.float64()}
    columns = list(zip(*events, strict=True)) if events else [[]] * 4
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, names.values(), strict=True)], list(names))


def unregistered(*definitions: FeatureDefinition) -> list[FeatureVersion]:
    return [FeatureVersion(one, 1, 0) for one in definitions]


def registered(store: FeatureStore, *definitions: FeatureDefinition) -> list[FeatureVersion]:
    return [version for version, _ in store.apply(definitions)]


def naive(feature: FeatureDefinition, events: Sequence[Event], entity: str, at_us: int) -> tuple[float, int] | None:
    """Value of a feature and time of its newest event, as it could have been known at a moment; None: no event yet."""
    seen = [
        (time, max(arrived, time), value)
        for name, time, arrived, value in events
        if name == entity and value is not None and max(arrived, time) <= at_us
    ]
    if not seen:
        return None
    newest = max(time for time, _, _ in seen)
    window = feature.transformation.window_s
    inside = [one for one in seen if window is None or one[0] > newest - round(window * 1e6)]
    values = [value for _, _, value in inside]
    found = {
        "last": max(inside)[2],
        "count": len(values),
        "sum": math.fsum(values),
        "mean": math.fsum(values) / len(values),
        "min": min(values),
        "max": max(values),
    }
    return float(found[feature.transformation.aggregate]), newest
