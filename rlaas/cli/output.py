"""How every command speaks: progress and errors on stderr, one document on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from rlaas.cli.tables import fitting_table
from rlaas.errors import InvalidInputError
from rlaas.interrupts import check_interrupt

__all__ = [
    "JsonOption",
    "bar",
    "check_file",
    "check_folder",
    "console_for",
    "only_documents_on_stdout",
    "print_json",
    "print_lines",
    "print_table",
    "progress_bars",
    "stderr",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def stderr() -> Console:
    """The console for progress, which never mixes with a document on stdout."""
    return Console(stderr=True)


def console_for(as_json: bool) -> Console:
    """Where a person reads: stdout, or stderr when stdout carries JSON."""
    return Console(stderr=as_json)


def check_folder(output: Path) -> None:
    """Refuse ``--output`` before the work, where nothing could be written into that folder after it.

    Raises:
        InvalidInputError: it is a file, or cannot be created or written.
    """
    try:
        if output.exists() and not output.is_dir():
            raise InvalidInputError(f"--output {output} is a file; allowed: a folder", field="output")
        _check_above(output, output)
    except OSError as problem:
        raise _unusable(output, problem) from problem


def check_file(output: Path) -> None:
    """Refuse ``--output`` before the work, where no such file could be written after it.

    Raises:
        InvalidInputError: it is a folder, or cannot be created or written.
    """
    try:
        if output.is_dir():
            raise InvalidInputError(f"--output {output} is a folder; allowed: a file", field="output")
        if output.exists() and not os.access(output, os.W_OK):
            raise InvalidInputError(f"--output {output} cannot be written: no permission", field="output")
        _check_above(output, output.parent)
    except OSError as problem:
        raise _unusable(output, problem) from problem


def _check_above(output: Path, folder: Path) -> None:
    # The folder may not exist yet: what counts is the first one above it that does.
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise InvalidInputError(f"--output {output} cannot be created: {above} is a file", field="output")
    # Tried rather than asked for: permissions do not tell of read-only disks, and root has them all.
    with TemporaryDirectory(dir=above):
        pass


def _unusable(output: Path, problem: OSError) -> InvalidInputError:
    return InvalidInputError(f"--output {output} cannot be written: {problem.strerror or problem}", field="output")


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
    """A table on stdout that fits the terminal, see :func:`~rlaas.cli.tables.fitting_table`; an empty one says so."""
    console = Console()
    if rows:
        console.print(fitting_table(title, columns, rows, console.width))
    else:
        console.print(Text(f"{title}: none"))


def print_lines(lines: Iterable[str]) -> None:
    """Sentences on stdout: a terminal gets them broken between words, a file or a pipe each on one line."""
    console = Console()
    for line in lines:
        console.print(Text(line), soft_wrap=not console.is_terminal)


def progress_bars(*, bar_width: int | None = 40) -> Progress:
    """Bars on stderr with a ``note`` each. Where stderr is no terminal nothing is drawn."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=bar_width),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=stderr(),
        # Asked of the stream itself: FORCE_COLOR makes a console take a file for a terminal.
        disable=not sys.stderr.isatty(),
    )


@contextmanager
def bar(title: str, *, figures: Sequence[str] = ("reward", "loss")) -> Iterator[Any]:
    """A progress bar on stderr; yields a function (done, total, metrics) that moves it and shows some figures.

    Where stderr is no terminal nothing is drawn: what is left there is the error, if there is one, and nothing else.
    """
    with progress_bars() as progress:
        task = progress.add_task(title, total=None, note="")

        def advance(done: int, total: int, metrics: Any = None) -> None:
            check_interrupt()
            note = ", ".join(f"{k} {v:.4g}" for k, v in (metrics or {}).items() if k in figures)
            progress.update(task, completed=done, total=total, note=note)

        yield advance
