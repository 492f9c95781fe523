"""What a decide request asks for: checked observations, sticky keys, and context that can be stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlaas.bundles import BundlePolicy, Float32
from rlaas.errors import InvalidInputError
from rlaas.serving.requests import DecideRequest

__all__ = ["check_supported", "many_rows", "one_each", "one_row", "storable"]

_MAX_NESTING = 32
_PLAIN = 1e76
"""Square of 1e38: where the squares of a row sum to less, every number of it is finite as float32."""


def one_row(observation: Sequence[float], policy: BundlePolicy) -> Float32:
    """One observation as float32 [1, n_features].

    Raises:
        InvalidInputError: of another length, or a number beyond float32; names the feature.
    """
    if len(observation) != policy.n_features:
        raise InvalidInputError(
            f"observation has {len(observation)} numbers; expected {policy.n_features}", field="observation"
        )
    row = np.array(observation)
    if row.dot(row) < _PLAIN:
        return row.astype(np.float32).reshape(1, -1)
    return policy.check_observations(row[None], field="observation")


def many_rows(observations: Sequence[Sequence[float]], policy: BundlePolicy, max_rows: int) -> Float32:
    """Observations as float32 [n, n_features].

    Raises:
        InvalidInputError: too many, of another length, or a number beyond float32; names the row.
    """
    if len(observations) > max_rows:
        raise InvalidInputError(
            f"observations has {len(observations)} rows; at most {max_rows} are allowed", field="observations"
        )
    for index, row in enumerate(observations):
        if len(row) != policy.n_features:
            raise InvalidInputError(
                f"observations[{index}] has {len(row)} numbers; expected {policy.n_features}",
                field=f"observations[{index}]",
            )
    return policy.check_observations(np.array(observations, dtype=np.float64), field="observations")


def check_supported(request: DecideRequest) -> None:
    """Raise where the request asks for what this installation cannot do, or for both or neither kind of observation.

    Raises:
        InvalidInputError: naming the field.
    """
    for field in ("constraints", "entities"):
        if getattr(request, field) is not None:
            raise InvalidInputError(f"{field} is not supported by this installation; leave it out", field=field)
    if (request.observation is None) == (request.observations is None):
        raise InvalidInputError("send exactly one of observation and observations", field="observation")


def one_each(value: str | Sequence[str] | None, count: int, field: str) -> Sequence[str | None]:
    """A value for each of ``count`` rows, where one for all or one for each was sent.

    Raises:
        InvalidInputError: another number of them.
    """
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise InvalidInputError(
            f"{field} has {len(value)} entries; expected one, or one per row ({count})", field=field
        )
    return value


def storable(context: dict[str, Any] | None) -> dict[str, Any] | None:
    """The context, if it is nested moderately: what is accepted here has to be readable wherever the lake is read.

    Raises:
        InvalidInputError: nested too deeply.
    """
    if context is None:
        return None
    level: list[Any] = [context]
    for _ in range(_MAX_NESTING):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return context
    raise InvalidInputError(f"context is nested deeper than {_MAX_NESTING} levels", field="context")
