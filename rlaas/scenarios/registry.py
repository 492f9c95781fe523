"""Finding scenarios: the shipped ones, those of installed packages, and ``module:attribute``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from rlaas.errors import ConfigurationError, check_choice, shown
from rlaas.scenarios.base import Scenario

__all__ = ["available", "check_options", "load"]

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
    if not isinstance(name, str):
        raise ConfigurationError(
            f"scenario must be one of {', '.join(available())} or module:attribute, got {shown(name)}", field="scenario"
        )
    if ":" in name:
        factory = _by_path(name)
    else:
        check_choice(name, available(), field="scenario")
        (point, *_) = [p for p in entry_points(group=ENTRY_POINT_GROUP) if p.name == name]
        factory = point.load()
    check_options(factory, options, name)
    scenario = factory(**options)
    if not isinstance(scenario, Scenario):
        raise ConfigurationError(
            f"scenario {name!r} gave a {type(scenario).__name__}, not a Scenario", field="scenario"
        )
    return scenario


def check_options(factory: Any, options: Mapping[str, Any], name: str) -> None:
    """Refuse options that a scenario does not have, before anything is built.

    Args:
        factory: the scenario's class, or a function that makes one.
        options: keyword options.
        name: of the scenario, for the message.

    Raises:
        ConfigurationError: an unknown option, naming the choices; or ``factory`` makes no scenario.
    """
    if not callable(factory) or (isinstance(factory, type) and not issubclass(factory, Scenario)):
        what = factory.__name__ if isinstance(factory, type) else f"a {type(factory).__name__}"
        raise ConfigurationError(f"scenario {name!r} is {what}, not a Scenario", field="scenario")
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError) as problem:
        raise ConfigurationError(f"scenario {name!r} makes no Scenario: {problem}", field="scenario") from problem
    parameters = signature.parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for option in options:
            check_choice(option, parameters, field=f"option of scenario {name}")
    try:
        signature.bind(**options)
    except TypeError as problem:
        raise ConfigurationError(f"scenario {name!r} cannot be made: {problem}", field="scenario") from problem


def _by_path(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as problem:
        raise ConfigurationError(f"scenario {path!r} cannot be loaded: {problem}", field="scenario") from problem
