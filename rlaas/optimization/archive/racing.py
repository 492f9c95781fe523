"""Racing: more evaluations for the candidates of which it is not yet known whether they belong to the front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlaas.errors import InvalidInputError
from rlaas.fronts import Front
from rlaas.optimization.archive.contenders import (
    Contender,
    check_confidence,
    check_count,
    check_seeds,
    check_tolerance,
)
from rlaas.optimization.archive.evidence import EvidenceArchive
from rlaas.optimization.archive.judging import Judge, Standing

__all__ = ["Evaluate", "Progress", "RaceResult", "complete", "race"]

Evaluate = Callable[[Sequence[Contender], Sequence[int]], ArrayLike]
"""Objectives in their units [n, n_seeds, m] of contenders on seeds; NaN where an evaluation failed."""

Progress = Callable[[int, int], None]
"""Called with (evaluations spent, evaluations allowed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceResult:
    """How a race ended.

    Attributes:
        archive: the candidates with all of their evaluations.
        standings: of every candidate, in the order of the archive.
        seeds: on which the race evaluated, in their order; a candidate was evaluated on a first part of them.
        rounds: in which it did.
        evaluations: of one candidate on one seed, that were carried out; what the archive had before is not counted.
        confidence: that no candidate was wrongly called dominated, and likewise that none was wrongly called a member.
        tolerance: how much better or worse did not count, in ranges.
    """

    archive: EvidenceArchive
    standings: tuple[Standing, ...]
    seeds: tuple[int, ...]
    rounds: int
    evaluations: int
    confidence: float
    tolerance: float

    @property
    def decided(self) -> bool:
        """Whether it is known of every candidate if it belongs to the front."""
        return all(one.status != "undecided" for one in self.standings)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Names of the candidates that are not dominated and have an evaluation: members and undecided ones."""
        return tuple(one.name for one in self.standings if one.status != "dominated" and one.samples)

    def front(self) -> Front:
        """The front of the survivors, by means over the seeds that all of them share.

        Members may share only the seeds of the first rounds, since the race stops evaluating what is decided:
        :func:`complete` evaluates them on the others first, for figures that are to be quoted. An undecided candidate
        whose mean is dominated is left out, so that no member of a front is dominated by its figures.

        Raises:
            InvalidInputError: every evaluation failed, or there is no seed on which all survivors succeeded.
        """
        return self.archive.front(self.survivors)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON types, without the evaluations."""
        return {
            "scenario": self.archive.scenario,
            "decided": self.decided,
            "rounds": self.rounds,
            "evaluations": self.evaluations,
            "confidence": self.confidence,
            "tolerance": self.tolerance,
            "seeds": list(self.seeds),
            "standings": [one.to_dict() for one in self.standings],
        }


def race(
    archive: EvidenceArchive,
    evaluate: Evaluate,
    *,
    seeds: Sequence[int],
    budget: int,
    seeds_per_round: int = 5,
    confidence: float = 0.95,
    tolerance: float = 0.0,
    progress: Progress | None = None,
) -> RaceResult:
    """Evaluate the contenders of an archive until it is known which of them belong to the front.

    The first round evaluates all on the same first seeds. After each round every pair that matters is tested
    (:class:`Judge`); the next seeds go to the candidates that are undecided and to those that may yet dominate them,
    all on the same seeds, so that differences stay paired. It ends when all is decided, or seeds or budget run out;
    what then is undecided stays so. This is the race of Maron & Moore 1994 and Birattari et al. 2002 (F-Race) with
    Pareto dominance. It differs from optimal computing budget allocation (MOCBA; Lee, Chew, Teng & Goldsman 2010),
    which makes a wrong selection less likely for a given budget but gives no bound on it.

    A contender whose evaluations failed on all seeds of its first round but one is not tried further: it stays
    undecided, and is no rival to others.

    Errors: with probability ``confidence`` or more no candidate is called dominated that no other dominates by the
    tolerance; and with the same, none is called a member that is dominated by one which still stands. Look k spends
    1 / (k (k + 1)) of the allowance, whatever the number of rounds. See
    :mod:`rlaas.optimization.archive.dominance` for what is assumed. A look compares the open candidates with all,
    seed by seed: it is meant for some hundred candidates.

    Evaluations that the archive has on these seeds are used and not repeated, so a race that was interrupted, started
    again with the same arguments, goes on where it stopped.

    Args:
        archive: the contenders; new evaluations are added to it.
        evaluate: the contenders on the seeds; the same contender and seed must give the same objectives.
        seeds: common seeds in the order of their use, at least 2.
        budget: evaluations of one contender on one seed that may be carried out.
        seeds_per_round: evaluations of each contender between two looks, at least 2.
        confidence: see above, in (0.5, 1).
        tolerance: how much better or worse does not count, in ranges of the objectives; 0 leaves candidates undecided
            whose objectives are equal but for noise, above it they become members side by side.
        progress: called after each round.

    Raises:
        InvalidInputError: an empty archive, an impossible argument, a budget that does not pay for two seeds each, or
            an evaluation of another shape or with an infinite value.
    """
    if not len(archive):
        raise InvalidInputError("a race needs at least one contender; add them to the archive", field="archive")
    order = check_seeds(seeds)
    if len(order) < 2:
        raise InvalidInputError(f"a race needs at least 2 seeds, got {len(order)}", field="seeds")
    check_count(seeds_per_round, field="seeds_per_round", at_least=2)
    check_count(budget, field="budget", at_least=0)
    judge = Judge(len(archive), alpha=1.0 - check_confidence(confidence), tolerance=check_tolerance(tolerance))
    names = archive.names
    first = archive.missing(names, order[:2])
    if first > budget:
        raise InvalidInputError(
            f"budget {budget} does not pay for 2 seeds of each of {len(names)} contenders; expected at least {first}",
            field="budget",
        )
    spent = used = rounds = 0
    needed = np.ones(len(names), dtype=np.bool_)
    while needed.any() and used < len(order):
        racing = [name for name, wanted in zip(names, needed, strict=True) if wanted]
        batch = _affordable(archive, racing, order[used : used + seeds_per_round], budget - spent)
        if not batch:
            break
        spent += _evaluate(archive, evaluate, racing, batch)
        used += len(batch)
        rounds += 1
        judge.look(archive.table(names, order[:used]), share=1.0 / (rounds * (rounds + 1)))
        needed = judge.needed()
        if progress:
            progress(spent, budget)
    raced = order[:used]
    samples = (~np.isnan(archive.table(names, raced)).any(axis=2)).sum(axis=1)
    return RaceResult(
        archive=archive,
        standings=judge.standings(names, samples.tolist()),
        seeds=raced,
        rounds=rounds,
        evaluations=spent,
        confidence=confidence,
        tolerance=tolerance,
    )


def complete(result: RaceResult, evaluate: Evaluate) -> RaceResult:
    """Evaluate the survivors of a race on all of its seeds, so that their figures compare at full length.

    Standings keep their status; evaluations that failed are tried once more.

    Raises:
        InvalidInputError: an evaluation of another shape or with an infinite value.
    """
    spent = _evaluate(result.archive, evaluate, result.survivors, result.seeds)
    counts = {one.name: len(set(result.archive.samples(one.name)[0]) & set(result.seeds)) for one in result.standings}
    return replace(
        result,
        standings=tuple(replace(one, samples=counts[one.name]) for one in result.standings),
        evaluations=result.evaluations + spent,
    )


def _affordable(archive: EvidenceArchive, names: Sequence[str], seeds: Sequence[int], budget: int) -> Sequence[int]:
    """The longest first part of ``seeds`` whose missing evaluations the budget pays for."""
    for count in range(len(seeds), 0, -1):
        if archive.missing(names, seeds[:count]) <= budget:
            return seeds[:count]
    return ()


def _evaluate(archive: EvidenceArchive, evaluate: Evaluate, names: Sequence[str], seeds: Sequence[int]) -> int:
    """Carry out what is missing, one call for all contenders that miss the same seeds; how much that was."""
    groups: dict[tuple[int, ...], list[Contender]] = {}
    for name in names:
        known = set(archive.samples(name)[0])
        missing = tuple(seed for seed in seeds if seed not in known)
        if missing:
            groups.setdefault(missing, []).append(archive.contender(name))
    spent = 0
    for missing, contenders in groups.items():
        returned = evaluate(contenders, missing)
        try:
            values = np.asarray(returned, dtype=np.float64)
        except (TypeError, ValueError) as problem:
            raise InvalidInputError(f"evaluate must return numbers: {problem}", field="evaluate") from problem
        expected = (len(contenders), len(missing), len(archive.objectives))
        if values.shape != expected:
            raise InvalidInputError(
                f"evaluate returned shape {values.shape}; expected {expected} (contenders, seeds, objectives)",
                field="evaluate",
            )
        for contender, rows in zip(contenders, values, strict=True):
            archive.add(contender, missing, rows)
        spent += len(contenders) * len(missing)
    return spent
