"""Picking one candidate of a front under a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.certificate import Certificate, explain
from rlaas.decisions.topsis import NORMALISATIONS, topsis_scores, weighted_sum_scores
from rlaas.errors import InvalidInputError, check_choice
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, Rule, normalise

__all__ = ["METHODS", "Choice", "resolve"]

FloatArray = NDArray[np.float64]
Scorer = Callable[[FloatArray], FloatArray]
"""Scores [k, n] of the competing candidates under each of k weight vectors [k, m]."""

METHODS = ("topsis", "weighted_sum")

GRID = 201
BISECTIONS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One candidate of a front, and the reasons.

    Attributes:
        candidate: the winner.
        certificate: why, and when it stops being true.
        scores: by name of every candidate that competed.
    """

    candidate: Candidate
    certificate: Certificate
    scores: Mapping[str, float]


def resolve(front: Front, *, mode: Mode, method: str = "topsis", normalisation: str = "vector") -> Choice:
    """The candidate of ``front`` that fits ``mode`` best.

    Rules come first, judged by means: only candidates that keep all of them compete. Where none does, all compete
    and the one with the least total violation (each in units of its objective's normalisation range) wins, scores
    breaking ties; the certificate says so. Equal scores go to the name that sorts first, so that the answer does not
    depend on the order of the front.

    Args:
        front: candidates with their objective values.
        mode: preference and rules; its objectives must be the front's.
        method: ``topsis`` (on values in their units) or ``weighted_sum`` (on goodness in the frozen ranges).
        normalisation: of TOPSIS, ``vector`` or ``minmax``.

    Raises:
        InvalidInputError: an empty front, an unknown method, or a mode over other objectives.
    """
    check_choice(method, METHODS, field="method", error=InvalidInputError)
    check_choice(normalisation, NORMALISATIONS, field="normalisation", error=InvalidInputError)
    if not front.candidates:
        raise InvalidInputError(f"the front of {front.scenario} has no candidate", field="front")
    weights = _weights(front, mode)
    violations = _violations(front, mode.rules)
    total = violations.sum(axis=1)
    feasible = total <= 0
    competing = feasible if feasible.any() else np.ones(len(total), dtype=bool)
    rivals = [candidate for candidate, in_it in zip(front.candidates, competing, strict=True) if in_it]
    scorer = _scorer(front.objectives, rivals, method, normalisation)
    scores = scorer(weights[None])[0]
    ranking = _ranking(rivals, scores, total[competing])
    winner, first = rivals[ranking[0]], float(scores[ranking[0]])
    runner_up = rivals[ranking[1]] if len(rivals) > 1 else None
    margin = None if runner_up is None else first - float(scores[ranking[1]])
    kept, violated, uncertain = _judge(front.names, winner, mode.rules)
    certificate = Certificate(
        mode=mode.name,
        method=method,
        candidate=winner.name,
        feasible=not violated,
        score=first,
        runner_up=None if runner_up is None else runner_up.name,
        margin=margin,
        considered=len(rivals),
        excluded=len(front.candidates) - len(rivals),
        rules_kept=tuple(map(str, kept)),
        rules_violated=tuple(map(str, violated)),
        rules_uncertain=tuple(map(str, uncertain)),
        why=explain(
            front.objectives,
            mode,
            rivals,
            winner,
            runner_up,
            margin=margin,
            excluded=len(front.candidates) - len(rivals),
            violated=violated,
        ),
        holds_while=_holds_while(
            front.names, weights, lambda w: _winners(rivals, scorer(w), total[competing]) == ranking[0]
        ),
    )
    by_name = {candidate.name: float(score) for candidate, score in zip(rivals, scores, strict=True)}
    return Choice(candidate=winner, certificate=certificate, scores=by_name)


def _weights(front: Front, mode: Mode) -> FloatArray:
    preference: Preference = mode.preference
    if len(preference.names) != len(preference.weights) or set(preference.names) != set(front.names):
        raise InvalidInputError(
            f"mode {mode.name!r} has {len(preference.weights)} weights ({', '.join(preference.names)}); the front of "
            f"{front.scenario} has {len(front.names)} objectives ({', '.join(front.names)})",
            field="preference",
        )
    by_name = preference.to_dict()
    return np.array([by_name[name] for name in front.names])


def _violations(front: Front, rules: Sequence[Rule]) -> FloatArray:
    """How far each candidate breaks each rule [n_candidates, n_rules], in normalisation ranges."""
    spans = {o.name: o.high - o.low for o in front.objectives}
    broken = np.zeros((len(front.candidates), len(rules)))
    for i, candidate in enumerate(front.candidates):
        values = candidate.objectives(front.names)
        for j, rule in enumerate(rules):
            broken[i, j] = rule.violation(values[rule.objective]) / spans[rule.objective]
    return broken


def _scorer(objectives: Sequence[Objective], rivals: Sequence[Candidate], method: str, normalisation: str) -> Scorer:
    values = np.array([c.mean for c in rivals])
    if method == "weighted_sum":
        goodness = normalise(objectives, values)
        return lambda weights: weighted_sum_scores(goodness, weights)
    up = np.array([o.direction == "maximize" for o in objectives])
    return lambda weights: topsis_scores(values, weights, up, normalisation)


def _ranking(rivals: Sequence[Candidate], scores: FloatArray, violation: FloatArray) -> list[int]:
    """Positions from best to worst: least violation (0 for all where some are feasible), best score, first name."""
    return sorted(range(len(rivals)), key=lambda i: (violation[i], -scores[i], rivals[i].name))


def _winners(rivals: Sequence[Candidate], scores: FloatArray, violation: FloatArray) -> NDArray[np.intp]:
    """Position of the winner for each of k score rows [k, n], by the same order as :func:`_ranking`."""
    by_name = np.array(sorted(range(len(rivals)), key=lambda i: (violation[i], rivals[i].name)))
    eligible = by_name[violation[by_name] == violation.min()]
    return np.asarray(eligible[scores[:, eligible].argmax(axis=1)])


def _judge(names: Sequence[str], winner: Candidate, rules: Sequence[Rule]) -> tuple[list[Rule], list[Rule], list[Rule]]:
    """Rules that the winner keeps, breaks, and keeps without its confidence interval doing so."""
    kept: list[Rule] = []
    violated: list[Rule] = []
    uncertain: list[Rule] = []
    values = winner.objectives(names)
    widths = dict(zip(names, winner.half_width, strict=True))
    for rule in rules:
        value, width = values[rule.objective], widths[rule.objective]
        if rule.violation(value) > 0:
            violated.append(rule)
            continue
        kept.append(rule)
        worst = value + width if rule.at_most is not None else value - width
        # An infinite or unknown width (one seed) leaves the rule open.
        if not np.isfinite(worst) or rule.violation(worst) > 0:
            uncertain.append(rule)
    return kept, violated, uncertain


def _holds_while(
    names: Sequence[str], weights: FloatArray, still_wins: Callable[[FloatArray], NDArray[np.bool_]]
) -> dict[str, tuple[float, float]]:
    """By objective, the range of its weight around the present one in which the winner stays.

    A grid finds the first point on each side where another wins, bisection the border before it; a loss and return
    within one grid step (0.5 % of the weight's range) goes unseen.
    """
    result: dict[str, tuple[float, float]] = {}
    for j, name in enumerate(names):
        own = float(weights[j])
        ends = []
        for limit in (0.0, 1.0):
            steps = np.linspace(own, limit, GRID)
            wins = still_wins(_moved(weights, j, steps))
            lost = np.flatnonzero(~wins)
            if not len(lost):
                ends.append(limit)
                continue
            holds, fails = float(steps[max(lost[0] - 1, 0)]), float(steps[lost[0]])
            for _ in range(BISECTIONS):
                middle = 0.5 * (holds + fails)
                if still_wins(_moved(weights, j, np.array([middle])))[0]:
                    holds = middle
                else:
                    fails = middle
            ends.append(holds)
        result[name] = (ends[0], ends[1])
    return result


def _moved(weights: FloatArray, j: int, targets: FloatArray) -> FloatArray:
    """Weights [k, m] with the j-th at each target and the others in their proportions, sum 1."""
    others = weights.copy()
    others[j] = 0.0
    total = others.sum()
    if total <= 0:  # all weight on j: what is taken from it is shared equally
        others = np.ones_like(weights)
        others[j] = 0.0
        total = others.sum()
    moved = (1.0 - targets)[:, None] * (others / total)
    moved[:, j] = targets
    return np.asarray(moved)
