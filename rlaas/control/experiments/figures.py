"""Figures of a result page beside the monitors: the look at the planned size, who is probably best, what is to come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from rlaas.control.experiments.documents import LATEST_US, ExperimentDocument
from rlaas.control.experiments.monitors import ArmFigures, CrossMoments
from rlaas.errors import InvalidInputError
from rlaas.experiments.analysis import compare_switchback
from rlaas.experiments.comparison import Comparison
from rlaas.experiments.contrasts import ArmMean
from rlaas.experiments.inference import mde_mean, power_mean
from rlaas.experiments.metric_analysis import MetricResult, analyse_metric, prepare_units
from rlaas.experiments.metrics import Metric, QuantileMetric, RatioMetric
from rlaas.experiments.records import Entry

__all__ = ["arm_counts", "at_size", "blocks_compared", "compared", "expected_end", "power_so_far", "probably_best"]

_GRID = 4001
_REACH = 9.0
"""Standard deviations to which the posteriors are integrated."""


def arm_counts(document: ExperimentDocument, entries: Sequence[Entry]) -> dict[str, int]:
    """Units by variant."""
    counts = {variant.name: 0 for variant in document.variants}
    for entry in entries:
        if entry.arm in counts:
            counts[entry.arm] += 1
    return counts


def at_size(document: ExperimentDocument, entries: Sequence[Entry]) -> Sequence[Entry] | None:
    """The first entries in which every variant has its planned units; None until then.

    Where that is depends on who was assigned to what, and not on any value.
    """
    counts, size = {variant.name: 0 for variant in document.variants}, document.stopping.size
    for index, entry in enumerate(entries):
        if entry.arm in counts:
            counts[entry.arm] += 1
            if counts[entry.arm] == size and min(counts.values()) >= size:
                return entries[: index + 1]
    return None


def compared(document: ExperimentDocument, metric: Metric, entries: Sequence[Entry]) -> dict[str, MetricResult | str]:
    """By treatment the comparison at one look, or why there is none."""
    found: dict[str, MetricResult | str] = {}
    for name in document.treatments:
        try:
            found[name] = analyse_metric(metric, entries, control=document.control, treatment=name)
        except InvalidInputError as problem:  # too few units, which more of them will mend
            found[name] = problem.message
    return found


def blocks_compared(
    document: ExperimentDocument, metric: Metric, entries: Sequence[Entry], *, pairs: int | None
) -> Comparison | str | None:
    """A switchback over its complete pairs of blocks, or over the first ``pairs`` of them; None until it has those."""
    arms: dict[int, str] = {int(entry.attributes["block"]): entry.arm for entry in entries}
    complete = sorted(
        block for block in arms if block % 2 == 0 and block + 1 in arms and arms[block] != arms[block + 1]
    )
    if pairs is not None and len(complete) < pairs:
        return None
    kept = {start + offset for start in complete[:pairs] for offset in (0, 1)}
    mine = [entry for entry in entries if int(entry.attributes["block"]) in kept]
    try:
        return compare_switchback(
            [int(entry.attributes["block"]) for entry in mine],
            [entry.arm for entry in mine],
            [entry.numerator for entry in mine],
            [entry.denominator for entry in mine] if isinstance(metric, RatioMetric) else None,
            block_steps=1,
            washout_steps=0,
            control=document.control,
            treatment=document.treatments[0],
            metric=metric.name,
        )
    except InvalidInputError as problem:
        return problem.message


def probably_best(
    document: ExperimentDocument, metric: Metric, entries: Sequence[Entry]
) -> dict[str, dict[str, float]] | None:
    """By variant its value, the posterior probability of being best, and the expected loss of choosing it.

    Posteriors are normal around the estimates, which flat priors give for large samples; None for quantiles, and while
    there are too few units. Like every posterior it does not bound how often one errs by stopping when it looks good.
    """
    if isinstance(metric, QuantileMetric):
        return None
    try:
        units = prepare_units(metric, entries)
        arms = {variant.name: units.arm(variant.name) for variant in document.variants}
    except InvalidInputError:
        return None
    sign = 1.0 if metric.better == "higher" else -1.0
    means = {name: sign * arm.value for name, arm in arms.items() if isinstance(arm, ArmMean)}
    errors = {name: math.sqrt(arm.variance) for name, arm in arms.items() if isinstance(arm, ArmMean)}
    if min(errors.values()) <= 0:
        return None
    low = min(means[name] - _REACH * errors[name] for name in means)
    high = max(means[name] + _REACH * errors[name] for name in means)
    # Fine enough for the narrowest of them.
    points = min(max(_GRID, math.ceil(20 * (high - low) / min(errors.values()))), 1_000_000)
    x = np.linspace(low, high, points)
    below = {name: stats.norm.cdf(x, means[name], errors[name]) for name in means}
    # E[max] = high - integral of P(max <= x).
    largest = high - float(np.trapezoid(np.prod(list(below.values()), axis=0), x))
    found = {}
    for name, mean in means.items():
        others = np.prod([below[other] for other in means if other != name], axis=0)
        density = stats.norm.pdf(x, mean, errors[name])
        found[name] = {
            "value": sign * mean,
            "probability": float(np.trapezoid(density * others, x)),
            "expected_loss": max(largest - mean, 0.0),
        }
    return found


def power_so_far(document: ExperimentDocument, metric: Metric, entries: Sequence[Entry]) -> dict[str, Any] | None:
    """What the planned size can find of the primary metric, by the spread of the units so far.

    Returns:
        ``deviation`` of one unit; ``detectable`` difference at the planned size with 80 % power by a look at that size;
        ``power`` and ``power_planned`` of finding the declared effect now and at the planned size; None while unknown.
    """
    if isinstance(metric, QuantileMetric):
        return None
    spreads = []
    for name in (document.control, *document.treatments):
        rows = np.array([[e.numerator, e.denominator, 0.0] for e in entries if e.arm == name]).reshape(-1, 3)
        moments = CrossMoments().merged(rows)
        weights = moments.influence()
        if weights is None:
            return None
        spreads.append(ArmFigures(moments, weights, 0.0, 0.0))
    deviation = math.sqrt(sum(arm.spread for arm in spreads) / len(spreads))
    if not deviation > 0:
        return None
    rule, least = document.stopping, min(arm.n for arm in spreads)
    found: dict[str, Any] = {
        "deviation": deviation,
        "detectable": mde_mean(rule.size, deviation, alpha=rule.alpha),
        "effect": rule.effect,
        "power": None,
        "power_planned": None,
    }
    if rule.effect is not None:
        found["power"] = power_mean(rule.effect, deviation, least, alpha=rule.alpha) if least > 1 else None
        found["power_planned"] = power_mean(rule.effect, deviation, rule.size, alpha=rule.alpha)
    return found


def expected_end(
    document: ExperimentDocument, first_us: int | None, now_us: int, counts: Mapping[str, int]
) -> int | None:
    """When the slowest variant will have its planned units, UTC microseconds, at the pace so far.

    Args:
        document: the experiment.
        first_us: first exposure.
        now_us: until when exposures are counted.
        counts: exposed units by variant.

    Returns:
        The time; None while it is unknown, and where it is beyond the year 9999.
    """
    least = min((counts.get(variant.name, 0) for variant in document.variants), default=0)
    if first_us is None or least < 2 or now_us <= first_us:
        return None
    full = first_us + (now_us - first_us) * document.stopping.size / least + document.wait_us
    return round(full) if full < LATEST_US else None
