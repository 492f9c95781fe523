"""The off-policy gate before live traffic: declared per policy, asked by everything that puts a version live.

The library (:mod:`rlaas.experiments.gate`) judges; here it is told beforehand by what, given the rows of the lake, and
obeyed.
"""

from __future__ import annotations

from rlaas.control.gating.declaration import GateDeclaration
from rlaas.control.gating.devices import DeviceGate
from rlaas.control.gating.override import Override
from rlaas.control.gating.service import GateService
from rlaas.control.gating.store import GateEvent, GateStore, StoredGate

__all__ = ["DeviceGate", "GateDeclaration", "GateEvent", "GateService", "GateStore", "Override", "StoredGate"]
