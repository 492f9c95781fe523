"""The routes of fronts without Ray, and how to ask them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from support.front_kit import NoOperations, front_of

from rlaas.control.fronts import FrontService
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.fronts import Front
from rlaas.registry import Registry
from rlaas.registry.fronts import FrontStore
from rlaas.scenarios import load
from rlaas.serving.web import ControlReply, ControlRequest
from rlaas.settings import Settings


def scenario_front(count: int = 30, *, seed: int = 0, lacking: bool = False) -> Front:
    """A front of the 5G scenario; ``lacking``: nobody serves the users well enough for the modes' rules."""
    scenario = load("network5g")
    rng = np.random.default_rng(seed)
    goodness = np.abs(rng.normal(size=(count, 4)))
    goodness /= np.linalg.norm(goodness, axis=1, keepdims=True)
    if lacking:
        goodness[:, 3] = -0.5
    return front_of(scenario.objectives, goodness, rng, [f"member-{seed}-{i}" for i in range(count)], scenario.name)


def routes_of(settings: Settings, tmp_path: Path, **more: Any) -> ControlRoutes:
    control = ControlService(settings.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"}))
    registry = Registry(settings)
    registry.names()  # as Control's is by then: waking it takes longer than an answer may
    fronts = FrontService(FrontStore(registry), settings.home, **more)
    return ControlRoutes(control, NoOperations(), fronts)


def ask(routes: ControlRoutes, method: str, path: str, body: Any = None, **headers: str) -> ControlReply:
    path, _, query = path.partition("?")
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    pairs = dict(part.split("=", 1) for part in query.split("&") if part)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return routes.dispatch(ControlRequest("default", method, path, pairs, names, content))


def told(reply: ControlReply, status: int = 200) -> dict[str, Any]:
    assert reply.status == status, reply.body
    document: dict[str, Any] = json.loads(reply.body)
    return document
