"""Assembling the commands, and turning every failure into one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import sys

import typer
from typer.exceptions import Abort, Exit, TyperException

import rlaas
from rlaas.cli.output import only_documents_on_stdout
from rlaas.errors import RequestError, RlaasError
from rlaas.interrupts import handle_interrupts, interrupted

__all__ = ["app", "main", "run"]

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="rlaas",
    help="Reinforcement learning as a service for objectives that pull against each other.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rlaas {rlaas.__version__}")
        raise Exit(OK)


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Reinforcement learning as a service for objectives that pull against each other."""


def _register() -> None:
    from rlaas.cli import (
        decide,
        demo,
        deployments,
        drift,
        experiments,
        features,
        federate,
        fit,
        fronts,
        lake,
        lineage,
        optimize,
        pipeline,
        policies,
        resolve,
        scenarios,
        serve,
        tune,
        work,
    )

    app.command("demo")(demo.demo)
    app.command("serve")(serve.serve)
    app.add_typer(scenarios.app, name="scenarios")
    app.command("train")(work.train)
    app.command("fit")(fit.fit)
    app.command("federate")(federate.federate)
    app.command("optimize")(optimize.optimize)
    app.command("tune")(tune.tune)
    app.command("pipeline")(pipeline.pipeline)
    app.command("evaluate")(scenarios.evaluate)
    app.command("resolve")(resolve.resolve)
    app.add_typer(fronts.app, name="fronts")
    app.add_typer(policies.app, name="policies")
    app.command("decide")(decide.decide)
    app.add_typer(deployments.app, name="deployments")
    app.add_typer(experiments.app, name="experiments")
    app.add_typer(drift.app, name="drift")
    app.add_typer(lake.app, name="lake")
    app.add_typer(lineage.app, name="lineage")
    app.add_typer(features.app, name="features")


_register()


def run(command: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit status: 0, 1 (failed), 2 (bad usage) or 130 (interrupted)."""
    # Ray, MLflow and their helpers report to their makers unless told not to, and read this at import.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    handle_interrupts()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with only_documents_on_stdout() if "--json" in given else contextlib.nullcontext():
            status = command(args=arguments, standalone_mode=False)
        return _ended(status) if isinstance(status, int) else OK
    except Exit as ended:
        return _ended(int(ended.exit_code))
    except (KeyboardInterrupt, Abort):
        return _ended(INTERRUPTED)
    except Exception as problem:
        # An interrupt inside an import or a library's clean-up surfaces as whatever that made of it.
        if interrupted():
            return _ended(INTERRUPTED)
        return _failed(problem)


def _failed(problem: Exception) -> int:
    """Say in one line what failed, and return the exit status; what nobody foresaw goes on with its traceback."""
    if isinstance(problem, TyperException):
        message = problem.format_message() if hasattr(problem, "format_message") else str(problem)
        if message.strip():  # a group without a command has shown its help, and says nothing more
            print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return int(getattr(problem, "exit_code", USAGE))
    if isinstance(problem, RlaasError):
        print(f"error: {problem.message}", file=sys.stderr)
        return USAGE if isinstance(problem, RequestError) else FAILED
    if isinstance(problem, OSError):
        where = f" {problem.filename}" if problem.filename else ""
        print(f"error:{where}: {problem.strerror or problem}", file=sys.stderr)
        return FAILED
    raise problem


def _ended(status: int) -> int:
    """Say what the command line library keeps to itself: it turns an interrupt into a silent status."""
    if status == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return status


def main() -> None:
    """Entry point of the ``rlaas`` script."""
    sys.exit(run(app))
