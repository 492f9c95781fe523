"""How an engine is made: what a worker, a resumed run or a replay needs to build the same one again."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import OperatorError
from rlaas.optimization.directions import reference_directions
from rlaas.optimization.engines import make_engine
from rlaas.optimization.population import Engine
from rlaas.optimization.problems import Problem

__all__ = ["Recipe", "Shape", "packed", "unpacked"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The arguments of :func:`~rlaas.optimization.engines.make_engine`, but for the problem.

    Attributes:
        algorithm: name of the engine.
        population: candidates kept; None for one per direction.
        seed: of every random choice.
        initial: candidates to start with [n, n_var].
        directions: reference directions [n, n_obj].
        options: of the engine.
    """

    algorithm: str = "nsga3"
    population: int | None = None
    seed: int = 0
    initial: FloatArray | None = None
    directions: FloatArray | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, problem: Problem) -> Engine:
        """The engine for ``problem``.

        Raises:
            RequestError: see :func:`~rlaas.optimization.engines.make_engine`.
        """
        return make_engine(
            problem, self.algorithm, self.population, self.seed, self.initial, self.directions, **self.options
        )

    def divided(self, problem: Problem, size: int, parts: int) -> list[Recipe]:
        """Recipes of ``parts`` islands that together keep ``size`` members.

        Island i gets every ``parts``-th direction and initial candidate, from the i-th on, and a seed of its own: the
        islands' populations join to one member per direction again.
        """
        lines = reference_directions(problem.n_obj, self.population) if self.directions is None else self.directions
        seeds = np.random.SeedSequence(self.seed).generate_state(parts)
        return [
            replace(
                self,
                population=len(range(i, size, parts)),
                seed=int(seeds[i]),
                initial=None if self.initial is None else self.initial[i::parts],
                directions=lines[i::parts],
            )
            for i in range(parts)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; floats to the last bit."""
        return {
            "algorithm": self.algorithm,
            "population": None if self.population is None else int(self.population),
            "seed": int(self.seed),
            "initial": None if self.initial is None else packed(self.initial),
            "directions": None if self.directions is None else packed(self.directions),
            "options": {key: getattr(value, "tolist", lambda v=value: v)() for key, value in self.options.items()},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`to_dict`."""
        arrays = {key: None if document[key] is None else unpacked(document[key]) for key in ("initial", "directions")}
        return cls(**{**document, **arrays})


@dataclass(slots=True, kw_only=True)
class Shape:
    """What an engine has to know of a problem, without the function: enough to replay a run, not to evaluate.

    Attributes:
        n_var, n_obj, n_constraints, xl, xu, integer: see :class:`~rlaas.optimization.Problem`.
    """

    n_var: int
    n_obj: int
    n_constraints: int
    xl: FloatArray
    xu: FloatArray
    integer: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: Problem) -> Shape:
        """The shape of ``problem``."""
        return cls(
            n_var=problem.n_var,
            n_obj=problem.n_obj,
            n_constraints=problem.n_constraints,
            xl=np.asarray(problem.xl, dtype=np.float64),
            xu=np.asarray(problem.xu, dtype=np.float64),
            integer=np.asarray(problem.integer, dtype=bool),
        )

    def evaluate(self, X: FloatArray) -> FloatArray:
        """Refused.

        Raises:
            OperatorError: always.
        """
        raise OperatorError("this is the shape of a problem and has no function to evaluate")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; floats to the last bit."""
        return {
            "n_var": self.n_var,
            "n_obj": self.n_obj,
            "n_constraints": self.n_constraints,
            "xl": packed(self.xl),
            "xu": packed(self.xu),
            "integer": self.integer.tolist(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Shape:
        """The inverse of :meth:`to_dict`."""
        bounds = {key: unpacked(document[key]) for key in ("xl", "xu")}
        return cls(**{**document, **bounds, "integer": np.asarray(document["integer"], dtype=bool)})


def packed(array: FloatArray) -> dict[str, Any]:
    """An array as JSON types, to the last bit: its shape, and base64 of its little-endian float64."""
    content = np.ascontiguousarray(array, dtype="<f8")
    return {"shape": list(content.shape), "f8": base64.b64encode(content.tobytes()).decode("ascii")}


def unpacked(document: Mapping[str, Any]) -> FloatArray:
    """The inverse of :func:`packed`."""
    content = np.frombuffer(base64.b64decode(document["f8"], validate=True), dtype="<f8")
    return content.astype(np.float64).reshape(document["shape"])
