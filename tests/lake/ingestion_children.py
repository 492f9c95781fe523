"""What the tests of ingestion run in processes of their own, to be killed there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def dying_at(step: int) -> None:
    """From now on die by SIGKILL just before the ``step``-th commit to a Delta table, or just behind it."""
    from rlaas.lake import evolution, tables

    left = step

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            count(1)
            result = function(*args, **kwargs)
            count(1)
            return result

        return wrapped

    def count(by: int) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= by

    tables.write_deltalake = dying(tables.write_deltalake)
    evolution.DeltaTable.create = staticmethod(dying(evolution.DeltaTable.create))


def ingest(root: Path, file: Path, batch_rows: int, step: int | None) -> None:
    """Ingest a file of events; die at a commit."""
    from rlaas.lake import Lake
    from rlaas.lake.ingestion import ingest_file

    if step is not None:
        dying_at(step)
    ingest_file(Lake(root), file, "events", batch_rows=batch_rows)


def stream(root: Path, document: dict[str, Any], step: int | None) -> None:
    """Read topics to their end; die at a commit."""
    from rlaas.lake import Lake
    from rlaas.lake.ingestion import StreamConfig, StreamConsumer

    if step is not None:
        dying_at(step)
    StreamConsumer(Lake(root), StreamConfig.model_validate(document)).run(until_end=step is not None)
