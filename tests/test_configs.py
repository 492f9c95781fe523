"""Every file under configs/ is loaded by its own model and describes something that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaas import scenarios
from rlaas.configfiles import read_config
from rlaas.decisions import DynamicWeights, WeightAdapter
from rlaas.decisions.rules import RuleFile
from rlaas.lake.features import load_features
from rlaas.lake.ingestion import load_mapping, load_stream_config
from rlaas.lake.lifecycle import LakePlan, load_lake_plan
from rlaas.lake.privacy import PrivacyPolicy
from rlaas.lake.validation import load_validation_config
from rlaas.monitoring import load_drift_config
from rlaas.optimization import load_optimization_config
from rlaas.pipeline import load_pipeline_config
from rlaas.serving import load_serving_config
from rlaas.training import load_config, load_offline_config
from rlaas.training.federated import load_federation_config
from rlaas.tuning import load_tuning_config

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*") if p.is_file())
LAKE: dict[str, Any] = {
    "ingest-decisions": load_mapping,
    "ingest-streams": load_stream_config,
    "validation": load_validation_config,
    "housekeeping": load_lake_plan,
}
LOADERS: dict[str, Any] = {
    "training": load_config,
    "optimization": load_optimization_config,
    "offline": load_offline_config,
    "pipeline": load_pipeline_config,
    "serving": load_serving_config,
    "tuning": load_tuning_config,
    "federated": load_federation_config,
    "drift": load_drift_config,
    "weights": lambda path: read_config(path, DynamicWeights),
    "rules": lambda path: read_config(path, RuleFile),
    "features": load_features,
    "lake": lambda path: LAKE[path.stem](path),
    "privacy": lambda path: read_config(path, PrivacyPolicy),
}


def test_every_folder_has_files() -> None:
    assert {name.split("/")[0] for name in FILES} == set(LOADERS)


@pytest.mark.parametrize("name", FILES)
def test_file_loads(name: str) -> None:
    config = LOADERS[name.split("/", maxsplit=1)[0]](CONFIGS / name)
    for part in (config, getattr(config, "training", None), *getattr(config, "searches", ())):
        scenario = getattr(part, "scenario", None)
        if scenario is not None:
            loaded = scenarios.load(scenario, **part.options)
            if getattr(part, "mode", None) is not None:
                assert part.mode in loaded.modes
            if hasattr(part, "tunable"):
                assert part.tunable in loaded.tunables


def check_recommended(config: Any, where: str) -> None:
    scenario = scenarios.load(str(config.scenario))
    written = config.model_dump(exclude_unset=True)
    for key, value in scenario.training_defaults.items():
        assert written[key] == (value if not isinstance(value, dict) else {**written[key], **value}), (where, key)


# A plain environment recommends nothing, and SAC is for where decisions cost more than a simulator's do.
OTHERS = ("training/deep-sea-treasure.yaml", "training/network5g-sac.yaml")
RECOMMENDED = [name for name in FILES if name.startswith(("training/", "pipeline/")) and name not in OTHERS]


@pytest.mark.parametrize("name", RECOMMENDED)
def test_shipped_files_train_as_the_scenario_recommends(name: str) -> None:
    config = LOADERS[name.split("/", maxsplit=1)[0]](CONFIGS / name)
    check_recommended(getattr(config, "training", config), name)


def test_the_clusters_job_trains_as_the_scenario_recommends(repository: Path) -> None:
    path = repository / "clusters" / "base" / "config" / "training.yaml"
    check_recommended(load_config(path), path.name)


def test_the_weights_of_network5g_follow_load_night_and_violations() -> None:
    config = read_config(CONFIGS / "weights" / "network5g.yaml", DynamicWeights)
    mode = scenarios.load("network5g").modes[config.mode]
    calm = WeightAdapter(config, mode).weights({"load": 0.3, "time": 43_200, "violations": 0}, 0.0).to_dict()
    assert calm == pytest.approx(mode.preference.to_dict())
    for context, raised in (
        ({"load": 0.95, "time": 43_200}, "latency"),
        ({"load": 0.3, "time": 0}, "energy"),
        ({"violations": 4}, "satisfaction"),
    ):
        found = WeightAdapter(config, mode).weights(context, 0.0).to_dict()
        assert max(found, key=lambda name: found[name]) == raised


def test_the_plan_of_the_lake_writes_out_the_defaults() -> None:
    assert load_lake_plan(CONFIGS / "lake" / "housekeeping.yaml") == LakePlan()
