"""Whether as many rows arrived in an hour as in the same hour of earlier days.

The count of an hour is judged by ``z = |x - median| / max(1.4826 MAD, 1)`` over the same hour of the ``n`` days before,
where every count is first made into ``2 sqrt(count + 3/8)`` (Anscombe 1948), which gives Poisson counts a standard
deviation of one: the floor, so that an hour that is always the same does not alarm at one row more. Without the floor,
and where the days are alike, z depends on ``n`` alone and not on how much traffic there is; its quantile is computed
for that ``n``, and the floor makes alarms only rarer. (The normal quantile would alarm several times too often.)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import special

from rlaas.lake.validation.checks import Check

__all__ = ["HOUR_US", "VolumeConfig", "check_volume", "robust_z", "threshold"]

HOUR_US = 3_600_000_000
_MAD_TO_SIGMA = 1.4826
_DRAWS = 40_000


class VolumeConfig(BaseModel):
    """When the number of rows is an anomaly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hours: int = Field(default=24, ge=1, le=24, description="newest full hours that are judged")
    days: int = Field(default=28, ge=3, le=90, description="earlier days that each is held against")
    min_days: int = Field(default=7, ge=3, description="with fewer days of history an hour is not judged")
    false_alarm_rate: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="highest probability that a run raises an alarm although the days are alike",
    )


def robust_z(count: NDArray[np.int64], earlier: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of counts [hours] from the same hour of earlier days [days, hours], in robust deviations; signed."""
    now, before = _levelled(count), _levelled(earlier)
    middle = np.median(before, axis=0)
    spread = _MAD_TO_SIGMA * np.median(np.abs(before - middle), axis=0)
    return np.asarray((now - middle) / np.maximum(spread, 1.0))


def _levelled(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(2.0 * np.sqrt(counts + 0.375))


@lru_cache(maxsize=256)
def threshold(days: int, rate: float) -> float:
    """The z that ``rate`` of the hours exceed where all ``days`` + 1 days are alike (normal after levelling).

    The tail given median and spread is the normal one in closed form; only over these two is averaged, so that small
    rates are as exact as large ones.
    """
    draws = np.random.default_rng(days).standard_normal((_DRAWS, days))
    middle = np.median(draws, axis=1)
    spread = _MAD_TO_SIGMA * np.median(np.abs(draws - middle[:, None]), axis=1)
    low, high = 0.0, 1e4
    for _ in range(40):
        z = 0.5 * (low + high)
        tail = special.ndtr(-z * spread - middle) + special.ndtr(-z * spread + middle)
        low, high = (z, high) if float(tail.mean()) > rate else (low, z)
    return high


def check_volume(times_us: NDArray[np.int64], now_us: int, config: VolumeConfig) -> Check:
    """Judge the newest full hours before ``now_us``.

    Args:
        times_us: when rows arrived, UTC microseconds, at least of the last ``config.days + 2`` days.
        now_us: present time, UTC microseconds.
        config: what is judged, and how often it may cry wolf.
    """
    end = now_us // HOUR_US  # the hour that is running is not over
    history = config.days * 24 + config.hours
    hours = times_us // HOUR_US
    counts = np.bincount(
        hours[(hours >= end - history) & (hours < end)] - (end - history), minlength=history
    )  # [history]
    # The day on which a table began, and everything before it, says nothing about what is usual.
    begun = int(hours.min()) + 1 if len(hours) else end
    days = min(config.days, (end - config.hours - begun) // 24)
    required = f"no hour of the last {config.hours} unlike the same hour of earlier days (false alarms in at "
    required += f"most {config.false_alarm_rate:.3g} of the runs)"
    if days < config.min_days:
        detail = f"not judged: {max(days, 0)} days of history, needed {config.min_days}"
        return Check(name="volume", passed=True, measured=None, required=required, detail=detail)
    recent = counts[-config.hours :]
    earlier = np.stack([counts[-config.hours - 24 * day :][: config.hours] for day in range(1, days + 1)])
    z = robust_z(recent, earlier)
    allowed = threshold(days, config.false_alarm_rate / config.hours)
    worst = int(np.abs(z).argmax())
    passed = bool(np.abs(z[worst]) <= allowed)
    hour = (end - config.hours + worst) % 24
    detail = f"{hour:02d}:00 had {recent[worst]} rows, median of {days} days {np.median(earlier[:, worst]):.6g}"
    return Check(
        name="volume",
        passed=passed,
        measured=float(z[worst]),
        required=f"{required}: |z| at most {allowed:.3g}",
        detail="" if passed else detail,
    )
