"""A lake that lets personal values in only as the policy says, and erased subjects not at all.

This is where tokens are made, and not at the Gateway: there the sticky assignment needs the unit as it is, there is no
database on the way of a decision, and there are many of them, where a table has one committer. The price is that the
write-ahead log holds what was sent, for as long as it takes until it is committed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError, check_choice
from rlaas.lake.privacy.policy import PrivacyPolicy, TableRules, shaped, token_of
from rlaas.lake.privacy.vault import Vault
from rlaas.lake.schemas import TABLES, table_spec
from rlaas.lake.tables import Lake
from rlaas.settings import Settings

__all__ = ["ERASURES", "Gate", "ProtectedLake", "protected_lake"]

ERASURES = "rlaas.erasures"
"""Property of a table that every erasure changes."""
_TIME = "time_us"
_DOCUMENTS = ("context", "attributes")
"""Columns of text that hold a JSON object."""


class Gate:
    """Who writes holds it shared, an erasure waits behind all of them: what they let in before is then in the tables.

    Args:
        file: is locked with ``flock``; made where it is missing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextmanager
    def writing(self) -> Iterator[None]:
        """For as long as rows are on their way into a table."""
        with self._held(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody writes: whoever began before has ended, and nobody begins."""
        with self._held(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)


class ProtectedLake(Lake):
    """A lake whose appended rows pass the privacy policy.

    Args:
        root: of the tables.
        tenant: owner of the rows.
        policy: what becomes of personal values.
        vault: keys, and who was erased.
        gate: shared with erasures.

    Raises:
        ConfigurationError: a rule for a table or column that does not exist, or that cannot be kept there.
    """

    def __init__(self, root: str | Path, tenant: str, *, policy: PrivacyPolicy, vault: Vault, gate: Gate) -> None:
        super().__init__(root, tenant)
        check_policy(policy)
        self.policy, self.vault, self.gate = policy, vault, gate

    def writing(self) -> AbstractContextManager[None]:
        """As :meth:`rlaas.lake.tables.Lake.writing`, while nobody erases."""
        return self.gate.writing()

    def append_once(
        self,
        table: str,
        parts: Mapping[str, Sequence[tuple[int, Callable[[], pa.Table]]]],
        **options: Any,
    ) -> int:
        """As :meth:`rlaas.lake.tables.Lake.append_once`; what may not be kept is made a token, masked or left out."""
        guarded = {
            app_id: [(number, partial(self._cleaned, table, make)) for number, make in numbered]
            for app_id, numbered in parts.items()
        }
        with self.gate.writing():
            return super().append_once(table, guarded, **options)

    def replace(self, delta: DeltaTable, rows: pa.Table, where: str, **options: Any) -> None:
        """As :meth:`rlaas.lake.tables.Lake.replace`; a table that was erased from since it was opened has changed."""
        with self.gate.writing(), _history_may_be_gone():
            # Asked first: a writer that Delta refuses leaves its file behind, with the subject in it.
            now = DeltaTable(delta.table_uri).metadata().configuration.get(ERASURES)
            if now != delta.metadata().configuration.get(ERASURES):
                raise CommitFailedError(f"a subject was erased from {delta.table_uri} since it was read")
            super().replace(delta, rows, where, **options)

    def compact(self, table: str) -> int:
        """As :meth:`rlaas.lake.tables.Lake.compact`, while nobody erases."""
        with self.gate.writing():
            return super().compact(table)

    def cleaned(self, table: str, rows: pa.Table) -> pa.Table:
        """Rows as they may be written to ``table``; those of an erased subject are gone."""
        if not rows.num_rows:
            return rows
        if table.startswith("quarantine."):
            return self._cleaned_payloads(f"bronze.{table.partition('.')[2]}", rows)
        rules = self.policy.rules(table)
        if not rules.changes and not self.vault.any_erased():
            return rows
        documents = [name for name in rows.column_names if _is_json(name, rules, rows.schema.field(name).type)]
        wanted = [*dict.fromkeys([*(path.partition(".")[0] for path in rules.subject), *rules.columns])]
        needed = [name for name in wanted if name in rows.column_names]
        values: dict[str, list[Any]] = {name: rows.column(name).to_pylist() for name in {*needed, *documents}}
        parsed = {name: [_parsed(text) for text in values[name]] for name in documents}
        people = _people(rules, rows.num_rows, values, parsed)
        subjects = [names[0] if names else None for names in people]
        keep = self._admitted(rules, rows, people)
        keys = self._keys(rules, [subjects[row] for row in keep])
        rows = rows.take(pa.array(keep, type=pa.int64()))
        for name in {*needed, *documents}:
            field = rows.schema.field(name)
            changed = []
            for row in keep:
                token = _tokens(keys, subjects[row])
                action = rules.columns.get(name, rules.unlisted_context if name in documents else "keep")
                if name in documents and parsed[name][row] is not None:
                    made = shaped(parsed[name][row], rules.columns, action, token, name)
                    changed.append(None if made in (None, {}) else msgspec.json.encode(made).decode())
                else:
                    changed.append(shaped(values[name][row], rules.columns, action, token, name))
            at = rows.column_names.index(name)
            rows = rows.set_column(at, field, pa.array(changed, type=field.type))
        return rows

    def _cleaned(self, table: str, make: Callable[[], pa.Table]) -> pa.Table:
        return self.cleaned(table, make())

    def _cleaned_payloads(self, table: str, rows: pa.Table) -> pa.Table:
        """Refused records, whose fields are those of ``table`` where they can be read."""
        rules = self.policy.rules(table)
        kept, payloads = [], []
        for row, payload in enumerate(rows.column("payload").to_pylist()):
            document = _parsed(payload)
            if not isinstance(document, dict):
                kept.append(row)
                unread = self.policy.unreadable == "withhold"
                payloads.append(f"sha256:{sha256(payload).hexdigest()}".encode() if unread else payload)
                continue
            names = _people_of(rules, document)
            subject = names[0] if names else None
            if not self._admits(rules, document, names):
                continue
            token = _tokens(self._keys(rules, [subject]), subject)
            parts = {
                name: shaped(value, rules.columns, rules.columns.get(name, _other(rules, name)), token, name)
                for name, value in document.items()
            }
            kept.append(row)
            # As it was received where there is nothing to change: numbers are not written anew for nothing.
            payloads.append(payload if parts == document else msgspec.json.encode(parts))
        rows = rows.take(pa.array(kept, type=pa.int64()))
        at = rows.column_names.index("payload")
        return rows.set_column(at, rows.schema.field("payload"), pa.array(payloads, type=pa.binary()))

    def _keys(self, rules: TableRules, subjects: Sequence[str | None]) -> dict[str, bytes]:
        if not rules.tokenises:
            return {}
        filed = {subject: self.vault.filed(subject) for subject in {*subjects} if subject is not None}
        keys = self.vault.keys(filed.values())
        return {subject: keys[name] for subject, name in filed.items()}

    def _admits(self, rules: TableRules, document: Mapping[str, Any], names: tuple[str, ...]) -> bool:
        time_us, decision = document.get(_TIME), document.get("decision_id")
        return not self._erased(
            rules,
            [names],
            [time_us if isinstance(time_us, int) else 0],
            [decision if isinstance(decision, str) else None],
        )

    def _admitted(self, rules: TableRules, rows: pa.Table, people: Sequence[tuple[str, ...]]) -> list[int]:
        """Rows of nobody who was erased."""
        every = range(rows.num_rows)
        if not self.vault.any_erased():
            return list(every)
        names = rows.column_names
        times = rows.column(_TIME).to_pylist() if _TIME in names else [0] * rows.num_rows
        decisions = rows.column("decision_id").to_pylist() if "decision_id" in names else [None] * rows.num_rows
        gone = self._erased(rules, people, times, decisions)
        return [row for row in every if row not in gone]

    def _erased(
        self,
        rules: TableRules,
        people: Sequence[tuple[str, ...]],
        times: Sequence[int],
        decisions: Sequence[str | None],
    ) -> set[int]:
        """Positions of rows that belong to an erased subject; what arrives for their decisions stays out as well.

        Under a token, what somebody did after the erasure is another's. As it came it would still be theirs.
        """
        filed = {name: self.vault.filed(name) for names in people for name in names}
        moments = self.vault.erased(filed.values())
        for_good = not rules.subject or any(
            rules.columns.get(path, _other(rules, path.partition(".")[0])) == "keep" for path in rules.subject
        )
        theirs = set()
        for row, (names, time_us) in enumerate(zip(people, times, strict=True)):
            moment = max((moments.get(filed[name], -1) for name in names), default=-1)
            if moment >= 0 and (for_good or time_us <= moment):
                theirs.add(row)
        fresh = [decision for row in theirs if (decision := decisions[row]) is not None]
        if fresh:
            self.vault.note_decisions(fresh)
        known = self.vault.erased_decisions({decision for decision in decisions if decision is not None})
        return theirs | {row for row, decision in enumerate(decisions) if decision in known}


@contextmanager
def _history_may_be_gone() -> Iterator[None]:
    """A writer whose version is no longer in the log is told what any other is whom a commit overtook."""
    try:
        yield
    except CommitFailedError:
        raise
    except DeltaError as problem:
        if "Invalid table version" not in str(problem):
            raise
        raise CommitFailedError(f"the history up to that version was erased: {problem}") from problem


def protected_lake(settings: Settings) -> ProtectedLake:
    """The lake of an installation, with the policy and the vault that its settings name.

    Raises:
        ConfigurationError: the policy cannot be read or kept.
        OperatorError: the vault cannot be opened.
    """
    policy = PrivacyPolicy.nothing() if settings.privacy is None else read_config(settings.privacy, PrivacyPolicy)
    return ProtectedLake(
        settings.lake_root,
        settings.tenant,
        policy=policy,
        vault=Vault(settings.privacy_database, settings.tenant),
        gate=Gate(settings.home / "privacy.lock"),
    )


def check_policy(policy: PrivacyPolicy) -> None:
    """Raise where a rule cannot be kept.

    Raises:
        ConfigurationError: a table or column that does not exist, or a column that cannot hold what the rule makes.
    """
    for table, rules in policy.tables.items():
        check_choice(table, TABLES, field="tables")
        schema = table_spec(table).schema
        for path in (*rules.subject, *rules.columns):
            check_choice(path.partition(".")[0], schema.names, field=f"tables.{table} column")
        for path, action in rules.columns.items():
            column = schema.field(path.partition(".")[0])
            text = pa.types.is_string(column.type)
            if "." in path and not text:
                raise ConfigurationError(f"{path} of {table} is not JSON text", field=f"tables.{table}.columns.{path}")
            if "." in path or action == "keep":
                continue
            if action == "drop" and not column.nullable:
                raise ConfigurationError(
                    f"{path} of {table} must have a value; allowed: keep, mask, tokenise",
                    field=f"tables.{table}.columns.{path}",
                )
            if action != "drop" and not text:
                raise ConfigurationError(
                    f"{path} of {table} is no text; allowed: keep, drop", field=f"tables.{table}.columns.{path}"
                )


def _is_json(name: str, rules: TableRules, kind: pa.DataType) -> bool:
    below = any(path.startswith(f"{name}.") for path in (*rules.columns, *rules.subject))
    changed = rules.columns.get(name, rules.unlisted_context) != "keep"
    return pa.types.is_string(kind) and (below or (name in _DOCUMENTS and changed))


def _other(rules: TableRules, name: str) -> Any:
    return rules.unlisted_context if name in _DOCUMENTS else "keep"


def _people(
    rules: TableRules, count: int, values: Mapping[str, Sequence[Any]], parsed: Mapping[str, Sequence[Any]]
) -> list[tuple[str, ...]]:
    """Whose each row is: the first is the subject, and the others name them too."""
    columns = {
        path: (path.partition(".")[0], parsed.get(path.partition(".")[0]) if "." in path else values.get(path))
        for path in rules.subject
    }
    return [
        tuple(
            text
            for path, (name, column) in columns.items()
            if column is not None and (text := _text(_at({name: column[row]}, path))) is not None
        )
        for row in range(count)
    ]


def _people_of(rules: TableRules, document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(text for path in rules.subject if (text := _text(_at(document, path))) is not None)


def _at(document: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(part)
    return document


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)


def _tokens(keys: Mapping[str, bytes], subject: str | None) -> Callable[[str], str]:
    """Makes tokens of a row; one that is nobody's has no key, and its values are masked."""
    key = None if subject is None else keys.get(subject)
    return (lambda _: "***") if key is None else partial(token_of, key)


def _parsed(text: str | bytes | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
