"""Drift in the state database: how policies are watched, how far, what episodes there were, and who has to be told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rlaas.control.rollouts.lease import Lease
from rlaas.control.state import StateDatabase
from rlaas.control.tables import TenantStore, tenant_table
from rlaas.errors import ConflictError, NotFoundError
from rlaas.monitoring import DriftConfig

__all__ = ["DriftStore", "Episode", "Retrain", "StoredConfig", "StoredWatch"]

Retrain = Literal["none", "waiting", "claimed", "requested", "failed"]
"""Of an episode: not wanted; wanted, but the cool-down lasts; taken by a reconciler; handed over; refused for good."""

_metadata = sa.MetaData()


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    return tenant_table(_metadata, name, sa.Column("model", sa.String(128), primary_key=True), *columns)


_configs = _table(
    "drift_configs",
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
)
_watches = _table(
    "drift_watches",
    sa.Column("revision", sa.BigInteger, nullable=False),
    # The configuration and the policy version that it was begun for.
    sa.Column("config_revision", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=True),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
)
_episodes = _table(
    "drift_episodes",
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("opened_us", sa.BigInteger, nullable=False),
    sa.Column("closed_us", sa.BigInteger, nullable=True),
    sa.Column("retrain", sa.String(16), nullable=False),
    sa.Column("retrain_us", sa.BigInteger, nullable=True),
    sa.Column("document", sa.Text, nullable=False),
)
# One row for each policy that has an open episode: the database refuses a second one.
_open = _table("drift_open", sa.Column("number", sa.Integer, nullable=False))


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """How a policy is watched.

    Attributes:
        model: name of the policy.
        config: as declared.
        revision: grows with every change.
        updated_us: UTC microseconds.
    """

    model: str
    config: DriftConfig
    revision: int
    updated_us: int


@dataclass(frozen=True, slots=True)
class StoredWatch:
    """How far a policy has been watched.

    Attributes:
        model: name of the policy.
        version: that is watched.
        config_revision: of the configuration it was begun under.
        revision: grows with every change.
        document: positions in the tables, the seconds that are not done with, and what is shown of it.
        state: of the watch; None before its streams are known.
        updated_us: UTC microseconds.
    """

    model: str
    version: int
    config_revision: int
    revision: int
    document: Mapping[str, Any]
    state: bytes | None
    updated_us: int


@dataclass(frozen=True, slots=True)
class Episode:
    """A time in which a policy has drifted.

    Attributes:
        model, number: which; numbers of a policy count from 1.
        version: that was watched.
        revision: grows with every change.
        second: UTC second whose records tipped the evidence.
        opened_us: when that was noticed, UTC microseconds.
        last_us: when there was evidence last.
        streams: what has shifted, strongest first: ``stream``, ``evidence``, ``sigma``, ``sigma_unit``.
        closed_us: when it ended; None while it lasts.
        closed_by: ``quiet``, ``promoted`` or ``reconfigured``; None while it lasts.
        retrain: see :data:`Retrain`.
        retrain_us: when the retraining was handed over.
        retrain_id: of the request; the same however often it is handed over.
        retrain_job: what the trigger said of it.
        resolution: what the resolver chose for the new regime; None where nobody asked it.
    """

    model: str
    number: int
    version: int
    revision: int
    second: int
    opened_us: int
    last_us: int
    streams: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    closed_us: int | None = None
    closed_by: str | None = None
    retrain: Retrain = "none"
    retrain_us: int | None = None
    retrain_id: str | None = None
    retrain_job: str | None = None
    resolution: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types: the alert."""
        return {
            "model": self.model,
            "episode": self.number,
            "version": self.version,
            "state": "active" if self.closed_us is None else "closed",
            "detected_second": self.second,
            "opened_us": self.opened_us,
            "last_us": self.last_us,
            "closed_us": self.closed_us,
            "closed_by": self.closed_by,
            "streams": [dict(one) for one in self.streams],
            "retrain": {
                "state": self.retrain,
                "id": self.retrain_id,
                "time_us": self.retrain_us,
                "job": self.retrain_job,
            },
            "resolution": None if self.resolution is None else dict(self.resolution),
        }


_KEPT = ("version", "second", "last_us", "streams", "closed_by", "retrain_id", "retrain_job", "resolution")


class DriftStore(TenantStore):
    """Configurations, watches and episodes of a tenant. Thread-safe; every change is compared and set.

    Args:
        database: the state database; tables are made where they are missing.
        tenant: whose.
    """

    def __init__(self, database: StateDatabase, tenant: str) -> None:
        super().__init__(database, tenant, _metadata)

    def configure(self, model: str, config: DriftConfig, now_us: int) -> StoredConfig:
        """Watch a policy so from now on.

        Raises:
            ConflictError: somebody else has changed it meanwhile.
        """
        row = self._row(sa.select(_configs).where(*self._mine(_configs, model=model)))
        revision = 1 if row is None else row.revision + 1
        values = {"revision": revision, "document": config.model_dump_json(), "updated_us": now_us}
        try:
            with self._engine.begin() as connection:
                if row is None:
                    connection.execute(_configs.insert().values(tenant=self._tenant, model=model, **values))
                    changed = 1
                else:
                    mine = self._mine(_configs, model=model, revision=row.revision)
                    changed = connection.execute(_configs.update().where(*mine).values(**values)).rowcount
        except IntegrityError:
            changed = 0
        if changed != 1:
            raise ConflictError(f"the drift configuration of {model!r} was changed meanwhile; try again", field="model")
        return StoredConfig(model, config, revision, now_us)

    def config(self, model: str) -> StoredConfig:
        """How a policy is watched.

        Raises:
            NotFoundError: it is not.
        """
        row = self._row(sa.select(_configs).where(*self._mine(_configs, model=model)))
        if row is None:
            raise NotFoundError(f"policy {model!r} has no drift configuration", field="model")
        return _config(row)

    def configs(self) -> list[StoredConfig]:
        """Of every policy that is watched, by name."""
        return [_config(row) for row in self._rows(sa.select(_configs).where(*self._mine(_configs)).order_by("model"))]

    def watch(self, model: str) -> StoredWatch | None:
        """How far a policy has been watched; None before the first look."""
        row = self._row(sa.select(_watches).where(*self._mine(_watches, model=model)))
        if row is None:
            return None
        values = (row.model, row.version, row.config_revision, row.revision, json.loads(row.document))
        return StoredWatch(*values, row.state, row.updated_us)

    def open_episode(self, model: str) -> Episode | None:
        """The episode that lasts, if one does."""
        one = _open.c.number == _episodes.c.number
        query = sa.select(_episodes).join(
            _open, (_open.c.tenant == _episodes.c.tenant) & (_open.c.model == _episodes.c.model) & one
        )
        row = self._row(query.where(*self._mine(_episodes, model=model)))
        return None if row is None else _episode(row)

    def episodes(self, model: str | None = None) -> list[Episode]:
        """Every episode, newest first; of one policy where it is named."""
        query = sa.select(_episodes).where(*self._mine(_episodes, **({} if model is None else {"model": model})))
        order = (_episodes.c.opened_us.desc(), _episodes.c.model, _episodes.c.number.desc())
        return [_episode(row) for row in self._rows(query.order_by(*order))]

    def count(self, model: str) -> int:
        """How many episodes a policy has had."""
        highest = sa.func.coalesce(sa.func.max(_episodes.c.number), 0).label("highest")
        row = self._row(sa.select(highest).where(*self._mine(_episodes, model=model)))
        return 0 if row is None else int(row.highest)

    def commit(
        self,
        watch: StoredWatch,
        *,
        episode: Episode | None = None,
        new: bool = False,
        lease: Lease | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        """Store how far a policy was watched and the episode that follows from it, both or neither.

        Args:
            watch: the successor of the revision before; revision 1 is the first.
            episode: begun (``new``) or changed.
            new: whether it begins.
            lease: that must still be held.
            also: writes in the same transaction what has to be told of it.

        Raises:
            ConflictError: the lease is lost, or somebody else was there first; nothing is stored.
        """
        values = {
            "revision": watch.revision,
            "config_revision": watch.config_revision,
            "version": watch.version,
            "document": json.dumps(watch.document),
            "state": watch.state,
            "updated_us": watch.updated_us,
        }
        try:
            with self._engine.begin() as connection:
                if lease is not None:
                    lease.fence(connection)
                if watch.revision == 1:
                    connection.execute(_watches.insert().values(tenant=self._tenant, model=watch.model, **values))
                else:
                    mine = self._mine(_watches, model=watch.model, revision=watch.revision - 1)
                    if connection.execute(_watches.update().where(*mine).values(**values)).rowcount != 1:
                        raise _overtaken(watch.model)
                if episode is not None:
                    self._write(connection, episode, new=new)
                if also is not None:
                    also(connection)
        except IntegrityError as problem:
            raise _overtaken(watch.model) from problem

    def change(self, episode: Episode) -> Episode:
        """Store the successor of an episode as it was read; its new revision.

        Raises:
            ConflictError: somebody else has changed it meanwhile.
        """
        after = replace(episode, revision=episode.revision + 1)
        with self._engine.begin() as connection:
            self._write(connection, after, new=False)
        return after

    def last_retrain_us(self, model: str) -> int | None:
        """When a retraining of a policy was last claimed or handed over."""
        latest = sa.func.max(_episodes.c.retrain_us)
        row = self._row(sa.select(latest.label("latest")).where(*self._mine(_episodes, model=model)))
        return None if row is None else row.latest

    def _write(self, connection: Connection, episode: Episode, *, new: bool) -> None:
        values = {
            "revision": episode.revision,
            "opened_us": episode.opened_us,
            "closed_us": episode.closed_us,
            "retrain": episode.retrain,
            "retrain_us": episode.retrain_us,
            "document": json.dumps({name: getattr(episode, name) for name in _KEPT}),
        }
        key = {"tenant": self._tenant, "model": episode.model, "number": episode.number}
        if new:
            connection.execute(_episodes.insert().values(**key, **values))
            connection.execute(_open.insert().values(**key))
            return
        mine = self._mine(_episodes, model=episode.model, number=episode.number, revision=episode.revision - 1)
        if connection.execute(_episodes.update().where(*mine).values(**values)).rowcount != 1:
            raise _overtaken(episode.model)
        if episode.closed_us is not None:
            connection.execute(_open.delete().where(*self._mine(_open, model=episode.model, number=episode.number)))


def _overtaken(model: str) -> ConflictError:
    return ConflictError(f"the drift watch of {model!r} was brought forward by another process", field="model")


def _config(row: Any) -> StoredConfig:
    return StoredConfig(row.model, DriftConfig.model_validate_json(row.document), row.revision, row.updated_us)


def _episode(row: Any) -> Episode:
    return Episode(
        model=row.model,
        number=row.number,
        revision=row.revision,
        opened_us=row.opened_us,
        closed_us=row.closed_us,
        retrain=row.retrain,
        retrain_us=row.retrain_us,
        **json.loads(row.document),
    )
