"""The choosing methods, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rlaas.decisions.methods.base import DecisionMatrix, Method
from rlaas.decisions.methods.knee import Knee
from rlaas.decisions.methods.lexicographic import Lexicographic
from rlaas.decisions.methods.nash import Nash
from rlaas.decisions.methods.topsis import NORMALISATIONS, Normalisation, Topsis, topsis
from rlaas.decisions.methods.vikor import Vikor
from rlaas.decisions.methods.weighted_sum import WeightedSum
from rlaas.errors import InvalidInputError, check_choice

__all__ = [
    "METHODS",
    "NORMALISATIONS",
    "DecisionMatrix",
    "Knee",
    "Lexicographic",
    "Method",
    "Nash",
    "Normalisation",
    "Topsis",
    "Vikor",
    "WeightedSum",
    "method_named",
    "topsis",
]

METHODS: Mapping[str, Callable[[], Method]] = {
    "topsis": Topsis,
    "weighted_sum": WeightedSum,
    "vikor": Vikor,
    "knee": Knee,
    "lexicographic": Lexicographic,
    "nash": Nash,
}
"""Maker of every method with its default settings, by name."""


def method_named(name: str, *, normalisation: str = "range", disagreement: Mapping[str, float] | None = None) -> Method:
    """The method of this name.

    Args:
        name: one of :data:`METHODS`.
        normalisation: of TOPSIS; no other method reads it.
        disagreement: of the Nash bargaining solution; no other method reads it.

    Raises:
        InvalidInputError: an unknown name or normalisation, or a disagreement value that is not a finite number.
    """
    check_choice(name, METHODS, field="method", error=InvalidInputError)
    check_choice(normalisation, NORMALISATIONS, field="normalisation", error=InvalidInputError)
    if name == Topsis.name:
        return Topsis(normalisation=normalisation)
    if name == Nash.name:
        return Nash(disagreement=disagreement)
    return METHODS[name]()
