"""Tables to be scored: Delta at one version, Parquet files, or a tenant's rows of a table of the lake."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.fs as pa_fs

from rlaas.errors import InvalidInputError, NotFoundError
from rlaas.lake.schemas import TABLES, table_spec

__all__ = ["Reader", "Source"]


@dataclass(frozen=True)
class Source:
    """A table as it is read: a Delta table at one version, or Parquet files.

    Attributes:
        path: folder or file; no trailing slash.
        version: of a Delta table; None for Parquet.
        tenant: of a table of the lake, whose other rows are not read; None elsewhere.
        policy: of a table of the lake that has such a column: only its rows are read; None elsewhere.
    """

    path: str
    version: int | None
    tenant: str | None = None
    policy: str | None = None

    @classmethod
    def of(cls, table: str, *, lake_root: str, tenant: str, policy: str) -> Source:
        """The table of that name in the lake, as far as it is the policy's, or the whole table at that path.

        Raises:
            NotFoundError: there is none; names the tables of the lake.
        """
        from deltalake import DeltaTable

        known = table in TABLES
        path = f"{lake_root}/{table_spec(table).path}" if known else table.rstrip("/")
        path = path if "://" in path else str(Path(path).absolute())
        is_delta = not Path(path).is_file() and DeltaTable.is_deltatable(path)
        version = int(DeltaTable(path).version()) if is_delta else None
        if version is None and (known or not Path(path).exists()):
            raise NotFoundError(
                f"--table {table}: no such table; allowed: a path of Delta or Parquet, or one of "
                f"{', '.join(sorted(TABLES))} once it holds rows",
                field="table",
            )
        if not known:
            return cls(path, version)
        return cls(path, version, tenant, policy if "policy" in table_spec(table).schema.names else None)

    def __reduce__(self) -> tuple[object, ...]:
        # A worker opens the files itself: those of a large table are a long list.
        return (Source, (self.path, self.version, self.tenant, self.policy))

    @cached_property
    def dataset(self) -> pa_dataset.Dataset:
        """The files.

        Raises:
            InvalidInputError: they are no table.
        """
        try:
            if self.version is None:
                return pa_dataset.dataset(self.path, format="parquet", partitioning="hive")
            from deltalake import DeltaTable

            # Arrow's own filesystem: threads of Arrow that call deltalake's in Python may outlive the interpreter.
            base, path = pa_fs.FileSystem.from_uri(self.path)
            return DeltaTable(self.path, version=self.version).to_pyarrow_dataset(
                filesystem=pa_fs.SubTreeFileSystem(path, base)
            )
        except (OSError, ValueError) as problem:
            raise InvalidInputError(f"--table {self.path} cannot be read: {problem}", field="table") from problem

    @property
    def where(self) -> pc.Expression | None:
        """Which rows are read."""
        wanted = {"tenant": self.tenant, "policy": self.policy}
        found = [pc.field(name) == value for name, value in wanted.items() if value is not None]
        return reduce(operator.and_, found) if found else None

    def count(self) -> int:
        """Number of rows, from the files' statistics."""
        return int(self.dataset.count_rows(filter=self.where))

    def fragments(self) -> list[str]:
        """The files, in order."""
        return [fragment.path for fragment in self.dataset.get_fragments(filter=self.where)]

    def read(self, fragment: str, columns: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
        """Rows of one file, partition columns included."""
        found = next(f for f in self.dataset.get_fragments(filter=self.where) if f.path == fragment)
        schema = self.dataset.schema
        for batch in found.to_batches(
            schema=schema, columns=list(columns), filter=self.where, batch_size=batch_rows, use_threads=False
        ):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class Reader:
    """Reads files of a table on a worker.

    Attributes:
        source: the table.
        columns: to read.
        batch_rows: rows of one batch.
    """

    source: Source
    columns: tuple[str, ...]
    batch_rows: int

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[pa.Table]:
        """Rows of the files in the column ``file``."""
        for path in batch["file"]:
            yield from self.source.read(str(path), self.columns, self.batch_rows)
