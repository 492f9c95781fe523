"""A layer against its holdout: all that the experiments of a layer do to the units of a policy, wanted or not.

The units of the layer's holdout are served the control's version by every experiment of the layer, and are in none of
them. Against them stand all the others, whether their buckets are this experiment's, another's, or free, and whether
they are targeted or not; so both sides are drawn from everyone by the same hash. The comparison is an experiment of its
own with two variants, analysed as any other, from rows that this one mostly leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaas.control.experiments.batches import Batch
from rlaas.control.experiments.documents import ExperimentDocument, ExperimentVariant, SequentialRule
from rlaas.control.experiments.lake_rows import ExposureReader
from rlaas.experiments.records import Exposure
from rlaas.serving.loaded import HELD_OUT, OUTSIDE

__all__ = ["LayerReader", "layer_document", "layer_key", "layer_part"]

_LAYER = "layer"
_START = 500


def layer_key(id_: str) -> str:
    """Under which the analysis of the layer is kept beside that of the experiment; no experiment has such an id."""
    return f"{id_} (layer)"


def layer_document(document: ExperimentDocument) -> ExperimentDocument | None:
    """The comparison as an experiment of two variants; None where its layer has no holdout."""
    share = None if document.placement is None else document.placement.holdout
    if not share:
        return None
    control = document.variants[0]
    rule = document.stopping
    start = rule.start if isinstance(rule, SequentialRule) else _START
    planned = max(rule.size, start)
    plain: dict[str, Any] = {"segments": ()}
    variants = (
        ExperimentVariant(name=HELD_OUT, version=control.version, weight=share),
        ExperimentVariant(name=_LAYER, version=control.version, weight=1 - share),
    )
    return document.model_copy(
        update={
            "variants": variants,
            "primary": document.primary.model_copy(update=plain),
            "secondary": tuple(metric.model_copy(update=plain) for metric in document.secondary),
            "guardrails": (),
            "placement": None,
            "targeting": None,
            "holdout": 0.0,
            "allocation": None,
            "stopping": SequentialRule(
                kind="sequential", alpha=rule.alpha, planned=planned, start=start, effect=rule.effect
            ),
        }
    )


class LayerReader(ExposureReader):
    """Turns decisions into exposures to the layer or to its holdout.

    Args:
        document: from :func:`layer_document`.
        start_us: decisions before it do not count, UTC microseconds.
        batches: none: the shares of the two stand still.
    """

    def __init__(self, document: ExperimentDocument, start_us: int, batches: Sequence[Batch] = ()) -> None:
        super().__init__(document, start_us, batches)
        self._shares = document.shares()

    def read(self, row: Mapping[str, Any]) -> Exposure | None:
        """As of every reader; a row of a reserve, which answers for whoever fails, counts for nobody."""
        inside = row["experiment"] is not None
        arm = _LAYER if inside else {HELD_OUT: HELD_OUT, OUTSIDE: _LAYER}.get(row["variant"])
        if arm is None:
            return None
        said = {"experiment": self._document.id, "variant": arm, "variant_propensity": self._shares[arm]}
        return super().read({**row, **said})


def layer_part(document: ExperimentDocument, page: Mapping[str, Any]) -> dict[str, Any]:
    """What the page of the experiment shows of the layer's."""
    placement = document.placement
    shown = ("exposure", "split", "metrics", "planned", "audit")
    return {
        "layer": None if placement is None else placement.layer,
        "holdout": None if placement is None else placement.holdout,
        **{name: page[name] for name in shown},
    }
