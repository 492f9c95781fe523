"""Picking one candidate of a front under a mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.certificate import Certificate
from rlaas.decisions.contest import Contest, Requirements, preference_weights, rule_columns
from rlaas.decisions.explanation import explain
from rlaas.decisions.methods import DecisionMatrix, Method, method_named
from rlaas.decisions.region import holds_while, weight_region
from rlaas.decisions.reversal import rank_reversals
from rlaas.decisions.rule_changes import plain_bounds, rule_changes
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Rule

__all__ = ["Choice", "resolve"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One candidate of a front, and the reasons.

    Attributes:
        candidate: the winner.
        certificate: why, and when it stops being true.
        scores: by name of every candidate that competed, in the order of the names.
    """

    candidate: Candidate
    certificate: Certificate
    scores: Mapping[str, float]


def resolve(
    front: Front,
    *,
    mode: Mode,
    method: str | Method = "topsis",
    normalisation: str = "range",
    disagreement: Mapping[str, float] | None = None,
    rules: Requirements | None = None,
) -> Choice:
    """The candidate of ``front`` that fits ``mode`` best.

    Rules come first, judged by means: only candidates that keep all of them compete. Where none does, all compete
    and the one with the least total violation (each in units of its objective's normalisation range) wins, scores
    breaking ties; the certificate says so. Equal scores go to the name that sorts first, so that the answer does not
    depend on the order of the front.

    Args:
        front: candidates with their objective values.
        mode: preference and rules; its objectives must be the front's.
        method: a name of :data:`rlaas.decisions.METHODS`, or a method with settings of its own.
        normalisation: of TOPSIS by name, ``range`` (the objectives' frozen ranges), ``vector`` or ``minmax``.
        disagreement: of the Nash bargaining solution by name: value of each objective in its unit without an
            agreement; None: those of the scenario's default where the front knows them, else the worse ends of the
            ranges.
        rules: prepared requirements that hold beside the rules of the mode.

    Raises:
        InvalidInputError: an empty front, a value that is not finite, an unknown method, a mode over other
            objectives or with impossible weights, or requirements that do not fit the front.
    """
    if isinstance(method, str):
        method = method_named(method, normalisation=normalisation, disagreement=disagreement)
    matrix = DecisionMatrix.of_front(front)
    weights = preference_weights(front, mode.preference, f"mode {mode.name!r}")
    columns = rule_columns(front, matrix, mode.rules, rules)
    plain = plain_bounds(mode.rules, rules, columns, front.names)
    contest = Contest.of(method, matrix, columns.gaps)
    scores = contest.scores(weights[None])[0]
    by_row = dict(zip(contest.members.tolist(), scores.tolist(), strict=True))
    ranking = contest.ranking(weights).tolist()
    first, second = ranking[0], ranking[1] if len(ranking) > 1 else None
    winner, gaps = matrix.candidates[first], columns.gaps[first]
    uncertain = {**_uncertain(front.names, winner, mode.rules), **_uncertain_prepared(front, winner, rules)}
    margin = None if second is None else _margin(contest, by_row, first, second)
    certificate = Certificate(
        mode=mode.name,
        method=method.name,
        candidate=winner.name,
        feasible=contest.feasible,
        score=by_row[first],
        runner_up=None if second is None else contest.names[second],
        margin=margin,
        considered=len(ranking),
        excluded=len(matrix) - len(ranking),
        rules_kept=tuple(text for text, gap in zip(columns.texts, gaps, strict=True) if gap <= 0),
        rules_violated=tuple(text for text, gap in zip(columns.texts, gaps, strict=True) if gap > 0),
        rules_uncertain=tuple(uncertain),
        doubts=tuple(uncertain.values()),
        why=explain(
            front.objectives,
            mode,
            contest.field.candidates,
            winner,
            None if second is None else matrix.candidates[second],
            margin=margin,
            excluded=len(matrix) - len(ranking),
            breaches=_breaches(front.names, winner, mode.rules, columns.texts, gaps, plain),
        ),
        holds_while=holds_while(contest, weights),
        weights=dict(zip(front.names, weights.tolist(), strict=True)),
        distances=_distances(contest, weights, first),
        runner_up_distances={} if second is None else _distances(contest, weights, second),
        region=weight_region(contest, weights),
        rule_changes=rule_changes(contest, weights, mode.rules, columns, plain),
        rank_reversals=rank_reversals(contest, weights),
        notes=method.notes(contest.field, weights),
        front_version=front.version,
    )
    return Choice(
        candidate=winner,
        certificate=certificate,
        scores={contest.names[row]: score for row, score in by_row.items()},
    )


def _margin(contest: Contest, scores: Mapping[int, float], first: int, second: int) -> float:
    margin = scores[first] - scores[second]
    # Among equals the first name wins, though rounding may have given it the lower score.
    return max(margin, 0.0) if second in contest.members[contest.eligible] else margin


def _distances(contest: Contest, weights: FloatArray, row: int) -> dict[str, float]:
    position = int(np.searchsorted(contest.members, row))
    return {name: float(v[position]) for name, v in contest.method.distances(contest.field, weights).items()}


def _breaches(
    names: Sequence[str],
    winner: Candidate,
    rules: Sequence[Rule],
    texts: Sequence[str],
    gaps: FloatArray,
    plain: Sequence[bool],
) -> list[tuple[str, str]]:
    """Rules that the winner breaks, with by how much: in the objective's unit, or in ranges for prepared ones.

    A rule that is no bound on an objective is broken by no amount: the text is empty.
    """
    values = winner.objectives(names)
    broken: list[tuple[str, str]] = []
    for j, (text, gap) in enumerate(zip(texts, gaps, strict=True)):
        if gap <= 0:
            continue
        if j < len(rules):
            broken.append((text, f"{rules[j].violation(values[rules[j].objective]):.3g}"))
        else:
            broken.append((text, f"{gap:.3g} of the range" if plain[j] else ""))
    return broken


def _uncertain(names: Sequence[str], winner: Candidate, rules: Sequence[Rule]) -> dict[str, str]:
    """Rules of a mode that the winner keeps without its confidence interval doing so, each with a sentence."""
    uncertain: dict[str, str] = {}
    values = winner.objectives(names)
    widths = dict(zip(names, winner.half_width, strict=True))
    for rule in rules:
        value, width = values[rule.objective], widths[rule.objective]
        worst = value + width if rule.at_most is not None else value - width
        # An infinite or unknown width (one seed) leaves the rule open.
        if rule.violation(value) <= 0 and (not np.isfinite(worst) or rule.violation(worst) > 0):
            whole = f"not by its whole interval (± {width:.2g})" if np.isfinite(width) else "its interval is not known"
            uncertain[str(rule)] = f"Rule {rule} is kept by the mean {value:.4g}, but {whole}."
    return uncertain


def _uncertain_prepared(front: Front, winner: Candidate, requirements: Requirements | None) -> dict[str, str]:
    """The same of the rules of a book, the only prepared ones that can be judged by intervals."""
    if requirements is None:
        return {}
    from rlaas.decisions.rules import Applied

    if not isinstance(requirements, Applied):
        return {}
    alone = replace(front, candidates=(winner,))
    kept = requirements.violations(alone)[0] <= 0
    broken = replace(requirements, cautious=True).violations(alone)[0] > 0
    return {
        text: f"Rule {text} is kept by the means, but not by their whole intervals."
        for text, open_ in zip(requirements.describe(), kept & broken, strict=True)
        if open_
    }
