"""What the off-policy gate is told beforehand, what it answers, and what is stored of it with a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rlaas.errors import ConflictError, InvalidInputError, shown
from rlaas.experiments.off_policy import EstimatorName
from rlaas.experiments.sequential_off_policy import SessionEstimatorName

__all__ = ["DAY_S", "GateLine", "GateOverride", "GatePolicy", "GateRecord", "Verdict", "passes_gate"]

DAY_S = 86_400.0
MOST_TEXT = 2_000
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_TEXT)]
Micros = Annotated[int, Field(ge=0)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GatePolicy(_Document):
    """What a version is judged by, declared before its log is looked at."""

    schema_version: Literal[1] = 1
    metric: Text = Field(description="what the reward is, in words or by its name")
    estimator: EstimatorName | SessionEstimatorName = Field(description="the one that decides")
    reference: float | Literal["logged"] = Field(
        default="logged", description="value to reach; 'logged': that of the logging policy itself"
    )
    margin: float = Field(default=0.0, ge=0, description="how much worse than the reference is accepted, in its unit")
    better: Literal["higher", "lower"] = "higher"
    confidence: float = Field(default=0.95, gt=0, lt=1, description="level of the two-sided interval")
    min_effective_sample_size: float = Field(default=100.0, ge=100)
    min_effective_share: float = Field(default=0.01, ge=0.01, le=1, description="of the rows, or of the sessions")
    max_unlogged: float = Field(default=0.05, ge=0, lt=1, description="share of its choices that may be unlogged")
    max_age_s: float = Field(default=7 * DAY_S, gt=0, description="of the newest logged row")
    declared_us: Micros = Field(description="when this was declared, UTC microseconds")

    def least_effective(self, n: int) -> float:
        """Effective sample size that ``n`` rows or sessions must have."""
        return max(self.min_effective_sample_size, self.min_effective_share * n)


class GateLine(_Document):
    """One estimator's answer, or why there is none."""

    estimator: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    effective_sample_size: float | None = None
    n: int | None = None
    unlogged: float | None = None
    agrees: bool | None = Field(default=None, description="whether its interval meets that of the declared estimator")
    refused: str | None = None


class Verdict(_Document):
    """What the log says about a version."""

    schema_version: Literal[1] = 1
    subject: Text = Field(description="the version that was judged, such as checkout:3")
    outcome: Literal["passed", "failed", "no_verdict"]
    reason: str
    policy: GatePolicy
    reference_value: float | None
    lift: float | None = Field(description="value less reference; with its interval at the policy's confidence")
    lift_low: float | None
    lift_high: float | None
    lines: tuple[GateLine, ...] = Field(description="the declared estimator first")
    agreement: str
    logged_until_us: Micros
    judged_us: Micros

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON types."""
        return self.model_dump(mode="json")


class GateOverride(_Document):
    """An operator's decision to let a version through that did not pass."""

    reason: Text
    by: Text = Field(description="who decided")
    time_us: Micros


class GateRecord(_Document):
    """What is stored with a deployment."""

    schema_version: Literal[1] = 1
    verdict: Verdict
    override: GateOverride | None = None

    def overridden(self, *, reason: str, by: str, time_us: int) -> GateRecord:
        """The record with an operator's override.

        Raises:
            InvalidInputError: no reason or no name.
            ConflictError: the verdict passes, or an override is there already.
        """
        if self.verdict.outcome == "passed" or self.override is not None:
            raise ConflictError(
                f"{self.verdict.subject} passes already; there is nothing to override", field="override"
            )
        try:
            override = GateOverride(reason=reason, by=by, time_us=time_us)
        except ValidationError as problem:
            field = str(problem.errors()[0]["loc"][0])
            raise InvalidInputError(
                f"{field} of an override must be {'a time' if field == 'time_us' else 'a text that says it'}, 1 to "
                f"{MOST_TEXT} characters; got {shown(reason if field == 'reason' else by)}",
                field=field,
            ) from problem
        return self.model_copy(update={"override": override})

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON types."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> GateRecord:
        """The record that :meth:`to_dict` wrote.

        Raises:
            InvalidInputError: not such a document.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"])) or "record"
            raise InvalidInputError(f"no gate record: {where}: {first['msg']}", field=where) from problem


def passes_gate(
    record: GateRecord | Mapping[str, Any] | None, *, subject: str | None = None, now_us: int | None = None
) -> bool:
    """Whether a version may reach live traffic: it passed, or an operator overrode with a reason.

    Args:
        record: as stored; None, where no judgement was made, does not pass.
        subject: the version that is to go live: a record of another one does not pass.
        now_us: where given, a verdict whose log has meanwhile become older than the policy allows does not pass.

    Raises:
        InvalidInputError: a document that is no gate record.
    """
    if record is None:
        return False
    known = record if isinstance(record, GateRecord) else GateRecord.from_dict(record)
    verdict = known.verdict
    if subject is not None and subject != verdict.subject:
        return False
    if known.override is not None:
        return True
    old = now_us is not None and (now_us - verdict.logged_until_us) / 1e6 > verdict.policy.max_age_s
    return verdict.outcome == "passed" and not old
