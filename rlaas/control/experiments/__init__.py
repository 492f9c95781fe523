"""Experiments end to end: declared, served, analysed from the lake, stopped.

The state database holds everything: an analysis that is killed and started again, or taken over by another Control,
goes on where the last transaction left off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.control.experiments.allocations import (
        LinearThompsonAllocation,
        ObjectiveThompsonAllocation,
        ThompsonAllocation,
    )
    from rlaas.control.experiments.analysis import Analyst
    from rlaas.control.experiments.batches import Batch, BatchBook
    from rlaas.control.experiments.documents import (
        ExperimentDocument,
        FixedHorizon,
        LayerShare,
        SequentialRule,
        parse_document,
    )
    from rlaas.control.experiments.layer_book import LayerBook
    from rlaas.control.experiments.loop import AnalysisLoop
    from rlaas.control.experiments.routes import ExperimentRoutes
    from rlaas.control.experiments.service import ExperimentService
    from rlaas.control.experiments.store import ExperimentStore

__all__ = [
    "AnalysisLoop",
    "Analyst",
    "Batch",
    "BatchBook",
    "ExperimentDocument",
    "ExperimentRoutes",
    "ExperimentService",
    "ExperimentStore",
    "FixedHorizon",
    "LayerBook",
    "LayerShare",
    "LinearThompsonAllocation",
    "ObjectiveThompsonAllocation",
    "SequentialRule",
    "ThompsonAllocation",
    "parse_document",
]

_HOMES = {
    "AnalysisLoop": "loop",
    "Analyst": "analysis",
    "ExperimentDocument": "documents",
    "ExperimentRoutes": "routes",
    "ExperimentService": "service",
    "ExperimentStore": "store",
    "FixedHorizon": "documents",
    "SequentialRule": "documents",
    "LinearThompsonAllocation": "allocations",
    "ObjectiveThompsonAllocation": "allocations",
    "ThompsonAllocation": "allocations",
    "Batch": "batches",
    "BatchBook": "batches",
    "LayerBook": "layer_book",
    "LayerShare": "documents",
    "parse_document": "documents",
}

# Lazy, so that a document can be read without the database, the lake and the registry.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
