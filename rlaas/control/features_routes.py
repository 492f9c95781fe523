"""Routes of the features: what is registered, and values of entities now."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from rlaas.control.requests import Answer, Body, Handler, page_of, parse_body
from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.lake.features import FeatureStore, FeatureVersion, OnlineFeatures
from rlaas.serving.web import ControlRequest
from rlaas.settings import Settings

__all__ = ["FeatureRoutes", "FeatureService"]

_MOST_VALUES = 100_000
"""Values in one answer."""


class _Online(Body):
    features: list[str] | None = Field(
        default=None, min_length=1, max_length=1000, description="name or name@version; default: the newest that apply"
    )
    entities: list[dict[str, Any]] = Field(
        min_length=1, max_length=1000, description='ids by kind of entity: {"cell": "c-17"}'
    )


class FeatureService:
    """The features of an installation, opened when they are first asked for.

    Args:
        settings: where their database is, and whose.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: FeatureStore | None = None
        self._opening = threading.Lock()

    @property
    def store(self) -> FeatureStore:
        """Definitions and online values.

        Raises:
            OperatorError: the database cannot be opened.
        """
        with self._opening:
            if self._opened is None:
                self._opened = FeatureStore(self._settings.features_database, self._settings.tenant)
            return self._opened

    def pinned(self, features: Mapping[str, Any]) -> dict[str, str]:
        """The same with the version of each: a deployment goes on with what it was made with.

        Raises:
            NotFoundError: there is no such feature.
            InvalidInputError: not a name.
        """
        return {name: self.store.feature(reference).key for name, reference in features.items()}

    def online(self, features: Sequence[str] | None, entities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Values of features for each of ``entities``, as JSON types.

        Args:
            features: which; None: the newest version of each whose kind of entity is named.
            entities: ids by kind.

        Raises:
            NotFoundError: no such feature.
            InvalidInputError: an entity lacks the id of a kind, or too much is asked for.
        """
        wanted = self._of(entities) if features is None else [self.store.feature(one) for one in features]
        if len(wanted) * len(entities) > _MOST_VALUES:
            raise InvalidInputError(
                f"{len(wanted)} features of {len(entities)} entities are asked for; at most {_MOST_VALUES:,} values "
                "are answered at once",
                field="entities",
            )
        found = OnlineFeatures(self.store, wanted).read(entities)
        return [
            {
                "entity": entity,
                "features": {
                    feature.definition.name if features is None else reference: value.to_dict()
                    for feature, reference, value in zip(wanted, features or [""] * len(wanted), values, strict=True)
                },
            }
            for entity, values in zip(entities, found, strict=True)
        ]

    def _of(self, entities: Sequence[Mapping[str, Any]]) -> list[FeatureVersion]:
        newest = self.store.newest()
        kinds = sorted({one.definition.entity for one in newest})
        named = set(entities[0])
        for kind in sorted(named):
            check_choice(kind, kinds, field="entities", error=InvalidInputError)
        return [one for one in newest if one.definition.entity in named]


class FeatureRoutes:
    """Answers ``/api/v1/features``.

    Args:
        service: what it answers from.
    """

    def __init__(self, service: FeatureService) -> None:
        self._service = service

    def table(self) -> list[tuple[str, str, Handler]]:
        """Method, pattern of the path and handler of each route."""
        return [
            ("GET", r"/api/v1/features", self._list),
            ("GET", r"/api/v1/features/online", self._one),
            ("POST", r"/api/v1/features/online", self._many),
            ("GET", r"/api/v1/features/(?P<feature>.+)", self._show),
        ]

    def _list(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        return page_of(request, [(one.key, one.to_dict()) for one in self._service.store.features()])

    def _show(self, _: ControlRequest, path: Mapping[str, str]) -> Answer:
        return Answer(200, self._service.store.feature(path["feature"], field="feature").to_dict(), {})

    def _one(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        unknown = min(request.query.keys() - {"features", "entity"}, default=None)
        if unknown is not None:
            raise InvalidInputError(
                f"unknown parameter {unknown[:80]!r}; allowed: entity, features", field=unknown[:80]
            )
        entity = dict(_kind_and_id(text) for text in request.query.get("entity", "").split(","))
        features = request.query.get("features")
        wanted = None if features is None else features.split(",")
        return Answer(200, self._service.online(wanted, [entity])[0], {})

    def _many(self, request: ControlRequest, _: Mapping[str, str]) -> Answer:
        body = parse_body(request, _Online)
        return Answer(200, {"items": self._service.online(body.features, body.entities)}, {})


def _kind_and_id(text: str) -> tuple[str, str]:
    kind, _, name = text.partition(":")
    if not kind or not name:
        raise InvalidInputError(
            f"entity {shown(text, str)!r} is not like cell:c-17; several kinds are separated by commas", field="entity"
        )
    return kind, name
