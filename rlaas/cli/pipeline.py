"""``rlaas pipeline``: data to registered policy, stage by stage, and why each stage ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, bar, print_json, print_table, stderr

if TYPE_CHECKING:
    from rlaas.pipeline import Observer, PipelineReport, StageReport

__all__ = ["check_contract", "log_observer", "pipeline"]

COLUMNS = ("stage", "status", "seconds", "attempts", "key", "why")
PLAN_COLUMNS = ("stage", "would", "key", "why")


def pipeline(
    config: Annotated[Path, typer.Option(help="YAML file; see configs/pipeline/.")],
    first: Annotated[str | None, typer.Option("--from", help="Run this stage and every later one anew.")] = None,
    force: Annotated[
        list[str] | None, typer.Option("--force", help="Run this stage anew; once for each. Later ones as needed.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would run and why, and run nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check data, train, tune, search, evaluate against the champion, and register what is better."""
    from rlaas.pipeline import load_pipeline_config, local_ray, plan_pipeline, run_pipeline
    from rlaas.settings import load_settings

    loaded, settings = load_pipeline_config(config), load_settings()
    if plan:
        plans = plan_pipeline(loaded, settings, first=first, force=force or ())
        if as_json:
            print_json([entry.to_dict() for entry in plans])
        else:
            print_table(f"plan of {config}", PLAN_COLUMNS, [entry.row() for entry in plans])
        return
    with _screen() as (observer, finished):
        try:
            report = run_pipeline(
                loaded, settings, first=first, force=force or (), observer=observer, start_ray=local_ray
            )
        finally:
            if finished and not as_json:
                print_table(f"pipeline {config}", COLUMNS, [stage.row() for stage in finished])
    if as_json:
        print_json(report.to_dict())
    else:
        for line in _summary(report):
            typer.echo(line)
    check_contract(report)


def check_contract(report: PipelineReport) -> None:
    """End with a failure where the data are not what they must be.

    Raises:
        PipelineError: the contract is broken.
    """
    from rlaas.errors import PipelineError

    broken = [check for check in report.contract["checks"] if not check["passed"]]
    if broken:
        names = ", ".join(check["name"] for check in broken)
        raise PipelineError(f"the data contract is broken ({names}): nothing was registered", field="contract")


def log_observer(write: Any) -> Observer:
    """For a job's log, which draws no bars: a line for what begins, what ends and each tenth in between.

    Args:
        write: takes a line.
    """
    from rlaas.pipeline import Observer

    class Log(Observer):
        def __init__(self) -> None:
            self._tenth: dict[str, int] = {}

        def started(self, stage: str, reason: str) -> None:
            write(f"{stage}: runs ({reason})")

        def advanced(self, stage: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
            tenth = 10 * done // max(1, total)
            if tenth > self._tenth.get(stage, 0):
                self._tenth[stage] = tenth
                shown = ((k, v) for k, v in (metrics or {}).items() if k in ("reward", "loss"))
                detail = ", ".join(f"{k} {v:.4g}" for k, v in shown)
                write(f"{stage}: {done:,}/{total:,} {detail}".rstrip())

        def noted(self, stage: str, text: str) -> None:
            write(f"{stage}: {text}")

        def finished(self, report: StageReport) -> None:
            reason = f" ({report.reason})" if report.reason and report.status != "run" else ""
            spent = f" in {report.seconds:.1f} s" if report.status == "run" else ""
            write(f"{report.name}: {report.status}{spent}{reason}")

    return Log()


def _summary(report: PipelineReport) -> list[str]:
    """What was decided and why, for a person."""
    lines = []
    if report.policy is None:
        lines.append("registered: nothing")
    else:
        policy = report.policy
        lines.append(f"registered: {policy['name']} version {policy['version']} ({policy['alias']})")
    lines += [f"  {reason}" for reason in report.reasons]
    front = report.front
    lines.append(
        f"front: {front['size']} candidates ({front['undecided']} undecided), hypervolume {front['hypervolume']:.4f} "
        f"(baselines {front['baseline_hypervolume']:.4f}); {report.protocol}"
    )
    for mode, choice in report.resolved.items():
        values = ", ".join(f"{name} {value:.4g}" for name, value in choice["objectives"].items())
        lines.append(f"  {mode}: {choice['candidate']} ({values})")
    return lines


@contextmanager
def _screen() -> Iterator[tuple[Observer, list[StageReport]]]:
    """An observer that draws a bar for the stage that runs, and the reports of the stages that are done with."""
    from rlaas.pipeline import Observer

    console = stderr()
    finished: list[StageReport] = []

    class Screen(Observer):
        def __init__(self, bars: ExitStack) -> None:
            self._bars = bars
            self._advance: Any = None

        def started(self, stage: str, reason: str) -> None:
            console.print(f"{stage}: {reason}", markup=False, style="dim", highlight=False, soft_wrap=True)
            self._advance = self._bars.enter_context(bar(stage))

        def advanced(self, stage: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
            self._advance(done, total, metrics)

        def noted(self, stage: str, text: str) -> None:
            console.print(f"{stage}: {text}", markup=False, highlight=False, soft_wrap=True)

        def finished(self, report: StageReport) -> None:
            self._bars.close()
            finished.append(report)

    with ExitStack() as bars:
        yield Screen(bars), finished
