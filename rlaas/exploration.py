"""From the outputs of a policy's network to actions and their propensities, with a share of uniform exploration.

A policy that explores with share epsilon is the mixture (1 - epsilon) pi + epsilon uniform: with probability epsilon
the whole action, all its components together, is drawn uniformly. Its propensity is the mixture's, whichever half drew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, shown

__all__ = ["BoxHead", "ChoiceHead", "check_epsilon", "mixed_log_density"]

FloatArray = NDArray[np.float64]
Outputs = Mapping[str, NDArray[np.float32]]
IntArray = NDArray[np.int64]

EDGE = 1.0 - 2.0**-40
"""Actions nearer to the edge of the box [-1, 1] count as being here: beyond, what is logged has lost the difference."""

ROUNDING = 1e-9
"""How far beyond the box an action may lie, as a share of it, for having been scaled to its unit and back."""

MASKED = -1e8
"""A logit that far below the largest of its row marks a choice that is forbidden (the trainer writes -1e9)."""


def check_epsilon(epsilon: object) -> float:
    """A share of exploration.

    Raises:
        InvalidInputError: not a number in [0, 1].
    """
    known = isinstance(epsilon, int | float | np.integer | np.floating) and not isinstance(epsilon, bool)
    if not known or not 0 <= float(epsilon) <= 1:  # type: ignore[arg-type]
        raise InvalidInputError(
            f"epsilon is {shown(epsilon)}; expected a share of exploration in [0, 1]", field="epsilon"
        )
    return float(epsilon)  # type: ignore[arg-type]


class BoxHead:
    """A squashed Gaussian over a box, from the outputs ``mean`` and ``log_std`` [n, n_actions].

    Args:
        low, high: of each component, in its unit.
        deterministic: takes the mean always.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], *, deterministic: bool) -> None:
        self._low = np.array(low, dtype=np.float64)
        self._span = np.array(high, dtype=np.float64) - self._low
        self._deterministic = deterministic

    def act(
        self, out: Outputs, rng: np.random.Generator | None, epsilon: float
    ) -> tuple[NDArray[Any], FloatArray | None]:
        """Actions [n, n_actions] and their log-densities [n] in the box [-1, 1]; None without randomness."""
        mean, log_std = out["mean"].astype(np.float64), out["log_std"].astype(np.float64)
        if rng is None or self._deterministic:
            return self._scale(np.tanh(mean)), None
        noise = rng.standard_normal(mean.shape)
        before = mean + np.exp(log_std) * noise
        unit = np.tanh(before)
        if epsilon > 0:
            explores = (rng.random(len(mean)) < epsilon)[:, None]
            unit = np.where(explores, rng.uniform(-1.0, 1.0, mean.shape), unit)
            reached = _before_tanh(unit)
            before = np.where(explores, reached, before)
            noise = np.where(explores, (reached - mean) / np.exp(log_std), noise)
        return self._scale(unit), mixed_log_density(_log_density(log_std, noise, before), epsilon, mean.shape[1])

    def check_epsilon(self, epsilon: object) -> float:
        """A share of exploration that this policy can have.

        Raises:
            InvalidInputError: not in [0, 1], or above 0 for a deterministic policy: one action then has a probability
                and all others a density, which no propensity can express.
        """
        share = check_epsilon(epsilon)
        if share > 0 and self._deterministic:
            raise InvalidInputError(
                "epsilon must be 0 for a deterministic policy over a box: its actions have no density", field="epsilon"
            )
        return share

    def propensities(self, out: Outputs, actions: object, epsilon: float, *, greedy: bool) -> FloatArray:
        """Log-densities [n] of given actions [n, n_actions] in the box [-1, 1].

        Raises:
            InvalidInputError: actions of another shape or outside the box, or a policy that takes one action.
        """
        if greedy or self._deterministic:
            raise InvalidInputError(
                "a box policy that always takes one action has no density, so no logged density covers it; ask for "
                "the policy as it samples (greedy=False)",
                field="greedy",
            )
        mean, log_std = out["mean"].astype(np.float64), out["log_std"].astype(np.float64)
        taken = _columns(actions, mean.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = 2.0 * (taken - self._low) / self._span - 1.0
        outside = np.logical_not(np.abs(unit) <= 1.0 + ROUNDING).any(axis=1)  # NaN is outside
        _refuse(taken, np.asarray(outside), f"{len(self._low)} numbers within the box")
        before = _before_tanh(unit)
        noise = (before - mean) / np.exp(log_std)
        return mixed_log_density(_log_density(log_std, noise, before), epsilon, mean.shape[1])

    def _scale(self, unit: FloatArray) -> FloatArray:
        return np.asarray(self._low + (unit + 1.0) * 0.5 * self._span)


class ChoiceHead:
    """One choice in each of several components, from the output ``logits`` [n, sum of sizes].

    Args:
        sizes: choices of each component.
        single: the action is one number, not a vector of one.
        deterministic: takes the most likely choices always.
    """

    def __init__(self, sizes: Sequence[int], *, single: bool, deterministic: bool) -> None:
        self.sizes, self.single, self._deterministic = tuple(sizes), single, deterministic

    def act(
        self, out: Outputs, rng: np.random.Generator | None, epsilon: float
    ) -> tuple[NDArray[Any], FloatArray | None]:
        """Choices ([n] where single, else [n, n_components]) and joint probabilities [n]; None without randomness."""
        greedy = rng is None or self._deterministic
        if self.single:  # what is served most, without what several components need
            logits = out["logits"].astype(np.float64)
            if rng is None or (greedy and epsilon == 0):
                return logits.argmax(axis=1), None
            if epsilon == 0:
                return _draw(_probabilities(logits), rng)
            return _draw(_Table(logits, greedy=greedy).mixed(epsilon), rng)  # one component's mixture is a table, too
        tables, probability = self._tables(out, greedy), None
        if rng is None or greedy:
            choices = np.stack([table.own.argmax(axis=1) for table in tables], axis=1)
        else:
            drawn = [_draw(table.own, rng) for table in tables]
            choices = np.stack([choice for choice, _ in drawn], axis=1)
            probability = np.prod([p for _, p in drawn], axis=0)
        if epsilon > 0 and rng is not None:
            choices = _explore(tables, choices, rng, epsilon)
            probability = _mixed(tables, choices, epsilon)
        return choices, probability

    def check_epsilon(self, epsilon: object) -> float:
        """A share of exploration; a deterministic policy can have one, since its choices have probabilities.

        Raises:
            InvalidInputError: not in [0, 1].
        """
        return check_epsilon(epsilon)

    def propensities(self, out: Outputs, actions: object, epsilon: float, *, greedy: bool) -> FloatArray:
        """Joint probabilities [n] of given choices.

        Raises:
            InvalidInputError: actions of another shape, or no choices.
        """
        tables = self._tables(out, greedy)
        taken = _columns(actions, (len(tables[0].own), len(self.sizes)))
        fits = (taken >= 0) & (taken < np.array(self.sizes)) & (taken == np.floor(taken))
        _refuse(taken, ~fits.all(axis=1), f"whole numbers from 0, below {', '.join(map(str, self.sizes))}")
        return _mixed(tables, taken.astype(np.int64), epsilon)

    def probabilities(self, out: Outputs, epsilon: float, *, greedy: bool) -> FloatArray:
        """Probability of every choice [n, n_choices].

        Raises:
            InvalidInputError: several components.
        """
        if not self.single:
            raise InvalidInputError("an action of several components has no table of probabilities", field="action")
        (table,) = self._tables(out, greedy)
        return table.mixed(epsilon)

    def _tables(self, out: Outputs, greedy: bool) -> list[_Table]:
        return [_Table(part, greedy=greedy or self._deterministic) for part in self._parts(out)]

    def _parts(self, out: Outputs) -> list[FloatArray]:
        return np.split(out["logits"].astype(np.float64), np.cumsum(self.sizes)[:-1], axis=1)


def mixed_log_density(log_density: FloatArray, epsilon: float, n_dimensions: int) -> FloatArray:
    """log((1 - epsilon) exp(log_density) + epsilon 2^-d) [n]: the uniform density of the box [-1, 1]^d is 2^-d."""
    if epsilon == 0:
        return log_density
    uniform = math.log(epsilon) - n_dimensions * math.log(2.0)
    if epsilon == 1:
        return np.full_like(log_density, uniform)
    return np.asarray(np.logaddexp(math.log1p(-epsilon) + log_density, uniform))


def _log_density(log_std: FloatArray, noise: FloatArray, before: FloatArray) -> FloatArray:
    """Log-density [n], in the box [-1, 1]^d, of tanh(before), where before = mean + exp(log_std) noise, all [n, d].

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), stable for large |u| (Haarnoja et al. 2018, appendix C).
    """
    jacobian = 2.0 * (math.log(2.0) - before - np.logaddexp(0.0, -2.0 * before))
    return np.asarray((-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - jacobian).sum(axis=1))


def _before_tanh(unit: FloatArray) -> FloatArray:
    return np.asarray(np.arctanh(np.clip(unit, -EDGE, EDGE)))


def _probabilities(logits: FloatArray) -> FloatArray:
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    return np.asarray(probability)


class _Table:
    """Probabilities of one component's choices [n, size]: the policy's own, and those of exploration."""

    def __init__(self, logits: FloatArray, *, greedy: bool) -> None:
        best = logits.argmax(axis=1)[:, None]
        self.own = (np.arange(logits.shape[1]) == best).astype(np.float64) if greedy else _probabilities(logits)
        allowed = logits - np.take_along_axis(logits, best, axis=1) > MASKED
        self.uniform = allowed / allowed.sum(axis=1, keepdims=True)

    def mixed(self, epsilon: float) -> FloatArray:
        """Of a policy that explores with share epsilon [n, size]."""
        return np.asarray((1.0 - epsilon) * self.own + epsilon * self.uniform)


def _draw(probability: FloatArray, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """A choice [n] by its probability, and that probability [n]."""
    draw = rng.random(len(probability))[:, None]
    choice = np.minimum((probability.cumsum(axis=1) < draw).sum(axis=1), probability.shape[1] - 1)
    return choice, probability[np.arange(len(choice)), choice]


def _explore(tables: Sequence[_Table], choices: IntArray, rng: np.random.Generator, epsilon: float) -> IntArray:
    """Choices [n, n_components] of which a share of rows is drawn anew, uniformly from what each component allows."""
    explores = np.flatnonzero(rng.random(len(choices)) < epsilon)
    if len(explores):
        choices[explores] = np.stack([_uniform(table.uniform[explores], rng) for table in tables], axis=1)
    return choices


def _uniform(uniform: FloatArray, rng: np.random.Generator) -> IntArray:
    """An allowed choice [n]: the k-th one, k drawn evenly."""
    allowed = (uniform > 0).cumsum(axis=1)  # the k-th allowed choice is the first where this is k
    k = np.floor(rng.random(len(uniform)) * allowed[:, -1]) + 1
    return np.asarray((allowed < k[:, None]).sum(axis=1))


def _mixed(tables: Sequence[_Table], choices: IntArray, epsilon: float) -> FloatArray:
    """Probability [n] of choices [n, n_components] under (1 - epsilon) pi + epsilon uniform.

    Both halves are products over the components; the mixture is not, since a row explores as a whole.
    """
    rows = np.arange(len(choices))
    own = np.prod([table.own[rows, choices[:, i]] for i, table in enumerate(tables)], axis=0)
    uniform = np.prod([table.uniform[rows, choices[:, i]] for i, table in enumerate(tables)], axis=0)
    return np.asarray((1.0 - epsilon) * own + epsilon * uniform)


def _columns(actions: object, shape: tuple[int, ...]) -> FloatArray:
    """Actions as numbers of a shape [n, width]; one column may come as a plain list."""
    try:
        array = np.asarray(actions, dtype=np.float64)
    except (TypeError, ValueError):  # no numbers, or ragged: refused below like any other shape
        array = np.empty(0)
    array = array[:, None] if array.ndim == 1 and shape[1] == 1 else array
    if array.shape != shape:
        raise InvalidInputError(f"actions must hold {shape[1]} numbers in each of {shape[0]} rows", field="actions")
    return array


def _refuse(taken: FloatArray, wrong: NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInputError(f"actions[{row}] is {taken[row].tolist()}; expected {expected}", field="actions")
