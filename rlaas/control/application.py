"""The platform as one Serve application: Gateway -> Control -> Committer."""

from __future__ import annotations

import time
from typing import Any

import httpx
import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from rlaas.control.committing import CommitterDeployment
from rlaas.control.deployment import Control
from rlaas.control.rollouts.store import RolloutStore
from rlaas.control.scaling import autoscaling_of
from rlaas.control.state import StateDatabase
from rlaas.errors import ConfigurationError, OperatorError
from rlaas.serving.config import ScalingConfig, ServingConfig
from rlaas.serving.gateway import Gateway
from rlaas.settings import Settings

__all__ = ["APPLICATION", "build_application", "check_home", "start_platform", "stop_platform"]

APPLICATION = "rlaas"
# Nearly idle: they must start beside Gateways and trainers on a machine with two cores.
_SMALL = {"num_cpus": 0.05}


def build_application(config: ServingConfig, settings: Settings) -> Application:
    """The application, ready for ``serve.run``.

    Args:
        config: pools, limits and intervals.
        settings: where state lives; local paths are absolute already.

    Raises:
        ConfigurationError: the home is local, but Ray has more than one node.
    """
    check_home(settings)
    quiet: Any = LoggingConfig(log_level="WARNING", enable_access_log=False)
    gateway = config.gateway
    committer = CommitterDeployment.options(  # type: ignore[attr-defined]
        num_replicas=1, ray_actor_options=_SMALL, max_ongoing_requests=100, logging_config=quiet
    ).bind(config, settings)
    control = Control.options(  # type: ignore[attr-defined]
        num_replicas=1, ray_actor_options=_SMALL, max_ongoing_requests=1000, logging_config=quiet
    ).bind(committer, config, settings)
    size: dict[str, Any] = {"num_replicas": gateway.num_replicas}
    if config.scaling is not None:
        size = {"num_replicas": "auto", "autoscaling_config": autoscaling_of(gateway, config.scaling)}
    application: Application = Gateway.options(  # type: ignore[attr-defined]
        **size,
        ray_actor_options={"num_cpus": gateway.num_cpus},
        max_ongoing_requests=gateway.max_ongoing_requests,
        max_queued_requests=gateway.max_queued_requests,
        max_surge_percent=gateway.max_surge_percent,
        health_check_period_s=5,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=20,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config=quiet,
    ).bind(control, config, settings)
    return application


def start_platform(
    config: ServingConfig,
    settings: Settings,
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    replicas: int | None = None,
    timeout_s: float = 120.0,
) -> str:
    """Start the platform on the Ray that this process is connected to, and wait until it answers.

    Args:
        config: configuration of the platform.
        settings: where state lives.
        port: TCP port of HTTP.
        host: address to listen on; only this machine by default.
        replicas: Gateways, if not as configured; it overrides what was said through the API earlier.
        timeout_s: how long to wait for the first answer.

    Returns:
        The base URL. The platform is alive then; ``/ready`` says whether a policy is loaded.

    Raises:
        ConfigurationError: Ray is not running, or the home is local to one of several nodes.
        OperatorError: the platform does not come up.
    """
    if not ray.is_initialized():
        raise ConfigurationError("connect to Ray first (ray.init)", field="ray")
    config = _sized(config, replicas)
    application = build_application(config, settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    if replicas is not None:
        RolloutStore(StateDatabase(settings.state_database), settings.tenant).set_scaling(None)
    quiet: Any = LoggingConfig(log_level="WARNING", enable_access_log=False)
    serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=quiet)
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as problem:
        raise OperatorError(f"the platform did not start: {str(problem).splitlines()[0]}") from problem
    base_url = f"http://{host}:{port}"
    _await_health(base_url, timeout_s)
    return base_url


def _sized(config: ServingConfig, replicas: int | None) -> ServingConfig:
    """With a pool that follows its load, and ``replicas`` Gateways at first; bounds that exclude them give way."""
    document = config.model_dump()
    scaling = document["scaling"] = document["scaling"] or ScalingConfig().model_dump()
    if replicas is not None:
        document["gateway"]["num_replicas"] = replicas
        if scaling["min_replicas"] is not None:
            scaling["min_replicas"] = min(scaling["min_replicas"], replicas)
        if scaling["max_replicas"] is not None:
            scaling["max_replicas"] = max(scaling["max_replicas"], replicas)
    return ServingConfig.model_validate(document)


def stop_platform() -> None:
    """Stop the platform; what was acknowledged is in the write-ahead log and is committed now or by the next start.

    Serve itself goes on: on a shared cluster it may serve other applications, and a local Ray takes it along.
    """
    serve.delete(APPLICATION)


def check_home(settings: Settings) -> None:
    """Raise if ``settings.home`` is local to one of several Ray nodes.

    Raises:
        ConfigurationError: naming the way out.
    """
    if settings.home_is_shared or not ray.is_initialized():
        return
    alive = sum(1 for node in ray.nodes() if node["Alive"])
    if alive > 1:
        raise ConfigurationError(
            f"home {str(settings.home)!r} is local but Ray has {alive} nodes; put it on a volume that every node "
            "mounts and set RLAAS_HOME_IS_SHARED=true",
            field="home",
        )


def _await_health(base_url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{base_url}/health", timeout=5.0)
            if answer.status_code == 200:
                return
            reason = f"HTTP {answer.status_code}"
        except httpx.TransportError as problem:
            reason = str(problem)
        time.sleep(0.1)
    raise OperatorError(f"the platform does not answer at {base_url}: {reason}")
