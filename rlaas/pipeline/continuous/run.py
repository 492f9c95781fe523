"""The pipeline: its stages put together, run or planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rlaas.errors import check_choice
from rlaas.pipeline.continuous.artefacts import ArtefactStore
from rlaas.pipeline.continuous.config import STAGES, PipelineConfig, check_against
from rlaas.pipeline.continuous.data import DataStage
from rlaas.pipeline.continuous.evaluation import DOCUMENT as EVALUATION
from rlaas.pipeline.continuous.evaluation import EvaluateStage
from rlaas.pipeline.continuous.registration import DOCUMENT as REGISTRATION
from rlaas.pipeline.continuous.registration import RegisterStage
from rlaas.pipeline.continuous.report import Observer, PipelineReport, StagePlan, StageReport
from rlaas.pipeline.continuous.runner import plan_stages, run_stages
from rlaas.pipeline.continuous.searching import SearchStage
from rlaas.pipeline.continuous.stage import Context, Stage
from rlaas.pipeline.continuous.tracking import Tracker
from rlaas.pipeline.continuous.training import TrainStage
from rlaas.pipeline.continuous.tuning import TuneStage, load_tuner, tuning_config
from rlaas.pipeline.continuous.validation import DOCUMENT as CONTRACT
from rlaas.pipeline.continuous.validation import ValidateStage
from rlaas.registry import git_commit
from rlaas.scenarios import load
from rlaas.settings import Settings

__all__ = ["pipeline_folder", "plan_pipeline", "run_pipeline"]


def run_pipeline(
    config: PipelineConfig,
    settings: Settings,
    *,
    first: str | None = None,
    force: Sequence[str] = (),
    observer: Observer | None = None,
    start_ray: Callable[[], AbstractContextManager[Any]] | None = None,
    tuner: Any = None,
) -> PipelineReport:
    """Data to registered policy: every stage whose inputs are not those of a result that is there already.

    Args:
        config: of the pipeline.
        settings: of the process; results lie below their home.
        first: this stage and every later one run anew.
        force: these stages run anew; a later one only if their result is another.
        observer: hears what happens while it happens.
        start_ray: makes sure that Ray runs until the pipeline ends; entered before the first stage that needs it. None
            where the caller has seen to it.
        tuner: the room ``rlaas.tuning``, or what stands in for it; loaded at the first need by default.

    Raises:
        ConfigurationError: something that does not exist or cannot work; raised before anything starts.
        PipelineError: a stage failed after its retries. The results before it are kept: the next run goes on there.
    """
    context, stages, root = _assemble(config, settings, tuner)
    context.start_ray = start_ray
    forced = _forced(first, force)
    observer = observer or Observer()
    tracker = Tracker(settings, context.scenario.name, root)
    tags = {"git_commit": git_commit(Path(__file__).parent), "reference_hash": context.scenario.reference_hash}
    with context.resources, tracker.pipeline(tags) as run_id:
        context.run_id = run_id
        reports = run_stages(stages, context, ArtefactStore(root), tracker, observer, forced=forced)
        report = _report(context, reports)
        policy = report.policy
        tracker.close(
            report.to_dict(),
            {
                "verdict": report.verdict["verdict"],
                "policy": None if policy is None else f"{policy['name']}/{policy['version']}",
            },
        )
    return report


def plan_pipeline(
    config: PipelineConfig,
    settings: Settings,
    *,
    first: str | None = None,
    force: Sequence[str] = (),
    tuner: Any = None,
) -> list[StagePlan]:
    """What :func:`run_pipeline` would do and why; runs no stage and writes no result.

    Raises:
        ConfigurationError: something that does not exist or cannot work.
    """
    context, stages, root = _assemble(config, settings, tuner)
    return plan_stages(stages, context, ArtefactStore(root), forced=_forced(first, force))


def pipeline_folder(settings: Settings, scenario: str) -> Path:
    """Folder of everything that the pipelines of a scenario keep."""
    return settings.home / "pipeline" / settings.tenant / scenario


def _assemble(config: PipelineConfig, settings: Settings, tuner: Any) -> tuple[Context, list[Stage], Path]:
    scenario = load(config.scenario_name, **config.training.options)
    check_against(config, scenario)
    if config.tune is not None:
        tuner = tuner if tuner is not None else load_tuner()
        tuning_config(config, tuner)
    context = Context(config=config, settings=settings, scenario=scenario)
    root = pipeline_folder(settings, scenario.name)
    stages: list[Stage] = [
        DataStage(),
        ValidateStage(),
        TrainStage(config),
        TuneStage(tuner),
        SearchStage(),
        EvaluateStage(),
        RegisterStage(root),
    ]
    for stage in stages:
        if stage.skip(context) is None:
            context.fingerprints(stage.rooms(context))
    return context, stages, root


def _forced(first: str | None, force: Sequence[str]) -> frozenset[str]:
    for name in force:
        check_choice(name, STAGES, field="stage to force")
    if first is None:
        return frozenset(force)
    check_choice(first, STAGES, field="stage to start from")
    return frozenset(force) | frozenset(STAGES[STAGES.index(first) :])


def _report(context: Context, stages: Sequence[StageReport]) -> PipelineReport:
    evaluation = context.artefacts["evaluate"].read(EVALUATION)
    registration = context.artefacts["register"].read(REGISTRATION)
    return PipelineReport(
        scenario=context.scenario.name,
        stages=stages,
        contract=context.artefacts["validate"].read(CONTRACT),
        verdict={**evaluation["judgement"], "opponent": evaluation["opponent"], "sentence": evaluation["sentence"]},
        policy=registration["policy"],
        reasons=registration["reasons"],
        protocol=evaluation["protocol"],
        front=evaluation["front"],
        resolved=evaluation["resolved"],
        run_id=context.run_id,
    )
