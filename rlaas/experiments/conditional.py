"""Shares that depend on what a request brings: its features, or how it weighs the objectives.

Between two batches the posterior of every variant stands still, and with it a number of coefficient vectors drawn from
it. The share of a variant at a context x is that of the draws under which its expected reward at x is the largest
(Thompson 1933; Agrawal & Goyal 2013), mixed with the minimum. Since the draws are fixed this is no estimate of the
probability by which the variant is chosen, but that probability itself, and it can be worked out again later.

A unit is drawn by a hash of the salt, its key and its context: it keeps its variant for as long as it brings the same
context, and with another one it is drawn anew, independently of before. It then counts as a unit of its own, so that
the logged propensity is the one that held, whatever it was shown before.

Only numpy: a Gateway assigns by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.experiments.assignment import Assignment

__all__ = ["ArmPosterior", "ConditionalAssigner", "ConditionalSpec", "Feature", "FeatureReader", "draw_coefficients"]

FloatArray = NDArray[np.float64]
Float32 = NDArray[np.float32]
Finite = Annotated[float, Field(allow_inf_nan=False)]

_NUMBERS = (float, int)
_LARGEST = 1e30
"""Sum of the sizes of the features of a request: beyond it they are taken for missing."""

_WORD = Struct(">Q56x").unpack
_DROPPED, _SCALE = 11, 2.0**-53


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Document):
    """A number of a request by which the better variant may differ."""

    source: Literal["observation", "context"] = Field(description="where the request has it")
    name: str = Field(min_length=1, max_length=128, description="of the policy's feature, or in the context")
    center: Finite = Field(default=0.0, description="taken off: a usual value")
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="divided by: how far values usually vary")
    index: int | None = Field(
        default=None, ge=0, strict=True, description="place in the observation; looked up by the name at the start"
    )


class ArmPosterior(_Document):
    """Posterior of a variant's coefficients: multivariate Student's, ``location + z spread / sqrt(gamma)``."""

    name: str
    location: tuple[Finite, ...] = Field(description="[d]")
    spread: tuple[tuple[Finite, ...], ...] = Field(description="[d, d], by which a row of standard normals is turned")
    degrees: float = Field(ge=1, allow_inf_nan=False, description="of freedom")


class ConditionalSpec(_Document):
    """How one batch is divided by context: by features with an intercept in front, or by weights of objectives."""

    features: tuple[Feature, ...] = Field(default=(), max_length=32)
    objectives: tuple[str, ...] = Field(
        default=(), max_length=32, description="that a preference weighs, in this order"
    )
    arms: tuple[ArmPosterior, ...] = Field(
        default=(), max_length=8, description="none: the variants' weights as they are"
    )
    minimum_share: float = Field(gt=0, lt=1, description="that every variant keeps")
    draws: int = Field(ge=100, le=10_000, strict=True)
    seed: int = Field(ge=0, strict=True)

    @model_validator(mode="after")
    def _fits(self) -> ConditionalSpec:
        if bool(self.features) == bool(self.objectives):
            raise ValueError("give features or objectives, one of them")
        d = len(self.features) + 1 if self.features else len(self.objectives)
        for arm in self.arms:
            if len(arm.location) != d or len(arm.spread) != d or any(len(row) != d for row in arm.spread):
                raise ValueError(f"arm {arm.name}: expected {d} coefficients and a spread of {d} by {d}")
        if self.arms and self.minimum_share * len(self.arms) > 1:
            raise ValueError(f"minimum_share of {len(self.arms)} variants must be at most {1 / len(self.arms):g} each")
        if any(one.source == "observation" and one.index is None for one in self.features):
            raise ValueError("a feature of the observation needs its index")
        return self


class FeatureReader:
    """Reads the features of a request: the same numbers from what was sent and from what was logged.

    Args:
        features: what to read.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple((one.index if one.source == "observation" else None, one.name) for one in features)

    def __call__(self, observation: Sequence[float] | Float32, context: Mapping[str, Any]) -> Float32 | None:
        """Values [n_features], before centre and scale; None where one is missing or is no number of usual size."""
        values: list[float] = []
        for index, name in self._features:
            if index is None:
                given: Any = context.get(name)
                if type(given) not in _NUMBERS:  # nor a truth value
                    return None
                values.append(given)
            else:
                values.append(observation[index])
        try:
            if not sum(map(abs, values)) < _LARGEST:
                return None
        except OverflowError:  # a whole number beyond floating point beside a fraction
            return None
        return np.array(values, dtype=np.float32)


def draw_coefficients(arms: Sequence[ArmPosterior], draws: int, seed: int | Sequence[int]) -> FloatArray:
    """Coefficient vectors of every arm drawn from its posterior [draws, n_arms, d]; the same for the same seed."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(arms), len(arms[0].location)))
    for place, arm in enumerate(arms):
        noise = rng.standard_normal((draws, len(arm.location)))
        mixing = np.sqrt(rng.gamma(arm.degrees / 2, 2 / arm.degrees, (draws, 1)))
        drawn[:, place] = np.array(arm.location) + noise @ np.array(arm.spread) / mixing
    return drawn


class ConditionalAssigner:
    """A batch compiled for the hot path.

    Args:
        spec: how it is divided.
        salt: of the experiment in this batch.
        weights: share of each variant, which sum to 1: what holds at every context while ``spec`` has no posterior.
    """

    def __init__(self, spec: ConditionalSpec, salt: str, weights: Mapping[str, float]) -> None:
        self.spec = spec
        self.arms = tuple(arm.name for arm in spec.arms) or tuple(weights)
        self._prefix = f"conditional:{len(salt)}:{salt}:".encode()
        self._fixed = None if spec.arms else tuple(weights[name] for name in self.arms)
        self._floor = spec.minimum_share
        self._rest = 1.0 - spec.minimum_share * len(self.arms)
        if not spec.arms:
            return
        drawn = draw_coefficients(spec.arms, spec.draws, spec.seed)
        if len(self.arms) == 2:
            drawn = (drawn[:, 0] - drawn[:, 1])[:, None]
        table = drawn.transpose(2, 1, 0).reshape(drawn.shape[2], -1)
        start = np.zeros(table.shape[1])
        if spec.features:  # so that contexts need not be centred and scaled one by one
            scale, center = (np.array([getattr(one, part) for one in spec.features]) for part in ("scale", "center"))
            slopes = table[1:] / scale[:, None]
            table, start = slopes, table[0] - center @ slopes
        # By arm, then by draw; of two arms the differences: [d, n_arms * draws] and [n_arms * draws].
        self._table, self._start = np.ascontiguousarray(table), start

    def shares(self, x: Float32) -> Sequence[float]:
        """Share of each of :attr:`arms` at a context [n_arms]; at least the minimum each, and together 1.

        Args:
            x: features as :class:`FeatureReader` gives them, or weights of the objectives.
        """
        if self._fixed is not None:
            return self._fixed
        score = x @ self._table
        score += self._start
        if len(self.arms) == 2:
            first = self._floor + self._rest * (int(np.count_nonzero(score > 0)) / len(score))
            return first, 1.0 - first
        score = score.reshape(len(self.arms), -1)
        won = np.add.reduce(score == np.maximum.reduce(score, axis=0), axis=1).tolist()
        # Not the draws: one in which several arms are the best, to the last bit, counts for each of them.
        rest, floor = self._rest / sum(won), self._floor
        return [floor + rest * count for count in won]

    def assign(self, unit: str, x: Float32, shares: Sequence[float] | None = None) -> Assignment:
        """The variant of a unit at a context, and its share there: the same for the same unit and context.

        Args:
            unit: sticky key.
            x: as of :meth:`shares`.
            shares: there, where they are known already.
        """
        found = self.shares(x) if shares is None else shares
        (word,) = _WORD(blake2b(b"%b%d:%b%b" % (self._prefix, len(unit), unit.encode(), x.tobytes())).digest())
        draw = ((word >> _DROPPED) + 0.5) * _SCALE
        place, last = 0, len(found) - 1
        while draw >= found[place] and place < last:
            draw -= found[place]
            place += 1
        return Assignment(self.arms[place], found[place])
