"""A search from start to finish: check, run or resume, select, confirm, write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaas.errors import ConfigurationError, ConflictError, OperatorError, TrainingError
from rlaas.scenarios import Scenario
from rlaas.settings import Settings
from rlaas.tuning.book import Book, TrialRecord
from rlaas.tuning.checks import Aim, check_tuning
from rlaas.tuning.cluster import check_room, search_ray, trial_room
from rlaas.tuning.config import Asha, Pbt, TuningConfig
from rlaas.tuning.confirmation import confirm
from rlaas.tuning.experiment import Experiment
from rlaas.tuning.figures import known_metrics
from rlaas.tuning.files import write_json
from rlaas.tuning.progress import Notice, Progress, Reporter, Waiting
from rlaas.tuning.results import EXPERIMENT, Confirmed, Found, TuningResult, select, write_config
from rlaas.tuning.schedulers import build_scheduler
from rlaas.tuning.searchers import SEARCHERS, Question
from rlaas.tuning.space import domains
from rlaas.tuning.trainable import trial_config

__all__ = ["tune"]

SCHEMA_VERSION = 1
SEARCH, TRIALS = "search.json", "trials.json"
# How the search is run, not what it asks: it may change between two parts of it.
_FREE = ("trials", "concurrency", "cpus_per_trial", "failures_allowed", "confirmation")


def tune(
    config: TuningConfig,
    *,
    output: Path,
    settings: Settings | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> TuningResult:
    """Search for a training configuration.

    Ray is the caller's if it runs, else that of ``RAY_ADDRESS``, else a local one that ends with the search. The
    search may be killed at any moment and resumed: trials that have ended are not repeated, others go on from their
    last checkpoint, and searcher and scheduler remember what they know.

    Args:
        config: what to search.
        output: folder for ``best.yaml`` (or ``pareto-1.yaml`` and so on), ``trials.json``, ``result.json`` and the
            state; made if missing.
        settings: where MLflow is; None leaves MLflow out.
        resume: go on with the search in ``output``.
        progress: called several times a second with decisions taken, decisions wanted, and figures.
        notice: called with a message when the search waits for resources.

    Raises:
        ConfigurationError: the search cannot work; raised before anything starts.
        ConflictError: ``output`` holds a search and ``resume`` is False, or another one than ``config`` asks for.
        TrainingError: every trial has failed.
        OperatorError: the search broke off, or its state is damaged.
    """
    scenario, aim = check_tuning(config)
    check_room(config)
    output = Path(output).absolute()
    run_id = _open(output, config, resume=resume)
    book = Book(output / TRIALS, known_metrics(scenario))
    with search_ray(config):
        experiment = _experiment(config, aim, output, book)
        dropped = experiment.reload() if resume else {}
        tracking = None
        if settings is not None:
            from rlaas.tuning.tracking import Tracking

            tracking = Tracking(settings, config, output.name, run_id).follow(book, dropped=dropped)
            _write_search(output, config, tracking.run_id)
            experiment.callbacks.append(tracking)
        experiment.callbacks += _watchers(config, aim, book, progress, notice)
        try:
            experiment.run()
            result = _conclude(config, aim, scenario, output, book, progress, notice)
        except BaseException as problem:
            if tracking is not None:
                tracking.end("FAILED" if isinstance(problem, Exception) else "KILLED")
            raise
    return _finish(result, config, tracking)


def _open(output: Path, config: TuningConfig, *, resume: bool) -> str | None:
    """Make the search's folder, or check the one that is resumed; returns the MLflow run of the latter."""
    record = output / SEARCH
    if not resume:
        if record.exists():
            raise ConflictError(
                f"{output} holds a search already; resume it with --resume, or give another --output", field="output"
            )
        output.mkdir(parents=True, exist_ok=True)
        _write_search(output, config, None)
        return None
    if not record.exists():
        raise ConfigurationError(f"{output} holds no search to resume; start one without --resume", field="resume")
    try:
        document = json.loads(record.read_text(encoding="utf-8"))
        begun, run_id = document["config"], document["mlflow_run_id"]
        known = document["schema_version"] == SCHEMA_VERSION
    except (ValueError, KeyError, TypeError) as problem:
        raise OperatorError(f"{record}: damaged: {problem}", field="resume") from problem
    if not known:
        raise OperatorError(f"{record}: schema_version is not {SCHEMA_VERSION}", field="resume")
    _check_same(begun, config)
    return None if run_id is None else str(run_id)


def _check_same(begun: Mapping[str, Any], config: TuningConfig) -> None:
    now = config.model_dump(mode="json")
    for key in now:
        if key not in _FREE and begun.get(key) != now[key]:
            raise ConflictError(
                f"resume: {key} is not what the search was begun with; only {', '.join(_FREE)} may change", field=key
            )
    population = isinstance(config.scheduler, Pbt)
    before = begun["trials"] or 20
    if config.number_of_trials < before or (population and config.number_of_trials != before):
        raise ConflictError(
            f"resume: trials {config.number_of_trials}, but the search was begun with {before}; "
            + ("a population keeps its size" if population else "it may only grow"),
            field="trials",
        )


def _write_search(output: Path, config: TuningConfig, run_id: str | None) -> None:
    document = {**config.model_dump(mode="json"), "trials": config.number_of_trials}
    write_json(output / SEARCH, {"schema_version": SCHEMA_VERSION, "config": document, "mlflow_run_id": run_id})


def _experiment(config: TuningConfig, aim: Aim, output: Path, book: Book) -> Experiment:
    shared = trial_config(config.training, metrics=aim.reported, interval=config.interval, keep_policy=True)
    population = isinstance(config.scheduler, Pbt)
    searcher = None
    if population:
        shared["point"] = domains(config.space)
    else:
        question = Question(space=config.space, metrics=aim.metrics, modes=aim.modes, seed=config.seed)
        searcher = SEARCHERS[config.searcher].build(question)
    return Experiment(
        folder=output,
        name=EXPERIMENT,
        book=book,
        param_space=shared,
        searcher=searcher,
        scheduler=build_scheduler(config, aim.ranked_by, aim.ranked),
        resumable_scheduler=isinstance(config.scheduler, Asha),
        trials=config.number_of_trials,
        # A population lives at once, or in turns where there are fewer CPUs: a limit would starve the rest of it.
        concurrency=None if population else config.concurrency,
        room=trial_room(config),
        failures=config.failures_allowed,
        seed=config.seed,
    )


def _watchers(
    config: TuningConfig, aim: Aim, book: Book, progress: Progress | None, notice: Notice | None
) -> list[Any]:
    found: list[Any] = []
    if progress is not None:
        found.append(
            Reporter(
                book,
                progress,
                trials=config.number_of_trials,
                steps=config.training.steps,
                metric=aim.ranked_by,
                mode=aim.ranked,
            )
        )
    if notice is not None:
        found.append(Waiting(notice, trial_room(config)))
    return found


def _conclude(
    config: TuningConfig,
    aim: Aim,
    scenario: Scenario,
    output: Path,
    book: Book,
    progress: Progress | None,
    notice: Notice | None,
) -> TuningResult:
    records = tuple(book.records.values())
    chosen = select(records, aim.metrics, aim.directions)
    if not chosen:
        raise TrainingError(_all_failed(records, aim), field="space")
    for old in [*output.glob("best.yaml"), *output.glob("pareto-*.yaml")]:
        old.unlink()
    found = [_found(name, record, config, aim, output) for name, record in chosen]
    fresh: Sequence[Confirmed] = ()
    if config.confirmation is not None:
        fresh = confirm(config, aim, scenario, output, found, progress=progress, notice=notice)
        found = [_found(name, record, config, aim, output, fresh) for name, record in chosen]
    return TuningResult(
        output=output,
        metrics=aim.metrics,
        directions=aim.directions,
        found=tuple(found),
        trials=records,
        confirmation=tuple(fresh),
    )


def _all_failed(records: Sequence[TrialRecord], aim: Aim) -> str:
    reasons = [record.failure for record in records if record.failure is not None]
    if not reasons:
        return f"no trial ran to its end with a figure for {', '.join(aim.metrics)}; see trials.json"
    others = f" (and {len(set(reasons)) - 1} other reasons in trials.json)" if len(set(reasons)) > 1 else ""
    return f"all {len(records)} trials failed: {max(set(reasons), key=reasons.count)}{others}"


def _found(
    name: str, record: TrialRecord, config: TuningConfig, aim: Aim, output: Path, fresh: Sequence[Confirmed] = ()
) -> Found:
    remarks = [
        f"Found by rlaas tune: trial {record.number} of {config.searcher} over {', '.join(sorted(config.space))}.",
        f"In the search: {', '.join(f'{m} {record.figures[m]:.5g}' for m in aim.metrics)} (chosen, hence flattering).",
    ]
    for one in fresh:
        if one.name in (name, "base") and one.seeds:
            label = "The base likewise" if one.name == "base" else "Trained anew, on fresh seeds"
            figures = ", ".join(f"{m} {one.mean(m):.5g} +- {one.half_width(m):.2g}" for m in aim.metrics)
            remarks.append(f"{label}: {figures} ({len(one.seeds)} training seeds).")
    if isinstance(config.scheduler, Pbt):
        remarks.append("A population changes these values as it trains: this is what the best member ended with.")
    file = write_config(output / f"{name}.yaml", config.training, record.values, remarks)
    return Found(name=name, trial=record.number, values=record.values, figures=record.figures, file=file)


def _finish(result: TuningResult, config: TuningConfig, tracking: Any) -> TuningResult:
    if tracking is not None:
        result = dataclasses.replace(result, mlflow_run_id=tracking.run_id)
    write_json(result.output / "result.json", result.to_dict())
    if tracking is not None:
        first = result.found[0]
        metrics = {f"best/{m}": first.figures[m] for m in result.metrics} if not config.several else {}
        for one in result.confirmation:
            metrics |= {f"confirmed/{one.name}/{m}": one.mean(m) for m in result.metrics}
        files = (*(one.file for one in result.found), result.output / TRIALS, result.output / "result.json")
        tracking.end("FINISHED", metrics=metrics, files=files)
    return result
