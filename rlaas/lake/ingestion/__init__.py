"""Files and streams into ``bronze``: every row and every message once, and what cannot be read into ``quarantine``.

:func:`ingest_file` takes files by the hash of their content; :class:`StreamConsumer` takes topics by their offsets;
both keep the position in the Delta transaction that holds the rows. :func:`read_windows` reads the event-time windows
that a stream keeps in ``silver.windows``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.lake.ingestion.consumer import StreamConsumer, StreamReport
    from rlaas.lake.ingestion.distributed import ingest_distributed
    from rlaas.lake.ingestion.events import KINDS, EventRecord, KindName
    from rlaas.lake.ingestion.files import FileReport, files_below, ingest_file, ingest_files
    from rlaas.lake.ingestion.mapping import RowMapping, load_mapping
    from rlaas.lake.ingestion.streams import StreamConfig, WindowConfig, load_stream_config
    from rlaas.lake.ingestion.window_tables import WINDOW_COLUMNS, read_windows

__all__ = [
    "KINDS",
    "WINDOW_COLUMNS",
    "EventRecord",
    "FileReport",
    "KindName",
    "RowMapping",
    "StreamConfig",
    "StreamConsumer",
    "StreamReport",
    "WindowConfig",
    "files_below",
    "ingest_distributed",
    "ingest_file",
    "ingest_files",
    "load_mapping",
    "load_stream_config",
    "read_windows",
]

_HOME = {
    "KINDS": "events",
    "WINDOW_COLUMNS": "window_tables",
    "EventRecord": "events",
    "FileReport": "files",
    "KindName": "events",
    "RowMapping": "mapping",
    "StreamConfig": "streams",
    "StreamConsumer": "consumer",
    "StreamReport": "consumer",
    "WindowConfig": "streams",
    "files_below": "files",
    "ingest_distributed": "distributed",
    "ingest_file": "files",
    "ingest_files": "files",
    "load_mapping": "mapping",
    "load_stream_config": "streams",
    "read_windows": "window_tables",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
