"""Configuration of the platform application: YAML in, typed object out."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.configfiles import read_config
from rlaas.settings import Settings, load_settings

__all__ = [
    "CommitterConfig",
    "ControlConfig",
    "GatewayConfig",
    "ScalingConfig",
    "ServingConfig",
    "SettingsOverrides",
    "load_serving_config",
]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GatewayConfig(_Document):
    """The pool of Gateway replicas, which answers every request."""

    num_replicas: int = Field(default=1, ge=1, le=1000)
    num_cpus: float = Field(default=0.5, ge=0, description="CPUs that Ray reserves for one replica")
    max_ongoing_requests: int = Field(default=64, ge=1, description="requests in one replica at a time")
    max_queued_requests: int = Field(default=1024, ge=1, description="requests waiting per proxy; beyond it: 503")
    max_surge_percent: int = Field(default=100, ge=0, le=100, description="replicas added during a rolling update")
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, description="a longer body is refused with 413")
    body_timeout_s: float = Field(default=10.0, gt=0, le=600, description="a body that takes longer is cut with 408")
    max_open_requests: int = Field(
        default=512, ge=1, description="requests of the fast lane under way in one replica; beyond it: 429"
    )
    pressed_ms: float = Field(
        default=50.0, gt=0, le=60_000, description="delay of the event loop from which shadows and exploration are shed"
    )
    overloaded_ms: float = Field(
        default=500.0, gt=0, le=60_000, description="delay of the event loop from which requests are refused with 429"
    )
    max_loaded_policies: int = Field(
        default=256, ge=1, description="policies in memory of one replica; beyond it the least recently used one goes"
    )
    max_rows: int = Field(default=10_000, ge=1, description="observations in one request")
    online_keep_s: float = Field(
        default=1.0, ge=0, le=3600, description="seconds for which an online value that was read is used again"
    )
    seal_s: float = Field(
        default=0.5, gt=0, le=60, description="seconds between hand-overs of the log to the committer"
    )


class ScalingConfig(_Document):
    """How the pool of Gateways follows its load.

    What ``PUT .../scale`` or the bounds of a deployment say goes before the bounds here, and is kept.
    """

    min_replicas: int | None = Field(default=None, ge=1, le=1000, description="at least; default: num_replicas")
    max_replicas: int | None = Field(default=None, ge=1, le=1000, description="at most; default: num_replicas")
    target_busy: float = Field(
        default=0.6, gt=0, le=1, description="processor time that a Gateway should take, in cores; its loop has one"
    )
    tolerance: float = Field(default=0.15, ge=0, lt=1, description="share around it within which nothing changes")
    up_s: float = Field(default=5.0, ge=0, le=3600, description="seconds of more load before Gateways are added")
    down_s: float = Field(default=120.0, ge=0, le=86_400, description="seconds of less load before some are drained")
    interval_s: float = Field(default=2.0, ge=0.1, le=60, description="seconds between a Gateway's reports")

    @model_validator(mode="after")
    def _ordered(self) -> ScalingConfig:
        if self.min_replicas and self.max_replicas and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be >= min_replicas ({self.min_replicas}), got {self.max_replicas}")
        return self


class CommitterConfig(_Document):
    """The one process that moves the write-ahead logs into the lake."""

    interval_s: float = Field(default=1.0, gt=0, le=3600, description="seconds between commits")
    join_s: float = Field(
        default=30.0, gt=0, le=3600, description="seconds between joins of new decisions and outcomes"
    )
    upkeep_s: float = Field(
        default=300.0, gt=0, le=86_400, description="seconds between two looks at what the tables' files need"
    )


class ControlConfig(_Document):
    """The control plane."""

    poll_s: float = Field(default=1.0, gt=0, le=60, description="seconds between a Gateway's questions what is live")
    resolutions_s: float = Field(
        default=15.0, gt=0, le=3600, description="seconds between two looks at what became of past choices"
    )
    experiments_s: float = Field(
        default=30.0, gt=0, le=3600, description="seconds between two analyses of the experiments"
    )
    drift_s: float = Field(default=1.0, gt=0, le=3600, description="seconds between two looks at what has drifted")


class SettingsOverrides(_Document):
    """Process settings that the file fixes; what is left out comes from ``RLAAS_*``."""

    home: Path | None = None
    home_is_shared: bool | None = None
    lake_url: str | None = None
    mlflow_url: str | None = None
    artifact_url: str | None = None
    state_url: str | None = None


class ServingConfig(_Document):
    """Everything that ``configs/serving/*.yaml`` may say."""

    gateway: GatewayConfig = GatewayConfig()
    committer: CommitterConfig = CommitterConfig()
    control: ControlConfig = ControlConfig()
    scaling: ScalingConfig | None = Field(
        default=None,
        description="left out: rlaas serve takes the defaults, and under a Serve configuration file that file scales",
    )
    settings: SettingsOverrides = SettingsOverrides()

    def resolve_settings(self, **overrides: object) -> Settings:
        """Process settings: ``overrides`` over this file over the environment.

        Raises:
            ConfigurationError: an invalid value, naming the variable.
        """
        chosen = self.settings.model_dump(exclude_none=True)
        return load_settings(**{**chosen, **{key: value for key, value in overrides.items() if value is not None}})


def load_serving_config(path: Path | str | None = None) -> ServingConfig:
    """Read a serving configuration; without a path the defaults.

    Raises:
        ConfigurationError: the file cannot be read, is not YAML, or holds an unknown key or an impossible value.
            The message names the file, the path of the key and what is allowed.
    """
    if path is None:
        return ServingConfig()
    return read_config(path, ServingConfig)
