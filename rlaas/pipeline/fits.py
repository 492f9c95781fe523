"""Fitting from the lake as a job: read one version of a table, fit, register, and say what remains unknown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium import spaces

from rlaas import __version__
from rlaas.bundles import load_bundle
from rlaas.errors import InvalidInputError, check_choice
from rlaas.lake import Lake
from rlaas.objectives import Preference
from rlaas.pipeline.jobs import run_folder
from rlaas.registry import PolicyVersion, Registry, check_alias, git_commit
from rlaas.scenarios import Scenario, load
from rlaas.settings import Settings
from rlaas.training import OfflineConfig, TrainingRun, fit_offline, open_source
from rlaas.training.offline.rewards import RewardReader

if TYPE_CHECKING:
    import pyarrow as pa

    from rlaas.training.offline import LoggedTable

__all__ = ["FitPlan", "plan_fit", "run_fit"]

Progress = Callable[[int, int, Mapping[str, float]], None]

# A component of a box counts as tried where the log spans this share of its range.
TRIED_SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """A fit whose every part was found.

    Attributes:
        config: what was asked for.
        scenario: whose decisions are read.
        table: where, at which version.
        preference: what is fitted for; None for all preferences.
    """

    config: OfflineConfig
    scenario: Scenario
    table: LoggedTable
    preference: Preference | None


def plan_fit(config: OfflineConfig, settings: Settings) -> FitPlan:
    """Find everything that a fit needs, without reading a row or starting Ray.

    Raises:
        ConfigurationError: unknown scenario, mode, objective, or a reward function that cannot be loaded.
        NotFoundError: no such table or version.
        InvalidInputError: the table lacks a column that the fit needs, or the preference is none.
        LakeError: the table is damaged.
    """
    scenario = load(config.scenario, **config.options)
    preference: Preference | None = None
    if config.mode is not None:
        preference = scenario.modes[check_choice(config.mode, scenario.modes, field="mode")].preference
    elif config.preference is not None:
        preference = Preference.of(scenario.objectives, config.preference)
    RewardReader(scenario, config.reward, preference)
    table = open_source(Lake(settings.lake_root, settings.tenant), config.source, scenario.name)
    for column, wanted in (
        ("action_propensity", config.fit.inverse_propensity),
        ("preference", config.conditioned and config.fit.method == "cloning"),
    ):
        if wanted and column not in table.columns:
            raise InvalidInputError(
                f"table {table.name} lacks the column {column!r}, which this fit needs", field=column
            )
    return FitPlan(config=config, scenario=scenario, table=table, preference=preference)


def run_fit(
    config: OfflineConfig, settings: Settings, *, alias: str = "candidate", progress: Progress | None = None
) -> tuple[TrainingRun, PolicyVersion, dict[str, Any]]:
    """Fit a policy to logged rows and register it under the scenario's name. Ray has to be running.

    Returns:
        The run, the registered version and a JSON-ready report: the rows that were read, the metrics, and under
        ``unknown`` what a log cannot say about the policy. Nothing is evaluated.

    Raises:
        RequestError: see :func:`plan_fit`; or no row matches, or a row is bad.
        TrainingError: a loss became infinite or NaN; nothing is registered.
    """
    check_alias(alias)
    plan = plan_fit(config, settings)
    table, scenario = plan.table, plan.scenario
    source = {"table": table.name, "table_version": table.version, "filter": config.source.describe()}
    commit = git_commit(Path(__file__).parent)
    output = run_folder(settings, "fit")
    run = fit_offline(
        _some(table, config, scenario),
        scenario,
        preference=plan.preference,
        output=output,
        settings=config.fit,
        reward=config.reward,
        lineage={**source, "git_commit": commit, "rlaas": __version__, "config": config.model_dump(mode="json")},
        progress=progress,
    )
    version = Registry(settings).register(
        scenario.name,
        run.bundle,
        params={"kind": "policy", "algorithm": config.fit.method, **_parameters(config)},
        metrics=run.metrics,
        tags={
            "git_commit": commit,
            "lake_versions": {table.name: table.version},
            "reference_hash": scenario.reference_hash,
            "seed": config.fit.seed,
        },
        curve=run.curve,
        alias=alias,
    )
    manifest = load_bundle(run.bundle).manifest
    report = {
        "scenario": scenario.name,
        "method": config.fit.method,
        "source": source,
        "rows": manifest.lineage["rows"],
        "left_out": manifest.lineage["left_out"],
        "metrics": run.metrics,
        "policy": {"name": version.name, "version": version.version},
        "bundle": str(run.bundle),
        "warm_start": str(output),
        "unknown": _unknown(scenario, manifest.lineage),
    }
    return dataclasses.replace(run, mlflow_run_id=version.run_id), version, report


def _some(table: LoggedTable, config: OfflineConfig, scenario: Scenario) -> Iterator[pa.Table]:
    """The table's rows; none at all is an error that says what was looked for."""
    found = False
    for batch in table.batches():
        found = True
        yield batch
    if not found:
        chosen = {"scenario": scenario.name, **config.source.describe()}
        text = ", ".join(f"{key} {value}" for key, value in chosen.items())
        raise InvalidInputError(f"no row of {table.name} version {table.version} matches: {text}", field="source")


def _parameters(config: OfflineConfig) -> dict[str, Any]:
    """The configuration as flat parameters for the registry."""
    fields = config.model_dump(mode="json", exclude_none=True)
    return {key: json.dumps(value) if isinstance(value, dict | list) else value for key, value in fields.items()}


def _unknown(scenario: Scenario, lineage: Mapping[str, Any]) -> list[str]:
    """What the log does not say about the fitted policy, a sentence each."""
    missing = [
        "how good the policy is: nothing was evaluated; rlaas evaluate simulates it, an experiment measures it",
    ]
    left_out, rows = lineage["left_out"], lineage["rows"]
    if left_out:
        missing.append(f"what {left_out} of {rows} rows led to: their successors are not logged, they were left out")
    action, logged = scenario.single_action_space, lineage["actions"]
    if isinstance(action, spaces.Discrete):
        if logged["never_taken"]:
            listed = ", ".join(map(str, logged["never_taken"][:20]))
            more = "" if len(logged["never_taken"]) <= 20 else f" and {len(logged['never_taken']) - 20} more"
            missing.append(f"what choices {listed}{more} bring: the log never took them")
        return missing
    assert isinstance(action, spaces.Box)
    for i, (low, high) in enumerate(zip(logged["low"], logged["high"], strict=True)):
        least, most = float(action.low[i]), float(action.high[i])
        if high - low < TRIED_SHARE * (most - least):
            missing.append(
                f"what action {i} brings outside {low:.4g} to {high:.4g}: the log has no more of {least:g} to {most:g}"
            )
    return missing
