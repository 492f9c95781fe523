"""``rlaas lake ingest`` and ``rlaas lake stream``: files and topics into the lake."""

from __future__ import annotations

import signal
import threading
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rlaas.cli.output import JsonOption, bar, print_json, print_lines, print_table, stderr
from rlaas.errors import check_choice

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ingest")(ingest)
    app.command("stream")(stream)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files (Parquet, CSV, JSON, JSON lines), or folders of them.")],
    kind: Annotated[str, typer.Option("--as", help="What a row is: decisions, outcomes or events.")],
    mapping: Annotated[Path | None, typer.Option(help="YAML: which field comes from which column.")] = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows of one commit, and in memory.")] = 8192,
    distributed: Annotated[bool, typer.Option("--distributed", help="Read the files on Ray, one task each.")] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster for --distributed; default: a local one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Append files to bronze, each once; rows that cannot be read go to quarantine with file and row."""
    from rlaas.lake.ingestion import KINDS, files_below, ingest_distributed, ingest_files, load_mapping
    from rlaas.lake.privacy import protected_lake
    from rlaas.settings import load_settings

    name = next(known for known in KINDS if known == check_choice(kind, KINDS, field="as"))
    rules = None if mapping is None else load_mapping(mapping)
    if rules is not None:
        rules.check_for(name)
    files, settings = files_below(paths), load_settings()
    with bar("ingest", figures=("rows", "refused")) as advance:
        total = {"rows": 0, "refused": 0}

        def progress(done: int, of: int, report: Any) -> None:
            total["rows"] += report.rows
            total["refused"] += report.refused
            advance(done, of, total)

        if distributed:
            from rlaas.pipeline.cluster import local_ray

            absolute = [path.absolute() for path in files]
            with local_ray(address):
                reports = ingest_distributed(
                    partial(protected_lake, settings), absolute, name, rules, batch_rows=batch_rows, progress=progress
                )
        else:
            lake = protected_lake(settings)
            reports = ingest_files(lake, files, name, rules, batch_rows=batch_rows, progress=progress)
    if as_json:
        print_json({"table": KINDS[name].table, **total, "files": [report.to_dict() for report in reports]})
        return
    print_table(
        f"{total['rows']:,} rows into {KINDS[name].table}, {total['refused']:,} into {KINDS[name].quarantine}",
        ("file", "rows", "refused", "known before"),
        [(Path(report.path).name, report.rows, report.refused, report.skipped) for report in reports],
    )


def stream(
    config: Annotated[Path, typer.Option(help="YAML file; see configs/lake/ingest-streams.yaml.")],
    bootstrap: Annotated[str | None, typer.Option(help="Kafka brokers, where the file names none.")] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop at the end of what is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read topics into the lake until interrupted; every message once, however often this is killed and restarted."""
    from rlaas.lake.ingestion import StreamConsumer, load_stream_config
    from rlaas.lake.privacy import protected_lake
    from rlaas.serving.events import configure_events
    from rlaas.settings import load_settings

    configure_events()
    loaded, settings = load_stream_config(config), load_settings()
    consumer = StreamConsumer(protected_lake(settings), loaded, bootstrap=bootstrap or settings.kafka_bootstrap)
    stop = threading.Event()

    def interrupt(signum: int, _frame: object) -> None:
        # The first one ends the loop behind its commit; a second one does not wait for it.
        stop.set()
        signal.signal(signum, signal.default_int_handler)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stderr().print(f"streaming {', '.join(loaded.topics)}; Ctrl-C stops", highlight=False)
        report = consumer.run(stop.is_set, until_end=until_end)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if as_json:
        print_json(report.to_dict())
        return
    print_lines([", ".join(f"{name} {value}" for name, value in report.to_dict().items())])
