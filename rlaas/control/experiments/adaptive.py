"""Shares that follow what the variants have earned, and what may be said of the variants after that.

In batches: the values of the units that are complete give the shares of the next one by Thompson sampling, and the
estimates weigh every unit by the propensities that were logged when it was assigned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rlaas.errors import InvalidInputError
from rlaas.experiments.allocation import AdaptiveEstimates, BetaPrior, GaussianPrior, Thompson, adaptive_estimates
from rlaas.experiments.metrics import Metric, ProportionMetric
from rlaas.experiments.records import Entry

if TYPE_CHECKING:
    from rlaas.control.experiments.batches import Batch
    from rlaas.control.experiments.documents import ExperimentDocument

__all__ = ["ThompsonAllocation", "estimated", "next_shares", "probably_earning", "propensities"]


class ThompsonAllocation(BaseModel):
    """Thompson sampling over the primary metric, in batches; the weights of the variants are those of the first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["thompson"]
    prior: Annotated[BetaPrior | GaussianPrior, Field(discriminator="kind")] | None = Field(
        default=None, description="of the variants' means: beta for a proportion (default), gaussian otherwise"
    )
    top_two: float | None = Field(
        default=None, gt=0, le=1, description="chance of the leader in top-two sampling; default: plain Thompson"
    )
    minimum_share: float = Field(default=0.05, gt=0, lt=0.5, description="that every variant keeps")
    batch_s: float = Field(
        default=3600.0, ge=1, le=30 * 86_400, allow_inf_nan=False, description="seconds between new shares, at least"
    )

    def check(self, metric: Metric, variants: int) -> None:
        """Raise ValueError where it cannot divide the units of so many variants by a metric."""
        if self.minimum_share * variants > 1:
            raise ValueError(f"minimum_share of {variants} variants must be at most {1 / variants:g} each")
        proportion = isinstance(metric, ProportionMetric)
        if self.prior is None and not proportion:
            raise ValueError("allocation.prior of kind 'gaussian' is needed: the scale of the primary metric's values")
        if isinstance(self.prior, BetaPrior) and not proportion:
            raise ValueError("allocation.prior of kind 'beta' is for a primary metric of kind 'proportion'")


def propensities(entry: Entry, planned: Mapping[str, float]) -> list[float]:
    """Of every variant when the unit was assigned: its own was logged; the others share the rest as planned.

    Args:
        entry: the unit.
        planned: weight by variant.
    """
    total = sum(planned.values())
    shares = {name: weight / total for name, weight in planned.items()}
    if entry.propensity is None:
        return list(shares.values())
    rest = sum(share for name, share in shares.items() if name != entry.arm)
    left = 1 - entry.propensity
    return [entry.propensity if name == entry.arm else left * share / rest for name, share in shares.items()]


def next_shares(document: ExperimentDocument, entries: Sequence[Entry]) -> dict[str, float]:
    """Shares of the next batch after these units of the primary metric, by variant; sums to 1."""
    return _thompson(document, entries).shares()


def probably_earning(document: ExperimentDocument, entries: Sequence[Entry]) -> dict[str, dict[str, float]] | None:
    """By variant its mean, the posterior probability of being best, and the expected loss of choosing it.

    Like every posterior it does not bound how often one errs; None until every variant has a unit.
    """
    seen = _thompson(document, entries)
    if min(one.n for one in seen.moments) == 0:
        return None
    best, loss = seen.probability_best(), seen.expected_loss()
    means = {
        name: float(np.mean([entry.numerator for entry in entries if entry.arm == name])) for name in document.shares()
    }
    return {
        name: {"value": means[name], "probability": best[name], "expected_loss": max(loss[name], 0.0)} for name in means
    }


def estimated(
    document: ExperimentDocument, entries: Sequence[Entry], batches: Sequence[Batch]
) -> AdaptiveEstimates | str:
    """Means and differences with the logged propensities, or why there are none.

    Args:
        document: the experiment.
        entries: units of a metric, in the order of their exposures.
        batches: after the first.
    """
    names = list(document.shares())
    planned = [document.shares(), *(batch.shares for batch in batches)]
    try:
        return adaptive_estimates(
            names,
            [entry.arm for entry in entries],
            [entry.numerator for entry in entries],
            [propensities(entry, planned[entry.attributes["batch"]]) for entry in entries],
            control=document.control,
            confidence=1 - document.stopping.alpha,
        )
    except InvalidInputError as problem:  # too few units, which more of them will mend
        return problem.message


def _thompson(document: ExperimentDocument, entries: Sequence[Entry]) -> Thompson:
    """Larger rewards are better: where a low value is, a proportion counts the others, and a mean turns its sign."""
    allocation, metric = document.allocation, document.primary
    assert allocation is not None  # the document was asked before
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
