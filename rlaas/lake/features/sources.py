"""Where events come from: tables of the lake, other Delta tables and Parquet files, and what changed in them since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.fs as pa_fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlaas.errors import LakeError, NotFoundError, RetryableError
from rlaas.lake.features.definitions import FeatureSource
from rlaas.lake.tables import Lake

__all__ = ["Change", "SourceMovedError", "SourceState", "open_source"]

_BATCH_ROWS = 1 << 18


class SourceMovedError(RetryableError):
    """A file of a source is gone: it was compacted, vacuumed or archived while it was read."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a source since an earlier token.

    Attributes:
        added, removed: rows that are there now, and rows that are there no longer, as datasets of files. A row may be
            in both: files are rewritten as a whole.
    """

    added: pa_dataset.Dataset | None
    removed: pa_dataset.Dataset | None


class SourceState:
    """A source as it stood at one moment.

    Args:
        dataset: everything in it; None: nothing was written yet.
        token: what to give to :meth:`since` later, and in which state this is, as JSON.
        mine: rows of the tenant; None: all of them.
    """

    def __init__(self, dataset: pa_dataset.Dataset | None, token: str, mine: pc.Expression | None) -> None:
        self.dataset, self.token, self._mine = dataset, token, mine

    def since(self, token: str) -> Change | None:
        """What changed since ``token``; None where that cannot be said any more, and everything has to be read."""
        if token == self.token:
            return Change(None, None)
        before = self._before(json.loads(token))
        if before is None or self.dataset is None:
            return None
        old, new = _fragments(before), _fragments(self.dataset)
        return Change(
            added=_part(self.dataset, [piece for path, piece in new.items() if path not in old]),
            removed=_part(before, [piece for path, piece in old.items() if path not in new]),
        )

    def read(self, dataset: pa_dataset.Dataset | None, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows of one of the datasets above, batch by batch, with these columns.

        Raises:
            SourceMovedError: a file is gone; look again.
            LakeError: a file is damaged.
        """
        if dataset is None:
            return
        there = [name for name in columns if name in dataset.schema.names]
        try:
            for batch in dataset.to_batches(columns=there, filter=self._mine, batch_size=_BATCH_ROWS):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
        except FileNotFoundError as problem:
            raise SourceMovedError("a source of features was rewritten while it was read; try again") from problem
        except (OSError, pa.ArrowInvalid) as problem:
            reason = " ".join(str(problem).split())[:200]
            raise LakeError(f"a source of features is damaged: {reason}") from problem

    def _before(self, token: Any) -> pa_dataset.Dataset | None:
        return None


class _DeltaState(SourceState):
    """A Delta table at a version."""

    def __init__(self, location: str, delta: DeltaTable, mine: pc.Expression | None) -> None:
        self._location = location
        self._id = str(delta.metadata().id)
        self._version = int(delta.version())
        token = json.dumps({"table": self._id, "version": self._version})
        super().__init__(_delta_dataset(location, delta), token, mine)

    def _before(self, token: Any) -> pa_dataset.Dataset | None:
        if token.get("table") != self._id or not 0 <= token.get("version", -1) < self._version:
            return None
        try:
            return _delta_dataset(self._location, DeltaTable(self._location, version=token["version"]))
        except (DeltaError, OSError):  # its log has been cleaned up
            return None


class _FilesState(SourceState):
    """Parquet files, by name, size and time of change: one that changed makes everything be read again."""

    def __init__(self, dataset: pa_dataset.FileSystemDataset) -> None:
        infos = dataset.filesystem.get_file_info(list(dataset.files)) if dataset.files else []
        self._stamps = {info.path: [info.size, info.mtime_ns] for info in infos}
        super().__init__(dataset, json.dumps({"files": self._stamps}, sort_keys=True), None)

    def since(self, token: str) -> Change | None:
        """What changed since ``token``."""
        known = json.loads(token).get("files")
        if known is None or any(self._stamps.get(path) != stamp for path, stamp in known.items()):
            return None
        fresh = [piece for path, piece in _fragments(self.dataset).items() if path not in known]
        return Change(_part(self.dataset, fresh), None)


def open_source(source: FeatureSource, lake: Lake) -> SourceState:
    """The source as it stands now.

    Raises:
        ConfigurationError: unknown table.
        NotFoundError: there is nothing at its path.
        LakeError: it cannot be read.
    """
    if source.table is not None:
        delta = lake.open(source.table)
        if delta is None:
            return SourceState(None, json.dumps({"table": None}), None)
        return _DeltaState(f"{lake.root}/{source.table.replace('.', '/')}", delta, pc.field("tenant") == lake.tenant)
    path = str(source.path)
    location = path.rstrip("/") if "://" in path else str(Path(path).expanduser().absolute())
    try:
        base, inner = pa_fs.FileSystem.from_uri(location)
        # Of a file deltalake would rather fail than say that it is no table.
        if base.get_file_info(inner).type == pa_fs.FileType.Directory and DeltaTable.is_deltatable(location):
            return _DeltaState(location, DeltaTable(location), None)
        return _FilesState(pa_dataset.dataset(inner, filesystem=base, format="parquet", partitioning="hive"))
    except FileNotFoundError:
        raise NotFoundError(f"source.path {path!r}: there is no such file or folder", field="source.path") from None
    except (OSError, DeltaError, pa.ArrowInvalid) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise LakeError(f"source.path {path!r} cannot be read: {reason}", field="source.path") from problem


def _delta_dataset(location: str, delta: DeltaTable) -> pa_dataset.Dataset:
    # Arrow's own filesystem, as in Lake: deltalake's calls back into Python from threads that outlive the interpreter.
    base, path = pa_fs.FileSystem.from_uri(location)
    return delta.to_pyarrow_dataset(filesystem=pa_fs.SubTreeFileSystem(path, base))


def _fragments(dataset: pa_dataset.Dataset | None) -> dict[str, Any]:
    return {} if dataset is None else {fragment.path: fragment for fragment in dataset.get_fragments()}


def _part(dataset: pa_dataset.Dataset, fragments: Sequence[Any]) -> pa_dataset.Dataset | None:
    if not fragments:
        return None
    return pa_dataset.FileSystemDataset(list(fragments), dataset.schema, dataset.format, dataset.filesystem)
