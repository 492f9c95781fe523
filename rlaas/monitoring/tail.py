"""The rows that were added to a table of ``bronze`` since a version of it: read once each, in the order of commits.

A commit of the Committer names its new files in the table's log; only these are read, whatever the size of the table.
Merging small files adds no row, and says so (``dataChange`` false).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from rlaas.errors import LakeError
from rlaas.lake import Lake
from rlaas.lake.schemas import table_spec

__all__ = ["BronzeTail"]


class BronzeTail:
    """Follows one table for one tenant.

    Args:
        lake: where it is.
        table: ``bronze.decisions`` or ``bronze.outcomes``.
    """

    def __init__(self, lake: Lake, table: str) -> None:
        self._lake, self._spec = lake, table_spec(table)
        base, path = pa_fs.FileSystem.from_uri(f"{lake.root}/{self._spec.path}")
        self._files = pa_fs.SubTreeFileSystem(path, base)

    def version(self) -> int:
        """Newest version; -1 where there is no table."""
        found = self._lake.version(self._spec.name)
        return -1 if found is None else found

    def after(self, version: int) -> Iterator[tuple[int, pa.Table]]:
        """Each later version with the rows that it added, which may be none.

        Raises:
            LakeError: the log no longer reaches back so far, or a file is damaged.
        """
        while (actions := self._actions(version + 1)) is not None:
            version += 1
            yield version, self._rows(actions)
        newest = self.version()
        if newest > version:
            raise LakeError(
                f"the log of {self._spec.name} no longer has version {version + 1}; newest: {newest}", field="version"
            )

    def _actions(self, version: int) -> list[dict[str, object]] | None:
        path = f"_delta_log/{version:020d}.json"
        try:
            with self._files.open_input_stream(path) as file:
                text = file.read().decode()
        except FileNotFoundError:
            return None
        return [json.loads(line) for line in text.splitlines()]

    def _rows(self, actions: list[dict[str, object]]) -> pa.Table:
        schema, mine = self._spec.schema, []
        for action in actions:
            add = action.get("add")
            if not isinstance(add, dict) or not add.get("dataChange", True):
                continue
            partition = add["partitionValues"]
            if partition.get("tenant") != self._lake.tenant:
                continue
            try:
                rows = pq.read_table(self._files.open_input_file(unquote(add["path"])))
            except (OSError, pa.ArrowInvalid) as problem:
                raise LakeError(f"table {self._spec.name} is damaged: {problem}") from problem
            for name, value in partition.items():
                rows = rows.append_column(name, pa.array([value] * len(rows), pa.string()))
            for name in set(schema.names) - set(rows.column_names):  # from before the column was added
                rows = rows.append_column(name, pa.nulls(len(rows), schema.field(name).type))
            mine.append(rows.select(schema.names).cast(schema))
        return pa.concat_tables(mine) if mine else schema.empty_table()
