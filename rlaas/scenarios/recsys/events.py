"""Scheduled regimes: popularity shocks, new items and price rises at known steps of a stream."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice, shown
from rlaas.scenarios.recsys.catalogue import Catalogue
from rlaas.scenarios.recsys.reference import Reference

__all__ = ["EVENT_FIELDS", "Schedule", "check_events", "schedule_of"]

EVENT_FIELDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "shock": {"at_page": (0, 1e9), "duration": (1, 1e9), "topic": (0, 63), "size": (-10, 10)},
    "new_items": {"at_page": (0, 1e9), "duration": (1, 1e9), "share": (0, 1)},
    "price_rise": {"at_page": (0, 1e9), "duration": (1, 1e9), "factor": (0.1, 10)},
}
"""Fields of each kind of event with their bounds. ``at_page`` and ``duration`` count steps of a stream. Factors
of price rises multiply while they overlap, and their product has the bounds of one factor."""

_PRICE_LEVEL = (0.1, 10.0)
"""Bounds of the product of all price rises at one step, those of a single one: far beyond, utilities overflow."""

_WHOLE = ("at_page", "duration", "topic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Events as the kernel reads them.

    Attributes:
        shocks: rows (from, to, topic, size).
        prices: rows (from, to, factor).
        phase_from_p: first step of each phase of the catalogue; phase 0 is the shipped one.
        catalogues: those of the phases after 0.
    """

    shocks: NDArray[np.float64]
    prices: NDArray[np.float64]
    phase_from_p: NDArray[np.int64]
    catalogues: tuple[Catalogue, ...]


def check_events(events: Any, topics: int) -> tuple[dict[str, Any], ...]:
    """The events as plain dictionaries.

    Raises:
        ConfigurationError: no list of mappings, an unknown kind or field, a missing or impossible value; names it.
    """
    if isinstance(events, Mapping | str) or not isinstance(events, Sequence):
        raise ConfigurationError(f"events must be a list of mappings, got {shown(events)}", field="events")
    checked = []
    for number, event in enumerate(events):
        where = f"events[{number}]"
        if not isinstance(event, Mapping):
            raise ConfigurationError(f"{where} must be a mapping with a kind, got {shown(event)}", field=where)
        check_choice(str(event.get("kind")), EVENT_FIELDS, field=f"{where}.kind")
        fields = EVENT_FIELDS[event["kind"]]
        for name in event:
            check_choice(name, ("kind", *fields), field=f"{where} field")
        for name, (low, high) in fields.items():
            top = topics - 1 if name == "topic" else high
            value: Any = event.get(name)
            kind = int | np.integer if name in _WHOLE else int | float | np.number
            good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
            if not good or not low <= value <= top:
                what = "a whole number" if name in _WHOLE else "a number"
                raise ConfigurationError(
                    f"{where}.{name} must be {what} from {low:g} to {top:g}, got {shown(value)}",
                    field=f"{where}.{name}",
                )
        checked.append(dict(event))
    _check_prices(checked)
    return tuple(checked)


def _check_prices(events: Sequence[Mapping[str, Any]]) -> None:
    """Refuse price rises that together leave the bounds of a single one."""
    changes = []
    for event in events:
        if event["kind"] == "price_rise":
            size = math.log(event["factor"])
            changes += [(event["at_page"], size), (event["at_page"] + event["duration"], -size)]
    low, high = (math.log(bound) for bound in _PRICE_LEVEL)
    level = 0.0
    for step, at_once in groupby(sorted(changes), key=lambda change: change[0]):
        level += sum(size for _, size in at_once)
        if not low - 1e-9 <= level <= high + 1e-9:
            raise ConfigurationError(
                f"events: the price rises that overlap at step {step} multiply to 10^{level / math.log(10):.3g}; "
                f"their product must be from {_PRICE_LEVEL[0]:g} to {_PRICE_LEVEL[1]:g}, as each factor",
                field="events",
            )


def _renewed(catalogue: Catalogue, reference: Reference, number: int, share: float, fresh: bool) -> Catalogue:
    """The catalogue with a share of its items replaced by others on the same topics, at the same price and cost."""
    rng = np.random.default_rng([reference.catalogue.seed, catalogue.items, catalogue.topics, 7, number])
    which = rng.random(catalogue.items) < share
    quality = np.where(which, rng.standard_normal(catalogue.items), catalogue.quality_i)
    noise = reference.catalogue.quality_noise * rng.standard_normal(catalogue.items)
    # As new as on the first day of a life, or known like the items whose places they took.
    youngest = 1.0 - np.exp(-1.0 / reference.catalogue.build_up_days)
    known = np.where(which & fresh, youngest, catalogue.known_di)
    observed = np.where(which, known * (quality + noise), catalogue.observed_quality_di)
    freshness = np.where(which & fresh, 1.0, catalogue.freshness_di)
    unheard = catalogue.popularity_di - np.log(catalogue.known_di) + np.log(known)
    return replace(
        catalogue,
        quality_i=quality,
        observed_quality_di=observed,
        freshness_di=freshness,
        known_di=known,
        popularity_di=np.where(which, unheard, catalogue.popularity_di),
        quality_variance_di=(1 - known) ** 2 + (reference.catalogue.quality_noise * known) ** 2,
    )


def schedule_of(events: Sequence[Mapping[str, Any]], reference: Reference, catalogue: Catalogue) -> Schedule:
    """The schedule of checked events."""

    def rows(kind: str, *names: str) -> NDArray[np.float64]:
        found = [
            [event["at_page"], event["at_page"] + event["duration"], *(event[name] for name in names)]
            for event in events
            if event["kind"] == kind
        ]
        return np.array(found, dtype=np.float64).reshape(-1, 2 + len(names))

    arrivals = [(number, event) for number, event in enumerate(events) if event["kind"] == "new_items"]
    edges = sorted({at for _, e in arrivals for at in (e["at_page"], e["at_page"] + e["duration"])})
    catalogues = []
    for edge in edges:
        version = catalogue
        for number, event in sorted(arrivals, key=lambda pair: pair[1]["at_page"]):
            if event["at_page"] <= edge:
                fresh = edge < event["at_page"] + event["duration"]
                version = _renewed(version, reference, number, event["share"], fresh)
        catalogues.append(version)
    return Schedule(
        shocks=rows("shock", "topic", "size"),
        prices=rows("price_rise", "factor"),
        phase_from_p=np.array([0, *edges], dtype=np.int64),
        catalogues=tuple(catalogues),
    )
