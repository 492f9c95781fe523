"""How every command speaks: progress and errors on stderr, one document on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rlaas.interrupts import check_interrupt

__all__ = ["JsonOption", "bar", "console_for", "only_documents_on_stdout", "print_json", "print_table", "stderr"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def stderr() -> Console:
    """The console for progress, which never mixes with a document on stdout."""
    return Console(stderr=True)


def console_for(as_json: bool) -> Console:
    """Where a person reads: stdout, or stderr when stdout carries JSON."""
    return Console(stderr=as_json)


class _Stdout:
    """Where documents go; while a command runs with ``--json``, everything else that is printed goes to stderr."""

    stream: TextIO | None = None


@contextmanager
def only_documents_on_stdout() -> Iterator[None]:
    """Send what libraries print to stderr, so that stdout holds one document and nothing else."""
    _Stdout.stream = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _Stdout.stream = None


def print_json(document: Any) -> None:
    """One document on stdout."""
    stream = _Stdout.stream or sys.stdout
    stream.write(json.dumps(document, indent=2, allow_nan=False, default=str) + "\n")
    stream.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout; an empty one says so."""
    console = Console()
    if not rows:
        console.print(f"{title}: none")
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)


@contextmanager
def bar(title: str) -> Iterator[Any]:
    """A progress bar on stderr; yields a function (done, total, metrics) that moves it."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=stderr(),
    ) as progress:
        task = progress.add_task(title, total=None, note="")

        def advance(done: int, total: int, metrics: Any = None) -> None:
            check_interrupt()
            note = ", ".join(f"{k} {v:.4g}" for k, v in (metrics or {}).items() if k in ("reward", "loss"))
            progress.update(task, completed=done, total=total, note=note)

        yield advance
