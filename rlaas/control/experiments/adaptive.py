"""Shares that follow what the variants have earned, and what may be said of the variants after that.

In batches: the values of the units that are complete give the shares of the next one by Thompson sampling, and the
estimates weigh every unit by the propensities that were logged when it was assigned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.control.experiments.allocations import (
    LinearThompsonAllocation,
    ObjectiveThompsonAllocation,
    ThompsonAllocation,
)
from rlaas.control.experiments.batches import Batch
from rlaas.control.experiments.contexts import (
    contextual_shares,
    frozen,
    learnt_linear,
    learnt_objectives,
    predicted,
    scaled,
)
from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.errors import InvalidInputError
from rlaas.experiments.allocation import AdaptiveEstimates, BetaPrior, GaussianPrior, Thompson, adaptive_estimates
from rlaas.experiments.allocation.adaptive import running_means
from rlaas.experiments.allocation.quadrature import expected_loss, probability_best
from rlaas.experiments.inference import holm
from rlaas.experiments.metrics import ProportionMetric
from rlaas.experiments.records import Entry

__all__ = ["by_mode", "estimated", "next_batch", "probably_earning", "propensities"]

FloatArray = NDArray[np.float64]

_LEAST = 1e-12


def propensities(document: ExperimentDocument, entries: Sequence[Entry], batches: Sequence[Batch]) -> FloatArray:
    """Of every variant when a unit was assigned [n, n_variants], in the order of the document's shares.

    Its own was logged. The others share the rest as planned: by the weights of its batch, or as the batch's posterior
    has it at the unit's context.

    Args:
        document: the experiment.
        entries: the units.
        batches: of an adaptive allocation, after the first.
    """
    names = list(document.shares())
    if document.conditional_spec() is not None:
        planned = contextual_shares(document, entries, batches)
    else:
        shares = [document.shares(), *(batch.shares for batch in batches)]
        table = np.array([[one[name] for name in names] for one in shares])
        table = table / table.sum(axis=1, keepdims=True)
        adaptive = document.allocation is not None  # otherwise a segment may have that name
        planned = table[[entry.attributes["batch"] if adaptive else 0 for entry in entries]]
    for row, entry in enumerate(entries):
        if entry.propensity is not None:
            place = names.index(entry.arm)
            planned[row] *= (1 - entry.propensity) / max(1 - planned[row, place], _LEAST)
            planned[row, place] = entry.propensity
    return planned


def next_batch(
    document: ExperimentDocument, entries: Sequence[Entry], batch: int
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Shares of a batch by variant, which sum to 1, and where they depend on the context the spec by which they do.

    Args:
        document: the experiment.
        entries: units that its allocation learns from, see :attr:`ExperimentDocument.learnt_from`.
        batch: its number.
    """
    if document.conditional_spec() is not None:
        return frozen(document, entries, batch)
    return _thompson(document, entries).shares(), None


def probably_earning(document: ExperimentDocument, entries: Sequence[Entry]) -> dict[str, dict[str, float]] | None:
    """By variant its mean, the posterior probability of being best, and the expected loss of choosing it.

    Where the better one depends on features, that is for a population with those of the units seen. Like every
    posterior it does not bound how often one errs; None until every variant has a unit, and where it is a question of
    the mode.
    """
    arms, rule = list(document.shares()), document.allocation
    values = {name: [entry.numerator for entry in entries if entry.arm == name] for name in arms}
    if isinstance(rule, ObjectiveThompsonAllocation) or not all(values.values()):
        return None
    if isinstance(rule, LinearThompsonAllocation):
        means = learnt_linear(document, entries).means(scaled(rule, entries).mean(axis=0))
        best, loss = (dict(zip(arms, of(means), strict=True)) for of in (probability_best, expected_loss))
    else:
        seen = _thompson(document, entries)
        best, loss = seen.probability_best(), seen.expected_loss()
    return {
        name: {
            "value": float(np.mean(values[name])),
            "probability": float(best[name]),
            "expected_loss": max(float(loss[name]), 0.0),
        }
        for name in arms
    }


def estimated(
    document: ExperimentDocument,
    entries: Sequence[Entry],
    batches: Sequence[Batch],
    *,
    reward: Sequence[float] | None = None,
    modelled: bool = False,
) -> AdaptiveEstimates | str:
    """Means and differences with the logged propensities, or why there are none.

    Args:
        document: the experiment.
        entries: units of a metric, in the order of their exposures.
        batches: after the first.
        reward: of each unit; default: the metric's value.
        modelled: whether the values are those that the regressions of a contextual allocation predict.
    """
    names = list(document.shares())
    values = [entry.numerator for entry in entries] if reward is None else list(reward)
    numbers, model = None, None
    if document.conditional_spec() is not None:
        # Gateways change over within a second or two of each other.
        order = sorted(range(len(entries)), key=lambda place: entries[place].attributes["batch"])
        entries, values = [entries[place] for place in order], [values[place] for place in order]
        numbers = [entry.attributes["batch"] for entry in entries]
        if modelled:
            model = predicted(document, entries, batches)
            drawn = np.array([[entry.arm == name for name in names] for entry in entries], dtype=np.float64)
            model = np.where(np.isnan(model), running_means(drawn, np.array(values)), model) if entries else None
    try:
        return adaptive_estimates(
            names,
            [entry.arm for entry in entries],
            values,
            propensities(document, entries, batches),
            control=document.control,
            batch=numbers,
            prediction=model,
            confidence=1 - document.stopping.alpha,
        )
    except InvalidInputError as problem:  # too few units, which more of them will mend
        return problem.message


def by_mode(document: ExperimentDocument, entries: Sequence[Entry], batches: Sequence[Batch]) -> dict[str, Any] | None:
    """What the units say in each mode: who is probably best, and estimated differences in utility to the control.

    Utility is the goodness of the objectives weighed by the mode: 1 is the whole range of every objective. Units of
    all modes speak for each. ``adjusted_p`` is Holm's over treatments and modes.

    Args:
        document: the experiment.
        entries: units of its :class:`~rlaas.experiments.metrics.ObjectivesMetric`, in the order of their exposures.
        batches: after the first.

    Returns:
        By mode, as JSON types; None until every variant has a unit.
    """
    rule = document.allocation
    if not isinstance(rule, ObjectiveThompsonAllocation) or {entry.arm for entry in entries} != set(document.shares()):
        return None
    verdicts, vectors = learnt_objectives(document, entries).verdicts(), np.array([entry.values for entry in entries])
    found: dict[str, Any] = {}
    for mode, preference in rule.preferences().items():
        rewards = (vectors @ preference.array()).tolist()
        known = estimated(document, entries, batches, reward=rewards)
        differences = {} if isinstance(known, str) else known.differences
        found[mode] = {
            "weights": preference.to_dict(),
            **verdicts[mode].to_dict(),
            "differences": {name: difference.to_dict() for name, difference in differences.items()},
            "note": known if isinstance(known, str) else "",
        }
    pairs = [(mode, name) for mode, one in found.items() for name in one["differences"]]
    p_values = [found[mode]["differences"][name]["p_value"] for mode, name in pairs]
    for (mode, name), p in zip(pairs, holm(p_values) if pairs else (), strict=True):
        found[mode]["differences"][name]["adjusted_p"] = float(p)
    for one in found.values():
        shown = {
            name: row
            for name, row in one["differences"].items()
            if row["adjusted_p"] <= document.stopping.alpha and row["value"] > 0
        }
        one["serve"] = max(shown, key=lambda name: shown[name]["value"]) if shown else document.control
    return found


def _thompson(document: ExperimentDocument, entries: Sequence[Entry]) -> Thompson:
    """Larger rewards are better: where a low value is, a proportion counts the others, and a mean turns its sign."""
    allocation, metric = document.allocation, document.primary
    assert isinstance(allocation, ThompsonAllocation)  # the document was asked before
    prior: BetaPrior | GaussianPrior = allocation.prior or BetaPrior()
    values = np.array([entry.numerator for entry in entries])
    if metric.better == "lower":
        if isinstance(prior, BetaPrior):
            values, prior = 1 - values, BetaPrior(successes=prior.failures, failures=prior.successes)
        elif isinstance(metric, ProportionMetric):
            values, prior = 1 - values, prior.model_copy(update={"mean": 1 - prior.mean})
        else:
            values, prior = -values, prior.model_copy(update={"mean": -prior.mean})
    start = Thompson(
        arms=tuple(document.shares()),
        minimum_share=allocation.minimum_share,
        prior=prior,
        top_two=allocation.top_two,
    )
    return start.updated([entry.arm for entry in entries], values)
