"""Fronts and choices for whoever asks the platform, without HTTP."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from pydantic import ValidationError

from rlaas.control.mode_choice import requested_mode
from rlaas.decisions import METHODS, resolve
from rlaas.decisions.elicitation import Answer as Reply
from rlaas.decisions.elicitation import Elicitation
from rlaas.decisions.fallback import Answer, FallbackResolver, TimedFront, answer_from
from rlaas.decisions.rules import Applied, RuleBook, RuleFile
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError, check_choice
from rlaas.fronts import Candidate, Front
from rlaas.names import check_name
from rlaas.objectives import Mode, Objective
from rlaas.registry.fronts import FrontProblem, FrontStore, StoredFront
from rlaas.scenarios import available, load
from rlaas.serving.live import validation_error

if TYPE_CHECKING:
    from rlaas.scenarios import Scenario

__all__ = ["DEADLINE_S", "FrontService", "Observer", "Resolution", "Wish", "timed_fronts"]

DEADLINE_S = 2.0
"""Seconds within which a choice is made, where the caller does not say otherwise."""
LAST_GOOD = "last-good"
"""Folder in the home that keeps, by tenant, scenario and label, the front to fall back on."""
NO_LABEL = "_"
"""Name of the file of the front without a label; no label starts so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a caller wants chosen.

    Attributes:
        scenario: name.
        label: of the front; None for the champion's, the candidate's or the newest.
        mode: of the scenario; None for what the rules set, or the primary one.
        preference: weights by objective, instead of a mode.
        method: one of :data:`rlaas.decisions.METHODS`.
        rules: document of a rule book, None for the mode's own rules alone.
        context: what the rules look at.
        deadline_s: seconds in which an answer has to be there.
    """

    scenario: str
    label: str | None = None
    mode: str | None = None
    preference: Mapping[str, float] | None = None
    method: str = "topsis"
    rules: Mapping[str, Any] | None = None
    context: Mapping[str, Any] | None = None
    deadline_s: float = DEADLINE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What was chosen for a wish.

    Attributes:
        wish: what was asked.
        mode: that it amounted to.
        objectives: names, in the order of the candidate's values.
        answer: the candidate, the step it came from, and why.
        applied: what the rules said, None without rules.
    """

    wish: Wish
    mode: Mode
    objectives: tuple[str, ...]
    answer: Answer
    applied: Applied | None

    def to_dict(self) -> dict[str, Any]:
        """The resolution as plain JSON types."""
        answer = self.answer.to_dict()
        candidate = answer.pop("candidate")
        known = len(candidate["mean"]) == len(self.objectives)
        return {
            "scenario": self.wish.scenario,
            "mode": self.mode.name,
            "preference": self.mode.preference.to_dict(),
            "method": self.wish.method,
            "candidate": candidate["name"],
            "kind": candidate["kind"],
            "parameters": candidate["parameters"],
            "objectives": dict(zip(self.objectives, candidate["mean"], strict=True)) if known else None,
            **answer,
            "rules": None if self.applied is None else self.applied.to_dict(),
        }


class Observer(Protocol):
    """Keeps count of answers, as :meth:`rlaas.control.resolution_recorder.ResolutionRecorder.observe` does."""

    def __call__(self, answer: Answer, *, scenario: str, names: Sequence[str], mode: Mode) -> None:
        """An answer was given."""


class FrontService:
    """Fronts by scenario, choices from them that always answer, and pairwise questions. Thread-safe.

    Args:
        store: the fronts of the tenant.
        home: folder of the installation, in which last good fronts outlive the process.
        observe: told every answer, for whoever keeps count of them; callers wait for it, so that it has to be quick.
        tenant: whose last good fronts.
    """

    def __init__(
        self, store: FrontStore, home: Path, *, observe: Observer | None = None, tenant: str = "default"
    ) -> None:
        self._store = store
        self._last_good = home / LAST_GOOD / check_name(tenant, field="tenant")
        self._observe = observe
        self._ladders: dict[tuple[str, str | None], _Ladder] = {}
        self._lock = threading.Lock()
        self._events = structlog.get_logger()

    def fronts(self) -> list[StoredFront]:
        """Every front; one that cannot be read is left out and logged."""
        return self._logged(*self._store.all())

    def front(self, scenario: str, label: str | None = None) -> StoredFront:
        """One front.

        Raises:
            NotFoundError: no such front; names the existing labels.
            OperatorError: it is there and cannot be read.
        """
        return self._store.find(scenario, label)

    def resolve(self, wish: Wish) -> Resolution:
        """The candidate that fits a wish best: from the live front, or from what stands in for it.

        Raises:
            InvalidInputError: an unknown mode or method, impossible weights, or rules or a context that do not fit.
            NotFoundError: no front has this label, or the scenario is neither installed nor has it a front.
        """
        check_name(wish.scenario, field="scenario")
        check_choice(wish.method, METHODS, field="method", error=InvalidInputError)
        if wish.label is not None:
            check_name(wish.label, field="label")
        scenario = _installed(wish.scenario)
        if scenario is None:
            return self._observed(self._from_front(wish))
        applied = _applied(wish, scenario.objectives, scenario.modes)
        mode = self._mode(wish, scenario.objectives, scenario, applied)
        ladder = self._ladder(scenario, wish.label)
        answer = ladder.resolver.resolve(mode, deadline=wish.deadline_s, rules=applied, method=wish.method)
        if wish.label is not None and ladder.source.absent is not None and _live_is_missing(answer):
            # Falling back is for fronts that fail, not for ones that are not there; nor is anything kept for those.
            with self._lock:
                self._ladders.pop((scenario.name, wish.label), None)
            raise ladder.source.absent
        return self._observed(
            Resolution(
                wish=wish,
                mode=mode,
                objectives=tuple(o.name for o in scenario.objectives),
                answer=answer,
                applied=applied,
            )
        )

    def elicit(
        self, scenario: str, answers: Sequence[Reply], *, label: str | None = None, front_version: str | None = None
    ) -> dict[str, Any]:
        """The next pairwise question, or the result, after these answers to the questions before.

        Args:
            scenario: name.
            answers: ``a``, ``b`` or ``equal`` for each question so far.
            label: of the front.
            front_version: that the answers are about; another one is refused, since its questions differ.

        Raises:
            InvalidInputError: an answer that is none.
            NotFoundError: no such front.
            ConflictError: the front has changed, answers contradict each other, or there are more than questions.
        """
        front = self._store.find(scenario, label).front
        if front_version is not None and front_version != front.version:
            raise ConflictError(
                f"the answers are about front {front_version[:80]!r} and the present one is {front.version!r}; "
                "start again without answers",
                field="front_version",
            )
        state = Elicitation(front).answer_all(answers)
        return {"scenario": front.scenario, "front_version": front.version, **state.summary()}

    def close(self) -> None:
        """End the worker threads."""
        with self._lock:
            ladders, self._ladders = list(self._ladders.values()), {}
        for ladder in ladders:
            ladder.resolver.close()

    def _logged(self, found: list[StoredFront], problems: list[FrontProblem]) -> list[StoredFront]:
        for problem in problems:
            self._events.warning("front_unreadable", where=problem.where, error=problem.error.message)
        return found

    def _observed(self, resolution: Resolution) -> Resolution:
        if self._observe is not None:
            self._observe(
                resolution.answer,
                scenario=resolution.wish.scenario,
                names=resolution.objectives,
                mode=resolution.mode,
            )
        return resolution

    def _mode(
        self, wish: Wish, objectives: Sequence[Objective], scenario: Scenario | None, applied: Applied | None
    ) -> Mode:
        return requested_mode(
            objectives,
            {} if scenario is None else scenario.modes,
            mode=wish.mode,
            preference=wish.preference,
            by_rules=None if applied is None else applied.mode,
            primary=None if scenario is None else scenario.primary_mode,
        )

    def _from_front(self, wish: Wish) -> Resolution:
        """Of a scenario that is not installed only the front is known: there is nothing to fall back on."""
        found = self._store.find(wish.scenario, wish.label)
        if wish.mode is not None and wish.preference is None:
            raise InvalidInputError(
                f"scenario {wish.scenario!r} is not installed here, so that it has no mode {wish.mode[:80]!r}; give a "
                f"preference: weights of {', '.join(found.front.names)}",
                field="mode",
            )
        applied = _applied(wish, found.front.objectives, {})
        mode = self._mode(wish, found.front.objectives, None, applied)
        timed = TimedFront(front=found.front, made_us=found.updated_us)
        answer = answer_from(timed, mode, now_us=time.time_ns() // 1000, rules=applied, method=wish.method)
        return Resolution(wish=wish, mode=mode, objectives=found.front.names, answer=answer, applied=applied)

    def _ladder(self, scenario: Scenario, label: str | None) -> _Ladder:
        key = (scenario.name, label)
        with self._lock:
            found = self._ladders.get(key)
        if found is not None:
            return found
        source = _LiveSource(self._store, scenario.name, label)
        resolver = FallbackResolver(
            scenario.name,
            scenario.objectives,
            safe_default={"baseline": scenario.default_baseline},
            live=source,
            best_static=lambda: self._best_static(scenario),
            store=self._last_good / scenario.name / f"{NO_LABEL if label is None else label}.json",
        )
        made = _Ladder(resolver=resolver, source=source)
        with self._lock:
            kept = self._ladders.setdefault(key, made)
        if kept is not made:
            resolver.close()
        return kept

    def _best_static(self, scenario: Scenario) -> Candidate | None:
        """The configuration of the scenario's searches that its primary mode values most."""
        names = [o.name for o in scenario.objectives]
        found = [
            # Files may give different configurations the same name.
            dataclasses.replace(candidate, name=f"{candidate.name} ({stored.label})")
            for stored in self._logged(*self._store.searched())
            if stored.scenario == scenario.name and list(stored.front.names) == names
            for candidate in stored.front.candidates
            if candidate.kind == "configuration"
        ]
        if not found:
            return None
        front = Front(scenario=scenario.name, objectives=tuple(scenario.objectives), candidates=tuple(found))
        best = resolve(front, mode=scenario.modes[scenario.primary_mode], method="weighted_sum").candidate
        return dataclasses.replace(best, name=best.name[: best.name.rindex(" (")])


class _LiveSource:
    """The front of a scenario and a label, and what the store says where there is none."""

    def __init__(self, store: FrontStore, scenario: str, label: str | None) -> None:
        self._store, self._scenario, self._label = store, scenario, label
        self.absent: NotFoundError | None = None

    def __call__(self) -> TimedFront | None:
        try:
            stored = self._store.find(self._scenario, self._label)
        except NotFoundError as problem:
            self.absent = problem
            return None
        self.absent = None
        return TimedFront(front=stored.front, made_us=stored.updated_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ladder:
    resolver: FallbackResolver
    source: _LiveSource


def _live_is_missing(answer: Answer) -> bool:
    return any((passed.step, passed.reason) == ("live", "missing") for passed in answer.passed_over)


def timed_fronts(store: FrontStore) -> list[TimedFront]:
    """Every front of a store that can be read, with the time it was made: what earlier choices are judged by."""
    return [TimedFront(front=stored.front, made_us=stored.updated_us) for stored in store.all()[0]]


@lru_cache(maxsize=64)
def _installed(name: str) -> Scenario | None:
    return load(name) if name in available() else None


def _applied(wish: Wish, objectives: Sequence[Objective], modes: Mapping[str, Mode]) -> Applied | None:
    if wish.rules is None:
        if wish.context:
            raise InvalidInputError("context is what rules look at; give rules, too", field="context")
        return None
    try:
        file = RuleFile.model_validate(wish.rules)
    except ValidationError as problem:
        wrong = validation_error(problem)
        raise InvalidInputError(f"rules.{wrong.message}", field=f"rules.{wrong.field}") from problem
    return RuleBook.of(file, objectives=objectives, modes=modes).apply(wish.context or {})
