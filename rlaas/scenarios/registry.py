"""Finding scenarios: the shipped ones, those of installed packages, and ``module:attribute``."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import Any

from rlaas.errors import ConfigurationError, check_choice
from rlaas.scenarios.base import Scenario

__all__ = ["available", "load"]

ENTRY_POINT_GROUP = "rlaas.scenarios"


def available() -> tuple[str, ...]:
    """Names of the scenarios that installed packages offer under the entry point ``rlaas.scenarios``."""
    return tuple(sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)}))


def load(name: str, **options: Any) -> Scenario:
    """Load a scenario by entry-point name, or by ``module:attribute`` for one that is not installed.

    Args:
        name: for example ``network5g`` or ``mypackage.shop:ShopScenario``.
        options: keyword options of the scenario.

    Raises:
        ConfigurationError: unknown name or option, naming the choices.
    """
    if ":" in name:
        factory = _by_path(name)
    else:
        check_choice(name, available(), field="scenario")
        (point, *_) = [p for p in entry_points(group=ENTRY_POINT_GROUP) if p.name == name]
        factory = point.load()
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for option in options:
            check_choice(option, parameters, field=f"option of scenario {name}")
    scenario = factory(**options)
    if not isinstance(scenario, Scenario):
        raise ConfigurationError(
            f"scenario {name!r} gave a {type(scenario).__name__}, not a Scenario", field="scenario"
        )
    return scenario


def _by_path(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ConfigurationError(f"scenario {path!r} cannot be loaded: {problem}", field="scenario") from problem
