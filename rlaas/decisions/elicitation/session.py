"""Finding a person's weights by asking which of two candidates they like better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.elicitation.answers import Answer, Comparison, Question, half_spaces, refuse_contradiction
from rlaas.decisions.elicitation.questions import Standing, next_pair, possible, standing
from rlaas.decisions.elicitation.region import WeightRegion
from rlaas.errors import ConflictError, InvalidInputError, shown
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Preference, normalise

__all__ = ["Elicitation"]

FloatArray = NDArray[np.float64]

SCHEMA_VERSION = 1
SAMPLE = 400
MOST_ANSWERS = 200
MOST_GOODNESS = 1e6
"""Linear programs are exact to about 1e-7: beyond, the tolerances here mean nothing."""


class Elicitation:
    """A dialogue about a front: questions "A or B?", and the weights that agree with the answers so far.

    The person is taken to value candidates by the weighted mean of goodness (:func:`rlaas.objectives.normalise`), as
    the method ``weighted_sum`` of the resolver does. Each answer cuts the simplex of weights by a half-space (Toubia,
    Simester & Hauser 2003), taken at its word: an answer that fits no weights which the earlier ones left is refused.

    A state never changes; answering gives the next one. The same front, seed and answers give the same questions.

    Args:
        front: candidates to choose from.
        answers: given so far.
        tolerance: stop once the recommendation lacks at most so much goodness, in [0, 1); 0 asks until one candidate is
            best under all weights that are left.
        indifference: largest difference in goodness between candidates that the person may call equal, in (0, 1).
        seed: of the sample by which questions are chosen.

    Raises:
        InvalidInputError: an empty front, an option out of range, or an answer about a candidate that is not there.
        ConflictError: answers that contradict each other, named.
    """

    def __init__(
        self,
        front: Front,
        *,
        answers: Sequence[Comparison] = (),
        tolerance: float = 0.01,
        indifference: float = 0.01,
        seed: int = 0,
    ) -> None:
        if not front.candidates:
            raise InvalidInputError(f"the front of {front.scenario} has no candidate", field="front")
        for candidate in front.candidates:
            if len(candidate.mean) != len(front.objectives):
                raise InvalidInputError(
                    f"candidate {candidate.name!r} has {len(candidate.mean)} objectives; expected "
                    f"{len(front.objectives)}",
                    field="mean",
                )
        if len(answers) > MOST_ANSWERS:
            raise InvalidInputError(f"{len(answers)} answers; at most {MOST_ANSWERS} are allowed", field="answers")
        # By name, so that questions do not depend on the order in which a front came.
        self.front = front = replace(front, candidates=tuple(sorted(front.candidates, key=lambda c: c.name)))
        self.tolerance = _number(tolerance, field="tolerance", with_zero=True)
        self.indifference = _number(indifference, field="indifference", with_zero=False)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidInputError(f"seed must be a whole number >= 0, got {shown(seed)}", field="seed")
        self.seed = seed
        self._goodness = normalise(front.objectives, front.values())
        if not np.abs(self._goodness).max() <= MOST_GOODNESS:
            raise InvalidInputError(
                f"the front of {front.scenario} has values more than {MOST_GOODNESS:g} normalisation ranges away from "
                "their range; set the objectives' low and high to fit",
                field="front",
            )
        self._position = {candidate.name: i for i, candidate in enumerate(front.candidates)}
        self.answers: tuple[Comparison, ...] = ()
        self._cuts: tuple[tuple[FloatArray, FloatArray], ...] = ()
        self._region = WeightRegion(len(front.objectives))
        self._share = 1.0
        for comparison in answers:
            self._take(comparison)

    def question(self) -> Question | None:
        """What to ask next, or None when the answers suffice (or no further question would tell anything)."""
        return self._question

    def answer(self, answer: Answer) -> Elicitation:
        """The state after ``answer`` ("a", "b" or "equal") to :meth:`question`.

        Raises:
            InvalidInputError: another answer.
            ConflictError: there is no question.
        """
        question = self.question()
        if question is None:
            raise ConflictError("there is nothing left to ask: the answers suffice", field="answer")
        return self.compare(question.a.name, question.b.name, answer)

    def answer_all(self, answers: Iterable[Answer]) -> Elicitation:
        """The state after several answers, each to the question that the one before leads to.

        Raises:
            InvalidInputError: an answer that is none of "a", "b" and "equal".
            ConflictError: more answers than questions.
        """
        state = self
        for answer in answers:
            state = state.answer(answer)
        return state

    def compare(self, a: str, b: str, answer: Answer) -> Elicitation:
        """The state after a comparison of any two candidates by name, asked for or not.

        Raises:
            InvalidInputError: an unknown candidate or answer, or one candidate twice.
            ConflictError: it contradicts earlier answers, which are named; this state remains as it is.
        """
        following = self._with(())
        following.answers, following._cuts = self.answers, self._cuts
        following._region, following._share = self._region, self._share
        following._take(Comparison(a=a, b=b, answer=answer))
        return following

    def undo(self, number: int | None = None) -> Elicitation:
        """The state without an answer: the last, or the one of this number, counted from 1.

        Raises:
            InvalidInputError: there is no such answer.
        """
        position = len(self.answers) if number is None else number
        if isinstance(position, bool) or not isinstance(position, int) or not 1 <= position <= len(self.answers):
            allowed = f"1 to {len(self.answers)}" if self.answers else "none, as nothing was answered"
            raise InvalidInputError(
                f"answer {shown(position)} cannot be taken back; allowed: {allowed}", field="number"
            )
        return self._with(self.answers[: position - 1] + self.answers[position:])

    def result(self) -> Preference:
        """The weights in the middle of those that are left: the Chebyshev centre, farthest from every border."""
        return Preference.of(self.front.objectives, self._region.centre)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to ask."""
        return self._question is None

    @property
    def recommended(self) -> Candidate:
        """The candidate that lacks least, whatever the weights that are left (minimax regret)."""
        return self.front.candidates[self._standing.best]

    @property
    def max_regret(self) -> float:
        """How much goodness the recommendation lacks at most; certified by the corners of the region."""
        return self._standing.max_regret

    @property
    def possible(self) -> tuple[Candidate, ...]:
        """Candidates that are best under some weights that are left, not only at their border."""
        return tuple(self.front.candidates[i] for i in self._possible)

    @property
    def remaining(self) -> float:
        """Share of all weights that is left, in (0, 1]: exact up to five objectives, estimated by sampling above."""
        return self._share

    def agrees(self, preference: Preference) -> bool:
        """Whether these weights are among those that are left.

        Raises:
            InvalidInputError: they are over other objectives.
        """
        weights = Preference.of(self.front.objectives, preference.to_dict())
        return self._region.contains(weights.array())

    def summary(self) -> dict[str, Any]:
        """How things stand, as plain JSON types; ``question`` is None once ``done``."""
        question = self.question()
        return {
            "done": question is None,
            "question": None if question is None else question.to_dict(),
            "answered": len(self.answers),
            "remaining": self.remaining,
            "max_regret": self.max_regret,
            "possible": [candidate.name for candidate in self.possible],
            "recommended": self.recommended.name,
            "preference": self.result().to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON types, without the front, of which it holds the version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "scenario": self.front.scenario,
            "front": self.front.version,
            "tolerance": self.tolerance,
            "indifference": self.indifference,
            "seed": self.seed,
            "answers": [comparison.to_dict() for comparison in self.answers],
        }

    @classmethod
    def from_dict(cls, document: Any, front: Front) -> Elicitation:
        """The inverse of :meth:`to_dict`, with the front that was asked about.

        Raises:
            InvalidInputError: a malformed document; names the part.
            ConflictError: another front, or answers that contradict each other.
        """
        keys = ("schema_version", "scenario", "front", "tolerance", "indifference", "seed", "answers")
        if not isinstance(document, Mapping) or set(document) != set(keys):
            raise InvalidInputError(
                f"an elicitation must be an object with the keys {', '.join(keys)}, got {shown(document)}",
                field="elicitation",
            )
        if document["schema_version"] != SCHEMA_VERSION:
            raise InvalidInputError(
                f"elicitation schema_version {shown(document['schema_version'])} is not supported; expected "
                f"{SCHEMA_VERSION}",
                field="schema_version",
            )
        if (document["scenario"], document["front"]) != (front.scenario, front.version):
            raise ConflictError(
                f"the answers are about another front than the present one of {front.scenario}; start again",
                field="front",
            )
        answers = document["answers"]
        if not isinstance(answers, list):
            raise InvalidInputError(f"answers must be a list, got {shown(answers)}", field="answers")
        return cls(
            front,
            answers=[Comparison.from_dict(entry, field=f"answers[{i}]") for i, entry in enumerate(answers)],
            tolerance=document["tolerance"],
            indifference=document["indifference"],
            seed=document["seed"],
        )

    def _with(self, answers: Sequence[Comparison]) -> Elicitation:
        return Elicitation(
            self.front, answers=answers, tolerance=self.tolerance, indifference=self.indifference, seed=self.seed
        )

    def _take(self, comparison: Comparison) -> None:
        difference = self._goodness[self._at(comparison.a)] - self._goodness[self._at(comparison.b)]
        cut = half_spaces(comparison.answer, difference, self.indifference)
        self.answers, self._cuts = (*self.answers, comparison), (*self._cuts, cut)
        region = self._region.cut(*cut)
        if region.empty:
            refuse_contradiction(self.answers, self._cuts)
        share = region.exact_share
        if share is None:  # a chain of ratios, each of them far from 0
            sample = self._region.sample(SAMPLE, np.random.default_rng([self.seed, len(self.answers) - 1]))
            kept = (sample @ cut[0].T >= cut[1]).all(axis=1).sum()
            share = self._share * (kept + 1) / (SAMPLE + 2)  # never 0, whatever the sample (Laplace's rule)
        self._region, self._share = region, share

    def _at(self, name: str) -> int:
        if name not in self._position:
            raise InvalidInputError(
                f"no candidate {shown(name)} in the front of {self.front.scenario}; allowed: "
                f"{', '.join(sorted(self._position))}",
                field="answers",
            )
        return self._position[name]

    @cached_property
    def _sample(self) -> FloatArray:
        return self._region.sample(SAMPLE, np.random.default_rng([self.seed, len(self.answers)]))

    @cached_property
    def _standing(self) -> Standing:
        return standing(self._goodness, self._region, self._sample)

    @cached_property
    def _possible(self) -> tuple[int, ...]:
        return possible(self._goodness, self._region, self._standing)

    @cached_property
    def _question(self) -> Question | None:
        if len(self.front.objectives) < 2 or self._standing.max_regret <= max(self.tolerance, 1e-9):
            return None
        pair = next_pair(
            self._goodness,
            self._region,
            self._sample,
            self._standing,
            tolerance=self.tolerance,
            asked={self._pair(comparison) for comparison in self.answers},
            rng=np.random.default_rng([self.seed, len(self.answers), 1]),
        )
        if pair is None:
            return None
        return Question.of(self.front, self.front.candidates[pair[0]], self.front.candidates[pair[1]])

    def _pair(self, comparison: Comparison) -> tuple[int, int]:
        first, second = self._position[comparison.a], self._position[comparison.b]
        return min(first, second), max(first, second)


def _number(value: Any, *, field: str, with_zero: bool) -> float:
    lowest = ">= 0" if with_zero else "> 0"
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    if not good or (value == 0 and not with_zero):
        raise InvalidInputError(f"{field} must be a number {lowest} and < 1, got {shown(value)}", field=field)
    return float(value)
