"""A federation as a job: its policy is registered under the run that its rounds are nested in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.local_ray import started_ray

from rlaas.errors import ConfigurationError, ConflictError
from rlaas.pipeline import federation_folder, run_federation
from rlaas.registry import Registry
from rlaas.settings import load_settings
from rlaas.training.federated import FederationConfig

TESTS = Path(__file__).parent.parent

CONFIG: dict[str, Any] = {
    "name": "toys",
    "training": {
        "scenario": "support.toy:ToyScenario",
        "algorithm": "ppo",
        "num_envs": 8,
        "hidden": (16, 16),
        "ppo": {"rollout_length": 16, "minibatch": 64},
        "evaluation_seeds": (7, 8),
        "evaluation_preferences": 3,
        "evaluation_steps": 20,
    },
    "sites": ({"name": "north", "cpus": 0.1}, {"name": "south", "cpus": 0.1}),
    "rounds": 9,
    "decisions": 128,
    "share": "policy",
    "normaliser": "fixed",
    "evaluate_every": 2,
    "start_s": 200.0,
    "keep_site_state": False,
    "privacy": {"clip": 0.1, "noise_multiplier": 2.0, "delta": 1e-3, "epsilon": 3.5},
}


@pytest.fixture(scope="module")
def ray_with_support() -> Iterator[None]:
    """A Ray whose workers can import the toys."""
    with started_ray(TESTS):
        yield


@pytest.mark.ray
def test_a_federation_is_registered_with_its_lineage_and_only_once(ray_with_support: None, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    config = FederationConfig(**CONFIG)
    report = run_federation(config, settings)
    # 3.5 pays for four rounds at noise multiplier 2 and delta 1e-3, see the accountant's tests.
    done = len(report["rounds"])
    assert 1 < done < 9
    assert report["stopped"].startswith("privacy budget")
    registry = Registry(settings)
    version = registry.get(report["policy"]["name"], "candidate")
    assert version.version == report["policy"]["version"] == 1
    assert version.run_id == report["mlflow_run_id"]
    assert version.metrics["rounds"] == done
    assert 0 < version.metrics["epsilon"] <= 3.5
    assert version.metrics["delta"] == 1e-3
    assert {"hypervolume", "utility"} <= set(version.metrics)
    assert version.tags["federation.sites"] == "north, south"
    lineage = registry.document(version.name, 1, "federation.json")
    assert lineage is not None
    assert [r["number"] for r in lineage["rounds"]] == list(range(1, done + 1))
    assert set(lineage["rounds"][1]["evaluation"]) == {"hypervolume", "utility"}
    assert lineage["rounds"][0]["evaluation"] == {}
    assert registry.front(version.name, 1) is not None
    assert federation_folder(config, settings).is_dir()
    with pytest.raises(ConflictError, match=r"federation 'toys' is finished: its policy is \S+ version 1; .*--fresh"):
        run_federation(config, settings)
    with pytest.raises(ConflictError, match="holds a federation of another configuration"):
        run_federation(config.model_copy(update={"rounds": 8}), settings)


def test_a_policy_that_nothing_serves_is_refused(tmp_path: Path) -> None:
    values = CONFIG | {"training": {"environment": "CartPole-v1"}}
    with pytest.raises(ConfigurationError, match=r"training\.scenario is missing"):
        run_federation(FederationConfig(**values), load_settings(home=tmp_path))
    assert not list(tmp_path.iterdir())
