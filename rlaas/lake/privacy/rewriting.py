"""Takes the rows of a subject out of a Delta table, and every trace of them out of its files and its log.

A deletion alone does not do it: the old files stay, and the entries of the log hold the smallest and largest values of
each file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from rlaas.errors import LakeError
from rlaas.files import sync
from rlaas.lake.privacy.guard import ERASURES
from rlaas.lake.privacy.needles import Needles
from rlaas.lake.privacy.scan import holds

__all__ = ["Found", "delete", "find", "forget_history", "is_append_only", "overtake_writers", "table_folders"]

_ATTEMPTS = 8
_ORPHAN_S = 3600.0
"""A file that no entry of the log names may be on its way into the table; one so old is not."""
_APPEND_ONLY = "delta.appendOnly"


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of a subject in a table.

    Attributes:
        rows: how many.
        parts: values of the partition columns under which they lie.
        decisions: ids of decisions in those rows.
    """

    rows: int
    parts: frozenset[tuple[Any, ...]]
    decisions: frozenset[str]


def table_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Every Delta table below a root, by its name (``bronze.decisions``); without named datasets.

    A dataset is the same rows for ever: it is not rewritten, but replaced.
    """
    for log in sorted(root.rglob("_delta_log")):
        parts = log.parent.relative_to(root).parts
        if parts[0] != "datasets":
            yield ".".join(parts), log.parent


def find(folder: Path, needles: Needles, *, tenant: str, version: int | None = None) -> Found:
    """The rows that are the subject's, or of one of their decisions.

    Raises:
        LakeError: the table is damaged, or has no such version.
    """
    rows = 0
    decisions: set[str] = set()
    parts: set[tuple[Any, ...]] = set()
    try:
        delta = DeltaTable(folder, version=version)
        keys = list(delta.metadata().partition_columns)
        for batch in _batches(delta, folder, tenant, keys):
            mask = _theirs(batch, needles)
            if not pc.any(mask).as_py():
                continue
            found = batch.filter(mask)
            rows += int(found.num_rows)
            parts.update(zip(*(found.column(key).to_pylist() for key in keys), strict=True) if keys else {()})
            for name in found.schema.names:
                decisions |= _decisions(name, found.column(name).drop_null().to_pylist())
    except (OSError, DeltaError) as problem:
        raise LakeError(f"{folder} cannot be read: {problem}") from problem
    return Found(rows, frozenset(parts), frozenset(decisions))


def is_append_only(folder: Path) -> bool:
    """Whether the table refuses deletions."""
    return bool(DeltaTable(folder).metadata().configuration.get(_APPEND_ONLY) == "true")


def delete(folder: Path, found: Found, needles: Needles, *, tenant: str, append_only: bool) -> None:
    """Delete rows, by writing the rest of their partitions anew.

    Delta's own deletion would leave files of a kind (views of strings) in which Arrow cannot look for a text.

    Args:
        folder: of the table.
        found: where they lie.
        needles: which they are.
        tenant: whose rows alone.
        append_only: as the table is declared. That is switched off for the deletion and on again behind it, also where
            a process died in between.

    Raises:
        LakeError: the table refused every attempt.
    """
    for part in sorted(found.parts, key=str):
        for attempt in range(_ATTEMPTS):
            try:
                if is_append_only(folder):
                    DeltaTable(folder).alter.set_table_properties({_APPEND_ONLY: "false"})
                _rewrite(folder, part, needles, tenant)
                break
            except CommitFailedError as problem:
                if attempt == _ATTEMPTS - 1:
                    raise LakeError(f"{folder} refused {_ATTEMPTS} deletions: {problem}") from problem
                time.sleep(0.02 * 2**attempt)
    if append_only:
        _change(folder, {_APPEND_ONLY: "true"})


def _rewrite(folder: Path, part: tuple[Any, ...], needles: Needles, tenant: str) -> None:
    """Write one partition without the subject; the table as it was read, so that a commit in between is noticed."""
    delta = DeltaTable(folder)
    keys = delta.metadata().partition_columns
    dataset = _dataset(delta, folder)
    chosen = [
        pc.field(key).is_null() if value is None else pc.field(key) == value
        for key, value in zip(keys, part, strict=True)
    ]
    rows = dataset.to_table(filter=reduce(and_, chosen) if chosen else None)
    mine = _of_tenant(rows, tenant)
    rest = rows.filter(pc.invert(pc.and_(mine, _theirs(rows, needles))))
    if not keys:
        write_deltalake(delta, rest, mode="overwrite")
        return
    where = " AND ".join(
        f"{key} IS NULL" if value is None else f"{key} = {_literal(value)}"
        for key, value in zip(keys, part, strict=True)
    )
    if rest.num_rows:
        write_deltalake(delta, rest, mode="overwrite", predicate=where)
    else:
        delta.delete(where)


def forget_history(folder: Path, needles: Needles) -> int:
    """Let the table begin with what it holds now: older versions are gone, their files and their entries in the log.

    Call it while nobody writes (:meth:`rlaas.lake.privacy.guard.Gate.alone`): a writer who began before would look for
    entries that are gone.

    Returns:
        Number of files that were removed.

    Raises:
        LakeError: the table is damaged, or refused the commit.
    """
    overtake_writers(folder)  # the newest entry stays, so it must not be the deletion
    delta = DeltaTable(folder)
    delta.create_checkpoint()
    version = int(delta.version())
    log = folder / "_delta_log"
    sync(log)
    old = [path for path in sorted(log.iterdir()) if path.is_file() and _is_before(path, version)]
    named = set(_named(old))
    live = {unquote(str(path)) for path in pa.table(delta.get_add_actions()).column("path").to_pylist()}
    now = time.time()
    removed = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_relative_to(log):
            continue
        name = str(path.relative_to(folder))
        if name in live:
            continue
        if name in named or now - path.stat().st_mtime > _ORPHAN_S or holds(path, needles):
            path.unlink()
            removed += 1
    # Last: a crash before this leaves the names of files that have yet to go.
    for path in old:
        path.unlink()
    sync(log)
    return removed + len(old)


def overtake_writers(folder: Path) -> None:
    """Have Delta refuse whoever opened the table before: they may have read the subject, and have to read again.

    A change of the metadata conflicts with every commit that was begun before it.

    Raises:
        LakeError: the table refused the commit.
    """
    _change(folder, {ERASURES: str(time.time_ns() // 1000)})


def _dataset(delta: DeltaTable, folder: Path) -> pa_dataset.Dataset:
    base, path = pa_fs.FileSystem.from_uri(str(folder.absolute()))
    return delta.to_pyarrow_dataset(filesystem=pa_fs.SubTreeFileSystem(path, base))


def _batches(delta: DeltaTable, folder: Path, tenant: str, keys: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of text and bytes, and those of the partitions, of the tenant's rows."""
    dataset = _dataset(delta, folder)
    names = [field.name for field in dataset.schema if _is_text(field.type) or field.name in keys]
    for batch in dataset.to_batches(columns=names):
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(_of_tenant(rows, tenant))
        if rows.num_rows:
            yield rows


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))


def _of_tenant(rows: pa.Table, tenant: str) -> pa.ChunkedArray:
    if "tenant" in rows.schema.names:
        return pc.equal(rows.column("tenant"), tenant)
    return pa.chunked_array([pa.array([True] * rows.num_rows, type=pa.bool_())])


def _theirs(rows: pa.Table, needles: Needles) -> pa.ChunkedArray:
    """Which rows are, or speak of, the subject [n]."""
    mask = pa.chunked_array([pa.array([False] * rows.num_rows, type=pa.bool_())])
    for name in rows.schema.names:
        if _is_text(rows.schema.field(name).type):
            mask = pc.or_(mask, needles.matches(rows.column(name)))
    return mask


def _decisions(column: str, values: list[Any]) -> set[str]:
    """Decision ids in a column of that name, or in documents."""
    if column == "decision_id":
        return set(values)
    found = set()
    for value in values:
        if isinstance(value, bytes):
            try:
                document = json.loads(value)
            except (ValueError, RecursionError):
                continue  # a payload that cannot be read names no decision
            if isinstance(document, dict) and isinstance(document.get("decision_id"), str):
                found.add(document["decision_id"])
    return found


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def _change(folder: Path, properties: dict[str, str]) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            DeltaTable(folder).alter.set_table_properties(properties, raise_if_not_exists=False)
        except CommitFailedError as problem:
            if attempt == _ATTEMPTS - 1:
                raise LakeError(f"{folder} refused {_ATTEMPTS} commits: {problem}") from problem
            time.sleep(0.02 * 2**attempt)
        else:
            return


def _is_before(path: Path, version: int) -> bool:
    """Whether a file of the log is of an older version; what a dead writer left there is as well."""
    number = path.name.partition(".")[0]
    if path.name == "_last_checkpoint":
        return False
    if not number.isdecimal() or "#" in path.name or path.name.endswith(".tmp"):
        return time.time() - path.stat().st_mtime > _ORPHAN_S
    return int(number) < version


def _named(old: Sequence[Path]) -> Iterator[str]:
    """Files that older entries and checkpoints name."""
    for path in old:
        if path.suffix == ".json":
            for line in path.read_text().splitlines():
                action = json.loads(line)
                yield from _paths(action.get(kind) for kind in ("add", "remove", "cdc"))
        elif path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    yield from _paths(row.get(kind) for kind in ("add", "remove"))


def _paths(actions: Iterable[Any]) -> Iterator[str]:
    return (unquote(action["path"]) for action in actions if action and action.get("path"))
