"""What a fallback resolver answers: the choice, the step it came from, and why not an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rlaas.decisions.resolver import Choice
from rlaas.fronts import Candidate

__all__ = ["STEPS", "Answer", "PassedOver", "Reason", "Step"]

Step = Literal["live", "last_good", "best_static", "safe_default"]
Reason = Literal["missing", "failed", "late", "stale", "unusable", "rules"]

STEPS: tuple[Step, ...] = ("live", "last_good", "best_static", "safe_default")
"""From the best source of an answer to the one that is always there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A step that gave no answer.

    Attributes:
        step: the step.
        reason: ``missing`` (nothing there), ``failed`` (an error), ``late`` (past its share of the deadline), ``stale``
            (too old), ``unusable`` (not a front of this scenario and its objectives), or ``rules`` (no candidate keeps
            them).
        detail: one sentence.
        rules_hit: rules that some candidate of the step's source breaks, where that is the reason.
    """

    step: Step
    reason: Reason
    detail: str
    rules_hit: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The step as plain JSON types."""
        return {
            "step": self.step,
            "reason": self.reason,
            "detail": self.detail,
            "rules_hit": list(self.rules_hit),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to apply now.

    Attributes:
        candidate: to apply.
        step: where it came from.
        choice: why it was chosen; None for a safe default whose objectives are not known, or that breaks rules.
        passed_over: the earlier steps, in order.
        keeps_rules: whether it keeps the mode's and the given rules; None where that cannot be known. Of a fallback's
            steps only the safe default can break any.
        rules: the given rules, one line each.
        rules_hit: rules, the mode's included, that a candidate broke in this step or an earlier one.
        made_us: when the front was made, UTC microseconds; None for the two steps that are configured.
        age_s: of the front; 0 if it claims to be made in the future.
        elapsed_s: how long the answer took.
    """

    candidate: Candidate
    step: Step
    choice: Choice | None
    passed_over: tuple[PassedOver, ...]
    keeps_rules: bool | None
    rules: tuple[str, ...] = ()
    rules_hit: tuple[str, ...] = ()
    made_us: int | None = None
    age_s: float | None = None
    elapsed_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain JSON types."""
        return {
            "candidate": {
                "name": self.candidate.name,
                "kind": self.candidate.kind,
                "mean": list(self.candidate.mean),
                "half_width": list(self.candidate.half_width),
                "parameters": dict(self.candidate.parameters),
            },
            "step": self.step,
            "certificate": None if self.choice is None else self.choice.certificate.to_dict(),
            "passed_over": [step.to_dict() for step in self.passed_over],
            "keeps_rules": self.keeps_rules,
            "rules": list(self.rules),
            "rules_hit": list(self.rules_hit),
            "made_us": self.made_us,
            "age_s": self.age_s,
            "elapsed_s": self.elapsed_s,
        }
