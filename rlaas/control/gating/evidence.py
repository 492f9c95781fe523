"""What the estimators say of a version, given the rows of the lake, and the verdict on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BoxAction, BundlePolicy, DiscreteAction
from rlaas.control.gating.declaration import estimators_of, session_estimators_of
from rlaas.control.gating.logged import LoggedRows
from rlaas.control.gating.logged_sessions import LoggedSessions
from rlaas.control.gating.session_evidence import SessionEvidence
from rlaas.errors import InvalidInputError, RequestError
from rlaas.experiments.continuous import ContinuousEstimatorName, cross_fitted_values, estimate_continuous
from rlaas.experiments.gate import Evidence, GatePolicy, Verdict, collect_evidence, judge, logged_correlation
from rlaas.experiments.off_policy import MODEL_FREE, EstimatorName, estimate
from rlaas.experiments.reward_model import cross_fitted_prediction

__all__ = ["judge_version", "without_evidence"]

FloatArray = NDArray[np.float64]
Model = TypeVar("Model")

_DRAWS = 4
"""Actions drawn in each context for the model's mean over a version that acts in a box."""

_NORMALISED = ("snipw", "sndr")


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Weights of the rows [n], the model's part of them (None without a model), and who answers for an estimator."""

    rows: LoggedRows
    confidence: float
    weight: FloatArray
    predicted: FloatArray | None
    direct: FloatArray | None
    estimate: Callable[[str], Evidence]

    def logged(self, estimator: str) -> tuple[Evidence, float]:
        """Value of what was logged itself, and its correlation with what an estimator finds."""
        rows, ones, with_model = self.rows, np.ones(len(self.rows.reward)), estimator not in MODEL_FREE
        found = estimate(rows.reward, ones, ones, estimator="snipw", unit=rows.unit, confidence=self.confidence)
        return found, logged_correlation(
            rows.reward,
            self.weight,
            normalised=estimator in _NORMALISED,
            predicted=self.predicted if with_model else None,
            direct=self.direct if with_model else None,
            unit=rows.unit,
        )


def judge_version(
    policy: GatePolicy,
    bundle: BundlePolicy,
    rows: LoggedRows | LoggedSessions,
    *,
    subject: str,
    explore: bool,
    epsilon: float,
    now_us: int,
) -> Verdict:
    """Judge a version as it would act.

    Args:
        policy: declared beforehand.
        bundle: the version.
        rows: what was logged; sessions where the policy declares an estimator of sessions.
        subject: its name, such as ``checkout:3``.
        explore: it samples from its distribution; otherwise it takes the mode, of which a box policy has no density.
        epsilon: share of uniform actions while it explores.
        now_us: time of the judgement, UTC microseconds.
    """
    found: list[Evidence] = []
    logged: Evidence | None = None
    correlation = 0.0
    log = rows.rows if isinstance(rows, LoggedSessions) else rows
    try:
        if len(log.reward) < 2:
            raise InvalidInputError(f"the log is too short: {rows.sentence()}", field="log")
        if isinstance(rows, LoggedSessions):
            rows.check_whole()
            names: Sequence[str] = session_estimators_of(bundle)
            asked: _Weighed | SessionEvidence = SessionEvidence.of(
                bundle, rows, explore=explore, epsilon=epsilon if explore else 0.0, confidence=policy.confidence
            )
        else:
            names = estimators_of(bundle)
            asked = _weigh(bundle, rows, explore, epsilon if explore else 0.0, policy.confidence)
        found, refused = collect_evidence(list(dict.fromkeys((policy.estimator, *names))), asked.estimate)
        if any(one.estimator == policy.estimator for one in found):
            logged, correlation = asked.logged(policy.estimator)
    except RequestError as problem:  # the log says nothing about this version: that is the answer
        found, refused = [], {policy.estimator: problem.message}
    return judge(
        policy,
        found,
        subject=subject,
        logged_until_us=log.until_us,
        now_us=now_us,
        logged=logged,
        correlation=correlation,
        refused=refused,
    )


def without_evidence(policy: GatePolicy, reason: str, *, subject: str, now_us: int) -> Verdict:
    """The verdict on a version of which no log could say anything.

    Args:
        policy: declared beforehand.
        reason: why none could.
        subject, now_us: as of :func:`judge_version`.
    """
    return judge(policy, [], subject=subject, logged_until_us=0, now_us=now_us, refused={policy.estimator: reason})


def _weigh(bundle: BundlePolicy, rows: LoggedRows, explore: bool, epsilon: float, confidence: float) -> _Weighed:
    options: dict[str, Any] = {"unit": rows.unit, "confidence": confidence}
    taken = rows.action[:, 0] if isinstance(bundle.manifest.action, DiscreteAction) else rows.action
    asked = bundle.propensities(rows.observation, taken, rows.preference, epsilon, greedy=not explore)
    if isinstance(bundle.manifest.action, BoxAction):
        return _in_box(bundle, rows, asked, epsilon, options)
    weight = np.divide(asked, rows.propensity, out=np.zeros_like(asked), where=rows.propensity > 0)
    if not isinstance(bundle.manifest.action, DiscreteAction):

        def of_logged(name: str) -> Evidence:
            return estimate(rows.reward, rows.propensity, asked, estimator=cast("EstimatorName", name), **options)

        return _Weighed(rows, confidence, weight, None, None, of_logged)
    probability = bundle.probabilities(rows.observation, rows.preference, epsilon, greedy=not explore)
    choice = taken.astype(np.int64)
    prediction, broken = _fitted(
        lambda: cross_fitted_prediction(
            _features(rows), choice, rows.reward, n_actions=probability.shape[1], link="linear", row=rows.unit
        )
    )

    def of_all(name: str) -> Evidence:
        if broken is not None and name not in MODEL_FREE:
            raise broken
        return estimate(
            rows.reward,
            rows.propensity,
            probability,
            estimator=cast("EstimatorName", name),
            action=choice,
            prediction=None if name in MODEL_FREE else prediction,
            **options,
        )

    if prediction is None:
        return _Weighed(rows, confidence, weight, None, None, of_all)
    direct = np.einsum("na,na->n", probability, prediction)
    return _Weighed(rows, confidence, weight, prediction[np.arange(len(choice)), choice], direct, of_all)


def _in_box(
    bundle: BundlePolicy, rows: LoggedRows, asked: FloatArray, epsilon: float, options: dict[str, Any]
) -> _Weighed:
    rng = np.random.default_rng(0)  # the same log gives the same verdict
    drawn = [bundle.act(rows.observation, rows.preference, rng=rng, epsilon=epsilon)[0] for _ in range(_DRAWS)]
    fitted, broken = _fitted(
        lambda: cross_fitted_values(_features(rows), rows.action, rows.reward, np.stack(drawn, axis=1), unit=rows.unit)
    )
    predicted, direct = fitted or (None, None)

    def of_box(name: str) -> Evidence:
        if broken is not None and name not in MODEL_FREE:
            raise broken
        model: dict[str, Any] = {} if name in MODEL_FREE else {"predicted": predicted, "direct": direct}
        return estimate_continuous(
            rows.reward,
            rows.propensity,
            asked,
            estimator=cast("ContinuousEstimatorName", name),
            **model,
            **options,
        )

    with np.errstate(over="ignore"):
        return _Weighed(rows, options["confidence"], np.exp(asked - rows.propensity), predicted, direct, of_box)


def _fitted(fit: Callable[[], Model]) -> tuple[Model | None, RequestError | None]:
    """A model, or why there is none: the estimators without one do without."""
    try:
        return fit(), None
    except RequestError as problem:
        return None, problem


def _features(rows: LoggedRows) -> FloatArray:
    """Context of the model: observation and preference, each column of mean 0 and spread 1."""
    columns = [rows.observation] if rows.preference is None else [rows.observation, rows.preference]
    x = np.hstack(columns).astype(np.float64)
    spread = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
