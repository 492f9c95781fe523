"""Facts of a log that a simulator can be held against: click level, click by position, and whether it is sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from rlaas.errors import ConfigurationError, InvalidInputError, shown
from rlaas.scenarios.checks import is_number, is_whole, numbers
from rlaas.scenarios.recsys.logged.open_bandit import LoggedFeedback, check_log

__all__ = [
    "PositionCurve",
    "PropensityBalance",
    "clustered_interval",
    "detectable_ratio",
    "position_curve",
    "propensity_balance",
    "wilson_interval",
]

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
    if not is_number(confidence) or not 0 < confidence < 1:
        raise ConfigurationError(f"confidence is {shown(confidence)}; expected a number in (0, 1)", field="confidence")
    k, n = numbers(successes, "successes").astype(np.float64), numbers(trials, "trials").astype(np.float64)
    try:
        fits = bool(((k >= 0) & (k <= n)).all())
    except ValueError as error:
        raise InvalidInputError(f"successes {k.shape} and trials {n.shape} do not fit", field="successes") from error
    if not fits:
        raise InvalidInputError("successes must lie in 0 .. trials", field="successes")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = np.divide(k, n, out=np.full(np.broadcast(k, n).shape, np.nan), where=n > 0)
    inverse = np.divide(1.0, n, out=np.full(share.shape, np.nan), where=n > 0)
    scale = 1 + z * z * inverse
    centre = (share + z * z * inverse / 2) / scale
    half = z * np.sqrt(share * (1 - share) * inverse + (z * inverse / 2) ** 2) / scale
    # The ends touch 0 and 1 exactly, which rounding would miss.
    return np.where(k == 0, share * 0.0, centre - half), np.where((k == n) & (n > 0), 1.0, centre + half)


def clustered_interval(
    clicks: ArrayLike, impressions: ArrayLike, *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Interval of clicks per impression where impressions of one cluster (a stream of users) depend on one another.

    Wilson's, with the impressions divided by the design effect (Kish 1965; Korn & Graubard 1998): the variance of the
    ratio over clusters, by linearisation, over that of independent impressions. A design effect below 1 counts as 1.

    Args:
        clicks, impressions: of each cluster [n_clusters], at least 2; clusters are independent.
        confidence: level of the interval.

    Returns:
        Low and high end, and the design effect.

    Raises:
        ConfigurationError: confidence outside (0, 1).
        InvalidInputError: fewer than 2 clusters, no impression, or more clicks than impressions.
    """
    k, n = (_counts(values, name) for values, name in ((clicks, "clicks"), (impressions, "impressions")))
    if k.shape != n.shape or k.ndim != 1 or len(k) < 2 or not n.sum() > 0:
        raise InvalidInputError(
            f"clicks {k.shape} and impressions {n.shape} must be of the same clusters, at least 2, with an impression",
            field="clicks",
        )
    total, clusters = n.sum(), len(k)
    rate = k.sum() / total
    deviation = k - rate * n
    variance = deviation @ deviation * clusters / (clusters - 1) / total**2
    alone = rate * (1 - rate) / total
    effect = max(float(variance / alone), 1.0) if alone > 0 else 1.0
    low, high = wilson_interval(k.sum() / effect, total / effect, confidence=confidence)
    return float(low), float(high), effect


def detectable_ratio(clicks: int, positions: int, *, level: float = 0.05, power: float = 0.8) -> float:
    """How many times as often as the others, all alike, a position must be clicked for a chi-square test to show it.

    Args:
        clicks: of all positions together, which are shown equally often.
        positions: how many there are, at least 2.
        level: of the test.
        power: chance to find it.

    Returns:
        The ratio; infinite where so few clicks could not show even one position taking them all.

    Raises:
        InvalidInputError: no click, or fewer than 2 positions.
    """
    for name, value, least, most in (("clicks", clicks, 1, 10**9), ("positions", positions, 2, 1000)):
        if not is_whole(value) or not least <= value <= most:
            raise InvalidInputError(
                f"{name} must be a whole number from {least} to {most}, got {shown(value)}", field=name
            )
    degrees = positions - 1
    bar = stats.chi2.isf(level, degrees)

    def excess(share: float) -> float:
        # Noncentrality of Pearson's statistic, clicks x sum (share - 1 / positions)^2 x positions.
        apart = (share - 1 / positions) ** 2 * positions * (1 + 1 / degrees)
        return float(stats.ncx2.sf(bar, degrees, clicks * apart)) - power

    whole = 1 - 1e-9
    if excess(whole) < 0:
        return float("inf")
    share = float(optimize.brentq(excess, 1 / positions + 1e-9, whole))
    return share / (1 - share) * degrees


def _counts(values: ArrayLike, name: str) -> FloatArray:
    array = numbers(values, name).astype(np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise InvalidInputError(f"{name} must be finite and >= 0", field=name)
    return array


def position_curve(log: LoggedFeedback, *, confidence: float = 0.95) -> PositionCurve:
    """Clicks, impressions and click rate with Wilson interval by position.

    Raises:
        ConfigurationError: confidence outside (0, 1).
        InvalidInputError: no log.
    """
    check_log(log)
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
        InvalidInputError: no log, or a position with fewer than 2 rows.
    """
    check_log(log)
    ratio, half = np.empty(log.n_positions), np.empty(log.n_positions)
    for position in range(log.n_positions):
        inverse = 1 / log.propensity[log.position == position] / log.n_items
        n = len(inverse)
        if n < 2:
            raise InvalidInputError(f"position {position} has {n} rows; at least 2 are needed", field="position")
        ratio[position] = inverse.mean()
        half[position] = stats.t.ppf(0.975, n - 1) * inverse.std(ddof=1) / np.sqrt(n)
    return PropensityBalance(ratio=ratio, low=ratio - half, high=ratio + half)
