"""The result page of an experiment as one document of JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlaas.control.experiments.adaptive import by_mode, estimated, probably_earning
from rlaas.control.experiments.allocations import LinearThompsonAllocation
from rlaas.control.experiments.batches import Batch
from rlaas.control.experiments.contexts import learnt_linear
from rlaas.control.experiments.documents import OBJECTIVES, ExperimentDocument
from rlaas.control.experiments.figures import (
    arm_counts,
    at_size,
    blocks_compared,
    compared,
    expected_end,
    power_so_far,
    probably_best,
)
from rlaas.control.experiments.metric_state import MetricState
from rlaas.control.experiments.store import StoredExperiment
from rlaas.control.experiments.verdict import recommend
from rlaas.experiments.inference import SplitMonitor, Standing, holm
from rlaas.experiments.metric_analysis import MetricResult
from rlaas.experiments.metrics import QuantileMetric
from rlaas.experiments.records import Entry

__all__ = ["result_page"]

_BATCHES_SHOWN = 100


def result_page(
    stored: StoredExperiment,
    *,
    now_us: int,
    split: SplitMonitor,
    exposed: Sequence[Entry],
    decisions: Mapping[str, int],
    crossed: int,
    waiting: int,
    metrics: Mapping[str, MetricState],
    entered: Mapping[str, Sequence[Entry]],
    audit: Mapping[str, int],
    refused: Mapping[str, int],
    disturbed: str,
    batches: Sequence[Batch] = (),
) -> dict[str, Any]:
    """The page.

    Args:
        stored: the experiment.
        now_us: until when it was analysed, UTC microseconds.
        split: monitor of the split, with every exposure.
        exposed: units that were exposed, in their order.
        decisions: by variant.
        crossed: units that were seen in two variants.
        waiting: units whose window of the primary metric is open.
        metrics: monitors by metric.
        entered: entries by metric.
        audit: records that came too late, by metric.
        refused: outcomes with a value that a metric cannot count, by metric.
        disturbed: what somebody else has done to the deployment; empty: nothing.
        batches: of an adaptive allocation, after the first.
    """
    document = stored.document
    primary_entries = entered[document.primary.name]
    reached = _reached(document, primary_entries)
    guards = {guardrail.metric.name: guardrail for guardrail in document.guardrails}
    found = {
        name: _metric(document, metrics[name], entered[name], batches)
        for name in (document.primary.name, *(metric.name for metric in document.secondary))
    }
    _adjust(document, found)
    guardrails = [one for name in guards for one in _guardrail(document, metrics[name], entered[name])]
    vectors = entered.get(OBJECTIVES, ())
    size = document.stopping.size * len(document.variants)
    modes = by_mode(document, vectors[:size] if reached else vectors, batches)
    counts = arm_counts(document, exposed)
    first_us = exposed[0].exposed_us if exposed else None
    plain = document.design == "user" and document.allocation is None
    end_us = expected_end(document, first_us, now_us, counts) if plain and not reached else None
    recommendation = recommend(
        document,
        primary={
            name: {"p_value": one["adjusted_p"], "estimate": one["estimate"], "better": one["better"]}
            for name, one in found[document.primary.name]["treatments"].items()
            if one["adjusted_p"] is not None
        },
        guardrails=guardrails,
        split_broken=_broken(split, counts, crossed),
        disturbed=disturbed,
        reached=reached,
        expected_end_us=end_us,
        modes=modes,
    )
    return {
        "schema_version": 1,
        "experiment": document.id,
        "policy": document.policy,
        "state": stored.state,
        "time_us": now_us,
        "control": document.control,
        "exposure": {
            "units": {**counts, **_held(document, exposed)},
            "decisions": {name: decisions.get(name, 0) for name in document.shares()},
            "waiting": waiting,
            "first_us": first_us,
        },
        "split": {
            "planned": document.shares(),
            "p_value": split.p_value,
            "alpha": split.alpha,
            "alarm": split.alarm,
            "crossed_units": crossed,
        },
        "metrics": found,
        "guardrails": guardrails,
        "planned": {
            "stopping": document.stopping.model_dump(mode="json"),
            "entered": arm_counts(document, primary_entries),
            "reached": reached,
            "expected_end_us": end_us,
            "power": power_so_far(document, document.primary, primary_entries) if plain else None,
        },
        "allocation": None
        if document.allocation is None
        else {
            "kind": document.allocation.kind,
            "batch": len(batches),
            "shares": batches[-1].shares if batches else document.shares(),
            "coefficients": _coefficients(document, primary_entries),
            "batches": [batch.to_dict() for batch in batches[-_BATCHES_SHOWN:]],
        },
        "modes": modes,
        "audit": dict(audit),
        "refused": dict(refused),
        "recommendation": recommendation.to_dict(),
    }


def _coefficients(document: ExperimentDocument, entries: Sequence[Entry]) -> dict[str, dict[str, float]] | None:
    """By variant the posterior mean of its regression on the centred and scaled features, the intercept first.

    Of what is good: where a low value is better, of its negative. The intercept is the distance to the declared mean.
    """
    rule = document.allocation
    if not isinstance(rule, LinearThompsonAllocation):
        return None
    names = ["(intercept)", *(one.name for one in rule.features)]
    found = learnt_linear(document, entries).coefficients()
    return {variant: dict(zip(names, row.tolist(), strict=True)) for variant, row in found.items()}


def _metric(
    document: ExperimentDocument, metric: MetricState, entries: Sequence[Entry], batches: Sequence[Batch]
) -> dict[str, Any]:
    spec = metric.metric
    ratio = isinstance(spec, QuantileMetric) and document.stopping.kind == "sequential"
    treatments: dict[str, dict[str, Any]]
    best, segments = None, []
    if document.design == "switchback":
        treatments = {document.treatments[0]: _of_blocks(document, metric, entries)}
    elif document.allocation is not None:
        treatments = _of_batches(document, metric, entries, batches)
        if spec.name == document.primary.name:
            best = probably_earning(document, entries)
    else:
        now = metric.now(entries)
        planned = at_size(document, entries)
        fixed = {} if planned is None else compared(document, spec, planned)
        best = probably_best(document, spec, entries)
        for name, one in compared(document, spec, entries).items() if spec.segments else ():
            if isinstance(one, MetricResult):
                segments += [{"treatment": name, **segment} for segment in one.to_dict()["segments"]]
        treatments = {
            name: _treatment(document, metric, now.get(name, [None])[0], fixed.get(name), best)
            for name in document.treatments
        }
    return {
        "kind": spec.kind,
        "role": "primary" if spec.name == document.primary.name else "secondary",
        "better": spec.better,
        "scale": "ratio" if ratio else "difference",
        "units": arm_counts(document, entries),
        "treatments": treatments,
        "looks": metric.looks,
        "best": best,
        "segments": segments,
    }


def _treatment(
    document: ExperimentDocument,
    metric: MetricState,
    standing: Standing | None,
    fixed: MetricResult | str | None,
    best: Mapping[str, Mapping[str, float]] | None,
) -> dict[str, Any]:
    up = 1.0 if metric.metric.better == "higher" else -1.0
    null = 1.0 if isinstance(metric.metric, QuantileMetric) else 0.0
    result = fixed if isinstance(fixed, MetricResult) else None
    estimate = p_value = gap = relative = None
    if document.stopping.kind == "fixed":
        if result is not None:
            estimate = gap = result.comparison.effect
            p_value = result.comparison.p_value
            relative = result.comparison.relative if math.isfinite(result.comparison.relative) else None
    elif standing is not None and math.isfinite(standing.estimate):
        estimate, p_value, gap = standing.estimate, standing.p_value, standing.estimate - null
        base = best[document.control]["value"] if best is not None else 0.0
        relative = gap if null else gap / base if base else None
    return {
        "always_valid": None if standing is None else standing.to_dict(),
        "fixed": None if result is None else result.to_dict(),
        "fixed_note": fixed if isinstance(fixed, str) else "" if result else "the planned size is not reached",
        "estimate": estimate,
        "relative": relative,
        "better": gap is not None and up * gap > 0,
        "p_value": p_value,
        "adjusted_p": None,
    }


def _of_blocks(document: ExperimentDocument, metric: MetricState, entries: Sequence[Entry]) -> dict[str, Any]:
    """Of a switchback: the comparison at the horizon, and beside it the one so far, which decides nothing."""
    spec, horizon = metric.metric, document.stopping.size
    fixed = blocks_compared(document, spec, entries, pairs=horizon)
    so_far = blocks_compared(document, spec, entries, pairs=None)
    known = None if fixed is None or isinstance(fixed, str) else fixed
    up = 1.0 if spec.better == "higher" else -1.0
    note = fixed if isinstance(fixed, str) else "" if known else "the planned size is not reached"
    return {
        "always_valid": None,
        "fixed": None if known is None else {"comparison": known.to_dict()},
        "fixed_note": note,
        "so_far": None if so_far is None or isinstance(so_far, str) else so_far.to_dict(),
        "estimate": None if known is None else known.effect,
        "relative": None if known is None or not math.isfinite(known.relative) else known.relative,
        "better": known is not None and up * known.effect > 0,
        # The order within the pairs was drawn, and this p-value rests on nothing else.
        "p_value": None if known is None else known.randomisation_p_value,
        "adjusted_p": None,
    }


def _of_batches(
    document: ExperimentDocument, metric: MetricState, entries: Sequence[Entry], batches: Sequence[Batch]
) -> dict[str, dict[str, Any]]:
    """Of an adaptive allocation: estimates with the logged propensities, at the planned size and so far."""
    spec, size = metric.metric, document.stopping.size * len(document.variants)
    modelled = spec.name == document.primary.name and isinstance(document.allocation, LinearThompsonAllocation)
    planned = estimated(document, entries[:size], batches, modelled=modelled) if len(entries) >= size else None
    so_far = estimated(document, entries, batches, modelled=modelled)
    up = 1.0 if spec.better == "higher" else -1.0
    found = {}
    for name in document.treatments:
        known = None if planned is None or isinstance(planned, str) else planned.differences[name]
        base = None if planned is None or isinstance(planned, str) else planned.arms[document.control].value
        found[name] = {
            "always_valid": None,
            "fixed": None if known is None else {"adaptive": known.to_dict()},
            "fixed_note": planned if isinstance(planned, str) else "" if known else "the planned size is not reached",
            "so_far": None if isinstance(so_far, str) else so_far.differences[name].to_dict(),
            "estimate": None if known is None else known.value,
            "relative": known.value / base if known is not None and base else None,
            "better": known is not None and up * known.value > 0,
            "p_value": None if known is None else known.p_value,
            "adjusted_p": None,
        }
    return found


def _adjust(document: ExperimentDocument, found: Mapping[str, dict[str, Any]]) -> None:
    """Holm over the treatments of the primary metric, and over all secondary figures together."""
    families = (
        [found[document.primary.name]],
        [found[metric.name] for metric in document.secondary],
    )
    for family in families:
        known = [one for metric in family for one in metric["treatments"].values() if one["p_value"] is not None]
        if not known:
            continue
        # Those of which nothing is known yet count as tests that have found nothing.
        total = sum(len(metric["treatments"]) for metric in family)
        p_values = [one["p_value"] for one in known] + [1.0] * (total - len(known))
        for one, adjusted in zip(known, holm(p_values).tolist(), strict=False):
            one["adjusted_p"] = adjusted


def _guardrail(document: ExperimentDocument, metric: MetricState, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Always valid: one monitor speaks for "no such loss", the other for "a larger one"; a loss shown is final."""
    guardrail, now = metric.guardrail, metric.now(entries)
    if guardrail is None:
        raise AssertionError(f"{metric.metric.name} belongs to no guardrail")
    found = []
    for name in document.treatments:
        passed, failed = now.get(name, [None, None])
        verdict = "undecided"
        if passed is not None and passed.p_value <= guardrail.alpha:
            verdict = "passed"
        if failed is not None and failed.p_value <= guardrail.alpha:
            verdict = "failed"
        found.append(
            {
                "metric": metric.metric.name,
                "treatment": name,
                "verdict": verdict,
                "margin": guardrail.margin,
                "relative": guardrail.relative,
                "alpha": guardrail.alpha,
                "p_no_loss": None if passed is None else passed.p_value,
                "p_loss": None if failed is None else failed.p_value,
                "units": arm_counts(document, entries),
                "looks": metric.looks,
            }
        )
    return found


def _reached(document: ExperimentDocument, entries: Sequence[Entry]) -> bool:
    if document.design == "switchback":
        return blocks_compared(document, document.primary, entries, pairs=document.stopping.size) is not None
    if document.allocation is not None:  # a variant that loses may never have its part
        return len(entries) >= document.stopping.size * len(document.variants)
    return at_size(document, entries) is not None


def _held(document: ExperimentDocument, exposed: Sequence[Entry]) -> dict[str, int]:
    names = [name for name in document.shares() if name not in {variant.name for variant in document.variants}]
    return {name: sum(entry.arm == name for entry in exposed) for name in names}


def _broken(split: SplitMonitor, counts: Mapping[str, int], crossed: int) -> str:
    if split.alarm:
        shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        return f"the units are not split as planned (p = {split.p_value:.2g}): {shown}; no comparison can be believed"
    total = sum(counts.values())
    if crossed > max(10, 0.01 * total):
        return f"{crossed:,} units were seen in more than one variant, beside {total:,} that kept theirs"
    return ""
