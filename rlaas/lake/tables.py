"""The Delta tables of one tenant: open, read, append once, replace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from rlaas.errors import InvalidInputError, LakeError, NotFoundError, check_choice
from rlaas.lake.compaction import TARGET_BYTES, compact
from rlaas.lake.evolution import check_rows, declared
from rlaas.lake.schemas import TABLES, TableSpec, table_spec
from rlaas.lake.segments import sync_folder
from rlaas.lake.versions import CHANGE_COLUMNS, TableVersion, changes_between, load_version, table_versions
from rlaas.names import check_name

__all__ = ["Lake"]


class Lake:
    """The tables as one tenant sees them, at ``root/<layer>/<table>``.

    Tenants share a table and are partitions of it: whatever is read is this tenant's rows.

    Args:
        root: local folder, or the URL of an object store (its credentials come from the environment).
        tenant: owner of the rows.

    Raises:
        InvalidInputError: ``tenant`` is not a plain name.
    """

    def __init__(self, root: str | Path, tenant: str = "default") -> None:
        self.tenant = check_name(tenant, field="tenant")
        self.is_local = "://" not in str(root)
        self.root = str(Path(root).absolute()) if self.is_local else str(root).rstrip("/")

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002 (pyarrow's own word)
        version: int | None = None,
        at: datetime | None = None,
    ) -> pa.Table:
        """Rows of a table, in no particular order; an empty table where nothing was written yet.

        Args:
            table: ``"bronze.decisions"`` and so on.
            columns: only these, in this order.
            filter: pyarrow expression; filters on ``date`` skip whole folders.
            version: state of the table at that Delta version.
            at: state of the table at that time, which has to come with its offset.

        Raises:
            ConfigurationError: unknown table or column; names those there are.
            InvalidInputError: a version and a time, or a time without its offset.
            NotFoundError: there is no such version, or was none yet.
            LakeError: the table is damaged.
        """
        spec = table_spec(table)
        wanted = list(spec.schema.names) if columns is None else list(columns)
        for name in wanted:
            check_choice(name, spec.schema.names, field=f"column of {table}")
        delta = self.open(table, version=version, at=at)
        if delta is None:
            schema = pa.schema([spec.schema.field(name) for name in wanted])
            return schema.empty_table()
        return self.read_open(spec, delta, columns=wanted, filter=filter)

    def read_open(
        self,
        spec: TableSpec,
        delta: DeltaTable,
        *,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002
    ) -> pa.Table:
        """Rows of an opened table, exactly as of the version it was opened at.

        Raises:
            LakeError: the table is damaged.
        """
        mine = pc.field("tenant") == self.tenant
        try:
            rows = self._dataset(spec, delta).to_table(
                columns=None if columns is None else list(columns), filter=mine if filter is None else mine & filter
            )
        except (OSError, DeltaError) as problem:
            raise LakeError(f"table {spec.name} is damaged: {problem}") from problem
        return rows.cast(pa.schema([spec.schema.field(name) for name in rows.column_names]))

    def count(self, table: str) -> int:
        """Number of rows.

        Raises:
            ConfigurationError: unknown table.
        """
        delta = self.open(table)
        if delta is None:
            return 0
        return int(self._dataset(table_spec(table), delta).count_rows(filter=pc.field("tenant") == self.tenant))

    def version(self, table: str) -> int | None:
        """Newest Delta version of a table; ``None`` where nothing was written yet.

        Raises:
            ConfigurationError: unknown table.
        """
        delta = self.open(table)
        return None if delta is None else int(delta.version())

    def versions(self) -> dict[str, int]:
        """Newest Delta version of every table that exists: what to log to say which data was used."""
        found = {name: self.version(name) for name in (*TABLES, *self._training_tables())}
        return {name: version for name, version in found.items() if version is not None}

    def open(self, table: str, *, version: int | None = None, at: datetime | None = None) -> DeltaTable | None:
        """The Delta table itself, with the newest (or the given) version loaded; ``None`` if it does not exist.

        Raises:
            ConfigurationError: unknown table.
            InvalidInputError: a version and a time, or a time without its offset.
            NotFoundError: there is no such version, or was none yet at that time.
            LakeError: the log is damaged, or no longer reaches back so far.
        """
        try:
            delta = DeltaTable(self.location(table))
        except TableNotFoundError:
            if version is not None or at is not None:
                what, field = (f"version {version}", "version") if at is None else (f"state at {at.isoformat()}", "at")
                raise NotFoundError(f"table {table} has no {what}: it is empty", field=field) from None
            return None
        except DeltaError as problem:
            raise LakeError(f"table {table} is damaged: {problem}") from problem
        load_version(self.location(table), delta, version=version, at=at)
        return delta

    def location(self, table: str) -> str:
        """Folder or URL of a table.

        Raises:
            ConfigurationError: unknown table.
        """
        return f"{self.root}/{table_spec(table).path}"

    def history(self, table: str, limit: int | None = None) -> list[TableVersion]:
        """The commits to a table (of every tenant: they share it), newest first.

        Raises:
            ConfigurationError: unknown table.
        """
        delta = self.open(table)
        return [] if delta is None else table_versions(delta, limit)

    def changes(
        self, table: str, since_version: int, columns: Sequence[str] | None = None, *, until_version: int | None = None
    ) -> pa.Table:
        """What changed in a table behind a version, in no particular order.

        Compaction changes no row, nor does moving old rows to another storage class: neither is in the feed.

        Args:
            table: one with a change feed.
            since_version: the version whose rows are known already; -1 for none.
            columns: only these.
            until_version: the last version that counts; default the newest.

        Returns:
            The rows, and ``_change_type`` (``insert``, ``update_preimage``, ``update_postimage``, ``delete``),
            ``_commit_version`` and ``_commit_timestamp`` (UTC).

        Raises:
            ConfigurationError: unknown table or column.
            NotFoundError: the table has no such version.
            LakeError: the feed does not reach back so far, or the table is damaged.
        """
        spec = table_spec(table)
        wanted = list(spec.schema.names) if columns is None else list(columns)
        for name in wanted:
            check_choice(name, spec.schema.names, field=f"column of {table}")
        delta = self.open(table, version=until_version)
        if delta is None:
            raise NotFoundError(f"table {table} has no changes: it is empty", field="table")
        return changes_between(spec, delta, self.tenant, since_version).select([*wanted, *CHANGE_COLUMNS])

    def open_or_create(self, table: str) -> DeltaTable:
        """The Delta table itself, made if need be; one that was made before its declaration grew is brought up to it.

        Columns that may be null, constraints and properties are added; anything else that differs is refused.

        Raises:
            ConfigurationError: unknown table.
            LakeError: the declaration changes what may only be added to, or rows of the table break a constraint that
                is new; names the column. Nothing was written.
        """
        return declared(self.location(table), table_spec(table), self.open(table))

    def append_once(
        self, table: str, parts: Mapping[str, Sequence[tuple[int, Callable[[], pa.Table]]]], *, fsync: bool = False
    ) -> int:
        """Append numbered parts of several writers in one commit, leaving out those committed before.

        Args:
            table: where to.
            parts: for every writer (Delta application id) its numbered parts, ascending, as functions that make rows.
            fsync: flush the new files to disk before returning (local tables).

        Returns:
            Number of rows appended.

        Raises:
            InvalidInputError: rows are not as declared; names the column. Nothing was written.
            LakeError: the table cannot be brought to its declaration, or refused the rows.
            deltalake.exceptions.CommitFailedError: somebody else committed the same parts meanwhile; look again.
        """
        delta = self.open_or_create(table)
        rows: list[pa.Table] = []
        transactions: list[Transaction] = []
        for app_id, numbered in parts.items():
            # Looked up in, and written through, the same snapshot: if another process commits for this writer in
            # between, Delta refuses the transaction. A fresh snapshot for the write would write the rows twice.
            committed = delta.transaction_version(app_id) or 0
            fresh = [make() for number, make in numbered if number > committed]
            if fresh:
                rows.extend(fresh)
                transactions.append(Transaction(app_id, numbered[-1][0]))
        if not transactions:
            return 0
        combined = pa.concat_tables(rows).combine_chunks()
        check_rows(table_spec(table), combined)
        with _refusals(table):
            write_deltalake(
                delta, combined, mode="append", commit_properties=CommitProperties(app_transactions=transactions)
            )
        if fsync and self.is_local:
            self._sync(table, int(delta.version()))
        return int(combined.num_rows)

    def replace(
        self, delta: DeltaTable, rows: pa.Table, where: str, *, transactions: Sequence[Transaction] = ()
    ) -> None:
        """Replace the rows that satisfy ``where`` in one commit.

        Args:
            delta: table as it was read, so that a commit in between is noticed.
            rows: what takes their place.
            where: SQL predicate over partition columns.
            transactions: what is remembered in the same commit.

        Raises:
            InvalidInputError: the table is append-only, or rows are not as declared; names the column.
            LakeError: the table refused the rows.
            deltalake.exceptions.CommitFailedError: the table changed since it was opened.
        """
        # By its place: a table that others made need not say its name.
        spec = table_spec(".".join(unquote(delta.table_uri).rstrip("/").split("/")[-2:]))
        if spec.append_only:
            raise InvalidInputError(f"table {spec.name} is append-only: its rows are never replaced", field="table")
        check_rows(spec, rows)
        properties = CommitProperties(app_transactions=list(transactions))
        with _refusals(spec.name):
            if rows.num_rows:
                write_deltalake(delta, rows, mode="overwrite", predicate=where, commit_properties=properties)
            else:
                delta.delete(where, commit_properties=properties)

    def compact(self, table: str) -> int:
        """Merge the small files of this tenant's partitions into large ones, in a commit that changes no row.

        The old files stay for readers of older versions. Writers go on meanwhile; what they add is left for next time.
        See :mod:`~rlaas.lake.compaction`, and :func:`~rlaas.lake.maintenance.maintain` for more than this.

        Returns:
            Number of files that were merged away, less those that they became.

        Raises:
            ConfigurationError: unknown table.
            LakeError: a file cannot be read or written.
        """
        delta = self.open(table)
        if delta is None:
            return 0
        spec, location = table_spec(table), self.location(table)
        with self.writing():
            done = compact(
                lambda: DeltaTable(location), location, spec, {"tenant": self.tenant}, target_bytes=TARGET_BYTES
            )
        return done.removed - done.added

    def writing(self) -> AbstractContextManager[None]:
        """Held while files of tables are exchanged; for subclasses that keep others from it meanwhile."""
        return nullcontext()

    def _training_tables(self) -> list[str]:
        """The ``gold`` tables that exist; the other tables are declared by name."""
        base, path = pa_fs.FileSystem.from_uri(f"{self.root}/gold")
        found = base.get_file_info(pa_fs.FileSelector(path, allow_not_found=True))
        return sorted(
            f"gold.{item.base_name}"
            for item in found
            if item.type == pa_fs.FileType.Directory and item.base_name.endswith("_training")
        )

    def _dataset(self, spec: TableSpec, delta: DeltaTable) -> pa.dataset.Dataset:
        # Arrow's own filesystem instead of the one that deltalake hands it: Arrow's reader threads call that one back
        # in Python, and one of them still alive at exit aborts the process ("terminate called ...").
        base, path = pa_fs.FileSystem.from_uri(self.location(spec.name))
        return delta.to_pyarrow_dataset(filesystem=pa_fs.SubTreeFileSystem(path, base), schema=spec.schema)

    def _sync(self, table: str, version: int) -> None:
        """Flush the files of one commit to disk, which deltalake never does."""
        home = Path(self.location(table))
        log = home / "_delta_log" / f"{version:020d}.json"
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        files = [home / unquote(action["add"]["path"]) for action in actions if "add" in action]
        for path in [*files, log]:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        for folder in sorted(
            {parent for path in [*files, log] for parent in path.parents if parent.is_relative_to(home)}
        ):
            sync_folder(folder)


@contextmanager
def _refusals(table: str) -> Iterator[None]:
    """What Delta refuses, in one line; its own message shows rows, which do not belong into logs."""
    try:
        yield
    except CommitFailedError:
        raise
    except DeltaError as problem:
        raise LakeError(f"table {table} refused the rows: {str(problem).splitlines()[0]}") from problem
