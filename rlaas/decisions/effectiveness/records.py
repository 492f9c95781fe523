"""What is kept of a resolution, and how much better another choice would have been."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from rlaas.decisions.contest import Requirements
from rlaas.decisions.fallback import STEPS, Answer
from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.fronts import Front
from rlaas.objectives import Mode, ObjectiveVector, Preference, Rule, normalise

__all__ = ["Resolution", "Settlement", "settle"]

SCHEMA_VERSION = 1
LONGEST_ID = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """One answer of a resolver.

    Attributes:
        id: unique, at most 64 characters.
        time_us: when, UTC microseconds.
        scenario: name of the scenario.
        mode: name of the mode.
        step: step of the fallback that answered; ``live`` without a fallback.
        candidate: name of the choice.
        values: objective values that were known of it, by name, in the objectives' units; empty where unknown.
        weights: of the mode's preference, by objective.
        rules: of the mode.
        rules_hit: rules that some candidate broke, as text.
        front_version: of the front that was chosen from; empty for a configured step.
    """

    id: str
    time_us: int
    scenario: str
    mode: str
    step: str
    candidate: str
    values: Mapping[str, float]
    weights: Mapping[str, float]
    rules: tuple[Rule, ...] = ()
    rules_hit: tuple[str, ...] = ()
    front_version: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "scenario", "mode", "candidate", "front_version"):
            _check_text(getattr(self, name), field=name, empty=name == "front_version")
        for rule in self.rules_hit:
            _check_text(rule, field="rules_hit")
        if len(self.id) > LONGEST_ID:
            raise InvalidInputError(f"resolution id has {len(self.id)} characters; allowed: {LONGEST_ID}", field="id")
        if isinstance(self.time_us, bool) or not isinstance(self.time_us, int) or not 0 <= self.time_us < 2**63:
            raise InvalidInputError(f"time_us must be UTC microseconds, got {shown(self.time_us)}", field="time_us")
        check_choice(self.step, STEPS, field="step", error=InvalidInputError)
        Preference.of(tuple(self.weights), self.weights, field="weights")
        _check_values(self.values, self.weights, field="values")

    @classmethod
    def of(
        cls, answer: Answer, *, scenario: str, names: Sequence[str], mode: Mode, time_us: int, id_: str | None = None
    ) -> Self:
        """The record of a fallback's answer.

        Args:
            answer: the answer.
            scenario: name of the scenario.
            names: of the objectives in the order of the candidate's means.
            mode: that was resolved.
            time_us: when, UTC microseconds.
            id_: to record it under; drawn if None.
        """
        choice = answer.choice
        configured = choice is None or answer.made_us is None
        return cls(
            id=uuid.uuid4().hex if id_ is None else id_,
            time_us=time_us,
            scenario=scenario,
            mode=mode.name,
            step=answer.step,
            candidate=answer.candidate.name,
            values=answer.candidate.objectives(names) if answer.candidate.mean else {},
            weights=mode.preference.to_dict(),
            rules=mode.rules,
            rules_hit=answer.rules_hit,
            front_version="" if choice is None or configured else choice.certificate.front_version,
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in self.__slots__},
            "values": {name: float(value) for name, value in self.values.items()},
            "weights": {name: float(value) for name, value in self.weights.items()},
            "rules": [asdict(rule) for rule in self.rules],
            "rules_hit": list(self.rules_hit),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: a missing or malformed part, named.
        """
        fields = dict(document)
        version = fields.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise InvalidInputError(
                f"resolution schema_version {shown(version)} is not supported; expected {SCHEMA_VERSION}",
                field="schema_version",
            )
        try:
            fields["rules"] = tuple(Rule(**rule) for rule in fields["rules"])
            fields["rules_hit"] = tuple(fields["rules_hit"])
            return cls(**fields)
        except KeyError as missing:
            raise InvalidInputError(f"resolution document lacks {missing}", field=str(missing)) from missing
        except TypeError as problem:
            raise InvalidInputError(f"resolution document is malformed: {problem}", field="resolution") from problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became known later about a resolution.

    Attributes:
        id: of the resolution.
        time_us: when it was settled, UTC microseconds.
        utility: weighted goodness of the choice, by what is known now.
        best: the best of those known now, the choice included.
        best_utility: its weighted goodness.
        observed: whether ``utility`` is of an observed outcome rather than of an evaluation.
    """

    id: str
    time_us: int
    utility: float
    best: str
    best_utility: float
    observed: bool

    @property
    def regret(self) -> float:
        """Weighted goodness that the choice lacked, >= 0."""
        return self.best_utility - self.utility

    def to_dict(self) -> dict[str, Any]:
        """The settlement as plain JSON types."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "regret": self.regret}


def settle(
    resolution: Resolution,
    front: Front,
    *,
    time_us: int,
    outcome: ObjectiveVector | None = None,
    rules: Requirements | None = None,
) -> Settlement | None:
    """Compare a choice with the best that is known now under the weights and rules it was made for.

    Regret (Savage 1951) in normalised goodness: the weighted goodness of the best candidate of ``front`` that keeps the
    rules, minus that of the choice, and 0 where the choice is at least as good. The choice is valued by ``outcome`` if
    that is given, else by the candidate of its name in ``front``, else by the values that were known when it was made.

    Args:
        resolution: the choice.
        front: the best that is known now, over the same objectives; its ranges normalise.
        time_us: now, UTC microseconds.
        outcome: objective values that were observed under the choice, in their units.
        rules: that held beside the mode's.

    Returns:
        None where nothing is known of the choice.

    Raises:
        InvalidInputError: a front over other objectives, or an outcome that lacks one or is not finite.
    """
    if set(front.names) != set(resolution.weights) or not front.candidates:
        raise InvalidInputError(
            f"resolution {resolution.id} is over {', '.join(sorted(resolution.weights))}; the front of "
            f"{front.scenario} has {len(front.candidates)} candidates over {', '.join(front.names)}",
            field="front",
        )
    own = next((c.objectives(front.names) for c in front.candidates if c.name == resolution.candidate), None)
    known: ObjectiveVector = own or resolution.values
    if outcome is not None:
        _check_values(outcome, resolution.weights, field="outcome")
        known = outcome
    if not known:
        return None
    weights = np.array([resolution.weights[name] for name in front.names])
    utility = float(normalise(front.objectives, [known[name] for name in front.names]) @ weights)
    kept = np.ones(len(front.candidates), dtype=bool)
    for i, candidate in enumerate(front.candidates):
        values = candidate.objectives(front.names)
        kept[i] = all(rule.violation(values[rule.objective]) <= 0 for rule in resolution.rules)
    if rules is not None:
        kept &= (np.asarray(rules.violations(front)) <= 0).all(axis=1)
    rated = np.where(kept, normalise(front.objectives, front.values()) @ weights, -math.inf)
    first = int(rated.argmax())
    better = rated[first] > utility
    return Settlement(
        id=resolution.id,
        time_us=time_us,
        utility=utility,
        best=front.candidates[first].name if better else resolution.candidate,
        best_utility=float(rated[first]) if better else utility,
        observed=outcome is not None,
    )


def _check_text(value: Any, *, field: str, empty: bool = False) -> None:
    # No database stores half a surrogate pair, PostgreSQL no NUL.
    good = isinstance(value, str) and (value or empty) and "\0" not in value
    if not good or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidInputError(f"resolution {field} must be text, got {shown(value)}", field=field)


def _check_values(values: Mapping[str, float], weights: Mapping[str, float], *, field: str) -> None:
    if values and set(values) != set(weights):
        raise InvalidInputError(
            f"{field} must have the objectives {', '.join(sorted(weights))}, got {shown(sorted(values, key=str))}",
            field=field,
        )
    for name, value in values.items():
        number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
        if not number or not np.isfinite(float(value)):
            raise InvalidInputError(
                f"{field}.{name} must be a finite number, got {shown(value)}", field=f"{field}.{name}"
            )
