"""The vault: keys of subjects, what was erased, and the key that signs reports; a database of its own.

It lies beside the lake and not in the state database, for two reasons: the Committer opens it, and only Control opens
the state database; and a key is destroyed for good only where the copies of the vault are not the copies of the lake.
Nothing in it names a subject: keys are filed under an HMAC of the id.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rlaas.databases import create_tables, database_file, open_database
from rlaas.errors import OperatorError

__all__ = ["Erasure", "Vault"]

_metadata = sa.MetaData()
_masters = sa.Table(
    "masters",
    _metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
_keys = sa.Table(
    "subject_keys",
    _metadata,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("subject", sa.String(64), primary_key=True),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
)
_erasures = sa.Table(
    "erasures",
    _metadata,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("subject", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("erased_us", sa.BigInteger, nullable=False),
    # Null once the erasure is finished: the subject's old key, the decisions to look for, and their tokens.
    sa.Column("key", sa.LargeBinary, nullable=True),
    sa.Column("traces", sa.Text, nullable=True),
    sa.Column("findings", sa.Text, nullable=False),
    sa.Column("finished_us", sa.BigInteger, nullable=True),
)
_decisions = sa.Table(
    "erased_decisions",
    _metadata,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("decision", sa.String(64), primary_key=True),
)

_CHUNK = 500
"""Values in one statement."""
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Erasure:
    """One request to erase a subject, as far as it has come.

    Attributes:
        subject: HMAC of the id.
        number: of the subject's erasures, from 1.
        erased_us: what was recorded up to then goes, UTC microseconds.
        key: the subject's key of then; None where there was none, or once it is destroyed.
        traces: decision ids to look for; None once the erasure is finished.
        findings: what was found and removed.
        finished_us: when it was finished.
    """

    subject: str
    number: int
    erased_us: int
    key: bytes | None
    traces: tuple[str, ...] | None
    findings: dict[str, Any]
    finished_us: int | None


class Vault:
    """Keys and erasures of one tenant. Thread-safe, and safe for several processes.

    Args:
        url: SQLAlchemy URL of SQLite or PostgreSQL; tables are made where they are missing.
        tenant: whose subjects.

    Raises:
        ConfigurationError: not such a URL.
        OperatorError: the database cannot be opened.
    """

    def __init__(self, url: str, tenant: str) -> None:
        self.tenant = tenant
        self.file = database_file(url, field="privacy_url")
        # What is deleted is overwritten with zeros, where a mere deletion leaves it in the file.
        self.engine = open_database(url, field="privacy_url", private=True, pragmas={"secure_delete": "ON"})
        self.create_tables(_metadata)
        self._filing = self.master("filing")

    def create_tables(self, metadata: sa.MetaData) -> None:
        """Make the tables that are missing.

        Raises:
            OperatorError: the database cannot be opened or written.
        """
        create_tables(self.engine, metadata, what="the vault", field="privacy_url")

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def master(self, name: str) -> bytes:
        """A secret of 32 bytes, drawn at its first use."""
        query = sa.select(_masters.c.value).where(_masters.c.name == name)
        with suppress(IntegrityError), self.engine.begin() as connection:  # another process was faster
            if connection.execute(query).first() is None:
                connection.execute(_masters.insert().values(name=name, value=secrets.token_bytes(32)))
        with self.engine.connect() as connection:
            return bytes(connection.execute(query).scalar_one())

    def filed(self, value: str) -> str:
        """The name under which the vault keeps a subject or a decision: an HMAC-SHA256 of it, in hexadecimal."""
        return hmac.digest(self._filing, f"{self.tenant}\0{value}".encode(), hashlib.sha256).hex()

    def key(self, subject: str) -> bytes | None:
        """The key of a subject (filed name), if it has one."""
        query = sa.select(_keys.c.key).where(_keys.c.tenant == self.tenant, _keys.c.subject == subject)
        with self.engine.connect() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else bytes(found)

    def keys(self, subjects: Iterable[str]) -> dict[str, bytes]:
        """The key of every subject (filed names); drawn where there is none yet.

        Never remembered between calls: a key that was destroyed since would live on in what is written next.
        """
        wanted = sorted(set(subjects))
        found = self._known(wanted)
        missing = [subject for subject in wanted if subject not in found]
        while missing:
            now = time.time_ns() // 1000
            drawn = {subject: secrets.token_bytes(32) for subject in missing}
            rows = [
                {"tenant": self.tenant, "subject": subject, "key": key, "created_us": now}
                for subject, key in drawn.items()
            ]
            try:
                with self.engine.begin() as connection:
                    connection.execute(_keys.insert(), rows)
                found |= drawn
                missing = []
            except IntegrityError:  # another process drew some of them meanwhile
                found |= self._known(missing)
                missing = [subject for subject in missing if subject not in found]
        return found

    def erased(self, subjects: Iterable[str]) -> dict[str, int]:
        """For those subjects (filed names) that were ever erased, up to when, UTC microseconds."""
        moments: dict[str, int] = {}
        with self.engine.connect() as connection:
            for chunk in _chunks(sorted(set(subjects))):
                query = sa.select(_erasures.c.subject, _erasures.c.erased_us).where(
                    _erasures.c.tenant == self.tenant, _erasures.c.subject.in_(chunk)
                )
                for subject, erased_us in connection.execute(query):
                    moments[subject] = max(moments.get(subject, 0), erased_us)
        return moments

    def any_erased(self) -> bool:
        """Whether anybody was ever erased."""
        query = sa.select(_erasures.c.subject).where(_erasures.c.tenant == self.tenant).limit(1)
        with self.engine.connect() as connection:
            return connection.execute(query).first() is not None

    def erased_decisions(self, decisions: Iterable[str]) -> set[str]:
        """Those of the decision ids that belong to an erased subject."""
        filed = {self.filed(decision): decision for decision in decisions}
        found: set[str] = set()
        with self.engine.connect() as connection:
            for chunk in _chunks(sorted(filed)):
                query = sa.select(_decisions.c.decision).where(
                    _decisions.c.tenant == self.tenant, _decisions.c.decision.in_(chunk)
                )
                found.update(filed[name] for (name,) in connection.execute(query))
        return found

    def note_decisions(self, decisions: Iterable[str]) -> None:
        """Keep out, from now on, whatever arrives for these decisions."""
        wanted = sorted({self.filed(decision) for decision in decisions})
        while True:
            with self.engine.connect() as connection:
                known = {
                    name
                    for chunk in _chunks(wanted)
                    for (name,) in connection.execute(
                        sa.select(_decisions.c.decision).where(
                            _decisions.c.tenant == self.tenant, _decisions.c.decision.in_(chunk)
                        )
                    )
                }
            rows = [{"tenant": self.tenant, "decision": name} for name in wanted if name not in known]
            if not rows:
                return
            with suppress(IntegrityError), self.engine.begin() as connection:  # noted by two at once: look again
                connection.execute(_decisions.insert(), rows)

    def begin(self, subject: str) -> Erasure:
        """The unfinished erasure of a subject (filed name), begun now unless it was before.

        With its beginning the key leaves the subject: what the subject does from now on is another's as far as anybody
        can tell.
        """
        for _ in range(_TRIES):
            found = self.erasures(subject)
            if found and found[-1].finished_us is None:
                return found[-1]
            with suppress(IntegrityError), self.engine.begin() as connection:  # somebody else began it: look again
                self._begin(connection, subject, len(found) + 1)
        raise OperatorError("the vault does not take the erasure", field="subject")

    def erasures(self, subject: str) -> list[Erasure]:
        """Every erasure of a subject (filed name), oldest first."""
        query = (
            sa.select(_erasures)
            .where(_erasures.c.tenant == self.tenant, _erasures.c.subject == subject)
            .order_by(_erasures.c.number)
        )
        with self.engine.connect() as connection:
            return [
                Erasure(
                    row.subject,
                    row.number,
                    row.erased_us,
                    None if row.key is None else bytes(row.key),
                    None if row.traces is None else tuple(json.loads(row.traces)),
                    json.loads(row.findings),
                    row.finished_us,
                )
                for row in connection.execute(query)
            ]

    def save(self, erasure: Erasure, *, traces: Sequence[str], findings: dict[str, Any]) -> None:
        """Keep how far an erasure has come."""
        self._update(erasure, traces=json.dumps(sorted(traces)), findings=json.dumps(findings))

    def finish(self, erasure: Erasure, findings: dict[str, Any]) -> None:
        """Destroy the key and forget the decisions; :meth:`scrub` then takes their bytes out of the file."""
        self._update(erasure, key=None, traces=None, findings=json.dumps(findings), finished_us=time.time_ns() // 1000)

    def scrub(self) -> None:
        """Take deleted values out of the file and its log (SQLite)."""
        if self.file is None:
            return
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _begin(self, connection: Connection, subject: str, number: int) -> None:
        mine = (_keys.c.tenant == self.tenant, _keys.c.subject == subject)
        key = connection.execute(sa.select(_keys.c.key).where(*mine)).scalar_one_or_none()
        connection.execute(
            _erasures.insert().values(
                tenant=self.tenant,
                subject=subject,
                number=number,
                erased_us=time.time_ns() // 1000,
                key=key,
                traces="[]",
                findings="{}",
            )
        )
        connection.execute(_keys.delete().where(*mine))

    def _update(self, erasure: Erasure, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                _erasures.update()
                .where(
                    _erasures.c.tenant == self.tenant,
                    _erasures.c.subject == erasure.subject,
                    _erasures.c.number == erasure.number,
                )
                .values(**values)
            )

    def _known(self, subjects: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self.engine.connect() as connection:
            for chunk in _chunks(subjects):
                query = sa.select(_keys.c.subject, _keys.c.key).where(
                    _keys.c.tenant == self.tenant, _keys.c.subject.in_(chunk)
                )
                found |= {subject: bytes(key) for subject, key in connection.execute(query)}
        return found


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
