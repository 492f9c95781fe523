"""Where on the way from one mode to another the choice changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.contest import Contest, Requirements, preference_weights, rule_columns
from rlaas.decisions.methods import DecisionMatrix, Method, method_named
from rlaas.decisions.segments import first_changes
from rlaas.fronts import Front
from rlaas.objectives import Mode

__all__ = ["Border", "Crossing", "border"]

FloatArray = NDArray[np.float64]

STEPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A point between two modes at which the choice changes.

    Attributes:
        at: share of the way, 0 at the first mode's weights and 1 at the second's.
        weights: there, by objective.
        before, after: names of the choices on either side.
    """

    at: float
    weights: Mapping[str, float]
    before: str
    after: str

    def to_dict(self) -> dict[str, Any]:
        """The crossing as plain JSON types."""
        return {"at": self.at, "weights": dict(self.weights), "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """Where on the straight way between the weights of two modes the choice changes.

    Attributes:
        mode_a, mode_b: names of the modes.
        method: that chose.
        first, last: names of the choices at the ends.
        crossings: in their order on the way; empty where one candidate holds all of it.
        front_version: of the front.
    """

    mode_a: str
    mode_b: str
    method: str
    first: str
    last: str
    crossings: tuple[Crossing, ...]
    front_version: str

    def to_dict(self) -> dict[str, Any]:
        """The border as plain JSON types."""
        document = {name: getattr(self, name) for name in self.__slots__}
        document["crossings"] = [crossing.to_dict() for crossing in self.crossings]
        return document

    def __str__(self) -> str:
        if not self.crossings:
            return f"{self.first} stays the choice all the way from {self.mode_a} to {self.mode_b}."
        steps = [
            f"at {100 * c.at:.3g} % of the way ({', '.join(f'{n} {w:.3g}' for n, w in c.weights.items())}) "
            f"{c.before} gives way to {c.after}"
            for c in self.crossings
        ]
        return f"From {self.mode_a} to {self.mode_b}: {'; '.join(steps)}."


def border(
    front: Front,
    mode_a: Mode,
    mode_b: Mode,
    method: str | Method = "topsis",
    *,
    normalisation: str = "range",
    disagreement: Mapping[str, float] | None = None,
    rules: Requirements | None = None,
) -> Border:
    """Where the choice changes as the weights move from those of ``mode_a`` to those of ``mode_b``.

    The rules of both modes hold all the way, so that only the weights change: with modes of different rules an end
    may differ from what the mode alone resolves to. A candidate that wins on less than 1/1000 of the way can go
    unseen.

    Args:
        front: candidates with their objective values.
        mode_a, mode_b: ends of the way.
        method, normalisation, disagreement, rules: as for :func:`rlaas.decisions.resolve`.

    Raises:
        InvalidInputError: as for :func:`rlaas.decisions.resolve`.
    """
    if isinstance(method, str):
        method = method_named(method, normalisation=normalisation, disagreement=disagreement)
    matrix = DecisionMatrix.of_front(front)
    start = preference_weights(front, mode_a.preference, f"mode {mode_a.name!r}")
    end = preference_weights(front, mode_b.preference, f"mode {mode_b.name!r}")
    bounds = dict.fromkeys((*mode_a.rules, *mode_b.rules))
    contest = Contest.of(method, matrix, rule_columns(front, matrix, bounds, rules).gaps)
    grid = np.linspace(0.0, 1.0, STEPS + 1)
    winners = contest.winners(_between(start, end, grid))
    crossings: list[Crossing] = []
    for step in np.flatnonzero(winners[1:] != winners[:-1]):
        low, high, before, last = grid[step], grid[step + 1], int(winners[step]), int(winners[step + 1])
        while before != last:
            ends = _between(start, end, np.array([low, high]))
            _, fails, _ = first_changes(contest.winners, ends[:1], ends[1:], 1)
            low = low + float(fails[0]) * (high - low)
            at = _between(start, end, np.array([low]))[0]
            after = contest.winner(at)
            if fails[0] >= 1 or after == before:  # no representable point is left between the two
                after = last
            crossings.append(
                Crossing(
                    at=float(low),
                    weights={name: float(w) for name, w in zip(front.names, at, strict=True)},
                    before=contest.names[before],
                    after=contest.names[after],
                )
            )
            before = after
    return Border(
        mode_a=mode_a.name,
        mode_b=mode_b.name,
        method=method.name,
        first=contest.names[winners[0]],
        last=contest.names[winners[-1]],
        crossings=tuple(crossings),
        front_version=front.version,
    )


def _between(start: FloatArray, end: FloatArray, points: FloatArray) -> FloatArray:
    """Weights [p, m] at points [p] of the way."""
    return np.asarray((1.0 - points)[:, None] * start + points[:, None] * end)
