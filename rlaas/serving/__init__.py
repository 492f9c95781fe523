"""Serving: decisions, outcomes and V2 inference over HTTP, from bundles that Control names.

The engine is free of any web framework, so that the routes of the Gateway today and a faster lane tomorrow give the
same answers. Nothing here imports mlflow, torch or RLlib.
"""

from __future__ import annotations

from rlaas.lazy import lazy_names

_HOMES = {
    "DecisionEngine": "engine",
    "DecisionIds": "decision_ids",
    "DeploymentRecord": "live",
    "ExperimentSpec": "live",
    "LiveState": "loaded",
    "Placement": "live",
    "Principal": "principal",
    "ServingConfig": "config",
    "Variant": "live",
    "load_serving_config": "config",
    "load_state": "loading",
}

__all__ = [
    "DecisionEngine",
    "DecisionIds",
    "DeploymentRecord",
    "ExperimentSpec",
    "LiveState",
    "Placement",
    "Principal",
    "ServingConfig",
    "Variant",
    "load_serving_config",
    "load_state",
]

# Lazy, so that reading a configuration loads neither onnxruntime nor the lake.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
