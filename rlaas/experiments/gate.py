"""The off-policy gate: whether what was logged allows a version to reach live traffic.

How it is judged is declared beforehand: which estimator decides, on what metric, against what, with what margin. The
other estimators are shown beside it and change nothing; picking the one that passes is what the declaration prevents.
Where the log does not overlap with what the version would do there is no verdict, and without a verdict no version
passes, but by an operator who gives a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError, RequestError, shown
from rlaas.experiments.comparison import column, identities, numeric
from rlaas.experiments.gate_records import (
    DAY_S,
    GateLine,
    GateOverride,
    GatePolicy,
    GateRecord,
    Verdict,
    passes_gate,
)

__all__ = [
    "Evidence",
    "GateLine",
    "GateOverride",
    "GatePolicy",
    "GateRecord",
    "Verdict",
    "collect_evidence",
    "judge",
    "logged_correlation",
    "passes_gate",
    "unit_correlation",
]


class Evidence(Protocol):
    """What an estimator found, such as an ``Estimate`` or a ``SessionEstimate``."""

    @property
    def estimator(self) -> str:
        """Its name."""

    @property
    def value(self) -> float:
        """The estimate."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def high(self) -> float:
        """Upper end."""

    @property
    def confidence(self) -> float:
        """Level of the interval."""

    @property
    def effective_sample_size(self) -> float:
        """In rows or sessions."""

    @property
    def n(self) -> int:
        """Rows or sessions."""

    @property
    def unlogged(self) -> float:
        """Share of the version's choices that the log does not show."""


def collect_evidence(
    estimators: Sequence[str], estimate_one: Callable[[str], Evidence]
) -> tuple[list[Evidence], dict[str, str]]:
    """Ask every estimator; what one refuses to estimate is kept as its answer.

    Args:
        estimators: names.
        estimate_one: gives the evidence of a name; its request errors are refusals.

    Returns:
        Evidence, and by estimator why there is none.
    """
    found: list[Evidence] = []
    refused: dict[str, str] = {}
    for name in estimators:
        try:
            found.append(estimate_one(name))
        except RequestError as problem:
            refused[name] = problem.message
    return found, refused


def logged_correlation(
    reward: ArrayLike,
    weight: ArrayLike,
    *,
    normalised: bool = True,
    predicted: ArrayLike | None = None,
    direct: ArrayLike | None = None,
    unit: ArrayLike | None = None,
) -> float:
    """Correlation of an estimate with the logged mean, from what each row or unit adds to both.

    Args:
        reward: observed [n].
        weight: evaluation probability / propensity [n].
        normalised: of ``snipw`` or ``sndr``; otherwise of ``ipw``, ``dr``, or those whose interval is that of ``dr``.
        predicted, direct: of the estimators with a model: q of the logged action and v of the context [n].
        unit: who each row belongs to [n].

    Raises:
        InvalidInputError: rows that do not fit.
    """
    target = np.atleast_1d(numeric(reward, "reward"))
    n = len(target)
    target, w = column(target, "reward", n), column(weight, "weight", n)
    q = np.zeros(n) if predicted is None else column(predicted, "predicted", n)
    v = np.zeros(n) if direct is None else column(direct, "direct", n)
    if not (w >= 0).all() or not w.any():
        raise InvalidInputError("weight must be >= 0, and above 0 somewhere", field="weight")
    residual = target - q
    mine = v + (w * (residual - w @ residual / w.sum()) / w.mean() if normalised else w * residual)
    both = [mine - mine.mean(), target - target.mean()]
    if unit is not None:
        codes = identities(unit, "unit", n)
        both = [np.bincount(codes, weights=values) for values in both]
    return unit_correlation(*both)


def unit_correlation(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Correlation of two estimates from what each unit adds to both [n_units]; 0 where one of them does not vary.

    Args:
        mine, theirs: deviations, which sum to 0 each.
    """
    size = math.sqrt(float(mine @ mine) * float(theirs @ theirs))
    return min(max(float(mine @ theirs) / size, -1.0), 1.0) if size > 0 else 0.0


def judge(
    policy: GatePolicy,
    evidence: Sequence[Evidence],
    *,
    subject: str,
    logged_until_us: int,
    now_us: int,
    logged: Evidence | None = None,
    correlation: float = 0.0,
    refused: Mapping[str, str] | None = None,
) -> Verdict:
    """Judge a version by the estimator that was declared.

    The version passes where the lower end of its lift is at least -margin, fails where the upper end is below, and has
    no verdict in between, or where the log is too old or does not overlap. Against the logged value the ends are
    those of the difference of two intervals (Zou & Donner 2008), which needs the correlation of the two: they come
    from the same rows and move together (for ``snipw`` their covariance is the variance of the reward under the
    version), so that 0 is cautious and costs power.

    Args:
        policy: declared beforehand.
        evidence: of the declared estimator and of those to be shown beside it, all at the policy's confidence.
        subject: the version, such as ``checkout:3``.
        logged_until_us: time of the newest logged row, UTC microseconds.
        now_us: time of the judgement.
        logged: value of the logging policy itself with its interval (the same estimators with a weight of 1 in every
            row), needed where the reference is ``logged``.
        correlation: of the declared estimator with the logged value, see :func:`logged_correlation` and
            :func:`unit_correlation`.
        refused: why estimators gave no estimate, see :func:`collect_evidence`.

    Raises:
        InvalidInputError: no subject, no word of the declared estimator, one named twice, another confidence, no logged
            value where it is the reference, an impossible correlation, or a judgement before the declaration.
    """
    if isinstance(correlation, bool) or not isinstance(correlation, int | float) or not -1 <= correlation <= 1:
        raise InvalidInputError(f"correlation is {shown(correlation)}; expected -1 to 1", field="correlation")
    if not isinstance(subject, str) or not subject.strip():
        raise InvalidInputError("subject must name the version that is judged, such as checkout:3", field="subject")
    refusals = dict(refused or {})
    lines = _lines(policy, evidence, refusals)
    if now_us < policy.declared_us:
        raise InvalidInputError("the gate policy was declared after this judgement", field="declared_us")
    if policy.reference == "logged" and logged is None and policy.estimator not in refusals:
        raise InvalidInputError("the reference is the logged value; give it as logged", field="logged")
    for one in (*evidence, *([logged] if logged is not None else [])):
        if not math.isclose(one.confidence, policy.confidence, rel_tol=0, abs_tol=1e-9):
            raise InvalidInputError(
                f"{one.estimator} has its interval at {one.confidence:g}; the policy declares {policy.confidence:g}",
                field="confidence",
            )
    reference = _reference(policy, logged)
    decisive = next((one for one in evidence if one.estimator == policy.estimator), None)
    lift = None if decisive is None or reference is None else _lift(decisive, reference, float(correlation))
    outcome, reason = _decide(policy, decisive, refusals, lift, reference, (now_us - logged_until_us) / 1e6)
    return Verdict(
        subject=subject,
        outcome=outcome,
        reason=reason,
        policy=policy,
        reference_value=None if reference is None else reference[0],
        lift=None if lift is None else lift[0],
        lift_low=None if lift is None else lift[1],
        lift_high=None if lift is None else lift[2],
        lines=lines,
        agreement=_agreement(lines),
        logged_until_us=logged_until_us,
        judged_us=now_us,
    )


def _lines(policy: GatePolicy, evidence: Sequence[Evidence], refused: Mapping[str, str]) -> tuple[GateLine, ...]:
    names = [one.estimator for one in evidence] + list(refused)
    if policy.estimator not in names:
        raise InvalidInputError(
            f"the gate policy declares {policy.estimator!r}, of which there is no evidence; given: "
            f"{', '.join(sorted(names)) or '(none)'}",
            field="evidence",
        )
    if len(set(names)) < len(names):
        raise InvalidInputError("an estimator occurs twice in the evidence; which one counts?", field="evidence")
    decisive = next((one for one in evidence if one.estimator == policy.estimator), None)
    lines = [
        GateLine(
            estimator=one.estimator,
            value=one.value,
            low=one.low,
            high=one.high,
            effective_sample_size=one.effective_sample_size,
            n=one.n,
            unlogged=one.unlogged,
            agrees=None
            if decisive is None or one is decisive
            else one.low <= decisive.high and decisive.low <= one.high,
        )
        for one in evidence
    ]
    lines += [GateLine(estimator=name, refused=message) for name, message in refused.items()]
    return tuple(sorted(lines, key=lambda line: line.estimator != policy.estimator))


def _reference(policy: GatePolicy, logged: Evidence | None) -> tuple[float, float, float] | None:
    """Value and interval of what is compared with."""
    if policy.reference != "logged":
        return policy.reference, policy.reference, policy.reference
    return None if logged is None else (logged.value, logged.low, logged.high)


def _lift(one: Evidence, reference: tuple[float, float, float], correlation: float) -> tuple[float, float, float]:
    value, low, high = reference
    lift = one.value - value

    def apart(mine: float, theirs: float) -> float:
        return math.sqrt(max(mine**2 + theirs**2 - 2 * correlation * mine * theirs, 0.0))

    return lift, lift - apart(one.value - one.low, high - value), lift + apart(one.high - one.value, value - low)


def _decide(
    policy: GatePolicy,
    decisive: Evidence | None,
    refused: Mapping[str, str],
    lift: tuple[float, float, float] | None,
    reference: tuple[float, float, float] | None,
    age_s: float,
) -> tuple[Literal["passed", "failed", "no_verdict"], str]:
    if decisive is None or lift is None or reference is None:
        return "no_verdict", f"no verdict: {policy.estimator} gives no estimate: {refused[policy.estimator]}"
    if age_s > policy.max_age_s:
        return "no_verdict", (
            f"no verdict: the newest logged row is {age_s / DAY_S:.1f} days old; at most "
            f"{policy.max_age_s / DAY_S:.1f} are allowed"
        )
    least = policy.least_effective(decisive.n)
    if decisive.effective_sample_size < least:
        return "no_verdict", (
            f"no verdict: no overlap: {decisive.effective_sample_size:.0f} effective of {decisive.n} logged; at least "
            f"{least:.0f} are needed"
        )
    if decisive.unlogged > policy.max_unlogged:
        return "no_verdict", (
            f"no verdict: no overlap: the log does not show {decisive.unlogged:.0%} of what the version does; at most "
            f"{policy.max_unlogged:.0%} are allowed"
        )
    sign = 1.0 if policy.better == "higher" else -1.0
    worst, best = sorted((sign * lift[1], sign * lift[2]))
    found = (
        f"{policy.estimator} gives {policy.metric} {decisive.value:.6g} against {reference[0]:.6g}"
        f"{' logged' if policy.reference == 'logged' else ''}, a lift of {lift[0]:+.4g} "
        f"[{lift[1]:+.4g}, {lift[2]:+.4g}] at {policy.confidence:.4g}"
    )
    accepted = f"{-sign * policy.margin if policy.margin else 0:+.4g} or better is accepted"
    if worst >= -policy.margin:
        return "passed", f"passed: {found}; {accepted}"
    if best < -policy.margin:
        return "failed", f"failed: {found}; only {accepted}"
    return "no_verdict", f"no verdict: {found}; {accepted}, which the interval neither shows nor excludes"


def _agreement(lines: Sequence[GateLine]) -> str:
    others = [line for line in lines if line.agrees is not None]
    apart = [line.estimator for line in others if not line.agrees]
    if not others:
        return "no other estimate to compare with"
    if not apart:
        return f"all {len(others)} other estimators agree: their intervals meet"
    return (
        f"{', '.join(apart)} disagree{'s' if len(apart) == 1 else ''}: no interval of theirs meets the declared one's"
    )
