"""``rlaas features``: what is registered, the online values, and training sets."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, check_file, print_json, print_lines, print_table
from rlaas.errors import InvalidInputError, RlaasError
from rlaas.interrupts import check_interrupt

if TYPE_CHECKING:
    from rlaas.lake import Lake
    from rlaas.lake.features import FeatureStore, FeatureVersion
    from rlaas.settings import Settings

__all__ = ["app"]

app = typer.Typer(help="Features: definitions, online values, training sets.", no_args_is_help=True)

Feature = Annotated[str, typer.Argument(help="NAME for its newest version, or NAME@VERSION.")]
Features = Annotated[
    list[str] | None, typer.Option("--feature", help="NAME or NAME@VERSION; repeat it. Default: the newest of all.")
]


@app.command("list")
def list_features(as_json: JsonOption = False) -> None:
    """List every version with the number of entities that have an online value."""
    store, _, settings = _open()
    progress = store.progress()
    found = [
        {
            **one.to_dict(),
            "entities": store.count(one.key),
            "materialized_us": progress[one.key].updated_us if one.key in progress else None,
        }
        for one in store.features()
    ]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            f"{one['name']}@{one['version']}",
            one["entity"],
            _made(one),
            f"{one['ttl_s']:,.0f} s",
            one["entities"],
            _ago(one["materialized_us"]),
        )
        for one in found
    ]
    columns = ("feature", "entity", "value", "fresh for", "entities", "in step")
    print_table(f"features of {settings.tenant}", columns, rows)


@app.command("show")
def show(feature: Feature, as_json: JsonOption = False) -> None:
    """Show a definition."""
    store, _, _ = _open()
    document = store.feature(feature, field="feature").to_dict()
    if as_json:
        print_json(document)
        return
    source = {key: value for key, value in document.pop("source").items() if value is not None}
    lines = {**document, "source": source, "transformation": document["transformation"]}
    print_lines(f"{key}: {_plain(value)}" for key, value in lines.items() if value not in (None, "", []))


@app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="YAML file; see configs/features/.")], as_json: JsonOption = False
) -> None:
    """Register the definitions of a file; one that says something new becomes the next version of its name."""
    from rlaas.lake.features import load_features

    found = load_features(file)
    store, _, _ = _open()
    applied = store.apply(found.features)
    if as_json:
        print_json([{"feature": one.key, "new": new, "digest": one.definition.digest} for one, new in applied])
        return
    print_lines(f"{one.key}: {'registered' if new else 'unchanged'}" for one, new in applied)


@app.command("materialize")
def materialize(
    feature: Features = None,
    every: Annotated[float | None, typer.Option(min=0.1, help="Go on, with so many seconds in between.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the online values in step with what the sources hold now; only what changed is read."""
    from rlaas.lake.features import materialize as bring

    store, lake, _ = _open()
    if every is not None and as_json:
        raise InvalidInputError("--every does not end, so there is no document; leave out --json", field="every")
    while True:
        begun = time.monotonic()
        try:
            done = bring(store, lake, None if feature is None else _named(store, feature))
        except RlaasError as problem:
            if every is None:
                raise
            typer.echo(f"error: {problem.message}", err=True)
            done = []
        if as_json:
            print_json([asdict(one) for one in done])
            return
        seconds = time.monotonic() - begun
        print_lines(
            f"{one.feature}: {one.events:,} events, {one.entities:,} entities"
            + (", read from the beginning" if one.rebuilt else "")
            for one in done
            if every is None or one.events or one.rebuilt
        )
        if every is None:
            typer.echo(f"in step after {seconds:.2f} s", err=True)
            return
        ends = time.monotonic() + every
        while time.monotonic() < ends:
            check_interrupt()
            time.sleep(min(0.1, every))


@app.command("get")
def get(
    entity: Annotated[list[str], typer.Argument(help="KIND=ID, as cell=c-17; one for each kind of entity.")],
    feature: Features = None,
    as_json: JsonOption = False,
) -> None:
    """Read online values of an entity, as a decision would get them now."""
    from rlaas.lake.features import OnlineFeatures

    store, _, _ = _open()
    ids = dict(_entity(text) for text in entity)
    wanted = [one for one in store.newest() if one.definition.entity in ids] if not feature else _named(store, feature)
    if not wanted:
        kinds = ", ".join(sorted({one.definition.entity for one in store.newest()})) or "(none)"
        raise InvalidInputError(f"no feature is of {', '.join(ids)}; allowed: {kinds}", field="entity")
    (values,) = OnlineFeatures(store, wanted).read([ids], field="entity")
    if as_json:
        print_json({"entity": ids, "features": [value.to_dict() for value in values]})
        return
    rows = [
        (
            one.feature,
            "" if one.value is None else one.value,
            one.status,
            "" if one.age_s is None else f"{one.age_s:.1f} s",
        )
        for one in values
    ]
    print_table(" ".join(entity), ("feature", "value", "status", "age"), rows)


@app.command("training-set")
def training_set(
    entities: Annotated[Path, typer.Option(help="Parquet or CSV: a column of ids for each kind of entity, and times.")],
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    feature: Features = None,
    time_column: Annotated[
        str, typer.Option("--time", help="Column of times: UTC microseconds or timestamps.")
    ] = "time_us",
    as_json: JsonOption = False,
) -> None:
    """Join features to rows as they could have been served at the time of each row."""
    from rlaas.lake.features import write_training_set

    check_file(output)
    store, lake, _ = _open()
    wanted = store.newest() if not feature else _named(store, feature)
    if not wanted:
        raise InvalidInputError("no feature is registered; rlaas features apply FILE registers some", field="feature")
    begun = time.monotonic()
    report = write_training_set(lake, wanted, entities, output, time=time_column)
    seconds = time.monotonic() - begun
    if as_json:
        print_json({"output": str(output), **asdict(report), "seconds": round(seconds, 3)})
        return
    rows = [
        (key, f"{report.rows - one['unknown']:,}", f"{one['unknown']:,}", f"{one['stale']:,}")
        for key, one in report.features.items()
    ]
    print_table(f"{report.rows:,} rows in {output}", ("feature", "known", "unknown", "of them stale"), rows)
    typer.echo(f"{seconds:.2f} s", err=True)


def _open() -> tuple[FeatureStore, Lake, Settings]:
    from rlaas.lake import Lake
    from rlaas.lake.features import FeatureStore
    from rlaas.settings import load_settings

    settings = load_settings()
    return (
        FeatureStore(settings.features_database, settings.tenant),
        Lake(settings.lake_root, settings.tenant),
        settings,
    )


def _named(store: FeatureStore, references: list[str]) -> list[FeatureVersion]:
    return [store.feature(one, field="feature") for one in references]


def _entity(text: str) -> tuple[str, str]:
    kind, _, name = text.partition("=")
    if not kind or not name:
        raise InvalidInputError(f"entity {text!r} is not like cell=c-17", field="entity")
    return kind, name


def _made(one: dict[str, Any]) -> str:
    transformation = one["transformation"]
    window = "" if transformation["window_s"] is None else f" over {transformation['window_s']:,.0f} s"
    return f"{transformation['aggregate']}({one['value'] or ''}){window}"


def _ago(time_us: int | None) -> str:
    return "never" if time_us is None else f"{max(0.0, time.time() - time_us / 1e6):.0f} s ago"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items() if one is not None)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
