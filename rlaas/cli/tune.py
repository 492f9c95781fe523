"""``rlaas tune``: search for a training configuration, in a process that may be killed and resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, bar, check_folder, print_json, print_table, stderr

if TYPE_CHECKING:
    from rlaas.settings import Settings
    from rlaas.tuning import TuningConfig, TuningResult

__all__ = ["configured", "search_folder", "tune", "tuning_document"]


def tune(
    config: Annotated[Path, typer.Option(help="YAML file; see configs/tuning/.")],
    trials: Annotated[int | None, typer.Option(help="Configurations to try; overrides the file.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search; overrides the file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the search; default: in RLAAS_HOME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in that folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search for a training configuration with Ray Tune; the best ones become files for rlaas train."""
    from rlaas.settings import load_settings
    from rlaas.tuning import tune as search

    loaded, settings = configured(config, trials=trials, seed=seed), load_settings()
    folder = search_folder(config, output, settings)
    check_folder(folder)
    try:
        with bar("tune", figures=("ended", "confirmed", "running", "best")) as advance:
            result = search(loaded, output=folder, settings=settings, resume=resume, progress=advance, notice=_notice)
    except KeyboardInterrupt:
        _notice(f"the search in {folder} goes on with --resume")
        raise
    if as_json:
        print_json(tuning_document(result))
        return
    _print(result)


def _notice(message: str) -> None:
    stderr().print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)


def configured(config: Path, *, trials: int | None = None, seed: int | None = None) -> TuningConfig:
    """The search in a file, with what the command line says on top."""
    from rlaas.tuning import TuningConfig, load_tuning_config

    loaded = load_tuning_config(config)
    overrides = {key: value for key, value in (("trials", trials), ("seed", seed)) if value is not None}
    if not overrides:
        return loaded
    return TuningConfig(**{**loaded.model_dump(mode="json", exclude_unset=True), **overrides})


def search_folder(config: Path, output: Path | None, settings: Settings) -> Path:
    """The folder of a search: as given, or ``tuning/<name of the file>`` in the home, so that it is found again."""
    return (output or settings.home / "tuning" / config.stem).absolute()


def tuning_document(result: TuningResult) -> dict[str, Any]:
    """The result as JSON types; what is no number is null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [finite(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    document: dict[str, Any] = finite(result.to_dict())
    return document


def _print(result: TuningResult) -> None:
    names = sorted({name for found in result.found for name in found.values})
    rows = [
        [
            found.name,
            found.trial,
            *(_text(found.values.get(name)) for name in names),
            *(_text(found.figures[metric]) for metric in result.metrics),
        ]
        for found in result.found
    ]
    print_table("Found (figures of the search, which chose them)", ["file", "trial", *names, *result.metrics], rows)
    if result.confirmation:
        confirmed = [
            [one.name, len(one.seeds), *(_interval(one.mean(m), one.half_width(m)) for m in result.metrics)]
            for one in result.confirmation
        ]
        print_table("Trained anew, on fresh seeds", ["configuration", "training seeds", *result.metrics], confirmed)
        for one in result.confirmation:
            for failed, reason in one.failures.items():
                typer.echo(f"{one.name} with training seed {failed} failed: {reason}")
    for record in result.trials:
        if record.status == "failed":
            typer.echo(f"trial {record.number} failed: {record.failure}")
    counts = ", ".join(f"{number} {status}" for status, number in result.counts().items())
    typer.echo(f"{len(result.trials)} trials ({counts}); configurations and trials.json in {result.output}")
    typer.echo(f"train one with: rlaas train --config {result.found[0].file}")


def _text(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _interval(mean: float, half_width: float) -> str:
    return f"{mean:.5g}" if not math.isfinite(half_width) else f"{mean:.5g} ± {half_width:.2g}"
