"""``rlaas optimize``: a search over configurations, with its hypervolume as it grows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rlaas.cli.optimize_screen import OptimizeScreen, optimization_summary
from rlaas.cli.output import JsonOption, check_folder, print_json

if TYPE_CHECKING:
    from rlaas.optimization import OptimizationConfig

__all__ = ["ConfigOption", "OutputOption", "ResumeOption", "WayOption", "configured", "optimize"]

ConfigOption = Annotated[Path, typer.Option("--config", help="YAML file; see configs/optimization/.")]
WayOption = Annotated[
    str | None,
    typer.Option(help="How it is spread: auto, serial, batched, asynchronous or islands; overrides the file."),
]
OutputOption = Annotated[
    Path | None, typer.Option(help="Folder that the search is kept in; default: one under the home's runs/.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the search in --output.")]


def optimize(
    config: ConfigOption,
    way: WayOption = None,
    output: OutputOption = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search configurations where it pays: here or on Ray actors; race what is found, and write the front."""
    from rlaas.pipeline import local_ray, run_folder, run_optimization, search_reference
    from rlaas.scenarios import load
    from rlaas.settings import load_settings

    loaded = configured(config, way, output, resume)
    settings = load_settings()
    _, ranges = search_reference(load(loaded.scenario, **loaded.options))
    folder = (output or run_folder(settings, "optimize")).absolute()
    try:
        with local_ray(), OptimizeScreen(loaded.generations, ranges) as screen:
            done = run_optimization(
                loaded, settings, watch=screen.searched, racing=screen.raced, output=folder, resume=resume
            )
    except BaseException:
        if (folder / "run.json").is_file():
            typer.echo(f"to go on: rlaas optimize --config {config} --output {folder} --resume", err=True)
        raise
    if as_json:
        print_json(done.to_dict())
        return
    Console().print(optimization_summary(done))


def configured(config: Path, way: str | None, output: Path | None, resume: bool) -> OptimizationConfig:
    """The file with what the command line changes, and refused options before any work.

    Raises:
        ConfigurationError: an unknown way, or ``--resume`` without a folder.
        InvalidInputError: a folder that cannot be written.
    """
    from rlaas.errors import ConfigurationError, check_choice
    from rlaas.optimization import WAYS, OptimizationConfig, load_optimization_config

    loaded = load_optimization_config(config)
    if way is not None:
        check_choice(way, ("auto", *WAYS), field="way")
        loaded = OptimizationConfig.model_validate({**loaded.model_dump(exclude_unset=True), "way": way})
    if resume and output is None:
        raise ConfigurationError("--resume needs --output, the folder of the search", field="output")
    if output is not None:
        check_folder(output)
    return loaded
