"""A progress bar for each stage, on stderr, and the seconds each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from rlaas.interrupts import check_interrupt

__all__ = ["Advance", "Stages"]

Advance = Callable[[int, int], None]


class Stages:
    """Draws one bar per stage and remembers its wall time.

    Attributes:
        seconds: wall time of each finished stage by name.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(min_width=41, no_wrap=True)),
            BarColumn(bar_width=14),
            TaskProgressColumn(),
            TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("{task.fields[note]}", style="dim", table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=4,
            # A log draws no bars: there each stage is one line when it begins and one when it ends.
            disable=not console.is_terminal,
        )
        self._lines = None if console.is_terminal else console
        self.seconds: dict[str, float] = {}
        self._task: TaskID | None = None

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Show ``text`` beside the current bar."""
        if self._task is not None:
            self._progress.update(self._task, note=text)

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[Advance]:
        """A bar titled ``title`` until the block ends; the block gets a function (done, total)."""
        check_interrupt()
        task = self._progress.add_task(title, total=None, note="")
        if self._lines:
            self._lines.print(f"{title} ...", highlight=False)
        self._task = task
        started = time.perf_counter()

        def advance(done: int, total: int) -> None:
            check_interrupt()
            self._progress.update(task, completed=done, total=total)

        try:
            yield advance
        finally:
            self.seconds[name] = round(time.perf_counter() - started, 2)
            self._task = None
        total = self._progress.tasks[task].total or 1
        self._progress.update(task, completed=total, total=total)
        self._progress.stop_task(task)
        if self._lines:
            self._lines.print(f"{title}: {self.seconds[name]:.1f} s", highlight=False)
