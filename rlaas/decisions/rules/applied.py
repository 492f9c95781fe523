"""What rules say in one context: a mode, and constraints on candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.decisions.rules.constraints import Columns, Requirement
from rlaas.decisions.rules.schema import Value
from rlaas.fronts import Front
from rlaas.objectives import Objective

__all__ = ["Applied"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The rules of a book in one context.

    Attributes:
        context: the known values.
        mode: that the rules set; None where none does, and the caller's own mode stands.
        mode_rule: name of the rule that set it.
        requirements: that a choice has to keep, in order of priority.
        fired: names of all rules whose ``when`` holds, in order of priority.
        unknown: by rule whose ``when`` is open, so that it did not fire: the fields that it reads and the context
            lacks.
        shadowed: rules that fired and set a mode, but not the one of the highest priority.
        yielded: by rule that fired and was dropped: those it cannot be kept together with, of higher priority.
        cautious: whether candidates are judged by the worse end of their confidence intervals.
    """

    context: Mapping[str, Value]
    mode: str | None
    mode_rule: str | None
    requirements: tuple[Requirement, ...]
    fired: tuple[str, ...]
    unknown: Mapping[str, tuple[str, ...]]
    shadowed: tuple[str, ...]
    yielded: Mapping[str, tuple[str, ...]]
    cautious: bool = False

    def constraints(self, front: Front) -> FloatArray:
        """G [n_candidates, n_requirements] of a front's candidates, ``<= 0`` where kept.

        See :meth:`Requirement.constraint` for the unit.

        Raises:
            InvalidInputError: the front lacks an objective that a rule names, or has it in another unit.
        """
        return self._measured(Columns.of_front(front, cautious=self.cautious))

    def constraints_at(self, objectives: Sequence[Objective], values: FloatArray) -> FloatArray:
        """G [n, n_requirements] of objective values [n, n_objectives] in their units: constraints of a search.

        Raises:
            InvalidInputError: values of another shape, or rules that name anything but these objectives.
        """
        return self._measured(Columns.of_values(objectives, values))

    def violations(self, front: Front) -> FloatArray:
        """How far each candidate breaks each requirement [n_candidates, n_requirements]; 0 where it is kept.

        Raises:
            InvalidInputError: the front lacks an objective that a rule names, or has it in another unit.
        """
        return np.maximum(self.constraints(front), 0.0)

    def describe(self) -> tuple[str, ...]:
        """The requirements as text, in the order of the columns: ``fast: require latency < 2 ms``.

        Different judgements have different texts: a cautious one says so.
        """
        judged = " (cautious)" if self.cautious else ""
        return tuple(f"{requirement.rule}: {requirement.text}{judged}" for requirement in self.requirements)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON types."""
        return {
            "context": dict(self.context),
            "mode": self.mode,
            "mode_rule": self.mode_rule,
            "requirements": [{"rule": r.rule, "text": r.text} for r in self.requirements],
            "fired": list(self.fired),
            "unknown": {name: list(fields) for name, fields in self.unknown.items()},
            "shadowed": list(self.shadowed),
            "yielded": {name: list(others) for name, others in self.yielded.items()},
            "cautious": self.cautious,
        }

    def _measured(self, columns: Columns) -> FloatArray:
        if not self.requirements:
            return np.empty((len(columns), 0))
        return np.stack([requirement.constraint(columns) for requirement in self.requirements], axis=1)
