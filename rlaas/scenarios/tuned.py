"""Baselines whose parameters a long search found once: the strongest rivals that do not learn.

Each scenario ships ``tuned.json``, written by ``python -m rlaas.pipeline.tuned``: by regime (a size and a load, a level
of clicks) and family the values that were best at the primary mode's preference with the guards kept, and the hash of
the frozen reference for which they were searched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from rlaas.scenarios.controllers import Baseline, Tunable

__all__ = ["FILE", "load_tuned", "tuned_baselines"]

FILE = "tuned.json"


@cache
def load_tuned(package: str) -> Mapping[str, Any]:
    """What the file of a scenario's package says, by regime; empty where there is none."""
    path = files(package).joinpath(FILE)
    return MappingProxyType(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})


def tuned_baselines(package: str, regime: str, tunables: Mapping[str, Tunable]) -> dict[str, Baseline]:
    """``tuned_<family>`` for every family that was searched for a regime and still has the same parameters.

    Args:
        package: of the scenario, which holds the file.
        regime: for example ``small/low``.
        tunables: the scenario's families by name.
    """
    found: dict[str, Baseline] = {}
    for family, values in load_tuned(package).get(regime, {}).get("families", {}).items():
        tunable = tunables.get(family)
        if tunable is None or tuple(values) != tunable.parameters:
            continue
        name = f"tuned_{family}"
        found[name] = Baseline(
            name=name,
            description=f"The best {family} configuration at the primary preference that a long search found, {regime}",
            make=partial(tunable.controller, tuple(values.values())),
        )
    return found
