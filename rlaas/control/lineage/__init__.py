"""Lineage of an installation: which data made the policy that made a decision, and what came from the data.

* :func:`~rlaas.control.lineage.tracing.trace` walks both ways from anything;
* :class:`~rlaas.control.lineage.openlineage.Emitter` tells others about runs, as OpenLineage events.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaas.control.lineage.openlineage import Emitter
    from rlaas.control.lineage.tracing import Trace, models_of_tables, trace

_HOME = {"Emitter": "openlineage", "Trace": "tracing", "models_of_tables": "tracing", "trace": "tracing"}

__all__ = ["Emitter", "Trace", "models_of_tables", "trace"]


def __getattr__(name: str) -> Any:
    # Lazy: whoever emits events needs neither the registry nor Delta.
    if name not in _HOME:
        raise AttributeError(f"module 'rlaas.control.lineage' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rlaas.control.lineage.{_HOME[name]}"), name)
