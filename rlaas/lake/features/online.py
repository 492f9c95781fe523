"""Reading the online store: the values of entities now, and what stands in for those that are missing or stale."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

from rlaas.errors import InvalidInputError, shown
from rlaas.lake.features.store import FeatureStore, FeatureVersion, StoredValue

__all__ = ["FeatureValue", "OnlineFeatures", "entity_id"]

Status = Literal["fresh", "stale", "missing"]
_LONGEST_ID = 512
_Stored = dict[str, StoredValue]


class FeatureValue(NamedTuple):
    """A feature of an entity at a moment.

    Attributes:
        feature: ``name@version``.
        value: in the feature's type; the default where it is not fresh, None where there is no default.
        status: ``fresh``; ``stale``: its newest event is older than the feature allows; ``missing``: no event yet.
        time_us: of the newest event, UTC microseconds; None where it is missing.
        age_s: seconds since then.
    """

    feature: str
    value: float | int | bool | None
    status: Status
    time_us: int | None
    age_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return self._asdict()


class _Wanted:
    """What has to be known of a feature at each read, worked out once."""

    __slots__ = ("_default", "_shown", "_ttl_us", "key", "kind")

    def __init__(self, feature: FeatureVersion) -> None:
        definition = feature.definition
        self.key, self.kind = feature.key, definition.entity
        self._ttl_us = definition.ttl_us
        self._shown = None if definition.type == "float" else definition.shown
        self._default = None if definition.default is None else definition.shown(definition.default)

    def judged(self, stored: StoredValue | None, now_us: int) -> FeatureValue:
        """What a stored value is worth now."""
        if stored is None:
            return FeatureValue(self.key, self._default, "missing", None, None)
        value, time_us, _ = stored
        age_us = now_us - time_us
        if age_us > self._ttl_us:
            return FeatureValue(self.key, self._default, "stale", time_us, age_us / 1e6)
        shown = value if self._shown is None else self._shown(value)
        return FeatureValue(self.key, shown, "fresh", time_us, age_us / 1e6)


def entity_id(entities: Any, kind: str, *, field: str = "entities") -> str:
    """The id of a kind of entity in what a caller sent, ``{"cell": "c-17"}``.

    Raises:
        InvalidInputError: not such an object, or the kind is not there, or its id is neither a text nor a whole number.
    """
    if not isinstance(entities, Mapping):
        raise InvalidInputError(f'{field} must be an object like {{"{kind}": "id"}}', field=field)
    value = entities.get(kind)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
        what = "is missing" if value is None else f"is {shown(value)}"
        raise InvalidInputError(
            f"{field}.{kind} {what}; expected the id of a {kind}: a text of 1 to {_LONGEST_ID} characters",
            field=f"{field}.{kind}",
        )
    return value


class OnlineFeatures:
    """Some features, read again and again; remembers what it has read for a moment. Thread-safe.

    Args:
        store: of the values.
        features: to read.
        keep_s: how long a value that was read may be used again; 0: never.
        most: entities to remember.
        clock: UTC microseconds.
    """

    def __init__(
        self,
        store: FeatureStore,
        features: Sequence[FeatureVersion],
        *,
        keep_s: float = 0.0,
        most: int = 10_000,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.features = tuple(features)
        self._store = store
        self._wanted = [_Wanted(one) for one in self.features]
        self._kinds: dict[str, list[str]] = {}
        for one in self._wanted:
            self._kinds.setdefault(one.kind, []).append(one.key)
        self._keep_us = round(keep_s * 1e6)
        self._most = most
        self._clock = clock
        self._read: dict[tuple[str, str], tuple[int, _Stored]] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of entities that the features are of."""
        return tuple(self._kinds)

    def read(self, entities: Sequence[Any], *, field: str = "entities") -> list[list[FeatureValue]]:
        """Values of the features, in their order, for each of ``entities``.

        Args:
            entities: ``{"cell": "c-17"}`` and so on; each has an id for every kind.
            field: what an error names.

        Raises:
            InvalidInputError: an id is missing or malformed; names it.
        """
        many = len(entities) > 1
        ids = {
            kind: [
                entity_id(one, kind, field=f"{field}[{place}]" if many else field) for place, one in enumerate(entities)
            ]
            for kind in self._kinds
        }
        now_us = self._clock()
        found = {kind: self._stored(kind, names, now_us) for kind, names in ids.items()}
        return [
            [one.judged(found[one.kind][ids[one.kind][place]].get(one.key), now_us) for one in self._wanted]
            for place in range(len(entities))
        ]

    def _stored(self, kind: str, names: Sequence[str], now_us: int) -> dict[str, _Stored]:
        found: dict[str, _Stored] = {}
        lacking: list[str] = []
        for name in dict.fromkeys(names):
            known = self._read.get((kind, name)) if self._keep_us else None
            if known is not None and known[0] >= now_us:
                found[name] = known[1]
            else:
                lacking.append(name)
                found[name] = {}
        if lacking:
            for (name, key), value in self._store.values(lacking, self._kinds[kind]).items():
                found[name][key] = value
            if self._keep_us:
                self._remember(kind, {name: found[name] for name in lacking}, now_us + self._keep_us)
        return found

    def _remember(self, kind: str, found: Mapping[str, _Stored], until_us: int) -> None:
        read = self._read
        if len(read) + len(found) > self._most:
            # Anew instead of one by one: whatever is still asked for is read again once.
            read = self._read = {}
        for name, stored in islice(found.items(), self._most):
            read[kind, name] = (until_us, stored)
