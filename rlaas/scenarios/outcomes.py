"""What an outcome says about one decision: objective values, and the additive parts behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.base import Scenario

__all__ = ["outcome_document", "outcome_parts"]

FloatArray = NDArray[np.float64]


def outcome_document(scenario: Scenario, numerators: FloatArray, denominators: FloatArray) -> dict[str, float]:
    """The outcome of one decision from its parts [n_parts]: values by name, as sent to a platform.

    Objectives are ratios: one that a single step leaves undefined is left out, its parts are not.
    """
    values = np.asarray(scenario.objective_values(numerators, denominators), dtype=np.float64)
    document = {o.name: float(v) for o, v in zip(scenario.objectives, values, strict=True) if np.isfinite(v)}
    parts = [value for pair in zip(numerators, denominators, strict=True) for value in pair]
    return document | {name: float(value) for name, value in zip(scenario.measures, parts, strict=True)}


def outcome_parts(scenario: Scenario, outcomes: Sequence[Mapping[str, float]]) -> tuple[FloatArray, FloatArray]:
    """Numerators and denominators [n_outcomes, n_parts] of logged outcomes.

    Raises:
        InvalidInputError: an outcome lacks a part, or it is not finite; names the row and the part.
    """
    rows = np.empty((len(outcomes), len(scenario.measures)))
    for i, outcome in enumerate(outcomes):
        for j, name in enumerate(scenario.measures):
            value = outcome.get(name)
            if value is None or not np.isfinite(value):
                raise InvalidInputError(f"row {i}: the outcome lacks a finite {name!r}", field=f"outcome.{name}")
            rows[i, j] = value
    return rows[:, 0::2], rows[:, 1::2]
