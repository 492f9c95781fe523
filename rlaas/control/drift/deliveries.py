"""Webhooks of drift: kept in the state database until they are delivered, and a record of every try."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from rlaas.control.state import StateDatabase
from rlaas.control.tables import TenantStore, tenant_table

__all__ = ["MOST_TRIES", "Deliveries", "Delivery"]

MOST_TRIES = 8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _TIMEOUT_S = 1.0, 300.0, 3.0
_BATCH = 20
_KEEP_US = 90 * 86_400_000_000

_metadata = sa.MetaData()
_deliveries = tenant_table(
    _metadata,
    "drift_deliveries",
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    # Null once it is delivered or given up.
    sa.Column("next_us", sa.BigInteger, nullable=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message.

    Attributes:
        id: ``<model>/<episode>/<event>``; a receiver that has seen it can leave out a repeat.
        url: where to.
        tries: so far.
        status: ``waiting``, ``delivered``, ``given up`` or what went wrong last.
        created_us: UTC microseconds.
    """

    id: str
    url: str
    tries: int
    status: str
    created_us: int


class Deliveries(TenantStore):
    """Sends messages until they arrive, at least once each, with growing pauses.

    Args:
        database: the state database.
        tenant: whose.
        clock: UTC time in microseconds.
    """

    def __init__(
        self, database: StateDatabase, tenant: str, *, clock: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        super().__init__(database, tenant, _metadata)
        self._clock = clock
        self._events = structlog.get_logger("rlaas.control").bind(tenant=tenant)

    def add(self, connection: Connection, id_: str, url: str, body: Mapping[str, Any]) -> None:
        """Have a message sent once the transaction is committed."""
        now = self._clock()
        row = {"id": id_, "url": url, "body": json.dumps(body), "tries": 0, "next_us": now, "status": "waiting"}
        old = _deliveries.c.created_us < now - _KEEP_US
        connection.execute(_deliveries.delete().where(*self._mine(_deliveries), old))
        connection.execute(_deliveries.insert().values(tenant=self._tenant, created_us=now, **row))

    def send(self) -> int:
        """Try what is due; how many arrived."""
        now = self._clock()
        due = sa.select(_deliveries).where(*self._mine(_deliveries), _deliveries.c.next_us <= now)
        delivered = 0
        for row in self._rows(due.order_by(_deliveries.c.next_us).limit(_BATCH)):
            tries = row.tries + 1
            pause_us = int(min(_FIRST_PAUSE_S * 2**row.tries, _LONGEST_PAUSE_S) * 1e6)
            # Taken first, so that two processes do not send the same; who is killed now has tried.
            again_us = now + max(pause_us, int(2e6 * _TIMEOUT_S))
            if not self._set(row.id, row.tries, tries=tries, next_us=again_us):
                continue
            problem = _post(row.url, row.id, row.body)
            next_us: int | None = self._clock() + pause_us
            status = problem or "delivered"
            if problem is None:
                next_us, delivered = None, delivered + 1
            elif tries >= MOST_TRIES:
                next_us, status = None, f"given up: {problem}"
            self._set(row.id, tries, next_us=next_us, status=status)
            log = self._events.info if problem is None else self._events.warning
            log("drift_webhook", id=row.id, url=row.url, tries=tries, status=status)
        return delivered

    def _set(self, id_: str, tried: int, **values: Any) -> bool:
        """Change a message that has been tried so often; whether it was."""
        with self._engine.begin() as connection:
            mine = _deliveries.update().where(*self._mine(_deliveries, id=id_, tries=tried))
            return connection.execute(mine.values(**values)).rowcount == 1

    def all(self) -> list[Delivery]:
        """Every message of the last 90 days, newest first."""
        query = sa.select(_deliveries).where(*self._mine(_deliveries)).order_by(_deliveries.c.created_us.desc())
        return [Delivery(row.id, row.url, row.tries, row.status, row.created_us) for row in self._rows(query)]


def _post(url: str, id_: str, body: str) -> str | None:
    """Why a message did not arrive; None if it did."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": id_}
    try:
        answer = httpx.post(url, content=body.encode(), headers=headers, timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        return f"{type(problem).__name__}: {problem}"[:300]
    return None if answer.is_success else f"HTTP {answer.status_code}"
