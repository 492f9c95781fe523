"""What is watched about a policy, and what happens when it drifts: one frozen document, from Python, YAML or HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.configfiles import read_config

__all__ = ["DriftConfig", "Reference", "Stream", "StreamKind", "load_drift_config"]

StreamKind = Literal["input", "action", "outcome"]
Stream = Annotated[str, Field(min_length=1, max_length=160)]
DAY_S = 86_400


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reference(_Document):
    """What counts as normal: learned from the traffic after a version goes live.

    First the baseline is fitted, then its errors are measured on seconds that it has not seen; only then is watched.
    """

    learn_s: int = Field(default=2 * DAY_S, ge=60, le=90 * DAY_S, description="seconds of traffic for the baseline")
    calibrate_s: int = Field(default=DAY_S, ge=60, le=90 * DAY_S, description="seconds for the size of its errors")
    cycle: Literal["none", "day", "week"] = Field(
        default="day", description="what repeats itself; none where there is less than two days of it"
    )
    harmonics: int = Field(default=8, ge=1, le=24, description="of the day: 8 follow what changes within 3 hours")
    lags: int = Field(default=3, ge=0, le=10, description="seconds before that a second is predicted from")
    tolerance: float = Field(
        default=0.0, ge=0.0, le=2.0, description="shifts up to so many sigma are normal; every sigma costs time"
    )

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        need = {"none": 60, "day": DAY_S, "week": 7 * DAY_S}[self.cycle]
        if self.learn_s < need:
            raise ValueError(f"learn_s must be >= {need} for cycle {self.cycle}, got {self.learn_s}")
        return self


class DriftConfig(_Document):
    """How a policy is watched.

    Its fields are those of ``POST /api/v1/models/{model}/drift-config``.
    """

    schema_version: Literal[1] = 1
    monitor: tuple[StreamKind, ...] = Field(
        default=("input", "action", "outcome"), min_length=1, description="kinds of streams that are watched"
    )
    features: tuple[Stream, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="names of streams, such as observation.3 or outcome.latency; null: all of the kinds",
    )
    arl_days: float = Field(
        default=100.0, gt=0, le=36_500, description="mean time to a false alarm over all streams together, at least"
    )
    shift_sigma: float = Field(
        default=1.0, ge=0.1, le=10, description="shift of the one-second means that is to be found soonest"
    )
    lateness_s: float = Field(default=2.0, ge=0, le=60, description="how late a record may reach the lake and count")
    reference: Reference = Reference()
    quiet_s: float = Field(
        default=600.0, ge=10, le=7 * DAY_S, description="seconds without evidence that end an episode"
    )
    cool_down_s: float = Field(default=3600.0, ge=0, le=30 * DAY_S, description="least seconds between two retrains")
    action: Literal["none", "alert", "retrain"] = Field(
        default="alert", description="none: only recorded; alert: webhook and log; retrain: these and one retraining"
    )
    webhook: str | None = Field(default=None, pattern=r"^https?://[^\s]{1,2000}$", description="told of every episode")
    pipeline: str | None = Field(
        default=None, max_length=1000, description="pipeline file that a retraining runs; needed for action retrain"
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.action == "retrain" and self.pipeline is None:
            raise ValueError("pipeline is needed for action retrain: the file that a retraining runs")
        if len(set(self.monitor)) < len(self.monitor):
            raise ValueError(f"monitor names a kind twice: {', '.join(self.monitor)}")
        return self


def load_drift_config(path: str | Path) -> DriftConfig:
    """Read a file of ``configs/drift/``.

    Raises:
        ConfigurationError: no such file, not YAML, or a wrong key or value; names it and what is allowed.
    """
    return read_config(path, DriftConfig)
