"""Files into bronze: each file once, by the hash of its content, and its bad rows into the quarantine.

The hash names the file as a source of positions (row numbers), see :mod:`~rlaas.lake.ingestion.once`: a run that was
killed is taken up where the table says, and a file that is there whole is left alone, whatever it is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlaas.errors import InvalidInputError, NotFoundError
from rlaas.files import sha256_of
from rlaas.lake.ingestion.decoding import RowDecoder, has_rules
from rlaas.lake.ingestion.events import KINDS, KindName
from rlaas.lake.ingestion.mapping import RowMapping
from rlaas.lake.ingestion.once import Span, append_spans, committed_positions
from rlaas.lake.ingestion.readers import check_readable, format_of, read_items
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["BATCH_ROWS", "FileReport", "files_below", "ingest_file", "ingest_files"]

BATCH_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What became of one file.

    Attributes:
        path: of the file.
        sha256: of its content.
        rows: rows in bronze from this run.
        refused: rows in the quarantine from this run.
        skipped: rows that an earlier run had done; all of them where the file was there whole.
        complete: the file had been ingested whole before.
    """

    path: str
    sha256: str
    rows: int
    refused: int
    skipped: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def files_below(paths: Iterable[Path]) -> list[Path]:
    """The files, and those in the folders, that have a known format; sorted within a folder.

    Raises:
        NotFoundError: there is none, or none in a folder.
        InvalidInputError: the name of a file does not tell its format.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise NotFoundError(f"{path}: no such file or folder", field="path")
        if not path.is_dir():
            format_of(path)
            found.append(path)
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.is_file() and _known(file)]
        if not inside:
            raise NotFoundError(f"{path}: no file in it has a known format", field="path")
        found += inside
    return found


def _known(path: Path) -> bool:
    try:
        format_of(path)
    except InvalidInputError:
        return False
    return not path.name.startswith((".", "_"))


def ingest_files(
    lake: Lake,
    files: Sequence[Path],
    kind: KindName,
    mapping: RowMapping | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[int, int, FileReport], None] | None = None,
) -> list[FileReport]:
    """Ingest files one after the other.

    Args:
        lake: the tables.
        files: see :func:`files_below`.
        kind: what their rows are.
        mapping: which field comes from where; default: columns are named as the fields.
        batch_rows: rows of one commit, and in memory.
        progress: called after each file with (files done, files in all, its report).

    Raises:
        As :func:`ingest_file`; files before that one are ingested.
    """
    reports = []
    for number, path in enumerate(files, 1):
        reports.append(ingest_file(lake, path, kind, mapping, batch_rows=batch_rows))
        if progress is not None:
            progress(number, len(files), reports[-1])
    return reports


def ingest_file(
    lake: Lake, path: Path, kind: KindName, mapping: RowMapping | None = None, *, batch_rows: int = BATCH_ROWS
) -> FileReport:
    """Append the rows of a file that are not in the lake yet.

    Raises:
        ConfigurationError: the mapping names a field that the kind does not have.
        InvalidInputError: the file is not what its name says, or no row of its first batch can be read as ``kind``
            (then the mapping is wrong, and nothing is written).
        OSError: the file cannot be read.
        LakeError: a table is damaged, or refused every attempt.
    """
    target, is_text = KINDS[kind], format_of(path) == "csv"
    chosen = mapping or RowMapping()
    chosen.check_for(kind)
    digest = sha256_of(path)
    decoder = RowDecoder(
        kind,
        chosen,
        tenant=lake.tenant,
        source=path.name[:200],
        producer=f"file:{path.name}"[:200],
        receipts=f"file:{digest[:16]}",
        place=f"{path.name} row",
        text=is_text,
        guarded=has_rules(lake, kind),
    )
    app_id = f"rlaas/{lake.tenant}/file/{digest}"
    whole = f"{app_id}/whole"
    known = committed_positions(lake, target.table, (app_id, whole))
    start = known.get(app_id, 0)
    if whole in known:
        return FileReport(path=str(path), sha256=digest, rows=0, refused=0, skipped=start, complete=True)
    check_readable(path)
    rows = refused = 0
    position = start
    # One batch ahead: the last one is committed together with the word that it is.
    batches = chain(read_items(path, skip=start, batch_rows=batch_rows), [None])
    batch = next(batches)
    while batch is not None:
        following = next(batches)
        decoded = decoder.decode(batch, time.time_ns() // 1000)
        if position == 0 and not decoded.records:
            raise InvalidInputError(
                f"{path}: none of its first {len(batch)} rows can be read as {kind}: "
                f"{decoded.refused[0]['reason']}; name the columns in --mapping",
                field="mapping",
            )
        end = batch[-1].position + 1
        # The quarantine first: a row is done with when bronze says so.
        if decoded.refused:
            refused += append_spans(lake, target.quarantine, [decoded.bad(app_id, position, end)], sparse=True)
        spans = [decoded.good(app_id, position, end)]
        if following is None:
            spans.append(_mark(whole, target.table))
        rows += append_spans(lake, target.table, spans)
        position, batch = end, following
    return FileReport(path=str(path), sha256=digest, rows=rows, refused=refused, skipped=start, complete=False)


def _mark(app_id: str, table: str) -> Span:
    nothing: pa.Table = table_spec(table).schema.empty_table()
    return Span(app_id, 0, 1, np.empty(0, dtype=np.int64), nothing)
