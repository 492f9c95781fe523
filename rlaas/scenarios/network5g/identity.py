"""What a network is, option by option, so that a state is continued only where it came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rlaas.errors import InvalidInputError, shown
from rlaas.scenarios.network5g.engine import Network

if TYPE_CHECKING:
    from rlaas.scenarios.base import Scenario

__all__ = ["check_identity", "identity"]

LONGEST = 100
"""Characters of a value that stand in a state as they are; what is longer is known by its digest."""


def identity(scenario: Scenario, network: Network) -> dict[str, str]:
    """Every option and the reference as a short text by name; what was read from files, by what it was.

    Args:
        scenario: whose options.
        network: what they led to.
    """
    said = {name: _text(value) for name, value in scenario.options.items()}
    if scenario.options["sites"] is not None:
        # A file may have moved, or say something else by now.
        said["sites"] = f"layout {network.layout.key[:16]}"
    said["traces"] = _text(list(network.traces)) if network.traces else "None"
    return {"scenario": scenario.name, "reference": scenario.reference_hash, **said}


def check_identity(given: Any, own: Mapping[str, str]) -> None:
    """Refuse the state of a network with other options.

    Raises:
        InvalidInputError: names the option, and what it is there and here.
    """
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"state.options must be the options by name, got {shown(given)}", field="state")
    for name, mine in own.items():
        if name not in given:
            raise InvalidInputError(f"state.options lacks {name}", field="state")
        theirs = given[name]
        if not isinstance(theirs, str) or theirs != mine:
            raise InvalidInputError(
                f"state is of another network: {name} is {shown(theirs, str)} there and {shown(mine, str)} here",
                field="state",
            )


def _text(value: Any) -> str:
    text = repr(_plain(value))
    return text if len(text) <= LONGEST else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _plain(value: Any) -> Any:
    """The value such that equal options read alike: 3 and 3.0, a list and a tuple, a path and its name."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | float | np.integer | np.floating):
        number = float(value)
        return int(number) if number.is_integer() else number
    if isinstance(value, np.ndarray):
        return (value.shape, hashlib.sha256(value.astype(np.float64).tobytes()).hexdigest()[:16])
    if isinstance(value, Mapping):
        return sorted((str(key), _plain(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
