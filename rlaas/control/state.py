"""The state database: what is live, and the installation's secret. SQLite by default, PostgreSQL in a cluster."""

from __future__ import annotations

import secrets as random
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from rlaas.control.tables import tenant_table
from rlaas.databases import create_tables, open_database
from rlaas.errors import ConflictError, OperatorError
from rlaas.serving.live import DeploymentRecord

__all__ = ["Remembered", "StateDatabase", "StoredDeployment", "write_over"]

_metadata = sa.MetaData()

_deployments = tenant_table(
    _metadata,
    "deployments",
    sa.Column("policy", sa.String(128), primary_key=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    # Null once deleted. The row stays, so that a deletion survives a restart and generations never start again.
    sa.Column("record", sa.Text, nullable=True),
    sa.Column("updated_us", sa.BigInteger, nullable=False),
)
_secrets = sa.Table(
    "secrets",
    _metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
_replies = tenant_table(
    _metadata,
    "replies",
    sa.Column("idempotency_key", sa.String(256), primary_key=True),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)

_SECRET = "decision-ids"
_KEEP_REPLIES_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class StoredDeployment:
    """A row: the record, or None after a deletion."""

    id: str
    policy: str
    generation: int
    record: DeploymentRecord | None


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer to an earlier request with the same idempotency key."""

    request: str
    status: int
    body: bytes


class StateDatabase:
    """Deployments by (tenant, policy), the secret, and the answers to idempotent requests.

    Thread-safe, and safe for several processes: a new generation is written only over the one it was made from.

    Args:
        url: SQLAlchemy URL; tables are made where they are missing.

    Raises:
        ConfigurationError: not a URL of SQLite or PostgreSQL.
        OperatorError: the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url, field="state_url")
        self.create_tables(_metadata)

    @property
    def engine(self) -> Engine:
        """For modules that keep tables of their own beside these."""
        return self._engine

    def create_tables(self, metadata: sa.MetaData) -> None:
        """Make the tables that are missing.

        Raises:
            OperatorError: the database cannot be opened or written.
        """
        create_tables(self._engine, metadata, what="the state database", field="state_url")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def secret(self, given: bytes | None = None) -> bytes:
        """The key that signs decision ids: ``given``, or one that is drawn once and kept here."""
        if given is not None:
            return given
        try:
            with self._engine.begin() as connection:
                found = self._secret(connection)
                if found is not None:
                    return found
                fresh = random.token_bytes(32)
                connection.execute(_secrets.insert().values(name=_SECRET, value=fresh))
                return fresh
        except IntegrityError:  # another process was faster
            with self._engine.connect() as connection:
                found = self._secret(connection)
        if found is None:
            raise OperatorError("the secret vanished from the state database", field="secret")
        return found

    def deployments(self, tenant: str) -> list[DeploymentRecord]:
        """Every live deployment, by policy."""
        query = sa.select(_deployments).where(_deployments.c.tenant == tenant).order_by(_deployments.c.policy)
        with self._engine.connect() as connection:
            rows = [_stored(row) for row in connection.execute(query)]
        return [row.record for row in rows if row.record is not None]

    def of_policy(self, tenant: str, policy: str) -> StoredDeployment | None:
        """The deployment of a policy, deleted or not."""
        return self._one(_deployments.c.tenant == tenant, _deployments.c.policy == policy)

    def of_id(self, tenant: str, deployment: str) -> StoredDeployment | None:
        """The deployment with this id, deleted or not."""
        return self._one(_deployments.c.tenant == tenant, _deployments.c.id == deployment)

    def write(self, record: DeploymentRecord) -> None:
        """Store ``record`` as the successor of the generation before it.

        Raises:
            ConflictError: somebody else has written that generation.
        """
        row = {
            "id": record.id,
            "generation": record.generation,
            "record": record.model_dump_json(),
            "updated_us": record.updated_us,
        }
        self._replace(record.tenant, record.policy, record.generation, row)

    def delete(self, tenant: str, stored: StoredDeployment) -> None:
        """Mark the deployment as deleted.

        Raises:
            ConflictError: it has changed since ``stored`` was read.
        """
        generation = stored.generation + 1
        row = {"id": stored.id, "generation": generation, "record": None, "updated_us": time.time_ns() // 1000}
        self._replace(tenant, stored.policy, generation, row)

    def recall(self, tenant: str, key: str) -> Remembered | None:
        """The answer that was given under an idempotency key in the last 24 hours."""
        query = sa.select(_replies).where(_replies.c.tenant == tenant, _replies.c.idempotency_key == key)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Remembered(row.request, row.status, row.body)

    def remember(self, tenant: str, key: str, reply: Remembered) -> None:
        """Keep an answer for 24 hours."""
        now = time.time_ns() // 1000
        with self._engine.begin() as connection:
            connection.execute(_replies.delete().where(_replies.c.created_us < now - _KEEP_REPLIES_US))
            connection.execute(
                _replies.insert().values(
                    tenant=tenant,
                    idempotency_key=key,
                    request=reply.request,
                    status=reply.status,
                    body=reply.body,
                    created_us=now,
                )
            )

    def _one(self, *conditions: sa.ColumnElement[bool]) -> StoredDeployment | None:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_deployments).where(*conditions)).one_or_none()
        return None if row is None else _stored(row)

    def _replace(self, tenant: str, policy: str, generation: int, row: dict[str, Any]) -> None:
        """Compare and set: one row changes, or somebody else was there first."""
        try:
            with self._engine.begin() as connection:
                if generation == 1:
                    connection.execute(_deployments.insert().values(tenant=tenant, policy=policy, **row))
                else:
                    write_over(connection, tenant, policy, generation, row)
        except IntegrityError as problem:
            raise _overtaken(policy) from problem

    @staticmethod
    def _secret(connection: Connection) -> bytes | None:
        row = connection.execute(sa.select(_secrets.c.value).where(_secrets.c.name == _SECRET)).one_or_none()
        return None if row is None else bytes(row.value)


def write_over(connection: Connection, tenant: str, policy: str, generation: int, row: dict[str, Any]) -> None:
    """Store a generation of a deployment over the one before it, in a transaction that may hold more.

    Args:
        connection: with the transaction.
        tenant, policy: whose.
        generation: the new one.
        row: columns of the new one, its ``generation`` among them.

    Raises:
        ConflictError: somebody else has written that generation.
    """
    columns = _deployments.c
    before = (columns.tenant == tenant, columns.policy == policy, columns.generation == generation - 1)
    if connection.execute(_deployments.update().where(*before).values(**row)).rowcount != 1:
        raise _overtaken(policy)


def _overtaken(policy: str) -> ConflictError:
    return ConflictError(
        f"the deployment of {policy!r} was changed by somebody else meanwhile; read its status and try again",
        field="generation",
    )


def _stored(row: Any) -> StoredDeployment:
    record = None if row.record is None else DeploymentRecord.model_validate_json(row.record)
    return StoredDeployment(row.id, row.policy, row.generation, record)
