"""Who may reconcile: a lease in the state database, with an epoch that fences off whoever has lost it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError

__all__ = ["Lease"]

_metadata = sa.MetaData()
_leases = sa.Table(
    "leases",
    _metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("expires_us", sa.BigInteger, nullable=False),
)


class Lease:
    """One of several processes holds it at a time; a holder that stops renewing loses it.

    Clocks only decide when it changes hands. That the old holder writes nothing afterwards rests on :meth:`fence`.

    Args:
        database: the state database; the table is made where it is missing.
        name: of the lease.
        ttl_s: seconds without a renewal after which another may take it.
        holder: name of this process; default a fresh one.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        database: StateDatabase,
        name: str,
        *,
        ttl_s: float = 5.0,
        holder: str | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        database.create_tables(_metadata)
        self._engine = database.engine
        self._name, self._ttl_us, self._clock = name, int(ttl_s * 1e6), clock
        self.holder = holder or uuid.uuid4().hex
        self.epoch = 0

    def hold(self) -> bool:
        """Take or renew the lease; whether it is held now. Its epoch grows with every change of hands."""
        now = self._clock()
        columns = _leases.c
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_leases).where(columns.name == self._name)).one_or_none()
        try:
            with self._engine.begin() as connection:
                if row is None:
                    self.epoch = 1
                    connection.execute(
                        _leases.insert().values(
                            name=self._name, holder=self.holder, epoch=1, expires_us=now + self._ttl_us
                        )
                    )
                    return True
                mine = row.holder == self.holder and row.epoch == self.epoch
                if not mine and row.expires_us > now:
                    return False
                epoch = row.epoch if mine else row.epoch + 1
                taken = connection.execute(
                    _leases.update()
                    .where(columns.name == self._name, columns.epoch == row.epoch, columns.holder == row.holder)
                    # Somebody else may have renewed since the row was read.
                    .where(sa.true() if mine else columns.expires_us == row.expires_us)
                    .values(holder=self.holder, epoch=epoch, expires_us=now + self._ttl_us)
                ).rowcount
        except IntegrityError:  # another process made the row first
            return False
        if taken:
            self.epoch = epoch
        return bool(taken)

    def fence(self, connection: Connection) -> None:
        """Begin a transaction that must not outlive the lease: nobody can take it before the transaction ends.

        Raises:
            ConflictError: the lease has gone to another.
        """
        if not connection.execute(self._until(self._clock() + self._ttl_us)).rowcount:
            raise ConflictError(f"the lease {self._name!r} has gone to another process", field="epoch")

    def release(self) -> None:
        """Let another take it at once."""
        with self._engine.begin() as connection:
            connection.execute(self._until(0))

    def _until(self, expires_us: int) -> sa.Update:
        """Sets when the lease ends, if it is held."""
        columns = _leases.c
        held = (columns.name == self._name, columns.holder == self.holder, columns.epoch == self.epoch)
        return _leases.update().where(*held).values(expires_us=expires_us)
