"""Running stages one after the other: from the cache where the inputs are the same, with retries where they fail."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from typing import Any

from rlaas.errors import PipelineError, RequestError, RlaasError
from rlaas.interrupts import check_interrupt
from rlaas.pipeline.continuous.artefacts import Artefact, ArtefactStore
from rlaas.pipeline.continuous.fingerprints import key_of
from rlaas.pipeline.continuous.report import Observer, StagePlan, StageReport
from rlaas.pipeline.continuous.stage import Context, Stage
from rlaas.pipeline.continuous.tracking import Tracker

__all__ = ["FORCED", "plan_stages", "run_stages"]

FIRST = "no earlier result"
FORCED = "asked for"
LONGEST_REASON = 400


def run_stages(
    stages: Sequence[Stage],
    context: Context,
    store: ArtefactStore,
    tracker: Tracker,
    observer: Observer,
    *,
    forced: Collection[str] = (),
) -> list[StageReport]:
    """Run every stage whose result is not there yet.

    Args:
        stages: in order.
        context: gets each result.
        store: of results.
        tracker: inside its ``pipeline``.
        observer: hears what happens.
        forced: names of stages that run whether or not there is a result.

    Raises:
        PipelineError: a stage failed after its retries; the results before it are kept.
    """
    reports: list[StageReport] = []
    for stage in stages:
        run_id = tracker.open_stage(stage.name)
        reason = stage.skip(context)
        if reason is not None:
            report = StageReport(name=stage.name, status="skipped", reason=reason, run_id=run_id)
            tracker.close_stage(run_id, report, inputs={}, lineage={}, artefact=None)
        else:
            report = _Turn(stage, context, store, observer, run_id).take(tracker, stage.name in forced)
        reports.append(report)
        observer.finished(report)
    return reports


def plan_stages(
    stages: Sequence[Stage], context: Context, store: ArtefactStore, *, forced: Collection[str] = ()
) -> list[StagePlan]:
    """What :func:`run_stages` would do, without doing any of it."""
    plans: list[StagePlan] = []
    pending: set[str] = set()
    for stage in stages:
        skipped = stage.skip(context)
        if skipped is not None:
            plans.append(StagePlan(name=stage.name, outlook="skipped", reason=skipped))
            continue
        waits = [name for name in stage.needs if name in pending]
        if stage.name in forced or waits:
            pending.add(stage.name)
            plans.append(
                StagePlan(name=stage.name, outlook="run", reason=FORCED)
                if stage.name in forced
                else StagePlan(
                    name=stage.name,
                    outlook="open",
                    reason=f"after {', '.join(waits)}: runs unless the result is the same as before",
                )
            )
            continue
        inputs = _inputs_of(stage, context)
        key = key_of(inputs)
        artefact, reason = _look(stage, context, store, inputs, key, forced=False)
        if artefact is None:
            pending.add(stage.name)
            plans.append(StagePlan(name=stage.name, outlook="run", reason=reason, key=key))
        else:
            context.artefacts[stage.name] = artefact
            plans.append(StagePlan(name=stage.name, outlook="cached", key=key))
    return plans


class _Turn:
    """One stage's turn."""

    def __init__(self, stage: Stage, context: Context, store: ArtefactStore, observer: Observer, run_id: str) -> None:
        self._stage, self._context, self._store = stage, context, store
        self._observer, self._run_id = observer, run_id
        self._inputs: dict[str, Any] = {}
        self._key = ""

    def take(self, tracker: Tracker, forced: bool) -> StageReport:
        """Look the result up, or make it; logged either way."""
        stage, context = self._stage, self._context
        started = time.perf_counter()
        try:
            self._inputs = _inputs_of(stage, context)
        except Exception as problem:
            raise self._failed(tracker, _cause(problem), 0, started) from problem
        self._key = key_of(self._inputs)

        def waiting(holder: str) -> None:
            self._observer.noted(stage.name, f"waits for process {holder}, which works on the same result")

        with self._store.lock(stage.name, self._key, waiting):
            artefact, reason = _look(stage, context, self._store, self._inputs, self._key, forced=forced)
            attempts = 0
            if artefact is None:
                self._observer.started(stage.name, reason)
                context.progress = lambda *seen: self._observer.advanced(stage.name, *seen)
                context.stage_run_id = self._run_id
                artefact, attempts = self._make(tracker, forced, started)
                self._store.prune(stage.name, context.config.keep)
        context.artefacts[stage.name] = artefact
        report = StageReport(
            name=stage.name,
            status="run" if attempts else "cached",
            reason=reason,
            key=self._key,
            seconds=time.perf_counter() - started,
            attempts=attempts,
            metrics=artefact.metrics,
            run_id=self._run_id,
        )
        tracker.close_stage(
            self._run_id,
            report,
            inputs=self._inputs,
            lineage=stage.lineage(context, artefact),
            artefact=artefact,
        )
        return report

    def _make(self, tracker: Tracker, forced: bool, started: float) -> tuple[Artefact, int]:
        """The result and the attempts it took."""
        stage, context = self._stage, self._context
        allowed = context.config.attempts(stage.name)
        for attempt in range(1, allowed + 1):
            check_interrupt()
            fresh = forced and attempt == 1
            folder = self._store.open_work(stage.name, self._key, keep=stage.keeps_work and not fresh)
            begun = time.perf_counter()
            try:
                metrics = {k: float(v) for k, v in stage.run(context, folder).items() if math.isfinite(v)}
            except Exception as problem:
                # A library may have made something else of an interrupt.
                check_interrupt()
                cause = _cause(problem)
                self._store.note_failure(stage.name, self._key, cause, attempt)
                # What is wrong with a request is still wrong when it is made again.
                if attempt == allowed or isinstance(problem, RequestError):
                    raise self._failed(tracker, cause, attempt, started) from problem
                pause = context.config.retry_wait_s * 2 ** (attempt - 1)
                self._observer.noted(
                    stage.name, f"attempt {attempt} of {allowed} failed: {cause}; again in {pause:g} s"
                )
                time.sleep(pause)
            else:
                seconds = time.perf_counter() - begun
                return self._store.commit(stage.name, self._key, self._inputs, metrics, seconds), attempt
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _failed(self, tracker: Tracker, cause: str, attempts: int, started: float) -> PipelineError:
        """Log the failure; returns the error that ends the pipeline."""
        name = self._stage.name
        report = StageReport(
            name=name,
            status="failed",
            reason=cause,
            key=self._key,
            seconds=time.perf_counter() - started,
            attempts=attempts,
            run_id=self._run_id,
        )
        tracker.close_stage(
            self._run_id,
            report,
            inputs=self._inputs,
            lineage=self._stage.lineage(self._context, None),
            artefact=None,
        )
        self._observer.finished(report)
        tries = f" after {attempts} attempts" if attempts > 1 else ""
        return PipelineError(
            f"stage {name} failed{tries}: {cause}; the results before it are kept: run the pipeline again to go on "
            f"at {name}",
            field=name,
        )


def _look(
    stage: Stage, context: Context, store: ArtefactStore, inputs: dict[str, Any], key: str, *, forced: bool
) -> tuple[Artefact | None, str]:
    """The result if it can be used, else why it has to be made."""
    if forced:
        return None, FORCED
    artefact, damage = store.find(stage.name, key)
    if artefact is not None:
        outdated = stage.outdated(context, artefact)
        return (artefact, "") if outdated is None else (None, outdated)
    if damage is not None:
        return None, f"the result on disk is damaged: {damage}"
    unfinished = store.unfinished(stage.name, key)
    if unfinished is not None:
        return None, f"goes on after the last attempt: {unfinished}"
    changes = store.nearest(stage.name, inputs)
    if changes is None:
        return None, FIRST
    reason = "; ".join(changes)
    return None, reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."


def _inputs_of(stage: Stage, context: Context) -> dict[str, Any]:
    """All that the result of a stage depends on."""
    earlier = {name: context.artefacts[name].digest for name in stage.needs if name in context.artefacts}
    return {
        "stage": stage.name,
        **stage.inputs(context),
        "stages": earlier,
        "code": context.fingerprints(stage.rooms(context)),
    }


def _cause(problem: Exception) -> str:
    """An error on one line."""
    # Ray wraps what a worker raised, and puts the worker's traceback into the message.
    inner = getattr(problem, "cause", None)
    if isinstance(inner, Exception):
        problem = inner
    text = " ".join((problem.message if isinstance(problem, RlaasError) else str(problem)).split())[:300]
    return text if isinstance(problem, RlaasError) else f"{type(problem).__name__}: {text}"
