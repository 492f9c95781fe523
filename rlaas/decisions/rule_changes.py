"""How far rules can move before a choice changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.contest import Contest, Requirements, RuleColumns
from rlaas.objectives import Objective, Rule

__all__ = ["RuleChange", "plain_bounds", "rule_changes"]

FloatArray = NDArray[np.float64]

BISECTIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """One rule, and what moving or dropping it does to the choice.

    Attributes:
        rule: as text.
        plain: whether it is one bound on one objective. Any other cannot be moved along a range: what is said of
            tightening and loosening it is then None.
        slack_known: false for prepared requirements that tell only by how much they are broken; how far they can be
            tightened is then unknown, and ``tighten`` None.
        tighten: how far it can be tightened, in ranges of its objective, and the choice stays and keeps what it
            keeps; None without end.
        tighten_bound: the bound then, in the objective's unit; None without end and for a prepared requirement.
        tightened: name of the choice just beyond; None without end. The present one where nothing is left that
            keeps the rules, and it misses them by least.
        loosen: how far it can be loosened before the choice changes, in ranges; None without end.
        loosen_bound, loosened: as above.
        without: name of the choice without the rule.
    """

    rule: str
    plain: bool
    slack_known: bool
    tighten: float | None
    tighten_bound: float | None
    tightened: str | None
    loosen: float | None
    loosen_bound: float | None
    loosened: str | None
    without: str

    def to_dict(self) -> dict[str, Any]:
        """The change as plain JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


def plain_bounds(
    rules: Sequence[Rule], requirements: Requirements | None, columns: RuleColumns, names: Sequence[str]
) -> tuple[bool, ...]:
    """Whether each rule of ``columns`` is one bound on one objective, so that ranges measure it.

    Those of a mode are. Prepared requirements are taken to be, unless a rule book tells what they are about.

    Args:
        rules: of the mode, which are the first of ``columns``.
        requirements: prepared ones, which follow.
        columns: all rules.
        names: of the objectives.
    """
    if requirements is None:  # a choice without rules need not wait for the rule engine
        return (True,) * len(columns.texts)
    from rlaas.decisions.rules import Applied
    from rlaas.decisions.rules.expressions import Comparison

    if not isinstance(requirements, Applied):
        return (True,) * len(columns.texts)
    prepared = (requirement.keeps for requirement in requirements.requirements)
    own = (
        isinstance(keeps, Comparison) and keeps.operator in {"<", "<=", ">", ">="} and keeps.field.name in names
        for keeps in prepared
    )
    return (*(True for _ in rules), *own)


def rule_changes(
    contest: Contest, weights: FloatArray, rules: Sequence[Rule], columns: RuleColumns, plain: Sequence[bool]
) -> tuple[RuleChange, ...]:
    """What each rule of ``contest`` allows.

    Exact: who competes changes only where the moving bound passes a candidate, and where nobody keeps the rules the
    violations are straight lines in between.

    Args:
        contest: of the choice, under ``columns``.
        weights: of the choice [m].
        rules: of the mode, which are the first of ``columns``.
        columns: all rules.
        plain: of each, as :func:`plain_bounds` tells.
    """
    objectives = {objective.name: objective for objective in contest.matrix.objectives}
    winner = contest.winner(weights)
    changes = []
    for j, text in enumerate(columns.texts):
        tighten, tightened = _tightened(contest, weights, j, winner) if plain[j] else (None, None)
        loosen, loosened = _loosened(contest, weights, j, winner) if plain[j] else (None, None)
        rule = rules[j] if j < len(rules) else None
        changes.append(
            RuleChange(
                rule=text,
                plain=plain[j],
                slack_known=columns.signed[j],
                tighten=tighten,
                tighten_bound=_bound(rule, objectives, None if tighten is None else -tighten),
                tightened=tightened,
                loosen=loosen,
                loosen_bound=_bound(rule, objectives, loosen),
                loosened=loosened,
                without=contest.names[contest.without(j).winner(weights)],
            )
        )
    return tuple(changes)


def _tightened(contest: Contest, weights: FloatArray, j: int, winner: int) -> tuple[float | None, str | None]:
    own = -float(contest.gaps[winner, j])
    gaps = _events(contest, j)
    slacks = np.unique(-gaps[(gaps <= 0) & np.isfinite(gaps)])
    before = 0.0
    for slack in slacks:
        beyond = float(np.nextafter(slack, np.inf))
        found = contest.shifted(j, -beyond).winner(weights)
        # Beyond its own slack a choice that keeps the rule would break it.
        broken = contest.feasible and slack == own
        if found != winner or broken:
            stays = float(slack) if contest.feasible else -_border(contest, weights, j, winner, (-before, -beyond))
            return stays, contest.names[found]
        before = beyond
    return None, None


def _loosened(contest: Contest, weights: FloatArray, j: int, winner: int) -> tuple[float | None, str | None]:
    gaps = _events(contest, j)
    before = 0.0
    for gap in np.unique(gaps[(gaps > 0) & np.isfinite(gaps)]):
        found = contest.shifted(j, float(gap)).winner(weights)
        if found != winner:
            stays = float(gap) if contest.feasible else _border(contest, weights, j, winner, (before, float(gap)))
            return stays, contest.names[found]
        before = float(gap)
    return None, None


def _events(contest: Contest, j: int) -> FloatArray:
    """Gaps at which moving rule ``j`` changes something."""
    if not contest.feasible:
        return contest.gaps[:, j]
    others = np.delete(contest.gaps, j, axis=1)
    return np.asarray(contest.gaps[(others <= 0).all(axis=1), j])


def _border(contest: Contest, weights: FloatArray, j: int, winner: int, ends: tuple[float, float]) -> float:
    """The last shift between the two at which ``winner`` stays, which it does at the first and not at the second."""
    holds, fails = ends
    for _ in range(BISECTIONS):
        middle = 0.5 * (holds + fails)
        if contest.shifted(j, middle).winner(weights) == winner:
            holds = middle
        else:
            fails = middle
    return holds


def _bound(rule: Rule | None, objectives: dict[str, Objective], loosened: float | None) -> float | None:
    """The bound of ``rule`` once loosened by so many ranges, in the objective's unit."""
    if rule is None or loosened is None:
        return None
    by = loosened * (objectives[rule.objective].high - objectives[rule.objective].low)
    return rule.at_most + by if rule.at_most is not None else float(rule.at_least or 0.0) - by
