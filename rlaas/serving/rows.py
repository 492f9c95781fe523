"""What a decide request asks for: checked observations, sticky keys, and context that can be stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy
from rlaas.errors import InvalidInputError
from rlaas.serving.requests import DecideRequest

__all__ = ["check_one", "check_supported", "many_rows", "one_each", "sole", "stacked", "storable"]

_MAX_NESTING = 32
_MAX_CONTEXT_BYTES = 2 * 2**20
"""Of the contexts that one request adds to the log."""


def check_one(observation: Sequence[float], policy: BundlePolicy) -> None:
    """Raise where one observation has not as many numbers as the policy has features.

    Raises:
        InvalidInputError: saying how many there should be.
    """
    if len(observation) != policy.n_features:
        raise InvalidInputError(
            f"observation has {len(observation)} numbers; expected {policy.n_features}", field="observation"
        )


def stacked(observations: Sequence[Sequence[float]], width: int) -> NDArray[np.float64]:
    """Observations of ``width`` numbers each as they were sent [n, width]."""
    n = len(observations)
    return np.fromiter(chain.from_iterable(observations), np.float64, count=n * width).reshape(n, width)


def many_rows(observations: Sequence[Sequence[float]], policy: BundlePolicy, max_rows: int) -> NDArray[np.float64]:
    """Observations of one request as they were sent [n, n_features].

    Raises:
        InvalidInputError: too many, or of another length; names the row.
    """
    if len(observations) > max_rows:
        raise InvalidInputError(
            f"observations has {len(observations)} rows; at most {max_rows} are allowed", field="observations"
        )
    n = policy.n_features
    wrong = next((index for index, row in enumerate(observations) if len(row) != n), None)
    if wrong is not None:
        raise InvalidInputError(
            f"observations[{wrong}] has {len(observations[wrong])} numbers; expected {n}",
            field=f"observations[{wrong}]",
        )
    return stacked(observations, n)


def check_supported(request: DecideRequest) -> None:
    """Raise where the request has both or neither kind of observation.

    Raises:
        InvalidInputError: naming the field.
    """
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


def sole(value: str | Sequence[str] | None, field: str) -> str | None:
    """The value for a single row; raises like :func:`one_each`."""
    return value if value is None or isinstance(value, str) else one_each(value, 1, field)[0]


def storable(context: dict[str, Any] | None, rows: int) -> None:
    """Check that a context can be kept with each of ``rows`` decisions, and read wherever the lake is read.

    Raises:
        InvalidInputError: nested too deeply, or too long for so many rows.
    """
    if context is None:
        return
    size = len(msgspec.json.encode(context))
    if size * rows > _MAX_CONTEXT_BYTES:
        raise InvalidInputError(
            f"context has {size:,} bytes and is kept with each of {rows:,} rows; allowed: "
            f"{_MAX_CONTEXT_BYTES // rows:,} bytes for so many",
            field="context",
        )
    level: list[Any] = [context]
    for _ in range(_MAX_NESTING):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise InvalidInputError(f"context is nested deeper than {_MAX_NESTING} levels", field="context")
