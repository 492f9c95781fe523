"""Named datasets: rows of one version of a table under a filter, that are the same rows for ever.

A dataset is a copy. To point at files of the table instead would save their space, but every one of vacuum, log
clean-up, retention and erasure would then have to know and spare them, for as long as anybody may want to train on the
dataset again; a copy depends on none of them. It is a small Delta table of its own, made in one commit together with
its record. So it is there whole or not at all, and a name that is taken stays taken.

Who erases a subject replaces the datasets that hold it, see :func:`replace_datasets`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from rlaas.errors import ConflictError, InvalidInputError, LakeError, NotFoundError, check_choice
from rlaas.lake.digest import in_order, rows_sha256
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake
from rlaas.names import check_name

__all__ = ["Dataset", "create_dataset", "dataset", "datasets", "read_dataset", "replace_datasets"]

_PLACE = "_place"
"""Column of the stored rows: their position, so that they come back in the order they were hashed in."""
_GONE = "gone.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The record of a dataset.

    Attributes:
        name: its name, for ever.
        tenant: owner.
        table: table that the rows are of.
        version: Delta version of that table.
        filter: SQL condition that chose the rows; None for all of them.
        columns: names and types of the columns.
        rows: number of rows.
        sha256: of the rows in their fixed order, see :func:`~rlaas.lake.digest.rows_sha256`.
        created_us: when it was made, UTC microseconds.
        note: what its maker wants to say.
        replaces: dataset that this one was made from by leaving out rows.
        gone: why there are no rows any more; None while there are.
        schema_version: version of this document.
    """

    name: str
    tenant: str
    table: str
    version: int
    filter: str | None
    columns: Mapping[str, str]
    rows: int
    sha256: str
    created_us: int
    note: str = ""
    replaces: str | None = None
    gone: str | None = None
    schema_version: int = 1

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def create_dataset(
    lake: Lake,
    name: str,
    table: str,
    *,
    version: int | None = None,
    at: datetime | None = None,
    condition: str | None = None,
    columns: Sequence[str] | None = None,
    note: str = "",
) -> Dataset:
    """Name some rows. To ask again for the very same rows under a name gives what there is.

    All of the rows are held in memory.

    Args:
        lake: the tables.
        name: letters, digits, ``_ . -``.
        table: table that the rows are of.
        version: its Delta version; default the newest.
        at: or the version that was the newest at that time.
        condition: SQL condition over the columns of the table.
        columns: only these.
        note: kept with the record.

    Raises:
        ConflictError: the name is taken by other rows.
        ConfigurationError: unknown table or column.
        InvalidInputError: a name that is none, a condition that is none, or no row satisfies it.
        NotFoundError: the table is empty, or has no such version.
    """
    check_name(name, field="name")
    spec = table_spec(table)
    wanted = list(spec.schema.names) if columns is None else list(columns)
    for column in wanted:
        check_choice(column, spec.schema.names, field=f"column of {table}")
    # From the first look to the commit: who is erased in between would otherwise be named once more.
    with lake.writing():
        delta = lake.open(table, version=version, at=at)
        if delta is None:
            raise NotFoundError(f"table {table} is empty: there are no rows to name", field="table")
        rows = in_order(spec, _chosen(lake, table, delta, condition)).select(wanted)
        if not rows.num_rows:
            at_version = f"{table} version {delta.version()}"
            raise InvalidInputError(
                f"{at_version} holds no rows" if condition is None else f"no row of {at_version} satisfies {condition}",
                field="filter",
            )
        record = _record(lake, name, table, int(delta.version()), condition, rows, note)
        return _store(lake, record, rows)


def dataset(lake: Lake, name: str) -> Dataset:
    """The record of a dataset.

    Raises:
        NotFoundError: there is none of that name; names those there are.
        LakeError: its record is damaged.
    """
    check_name(name, field="dataset", error=NotFoundError)
    gone = _read_gone(lake, name)
    if gone is not None:
        return gone
    try:
        description = DeltaTable(_location(lake, name)).metadata().description
    except TableNotFoundError:
        known = ", ".join(_names(lake)) or "(none)"
        raise NotFoundError(f"unknown dataset {name!r}; allowed: {known}", field="dataset") from None
    except DeltaError as problem:
        raise LakeError(f"dataset {name} is damaged: {problem}") from problem
    return _parsed(name, description or "")


def datasets(lake: Lake) -> list[Dataset]:
    """The records of the tenant's datasets, by name."""
    return [dataset(lake, name) for name in _names(lake)]


def read_dataset(lake: Lake, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a dataset, in their order; checked to be the rows that were named.

    Raises:
        NotFoundError: there is none of that name, or its rows are gone; says why.
        ConfigurationError: unknown column.
        LakeError: the rows are not those that were named.
    """
    record = dataset(lake, name)
    if record.gone is not None:
        raise NotFoundError(f"dataset {name} has no rows any more: {record.gone}", field="dataset")
    wanted = list(record.columns) if columns is None else list(columns)
    for column in wanted:
        check_choice(column, record.columns, field=f"column of {name}")
    schema = pa.schema([table_spec(record.table).schema.field(column) for column in record.columns])
    location = _location(lake, name)
    base, path = pa_fs.FileSystem.from_uri(location)
    try:
        stored = DeltaTable(location).to_pyarrow_dataset(filesystem=pa_fs.SubTreeFileSystem(path, base)).to_table()
    except (OSError, DeltaError) as problem:
        raise LakeError(f"dataset {name} is damaged: {problem}") from problem
    rows = stored.sort_by(_PLACE).select(list(record.columns)).cast(schema)
    if rows.num_rows != record.rows or rows_sha256(rows) != record.sha256:
        raise LakeError(
            f"dataset {name} is damaged: it was {record.rows} rows with sha256 {record.sha256[:12]}..., "
            f"and is {rows.num_rows} rows with another"
        )
    return rows.select(wanted)


def replace_datasets(
    lake: Lake, matches: Callable[[pa.ChunkedArray], pa.ChunkedArray], reason: str
) -> list[dict[str, Any]]:
    """Replace the datasets that hold certain values by others without those rows.

    The rows of the old one are deleted; its name stays taken and says why they are gone. May be called again.

    Args:
        lake: the tables.
        matches: which values of a column are meant, for columns of text and bytes.
        reason: what the old name says from now on.

    Returns:
        For each its ``name``, the new name (``replaced_by``) and how many rows were left out (``rows``).

    Raises:
        LakeError: a dataset is damaged.
    """
    replaced: list[dict[str, Any]] = []
    known = datasets(lake)
    for record in known:
        if record.gone is not None:
            _delete_rows(lake, record.name)  # of whoever died before
            continue
        rows = read_dataset(lake, record.name)
        held = pa.array([False] * rows.num_rows)
        for column in rows.columns:
            if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
                held = pc.or_(held, pc.fill_null(matches(column), False))
        if not pc.any(held).as_py():
            continue
        rest = rows.filter(pc.invert(held)).combine_chunks()
        made = next((other.name for other in known if other.replaces == record.name), "")
        if rest.num_rows and not made:
            root = record.name if record.replaces is None else record.name.rpartition(".")[0]
            made = next(name for name in (f"{root}.{number}" for number in count(1)) if name not in _names(lake))
            # Without the condition, which may name whoever is meant.
            _store(lake, _record(lake, made, record.table, record.version, None, rest, record.note, record.name), rest)
        _bury(lake, record, reason)
        replaced.append({"name": record.name, "replaced_by": made, "rows": int(pc.sum(held).as_py())})
    return replaced


def _chosen(lake: Lake, table: str, delta: DeltaTable, condition: str | None) -> pa.Table:
    spec = table_spec(table)
    if condition is None:
        return lake.read_open(spec, delta)
    try:
        found = pa.table(delta.scan(predicate=condition).read_all())
    except Exception as problem:  # of a stream that breaks off, too
        reason = " ".join(str(problem).split())
        raise InvalidInputError(
            f"filter {condition!r} is no condition over {table}: {reason}", field="filter"
        ) from None
    held = [field for field in spec.schema if field.name in found.column_names]
    rows = found.select([field.name for field in held]).cast(pa.schema(held))
    for field in spec.schema:
        if field.name not in found.column_names:  # a version from before the column
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    # Whatever the condition says: the tenant's rows only.
    return rows.filter(pc.equal(rows.column("tenant"), lake.tenant)).select(spec.schema.names)


def _record(
    lake: Lake,
    name: str,
    table: str,
    version: int,
    condition: str | None,
    rows: pa.Table,
    note: str,
    replaces: str | None = None,
) -> Dataset:
    return Dataset(
        name=name,
        tenant=lake.tenant,
        table=table,
        version=version,
        filter=condition,
        columns={field.name: str(field.type) for field in rows.schema},
        rows=rows.num_rows,
        sha256=rows_sha256(rows),
        created_us=time.time_ns() // 1000,
        note=note,
        replaces=replaces,
    )


def _store(lake: Lake, record: Dataset, rows: pa.Table) -> Dataset:
    if _read_gone(lake, record.name) is None:
        try:
            write_deltalake(
                _location(lake, record.name),
                rows.append_column(_PLACE, pa.array(range(rows.num_rows), type=pa.int64())),
                mode="error",
                name=record.name,
                description=json.dumps(record.document()),
                configuration={"delta.appendOnly": "true"},
                # Or the slower one of two would come as a second version behind the first.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError as problem:
            # The first commit of a table can be made once: of two at the same time one comes here.
            if not DeltaTable.is_deltatable(_location(lake, record.name)):
                raise LakeError(f"dataset {record.name} cannot be written: {problem}") from problem
        else:
            return record
    there = dataset(lake, record.name)
    if there.gone is None and _said(there) == _said(record):
        return there
    raise ConflictError(
        f"dataset {record.name} is {there.table} version {there.version}, {there.rows} rows with sha256 "
        f"{there.sha256[:12]}...; a name is never given to other rows: choose another",
        field="name",
    )


def _said(record: Dataset) -> tuple[object, ...]:
    return record.table, record.version, record.filter, dict(record.columns), record.rows, record.sha256


def _bury(lake: Lake, record: Dataset, reason: str) -> None:
    """Delete the rows of a dataset and keep its name."""
    base, path = pa_fs.FileSystem.from_uri(_location(lake, record.name))
    document = {**record.document(), "filter": None, "gone": reason}
    # First, so that the name is taken at every instant.
    with base.open_output_stream(f"{path}/{_GONE}") as stream:
        stream.write(json.dumps(document).encode())
    _delete_rows(lake, record.name)


def _delete_rows(lake: Lake, name: str) -> None:
    base, path = pa_fs.FileSystem.from_uri(_location(lake, name))
    for item in base.get_file_info(pa_fs.FileSelector(path)):
        if item.base_name == _GONE:
            continue
        if item.type == pa_fs.FileType.Directory:
            base.delete_dir(item.path)
        else:
            base.delete_file(item.path)


def _read_gone(lake: Lake, name: str) -> Dataset | None:
    base, path = pa_fs.FileSystem.from_uri(_location(lake, name))
    try:
        with base.open_input_stream(f"{path}/{_GONE}") as stream:
            return _parsed(name, stream.read().decode())
    except FileNotFoundError:
        return None


def _parsed(name: str, text: str) -> Dataset:
    try:
        return Dataset(**json.loads(text))
    except (ValueError, TypeError) as problem:
        raise LakeError(f"the record of dataset {name} is damaged: {problem}") from problem


def _names(lake: Lake) -> list[str]:
    base, path = pa_fs.FileSystem.from_uri(f"{lake.root}/datasets/{lake.tenant}")
    found = base.get_file_info(pa_fs.FileSelector(path, allow_not_found=True))
    names = [item.base_name for item in found if item.type == pa_fs.FileType.Directory]
    return sorted(name for name in names if _is_there(base, f"{path}/{name}"))


def _is_there(base: pa_fs.FileSystem, path: str) -> bool:
    """Whether the first commit of a dataset was made: files alone are what a writer left that died before it."""
    first, gone = base.get_file_info([f"{path}/_delta_log/{0:020d}.json", f"{path}/{_GONE}"])
    return bool(pa_fs.FileType.File in (first.type, gone.type))


def _location(lake: Lake, name: str) -> str:
    return f"{lake.root}/datasets/{lake.tenant}/{name}"
