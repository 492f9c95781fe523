"""Names of variants that the platform gives itself, and that nobody else may give."""

from __future__ import annotations

from collections.abc import Sequence

from rlaas.errors import InvalidInputError
from rlaas.serving.loaded import FALLBACK, HELD_OUT, OUTSIDE, SAFE_DEFAULT

__all__ = ["HOLDOUT", "RESERVED", "check_variant_names"]

HOLDOUT = "holdout"
"""Variant that gets the control's version in an experiment and is compared with nobody."""

RESERVED = tuple(sorted((FALLBACK, HELD_OUT, HOLDOUT, OUTSIDE, SAFE_DEFAULT)))
"""A decision under one of them tells who answered; a version of the same name would be taken for it."""


def check_variant_names(names: Sequence[object]) -> None:
    """Refuse names that are reserved.

    Args:
        names: of the variants of a request, in their order.

    Raises:
        InvalidInputError: one of them is reserved; names the field and all reserved names.
    """
    for index, name in enumerate(names):
        if name in RESERVED:
            field = f"variants.{index}.name"
            raise InvalidInputError(
                f"{field}: {name!r} is a name that the platform gives itself; reserved: {', '.join(RESERVED)}",
                field=field,
            )
