r"""Means of bounded values with a guarantee at every sample size, by betting.

Values are scaled to x in [0, 1]. Two procedures run side by side on a state of a few numbers:

- The interval is the predictable plug-in empirical Bernstein sequence (Waudby-Smith & Ramdas 2024, "Estimating means of
  bounded random variables by betting", theorem 2). With lambda_i and the mean m_{i-1} chosen before x_i is seen,
  exp(sum of lambda_i (x_i - mean) - (x_i - m_{i-1})^2 (-log(1 - lambda_i) - lambda_i)) averages at most 1, which solves
  to sum(lambda x) / sum(lambda) -+ (log(1 / level) + sum of penalties) / sum(lambda), in closed form.
- The e-value is the capital of a gambler who bets against the null mean m at fair odds, growing by
  1 + lambda_i (x_i - m), with the approximate growth-optimal bet lambda = (m_{i-1} - m) / (s^2_{i-1} + (m_{i-1} - m)^2)
  (the same paper, appendix B.3, "aGRAPA").

Each holds on its own; the e-value is the stronger for small samples and may reject a little before the interval leaves
the null. Which of them decides is to be said beforehand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.inference.checks import (
    Side,
    Standing,
    checked_level,
    checked_number,
    checked_side,
    checked_values,
    opened,
    packed,
)

__all__ = ["BoundedDifference", "BoundedMean"]

FloatArray = NDArray[np.float64]

_N, _TOTAL, _SPREAD, _WEIGHT, _WEIGHTED, _PENALTY, _LOW, _HIGH, _LOG_E, _PEAK, _OUTCOMES = range(11)
"""Where each number stands in the state: observations, their sum, the squared distances from the mean before each, the
sums of lambda, of lambda x and of penalties, the interval so far, the e-value's logarithm and its largest, and the sum
of scaled outcomes (of a difference)."""

_FIELDS = 11
_CAP = 0.5
"""Largest lambda, and largest share of its capital that the gambler stakes (the paper's c = 1/2)."""


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _observe(state: FloatArray, x: float, log_level: float, null: float, side: int) -> None:
    """One value in [0, 1]; ``side`` is 0 for two-sided, 1 for greater, -1 for less."""
    seen = state[_N]
    mean = (0.5 + state[_TOTAL]) / (seen + 1)
    variance = (0.25 + state[_SPREAD]) / (seen + 1)
    edge = mean - null
    stake = edge / (variance + edge * edge)
    stake = min(max(stake, -_CAP / (1 - null)), _CAP / null)
    if (side > 0 and stake < 0) or (side < 0 and stake > 0):
        stake = 0.0
    state[_LOG_E] += math.log1p(stake * (x - null))
    state[_PEAK] = max(state[_PEAK], state[_LOG_E])
    # The rate that is best for the interval at this size, a little slower so that it shrinks at all later ones.
    rate = min(math.sqrt(2 * log_level / (variance * (seen + 1) * math.log(seen + 2))), _CAP)
    gap = (x - mean) * (x - mean)
    state[_WEIGHT] += rate
    state[_WEIGHTED] += rate * x
    state[_PENALTY] += gap * (-math.log1p(-rate) - rate)
    centre = state[_WEIGHTED] / state[_WEIGHT]
    half = (log_level + state[_PENALTY]) / state[_WEIGHT]
    if side >= 0:
        state[_LOW] = max(state[_LOW], centre - half)
    if side <= 0:
        state[_HIGH] = min(state[_HIGH], centre + half)
    state[_N] = seen + 1
    state[_TOTAL] += x
    state[_SPREAD] += gap


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _observe_all(state: FloatArray, x: FloatArray, log_level: float, null: float, side: int) -> None:
    for i in range(len(x)):
        _observe(state, x[i], log_level, null, side)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _observe_units(
    state: FloatArray,
    y: FloatArray,
    treated: NDArray[np.bool_],
    propensity: FloatArray,
    least: float,
    log_level: float,
    null: float,
    side: int,
) -> None:
    """Outcomes y in [0, 1] as scores +-(y - baseline) / propensity, which lie within +-1 / least, scaled to [0, 1]."""
    for i in range(len(y)):
        baseline = (0.5 + state[_OUTCOMES]) / (state[_N] + 1)
        away = y[i] - baseline
        score = away / propensity[i] if treated[i] else -away / (1 - propensity[i])
        state[_OUTCOMES] += y[i]
        _observe(state, (score * least + 1) / 2, log_level, null, side)


class _Bet:
    """What both monitors share: options and state, and the way back from [0, 1] to the values' scale."""

    kind: str

    def __init__(self, low: float, high: float, *, null: float, alpha: float, alternative: Side) -> None:
        self.low, self.high = checked_number(low, "low"), checked_number(high, "high")
        if not self.low < self.high:
            raise InvalidInputError(f"low is {self.low} and high {self.high}; expected low < high", field="high")
        self.alpha = checked_level(alpha)
        self.alternative = checked_side(alternative)
        self.null = checked_number(null, "null")
        self._origin, self._span = self.low, self.high - self.low  # of what is observed, on the values' scale
        self._state = np.zeros(_FIELDS)
        self._state[_HIGH] = 1.0

    def _prepare(self) -> None:
        self._scaled_null = (self.null - self._origin) / self._span
        if not 0 < self._scaled_null < 1:
            raise InvalidInputError(
                f"null is {self.null}; expected a number between {self._origin:g} and {self._origin + self._span:g}",
                field="null",
            )
        self._side = {"two-sided": 0, "greater": 1, "less": -1}[self.alternative]
        self._log_level = -math.log(self.alpha / 2 if self._side == 0 else self.alpha)

    def standing(self) -> Standing:
        """What may be said now; the interval is the intersection of those after each observation."""
        state = self._state
        n = int(state[_N])
        return Standing(
            n=n,
            estimate=self._origin + self._span * float(state[_TOTAL]) / n if n else math.nan,
            low=-math.inf if self._side < 0 else self._origin + self._span * float(state[_LOW]),
            high=math.inf if self._side > 0 else self._origin + self._span * float(state[_HIGH]),
            log_e=float(state[_LOG_E]),
            p_value=math.exp(-float(state[_PEAK])),
        )

    def _options(self) -> dict[str, Any]:
        names = ("low", "high", "null", "alpha", "alternative")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        return packed(self.kind, self._options(), {"numbers": self._state.tolist()})

    def _read(self, numbers: Any) -> None:
        state = checked_values(numbers, "numbers")
        if state.shape != (_FIELDS,):
            raise InvalidInputError(f"numbers has shape {state.shape}; expected ({_FIELDS},)", field="numbers")
        self._state = state.copy()


class BoundedMean(_Bet):
    """Confidence sequence and e-value for the mean of values in [low, high], fed in the order they came.

    Values need not be alike: it is enough that each has the same mean given the ones before it.

    Args:
        low, high: bounds of the values.
        null: mean that the e-value speaks against, strictly between them; default: the middle.
        alpha: probability of ever missing the mean.
        alternative: ``greater`` gives a lower bound only and tests mean <= null, ``less`` an upper one.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "bounded-mean"

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        *,
        null: float | None = None,
        alpha: float = 0.05,
        alternative: Side = "two-sided",
    ) -> None:
        middle = (checked_number(low, "low") + checked_number(high, "high")) / 2
        super().__init__(low, high, null=middle if null is None else null, alpha=alpha, alternative=alternative)
        self._prepare()

    def update(self, values: ArrayLike) -> Standing:
        """Add values [n]; each counts as a look.

        Raises:
            InvalidInputError: a value outside the bounds.
        """
        x = (checked_values(values, "values", self.low, self.high) - self._origin) / self._span
        _observe_all(self._state, np.clip(x, 0.0, 1.0), self._log_level, self._scaled_null, self._side)
        return self.standing()

    @classmethod
    def from_dict(cls, document: Any) -> BoundedMean:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        options, state = opened(document, cls.kind, ("low", "high", "null", "alpha", "alternative"), ("numbers",))
        found = cls(**options)
        found._read(state["numbers"])
        return found


class BoundedDifference(_Bet):
    """Confidence sequence and e-value for the mean of the treatment minus that of the control, unit by unit.

    A unit with outcome y that got the treatment with probability p contributes (y - b) / p if it did and
    -(y - b) / (1 - p) if not, whose mean is the difference whatever the baseline b known before it; b is the mean
    outcome so far, which takes out most of the variance. Propensities may change from unit to unit and follow past
    outcomes, as under a bandit (Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro 2024, "Anytime-valid off-policy
    inference for contextual bandits").

    Args:
        low, high: bounds of the outcomes.
        least_propensity: no arm's propensity is ever below it; in (0, 0.5]. The closer to the actual ones, the better.
        null: difference that the e-value speaks against.
        alpha: probability of ever missing the difference.
        alternative: ``greater`` gives a lower bound only and tests difference <= null, ``less`` an upper one.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "bounded-difference"

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1.0,
        *,
        least_propensity: float = 0.5,
        null: float = 0.0,
        alpha: float = 0.05,
        alternative: Side = "two-sided",
    ) -> None:
        super().__init__(low, high, null=null, alpha=alpha, alternative=alternative)
        self.least_propensity = checked_number(least_propensity, "least_propensity", above=0)
        if self.least_propensity > 0.5:
            raise InvalidInputError(
                f"least_propensity is {least_propensity}; expected a number in (0, 0.5]", field="least_propensity"
            )
        reach = (self.high - self.low) / self.least_propensity
        self._origin, self._span = -reach, 2 * reach
        self._prepare()

    def update(self, outcome: ArrayLike, treated: ArrayLike, propensity: ArrayLike | None = None) -> Standing:
        """Add units in the order of their exposure; each counts as a look.

        Args:
            outcome: of each unit [n].
            treated: whether it was in the treatment [n].
            propensity: probability of the treatment when it was assigned [n], or one for all; default 0.5.

        Raises:
            InvalidInputError: rows that do not fit, an outcome outside the bounds, or a propensity that leaves an arm
                less than ``least_propensity``.
        """
        y = (checked_values(outcome, "outcome", self.low, self.high) - self.low) / (self.high - self.low)
        arm = np.atleast_1d(np.asarray(treated))
        if arm.shape != y.shape or not np.isin(arm, (0, 1)).all():
            raise InvalidInputError(f"treated must hold {len(y)} truth values, got {shown(treated)}", field="treated")
        least = self.least_propensity
        chance = checked_values(0.5 if propensity is None else propensity, "propensity", least, 1 - least)
        if len(chance) not in (1, len(y)):
            raise InvalidInputError(f"propensity has {len(chance)} rows; expected {len(y)}", field="propensity")
        _observe_units(
            self._state,
            np.clip(y, 0.0, 1.0),
            arm.astype(np.bool_),
            np.ascontiguousarray(np.broadcast_to(chance, y.shape)),
            least,
            self._log_level,
            self._scaled_null,
            self._side,
        )
        return self.standing()

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        options = {**self._options(), "least_propensity": self.least_propensity}
        return packed(self.kind, options, {"numbers": self._state.tolist()})

    @classmethod
    def from_dict(cls, document: Any) -> BoundedDifference:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        keys = ("low", "high", "null", "alpha", "alternative", "least_propensity")
        options, state = opened(document, cls.kind, keys, ("numbers",))
        found = cls(**options)
        found._read(state["numbers"])
        return found
