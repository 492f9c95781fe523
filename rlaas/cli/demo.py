"""``rlaas demo``: the main job."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from rlaas.cli.output import JsonOption, console_for, print_json
from rlaas.errors import ConfigurationError

__all__ = ["demo"]


def demo(
    scenario: Annotated[str, typer.Option(help="Scenario to run: see `rlaas scenarios`.")] = "network5g",
    steps: Annotated[int | None, typer.Option(help="Training steps (decisions); default: the scenario's own.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder of summary.json and the plots.")] = Path("demo"),
    port: Annotated[int, typer.Option(help="HTTP port of the platform.")] = 8000,
    generations: Annotated[int | None, typer.Option(help="NSGA-III generations per family.")] = None,
    traffic_steps: Annotated[int | None, typer.Option(help="Environment steps driven through HTTP.")] = None,
    keep_serving: Annotated[bool, typer.Option("--keep-serving", help="Leave the platform up until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on a local Ray: train, search, resolve, register, serve, experiment, learn from logs."""
    from rlaas.demo import DemoOptions, run_demo
    from rlaas.settings import load_settings

    fields = {
        "scenario": scenario,
        "steps": steps,
        "seed": seed,
        "output": output,
        "port": port,
        "generations": generations,
        "traffic_steps": traffic_steps,
    }
    try:
        options = DemoOptions.model_validate({k: v for k, v in fields.items() if v is not None})
    except ValidationError as problem:
        first = problem.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise ConfigurationError(f"--{name}: {first['msg']}", field=name) from problem
    console = console_for(as_json)

    def report(summary: dict[str, Any]) -> None:
        if as_json:
            print_json(summary)
        if keep_serving:
            console.print("serving until Ctrl-C")
            # Ctrl-C ends the wait, not the command: what was asked for has been done.
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()

    run_demo(options, load_settings(), console, keep_serving=keep_serving, report=report)
