"""What a search looks like while it runs, in a terminal and in a job's log."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlaas.cli.output import progress_bars
from rlaas.cli.tables import fitting_table
from rlaas.interrupts import check_interrupt

if TYPE_CHECKING:
    from rlaas.optimization import Generation
    from rlaas.pipeline import Optimization

__all__ = ["OptimizeLog", "OptimizeScreen", "optimization_summary", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 24


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """A curve of at most ``width`` characters, from its least value to its largest."""
    if not values:
        return ""
    count = min(width, len(values))
    picked = [values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count)]
    low, span = min(picked), max(picked) - min(picked)
    return "".join(_BLOCKS[int((value - low) / span * (len(_BLOCKS) - 1)) if span else 0] for value in picked)


class OptimizeScreen:
    """Two bars on stderr: the search with its live hypervolume, then the race. Nothing where stderr is no terminal.

    Args:
        generations: of the search, at most.
        ranges: product of the objectives' ranges; a hypervolume divided by it is normalised.
    """

    def __init__(self, generations: int, ranges: float) -> None:
        self._ranges = ranges
        self._volumes: list[float] = []
        self._progress = progress_bars(bar_width=24)
        self._search = self._progress.add_task("search", total=generations, note="")
        self._race: Any = None

    def __enter__(self) -> OptimizeScreen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def searched(self, entry: Generation, _: Any) -> None:
        """Show a generation."""
        check_interrupt()
        volume = (entry.hypervolume or 0.0) / self._ranges
        self._volumes.append(volume)
        note = f"hypervolume {volume:.4f} {sparkline(self._volumes)} front {entry.front_size}"
        if entry.unknown:
            note += f", {entry.unknown} unknown"
        self._progress.update(self._search, completed=entry.number, note=note)

    def raced(self, spent: int, budget: int) -> None:
        """Show a round of the race; the search is over."""
        check_interrupt()
        if self._race is None:
            # It may have ended before its last generation.
            self._progress.update(self._search, total=self._progress.tasks[0].completed)
            self._race = self._progress.add_task("race", total=budget, note="")
        self._progress.update(self._race, completed=spent, note=f"{spent:,} evaluations on fresh seeds")


class OptimizeLog:
    """The same for a log, which draws no bars: a line at each tenth of the search and at each round of the race.

    Args:
        generations, ranges: see :class:`OptimizeScreen`.
    """

    def __init__(self, generations: int, ranges: float) -> None:
        self._generations = generations
        self._ranges = ranges
        self._tenth = -1

    def searched(self, entry: Generation, _: Any) -> None:
        """Say how far the search is, at each tenth."""
        tenth = 10 * entry.number // max(1, self._generations)
        if tenth > self._tenth:
            self._tenth = tenth
            volume = (entry.hypervolume or 0.0) / self._ranges
            _log(
                f"optimize: {entry.number:,}/{self._generations:,} generations, hypervolume {volume:.4f}, "
                f"front {entry.front_size}"
            )

    def raced(self, spent: int, budget: int) -> None:
        """Say how far the race is."""
        _log(f"optimize: race, {spent:,} of at most {budget:,} evaluations")


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def optimization_summary(done: Optimization, width: int) -> Group:
    """What was found and how, for a person with a terminal of so many characters."""
    from rlaas.optimization import front_hypervolume

    found, plan, race = done.search.found, done.search.plan, done.race
    rows = []
    values = done.front.values()
    for j, objective in enumerate(done.front.objectives):
        ends = sorted((float(values[:, j].min()), float(values[:, j].max())), reverse=objective.direction == "maximize")
        name = f"{objective.name} [{objective.unit}]" if objective.unit else objective.name
        rows.append((name, *(f"{end:.4g}" for end in ends)))
    undecided = sum(one.status == "undecided" for one in race.standings)
    volume = front_hypervolume(done.front)
    spent = f"{found.generations:,} generations, {found.evaluations:,} evaluations in {found.seconds:.1f} s"
    raced = f"{race.evaluations:,} evaluations on {len(race.seeds)} fresh seeds"
    dominated = sum(one.status == "dominated" for one in race.standings)
    told = f"of {len(race.standings)} found {dominated} dominated and {undecided} undecided at {race.confidence:.0%}"
    said = {
        "spread": plan.reason,
        "search": f"{spent}; ended by: {found.stopped}",
        "race": f"{raced}; {told}; who is beaten by its means is not on the front",
        "front": f"hypervolume {volume:.4f}; {done.path} (version {done.front.version})",
    }
    table = fitting_table(
        f"{done.front.scenario}: {len(done.front.candidates)} configurations",
        ("objective", "best", "worst on the front"),
        rows,
        width,
        right=(1, 2),
    )
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for name, text in said.items():
        lines.add_row(name, Text(text))
    return Group(table, lines)
