"""Weights that follow the context: load, time of day, violations of agreements."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.objectives import Mode, Preference

__all__ = ["DynamicWeights", "Ramp", "WeightAdapter", "Window"]

FloatArray = NDArray[np.float64]
Finite = Annotated[float, Field(allow_inf_nan=False)]

DAY_S = 86_400.0


class _Term(BaseModel):
    """What one context field does to one weight.

    Attributes:
        field: of the context.
        objective: whose weight it moves.
        effect: ``multiply`` the base weight by ``1 + gain * activation``, or ``add`` ``gain * activation`` to it.
        gain: at full activation; below -1 a product ends at 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str = Field(min_length=1)
    objective: str = Field(min_length=1)
    effect: Literal["multiply", "add"] = "multiply"
    gain: Finite


class Ramp(_Term):
    """A term whose activation rises from 0 at ``low`` to 1 at ``high``, and stays there; ``high < low`` turns it round.

    Attributes:
        low, high: values of the field; not equal.
    """

    kind: Literal["ramp"] = "ramp"
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _check(self) -> Ramp:
        if self.low == self.high or not math.isfinite(self.high - self.low):
            raise ConfigurationError(
                f"low and high must differ by a finite amount, got {self.low!r} and {self.high!r}", field="high"
            )
        return self

    def activation(self, value: float) -> float:
        """In [0, 1] for a finite value of the field."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


class Window(_Term):
    """A term that is active from ``start`` to ``end`` of every period, with soft edges; a window may span its end.

    Attributes:
        start, end: in units of the field (seconds since midnight for the time of day), within [0, period); not equal.
        period: after which the field repeats itself; a day in seconds.
        fade: over which the activation rises before ``start`` and falls after ``end``; 0 for hard edges.
    """

    kind: Literal["window"] = "window"
    start: float = Field(ge=0, allow_inf_nan=False)
    end: float = Field(ge=0, allow_inf_nan=False)
    period: float = Field(default=DAY_S, gt=0, allow_inf_nan=False)
    fade: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Window:
        if self.start == self.end or max(self.start, self.end) >= self.period:
            raise ConfigurationError(
                f"start and end must differ and lie in [0, {self.period:g}), got {self.start!r} and {self.end!r}",
                field="end",
            )
        return self

    def activation(self, value: float) -> float:
        """In [0, 1] for a finite value of the field."""
        length = (self.end - self.start) % self.period
        since = (value - self.start) % self.period
        if since <= length:
            return 1.0
        outside = min(since - length, self.period - since)
        return max(1.0 - outside / self.fade, 0.0) if self.fade > 0 else 0.0


class DynamicWeights(BaseModel):
    """How weights follow the context.

    Starting from the weights of a mode every term moves one weight; the result is scaled to sum 1 and brought within
    ``[floor, cap]`` by the nearest point there (Euclidean). It is total: a field that is missing, None or not finite
    leaves its terms without effect, and without any term the mode's own weights stay.

    Attributes:
        mode: name of the mode whose weights are the base.
        terms: in any order; several may move one weight: products first, then sums. In a file each states its kind.
        interval_s: seconds between two changes, at least.
        floor, cap: of every weight.
        smoothing_s: time constant with which weights approach their target, in seconds; 0 jumps there.
        min_change: least share of the weight that has to move (half the L1 distance) before anything changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: str = Field(min_length=1)
    terms: tuple[Annotated[Ramp | Window, Field(discriminator="kind")], ...] = Field(min_length=1)
    interval_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    floor: float = Field(default=0.0, ge=0, le=1)
    cap: float = Field(default=1.0, gt=0, le=1)
    smoothing_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    min_change: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> DynamicWeights:
        if self.floor > self.cap:
            raise ConfigurationError(f"floor must be <= cap ({self.cap:g}), got {self.floor:g}", field="floor")
        return self

    def target(self, base: Preference, context: Mapping[str, Any]) -> Preference:
        """The weights that ``context`` asks for, without interval or smoothing.

        Args:
            base: weights of the mode.
            context: numbers by field; more fields than the terms name are fine.

        Raises:
            InvalidInputError: a field that a term names and whose value is no number.
        """
        factors = dict.fromkeys(base.names, 1.0)
        shifts = dict.fromkeys(base.names, 0.0)
        for term in self.terms:
            value = _number(context, term.field)
            if value is None:
                continue
            if term.effect == "multiply":
                factors[term.objective] *= max(1.0 + term.gain * term.activation(value), 0.0)
            else:
                shifts[term.objective] += term.gain * term.activation(value)
        moved = [max(w * factors[n] + shifts[n], 0.0) for n, w in zip(base.names, base.weights, strict=True)]
        if not any(moved) or not all(map(math.isfinite, moved)):
            moved = list(base.weights)  # terms that leave nothing, or overflow, leave no direction to follow
        scaled = Preference.of(base.names, moved).array()
        return Preference.of(base.names, _within(scaled, self.floor, self.cap))


class WeightAdapter:
    """The weights in force over time; thread-safe, without a clock of its own.

    Args:
        config: how weights follow the context.
        mode: the base; rules and description stay those of it.

    Raises:
        ConfigurationError: a mode of another name, a term on an objective that it lacks, or a floor or cap that its
            number of objectives cannot keep.
    """

    def __init__(self, config: DynamicWeights, mode: Mode) -> None:
        check_choice(mode.name, [config.mode], field="mode")
        size = len(mode.preference.names)
        for i, term in enumerate(config.terms):
            check_choice(term.objective, mode.preference.names, field=f"terms.{i}.objective")
        if config.floor * size > 1:
            raise ConfigurationError(f"floor must be <= 1/{size} for {size} objectives", field="floor")
        if config.cap * size < 1:
            raise ConfigurationError(f"cap must be >= 1/{size} for {size} objectives", field="cap")
        self.config = config
        self.base = mode
        self._lock = threading.Lock()
        self._current: Preference | None = None
        self._changed_at = -math.inf

    def weights(self, context: Mapping[str, Any], now: float) -> Preference:
        """The weights in force at ``now``.

        The first call goes straight to its target. Later ones look at the context only once ``interval_s`` has gone
        by since they last did; a ``now`` that lies before that changes nothing.

        Args:
            context: numbers by field, see :meth:`DynamicWeights.target`.
            now: seconds on any clock that does not run backwards.

        Raises:
            InvalidInputError: ``now`` or a field that a term names is no number, or ``now`` is not finite.
        """
        moment = _number({"now": now}, "now")
        if moment is None:
            raise InvalidInputError(f"now must be a finite number of seconds, got {shown(now)}", field="now")
        with self._lock:
            if self._current is None:
                self._current = self.config.target(self.base.preference, context)
                self._changed_at = moment
            elif moment - self._changed_at >= self.config.interval_s:
                self._current = self._approached(self._current, context, moment - self._changed_at)
                self._changed_at = moment
            return self._current

    def mode(self, context: Mapping[str, Any], now: float) -> Mode:
        """The base mode with the weights in force; arguments and errors of :meth:`weights`."""
        weights = self.weights(context, now)
        return Mode(name=self.base.name, preference=weights, rules=self.base.rules, description=self.base.description)

    def _approached(self, current: Preference, context: Mapping[str, Any], elapsed: float) -> Preference:
        target = self.config.target(self.base.preference, context)
        difference = target.array() - current.array()
        if 0.5 * np.abs(difference).sum() < self.config.min_change or not difference.any():
            return current
        if self.config.smoothing_s <= 0:
            return target
        share = -math.expm1(-elapsed / self.config.smoothing_s)
        return Preference.of(current.names, current.array() + share * difference)


def _number(context: Mapping[str, Any], name: str) -> float | None:
    """The field as a float, None where it is missing, None or not finite."""
    value = context.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise InvalidInputError(f"{name} must be a number, got {shown(value)}", field=name)
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the floats
        return None
    return number if math.isfinite(number) else None


def _within(weights: FloatArray, floor: float, cap: float) -> FloatArray:
    """The point nearest ``weights`` [m] with every entry in [floor, cap] and sum 1.

    It is ``clip(weights + t, floor, cap)`` for the one t that gives the sum; between two neighbouring kinks of that
    rising, piecewise linear sum it is found exactly (Wang & Lu 2015, arXiv:1503.01002).
    """
    if ((weights >= floor) & (weights <= cap)).all():
        return weights
    kinks = np.unique(np.concatenate([floor - weights, cap - weights]))
    sums = np.array([np.clip(weights + t, floor, cap).sum() for t in kinks])
    return np.asarray(np.clip(weights + np.interp(1.0, sums, kinks), floor, cap))
