"""What ``rlaas train`` shows: a live line while it trains, and at the end where the time went and what there is now."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from rlaas.cli.output import stderr
from rlaas.interrupts import check_interrupt
from rlaas.registry import PolicyVersion
from rlaas.scenarios import Scenario
from rlaas.training import TrainingConfig, TrainingRun
from rlaas.training.telemetry import figure_of
from rlaas.training.timing import PHASES

__all__ = ["TrainingLog", "TrainingScreen", "training_document", "training_summary"]

# Drawing takes milliseconds, which the training does without: twice a second is enough for the eye.
_DRAWN_PER_SECOND = 2

_PHASES = {
    "environment": "environment",
    "sample": "sampling beside it",
    "learn": "learning",
    "sync": "exchange of weights",
    "other": "starting and the rest",
}


class _WithNote(Progress):
    """A progress display with a line of text below its bars, cut where the terminal ends."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, then the text."""
        yield from super().get_renderables()
        yield Text(self.note, style="dim", no_wrap=True, overflow="ellipsis")


class TrainingScreen:
    """A progress bar with the time left, and below it the last iteration's speed, reward and losses; on stderr.

    Where stderr is no terminal nothing is drawn.

    Args:
        console: to draw on; None for stderr.
    """

    name = "screen"

    def __init__(self, console: Console | None = None) -> None:
        self._progress = _WithNote(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or stderr(),
            refresh_per_second=_DRAWN_PER_SECOND,
            # Asked of the stream itself: FORCE_COLOR makes a console take a file for a terminal.
            disable=not sys.stderr.isatty() if console is None else False,
        )
        self._task: TaskID | None = None
        self._objectives: Sequence[str] = ()
        self._last = ""

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Draw the bar."""
        self._objectives = [objective.name for objective in scenario.objectives]
        self._task = self._progress.add_task("train", total=config.steps)
        self._progress.note = "starting"
        self._progress.start()

    def iteration(self, row: Mapping[str, float]) -> None:
        """Move the bar.

        Raises:
            KeyboardInterrupt: one has arrived and was swallowed elsewhere.
        """
        check_interrupt()
        if self._task is not None:
            self._last = self._progress.note = " · ".join(_noted(row, self._objectives))
            self._progress.update(self._task, completed=row["step"])

    def finished(self, metrics: Mapping[str, float]) -> None:
        """The training is done; registering its policy may still take a moment."""
        self._progress.note = "registering"

    def failed(self, problem: BaseException) -> None:
        """Leave the bar where it is."""

    def close(self) -> None:
        """Draw the last iteration once more, and stop."""
        self._progress.note = self._last
        self._progress.stop()


class TrainingLog:
    """The same for a log, which draws no bars: a line on stderr at each tenth, and one about the time at the end."""

    name = "log"

    def __init__(self) -> None:
        self._total, self._tenth = 1, -1
        self._objectives: Sequence[str] = ()

    def started(self, config: TrainingConfig, scenario: Scenario) -> None:
        """Remember how many steps there are."""
        self._total = config.steps
        self._objectives = [objective.name for objective in scenario.objectives]

    def iteration(self, row: Mapping[str, float]) -> None:
        """Print a line, where another tenth is done.

        Raises:
            KeyboardInterrupt: one has arrived and was swallowed elsewhere.
        """
        check_interrupt()
        done = min(int(row["step"]), self._total)
        tenth = 10 * done // self._total
        if tenth > self._tenth:
            self._tenth = tenth
            left = row["seconds"] * (self._total - done) / done
            note = ", ".join(_noted(row, self._objectives))
            _print(f"train: {done:,}/{self._total:,}, {left:,.0f} s left, {note}")

    def finished(self, metrics: Mapping[str, float]) -> None:
        """Print where the time went."""
        seconds = metrics["seconds"]
        shares = (f"{label} {metrics[f'seconds_{phase}'] / seconds:.0%}" for phase, label in _PHASES.items())
        _print(f"train: {seconds:,.1f} s: {', '.join(shares)}")

    def failed(self, problem: BaseException) -> None:
        """Nothing: the error is said elsewhere."""

    def close(self) -> None:
        """Nothing is open."""


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _noted(row: Mapping[str, float], objectives: Sequence[str]) -> list[str]:
    """Speed, reward, losses and GPUs of an iteration, as text."""
    parts = [f"{row['steps_per_second']:,.0f} steps/s", f"reward {row['reward']:.4g}"]
    if "return" in row:
        parts.append(f"return {row['return']:.4g}")
    for key, value in row.items():
        figure = figure_of(key, objectives)
        if figure.gauge == "rlaas_training_loss":
            parts.append(f"{key.replace('_', ' ')} {value:.3g}")
        elif figure.gauge == "rlaas_training_gpu_utilization_ratio":
            parts.append(f"GPU {figure.label} {value:.0%}")
    return parts


def training_summary(run: TrainingRun, version: PolicyVersion | None) -> RenderableType:
    """What a person reads at the end."""
    seconds = run.metrics["seconds"]
    times = Table(title=f"Where {seconds:,.1f} s of training went", title_justify="left")
    times.add_column("phase")
    times.add_column("seconds", justify="right")
    times.add_column("share", justify="right")
    for phase in PHASES:
        spent = run.metrics[f"seconds_{phase}"]
        times.add_row(_PHASES[phase], f"{spent:,.1f}", f"{spent / seconds:.0%}")

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, text in _facts(run, version):
        # Text, not markup: paths may hold brackets.
        facts.add_row(label, Text(text))
    return Group(times, "", facts)


def _facts(run: TrainingRun, version: PolicyVersion | None) -> list[tuple[str, str]]:
    metrics, last, telemetry = run.metrics, run.curve[-1], run.telemetry
    facts = [
        ("steps", f"{metrics['steps']:,.0f}, {metrics['steps_per_second']:,.0f} a second"),
        ("updates", f"{metrics['updates']:,.0f}"),
        ("reward", f"{metrics['reward']:.4g} over the last tenth, {metrics['first_reward']:.4g} at first"),
    ]
    if "return" in metrics:
        facts.append(("return", f"{metrics['return']:.4g} over the last tenth"))
    facts += [
        (key.replace("_", " "), f"{value:.4g} in the last iteration")
        for key, value in last.items()
        if key.endswith("_loss")
    ]
    facts += _front_facts(run)
    facts.append(("bundle", str(run.bundle)))
    if version is not None:
        facts.append(
            ("policy", f"{version.name} version {version.version}, {', '.join(version.aliases) or 'no alias'}")
        )
    if run.mlflow_run_id is not None:
        facts.append(("MLflow run", run.mlflow_run_id))
    if telemetry is not None:
        if telemetry.tensorboard is not None:
            facts.append(("TensorBoard", str(telemetry.tensorboard)))
        if telemetry.progress_log is not None:
            facts.append(("progress log", str(telemetry.progress_log)))
        facts += [("without", f"{name}: {cause}") for name, cause in telemetry.problems.items()]
    return facts


def _front_facts(run: TrainingRun) -> list[tuple[str, str]]:
    """The front's size and quality; nothing without a front of several objectives."""
    found = run.evaluation
    if found is None or len(found.front.objectives) == 1:
        return []
    unit = "normalised goodness"
    if found.unit == "return":
        unit = "undiscounted returns" if found.gamma == 1.0 else f"returns discounted by {found.gamma:g}"
    facts = [
        ("front", f"{len(found.front.candidates)} of {len(found.names)} preferences not dominated"),
        ("judged by", f"{unit}; {_certainty(len(found.seeds))}"),
    ]
    if found.hypervolume is None:
        facts.append(("hypervolume", "none: the configuration names no evaluation_reference"))
    facts += [(name.replace("_", " "), str(interval)) for name, interval in found.intervals().items()]
    if found.cut_episodes:
        facts.append(("cut off", f"{found.cut_episodes} episodes, after evaluation_steps"))
    return facts


def _certainty(seeds: int) -> str:
    return "one seed, so no intervals" if seeds == 1 else f"intervals of 95 % over {seeds} seeds"


def training_document(run: TrainingRun, version: PolicyVersion | None) -> dict[str, Any]:
    """The same for a program, ready for JSON."""
    telemetry = run.telemetry
    traces: dict[str, Any] = {"mlflow_run_id": run.mlflow_run_id}
    if telemetry is not None:
        traces["tensorboard"] = str(telemetry.tensorboard) if telemetry.tensorboard is not None else None
        traces["progress_log"] = str(telemetry.progress_log) if telemetry.progress_log is not None else None
        traces["problems"] = dict(telemetry.problems)
    return {
        "bundle": str(run.bundle),
        "metrics": run.metrics,
        "evaluation": run.evaluation.to_dict() if run.evaluation else None,
        "policy": {"name": version.name, "version": version.version} if version else None,
        "telemetry": traces,
    }
