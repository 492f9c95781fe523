"""Questions, answers, and which answers cannot all be true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.elicitation.region import WeightRegion
from rlaas.errors import ConflictError, InvalidInputError, check_choice, shown
from rlaas.fronts import Candidate, Front

__all__ = ["ANSWERS", "Answer", "Comparison", "Question", "half_spaces", "refuse_contradiction"]

FloatArray = NDArray[np.float64]
Answer = Literal["a", "b", "equal"]

ANSWERS: tuple[Answer, ...] = ("a", "b", "equal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which of two candidates is better?

    Attributes:
        a, b: the candidates.
        text: the question with both candidates' objectives in their units.
    """

    a: Candidate
    b: Candidate
    text: str

    @classmethod
    def of(cls, front: Front, a: Candidate, b: Candidate) -> Question:
        """The question about two candidates of ``front``."""
        return cls(a=a, b=b, text=f"Which is better?\n  A: {_described(front, a)}\n  B: {_described(front, b)}")

    def to_dict(self) -> dict[str, Any]:
        """The question as plain JSON types; candidates by name, with their means."""
        return {
            "a": {"name": self.a.name, "mean": list(self.a.mean)},
            "b": {"name": self.b.name, "mean": list(self.b.mean)},
            "text": self.text,
        }


def _described(front: Front, candidate: Candidate) -> str:
    values = ", ".join(
        f"{objective.name} {value:.4g} {objective.unit}".rstrip()
        for objective, value in zip(front.objectives, candidate.mean, strict=True)
    )
    return f"{candidate.name} ({values})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An answer: candidate ``a`` against candidate ``b``, by name."""

    a: str
    b: str
    answer: Answer

    def __post_init__(self) -> None:
        check_choice(self.answer, ANSWERS, field="answer", error=InvalidInputError)
        if self.a == self.b:
            raise InvalidInputError(f"an answer compares two candidates, got {shown(self.a)} twice", field="answers")

    def __str__(self) -> str:
        if self.answer == "equal":
            return f"{self.a} as good as {self.b}"
        better, worse = (self.a, self.b) if self.answer == "a" else (self.b, self.a)
        return f"{better} over {worse}"

    def to_dict(self) -> dict[str, str]:
        """The answer as plain JSON types."""
        return {"a": self.a, "b": self.b, "answer": self.answer}

    @classmethod
    def from_dict(cls, document: Any, *, field: str) -> Comparison:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: anything else; names ``field``.
        """
        if not isinstance(document, Mapping) or set(document) != {"a", "b", "answer"}:
            raise InvalidInputError(f"{field} must have the keys a, b, answer, got {shown(document)}", field=field)
        if not all(isinstance(part, str) for part in document.values()):
            raise InvalidInputError(f"{field}: a, b and answer must be text, got {shown(document)}", field=field)
        return cls(a=document["a"], b=document["b"], answer=document["answer"])


def half_spaces(answer: Answer, difference: FloatArray, indifference: float) -> tuple[FloatArray, FloatArray]:
    """What an answer says of the weights: ``normals @ w >= bounds`` ([k, m], [k]).

    Args:
        answer: the answer.
        difference: goodness of a minus goodness of b [m].
        indifference: largest difference of utility between candidates that are called equal.
    """
    if answer == "equal":
        return np.vstack([difference, -difference]), np.full(2, -indifference)
    return (difference if answer == "a" else -difference)[None], np.zeros(1)


def refuse_contradiction(answers: Sequence[Comparison], cuts: Sequence[tuple[FloatArray, FloatArray]]) -> NoReturn:
    """Refuse the last of ``answers``, which leaves no weights, naming a smallest set of answers that it contradicts.

    The set is found by leaving out earlier answers one by one (the deletion filter of Chinneck & Dravnieks 1991).

    Args:
        answers: in the order given; those before the last agree with each other.
        cuts: their half-spaces.

    Raises:
        ConflictError: always; names the answers by number, counted from 1.
    """
    conflict = list(range(len(answers) - 1))
    for k in tuple(conflict):
        rest = [i for i in conflict if i != k]
        if _region([cuts[i] for i in rest] + [cuts[-1]]).empty:
            conflict = rest
    last = f"answer {len(answers)} ({answers[-1]})"
    if not conflict:
        raise ConflictError(f"{last} holds under no weights at all: the other is better in every way", field="answers")
    others = ", ".join(f"{k + 1} ({answers[k]})" for k in conflict)
    raise ConflictError(
        f"{last} contradicts answers {others}: no weights agree with all of them; take one of them back",
        field="answers",
    )


def _region(cuts: Sequence[tuple[FloatArray, FloatArray]]) -> WeightRegion:
    normals, bounds = zip(*cuts, strict=True)
    return WeightRegion(normals[0].shape[1], np.vstack(normals), np.concatenate(bounds))
