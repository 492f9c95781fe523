"""Who competes under a set of rules, and who wins at which weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.decisions.methods import DecisionMatrix, Method
from rlaas.errors import InvalidInputError
from rlaas.fronts import Front
from rlaas.objectives import Preference, Rule

__all__ = [
    "Contest",
    "Requirements",
    "RuleColumns",
    "SignedRequirements",
    "preference_weights",
    "rule_columns",
    "rule_gaps",
]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

# Scores (and violations) nearer than this, relative to the larger of 1 and the best, are equal: the rest is rounding,
# which differs between one weight vector and many at once, and between units.
SAME = 1e-12

# Scores held at once, in numbers: keeps a batch in the cache of one core.
BATCH = 1 << 16


class Requirements(Protocol):
    """Prepared rules beyond those of a mode."""

    def violations(self, front: Front) -> ArrayLike:
        """[n_candidates, n_requirements] in units of the objectives' ranges; kept where <= 0, never NaN."""

    def describe(self) -> Sequence[str]:
        """One text for every requirement; equal texts mean equal requirements."""


@runtime_checkable
class SignedRequirements(Requirements, Protocol):
    """Prepared rules that also know by how much they are kept, which tells how far they can be tightened."""

    def constraints(self, front: Front) -> ArrayLike:
        """As ``violations``, but negative where kept with room to spare; -inf where by no finite amount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleColumns:
    """Rules as columns.

    Attributes:
        gaps: [n, r], kept where <= 0, in units of the objectives' ranges.
        texts: [r].
        signed: [r] whether a negative gap is the room left; if not, a kept rule has the gap -inf.
    """

    gaps: FloatArray
    texts: tuple[str, ...]
    signed: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Candidates of a front under rules and a method.

    Rules come first: only candidates that keep all of them compete. Where none does, all compete, and only those with
    the least total violation can win. Equal scores go to the name that sorts first.

    Attributes:
        method: that scores.
        matrix: all candidates of the front [n], sorted by name.
        gaps: [n, r] by rule, kept where <= 0, in units of the objectives' ranges.
        members: rows of ``matrix`` that compete, ascending.
        field: the matrix of the members, whose scores depend on no other candidate.
        eligible: positions within ``members`` that can win, ascending.
    """

    method: Method
    matrix: DecisionMatrix
    gaps: FloatArray
    members: IndexArray
    field: DecisionMatrix
    eligible: IndexArray

    @classmethod
    def of(cls, method: Method, matrix: DecisionMatrix, gaps: FloatArray) -> Contest:
        """The contest of all rows of ``matrix`` under rules with these ``gaps`` [n, r]."""
        violation = np.maximum(gaps, 0.0).sum(axis=1)
        members = np.flatnonzero(violation <= 0)
        if not len(members):
            members = np.arange(len(matrix))
        field = matrix if len(members) == len(matrix) else matrix.take(members)
        left = violation[members]
        least = left.min()
        eligible = np.flatnonzero(left <= least + SAME * max(1.0, least))
        return cls(method=method, matrix=matrix, gaps=gaps, members=members, field=field, eligible=eligible)

    @property
    def feasible(self) -> bool:
        """Whether the competing candidates keep every rule."""
        return not (self.gaps[self.members] > 0).any()

    @property
    def violation(self) -> FloatArray:
        """Total violation [n] of every candidate of the front, in ranges."""
        return np.asarray(np.maximum(self.gaps, 0.0).sum(axis=1))

    def scores(self, weights: FloatArray) -> FloatArray:
        """Scores [k, n_members] under weights [k, m]."""
        return self.method.scores(self.field, weights)

    def winners(self, weights: FloatArray) -> IndexArray:
        """Row of ``matrix`` that wins under each of k weight vectors [k, m]."""
        batch = max(1, BATCH // len(self.field))
        found = [self._winners(weights[start : start + batch]) for start in range(0, len(weights), batch)]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.intp)

    def winner(self, weights: FloatArray) -> int:
        """Row of ``matrix`` that wins under one weight vector [m]."""
        return int(self._winners(weights[None])[0])

    def _winners(self, weights: FloatArray) -> IndexArray:
        scores = self.scores(weights)[:, self.eligible]
        best = scores.max(axis=1, keepdims=True)
        first = (scores >= best - SAME * np.maximum(1.0, np.abs(best))).argmax(axis=1)
        return np.asarray(self.members[self.eligible[first]])

    def ranking(self, weights: FloatArray) -> IndexArray:
        """Rows of ``matrix`` that compete, from the winner to the last: least violation, best score, first name."""
        scores = self.scores(weights[None])[0]
        first = self.winner(weights)
        violation = self.violation[self.members]
        violation[self.eligible] = violation.min()
        order = np.lexsort((self.members, -scores, violation, self.members != first))
        return np.asarray(self.members[order])

    def among(self, rows: IndexArray) -> Contest:
        """The contest of these rows of ``matrix`` only, in this order; a row may come more than once."""
        return Contest.of(self.method, self.matrix.take(rows), self.gaps[rows])

    def shifted(self, rule: int, by: float) -> Contest:
        """The contest with one rule loosened by ``by`` ranges (tightened where negative)."""
        gaps = self.gaps.copy()
        gaps[:, rule] -= by
        return Contest.of(self.method, self.matrix, gaps)

    def without(self, rule: int) -> Contest:
        """The contest without one rule."""
        return Contest.of(self.method, self.matrix, np.delete(self.gaps, rule, axis=1))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rows of ``matrix``."""
        return tuple(candidate.name for candidate in self.matrix.candidates)


def preference_weights(front: Front, preference: Preference, owner: str) -> FloatArray:
    """Weights [m] of ``preference`` in the front's order of objectives, summing to 1.

    Args:
        front: that is chosen from.
        preference: over the same objectives, in any order.
        owner: whose preference it is, for messages: ``mode 'emergency'``.

    Raises:
        InvalidInputError: other objectives than the front's, or weights that are negative, not finite or all zero.
    """
    names, weights = preference.names, preference.weights
    if len(names) != len(weights) or len(set(names)) != len(names) or set(names) != set(front.names):
        raise InvalidInputError(
            f"{owner} has {len(weights)} weights ({', '.join(names)}); the front of "
            f"{front.scenario} has {len(front.names)} objectives ({', '.join(front.names)})",
            field="preference",
        )
    # A preference that was not built by Preference.of has been checked by nobody.
    return Preference.of(front.names, preference.to_dict()).array()


def rule_gaps(front: Front, values: FloatArray, rules: Sequence[Rule]) -> FloatArray:
    """By how much objective values [n, m] break the rules of a mode: [n, r] in ranges, kept where <= 0."""
    position = {name: j for j, name in enumerate(front.names)}
    gaps = np.empty((len(values), len(rules)))
    for r, rule in enumerate(rules):
        j = position[rule.objective]
        column, objective = values[:, j], front.objectives[j]
        gap = column - rule.at_most if rule.at_most is not None else float(rule.at_least or 0.0) - column
        gaps[:, r] = gap / (objective.high - objective.low)
    return gaps


def rule_columns(
    front: Front, matrix: DecisionMatrix, rules: Iterable[Rule], requirements: Requirements | None
) -> RuleColumns:
    """By how much the rows of ``matrix`` break the rules of a mode, then prepared ones.

    Raises:
        InvalidInputError: requirements that answer with another shape, a NaN, or another number of texts.
    """
    own = tuple(rules)
    columns = list(rule_gaps(front, matrix.values, own).T)
    texts = [str(rule) for rule in own]
    signed = [True] * len(texts)
    if requirements is not None:
        if isinstance(requirements, SignedRequirements):
            room, answer = True, requirements.constraints(front)
        else:
            room, answer = False, requirements.violations(front)
        prepared = np.asarray(answer, dtype=np.float64)
        described = tuple(requirements.describe())
        if prepared.shape != (len(front.candidates), len(described)) or np.isnan(prepared).any():
            raise InvalidInputError(
                f"rules gave violations of shape {prepared.shape} and {len(described)} texts; expected no NaN and "
                f"shape ({len(front.candidates)}, {len(described)})",
                field="rules",
            )
        order = sorted(range(len(front.candidates)), key=lambda i: front.candidates[i].name)
        columns.extend((prepared if room else np.where(prepared > 0, prepared, -np.inf))[order].T)
        texts.extend(described)
        signed.extend([room] * len(described))
    gaps = np.column_stack(columns) if columns else np.zeros((len(matrix), 0))
    return RuleColumns(gaps=gaps, texts=tuple(texts), signed=tuple(signed))
