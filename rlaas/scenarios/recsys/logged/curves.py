"""Facts of a log that a simulator can be held against: click level, click by position, and whether it is sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.recsys.logged.open_bandit import LoggedFeedback

__all__ = ["PositionCurve", "PropensityBalance", "position_curve", "propensity_balance", "wilson_interval"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PositionCurve:
    """Clicks by position of the page, and of the log as a whole.

    Attributes:
        policy, campaign: of the log.
        clicks, impressions: [n_positions].
        rate, low, high: clicks per impression with its Wilson interval [n_positions]; NaN where nothing was shown.
        level, level_low, level_high: clicks per impression of the whole log.
        p_value: of a chi-square test that all positions have the same rate (each expects at least 5 clicks in the
            shipped sample); 1 where the log holds no click or one position only.
    """

    policy: str
    campaign: str
    clicks: IntArray
    impressions: IntArray
    rate: FloatArray
    low: FloatArray
    high: FloatArray
    level: float
    level_low: float
    level_high: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PropensityBalance:
    """Mean of 1 / propensity over the number of items, by position: 1 in expectation where propensities are right.

    Attributes:
        ratio, low, high: [n_positions], with a 95 % Student interval.
    """

    ratio: FloatArray
    low: FloatArray
    high: FloatArray


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, *, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Wilson's score interval of a share (Wilson 1927), elementwise; NaN where there is no trial.

    Raises:
        ConfigurationError: confidence outside (0, 1).
        InvalidInputError: negative counts or more successes than trials.
    """
    if not 0 < confidence < 1:
        raise ConfigurationError(f"confidence is {confidence}; expected a number in (0, 1)", field="confidence")
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    if not ((k >= 0) & (k <= n)).all():
        raise InvalidInputError("successes must lie in 0 .. trials", field="successes")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = np.divide(k, n, out=np.full(np.broadcast(k, n).shape, np.nan), where=n > 0)
    inverse = np.divide(1.0, n, out=np.full(share.shape, np.nan), where=n > 0)
    scale = 1 + z * z * inverse
    centre = (share + z * z * inverse / 2) / scale
    half = z * np.sqrt(share * (1 - share) * inverse + (z * inverse / 2) ** 2) / scale
    # The ends touch 0 and 1 exactly, which rounding would miss.
    return np.where(k == 0, share * 0.0, centre - half), np.where((k == n) & (n > 0), 1.0, centre + half)


def position_curve(log: LoggedFeedback, *, confidence: float = 0.95) -> PositionCurve:
    """Clicks, impressions and click rate with Wilson interval by position."""
    impressions = np.bincount(log.position, minlength=log.n_positions)
    clicks = np.bincount(log.position, weights=log.click, minlength=log.n_positions).astype(np.int64)
    low, high = wilson_interval(clicks, impressions, confidence=confidence)
    level_low, level_high = wilson_interval(clicks.sum(), impressions.sum(), confidence=confidence)
    used = impressions > 0
    p_value = 1.0
    if used.sum() > 1 and 0 < clicks.sum() < impressions.sum():
        table = np.array([clicks[used], (impressions - clicks)[used]])
        p_value = float(stats.chi2_contingency(table, correction=False).pvalue)
    return PositionCurve(
        policy=log.policy,
        campaign=log.campaign,
        clicks=clicks,
        impressions=impressions,
        rate=np.divide(clicks, impressions, out=np.full(log.n_positions, np.nan), where=used),
        low=low,
        high=high,
        level=float(log.click.mean()),
        level_low=float(level_low),
        level_high=float(level_high),
        p_value=p_value,
    )


def propensity_balance(log: LoggedFeedback) -> PropensityBalance:
    """Whether the logged propensities can be what the items were drawn by.

    E[1 / propensity of the drawn item] is the number of items, whatever the policy and however it moves with time, as
    long as no item had propensity 0.

    Raises:
        InvalidInputError: a position with fewer than 2 rows.
    """
    ratio, half = np.empty(log.n_positions), np.empty(log.n_positions)
    for position in range(log.n_positions):
        inverse = 1 / log.propensity[log.position == position] / log.n_items
        n = len(inverse)
        if n < 2:
            raise InvalidInputError(f"position {position} has {n} rows; at least 2 are needed", field="position")
        ratio[position] = inverse.mean()
        half[position] = stats.t.ppf(0.975, n - 1) * inverse.std(ddof=1) / np.sqrt(n)
    return PropensityBalance(ratio=ratio, low=ratio - half, high=ratio + half)
