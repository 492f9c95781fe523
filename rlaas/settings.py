"""Process settings, read from ``RLAAS_*`` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rlaas.errors import ConfigurationError

__all__ = ["Settings", "load_settings"]


class Settings(BaseSettings):
    """Where state lives and how this process behaves.

    On the embedded default everything lies under ``home``; each store has a URL for the real thing.
    Build it in the driver (:func:`load_settings` makes local paths absolute) and hand the object on: a relative
    path would otherwise land in the throw-away copy of a job's working directory.
    """

    model_config = SettingsConfigDict(env_prefix="RLAAS_", frozen=True, extra="forbid")

    home: Path = Field(default=Path(".rlaas"), description="folder of the embedded stores")
    home_is_shared: bool = Field(default=False, description="home is a volume that every node mounts")
    tenant: str = Field(default="default", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    lake_url: str | None = Field(default=None, description="Delta root; default home/lake")
    mlflow_url: str | None = Field(default=None, description="MLflow tracking URI; default SQLite in home")
    artifact_url: str | None = Field(default=None, description="MLflow artifact root; default home/artifacts")
    state_url: str | None = Field(default=None, description="SQLAlchemy URL of the state; default SQLite in home")
    features_url: str | None = Field(default=None, description="SQLAlchemy URL of the features; default SQLite in home")
    secret: SecretStr | None = Field(default=None, description="signs decision ids; default kept in the state database")
    lake_plan: Path | None = Field(default=None, description="YAML of the lake's housekeeping; default: its defaults")
    privacy: Path | None = Field(default=None, description="YAML of what is personal in the lake; default nothing")
    privacy_url: str | None = Field(default=None, description="SQLAlchemy URL of the vault; default SQLite in home")
    openlineage_url: str | None = Field(default=None, description="where lineage events go: http(s), or a file")
    kafka_bootstrap: str | None = Field(default=None, description="Kafka brokers of rlaas lake stream, host:port")
    durability: Literal["process"] = Field(default="process", description="what an acknowledgement survives")

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("privacy", "lake_plan")
    @classmethod
    def _absolute_file(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("openlineage_url")
    @classmethod
    def _absolute_unless_a_url(cls, value: str | None) -> str | None:
        return value if value is None or "://" in value else str(Path(value).expanduser().absolute())

    @property
    def lake_root(self) -> str:
        """Root of the Delta tables."""
        return self.lake_url or str(self.home / "lake")

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking (and registry) URI."""
        return self.mlflow_url or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def artifact_root(self) -> str:
        """Root of MLflow's artifacts."""
        return self.artifact_url or str(self.home / "artifacts")

    @property
    def state_database(self) -> str:
        """SQLAlchemy URL of the state database."""
        return self.state_url or f"sqlite:///{self.home / 'state.db'}"

    @property
    def privacy_database(self) -> str:
        """SQLAlchemy URL of the vault: keys of subjects, and who was erased."""
        return self.privacy_url or f"sqlite:///{self.home / 'privacy.db'}"

    @property
    def features_database(self) -> str:
        """SQLAlchemy URL of the features: their definitions and the online values."""
        return self.features_url or f"sqlite:///{self.home / 'features.db'}"

    @property
    def wal_root(self) -> Path:
        """Folder of the write-ahead logs."""
        return self.home / "wal"


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, with ``overrides`` on top.

    Raises:
        ConfigurationError: an invalid value, naming the variable.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"setting RLAAS_{name.upper()}: {first['msg']}", field=name) from problem
