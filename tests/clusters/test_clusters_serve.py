"""What the manifests ask of Serve and of the training job exists in the code they will meet."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema
from support.manifests import OVERLAYS, Document, of_kind, render

from ray_apps.platform import PlatformArgs, build_app
from rlaas import scenarios
from rlaas.serving.config import load_serving_config
from rlaas.training import load_config


@pytest.fixture(scope="module", params=OVERLAYS)
def documents(request: pytest.FixtureRequest, repository: Path) -> list[Document]:
    return render(repository / "clusters" / "overlays" / str(request.param))


@pytest.fixture
def serve_config(documents: list[Document]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(of_kind(documents, "RayService")[0]["spec"]["serveConfigV2"])
    return loaded


@pytest.fixture
def mounted(documents: list[Document], tmp_path: Path) -> Path:
    """The ConfigMap's files as a pod sees them; stands for /etc/rlaas."""
    (files,) = (m["data"] for m in of_kind(documents, "ConfigMap") if "serving.yaml" in m["data"])
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def dropped_keys(given: Any, kept: Any, path: str = "") -> list[str]:
    """Paths that a model has ignored: Serve's own schemas do that without a word."""
    if isinstance(given, dict):
        missing = [f"{path}.{key}" for key in given if key not in kept]
        return missing + [
            p for key in given if key in kept for p in dropped_keys(given[key], kept[key], f"{path}.{key}")
        ]
    if isinstance(given, list):
        return [p for i, item in enumerate(given) for p in dropped_keys(item, kept[i], f"{path}[{i}]")]
    return []


def deployment_names(application: Application) -> set[str]:
    bound = application._bound_deployment
    names = {bound.name}
    for argument in (*bound.init_args, *bound.init_kwargs.values()):
        if isinstance(argument, Application):
            names |= deployment_names(argument)
    return names


def test_serve_config_is_serves_own_schema_and_nothing_else(serve_config: dict[str, Any]) -> None:
    parsed = ServeDeploySchema.model_validate(serve_config)
    assert dropped_keys(serve_config, parsed.model_dump(exclude_unset=True)) == []
    (application,) = parsed.applications
    assert (application.name, application.route_prefix) == ("rlaas", "/")
    assert application.external_scaler_enabled
    assert parsed.http_options.host == "0.0.0.0"

    serve_config["applications"][0]["deployments"][0]["num_replica"] = 2
    again = ServeDeploySchema.model_validate(serve_config).model_dump(exclude_unset=True)
    assert dropped_keys(serve_config, again) == [".applications[0].deployments[0].num_replica"]


def test_the_application_is_built_from_the_mounted_file(serve_config: dict[str, Any], mounted: Path) -> None:
    (application,) = serve_config["applications"]
    module, attribute = application["import_path"].split(":")
    assert (module, attribute) == (build_app.__module__, build_app.__name__)
    args = PlatformArgs.model_validate(application["args"])
    assert args.config is not None
    file = mounted / Path(args.config).relative_to("/etc/rlaas")
    built = build_app(PlatformArgs(config=str(file), home=str(mounted / "home")))
    assert {deployment["name"] for deployment in application["deployments"]} <= deployment_names(built)


def test_the_serving_file_says_what_the_local_one_says(mounted: Path, repository: Path) -> None:
    local = load_serving_config(repository / "configs" / "serving" / "local.yaml")
    # On a cluster the size of the pool is Serve's own configuration: with both it could not tell whom to follow.
    assert local.scaling is not None
    assert load_serving_config(mounted / "serving.yaml") == local.model_copy(update={"scaling": None})


def test_gateways_fit_on_the_workers(documents: list[Document], serve_config: dict[str, Any], mounted: Path) -> None:
    gateway = load_serving_config(mounted / "serving.yaml").gateway
    (override,) = serve_config["applications"][0]["deployments"]
    (group,) = of_kind(documents, "RayService")[0]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cores = float(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    # Beside the Gateways stand Control and the Committer, with a twentieth of a core each.
    assert override["num_replicas"] * gateway.num_cpus + 0.1 <= cores * group["maxReplicas"]


def test_the_job_runs_a_module_that_exists_with_a_file_that_loads(documents: list[Document], mounted: Path) -> None:
    (job,) = of_kind(documents, "RayJob")
    assert job["spec"]["suspend"] is True, "applying the manifests must not start a training"
    python, dash_m, module, option, path = shlex.split(job["spec"]["entrypoint"])
    assert (python, dash_m, option) == ("python", "-m", "--config")
    assert find_spec(module) is not None
    config = load_config(mounted / Path(path).relative_to("/etc/rlaas"))
    assert config.scenario is not None
    assert scenarios.load(config.scenario, **config.options).name == config.scenario
