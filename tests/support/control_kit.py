"""A Control without a platform around it: a home with registered policies, and its routes without HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.bundles import policy_bundle
from support.front_kit import NoOperations
from support.front_routes_kit import ask

from rlaas.control.experiments import ExperimentService
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.registry import Registry
from rlaas.settings import Settings, load_settings

__all__ = ["Routes", "control_over", "home_with"]


def home_with(root: Path, policies: Mapping[str, Sequence[Mapping[str, Any]]]) -> Settings:
    """A home in whose registry lie the versions of each policy; the first is the champion.

    Args:
        root: folder for everything.
        policies: by name what :func:`support.bundles.policy_bundle` makes each version of.
    """
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    for name, versions in policies.items():
        for number, made_of in enumerate(versions, 1):
            folder = policy_bundle(root / f"{name}-{number}", **made_of)
            registry.register(name, folder, alias="champion" if number == 1 else "candidate")
    return settings


def control_over(home: Settings, folder: Path) -> ControlService:
    """A Control that serves the champions and keeps its state in the folder; another one is what a restart gives."""
    control = ControlService(home.model_copy(update={"state_url": f"sqlite:///{folder / 'state.db'}"}))
    control.adopt_champions()
    return control


class Routes:
    """Asks the routes of a Control; gives status and document."""

    def __init__(self, control: ControlService, experiments: ExperimentService | None = None) -> None:
        self._routes = ControlRoutes(control, NoOperations(), experiments=experiments)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        reply = ask(self._routes, method, f"/api/v1/{path}", body, **headers)
        return reply.status, json.loads(reply.body)
