"""Who belongs to the front, judged by evidence: error control over pairs of candidates and over repeated looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.optimization.archive.dominance import differences, p_does_not_dominate, p_dominates

__all__ = ["Judge", "Standing", "Status"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.intp]

Status = Literal["member", "dominated", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a candidate stands towards the front.

    Attributes:
        name: of the candidate.
        status: ``member`` (no other candidate that still stands dominates it), ``dominated``, or ``undecided``.
        dominated_by: name of a candidate that dominates it (and may since be dominated itself); None unless dominated.
        confidence: that the status is right, after the correction for all pairs and looks; None while undecided.
        samples: evaluations behind it.
    """

    name: str
    status: Status
    dominated_by: str | None
    confidence: float | None
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """The standing as plain JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


class Judge:
    """Decides for each of n candidates whether another one dominates it, look by look.

    A claim on one pair of candidates ("a dominates b", "a does not dominate b") stands once made. A look makes a claim
    if its p-value is at most ``alpha * share / (n (n - 1))``: Bonferroni over the ordered pairs and, the shares of all
    looks summing to at most 1, over looks. Evaluating until something is decided thus costs no validity (the union
    bound of the races of Maron & Moore 1994). With probability ``1 - alpha`` or more, no candidate is ever called
    dominated that no other dominates; and with the same, none is called a member that is dominated by one which still
    stands. Both hold together with ``1 - 2 alpha``.

    A candidate is dominated once one that is not itself dominated is found to dominate it; it is a member once all
    that are not dominated are found not to. With a tolerance dominance is not transitive; that only candidates which
    still stand may rule others out keeps at least one in.

    A candidate with fewer than two evaluations cannot be tested: it is undecided, and counts neither as a rival of
    others nor as one whose evaluation could decide something.

    Args:
        n: candidates.
        alpha: probability of a wrong claim, at most, for each of the two kinds.
        tolerance: how much better or worse does not count, in ranges.
    """

    def __init__(self, n: int, *, alpha: float, tolerance: float) -> None:
        self._n = n
        self._alpha = alpha
        self._tolerance = tolerance
        self._testable: BoolArray = np.ones(n, dtype=np.bool_)
        self._dominator: IntArray = np.full(n, -1)
        self._p_dominated = np.ones(n)
        # Row b, column a: that a does not dominate b, and how likely that claim is wrong.
        self._p_cleared = np.zeros((n, n))
        self._cleared: BoolArray = np.eye(n, dtype=np.bool_)

    def undecided(self) -> BoolArray:
        """Candidates of which more would have to be known [n]."""
        return (self._dominator < 0) & (~self._testable | (~self._cleared & self._rivals()).any(axis=1))

    def needed(self) -> BoolArray:
        """Candidates whose evaluations could decide something [n]: the undecided, and who may yet dominate them."""
        open_ones = self.undecided() & self._testable
        return open_ones | ((~self._cleared[open_ones]).any(axis=0) & self._rivals())

    def look(self, table: FloatArray, share: float = 1.0) -> None:
        """Judge by all evaluations so far.

        Args:
            table: objectives in ranges, smaller is better [n, n_seeds, m]; rows of NaN where there is no evaluation.
            share: of ``alpha`` that this look may spend.
        """
        self._testable = (~np.isnan(table).any(axis=2)).sum(axis=1) >= 2
        claims: list[tuple[float, int, int]] = []
        tests = self._n * (self._n - 1) / share
        for b in np.flatnonzero(self.undecided() & self._testable).tolist():
            rivals = np.flatnonzero(~self._cleared[b] & self._rivals())
            found = differences(table[rivals], table[b])
            p_against = np.minimum(1.0, tests * p_dominates(found, self._tolerance))
            claims += [(float(p), b, int(a)) for p, a in zip(p_against, rivals, strict=True) if p <= self._alpha]
            p_for = np.minimum(1.0, tests * p_does_not_dominate(found, self._tolerance))
            clear = rivals[p_for <= self._alpha]
            self._cleared[b, clear] = True
            self._p_cleared[b, clear] = p_for[p_for <= self._alpha]
        for p, b, a in sorted(claims):  # the surest first; of equal ones the first by position
            if self._dominator[a] < 0 and self._dominator[b] < 0:
                self._dominator[b] = a
                self._p_dominated[b] = p

    def standings(self, names: Sequence[str], samples: Sequence[int]) -> tuple[Standing, ...]:
        """Where each candidate stands, in their order.

        Args:
            names: of the candidates.
            samples: evaluations of each.
        """
        undecided, standing = self.undecided(), self._dominator < 0
        found = []
        for b, name in enumerate(names):
            status: Status = "undecided" if undecided[b] else "member" if standing[b] else "dominated"
            doubt = {
                "undecided": None,
                "member": float(self._p_cleared[b, standing].max()) if standing[b] else None,
                "dominated": float(self._p_dominated[b]),
            }[status]
            found.append(
                Standing(
                    name=name,
                    status=status,
                    dominated_by=names[self._dominator[b]] if status == "dominated" else None,
                    confidence=None if doubt is None else 1.0 - doubt,
                    samples=samples[b],
                )
            )
        return tuple(found)

    def _rivals(self) -> BoolArray:
        return (self._dominator < 0) & self._testable
