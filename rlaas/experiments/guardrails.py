"""Guardrails: whether a variant has made a metric worse by as much as a margin (non-inferiority)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlaas.errors import InvalidInputError
from rlaas.experiments.contrasts import contrast
from rlaas.experiments.metric_analysis import prepare_units
from rlaas.experiments.metrics import Guardrail
from rlaas.experiments.records import Entry

__all__ = ["GuardrailResult", "Verdict", "check_guardrail"]

Verdict = Literal["passed", "failed", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailResult:
    """Whether a guardrail holds.

    Attributes:
        metric: what is guarded.
        control, treatment: names of the arms.
        verdict: ``passed``: a loss of the margin is ruled out; ``failed``: the loss is larger than the margin;
            ``undecided``: the units so far tell neither.
        loss: how much worse the treatment is, in the metric's unit; negative where it is better.
        margin: loss that is too much, in the metric's unit.
        slack: margin - loss, what is left.
        low, high: one-sided bounds of the slack, each at ``alpha``. With a relative margin they hold the uncertainty
            of the margin too.
        alpha: chance of each verdict but ``undecided`` where the loss is just the margin.
    """

    metric: str
    control: str
    treatment: str
    verdict: Verdict
    loss: float
    margin: float
    slack: float
    low: float
    high: float
    alpha: float

    @property
    def decision(self) -> str:
        """One sentence."""
        what = f"{self.metric} of {self.treatment} against {self.control}"
        if self.verdict == "passed":
            return f"{what}: a loss of {self.margin:.4g} is ruled out"
        if self.verdict == "failed":
            return f"{what}: worse by {self.loss:.4g}, more than the {self.margin:.4g} allowed"
        return f"{what}: a loss of {self.margin:.4g} is neither shown nor ruled out yet"

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            "metric": self.metric,
            "control": self.control,
            "treatment": self.treatment,
            "verdict": self.verdict,
            "loss": self.loss,
            "margin": self.margin,
            "slack": self.slack,
            "low": self.low,
            "high": self.high,
            "alpha": self.alpha,
            "decision": self.decision,
        }


def check_guardrail(guardrail: Guardrail, entries: Sequence[Entry], *, control: str, treatment: str) -> GuardrailResult:
    """Test a guardrail once, at a time that was fixed beforehand.

    A relative margin m asks about treatment - (1 - m) control (for a metric that should be high), a difference with an
    ordinary standard error: the ratio of two estimates need not be approximated. The share is of the control's size;
    where the control is 0 there is no margin.

    Args:
        guardrail: metric and margin.
        entries: units that have entered.
        control: name of the arm compared with.
        treatment: name of the arm compared.

    Raises:
        InvalidInputError: as :func:`~rlaas.experiments.metric_analysis.analyse_metric`.
    """
    if control == treatment:
        raise InvalidInputError(f"control and treatment are both {control!r}", field="treatment")
    units = prepare_units(guardrail.metric, entries)
    base, other = units.arm(control), units.arm(treatment)
    up = 1.0 if guardrail.metric.better == "higher" else -1.0
    margin = guardrail.margin * abs(base.value) if guardrail.relative else guardrail.margin
    if guardrail.relative:
        side = (base.value > 0) - (base.value < 0)
        found = contrast(base, other, scale=1 - up * side * guardrail.margin, tail=guardrail.alpha)
    else:
        found = contrast(base, other, shift=up * guardrail.margin, tail=guardrail.alpha)
    low, high = (found.low, found.high) if up > 0 else (-found.high, -found.low)
    verdict: Verdict = "passed" if low > 0 else "failed" if high < 0 else "undecided"
    loss = up * (base.value - other.value)
    return GuardrailResult(
        metric=guardrail.metric.name,
        control=control,
        treatment=treatment,
        verdict=verdict,
        loss=loss,
        margin=margin,
        slack=margin - loss,
        low=low,
        high=high,
        alpha=guardrail.alpha,
    )
