"""The whole pipeline on a toy: real training, real MLflow, real Delta tables, a registry with champions."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pipeline_logs import log_traffic
from pipeline_toys import Named, pipeline_config
from pipeline_tuner import tuner_of

from rlaas.errors import PipelineError
from rlaas.lake import Lake
from rlaas.pipeline import PipelineReport, plan_pipeline, run_pipeline
from rlaas.pipeline.continuous import pipeline_folder
from rlaas.pipeline.continuous.config import EvaluationConfig
from rlaas.registry import Registry
from rlaas.registry.store import Store
from rlaas.settings import Settings
from rlaas.training import export_constant
from rlaas.tuning import TrialPolicy

pytestmark = pytest.mark.ray

SEARCH = {
    "scenario": "pipeline_toys:Named",
    "tunable": "static",
    "generations": 2,
    "population": 8,
    "steps": 10,
    "warmup": 0,
    "seeds": [101],
}


def states(report: PipelineReport) -> dict[str, str]:
    return {stage.name: stage.status for stage in report.stages}


def reasons(report: PipelineReport) -> dict[str, str]:
    return {stage.name: stage.reason for stage in report.stages if stage.reason}


def test_first_run_registers_with_lineage_and_the_second_one_makes_nothing(local_ray: None, settings: Settings) -> None:
    log_traffic(Lake(settings.lake_root), "story", 20)
    tables = ["silver.transitions", "bronze.decisions"]
    config = pipeline_config("story", searches=[SEARCH], data={"tables": tables})
    report = run_pipeline(config, settings)
    assert states(report) == {
        "data": "run",
        "validate": "run",
        "train": "run",
        "tune": "skipped",
        "search": "run",
        "evaluate": "run",
        "register": "run",
    }
    document = report.to_dict()
    # What a pipeline has always reported.
    assert document["policy"] == {"name": "story", "version": 1, "alias": "candidate"}
    assert document["protocol"] == "short protocol: 8 seeds, 20 warm-up + 100 counted steps"
    assert {"size", "hypervolume", "policies_hypervolume", "configurations_hypervolume", "baseline_hypervolume"} <= set(
        document["front"]
    )
    assert 0 <= document["front"]["undecided"] <= document["front"]["size"]
    assert set(document["resolved"]) == {"balanced", "cheap"}
    assert document["verdict"]["opponent"]["name"] == "half"
    assert document["reasons"] == [document["verdict"]["sentence"]]

    registry, lake = Registry(settings), Lake(settings.lake_root)
    version = registry.get("story", "candidate")
    pinned = {table: lake.version(table) for table in sorted(tables)}
    assert version.tags["lake_versions"] == str(pinned).replace("'", '"')
    assert version.tags["seed"] == "1"
    assert version.tags["reference_hash"] == "toy"
    assert "git_commit" in version.tags
    keys = {stage.name: stage.key for stage in report.stages if stage.key and stage.name != "register"}
    assert version.tags["stage_keys"] == str(dict(sorted(keys.items()))).replace("'", '"')
    assert version.tags["pipeline_run"] == report.run_id
    assert {"hypervolume", "baseline_hypervolume", "cost", "quality", "reward"} <= version.metrics.keys()
    assert version.params["kind"] == "policy"
    assert version.params["steps"] == "300"
    front = registry.front("story", 1)
    assert front is not None
    assert front["scenario"] == "story"
    evaluation = registry.document("story", 1, "evaluation.json")
    assert evaluation is not None
    assert evaluation["chosen"] == "train"
    standing = {one["name"]: one for one in evaluation["race"]["standings"]}
    assert {"policy@balanced", "policy@cheap", "static-0"} <= set(standing)
    assert {one["status"] for one in standing.values()} <= {"member", "dominated", "undecided"}
    assert all(standing[c["name"]]["status"] != "dominated" for c in front["candidates"])
    assert {len(c["seeds"]) for c in front["candidates"]} == {len(evaluation["race"]["seeds"])}

    store = Store(settings)
    by_name = {stage.name: store.call("get_run", stage.run_id) for stage in report.stages}
    assert {run.data.tags["mlflow.parentRunId"] for run in by_name.values()} == {report.run_id}
    assert by_name["data"].data.tags["lake_versions"] == version.tags["lake_versions"]
    assert by_name["train"].data.tags["git_commit"] == version.tags["git_commit"]
    assert by_name["register"].data.tags["policy"] == "story/1"
    # The training is followed while it goes on, in a run of its own below its stage's.
    training = store.call("get_run", version.tags["training_run"])
    assert training.data.tags["mlflow.parentRunId"] == by_name["train"].info.run_id
    assert training.info.status == "FINISHED"
    assert training.data.params["steps"] == "300"
    assert training.data.metrics["curve/reward"] == (store.call("get_run", version.run_id).data.metrics["curve/reward"])
    assert by_name["train"].data.metrics["steps"] >= 300
    assert store.call("get_run", report.run_id).data.tags["policy"] == "story/1"

    again = run_pipeline(config, settings, start_ray=_no_ray)
    assert set(states(again).values()) == {"cached", "skipped"}
    assert again.policy == report.policy
    assert len(registry.versions("story")) == 1

    # New decisions: the data are others, the simulator's policy is not.
    log_traffic(lake, "story", 5, first=20)
    later = run_pipeline(config, settings, start_ray=_no_ray)
    assert states(later) == {**states(again), "data": "run", "validate": "run", "register": "run"}
    assert f"bronze.decisions version {pinned['bronze.decisions']} -> " in reasons(later)["data"]
    assert states(later)["train"] == states(later)["evaluate"] == "cached"
    assert later.policy == report.policy
    assert len(registry.versions("story")) == 1


def _no_ray() -> AbstractContextManager[Any]:
    raise AssertionError("nothing here needs Ray")


def test_only_what_beats_the_champion_is_registered_and_goes_live(local_ray: None, settings: Settings) -> None:
    registry = Registry(settings)

    def run(**training: Any) -> PipelineReport:
        options = {"called": "rivals", "guarded": False}
        config = pipeline_config(
            "rivals", {"options": options, **training}, alias="champion", evaluation={"other_modes": False}
        )
        return run_pipeline(config, settings)

    first = run()
    assert first.verdict["opponent"] == {"kind": "baseline", "name": "half", "version": None}
    assert (first.verdict["promote"], first.policy["version"]) == (True, 1)
    assert registry.get("rivals", "champion").version == 1

    worse = run(seed=2)
    assert reasons(worse)["train"] == "training.seed changed (1 -> 2)"
    assert worse.verdict["opponent"]["version"] == 1
    assert worse.verdict["verdict"] == "worse"
    assert worse.policy is None
    assert worse.reasons == [worse.verdict["sentence"]]
    assert [v.version for v in registry.versions("rivals")] == [1]

    better = run(steps=4000, hidden=[16])
    assert (better.verdict["verdict"], better.policy["version"]) == ("better", 2)
    champion = registry.get("rivals", "champion")
    assert champion.version == 2
    assert champion.tags["parent_version"] == "1"
    # Now the candidate is the champion. It is not held against itself: the verdict stands, and nothing is made again.
    again = run(steps=4000, hidden=[16])
    assert set(states(again).values()) == {"cached", "skipped"}
    assert again.policy == better.policy
    # The former champion has a new one to beat.
    former = run()
    assert states(former)["train"] == "cached"
    assert reasons(former)["evaluate"].startswith("champion changed (")
    assert former.policy is None
    assert registry.get("rivals", "champion").version == 2


def test_a_broken_contract_refuses_even_what_is_forced(local_ray: None, settings: Settings) -> None:
    log_traffic(Lake(settings.lake_root), "shop", 10, decided=lambda i: {"observation": [9.0, 1.0]} if i == 3 else {})
    config = pipeline_config("shop", data={"tables": ["silver.transitions"]}, force="always")
    report = run_pipeline(config, settings)
    assert report.policy is None
    assert report.contract["passed"] is False
    assert report.reasons == [
        (
            "the data contract is broken: out_of_range: 0.1, required at most 0 of the rows outside the scenario's "
            "spaces (decision shop-3: demand is 9)"
        )
    ]
    assert "shop" not in Registry(settings).names()
    lenient = pipeline_config(
        "shop", data={"tables": ["silver.transitions"]}, force="always", contract={"max_out_of_range": 0.2}
    )
    report = run_pipeline(lenient, settings)
    assert {name: status for name, status in states(report).items() if status == "run"} == {
        "validate": "run",
        "register": "run",
    }
    assert report.policy == {"name": "shop", "version": 1, "alias": "candidate"}


def test_a_deleted_version_is_registered_again_and_a_lost_cache_is_not_registered_twice(
    local_ray: None, settings: Settings, tmp_path: Path
) -> None:
    config, registry = pipeline_config("deleted"), Registry(settings)
    assert run_pipeline(config, settings).policy["version"] == 1
    registry.delete("deleted", 1)
    plan = {entry.name: (entry.outlook, entry.reason) for entry in plan_pipeline(config, settings)}
    assert plan["register"] == ("run", "version 1 is no longer registered")
    assert plan["evaluate"] == ("cached", "")
    assert run_pipeline(config, settings).policy["version"] == 2
    # The candidate is known by its weights, wherever the results of the stages have gone.
    (settings.home / "pipeline" / "default" / "deleted").rename(tmp_path / "gone")
    report = run_pipeline(config, settings)
    assert set(states(report).values()) == {"run", "skipped"}
    assert report.policy["version"] == 2
    assert [v.version for v in registry.versions("deleted")] == [2]


def test_warm_start_goes_on_from_the_champion(local_ray: None, settings: Settings) -> None:
    registry = Registry(settings)
    run_pipeline(pipeline_config("warm", alias="champion", force="always"), settings)
    config = pipeline_config("warm", {"steps": 100}, warm_start="champion", force="always")
    report = run_pipeline(config, settings)
    assert reasons(report)["train"].endswith("champion changed (none -> 1)") or "champion" in reasons(report)["train"]
    train = next(stage for stage in report.stages if stage.name == "train")
    run = Store(settings).call("get_run", train.run_id)
    assert run.data.tags["parent_policy"] == "warm/1"
    # A network of another shape cannot begin where the champion is.
    wide = pipeline_config("warm", {"hidden": [9]}, warm_start="champion")
    with pytest.raises(PipelineError, match=r"hidden \[8\] there, \[9\] in this run"):
        run_pipeline(wide, settings)
    assert registry.get("warm", "champion").version == 1


def test_a_start_from_logs_depends_on_the_data_and_on_its_contract(local_ray: None, settings: Settings) -> None:
    lake = Lake(settings.lake_root)
    log_traffic(lake, "logged", 40)
    fields: dict[str, Any] = {"data": {"tables": ["silver.transitions"]}, "fit": {"epochs": 2}}
    config = pipeline_config("logged", {"steps": 100}, warm_start="logs", **fields)
    report = run_pipeline(config, settings)
    train = next(stage for stage in report.stages if stage.name == "train")
    run = Store(settings).call("get_run", train.run_id)
    version = lake.version("silver.transitions")
    assert run.data.tags["lake_versions"] == f'{{"silver.transitions": {version}}}'
    folder = pipeline_folder(settings, "logged") / "train" / train.key
    lineage = json.loads((folder / "bundle" / "bundle.json").read_text())["lineage"]
    assert (lineage["warm_start"]["kind"], lineage["warm_start"]["critics"]) == ("fit", "taken")
    # Other data, another start.
    log_traffic(lake, "logged", 5, first=40, decided=lambda i: {"action": [7.0]} if i == 41 else {})
    with pytest.raises(PipelineError, match=r"transitions that break the contract: out_of_range.*logged-41: action 0"):
        run_pipeline(config, settings)


def _policies_of_trials(search: Path) -> list[TrialPolicy]:
    """As a search leaves them, best first: trials that learned to spend the same always."""
    return [
        TrialPolicy(
            trial=number,
            values={"learning_rate": number / 100},
            bundle=export_constant(Named(), [effort], search / "search" / f"trial-{number}" / "policy"),
        )
        for number, effort in ((5, 0.0), (2, 1.0), (1, 0.5))
    ]


def test_tuning_brings_a_second_candidate(local_ray: None, settings: Settings) -> None:
    config = pipeline_config("tuned", {"steps": 100}, tune={"trials": 3}, evaluation={"trials": 2})
    tuner = tuner_of({"steps": 2000, "learning_rate": 0.003}, policies=_policies_of_trials)
    report = run_pipeline(config, settings, tuner=tuner)
    assert states(report)["tune"] == "run"
    document = Registry(settings).document("tuned", 1, "evaluation.json")
    assert document is not None
    assert set(document["scores"]) == {"train", "tune"}
    # The best trials enter the front at every mode, as candidates of its archive: one saves, the other only spends.
    standing = {one["name"]: one for one in document["race"]["standings"]}
    assert {name for name in standing if name.startswith("trial-")} == {
        f"trial-{number}@{mode}" for number in (5, 2) for mode in ("balanced", "cheap")
    }
    assert standing["trial-5@cheap"]["status"] != "dominated"
    assert standing["trial-2@cheap"]["status"] == "dominated"
    front = Registry(settings).front("tuned", 1)
    assert front is not None
    (saving,) = (c for c in front["candidates"] if c["kind"] == "hyperparameters")
    assert saving["parameters"]["values"] == {"learning_rate": 0.05}
    assert document["chosen"] == max(document["scores"], key=document["scores"].get) == "tune"
    version = Registry(settings).get("tuned", 1)
    assert (version.params["steps"], version.params["learning_rate"]) == ("2000", "0.003")
    # It gives up the quality that the scenario guards: good for a candidate where there is no champion, not for one.
    assert report.verdict["broken"][0].startswith("guard quality does not hold")
    assert report.reasons[-1] == "registered as candidate: there is no champion yet"
    live = run_pipeline(config.model_copy(update={"alias": "champion"}), settings, tuner=tuner)
    assert reasons(live)["register"] == "alias changed (candidate -> champion)"
    assert live.policy is None
    # Told to, the front takes no trials; nothing is searched or trained again for that.
    alone = run_pipeline(config.model_copy(update={"evaluation": EvaluationConfig(trials=0)}), settings, tuner=tuner)
    assert states(alone)["tune"] == "cached"
    assert reasons(alone)["evaluate"] == "evaluation.trials changed (2 -> 0)"
    # What the search says is best may be what there was; a search that broke off is gone on with.
    tuner = tuner_of({}, failures=1)
    kept = run_pipeline(config, settings, tuner=tuner, force=["tune"])
    assert tuner.calls == [False, True]
    assert {stage.name: stage.metrics for stage in kept.stages}["tune"] == {
        "kept_configuration": 1.0,
        "trial_policies": 0.0,
    }


def test_a_policy_that_cannot_be_trained_is_reported_with_its_stage(local_ray: None, settings: Settings) -> None:
    config = pipeline_config(
        "broken",
        {"scenario": "pipeline_toys:Broken", "options": {"called": "broken"}},
        retries={"train": 0},
    )
    with pytest.raises(
        PipelineError, match=r"^stage train failed: .* became nan after .*: run the pipeline again to go"
    ):
        run_pipeline(config, settings, start_ray=nullcontext)
    plan = {entry.name: (entry.outlook, entry.reason) for entry in plan_pipeline(config, settings)}
    assert plan["data"] == ("cached", "")
    assert plan["train"][0] == "run"
    assert plan["train"][1].startswith("goes on after the last attempt: ")
