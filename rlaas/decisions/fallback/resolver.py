"""A resolver that always answers: live front, last good front, best static configuration, safe default."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as LateError
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from rlaas.decisions.contest import Requirements
from rlaas.decisions.fallback.answers import Answer, PassedOver, Reason, Step
from rlaas.decisions.fallback.checks import check_size, positive_age, safe_candidate, unusable
from rlaas.decisions.fallback.choosing import Chooser, NoneKeptError, Resolved, choose
from rlaas.decisions.fallback.fetching import Failed, FrontSource, Late, SingleFlight, TimedFront
from rlaas.decisions.fallback.last_good import LastGood
from rlaas.decisions.methods import Method
from rlaas.errors import ConfigurationError, InvalidInputError, RequestError, shown
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective

__all__ = ["FallbackResolver"]

StaticSource = Callable[[], Candidate | None]
"""Gives the best configuration that needs no front; None: there is none."""

LIVE_SHARE, CHOICE_SHARE, STATIC_SHARE = 0.6, 0.9, 0.95
"""Of the deadline, until when the live source, choosing from a front, and the best static source may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    mode: Mode
    rules: Requirements | None
    method: str | Method
    now_us: int
    started: float
    deadline: float
    tried: list[tuple[Front, PassedOver]] = field(default_factory=list)

    def left(self, share: float) -> float:
        """Seconds until ``share`` of the deadline has passed, at least 0."""
        return max(0.0, self.started + share * self.deadline - time.monotonic())


class FallbackResolver:
    """Picks a candidate under a mode whatever happens to the optimiser.

    Four steps, the first that works answers and says so: the live front; the last good fronts; the best static
    configuration; the safe default. A step is passed over where its source is missing, failed, late or stale, or none
    of its candidates keeps the rules. Sources and large fronts are worked on by other threads, so that the answer is
    there by the deadline (plus what one candidate takes to judge, about a millisecond). Thread-safe.

    Args:
        scenario: name of the scenario.
        objectives: of the scenario; a front of another scenario or over others (by name, unit and direction) is
            unusable.
        safe_default: what is safe to apply without knowing anything: a candidate, or the parameters of one whose
            objectives are not known.
        live: gives the present front, or is one; None without an optimiser.
        best_static: the best configuration that needs no front, or what gives it: asked whenever a request gets that
            far; where it fails or is late, the one it gave last stands.
        max_age_s: from when on a live front is stale.
        last_good_max_age_s: from when on a last good front is.
        store: JSON file in which the last good fronts outlive the process.
        clock: UTC time in microseconds.

    Raises:
        ConfigurationError: a candidate that does not fit the objectives, or an age that is not positive.
    """

    def __init__(
        self,
        scenario: str,
        objectives: Sequence[Objective],
        *,
        safe_default: Candidate | Mapping[str, Any],
        live: FrontSource | TimedFront | Front | None = None,
        best_static: StaticSource | Candidate | None = None,
        max_age_s: float = math.inf,
        last_good_max_age_s: float = math.inf,
        store: Path | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._scenario, self._objectives, self._clock = scenario, tuple(objectives), clock
        if not self._objectives:
            raise ConfigurationError("a fallback needs the scenario's objectives, got none", field="objectives")
        self._safe = safe_candidate(safe_default, len(self._objectives))
        self._static: Candidate | None = None
        self._static_source: SingleFlight[Candidate] | None = None
        if callable(best_static):
            self._static_source = SingleFlight(best_static, self._accept_static, lambda: None)
        elif best_static is not None:
            self._static = check_size(best_static, len(self._objectives), field="best_static")
        self._max_age_s = positive_age(max_age_s, field="max_age_s")
        self._last_max_age_s = positive_age(last_good_max_age_s, field="last_good_max_age_s")
        self._last = LastGood(store)
        self._live: SingleFlight[TimedFront] | None = None
        if live is not None:
            self._live = SingleFlight(_source(live), self._accept, self._last.save)
        self._chooser = Chooser()
        self._events = structlog.get_logger("rlaas.decisions").bind(scenario=scenario)

    def resolve(
        self,
        mode: Mode,
        *,
        deadline: float = 1.0,
        now_us: int | None = None,
        rules: Requirements | None = None,
        method: str | Method = "topsis",
    ) -> Answer:
        """The answer of the first step that has one, within ``deadline`` seconds.

        Args:
            mode: preference and rules.
            deadline: seconds; the live source may take 60 % of them.
            now_us: UTC microseconds by which ages are judged, if not the clock's.
            rules: further rules.
            method: of :func:`rlaas.decisions.resolve`.

        Raises:
            InvalidInputError: a request that no front could answer: an impossible mode, method, deadline or rules.
                Falling back hides what happens to sources, never what is wrong with a request.
        """
        started = time.monotonic()
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 < deadline <= 3600:
            raise InvalidInputError(
                f"deadline must be a number of seconds, > 0 and <= 3600, got {shown(deadline)}", field="deadline"
            )
        now_us = self._clock() if now_us is None else now_us
        if isinstance(now_us, bool) or not isinstance(now_us, int):
            raise InvalidInputError(f"now_us must be whole UTC microseconds, got {shown(now_us)}", field="now_us")
        self._check(mode, rules, method)
        request = _Request(
            mode=mode, rules=rules, method=method, now_us=now_us, started=started, deadline=float(deadline)
        )
        answer = self._answer(request)
        hit = [rule for passed in answer.passed_over for rule in passed.rules_hit]
        answer = replace(
            answer,
            rules=() if rules is None else tuple(rules.describe()),
            rules_hit=tuple(dict.fromkeys([*hit, *answer.rules_hit])),
            elapsed_s=time.monotonic() - started,
        )
        if answer.step != "live":
            reasons = [f"{passed.step}: {passed.reason}" for passed in answer.passed_over]
            self._events.info("fell_back", step=answer.step, candidate=answer.candidate.name, reasons=reasons)
        return answer

    def close(self) -> None:
        """Let the worker threads end and write what is unwritten; a call of the source that hangs is left behind."""
        self._chooser.close()
        self._last.save()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, request: _Request) -> Answer:
        passed: list[PassedOver] = []
        for step in (self._from_live, self._from_last_good, self._from_static):
            found: Answer | PassedOver = step(request)
            if isinstance(found, Answer):
                return replace(found, passed_over=tuple(passed))
            passed.append(found)
        return self._from_safe(request, passed)

    def _from_live(self, request: _Request) -> Answer | PassedOver:
        if self._live is None:
            return PassedOver(step="live", reason="missing", detail="no live source is configured")
        found = self._live.fetch(request.left(LIVE_SHARE))
        if found is None:
            return PassedOver(step="live", reason="missing", detail="the source has no front")
        if isinstance(found, Late):
            return PassedOver(step="live", reason="late", detail=found.detail)
        if isinstance(found, Failed):
            return PassedOver(step="live", reason="failed", detail=found.error)
        problem = unusable(found.front, self._scenario, self._objectives)
        if problem is not None:
            return PassedOver(step="live", reason="unusable", detail=problem)
        # Where there is nothing older to choose from, no time has to be left for it.
        others = any(front.front != found.front for front in self._last.fronts())
        answer = self._from_front("live", found, self._max_age_s, request, LIVE_SHARE if others else CHOICE_SHARE)
        if isinstance(answer, Answer):
            self._last.answered(found)
        return answer

    def _from_last_good(self, request: _Request) -> Answer | PassedOver:
        reasons: list[PassedOver] = []
        for front in self._last.fronts():
            # Again, since a stored one may be of an earlier version of the scenario.
            problem = unusable(front.front, self._scenario, self._objectives)
            if problem is not None:
                reasons.append(PassedOver(step="last_good", reason="unusable", detail=problem))
                continue
            before = next((passed for tried, passed in request.tried if tried == front.front), None)
            if before is not None:
                reasons.append(replace(before, step="last_good", detail="it is the live front"))
                continue
            found = self._from_front("last_good", front, self._last_max_age_s, request, CHOICE_SHARE)
            if isinstance(found, Answer):
                return found
            reasons.append(found)
        if not reasons:
            return PassedOver(step="last_good", reason="missing", detail="no front has been good yet")
        return replace(reasons[0], detail="; ".join(reason.detail for reason in reasons))

    def _from_front(
        self, step: Step, front: TimedFront, max_age_s: float, request: _Request, share: float
    ) -> Answer | PassedOver:
        age_s = max(0.0, (request.now_us - front.made_us) / 1e6)
        if age_s > max_age_s:
            return PassedOver(
                step=step, reason="stale", detail=f"the front is {age_s:.4g} s old; allowed: {max_age_s:.4g} s"
            )
        passed: PassedOver
        try:
            job = self._chooser.submit(front.front, request.mode, request.method, request.rules)
            return _answer(step, job.result(timeout=request.left(share)), made_us=front.made_us, age_s=age_s)
        except (LateError, CancelledError):
            count = len(front.front.candidates)
            passed = PassedOver(step=step, reason="late", detail=f"choosing among {count} candidates took too long")
        except NoneKeptError as none:
            passed = PassedOver(step=step, reason="rules", detail=str(none), rules_hit=none.broken)
        except Exception as problem:  # the request was checked, so that this is about the front
            passed = self._failed(step, problem)
        request.tried.append((front.front, passed))
        return passed

    def _from_static(self, request: _Request) -> Answer | PassedOver:
        static: Candidate | Failed | Late | None = self._static
        if self._static_source is not None:
            static = self._static_source.fetch(request.left(STATIC_SHARE))
            if isinstance(static, Failed | Late) and self._static is not None:
                static = self._static
        if static is None:
            return PassedOver(step="best_static", reason="missing", detail="no best static configuration is configured")
        if isinstance(static, Late):
            return PassedOver(step="best_static", reason="late", detail=static.detail)
        if isinstance(static, Failed):
            return PassedOver(step="best_static", reason="failed", detail=static.error)
        found = self._alone("best_static", static, request)
        return found if isinstance(found, PassedOver) else _answer("best_static", found)

    def _from_safe(self, request: _Request, passed: list[PassedOver]) -> Answer:
        if self._safe.mean:
            found = self._alone("safe_default", self._safe, request)
            if isinstance(found, Resolved):
                return replace(_answer("safe_default", found), passed_over=tuple(passed))
            keeps = False if found.reason == "rules" else None
            passed = [*passed, found]  # nothing is left after it: it is applied, and what speaks against it is said
        else:
            keeps = None
        return Answer(
            candidate=self._safe, step="safe_default", choice=None, passed_over=tuple(passed), keeps_rules=keeps
        )

    def _alone(self, step: Step, candidate: Candidate, request: _Request) -> Resolved | PassedOver:
        try:
            return choose(self._front(candidate), request.mode, request.method, request.rules)
        except NoneKeptError as none:
            return PassedOver(step=step, reason="rules", detail=str(none), rules_hit=none.broken)
        except Exception as problem:  # rules of the caller's making may raise anything; the next step still answers
            return self._failed(step, problem)

    def _failed(self, step: Step, problem: Exception) -> PassedOver:
        reason: Reason = "unusable" if isinstance(problem, RequestError) else "failed"
        self._events.warning("step_failed", step=step, error=str(problem), exc_info=problem)
        return PassedOver(step=step, reason=reason, detail=f"{type(problem).__name__}: {shown(problem, str)}")

    def _check(self, mode: Mode, rules: Requirements | None, method: str | Method) -> None:
        """Raise what resolving a front that is certainly in order raises: then the request is wrong."""
        if not isinstance(mode, Mode):
            raise InvalidInputError(f"mode must be a Mode, got {shown(mode)}", field="mode")
        names = tuple(objective.name for objective in self._objectives)
        if set(mode.preference.names) != set(names):
            raise InvalidInputError(
                f"mode {mode.name!r} weighs {', '.join(mode.preference.names)}; expected {', '.join(names)}",
                field="preference",
            )
        middle = tuple(0.5 * (objective.low + objective.high) for objective in self._objectives)
        probe = Candidate(name="probe", kind="configuration", mean=middle, half_width=(0.0,) * len(middle))
        front = self._front(probe)
        try:
            choose(front, mode, method, rules)
        except NoneKeptError:
            choose(front, replace(mode, rules=()), method, None)

    def _front(self, candidate: Candidate) -> Front:
        return Front(scenario=self._scenario, objectives=self._objectives, candidates=(candidate,))

    def _accept(self, given: object) -> TimedFront | None:
        """What the source gave, with its time; usable fronts are kept for later. Runs in the source's thread."""
        if given is None:
            return None
        timed = isinstance(given, TimedFront)
        if not isinstance(given, TimedFront | Front):
            raise InvalidInputError(f"the source gave {shown(given)}; expected a front or None", field="live")
        front = given if isinstance(given, TimedFront) else TimedFront(front=given, made_us=self._clock())
        if unusable(front.front, self._scenario, self._objectives) is None:
            self._last.came(front, timed=timed)
        return front

    def _accept_static(self, given: object) -> Candidate | None:
        """What the source of the best static configuration gave, kept for when it fails. Runs in its thread."""
        self._static = None if given is None else check_size(given, len(self._objectives), field="best_static")
        return self._static


def _source(live: FrontSource | TimedFront | Front) -> FrontSource:
    if isinstance(live, TimedFront | Front):
        return lambda: live
    if not callable(live):
        raise ConfigurationError(f"live must be a front or a callable that gives one, got {shown(live)}", field="live")
    return live


def _answer(step: Step, resolved: Resolved, *, made_us: int | None = None, age_s: float | None = None) -> Answer:
    return Answer(
        candidate=resolved.choice.candidate,
        step=step,
        choice=resolved.choice,
        passed_over=(),
        keeps_rules=True,
        rules_hit=resolved.rules_hit,
        made_us=made_us,
        age_s=age_s,
    )
