"""What an operator declares of a policy's gate, before any version is judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from rlaas.bundles import BoxAction, BundlePolicy, DiscreteAction
from rlaas.control.requests import Body
from rlaas.errors import InvalidInputError, check_choice
from rlaas.experiments.continuous import CONTINUOUS_ESTIMATORS
from rlaas.experiments.gate_records import DAY_S, GatePolicy
from rlaas.experiments.off_policy import ESTIMATORS, MODEL_FREE, EstimatorName
from rlaas.experiments.sequential_off_policy import SESSION_ESTIMATORS, SessionEstimatorName
from rlaas.objectives import Preference

__all__ = ["GateDeclaration", "estimators_of", "session_estimators_of"]

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class GateDeclaration(Body):
    """By what the versions of a policy are judged: one of ``value``, ``weights`` and ``mode``, and one estimator.

    With an estimator of sessions what is judged is the sum of that over the first ``horizon`` steps of a session.
    """

    value: Name | None = Field(default=None, description="what is judged: a value of the outcomes, in its own unit")
    weights: dict[Name, Number] | None = Field(
        default=None, description="or the utility, 0 to 1, of the objectives under these weights"
    )
    mode: Name | None = Field(default=None, description="or that under the weights of a mode of the version")
    estimator: Literal[EstimatorName, SessionEstimatorName] = Field(
        description="the one that decides; the others are shown beside it. pdis, wpdis, pddr and fqe are of sessions"
    )
    horizon: int | None = Field(
        default=None, ge=1, le=1_000, strict=True, description="of sessions: their steps that are summed; needed then"
    )
    discount: Number | None = Field(
        default=None, gt=0, le=1, description="of sessions: what a step counts less than the one before; default 1"
    )
    reference: Number | Literal["logged"] = Field(
        default="logged", description="value to reach; 'logged': that of what was logged itself"
    )
    margin: Number = Field(default=0.0, ge=0, description="how much worse than the reference is accepted, in its unit")
    better: Literal["higher", "lower"] = "higher"
    confidence: Number = Field(default=0.95, gt=0, lt=1, description="level of the two-sided interval")
    min_effective_sample_size: Number = Field(default=100.0, ge=100, le=1e9)
    min_effective_share: Number = Field(default=0.01, ge=0.01, le=1, description="of the rows, or of the sessions")
    max_unlogged: Number = Field(default=0.05, ge=0, lt=1, description="share of its choices that may be unlogged")
    max_age_s: Number = Field(default=7 * DAY_S, gt=0, le=3650 * DAY_S, description="of the newest logged row")
    window_s: Number = Field(default=30 * DAY_S, gt=0, le=3650 * DAY_S, description="older decisions do not count")

    @model_validator(mode="after")
    def _one_metric(self) -> GateDeclaration:
        given = [name for name in ("value", "weights", "mode") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one of value, weights and mode must be given, got {' and '.join(given) or 'none'}")
        if self.better == "lower" and self.value is None:
            raise ValueError("better 'lower' goes with value only: of a utility more is better")
        return self

    @model_validator(mode="after")
    def _sessions(self) -> GateDeclaration:
        if self.of_sessions:
            if self.horizon is None:
                raise ValueError(f"estimator {self.estimator!r} needs a horizon: how many steps of a session count")
            return self
        for name in ("horizon", "discount"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} goes with an estimator of sessions: {', '.join(SESSION_ESTIMATORS)}")
        return self

    @property
    def of_sessions(self) -> bool:
        """Whether sessions are judged rather than single decisions."""
        return self.estimator in SESSION_ESTIMATORS

    @property
    def gamma(self) -> float:
        """The discount that holds."""
        return 1.0 if self.discount is None else self.discount

    def metric(self) -> str:
        """What is judged, in words."""
        if self.horizon is None:
            return self.what()
        discounted = "" if self.gamma == 1 else f", discounted by {self.gamma:g}"
        return f"{self.what()} over the first {self.horizon} steps of a session{discounted}"

    def what(self) -> str:
        """What is judged of each decision, in words."""
        if self.value is not None:
            return self.value
        if self.mode is not None:
            return f"utility in mode {self.mode}"
        return f"utility of {', '.join(f'{name} {weight:g}' for name, weight in sorted((self.weights or {}).items()))}"

    def policy(self, declared_us: int) -> GatePolicy:
        """As the library wants it."""
        own = self.model_dump(exclude={"value", "weights", "mode", "window_s", "horizon", "discount"})
        return GatePolicy(**own, metric=self.metric(), declared_us=declared_us)

    def utility_weights(self, bundle: BundlePolicy) -> Preference | None:
        """Weights of the objectives; None where a value is judged.

        Raises:
            InvalidInputError: the version has no such mode or objective, or impossible weights.
        """
        if self.mode is not None:
            check_choice(self.mode, bundle.manifest.modes, field="mode", error=InvalidInputError)
            return Preference.of(bundle.objectives, bundle.manifest.modes[self.mode], field="mode")
        return None if self.weights is None else Preference.of(bundle.objectives, self.weights, field="weights")

    def check(self, bundle: BundlePolicy) -> None:
        """Refuse what could never be judged of a version.

        Raises:
            InvalidInputError: outcomes carry no such value, there is no such mode or objective, or the estimator is not
                one for such actions; names the field and what is allowed.
        """
        if self.value is not None:
            check_choice(self.value, bundle.outcome_fields, field="value", error=InvalidInputError)
        self.utility_weights(bundle)
        allowed = (*estimators_of(bundle), *session_estimators_of(bundle))
        check_choice(self.estimator, allowed, field="estimator", error=InvalidInputError)


def estimators_of(bundle: BundlePolicy) -> tuple[EstimatorName, ...]:
    """Estimators of single decisions that there are for a version's kind of actions."""
    if isinstance(bundle.manifest.action, BoxAction):
        return CONTINUOUS_ESTIMATORS
    return ESTIMATORS if isinstance(bundle.manifest.action, DiscreteAction) else MODEL_FREE


def session_estimators_of(bundle: BundlePolicy) -> tuple[SessionEstimatorName, ...]:
    """Estimators of sessions that there are for a version's kind of actions: a model needs a table of choices."""
    return SESSION_ESTIMATORS if isinstance(bundle.manifest.action, DiscreteAction) else SESSION_ESTIMATORS[:2]
