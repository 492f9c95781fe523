"""Rollouts: how a new version takes over, by which evidence, and how it is stopped.

The state database holds everything: a controller that is killed and restarted, or replaced by another, goes on where
the last transaction left off.
"""

from rlaas.control.rollouts.controller import RolloutController
from rlaas.control.rollouts.evidence import GatewayReports
from rlaas.control.rollouts.lease import Lease
from rlaas.control.rollouts.loop import RolloutLoop
from rlaas.control.rollouts.plan import Analysis, BlueGreen, Canary, ReplicaBounds, Shadow, Strategy
from rlaas.control.rollouts.service import RolloutService
from rlaas.control.rollouts.store import RolloutStore

__all__ = [
    "Analysis",
    "BlueGreen",
    "Canary",
    "GatewayReports",
    "Lease",
    "ReplicaBounds",
    "RolloutController",
    "RolloutLoop",
    "RolloutService",
    "RolloutStore",
    "Shadow",
    "Strategy",
]
