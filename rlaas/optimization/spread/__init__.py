"""Searches spread over workers: which way pays, a steady flow, islands, and the record that a run is repeated from.

``import rlaas.optimization.spread`` loads neither Ray nor the engines' compiler, for every worker's process imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.optimization.spread.planner import WAYS, Overheads, Plan, busy_share, plan
    from rlaas.optimization.spread.run import SpreadResult, spread_search
    from rlaas.optimization.spread.steady import replay
    from rlaas.optimization.spread.trial import EvaluationTimes, measure
    from rlaas.optimization.spread.workers import Usage, Workers

__all__ = [
    "WAYS",
    "EvaluationTimes",
    "Overheads",
    "Plan",
    "SpreadResult",
    "Usage",
    "Workers",
    "busy_share",
    "measure",
    "plan",
    "replay",
    "spread_search",
]

_LATER = {
    "WAYS": "planner",
    "EvaluationTimes": "trial",
    "Overheads": "planner",
    "Plan": "planner",
    "SpreadResult": "run",
    "Usage": "workers",
    "Workers": "workers",
    "busy_share": "planner",
    "measure": "trial",
    "plan": "planner",
    "replay": "steady",
    "spread_search": "run",
}
"""Names whose module is loaded when they are first asked for."""

__getattr__, __dir__ = lazy_names(__name__, _LATER)
