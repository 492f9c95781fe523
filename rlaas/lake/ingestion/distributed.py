"""Many files at once, on Ray Data: a file is one task, and a task that is run twice adds nothing the second time."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaas.errors import InvalidInputError, LakeError, RlaasError
from rlaas.lake.ingestion.events import KindName
from rlaas.lake.ingestion.files import BATCH_ROWS, FileReport, ingest_file
from rlaas.lake.ingestion.mapping import RowMapping
from rlaas.lake.tables import Lake

__all__ = ["ingest_distributed"]


@dataclass(frozen=True)
class _Task:
    open_lake: Callable[[], Lake]
    kind: KindName
    mapping: RowMapping | None
    batch_rows: int

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Reports, as JSON, of the files in the column ``file``."""
        lake = self.open_lake()
        return {"report": [json.dumps(self._ingest(lake, Path(str(path)))) for path in batch["file"]]}

    def _ingest(self, lake: Lake, path: Path) -> dict[str, Any]:
        try:
            return ingest_file(lake, path, self.kind, self.mapping, batch_rows=self.batch_rows).to_dict()
        except (RlaasError, OSError) as problem:
            # Told to the driver, which raises it when the other files are done.
            return {"path": str(path), "error": str(problem), "mend": isinstance(problem, InvalidInputError)}


def ingest_distributed(
    open_lake: Callable[[], Lake],
    files: Sequence[Path],
    kind: KindName,
    mapping: RowMapping | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
    progress: Callable[[int, int, FileReport], None] | None = None,
) -> list[FileReport]:
    """Ingest files on the running Ray, each as :func:`~rlaas.lake.ingestion.files.ingest_file` does.

    Args:
        open_lake: opens the tables, on every worker; has to be picklable.
        files: absolute paths that every worker can read.
        kind: what their rows are.
        mapping: which field comes from where.
        batch_rows: rows of one commit.
        progress: called after each file with (files done, files in all, its report).

    Raises:
        InvalidInputError: files are not what their names say; all others are ingested.
        LakeError: a worker or a table failed.
    """
    import ray.data
    from ray.exceptions import RayError

    # Ray Data announces each of its steps; how far it is, the caller is told by ``progress``.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = ray.data.from_items([{"file": str(path)} for path in files], override_num_blocks=len(files))
    # A bound method: Ray Data would take a callable object for the class of an actor.
    done = rows.map_batches(_Task(open_lake, kind, mapping, batch_rows).__call__, batch_size=1)
    reports: list[FileReport] = []
    failures: list[dict[str, Any]] = []
    try:
        for row in done.iter_rows():
            document = json.loads(row["report"])
            if "error" in document:
                failures.append(document)
                continue
            reports.append(FileReport(**document))
            if progress is not None:
                progress(len(reports) + len(failures), len(files), reports[-1])
    except RayError as problem:
        raise LakeError(f"a worker failed: {str(problem).strip().splitlines()[-1]}") from problem
    if failures:
        first = min(failures, key=lambda failure: str(failure["path"]))
        error = InvalidInputError if first["mend"] else LakeError
        raise error(f"{len(failures)} of {len(files)} files were not ingested; {first['error']}", field="path")
    return sorted(reports, key=lambda report: report.path)
