"""The database of the features: definitions, the online values, and how far they have been brought."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from rlaas.databases import create_tables, open_database
from rlaas.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RetryableError,
)
from rlaas.lake.features.definitions import FeatureDefinition, named
from rlaas.names import check_name

__all__ = ["FeatureStore", "FeatureVersion", "Progress", "StoredValue"]

_metadata = sa.MetaData()
_MOST_ASKED = 400
"""Entities in one query: SQLite takes a thousand parameters, other databases more."""


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    # Clustered by key: all features of one entity lie on one page.
    return sa.Table(
        name, _metadata, sa.Column("tenant", sa.String(63), primary_key=True), *columns, sqlite_with_rowid=False
    )


_definitions = _table(
    "feature_definitions",
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)
_progress = _table(
    "feature_progress",
    sa.Column("feature", sa.String(140), primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
)
_values = _table(
    "feature_values",
    sa.Column("entity", sa.String(512), primary_key=True),
    sa.Column("feature", sa.String(140), primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("available_us", sa.BigInteger, nullable=False),
)
_states = _table(
    "feature_states",
    sa.Column("feature", sa.String(140), primary_key=True),
    sa.Column("entity", sa.String(512), primary_key=True),
    sa.Column("state", sa.LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True)
class FeatureVersion:
    """A definition as it is registered.

    Attributes:
        definition: what it says.
        version: from 1; a version never changes.
        created_us: when it was registered, UTC microseconds.
    """

    definition: FeatureDefinition
    version: int
    created_us: int

    @property
    def key(self) -> str:
        """``name@version``, which names it everywhere."""
        return f"{self.definition.name}@{self.version}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            **self.definition.model_dump(mode="json"),
            "version": self.version,
            "created_us": self.created_us,
            "digest": self.definition.digest,
        }


class StoredValue(NamedTuple):
    """A value of the online store.

    Attributes:
        value: the number.
        time_us: of the newest event in it.
        available_us: when the last event in it became available.
    """

    value: float
    time_us: int
    available_us: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the online values of a feature have been brought: state of the source, and when that was."""

    token: str
    updated_us: int


class FeatureStore:
    """Definitions and online values of one tenant. Thread-safe, and safe for several processes.

    Args:
        url: SQLAlchemy URL of SQLite or PostgreSQL (whose driver has to be installed); tables are made where missing.
        tenant: whose.

    Raises:
        ConfigurationError: not such a URL, or no driver.
        OperatorError: the database cannot be opened.
    """

    def __init__(self, url: str, tenant: str = "default") -> None:
        self.tenant = check_name(tenant, field="tenant")
        self._engine = open_database(
            # What is forgotten is overwritten.
            url,
            field="features_url",
            pragmas={"synchronous": "NORMAL", "secure_delete": "ON"},
        )
        create_tables(self._engine, _metadata, what="the features' database", field="features_url")
        marker = "?" if self._engine.dialect.paramstyle == "qmark" else "%s"
        self._failure: Any = self._engine.dialect.loaded_dbapi.Error
        self._markers = (marker + ",") * _MOST_ASKED

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def apply(self, definitions: Iterable[FeatureDefinition]) -> list[tuple[FeatureVersion, bool]]:
        """Register definitions, all or none: one that says something new becomes the next version of its name.

        Returns:
            The versions, and whether each is new.

        Raises:
            ConflictError: somebody else registers the same names now.
            InvalidInputError: a feature would change its entity.
        """
        found: list[tuple[FeatureVersion, bool]] = []
        now_us = time.time_ns() // 1000
        try:
            with self._engine.begin() as connection:
                for definition in definitions:
                    newest = self._newest(connection, definition.name)
                    if newest is not None and newest.definition.digest == definition.digest:
                        found.append((newest, False))
                        continue
                    if newest is not None and newest.definition.entity != definition.entity:
                        raise InvalidInputError(
                            f"feature {definition.name!r} is of entity {newest.definition.entity!r}; give what belongs "
                            f"to {definition.entity!r} another name",
                            field="entity",
                        )
                    version = 1 if newest is None else newest.version + 1
                    connection.execute(
                        _definitions.insert().values(
                            tenant=self.tenant,
                            name=definition.name,
                            version=version,
                            digest=definition.digest,
                            document=definition.model_dump_json(),
                            created_us=now_us,
                        )
                    )
                    found.append((FeatureVersion(definition, version, now_us), True))
        except sa.exc.IntegrityError as problem:
            raise ConflictError("somebody else registers the same features now; try again", field="name") from problem
        return found

    def features(self) -> list[FeatureVersion]:
        """Every version, by name and number."""
        query = sa.select(_definitions).where(_definitions.c.tenant == self.tenant)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_definitions.c.name, _definitions.c.version)).all()
        return [_version_of(row) for row in rows]

    def newest(self) -> list[FeatureVersion]:
        """The newest version of each name."""
        return list({one.definition.name: one for one in self.features()}.values())

    def feature(self, reference: str, *, field: str = "features") -> FeatureVersion:
        """The version that ``"name"`` (newest) or ``"name@2"`` means.

        Raises:
            NotFoundError: there is none; names those there are.
        """
        name, number = named(reference, field=field)
        with self._engine.connect() as connection:
            found = self._newest(connection, name, number)
        if found is None:
            known = sorted({one.definition.name for one in self.features()})
            versions = [one.version for one in self.features() if one.definition.name == name]
            allowed = ", ".join(f"{name}@{version}" for version in versions) or ", ".join(known[:50]) or "(none)"
            raise NotFoundError(f"no feature {reference[:160]!r}; allowed: {allowed}", field=field)
        return found

    def progress(self) -> dict[str, Progress]:
        """How far each version's values have been brought, by key; one that never was is not there."""
        query = sa.select(_progress).where(_progress.c.tenant == self.tenant)
        with self._engine.connect() as connection:
            return {row.feature: Progress(row.token, row.updated_us) for row in connection.execute(query)}

    def values(self, entities: Sequence[str], keys: Sequence[str]) -> dict[tuple[str, str], StoredValue]:
        """Online values by entity and ``name@version``; those that do not exist are left out.

        Raises:
            RetryableError: the database does not answer.
        """
        found: dict[tuple[str, str], StoredValue] = {}
        try:
            self._read(found, entities, keys)
        except (sa.exc.DBAPIError, self._failure) as problem:
            raise RetryableError("the online store of features does not answer; try again later") from problem
        return found

    def _read(self, found: dict[tuple[str, str], StoredValue], entities: Sequence[str], keys: Sequence[str]) -> None:
        # By the driver itself: to build and cache the statement takes four times as long as to run it.
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            for of_entities in _parts(entities):
                for of_keys in _parts(keys):
                    query = (
                        "SELECT entity, feature, value, time_us, available_us FROM feature_values "
                        f"WHERE tenant = {self._marks([self.tenant])} AND entity IN ({self._marks(of_entities)}) "
                        f"AND feature IN ({self._marks(of_keys)})"
                    )
                    cursor.execute(query, (self.tenant, *of_entities, *of_keys))
                    for entity, feature, value, time_us, available_us in cursor.fetchall():
                        found[entity, feature] = StoredValue(value, time_us, available_us)
        finally:
            connection.close()

    def _marks(self, parameters: Sequence[str]) -> str:
        width = len(self._markers) // _MOST_ASKED
        return self._markers[: width * len(parameters) - 1]

    def count(self, key: str) -> int:
        """Number of entities that have a value of ``name@version``."""
        query = sa.select(sa.func.count()).select_from(_values)
        with self._engine.connect() as connection:
            return int(connection.execute(query.where(*self._mine(_values, feature=key))).scalar_one())

    def forget(self, entities: Sequence[str]) -> int:
        """Delete values and states of entities, bytes and all; the number of values that there were.

        For the right to erasure: of what stays in the sources, the next materialisation makes values again.
        """
        gone = 0
        with self._engine.begin() as connection:
            for start in range(0, len(entities), _MOST_ASKED):
                part = list(entities[start : start + _MOST_ASKED])
                for table in (_states, _values):
                    found = connection.execute(table.delete().where(*self._mine(table), table.c.entity.in_(part)))
                    gone += found.rowcount if table is _values else 0
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone

    def begin(self) -> Any:
        """A transaction for the methods below, as a context manager that yields its connection."""
        return self._engine.begin()

    def claim(self, connection: Connection, key: str, token: str | None, new: str) -> bool:
        """First step of a transaction that brings a feature's values from ``token`` to ``new``.

        Returns:
            False where another process was faster: nothing was changed.
        """
        now_us = time.time_ns() // 1000
        if token is None:
            row = {"tenant": self.tenant, "feature": key, "token": new, "updated_us": now_us}
            added = self._insert(_progress).values(**row).on_conflict_do_nothing()
            return bool(connection.execute(added).rowcount == 1)
        here = self._mine(_progress, feature=key, token=token)
        changed = _progress.update().where(*here).values(token=new, updated_us=now_us)
        return bool(connection.execute(changed).rowcount == 1)

    def clear(self, connection: Connection, key: str, entities: Sequence[str] | None = None) -> None:
        """Forget values and states of a feature, of some entities or of all."""
        for table in (_values, _states):
            gone = table.delete().where(*self._mine(table, feature=key))
            if entities is None:
                connection.execute(gone)
            for start in range(0, len(entities or ()), _MOST_ASKED):
                part = list((entities or ())[start : start + _MOST_ASKED])
                connection.execute(gone.where(table.c.entity.in_(part)))

    def states(self, connection: Connection, key: str, entities: Sequence[str]) -> dict[str, bytes]:
        """States of a feature by entity; those that have none are left out."""
        found: dict[str, bytes] = {}
        query = sa.select(_states.c.entity, _states.c.state).where(*self._mine(_states, feature=key))
        asked = query.where(_states.c.entity.in_(sa.bindparam("entities", expanding=True)))
        for start in range(0, len(entities), _MOST_ASKED):
            rows = connection.execute(asked, {"entities": list(entities[start : start + _MOST_ASKED])})
            found |= {entity: bytes(state) for entity, state in rows}
        return found

    def write(self, connection: Connection, key: str, values: dict[str, StoredValue], states: dict[str, bytes]) -> None:
        """Put values and states of a feature in place of what there was of these entities."""
        mine = {"tenant": self.tenant, "feature": key}
        rows = [
            {**mine, "entity": entity, "value": one.value, "time_us": one.time_us, "available_us": one.available_us}
            for entity, one in values.items()
        ]
        self._upsert(connection, _values, rows)
        self._upsert(connection, _states, [{**mine, "entity": name, "state": state} for name, state in states.items()])

    def _upsert(self, connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        keys = [column.name for column in table.primary_key]
        insert = self._insert(table)
        new = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=new), rows)

    def _insert(self, table: sa.Table) -> Any:
        return sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)

    def _newest(self, connection: Connection, name: str, version: int | None = None) -> FeatureVersion | None:
        query = sa.select(_definitions).where(*self._mine(_definitions, name=name))
        if version is not None:
            query = query.where(_definitions.c.version == version)
        row = connection.execute(query.order_by(_definitions.c.version.desc()).limit(1)).one_or_none()
        return None if row is None else _version_of(row)

    def _mine(self, table: sa.Table, **values: Any) -> tuple[sa.ColumnElement[bool], ...]:
        return table.c.tenant == self.tenant, *(table.c[name] == value for name, value in values.items())


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    if len(names) <= _MOST_ASKED:
        yield names
        return
    for start in range(0, len(names), _MOST_ASKED):
        yield names[start : start + _MOST_ASKED]


def _version_of(row: Any) -> FeatureVersion:
    return FeatureVersion(FeatureDefinition.model_validate_json(row.document), row.version, row.created_us)
