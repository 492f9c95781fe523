"""Constraints at request time: which candidate of a version's front decides, or why none can.

A constraint is kept by a candidate if the worse end of its 95 % interval keeps it: what one seed reached is no promise.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy, Float32
from rlaas.decisions.contest import Contest
from rlaas.decisions.methods import DecisionMatrix, Topsis
from rlaas.errors import BundleError, InvalidInputError, check_choice, shown
from rlaas.fronts import Candidate
from rlaas.objectives import Preference
from rlaas.serving.served_front import ServedCandidate, ServedFront
from rlaas.serving.shield import action_of

__all__ = ["Chosen", "FrontChooser"]

FloatArray = NDArray[np.float64]
_KEPT = 256
_ENDS = ("min", "max")
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Chosen:
    """A candidate, ready to decide.

    Attributes:
        name: in the front.
        weights: float32 [n_objectives] that the policy acts under; None where it takes none, or an action is fixed.
        preference: the same by objective, as it is logged.
        action: that is always taken [1, n_actions] or [1]; None where the policy decides.
    """

    name: str
    weights: Float32 | None
    preference: dict[str, float] | None
    action: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class _Limit:
    """One end of what a caller allows for an objective: ``sign * value <= sign * bound``."""

    field: str
    column: int
    sign: float
    bound: float


class FrontChooser:
    """Candidates of one version's front, prepared for questions. Thread-safe.

    Args:
        front: as Control hands it out.
        policy: the version.

    Raises:
        BundleError: the front is of other objectives, or has nothing that the version can decide as.
    """

    def __init__(self, front: ServedFront, policy: BundlePolicy) -> None:
        names = [objective.name for objective in policy.objectives]
        if sorted(front.objectives) != sorted(names):
            raise BundleError(
                f"the front is of {', '.join(front.objectives)}; the policy of {', '.join(names)}", field="front"
            )
        columns = [front.objectives.index(name) for name in names]
        self._objectives = policy.objectives
        self._names = names
        self._span = np.array([objective.high - objective.low for objective in policy.objectives])
        usable = {candidate.name: candidate for candidate in front.candidates}
        if not usable:
            raise BundleError("the front has no candidate of this version", field="front")
        try:
            self._matrix = DecisionMatrix.of(policy.objectives, [_ordered(one, columns) for one in usable.values()])
            self._chosen = [_prepared(usable[row.name], policy) for row in self._matrix.candidates]
        except InvalidInputError as problem:
            raise BundleError(f"the front cannot be used: {problem.message}", field="front") from problem
        self._width = np.array([row.half_width for row in self._matrix.candidates])
        self._method = Topsis()
        self._answers: OrderedDict[Any, Chosen] = OrderedDict()
        self._lock = threading.Lock()

    def choose(self, constraints: Any, weights: Mapping[str, float]) -> Chosen:
        """The candidate that fits ``weights`` best (TOPSIS) among those that keep every constraint.

        The same question is answered from memory.

        Args:
            constraints: ``{"energy": {"max": 200}, "latency": {"max": 0.5}}``, in the objectives' units.
            weights: by objective, summing to 1.

        Raises:
            InvalidInputError: a malformed constraint, or one that no candidate keeps; names it, and the nearest value
                that can be kept.
        """
        limits = self._limits(constraints)
        key = (tuple(sorted((limit.field, limit.bound) for limit in limits)), tuple(sorted(weights.items())))
        with self._lock:
            found = self._answers.get(key)
            if found is not None:
                self._answers.move_to_end(key)
                return found
        found = self._best(limits, weights)
        with self._lock:
            self._answers[key] = found
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return found

    def _best(self, limits: Sequence[_Limit], weights: Mapping[str, float]) -> Chosen:
        gaps = self._gaps(limits)
        if not (gaps <= 0).all(axis=1).any():
            raise self._refusal(limits, gaps)
        contest = Contest.of(self._method, self._matrix, gaps)
        return self._chosen[contest.winner(np.array([weights.get(name, 0.0) for name in self._names]))]

    def _limits(self, constraints: Any) -> list[_Limit]:
        if not isinstance(constraints, dict) or not constraints:
            raise InvalidInputError(
                'constraints must be like {"latency": {"max": 0.5}}: objectives with min, max or both',
                field="constraints",
            )
        limits: list[_Limit] = []
        for name, ends in constraints.items():
            check_choice(name, self._names, field="constraints objective", error=InvalidInputError)
            where = f"constraints.{name}"
            if not isinstance(ends, dict) or not ends:
                raise InvalidInputError(f"{where} must be an object with min, max or both", field=where)
            for end, bound in ends.items():
                check_choice(end, _ENDS, field=where, error=InvalidInputError)
                limits.append(_Limit(f"{where}.{end}", self._names.index(name), *_signed(end, bound, f"{where}.{end}")))
            if len(ends) == len(_ENDS) and ends["min"] > ends["max"]:
                raise InvalidInputError(f"{where}.min is above max", field=f"{where}.min")
        return limits

    def _worst(self, limit: _Limit) -> FloatArray:
        """The worse ends of the intervals [n], signed so that less is better; infinite where not known."""
        return np.asarray(limit.sign * self._matrix.values[:, limit.column] + self._width[:, limit.column])

    def _gaps(self, limits: Sequence[_Limit]) -> FloatArray:
        """By how much each candidate breaks each limit [n, n_limits], in ranges of the objectives."""
        return np.stack(
            [(self._worst(limit) - limit.sign * limit.bound) / self._span[limit.column] for limit in limits], axis=1
        )

    def _refusal(self, limits: Sequence[_Limit], gaps: FloatArray) -> InvalidInputError:
        """The limit that has to give least for a candidate to keep the others, and the value that it would have to be.

        Where no single one is to blame: the one that the candidate with the least total violation breaks most.
        """
        kept = gaps <= 0
        nearest: tuple[float, int, int] | None = None
        for index in range(len(limits)):
            others: NDArray[np.bool_] = np.asarray(np.delete(kept, index, axis=1).all(axis=1))
            row = int(np.where(others, gaps[:, index], np.inf).argmin())
            if others[row] and (nearest is None or gaps[row, index] < nearest[0]):
                nearest = float(gaps[row, index]), index, row
        beside = " beside the other constraints" if len(limits) > 1 else ""
        if nearest is None:
            row = int(np.maximum(gaps, 0.0).sum(axis=1).argmin())
            index = int(gaps[row].argmax())
            nearest = float(gaps[row, index]), index, row
            beside = " once others are loosened too"
        gap, index, row = nearest
        limit = limits[index]
        if not math.isfinite(gap):
            reason = "can be promised by no candidate of the front: the widths of its intervals are unknown (one seed)"
            return InvalidInputError(f"{limit.field} {reason}", field=limit.field)
        value = _outwards(limit.sign * float(self._worst(limit)[row]), limit.sign)
        return InvalidInputError(
            f"{limit.field} = {limit.bound:g} is kept by no candidate of the front; "
            f"the nearest value that can be kept{beside} is {value} ({self._matrix.candidates[row].name[:80]})",
            field=limit.field,
        )


def _signed(end: str, bound: Any, field: str) -> tuple[float, float]:
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not abs(bound) < 1e300:
        raise InvalidInputError(f"{field} must be a finite number, got {shown(bound)}", field=field)
    return (1.0 if end == "max" else -1.0), float(bound)


def _outwards(value: float, sign: float) -> str:
    """A number in few digits, rounded to the side on which it is kept."""
    rounding = ROUND_CEILING if sign > 0 else ROUND_FLOOR
    return f"{Context(prec=_DIGITS, rounding=rounding).create_decimal(repr(value)).normalize():f}"


def _ordered(candidate: ServedCandidate, columns: Sequence[int]) -> Candidate:
    if len(candidate.mean) != len(columns) or len(candidate.half_width) != len(columns):
        raise InvalidInputError(f"candidate {candidate.name!r} has another number of objectives", field="mean")
    widths = [candidate.half_width[i] for i in columns]
    return Candidate(
        name=candidate.name,
        kind="policy" if candidate.action is None else "configuration",
        mean=tuple(candidate.mean[i] for i in columns),
        half_width=tuple(math.inf if width is None else width for width in widths),
    )


def _prepared(candidate: ServedCandidate, policy: BundlePolicy) -> Chosen:
    if candidate.action is not None:
        action = action_of(candidate.action, policy.manifest.action, f"action of candidate {candidate.name!r}")
        single = policy.manifest.action.kind == "discrete"
        return Chosen(candidate.name, None, None, action if single else action[None])
    if not policy.manifest.preference_conditioned:
        return Chosen(candidate.name, None, None, None)
    if candidate.preference is None:
        raise InvalidInputError(f"candidate {candidate.name!r} has no preference", field="preference")
    preference = Preference.of(policy.objectives, candidate.preference)
    return Chosen(candidate.name, preference.array().astype(np.float32), preference.to_dict(), None)
