"""What the manifests ask of Serve and of the training job exists in the code they will meet."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve._private.haproxy import HAProxyApi, HAProxyConfig, get_haproxy_binary
from ray.serve.schema import ServeDeploySchema
from support.manifests import OVERLAYS, Document, of_kind, render

from ray_apps.platform import PlatformArgs, build_app
from rlaas import scenarios
from rlaas.control.scaling import PoolPolicy
from rlaas.serving.config import load_serving_config
from rlaas.training import load_config


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def documents(overlay: str, repository: Path) -> list[Document]:
    return render(repository / "clusters" / "overlays" / overlay)


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
    # Either would put the pool's own policy aside.
    assert not application.external_scaler_enabled
    assert application.deployments == []
    assert parsed.http_options.host == "0.0.0.0"

    serve_config["applications"][0]["external_scaler"] = True
    again = ServeDeploySchema.model_validate(serve_config).model_dump(exclude_unset=True)
    assert dropped_keys(serve_config, again) == [".applications[0].external_scaler"]


def test_the_application_is_built_from_the_mounted_file(serve_config: dict[str, Any], mounted: Path) -> None:
    (application,) = serve_config["applications"]
    module, attribute = application["import_path"].split(":")
    assert (module, attribute) == (build_app.__module__, build_app.__name__)
    args = PlatformArgs.model_validate(application["args"])
    assert args.config is not None
    file = mounted / Path(args.config).relative_to("/etc/rlaas")
    built = build_app(PlatformArgs(config=str(file), home=str(mounted / "home")))
    assert deployment_names(built) == {"Gateway", "Control", "Committer"}


def test_the_serving_file_says_what_the_local_one_says_but_for_the_size_of_the_pool(
    overlay: str, mounted: Path, repository: Path
) -> None:
    local = load_serving_config(repository / "configs" / "serving" / "local.yaml")
    deployed = load_serving_config(mounted / "serving.yaml")
    assert local.scaling is not None
    assert deployed.scaling is not None
    bounds = deployed.scaling.min_replicas, deployed.scaling.max_replicas
    assert bounds == {"local": (1, 1), "staging": (2, 9), "prod": (8, 60)}[overlay]
    size = {"min_replicas": bounds[0], "max_replicas": bounds[1]}
    assert deployed == local.model_copy(
        update={
            "gateway": local.gateway.model_copy(update={"num_replicas": bounds[0]}),
            "scaling": local.scaling.model_copy(update=size),
        }
    )


def test_the_pool_follows_its_own_policy_within_the_bounds_of_the_file(mounted: Path) -> None:
    scaling = load_serving_config(mounted / "serving.yaml").scaling
    assert scaling is not None
    built = build_app(PlatformArgs(config=str(mounted / "serving.yaml"), home=str(mounted / "home")))
    told = built._bound_deployment._deployment_config.autoscaling_config
    assert told is not None
    assert told.initial_replicas == scaling.min_replicas
    assert told.policy.policy_function == f"{PoolPolicy.__module__}.{PoolPolicy.__name__}"
    assert (told.policy.policy_kwargs["least"], told.policy.policy_kwargs["most"]) == (
        scaling.min_replicas,
        scaling.max_replicas,
    )


def test_haproxy_waits_for_a_header_no_longer_than_a_replica(
    documents: list[Document], mounted: Path, tmp_path: Path
) -> None:
    (environment,) = (m["data"] for m in of_kind(documents, "ConfigMap") if "RLAAS_HOME" in m["data"])
    file = tmp_path / "proxy" / "haproxy.cfg"
    told = HAProxyConfig(
        retry_on=environment["RAY_SERVE_HAPROXY_RETRY_ON"],
        socket_path=str(tmp_path / "admin.sock"),
        server_state_base=str(tmp_path),
        server_state_file=str(tmp_path / "state"),
        metrics_enabled=False,
    )
    HAProxyApi(told, config_file_path=str(file))._generate_config_file_internal()
    sections = re.split(r"^(?=\w)", file.read_text(), flags=re.MULTILINE)
    (defaults,) = (section for section in sections if section.startswith("defaults"))
    limit = load_serving_config(mounted / "serving.yaml").gateway.body_timeout_s
    lines = [line.strip() for line in defaults.splitlines()]
    assert f"timeout http-request {limit:g}s" in lines
    assert {"retry-on conn-failure", "option dontlog-normal"} <= set(lines)
    checked = subprocess.run([get_haproxy_binary(), "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_gateways_fit_on_the_workers(documents: list[Document], mounted: Path) -> None:
    config = load_serving_config(mounted / "serving.yaml")
    assert config.scaling is not None
    least, most = config.scaling.min_replicas, config.scaling.max_replicas
    assert least is not None
    assert most is not None
    (group,) = of_kind(documents, "RayService")[0]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cores = float(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    for gateways, workers in ((least, group["minReplicas"]), (most, group["maxReplicas"])):
        # Beside the Gateways stand Control and the Committer, with a twentieth of a core each.
        assert gateways * config.gateway.num_cpus + 0.1 <= cores * workers
        assert gateways * config.scaling.target_busy <= cores * workers, "busy as they should be, they have room"


def test_the_job_runs_a_module_that_exists_with_a_file_that_loads(documents: list[Document], mounted: Path) -> None:
    (job,) = of_kind(documents, "RayJob")
    assert job["spec"]["suspend"] is True, "applying the manifests must not start a training"
    python, dash_m, module, option, path = shlex.split(job["spec"]["entrypoint"])
    assert (python, dash_m, option) == ("python", "-m", "--config")
    assert find_spec(module) is not None
    config = load_config(mounted / Path(path).relative_to("/etc/rlaas"))
    assert config.scenario is not None
    assert scenarios.load(config.scenario, **config.options).name == config.scenario
