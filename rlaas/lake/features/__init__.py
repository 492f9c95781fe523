"""Features: named quantities of entities, made from the lake, for training and for decisions alike.

A :class:`FeatureDefinition` says how a value follows from events. The :class:`FeatureStore` keeps its immutable
versions and the online values; :func:`materialize` keeps those in step with the sources, and :func:`training_set` joins
the same values to rows as they could have been served at the time of each. Both compute with one state machine.

Names are loaded on first use: a Gateway that only reads values compiles nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.lake.features.definitions import FeatureDefinition, FeatureFile, load_features
    from rlaas.lake.features.materialization import Materialized, materialize
    from rlaas.lake.features.online import FeatureValue, OnlineFeatures
    from rlaas.lake.features.states import FeatureState, transform
    from rlaas.lake.features.store import FeatureStore, FeatureVersion, StoredValue
    from rlaas.lake.features.summaries import FeatureSummary, summarize, summarize_values
    from rlaas.lake.features.training_sets import TrainingSetReport, training_set, write_training_set

__all__ = [
    "FeatureDefinition",
    "FeatureFile",
    "FeatureState",
    "FeatureStore",
    "FeatureSummary",
    "FeatureValue",
    "FeatureVersion",
    "Materialized",
    "OnlineFeatures",
    "StoredValue",
    "TrainingSetReport",
    "load_features",
    "materialize",
    "summarize",
    "summarize_values",
    "training_set",
    "transform",
    "write_training_set",
]

_HOME = {
    "FeatureDefinition": "definitions",
    "FeatureFile": "definitions",
    "FeatureState": "states",
    "FeatureStore": "store",
    "FeatureSummary": "summaries",
    "FeatureValue": "online",
    "FeatureVersion": "store",
    "Materialized": "materialization",
    "OnlineFeatures": "online",
    "StoredValue": "store",
    "TrainingSetReport": "training_sets",
    "load_features": "definitions",
    "materialize": "materialization",
    "summarize": "summaries",
    "summarize_values": "summaries",
    "training_set": "training_sets",
    "transform": "states",
    "write_training_set": "training_sets",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
