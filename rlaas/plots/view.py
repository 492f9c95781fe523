"""What a picture of a front shows: its candidates, the choices of the modes, and baselines to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions import Choice
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import normalise

__all__ = ["FrontView"]

FloatArray = NDArray[np.float64]

LARGEST = 1e100
"""Beyond this magnitude an axis cannot be divided into ticks without overflow."""
REACH = 0.5
"""How far beyond the normalisation range, in ranges, a candidate may lie and still widen an axis."""
MARGIN = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontView:
    """A front, checked so that every picture of it can be drawn. Build it with :meth:`of`.

    Attributes:
        front: what is shown.
        chosen: name of the candidate that each mode chose.
        reasons: why, by mode.
        baselines: points to compare with, no members of the front.
    """

    front: Front
    chosen: Mapping[str, str]
    reasons: Mapping[str, str]
    baselines: tuple[Candidate, ...]

    @classmethod
    def of(
        cls, front: Front, *, choices: Mapping[str, Choice] | None = None, baselines: Iterable[Candidate] = ()
    ) -> FrontView:
        """Check and put together.

        Args:
            front: the candidates.
            choices: by mode, as :func:`rlaas.decisions.resolve` gives them.
            baselines: evaluated in the objectives of the front.

        Raises:
            InvalidInputError: an empty front, a value that no axis can hold, a negative half width, or a choice that
                is not on the front.
        """
        others = tuple(baselines)
        if not front.candidates:
            raise InvalidInputError(f"the front of {front.scenario} has no candidate to show", field="front")
        for role, members in (("candidate", front.candidates), ("baseline", others)):
            for member in members:
                _check(role, member, len(front.objectives))
        names = {candidate.name for candidate in front.candidates}
        made = choices or {}
        for mode, choice in made.items():
            if choice.candidate.name not in names:
                raise InvalidInputError(
                    f"mode {mode} chose {choice.candidate.name!r}, which is not on the front", field="choices"
                )
        return cls(
            front=front,
            chosen={mode: choice.candidate.name for mode, choice in made.items()},
            reasons={mode: choice.certificate.why for mode, choice in made.items()},
            baselines=others,
        )

    def modes_by_candidate(self) -> dict[str, list[str]]:
        """Names of the modes that chose a candidate, by the candidate's name, in the order of the modes."""
        found: dict[str, list[str]] = {}
        for mode, name in self.chosen.items():
            found.setdefault(name, []).append(mode)
        return found

    def goodness(self) -> FloatArray:
        """Goodness of the candidates [n, m]: 1 at the better end of an objective's range, 0 at the worse, unclipped."""
        return normalise(self.front.objectives, self.front.values())

    def baseline_values(self) -> FloatArray:
        """Means of the baselines [n_baselines, m] in the objectives' units."""
        return np.array([b.mean for b in self.baselines], dtype=np.float64).reshape(-1, len(self.front.objectives))

    def outside(self, x: int, y: int) -> tuple[str, ...]:
        """Names of the candidates and baselines that lie beyond :meth:`limits` in objective ``x`` or ``y``."""
        points = np.concatenate([self.front.values(), self.baseline_values()])[:, [x, y]]
        low, high = self.limits()[[x, y]].T
        inside = ((points >= low) & (points <= high)).all(axis=1).tolist()
        names = [c.name for c in self.front.candidates] + [f"baseline {b.name}" for b in self.baselines]
        return tuple(name for name, is_inside in zip(names, inside, strict=True) if not is_inside)

    def limits(self) -> FloatArray:
        """Ends [m, 2] of an axis for each objective, in its unit.

        One candidate that gave an objective up altogether must not squeeze all others into a corner: what lies more
        than half a normalisation range outside that range widens no axis, unless a mode chose it.
        """
        values = np.concatenate([self.front.values(), self.baseline_values()])
        chosen = np.array([c.name in self.modes_by_candidate() for c in self.front.candidates])
        marked = np.concatenate([chosen, np.zeros(len(self.baselines), dtype=bool)])
        ends = np.empty((len(self.front.objectives), 2))
        for j, objective in enumerate(self.front.objectives):
            reach = REACH * (objective.high - objective.low)
            near = (values[:, j] >= objective.low - reach) & (values[:, j] <= objective.high + reach)
            column = values[near | marked, j] if near.any() else values[:, j]
            spread, largest = float(np.ptp(column)), float(np.abs(column).max())
            # A spread at the limit of the numbers' resolution would give an axis without ticks.
            margin = MARGIN * spread if spread > 1e-9 * largest else max(reach, MARGIN * largest)
            ends[j] = column.min() - margin, column.max() + margin
        return ends


def _check(role: str, member: Candidate, m: int) -> None:
    if len(member.mean) != m:
        raise InvalidInputError(
            f"{role} {member.name!r} has {len(member.mean)} objectives; expected {m}", field=f"{role}.mean"
        )
    try:
        mean, width = np.array(member.mean, dtype=np.float64), np.array(member.half_width, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise InvalidInputError(f"{role} {member.name!r} has an objective that is no number", field="mean") from problem
    if not (np.abs(mean) <= LARGEST).all():
        raise InvalidInputError(
            f"{role} {member.name!r} has an objective beyond {LARGEST:g}, which no axis can show: {member.mean}",
            field=f"{role}.mean",
        )
    if (width < 0).any() or (width[np.isfinite(width)] > LARGEST).any():
        raise InvalidInputError(
            f"{role} {member.name!r} has a half width outside 0 .. {LARGEST:g}: {member.half_width}",
            field=f"{role}.half_width",
        )
