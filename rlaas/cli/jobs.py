"""The same work as Ray jobs: what ``python -m ray_apps.train`` and its siblings run on any cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rlaas.cli.main import run
from rlaas.cli.optimize import OutputOption, ResumeOption, WayOption
from rlaas.cli.output import print_json
from rlaas.cli.work import MetricsHostOption, MetricsPortOption, TensorBoardOption, telemetry_config
from rlaas.settings import Settings, load_settings

__all__ = ["federate_job", "fit_job", "optimize_job", "pipeline_job", "train_job", "tune_job"]

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML file; see configs/.")]
FirstOption = Annotated[str | None, typer.Option("--from", help="Run this stage and every later one anew.")]
ForceOption = Annotated[list[str] | None, typer.Option("--force", help="Run this stage anew; once for each.")]


def _settings() -> Settings:
    """Settings of a job. Its working directory is a throw-away copy, so a home in it would be lost with it."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and "RLAAS_HOME" not in os.environ:
        home = Path.home() / ".rlaas"
        print(f"RLAAS_HOME is not set: results go to {home} on this node", file=sys.stderr, flush=True)
        return load_settings(home=home)
    return load_settings()


def _connect(settings: Settings) -> None:
    """Join the cluster that runs this job (RAY_ADDRESS), or start a local one when there is none.

    Raises:
        ConfigurationError: the home is local to one of several nodes.
    """
    import ray

    from rlaas.control import check_home

    ray.init(logging_level="warning", ignore_reinit_error=True)
    check_home(settings)


def _log_progress(what: str) -> Callable[..., None]:
    """Progress for a job's log: a line at each tenth, since a log draws no bars."""
    last = -1

    def advance(done: int, total: int, metrics: Any = None) -> None:
        nonlocal last
        tenth = 10 * done // max(1, total)
        if tenth > last:
            last = tenth
            detail = ", ".join(f"{k} {v:.4g}" for k, v in (metrics or {}).items() if k in ("reward", "loss", "best"))
            print(f"{what}: {done:,}/{total:,} {detail}".rstrip(), file=sys.stderr, flush=True)

    return advance


def _job(function: Callable[..., None]) -> Callable[[], None]:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)

    def entry() -> None:
        sys.exit(run(app))

    return entry


def _train(
    config: ConfigOption,
    tensorboard: TensorBoardOption = True,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
) -> None:
    """Train a policy by a config file and register it."""
    from rlaas.cli.training_screen import TrainingLog, training_document
    from rlaas.pipeline import run_training
    from rlaas.training import load_config

    loaded = load_config(config)
    telemetry = telemetry_config(tensorboard, metrics_port, metrics_host)
    settings = _settings()
    _connect(settings)
    run, version = run_training(loaded, settings, telemetry=telemetry, reporters=[TrainingLog()])
    print_json(training_document(run, version))


def _fit(config: ConfigOption) -> None:
    """Fit a policy to a table of the lake by a config file and register it."""
    from rlaas.pipeline import plan_fit, run_fit
    from rlaas.training import load_offline_config

    loaded = load_offline_config(config)
    settings = _settings()
    plan_fit(loaded, settings)
    _connect(settings)
    _, _, report = run_fit(loaded, settings, progress=_log_progress("fit"))
    print_json(report)


def _optimize(
    config: ConfigOption, way: WayOption = None, output: OutputOption = None, resume: ResumeOption = False
) -> None:
    """Search configurations by a config file, race what is found, and write the front."""
    from rlaas.cli.optimize import configured
    from rlaas.cli.optimize_screen import OptimizeLog
    from rlaas.pipeline import run_folder, run_optimization, search_reference
    from rlaas.scenarios import load

    loaded = configured(config, way, output, resume)
    settings = _settings()
    _connect(settings)
    _, ranges = search_reference(load(loaded.scenario, **loaded.options))
    log = OptimizeLog(loaded.generations, ranges)
    folder = (output or run_folder(settings, "optimize")).absolute()
    done = run_optimization(loaded, settings, watch=log.searched, racing=log.raced, output=folder, resume=resume)
    print_json(done.to_dict())


def _pipeline(config: ConfigOption, first: FirstOption = None, force: ForceOption = None) -> None:
    """Check data, train, tune, search, evaluate against the champion, and register what is better."""
    from rlaas.cli.pipeline import check_contract, log_observer
    from rlaas.pipeline import load_pipeline_config, run_pipeline

    loaded = load_pipeline_config(config)
    settings = _settings()
    _connect(settings)
    observer = log_observer(lambda line: print(line, file=sys.stderr, flush=True))
    report = run_pipeline(loaded, settings, first=first, force=force or (), observer=observer)
    print_json(report.to_dict())
    check_contract(report)


def _federate(
    config: ConfigOption,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start at round 1 even if an earlier run can go on.")] = False,
) -> None:
    """Train one policy at several sites by a config file and register it; the same call again goes on."""
    from rlaas.pipeline import run_federation
    from rlaas.training.federated import load_federation_config

    loaded = load_federation_config(config)
    settings = _settings()
    _connect(settings)
    print_json(run_federation(loaded, settings, afresh=fresh, progress=_log_progress("federate")))


def _tune(
    config: ConfigOption,
    output: Annotated[Path | None, typer.Option(help="Folder of the search; default: in RLAAS_HOME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in that folder.")] = False,
) -> None:
    """Search for a training configuration by a config file."""
    from rlaas.cli.tune import configured, search_folder, tuning_document
    from rlaas.tuning import tune

    loaded = configured(config)
    settings = _settings()
    _connect(settings)
    result = tune(
        loaded,
        output=search_folder(config, output, settings),
        settings=settings,
        resume=resume,
        progress=_log_progress("tune"),
        notice=lambda message: print(message, file=sys.stderr, flush=True),
    )
    print_json(tuning_document(result))


train_job = _job(_train)
fit_job = _job(_fit)
optimize_job = _job(_optimize)
pipeline_job = _job(_pipeline)
tune_job = _job(_tune)
federate_job = _job(_federate)
