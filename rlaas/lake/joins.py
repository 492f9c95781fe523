"""Joins decisions with their outcomes: ``bronze`` to ``silver.transitions``.

The result is a function of what ``bronze`` holds and of nothing else: the order in which outcomes arrive, how late they
are, how often they are repeated and how often the join ran in between make no difference.
"""

from __future__ import annotations

from rlaas.lake.joining.matching import Joined, join_outcomes
from rlaas.lake.joining.updating import rebuild, update_transitions

__all__ = ["Joined", "join_outcomes", "rebuild", "update_transitions"]
