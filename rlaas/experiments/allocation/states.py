"""Allocators from what they stored: state databases keep them as JSON documents between batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.experiments.allocation.contextual import LinearThompson
from rlaas.experiments.allocation.moments import load
from rlaas.experiments.allocation.objectives import ObjectiveThompson
from rlaas.experiments.allocation.thompson import Fixed, Thompson

__all__ = ["KINDS", "AnyAllocator", "allocator_from_dict"]

AnyAllocator = Fixed | Thompson | LinearThompson | ObjectiveThompson

KINDS: dict[str, type[Fixed] | type[Thompson] | type[LinearThompson] | type[ObjectiveThompson]] = {
    "fixed": Fixed,
    "thompson": Thompson,
    "linear_thompson": LinearThompson,
    "objective_thompson": ObjectiveThompson,
}
"""Allocators by the ``kind`` in their state."""


def allocator_from_dict(document: Mapping[str, Any]) -> AnyAllocator:
    """The allocator whose ``to_dict`` wrote the document, bit for bit: it divides the next batch as that one would.

    Raises:
        InvalidInputError: no state of an allocator, or one that does not fit.
    """
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"state is {shown(document)}; expected a mapping", field="state")
    kind = check_choice(document.get("kind", ""), KINDS, field="kind", error=InvalidInputError)
    allocator: AnyAllocator = load(KINDS[kind], document)
    return allocator
