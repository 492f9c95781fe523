"""The batches of adaptive allocations in the state database, each with the generation of the deployment that serves it.

A batch is written before the generation that serves it, and that generation is written only over the one before: so a
decision's generation says in which batch it was taken, whoever was killed in between.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from rlaas.control.state import StateDatabase
from rlaas.control.tables import TenantStore, tenant_table
from rlaas.errors import ConflictError

__all__ = ["Batch", "BatchBook", "batch_at"]

_metadata = sa.MetaData()

_batches = tenant_table(
    _metadata,
    "experiment_batches",
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("batch", sa.BigInteger, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Column("shares", sa.Text, nullable=False),
)
# Of batches whose shares depend on the context.
_posteriors = tenant_table(
    _metadata,
    "experiment_posteriors",
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("batch", sa.BigInteger, primary_key=True),
    sa.Column("conditional", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch after the first.

    Attributes:
        batch: its number, from 1: the first, 0, is as declared.
        generation: of the deployment, from which on it is served.
        time_us: when it was made, UTC microseconds.
        units: complete units that its shares were made from.
        shares: by variant; sums to 1. Where they depend on the context, their mean over those seen before.
        conditional: document of the :class:`rlaas.experiments.conditional.ConditionalSpec` by which they do.
    """

    batch: int
    generation: int
    time_us: int
    units: int
    shares: Mapping[str, float]
    conditional: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the posterior."""
        found = asdict(self)
        del found["conditional"]
        return found


def batch_at(batches: Sequence[Batch], generation: int) -> int:
    """Number of the batch that a generation of the deployment serves; ``batches`` are those after the first."""
    return bisect_right(batches, generation, key=lambda batch: batch.generation)


class BatchBook(TenantStore):
    """Batches of the experiments of a tenant.

    Args:
        database: the state database; the table is made where it is missing.
        tenant: whose experiments.
    """

    def __init__(self, database: StateDatabase, tenant: str) -> None:
        super().__init__(database, tenant, _metadata)

    def of(self, id_: str) -> list[Batch]:
        """The batches of an experiment after its first, in their order."""
        posteriors = sa.select(_posteriors).where(*self._mine(_posteriors, id=id_))
        query = sa.select(_batches).where(*self._mine(_batches, id=id_)).order_by(_batches.c.batch)
        with self._engine.connect() as connection:
            rows = list(connection.execute(query))
            # After the batches, which are written together with them.
            specs = {row.batch: json.loads(row.conditional) for row in connection.execute(posteriors)}
        return [
            Batch(row.batch, row.generation, row.time_us, row.units, json.loads(row.shares), specs.get(row.batch))
            for row in rows
        ]

    def add(self, id_: str, batch: Batch) -> None:
        """Keep a batch.

        Raises:
            ConflictError: another Control was faster.
        """
        values = {**batch.to_dict(), "shares": json.dumps(dict(batch.shares))}
        try:
            with self._engine.begin() as connection:
                connection.execute(_batches.insert().values(tenant=self._tenant, id=id_, **values))
                if batch.conditional is not None:
                    row = {"tenant": self._tenant, "id": id_, "batch": batch.batch}
                    connection.execute(_posteriors.insert().values(**row, conditional=json.dumps(batch.conditional)))
        except IntegrityError as problem:
            raise ConflictError(
                f"another run has made batch {batch.batch} of experiment {id_!r} meanwhile", field="experiment"
            ) from problem

    def drop(self, id_: str, batch: Batch) -> None:
        """Forget a batch that was never served."""
        with self._engine.begin() as connection:
            for table in (_batches, _posteriors):
                connection.execute(table.delete().where(*self._mine(table, id=id_, batch=batch.batch)))
