"""``rlaas optimize``: a search over configurations, with its hypervolume as it grows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rlaas.cli.optimize_screen import OptimizeScreen, optimization_summary
from rlaas.cli.output import JsonOption, check_folder, print_json
from rlaas.errors import ConfigurationError, ConflictError, RequestError, check_choice

if TYPE_CHECKING:
    from rlaas.optimization import OptimizationConfig

__all__ = ["ConfigOption", "OutputOption", "ResumeOption", "WayOption", "configured", "optimize"]

RUN_FILE = "run.json"
"""By which a folder is known to hold a search."""

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
    except BaseException as problem:
        if (folder / RUN_FILE).is_file() and not isinstance(problem, RequestError):
            typer.echo(f"to go on: rlaas optimize --config {config} --output {folder} --resume", err=True)
        raise
    if as_json:
        print_json(done.to_dict())
        return
    console = Console()
    console.print(optimization_summary(done, console.width))


def configured(config: Path, way: str | None, output: Path | None, resume: bool) -> OptimizationConfig:
    """The file with what the command line changes, and refused options before any work.

    Raises:
        ConfigurationError: an unknown way, or ``--resume`` without a folder.
        InvalidInputError: a folder that cannot be written.
        ConflictError: a folder that holds a search, or none to go on with.
    """
    from rlaas.optimization import WAYS, OptimizationConfig, load_optimization_config

    loaded = load_optimization_config(config)
    if way is not None:
        check_choice(way, ("auto", *WAYS), field="way")
        loaded = OptimizationConfig.model_validate({**loaded.model_dump(exclude_unset=True), "way": way})
    if resume and output is None:
        raise ConfigurationError("--resume needs --output, the folder of the search", field="output")
    if output is not None:
        check_folder(output)
        if resume != (output / RUN_FILE).is_file():
            raise ConflictError(
                f"--output {output} holds no search to go on with"
                if resume
                else f"--output {output} holds a search already; add --resume to go on with it, or name another folder",
                field="output",
            )
    return loaded
