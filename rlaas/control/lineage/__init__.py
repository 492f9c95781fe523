"""Lineage of an installation: which data made the policy that made a decision, and what came from the data.

* :func:`~rlaas.control.lineage.tracing.trace` walks both ways from anything;
* :class:`~rlaas.control.lineage.openlineage.Emitter` tells others about runs, as OpenLineage events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.control.lineage.openlineage import Emitter
    from rlaas.control.lineage.tracing import Trace, models_of_tables, trace

_HOME = {"Emitter": "openlineage", "Trace": "tracing", "models_of_tables": "tracing", "trace": "tracing"}

__all__ = ["Emitter", "Trace", "models_of_tables", "trace"]

# Lazy: whoever emits events needs neither the registry nor Delta.
__getattr__, __dir__ = lazy_names(__name__, _HOME)
