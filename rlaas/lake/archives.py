"""Storage classes: where old rows lie, and reading a table over all of them.

A class is a root of its own with the same tables; each row there also says by which *move* it came. A move copies rows,
checks the copy, and then takes the rows out of the class before in one commit, which also writes down the move. Only
rows of moves that are written down count. So a reader who looks at the classes from the youngest to the oldest sees
every row once, wherever a move stands or stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from rlaas.errors import LakeError, check_choice
from rlaas.lake.lifecycle import RetentionPlan
from rlaas.lake.schemas import TableSpec, table_spec
from rlaas.lake.tables import Lake

__all__ = ["MOVE", "StorageClass", "archive_spec", "is_written_down", "move_id", "read_across", "storage_classes"]

MOVE = "move"
"""Column of an archive: by which move a row came."""


@dataclass(frozen=True, slots=True)
class StorageClass:
    """One of the places of a lake.

    Attributes:
        name: ``hot``, ``warm`` or ``cold``.
        root: folder or URL.
    """

    name: str
    root: str

    def location(self, table: str) -> str:
        """Folder or URL of a table."""
        return f"{self.root}/{table_spec(table).path}"

    def open(self, table: str) -> DeltaTable | None:
        """The table itself; ``None`` if it does not exist.

        Raises:
            LakeError: its log is damaged.
        """
        try:
            return DeltaTable(self.location(table))
        except TableNotFoundError:
            return None
        except DeltaError as problem:
            raise LakeError(f"table {table} in {self.root} is damaged: {problem}") from problem

    def spec(self, table: str) -> TableSpec:
        """How the table is declared here."""
        spec = table_spec(table)
        return spec if self.name == "hot" else archive_spec(spec)


def storage_classes(lake: Lake, plan: RetentionPlan) -> tuple[StorageClass, StorageClass, StorageClass]:
    """The classes of a lake, from the youngest rows to the oldest."""
    warm, cold = (
        f"{lake.root}/archive/{name}" if place is None else _absolute(place)
        for name, place in (("warm", plan.warm), ("cold", plan.cold))
    )
    return StorageClass("hot", lake.root), StorageClass("warm", warm), StorageClass("cold", cold)


def _absolute(place: str) -> str:
    return place.rstrip("/") if "://" in place else str(Path(place).expanduser().absolute())


def archive_spec(spec: TableSpec) -> TableSpec:
    """How a table is declared in an archive."""
    return TableSpec(
        name=spec.name,
        schema=spec.schema.append(pa.field(MOVE, pa.string(), nullable=False)),
        partition_by=(*spec.partition_by, MOVE),
        order_by=spec.order_by,
        append_only=False,
        within=spec.within,
    )


def move_id(tenant: str, move: str) -> str:
    """Delta application id by which a move is written down in the table that the rows left."""
    return f"rlaas/{tenant}/moved/{move}"


def is_written_down(source: DeltaTable | None, tenant: str, move: str) -> bool:
    """Whether a move was finished, as far as this state of the table that the rows left can tell."""
    return source is not None and source.transaction_version(move_id(tenant, move)) is not None


def read_across(
    lake: Lake,
    plan: RetentionPlan,
    table: str,
    columns: Sequence[str] | None = None,
    filter: pc.Expression | None = None,  # noqa: A002 (pyarrow's own word)
) -> pa.Table:
    """Rows of a table over all storage classes, in no particular order.

    Where rows of a table may change, one that was moved and then written again counts as it was written last.

    Args:
        lake: the tables.
        plan: says where the classes are.
        table: ``"bronze.decisions"`` and so on.
        columns: only these, in this order.
        filter: pyarrow expression; filters on ``date`` skip whole folders.

    Raises:
        ConfigurationError: unknown table or column.
        LakeError: a table is damaged.
    """
    spec = table_spec(table)
    wanted = list(spec.schema.names) if columns is None else list(columns)
    for name in wanted:
        check_choice(name, spec.schema.names, field=f"column of {table}")
    keys = [] if spec.append_only else [name for name in spec.order_by if name not in wanted]
    mine = pc.field("tenant") == lake.tenant
    condition = mine if filter is None else mine & filter
    before: DeltaTable | None = None
    parts = []
    # From the youngest: what is moved meanwhile is still in the state of the younger class that was opened.
    for storage in storage_classes(lake, plan):
        delta = storage.open(table)
        if delta is not None:
            moved = None if storage.name == "hot" else _written_down(before, delta, lake.tenant)
            parts.append(_read(storage, table, delta, [*wanted, *keys], condition, moved))
        before = delta
    if not parts:
        return pa.schema([spec.schema.field(name) for name in wanted]).empty_table()
    rows = pa.concat_tables(parts)
    if not spec.append_only:
        rows = _latest(rows, spec.order_by)
    return rows.select(wanted)


def _written_down(source: DeltaTable | None, archive: DeltaTable, tenant: str) -> list[str]:
    partitions = [part for part in archive.partitions() if part["tenant"] == tenant]
    moves = {str(part[MOVE]) for part in partitions}
    return sorted(move for move in moves if is_written_down(source, tenant, move))


def _read(
    storage: StorageClass,
    table: str,
    delta: DeltaTable,
    columns: list[str],
    condition: pc.Expression,
    moved: list[str] | None,
) -> pa.Table:
    spec = storage.spec(table)
    base, path = pa_fs.FileSystem.from_uri(storage.location(table))
    if moved is not None:
        condition = condition & pc.field(MOVE).isin(pa.array(moved, type=pa.string()))
    try:
        dataset = delta.to_pyarrow_dataset(filesystem=pa_fs.SubTreeFileSystem(path, base), schema=spec.schema)
        extra = [] if moved is None else [MOVE]
        rows = dataset.to_table(columns=[*columns, *extra], filter=condition)
    except (OSError, DeltaError) as problem:
        raise LakeError(f"table {table} in {storage.root} is damaged: {problem}") from problem
    schema = pa.schema([spec.schema.field(name) for name in columns])
    # The hot class is behind every move: "~" sorts behind the digits of a move.
    rank = rows.column(MOVE) if moved is not None else pa.array(["~"] * rows.num_rows, type=pa.string())
    return rows.select(columns).cast(schema).append_column("_rank", rank)


def _latest(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Of the rows with equal keys those that were written last; a key with a null equals no other."""
    rows = rows.take(
        pc.sort_indices(rows, sort_keys=[*((name, "ascending") for name in keys), ("_rank", "descending")])
    )
    if not rows.num_rows:
        return rows
    same = np.ones(rows.num_rows - 1, dtype=np.bool_)
    for name in keys:
        column = rows.column(name).combine_chunks()
        same &= pc.fill_null(pc.equal(column[1:], column[:-1]), False).to_numpy(zero_copy_only=False)
    first = np.maximum.accumulate(np.where(np.append(False, same), 0, np.arange(rows.num_rows)))
    rank = rows.column("_rank").combine_chunks()
    return rows.filter(pc.equal(rank, rank.take(pa.array(first))))
