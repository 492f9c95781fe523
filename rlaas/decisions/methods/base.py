"""What every choosing method works on, and what it has to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective, normalise

__all__ = ["DecisionMatrix", "Method"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionMatrix:
    """Candidates by objectives, in an order that is the same however the front was ordered.

    Attributes:
        objectives: the columns.
        candidates: the rows, sorted by name by :meth:`of`: sums over rows then round alike for every order of a
            front, and the first of equals is the first by name.
        values: [n, m] in the objectives' units.
        goodness: [n, m] in the frozen ranges, larger is better (:func:`rlaas.objectives.normalise`).
        up: [m] true where larger values are better.
        default: goodness of what stays where nothing is chosen [m]; None where the front does not say.
    """

    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...]
    values: FloatArray
    goodness: FloatArray
    up: NDArray[np.bool_]
    default: FloatArray | None = None

    @classmethod
    def of_front(cls, front: Front) -> DecisionMatrix:
        """The matrix of a front; errors of :meth:`of`."""
        if not front.candidates:
            raise InvalidInputError(f"the front of {front.scenario} has no candidate", field="front")
        matrix = cls.of(front.objectives, front.candidates)
        return matrix if front.default is None else replace(matrix, default=normalise(front.objectives, front.default))

    @classmethod
    def of(cls, objectives: Sequence[Objective], candidates: Sequence[Candidate]) -> DecisionMatrix:
        """The matrix of ``candidates``.

        Raises:
            InvalidInputError: no candidate, no objective, a candidate with another number of objectives, or a value
                that is not finite, or not finite once normalised.
        """
        if not candidates or not objectives:
            missing = "candidate" if objectives else "objective"
            raise InvalidInputError(f"the front has no {missing}; a choice needs at least one", field="front")
        rows = tuple(sorted(candidates, key=lambda candidate: candidate.name))
        for row in rows:
            if len(row.mean) != len(objectives):
                raise InvalidInputError(
                    f"candidate {row.name!r} has {len(row.mean)} objectives; expected {len(objectives)} "
                    f"({', '.join(o.name for o in objectives)})",
                    field="mean",
                )
        values = np.array([row.mean for row in rows], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            goodness = normalise(objectives, values)
        bad = np.argwhere(~np.isfinite(goodness))
        if len(bad):
            i, j = (int(index) for index in bad[0])
            raise InvalidInputError(
                f"candidate {rows[i].name!r}: {objectives[j].name} is {values[i, j]}; a choice needs values that are "
                "finite, also in units of the objective's normalisation range",
                field=objectives[j].name,
            )
        up = np.array([o.direction == "maximize" for o in objectives])
        return cls(objectives=tuple(objectives), candidates=rows, values=values, goodness=goodness, up=up)

    def take(self, rows: IndexArray) -> DecisionMatrix:
        """The matrix of these rows, in this order; a row may come more than once."""
        return DecisionMatrix(
            objectives=self.objectives,
            candidates=tuple(self.candidates[i] for i in rows),
            values=self.values[rows],
            goodness=self.goodness[rows],
            up=self.up,
            default=self.default,
        )

    def __len__(self) -> int:
        return len(self.candidates)


class Method(Protocol):
    """A way of choosing: scores under weights, and what it says about them.

    Weights handed to a method are non-negative and sum to 1 in every row.
    """

    @property
    def name(self) -> str:
        """By which it is asked for."""

    @property
    def work(self) -> int:
        """Scorings of the candidates that one weight vector costs: sizes the samples of a certificate."""

    def scores(self, matrix: DecisionMatrix, weights: FloatArray) -> FloatArray:
        """Scores [k, n] of the candidates under each of k weight vectors [k, m]; larger is better.

        The scale is the method's own, of the order of 1.
        """

    def distances(self, matrix: DecisionMatrix, weights: FloatArray) -> Mapping[str, FloatArray]:
        """The figures [n] behind the scores under one weight vector [m], by name."""

    def notes(self, matrix: DecisionMatrix, weights: FloatArray) -> tuple[str, ...]:
        """What a reader has to know beside the score under one weight vector [m]; whole clauses, no full stop."""
