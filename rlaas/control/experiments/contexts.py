"""Allocations that depend on what a request brings: what is read from a decision, learnt from units, and said of them.

A batch is a frozen posterior (:class:`~rlaas.experiments.conditional.ConditionalSpec`): the Gateway divides by it, and
the analysis works out from it again what the share of every variant was at the context of a unit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.control.experiments.allocations import LinearThompsonAllocation, ObjectiveThompsonAllocation
from rlaas.control.experiments.batches import Batch
from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.experiments.allocation import LinearThompson, ObjectiveThompson
from rlaas.experiments.allocation.moments import Moments
from rlaas.experiments.conditional import ConditionalAssigner, ConditionalSpec, FeatureReader
from rlaas.experiments.records import Entry

__all__ = ["ContextReader", "contextual_shares", "frozen", "learnt_linear", "learnt_objectives", "predicted", "scaled"]

FloatArray = NDArray[np.float64]
Float32 = NDArray[np.float32]

_MOST = 5000
"""Latest contexts over which shares are averaged to be shown."""


class ContextReader:
    """Reads the context of a decision from its row of the lake, as the Gateway read it from the request.

    Args:
        document: an experiment whose allocation depends on the context.
    """

    def __init__(self, document: ExperimentDocument) -> None:
        rule = document.allocation
        self._features = FeatureReader(rule.features) if isinstance(rule, LinearThompsonAllocation) else None
        self._objectives = _names(rule) if isinstance(rule, ObjectiveThompsonAllocation) else ()

    def __call__(self, row: Mapping[str, Any]) -> Float32 | None:
        """Features, or weights of the objectives; None where the row lacks one."""
        if self._features is not None:
            return self._features(row["observation"], json.loads(row["context"]) if row["context"] else {})
        if row["preference"] is None:
            return None
        weights = dict(row["preference"])
        return np.array([weights.get(name, 0.0) for name in self._objectives], dtype=np.float32)


def frozen(document: ExperimentDocument, entries: Sequence[Entry], batch: int) -> tuple[dict[str, float], Any]:
    """The next batch: mean share of each variant over the contexts seen so far, and the spec, as JSON types.

    Args:
        document: the experiment.
        entries: units that its allocation learns from.
        batch: number of the batch.
    """
    rule = document.allocation
    if isinstance(rule, LinearThompsonAllocation):
        arms = learnt_linear(document, entries).posteriors()
    else:
        arms = learnt_objectives(document, entries).posteriors()
    spec = ConditionalSpec.model_validate(document.conditional_spec()).model_copy(update={"arms": arms, "seed": batch})
    assigner = ConditionalAssigner(spec, "", {})
    rows = np.array([assigner.shares(context_of(entry)) for entry in entries[-_MOST:]])
    return dict(zip(assigner.arms, rows.mean(axis=0).tolist(), strict=True)), spec.model_dump(mode="json")


def contextual_shares(document: ExperimentDocument, entries: Sequence[Entry], batches: Sequence[Batch]) -> FloatArray:
    """Share of every variant at the context of each unit, in its batch [n, n_variants]."""
    specs = [document.conditional_spec(), *(batch.conditional for batch in batches)]
    planned = document.shares()
    assigners: dict[int, ConditionalAssigner] = {}
    rows = np.empty((len(entries), len(planned)))
    for place, entry in enumerate(entries):
        number = entry.attributes["batch"]
        if number not in assigners:
            assigners[number] = ConditionalAssigner(ConditionalSpec.model_validate(specs[number]), "", planned)
        rows[place] = assigners[number].shares(context_of(entry))
    return rows


def context_of(entry: Entry) -> Float32:
    """What the request of a unit brought."""
    return np.array(entry.attributes["x"], dtype=np.float32)


def scaled(rule: LinearThompsonAllocation, entries: Sequence[Entry]) -> FloatArray:
    """Features of the units, centred and scaled [n, n_features]."""
    raw = np.array([entry.attributes["x"] for entry in entries], dtype=np.float64).reshape(-1, len(rule.features))
    center, scale = (np.array([getattr(one, part) for one in rule.features]) for part in ("center", "scale"))
    return np.asarray((raw - center) / scale)


def learnt_linear(document: ExperimentDocument, entries: Sequence[Entry]) -> LinearThompson:
    """The regressions after these units of the primary metric; larger rewards are better."""
    rule = document.allocation
    assert isinstance(rule, LinearThompsonAllocation)  # the caller has asked
    mean, variance = rule.scale
    start = LinearThompson(
        arms=tuple(document.shares()),
        minimum_share=rule.minimum_share,
        n_features=len(rule.features),
        precision=rule.precision,
        variance=variance,
        degrees=rule.degrees,
        draws=rule.draws,
    )
    if not entries:
        return start
    values = np.array([entry.numerator for entry in entries]) - mean
    sign = 1.0 if document.primary.better == "higher" else -1.0
    return start.updated([entry.arm for entry in entries], scaled(rule, entries), sign * values)


def predicted(document: ExperimentDocument, entries: Sequence[Entry], batches: Sequence[Batch]) -> FloatArray:
    """What the posterior of its batch expects of each unit under each variant [n, n_variants]; NaN in the first one."""
    rule = document.allocation
    assert isinstance(rule, LinearThompsonAllocation)  # the caller has asked
    sign, mean = (1.0 if document.primary.better == "higher" else -1.0), rule.scale[0]
    x = np.column_stack([np.ones(len(entries)), scaled(rule, entries)])
    found = np.full((len(entries), len(document.shares())), np.nan)
    numbers = np.array([entry.attributes["batch"] for entry in entries])
    for batch in batches:
        spec, rows = ConditionalSpec.model_validate(batch.conditional), numbers == batch.batch
        found[rows] = mean + sign * x[rows] @ np.array([arm.location for arm in spec.arms]).T
    return found


def learnt_objectives(document: ExperimentDocument, entries: Sequence[Entry]) -> ObjectiveThompson:
    """The objective vectors after these units of the :class:`~rlaas.experiments.metrics.ObjectivesMetric`."""
    rule = document.allocation
    assert isinstance(rule, ObjectiveThompsonAllocation)  # the caller has asked
    preferences = rule.preferences()
    arms = tuple(document.shares())
    start = ObjectiveThompson.of(
        arms, rule.objectives or (), preferences, dict.fromkeys(preferences, 1.0), **rule.options()
    )
    width = len(rule.objectives or ())
    vectors = {name: [entry.values for entry in entries if entry.arm == name] for name in arms}
    moments = tuple(Moments.of(np.array(vectors[name], dtype=np.float64).reshape(-1, width)) for name in arms)
    return start.model_copy(update={"moments": moments})


def _names(rule: ObjectiveThompsonAllocation) -> tuple[str, ...]:
    return tuple(one.name for one in rule.objectives or ())
