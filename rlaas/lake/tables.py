"""The Delta tables of one tenant: open, read, append once, replace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from rlaas.errors import LakeError, NotFoundError, check_choice
from rlaas.lake.schemas import TABLES, TableSpec, table_spec
from rlaas.lake.segments import sync_folder
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
    ) -> pa.Table:
        """Rows of a table, in no particular order; an empty table where nothing was written yet.

        Args:
            table: ``"bronze.decisions"`` and so on.
            columns: only these, in this order.
            filter: pyarrow expression; filters on ``date`` skip whole folders.
            version: state of the table at that Delta version.

        Raises:
            ConfigurationError: unknown table or column; names those there are.
            NotFoundError: there is no such version.
            LakeError: the table is damaged.
        """
        spec = table_spec(table)
        wanted = list(spec.schema.names) if columns is None else list(columns)
        for name in wanted:
            check_choice(name, spec.schema.names, field=f"column of {table}")
        delta = self.open(table, version=version)
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
        found = {name: self.version(name) for name in TABLES}
        return {name: version for name, version in found.items() if version is not None}

    def open(self, table: str, *, version: int | None = None) -> DeltaTable | None:
        """The Delta table itself, with the newest (or the given) version loaded; ``None`` if it does not exist.

        Raises:
            ConfigurationError: unknown table.
            NotFoundError: there is no such version.
        """
        location = self._location(table_spec(table))
        try:
            delta = DeltaTable(location)
        except TableNotFoundError:
            if version is not None:
                raise NotFoundError(f"table {table} has no version {version}: it is empty", field="version") from None
            return None
        if version is not None:
            if not 0 <= version <= delta.version():
                raise NotFoundError(
                    f"table {table} has no version {version}; allowed: 0 to {delta.version()}", field="version"
                )
            delta.load_as_version(version)
        return delta

    def open_or_create(self, table: str) -> DeltaTable:
        """The Delta table itself, made if need be; one that was made before columns were added gets them now.

        Raises:
            ConfigurationError: unknown table.
            deltalake.exceptions.CommitFailedError: the table was changed while columns were added; look again.
        """
        delta = self.open(table)
        spec = table_spec(table)
        if delta is not None:
            return self._with_new_columns(spec, delta)
        DeltaTable.create(
            self._location(spec),
            schema=spec.schema,
            partition_by=list(spec.partition_by),
            mode="ignore",
            name=spec.name,
            configuration=spec.configuration,
        )
        return DeltaTable(self._location(spec))

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
        write_deltalake(
            delta, combined, mode="append", commit_properties=CommitProperties(app_transactions=transactions)
        )
        if fsync and self.is_local:
            self._sync(table, int(delta.version()))
        return int(combined.num_rows)

    def replace(self, delta: DeltaTable, rows: pa.Table, where: str) -> None:
        """Replace the rows that satisfy ``where`` in one commit.

        Args:
            delta: table as it was read, so that a commit in between is noticed.
            rows: what takes their place.
            where: SQL predicate over partition columns.

        Raises:
            deltalake.exceptions.CommitFailedError: the table changed since it was opened.
        """
        if rows.num_rows:
            write_deltalake(delta, rows, mode="overwrite", predicate=where)
        else:
            delta.delete(where)

    def compact(self, table: str) -> int:
        """Merge the small files of this tenant's partitions into large ones, in a commit that changes no row.

        The old files stay for readers of older versions.

        Returns:
            Number of files that were merged away.

        Raises:
            ConfigurationError: unknown table.
            deltalake.exceptions.CommitFailedError: the merged files were replaced meanwhile.
        """
        delta = self.open(table)
        if delta is None:
            return 0
        metrics = delta.optimize.compact(partition_filters=[("tenant", "=", self.tenant)])
        return int(metrics["numFilesRemoved"]) - int(metrics["numFilesAdded"])

    def _with_new_columns(self, spec: TableSpec, delta: DeltaTable) -> DeltaTable:
        """The table with every declared column; its old rows have null in those that it lacked."""
        known = {column.name for column in delta.schema().fields}
        missing = [column for column in Schema.from_arrow(spec.schema).fields if column.name not in known]
        if not missing:
            return delta
        delta.alter.add_columns(missing)
        return DeltaTable(self._location(spec))

    def _location(self, spec: TableSpec) -> str:
        return f"{self.root}/{spec.path}"

    def _dataset(self, spec: TableSpec, delta: DeltaTable) -> pa.dataset.Dataset:
        # Arrow's own filesystem instead of the one that deltalake hands it: Arrow's reader threads call that one back
        # in Python, and one of them still alive at exit aborts the process ("terminate called ...").
        base, path = pa_fs.FileSystem.from_uri(self._location(spec))
        return delta.to_pyarrow_dataset(filesystem=pa_fs.SubTreeFileSystem(path, base), schema=spec.schema)

    def _sync(self, table: str, version: int) -> None:
        """Flush the files of one commit to disk, which deltalake never does."""
        home = Path(self._location(table_spec(table)))
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
