"""A window of traffic against a reference, from every side, with the errors of many tests under control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, check_choice
from rlaas.experiments.inference.multiplicity import benjamini_hochberg, holm
from rlaas.monitoring.concept import OutcomeModel
from rlaas.monitoring.multivariate import classifier_test
from rlaas.monitoring.outliers import OutlierModel
from rlaas.monitoring.windows import ColumnReference, chi_square, psi_of_counts

__all__ = ["CheckOptions", "DriftReport", "Finding", "Traffic", "check_window"]

FloatArray = NDArray[np.float64]
Control = Literal["benjamini-hochberg", "holm"]
_CONTROLS = {"benjamini-hochberg": benjamini_hochberg, "holm": holm}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Decisions of one policy version, and what came of them.

    Attributes:
        observations: [n, features].
        actions: [n, k]; one column of indices for a discrete action.
        discrete: whether the actions are indices.
        outcomes: by objective [n]; NaN where no outcome came.
    """

    observations: FloatArray
    actions: FloatArray
    discrete: bool = False
    outcomes: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """How a window is judged.

    Attributes:
        level: share of findings that may be wrong (Benjamini-Hochberg), or probability of any wrong one (Holm).
        control: which of the two.
        least_psi: a column has drifted only if its stability index is at least that too: with a million rows every
            difference is significant, and most do not matter.
        rate: share of normal inputs that may be flagged as out of distribution.
    """

    level: float = 0.01
    control: Control = "benjamini-hochberg"
    least_psi: float = 0.1
    rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class Finding:
    """One test.

    Attributes:
        kind: ``input``, ``action``, ``outcome``, ``multivariate``, ``concept``, ``calibration`` or ``outliers``.
        name: of the column or objective; empty for a test of all of them.
        test: how it was tested.
        statistic, p_value: of the test.
        adjusted: p-value after the correction for all tests.
        effect: how large the difference is: stability index, area under the curve, or shift in the outcome's unit.
        drifted: whether it counts as drift.
    """

    kind: str
    name: str
    test: str
    statistic: float
    p_value: float
    adjusted: float
    effect: float
    drifted: bool


@dataclass(frozen=True, slots=True)
class DriftReport:
    """All tests of a window.

    Attributes:
        findings: every test.
        drifted: whether any found drift.
        rows: numbers of decisions in reference and window.
        outliers: share of the window's inputs that are out of distribution; None where the reference is too short.
        skipped: what could not be tested, and why.
    """

    findings: tuple[Finding, ...]
    drifted: bool
    rows: tuple[int, int]
    outliers: float | None
    skipped: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def check_window(
    reference: Traffic, window: Traffic, rng: np.random.Generator, options: CheckOptions | None = None
) -> DriftReport:
    """Test a window for drift of inputs, actions, outcomes, of all of them together, and of what leads to what.

    Args:
        reference, window: of one policy version, or of two.
        rng: draws rows, folds and permutations.
        options: how it is judged.

    Raises:
        InvalidInputError: another number of features or actions, no rows, or an unknown control.
    """
    options = options or CheckOptions()
    check_choice(options.control, _CONTROLS, field="control", error=InvalidInputError)
    skipped: list[str] = []
    found: list[Finding] = [
        *_columns("input", "observation", reference.observations, window.observations, options),
        *_actions(reference, window, options),
    ]
    together = classifier_test(reference.observations, window.observations, rng)
    test = "classifier two-sample"
    found.append(Finding("multivariate", "", test, together.auc, together.p_value, 1.0, together.auc, True))
    for name in sorted(set(reference.outcomes) & set(window.outcomes)):
        found += _outcome(name, reference, window, rng, options, skipped)
    skipped += [f"outcome {name}: not in both" for name in sorted(set(reference.outcomes) ^ set(window.outcomes))]
    outliers: float | None = None
    if len(reference.observations) >= 4 / options.rate:
        model = OutlierModel(reference.observations[-200_000:], rng, rate=options.rate)
        outliers = float(model.flag(window.observations).flagged.mean())
    else:
        skipped.append(f"out-of-distribution inputs: the reference needs {4 / options.rate:.0f} decisions")
    adjusted = _CONTROLS[options.control]([one.p_value for one in found])
    judged = tuple(
        Finding(
            one.kind,
            one.name,
            one.test,
            one.statistic,
            one.p_value,
            float(p),
            one.effect,
            bool(p <= options.level and one.drifted),
        )
        for one, p in zip(found, adjusted, strict=True)
    )
    rows = (len(reference.observations), len(window.observations))
    return DriftReport(judged, any(one.drifted for one in judged), rows, outliers, tuple(skipped))


def _columns(kind: str, name: str, before: FloatArray, now: FloatArray, options: CheckOptions) -> list[Finding]:
    shifts = ColumnReference(before).compare(now)
    return [
        Finding(
            kind,
            f"{name}.{index}",
            "Kolmogorov-Smirnov",
            one.statistic,
            one.p_value,
            1.0,
            one.psi,
            one.psi >= options.least_psi,
        )
        for index, one in enumerate(shifts)
    ]


def _actions(reference: Traffic, window: Traffic, options: CheckOptions) -> list[Finding]:
    if not reference.discrete:
        return _columns("action", "action", reference.actions, window.actions, options)
    most = int(max(reference.actions.max(), window.actions.max())) + 1
    counts = [np.bincount(one.actions[:, 0].astype(np.int64), minlength=most) for one in (reference, window)]
    statistic, p_value = chi_square(counts[0].tolist(), counts[1].tolist())
    psi = psi_of_counts(*counts)
    return [Finding("action", "action", "chi-square", statistic, p_value, 1.0, psi, psi >= options.least_psi)]


def _outcome(
    name: str,
    reference: Traffic,
    window: Traffic,
    rng: np.random.Generator,
    options: CheckOptions,
    skipped: list[str],
) -> list[Finding]:
    there = [np.isfinite(one.outcomes[name]) for one in (reference, window)]
    values = [one.outcomes[name][mine] for one, mine in zip((reference, window), there, strict=True)]
    if min(map(len, values)) < 40:
        skipped.append(f"outcome {name}: fewer than 40 decisions have it")
        return []
    (found,) = _columns("outcome", name, values[0][:, None], values[1][:, None], options)
    findings = [Finding("outcome", name, *(getattr(found, field) for field in _REST))]
    inputs = [
        np.concatenate([one.observations[mine], _as_inputs(one.actions[mine], reference)], axis=1)
        for one, mine in zip((reference, window), there, strict=True)
    ]
    model = OutcomeModel(inputs[0], values[0], rng)
    concept, calibration = model.concept(inputs[1], values[1]), model.calibration(inputs[1], values[1])
    ks = "Kolmogorov-Smirnov of residuals"
    findings.append(Finding("concept", name, ks, concept.statistic, concept.p_value, 1.0, concept.shift, True))
    findings.append(
        Finding(
            "calibration",
            name,
            "chi-square over bins",
            calibration.statistic,
            calibration.p_value,
            1.0,
            calibration.error,
            True,
        )
    )
    return findings


_REST = ("test", "statistic", "p_value", "adjusted", "effect", "drifted")


def _as_inputs(actions: FloatArray, reference: Traffic) -> FloatArray:
    """Actions as columns of a model: a discrete one as a column for each index that the reference has."""
    if not reference.discrete:
        return actions
    known = np.unique(reference.actions[:, 0])[:64]
    return np.asarray(actions[:, :1] == known, dtype=np.float64)
