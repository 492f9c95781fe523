"""The control plane: what is live, who decides it, and the Serve application that ties the processes together.

The state database alone says what is live; the registry's aliases mirror it.
"""

from __future__ import annotations

from rlaas.lazy import lazy_names

_HOMES = {
    "ControlService": "service",
    "StateDatabase": "state",
    "build_application": "application",
    "check_home": "application",
    "check_port": "ports",
    "start_platform": "application",
    "stop_platform": "application",
}

__all__ = [
    "ControlService",
    "StateDatabase",
    "build_application",
    "check_home",
    "check_port",
    "start_platform",
    "stop_platform",
]

# Lazy, so that the database can be read without loading Ray.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
