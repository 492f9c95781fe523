"""Whether candidates that were not chosen decide who is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.contest import Contest

__all__ = ["Reversal", "rank_reversals"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversal:
    """A change of the field that should not matter and changes the choice.

    Attributes:
        change: ``without`` a candidate that was not chosen, or with one ``twice``.
        candidate: its name.
        choice: name of the candidate that wins then.
    """

    change: Literal["without", "twice"]
    candidate: str
    choice: str

    def to_dict(self) -> dict[str, str]:
        """The reversal as plain JSON types."""
        return {"change": self.change, "candidate": self.candidate, "choice": self.choice}

    def __str__(self) -> str:
        how = f"without {self.candidate}" if self.change == "without" else f"with a second {self.candidate}"
        return f"{how} it would be {self.choice}"


def rank_reversals(contest: Contest, weights: FloatArray) -> tuple[Reversal, ...]:
    """Changes of the competing field that reverse the choice under ``weights`` [m] (Belton & Gear 1983, Omega 11).

    Tried: every candidate but the chosen one removed in turn, a second copy of the last in the ranking, and a second
    copy of the chosen one. Empty where none reverses.
    """
    ranking = contest.ranking(weights)
    winner = int(ranking[0])
    found: list[Reversal] = []
    tries: list[tuple[Literal["without", "twice"], int, NDArray[np.intp]]] = [
        ("without", int(row), contest.members[contest.members != row]) for row in contest.members if row != winner
    ]
    tries += [("twice", row, np.append(contest.members, row)) for row in dict.fromkeys((int(ranking[-1]), winner))]
    for change, row, rows in tries:
        choice = int(rows[contest.among(rows).winner(weights)])
        if choice != winner:
            found.append(Reversal(change=change, candidate=contest.names[row], choice=contest.names[choice]))
    return tuple(found)
