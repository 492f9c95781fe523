"""Observations that are filled from the online store: ``"entities": {"cell": "c-17"}`` instead of the numbers.

A deployment says which features of the observation come from where. A request that names entities sends the others
only; what a policy sees, and what the log keeps, is the whole observation. A request that sends all of it names no
entities, and is answered as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from rlaas.errors import InvalidInputError
from rlaas.serving.requests import DecideRequest

if TYPE_CHECKING:
    from rlaas.lake.features import FeatureStore, FeatureValue, OnlineFeatures

__all__ = ["FeatureCatalogue", "ObservationFeatures", "check_places", "fill"]

Row = list[float]


class ObservationFeatures:
    """Fills the observations of one deployment. Thread-safe.

    Args:
        names: of the policy's features [n_features].
        places: positions in the observation of those that are read [k].
        reader: reads them, in that order.
    """

    def __init__(self, names: Sequence[str], places: Sequence[int], reader: OnlineFeatures) -> None:
        self._names = names
        self._places = tuple(places)
        self._rest = tuple(place for place in range(len(names)) if place not in set(places))
        self._reader = reader

    def filled(self, request: DecideRequest, max_rows: int) -> DecideRequest:
        """The request with whole observations and without entities.

        Args:
            request: with entities.
            max_rows: entities allowed.

        Raises:
            InvalidInputError: an entity or a number is missing, or a feature is missing or stale and has no default;
                names it.
        """
        many = isinstance(request.entities, list) or request.observations is not None
        entities = self._entities(request, max_rows)
        found = self._reader.read(entities)
        given = self._given(request, len(entities))
        rows = [self._row(values, sent, entity) for values, sent, entity in zip(found, given, entities, strict=True)]
        key, value = ("observations", rows) if many else ("observation", rows[0])
        whole: dict[str, Any] = {key: value}
        return msgspec.structs.replace(request, **whole, entities=None)

    def _entities(self, request: DecideRequest, max_rows: int) -> list[Any]:
        """One for each row."""
        entities, rows = request.entities, request.observations
        if isinstance(entities, list):
            if request.observation is not None:
                raise InvalidInputError("entities is a list; send observations, one row for each", field="observation")
            if not 0 < len(entities) <= max_rows or (rows is not None and len(rows) != len(entities)):
                expected = f"1 to {max_rows}" if rows is None else f"{len(rows)}, as observations has"
                raise InvalidInputError(f"entities has {len(entities)} entries; expected {expected}", field="entities")
            return entities
        return [entities] * (1 if rows is None else min(len(rows), max_rows + 1))

    def _given(self, request: DecideRequest, count: int) -> Sequence[Row]:
        """The numbers that the caller sent, for each row."""
        if request.observation is not None and request.observations is not None:
            raise InvalidInputError("send only one of observation and observations", field="observation")
        sent = request.observations if request.observation is None else [request.observation]
        if sent is None:
            sent = [[]] * count
        if len(sent) != count:  # refused for its length by whoever reads the rows
            raise InvalidInputError(
                f"observations has {len(sent)} rows; at most {count - 1} are allowed", field="observations"
            )
        for place, row in enumerate(sent):
            if len(row) != len(self._rest):
                field = "observation" if request.observations is None else f"observations[{place}]"
                names = ", ".join(self._names[place] for place in self._rest[:20]) or "none"
                raise InvalidInputError(
                    f"{field} has {len(row)} numbers; expected the {len(self._rest)} that entities do not fill: "
                    f"{names}",
                    field=field,
                )
        return sent

    def _row(self, values: Sequence[FeatureValue], sent: Row, entity: Any) -> Row:
        row = [0.0] * len(self._names)
        for place, number in zip(self._rest, sent, strict=True):
            row[place] = number
        for place, value, feature in zip(self._places, values, self._reader.features, strict=True):
            if value.value is None:
                kind = feature.definition.entity
                why = "has no value" if value.age_s is None else f"is {value.age_s:.0f} s old, which is stale"
                raise InvalidInputError(
                    f"feature {feature.definition.name!r} of {kind} {str(entity[kind])[:80]!r} {why}, and it has no "
                    "default; send the whole observation instead of entities",
                    field=f"entities.{kind}",
                )
            row[place] = float(value.value)
        return row


class FeatureCatalogue:
    """Where a Gateway finds features; opens their database when the first deployment wants some.

    Args:
        url: SQLAlchemy URL of the database.
        tenant: of the installation.
        keep_s: how long a value that was read may be used again.
    """

    def __init__(self, url: str, tenant: str, keep_s: float) -> None:
        self._url, self._tenant, self._keep_s = url, tenant, keep_s
        self._store: FeatureStore | None = None
        self._opening = threading.Lock()

    def filler(self, names: Sequence[str], features: Mapping[str, str]) -> ObservationFeatures:
        """What fills the observations of a deployment.

        Args:
            names: of the policy's features.
            features: ``name@version`` by the policy's name for it.

        Raises:
            NotFoundError: no such feature.
            InvalidInputError: the policy has no such name.
            OperatorError: the database cannot be opened.
        """
        from rlaas.lake.features import FeatureStore, OnlineFeatures

        places = check_places(names, features)
        with self._opening:
            if self._store is None:
                self._store = FeatureStore(self._url, self._tenant)
        found = [self._store.feature(reference) for reference in features.values()]
        return ObservationFeatures(names, places, OnlineFeatures(self._store, found, keep_s=self._keep_s))


def fill(features: ObservationFeatures | None, request: DecideRequest, max_rows: int) -> DecideRequest:
    """What :meth:`ObservationFeatures.filled` says of a request with entities.

    Raises:
        InvalidInputError: the deployment declares no features, or as of that method.
    """
    if features is None:
        raise InvalidInputError(
            "entities: the deployment of this policy declares no features; send the whole observation", field="entities"
        )
    return features.filled(request, max_rows)


def check_places(names: Sequence[str], features: Mapping[str, str]) -> list[int]:
    """Positions in the observation of the features that are read.

    Raises:
        InvalidInputError: the policy has no feature of that name.
    """
    for name in features:
        if name not in names:
            allowed = ", ".join(names[:50])
            raise InvalidInputError(f"features: the policy has no {name[:80]!r}; allowed: {allowed}", field="features")
    return [list(names).index(name) for name in features]
