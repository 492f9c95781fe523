"""The answer of a front that nothing stands in for."""

from __future__ import annotations

import time

from rlaas.decisions.contest import Requirements
from rlaas.decisions.fallback.answers import Answer
from rlaas.decisions.fallback.choosing import broken_rules
from rlaas.decisions.fallback.fetching import TimedFront
from rlaas.decisions.methods import Method
from rlaas.decisions.resolver import resolve
from rlaas.objectives import Mode

__all__ = ["answer_from"]


def answer_from(
    found: TimedFront,
    mode: Mode,
    *,
    now_us: int,
    rules: Requirements | None = None,
    method: str | Method = "topsis",
) -> Answer:
    """What ``found`` answers, as a live front does; where no candidate keeps the rules, the one that breaks them least.

    Args:
        found: over the mode's objectives.
        mode: preference and rules.
        now_us: UTC microseconds by which its age is judged.
        rules: further rules.
        method: of :func:`rlaas.decisions.resolve`.

    Raises:
        InvalidInputError: what :func:`rlaas.decisions.resolve` refuses, or rules that do not fit the front.
    """
    started = time.monotonic()
    choice = resolve(found.front, mode=mode, method=method, rules=rules)
    hit, kept = broken_rules(found.front, mode, rules)
    return Answer(
        candidate=choice.candidate,
        step="live",
        choice=choice,
        passed_over=(),
        keeps_rules=kept,
        rules=() if rules is None else tuple(rules.describe()),
        rules_hit=hit,
        made_us=found.made_us,
        age_s=max(0.0, (now_us - found.made_us) / 1e6),
        elapsed_s=time.monotonic() - started,
    )
