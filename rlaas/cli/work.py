"""``rlaas train``: from a config file or from options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rlaas.cli.output import JsonOption, check_folder, print_json
from rlaas.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from rlaas.training import TelemetryConfig

__all__ = ["MetricsHostOption", "MetricsPortOption", "TensorBoardOption", "telemetry_config", "train"]

TensorBoardOption = Annotated[
    bool, typer.Option("--tensorboard/--no-tensorboard", help="Write an event file into the run's folder.")
]
MetricsPortOption = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Serve the gauges for Prometheus on this port while training.")
]
MetricsHostOption = Annotated[str, typer.Option(help="Address of that port.")]


def train(
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/training/.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Scenario, instead of a config file.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps (decisions); overrides the file.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; overrides the file.")] = None,
    warm_start: Annotated[
        str | None, typer.Option(help="Folder to start from: of a fit or a run, a checkpoint, a bundle.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run, new or empty; default: one under the home's runs/.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run to go on with, as it was configured; instead of all that.")
    ] = None,
    tensorboard: TensorBoardOption = True,
    metrics_port: MetricsPortOption = None,
    metrics_host: MetricsHostOption = "127.0.0.1",
    as_json: JsonOption = False,
) -> None:
    """Train a preference-conditioned policy and register it as a candidate."""
    from rlaas.pipeline import local_ray, run_folder, run_training
    from rlaas.settings import load_settings
    from rlaas.training import TrainingConfig, load_config, load_run_config, recommended_config

    given = {"steps": steps, "seed": seed, "warm_start": warm_start}
    overrides = {key: value for key, value in given.items() if value is not None}
    if resume is not None:
        if config is not None or scenario is not None or output is not None or overrides:
            raise ConfigurationError(
                "--resume goes on with what the folder holds; leave out --config, --scenario, --output, --steps, "
                "--seed and --warm-start",
                field="resume",
            )
        chosen = load_run_config(resume)
    elif (config is None) == (scenario is None):
        raise ConfigurationError("give exactly one of --config and --scenario", field="config")
    elif config is not None:
        loaded = load_config(config)
        chosen = TrainingConfig(**{**loaded.model_dump(exclude_unset=True), **overrides})
    else:
        chosen = recommended_config(str(scenario), **overrides)
    telemetry = telemetry_config(tensorboard, metrics_port, metrics_host)
    if output is not None:
        check_folder(output)
        if output.exists() and any(output.iterdir()):
            raise InvalidInputError(
                f"--output {output} is not empty; allowed: a new or an empty folder", field="output"
            )
    from rlaas.cli.training_screen import TrainingScreen, training_document, training_summary
    from rlaas.training.telemetry import check_telemetry

    settings = load_settings()
    check_telemetry(telemetry, settings)
    folder = (resume or output or run_folder(settings, "train")).absolute()
    try:
        with local_ray():
            run, version = run_training(
                chosen,
                settings,
                output=folder,
                telemetry=telemetry,
                reporters=[TrainingScreen()],
                resume=resume is not None,
            )
    except BaseException:
        if (folder / "checkpoints").is_dir():
            typer.echo(f"to go on from the last checkpoint: rlaas train --resume {folder}", err=True)
        raise
    if as_json:
        print_json(training_document(run, version))
        return
    Console().print(training_summary(run, version))


def telemetry_config(tensorboard: bool, metrics_port: int | None, metrics_host: str) -> TelemetryConfig:
    """What the options of ``train`` say about telemetry."""
    from rlaas.training import TelemetryConfig

    return TelemetryConfig(tensorboard=tensorboard, metrics_port=metrics_port, metrics_host=metrics_host)
