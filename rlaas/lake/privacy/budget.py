"""What each analyst may still learn: a ledger of epsilon and delta that cannot be overspent, whoever asks at once.

Sequential composition (Dwork and Roth 2014, theorem 3.16): what was spent adds up. Amounts are whole numbers of
billionths of an epsilon, and of 1e-18 of a delta, so that sums are exact; what is spent is rounded up.

Nothing is ever given back. What was reserved is spent even where the process then dies: nobody could say whether the
answer had been seen.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from rlaas.databases import create_tables, open_database
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.names import check_name

__all__ = ["Account", "Budget", "BudgetError", "Entry", "check_loss"]

_EPSILON, _DELTA = Decimal("1e-9"), Decimal("1e-18")
_MOST_EPSILON = 1_000.0

_metadata = sa.MetaData()
_accounts = sa.Table(
    "privacy_budgets",
    _metadata,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("analyst", sa.String(128), primary_key=True),
    sa.Column("epsilon_limit", sa.BigInteger, nullable=False),
    sa.Column("epsilon_spent", sa.BigInteger, nullable=False),
    sa.Column("delta_limit", sa.BigInteger, nullable=False),
    sa.Column("delta_spent", sa.BigInteger, nullable=False),
)
_entries = sa.Table(
    "privacy_budget_entries",
    _metadata,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("analyst", sa.String(128), nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("epsilon", sa.BigInteger, nullable=False),
    sa.Column("delta", sa.BigInteger, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("answer", sa.Text, nullable=True),
)


class BudgetError(ConflictError):
    """The analyst's budget does not cover the question; nothing was spent and nothing was answered."""


@dataclass(frozen=True, slots=True)
class Account:
    """An analyst's budget: what it is, and what is left of it."""

    analyst: str
    epsilon_limit: float
    epsilon_left: float
    delta_limit: float
    delta_left: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One question: ``reserved`` (paid for, and its answer may have been seen) or ``released`` (with its answer)."""

    id: str
    analyst: str
    time_us: int
    epsilon: float
    delta: float
    query: dict[str, Any]
    state: str
    answer: Any


class Budget:
    """The ledger of one tenant. Thread-safe, and safe for several processes.

    Args:
        url: SQLAlchemy URL of the state database; tables are made where they are missing.
        tenant: whose.
    """

    def __init__(self, url: str, tenant: str) -> None:
        self._engine, self._tenant = open_database(url, field="state_url"), tenant
        create_tables(self._engine, _metadata, what="the state database", field="state_url")

    def grant(self, analyst: str, *, epsilon: float, delta: float = 0.0) -> Account:
        """Set what an analyst may spend in all; what was spent stays spent.

        Raises:
            InvalidInputError: not a budget.
            ConflictError: more than that is spent already.
        """
        check_name(analyst, field="analyst")
        limits = {
            "epsilon_limit": _amount(epsilon, _EPSILON, field="epsilon", most=_MOST_EPSILON, up=False),
            "delta_limit": _amount(delta, _DELTA, field="delta", most=1.0, up=False, zero=True),
        }
        with suppress(IntegrityError), self._engine.begin() as connection:  # there is one: changed below
            connection.execute(
                _accounts.insert().values(
                    tenant=self._tenant, analyst=analyst, epsilon_spent=0, delta_spent=0, **limits
                )
            )
        enough = (
            _accounts.c.epsilon_spent <= limits["epsilon_limit"],
            _accounts.c.delta_spent <= limits["delta_limit"],
        )
        with self._engine.begin() as connection:
            if not connection.execute(_accounts.update().where(*self._of(analyst), *enough).values(**limits)).rowcount:
                raise ConflictError(f"analyst {analyst!r} has spent more than that already", field="epsilon")
        return self.account(analyst)

    def account(self, analyst: str) -> Account:
        """What an analyst has left.

        Raises:
            NotFoundError: nothing was ever granted.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_accounts).where(*self._of(analyst))).one_or_none()
        if row is None:
            raise NotFoundError(
                f"analyst {analyst[:80]!r} has no budget; grant one: rlaas lake budget --analyst NAME --grant EPSILON",
                field="analyst",
            )
        return Account(
            analyst,
            float(row.epsilon_limit * _EPSILON),
            float((row.epsilon_limit - row.epsilon_spent) * _EPSILON),
            float(row.delta_limit * _DELTA),
            float((row.delta_limit - row.delta_spent) * _DELTA),
        )

    def accounts(self) -> list[Account]:
        """Every analyst's, by name."""
        query = sa.select(_accounts.c.analyst).where(_accounts.c.tenant == self._tenant).order_by(_accounts.c.analyst)
        with self._engine.connect() as connection:
            names = [name for (name,) in connection.execute(query)]
        return [self.account(name) for name in names]

    def reserve(self, analyst: str, query: dict[str, Any], *, epsilon: float, delta: float = 0.0) -> str:
        """Pay for a question, before its answer is made; returns the id of the entry.

        One statement compares and sets: of those who ask at the same time, as many are paid for as the budget covers.

        Raises:
            InvalidInputError: not an amount.
            NotFoundError: the analyst has no budget.
            BudgetError: it does not cover the question; says what is left.
        """
        cost = {
            "epsilon": _amount(epsilon, _EPSILON, field="epsilon", most=_MOST_EPSILON, up=True),
            "delta": _amount(delta, _DELTA, field="delta", most=1.0, up=True, zero=True),
        }
        columns = _accounts.c
        covered = (
            columns.epsilon_spent + cost["epsilon"] <= columns.epsilon_limit,
            columns.delta_spent + cost["delta"] <= columns.delta_limit,
        )
        entry = secrets.token_hex(16)
        with self._engine.begin() as connection:
            paid = connection.execute(
                _accounts.update()
                .where(*self._of(analyst), *covered)
                .values(
                    epsilon_spent=columns.epsilon_spent + cost["epsilon"],
                    delta_spent=columns.delta_spent + cost["delta"],
                )
            ).rowcount
            if paid:
                connection.execute(
                    _entries.insert().values(
                        tenant=self._tenant,
                        id=entry,
                        analyst=analyst,
                        time_us=time.time_ns() // 1000,
                        query=json.dumps(query, sort_keys=True),
                        state="reserved",
                        **cost,
                    )
                )
        if not paid:
            left = self.account(analyst)
            raise BudgetError(
                f"analyst {analyst!r} has epsilon {left.epsilon_left:g} and delta {left.delta_left:g} left; the "
                f"question costs epsilon {epsilon:g} and delta {delta:g}",
                field="epsilon",
            )
        return entry

    def release(self, entry: str, answer: Any) -> None:
        """Keep the answer with what was paid for it.

        Raises:
            NotFoundError: no such entry is open.
        """
        open_ = (_entries.c.tenant == self._tenant, _entries.c.id == entry, _entries.c.state == "reserved")
        with self._engine.begin() as connection:
            changed = connection.execute(
                _entries.update().where(*open_).values(state="released", answer=json.dumps(answer))
            ).rowcount
        if not changed:
            raise NotFoundError(f"no open entry {entry!r}", field="entry")

    def entries(self, analyst: str) -> list[Entry]:
        """Every question that an analyst has paid for, oldest first."""
        query = (
            sa.select(_entries)
            .where(_entries.c.tenant == self._tenant, _entries.c.analyst == analyst)
            .order_by(_entries.c.time_us, _entries.c.id)
        )
        with self._engine.connect() as connection:
            return [
                Entry(
                    row.id,
                    row.analyst,
                    row.time_us,
                    float(row.epsilon * _EPSILON),
                    float(row.delta * _DELTA),
                    json.loads(row.query),
                    row.state,
                    None if row.answer is None else json.loads(row.answer),
                )
                for row in connection.execute(query)
            ]

    def _of(self, analyst: str) -> tuple[sa.ColumnElement[bool], ...]:
        return _accounts.c.tenant == self._tenant, _accounts.c.analyst == analyst


def check_loss(epsilon: float, delta: float) -> None:
    """Raise where a question cannot cost so much.

    Raises:
        InvalidInputError: names the amount and what is allowed.
    """
    _amount(epsilon, _EPSILON, field="epsilon", most=_MOST_EPSILON, up=True)
    _amount(delta, _DELTA, field="delta", most=1.0, up=True, zero=True)


def _amount(value: float, unit: Decimal, *, field: str, most: float, up: bool, zero: bool = False) -> int:
    """An amount in whole units."""
    if not math.isfinite(value) or value < 0 or value > most or (value == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise InvalidInputError(f"{field} is {value:g}; allowed: {least}, at most {most:g}", field=field)
    # Through its text: 0.1 is a tenth here, and ten of them are one.
    return int((Decimal(str(value)) / unit).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR))
