"""What a search works on: arrays in, arrays out, smaller is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import InvalidInputError

__all__ = [
    "Evaluator",
    "FunctionProblem",
    "Problem",
    "PymooProblem",
    "as_problem",
    "check_values",
    "known_rows",
    "n_columns",
]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Evaluator = Callable[[FloatArray], FloatArray]
"""Objective (then constraint) columns [n, n_obj + n_constraints] for candidates [n, n_var]."""

EQUALITY_TOLERANCE = 1e-4
"""How far an equality constraint of a pymoo problem may be missed; pymoo's own default."""


@runtime_checkable
class Problem(Protocol):
    """A box-bounded problem with several objectives.

    Attributes:
        n_var: variables.
        n_obj: objectives, all minimised.
        n_constraints: inequality constraints, kept where ``<= 0``.
        xl, xu: inclusive bounds [n_var].
        integer: true where a variable takes whole numbers only [n_var].
    """

    n_var: int
    n_obj: int
    n_constraints: int
    xl: FloatArray
    xu: FloatArray
    integer: BoolArray

    def evaluate(self, X: FloatArray) -> FloatArray:
        """Objectives, then constraints [n, n_obj + n_constraints] of the candidates X [n, n_var].

        A NaN says that the candidate's value is unknown; a search leaves such a candidate out.
        """
        ...


def n_columns(problem: Problem) -> int:
    """Columns that ``problem.evaluate`` returns: objectives, then constraints."""
    return problem.n_obj + problem.n_constraints


def check_values(problem: Problem, X: FloatArray, values: ArrayLike) -> FloatArray:
    """``values`` as float64 if they fit the candidates X [n, n_var].

    Raises:
        InvalidInputError: any other shape than [n, n_obj + n_constraints].
    """
    array = np.asarray(values, dtype=np.float64)
    expected = (len(X), n_columns(problem))
    if array.shape != expected:
        raise InvalidInputError(
            f"evaluate returned shape {array.shape}; expected {expected} "
            f"({problem.n_obj} objectives and {problem.n_constraints} constraints per candidate)",
            field="evaluate",
        )
    return array


def known_rows(values: FloatArray) -> BoolArray:
    """Mask [n] of the candidates whose values [n, m] are all finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        if math.isfinite(values.sum()):  # one that is not finite leaves no sum that is
            return np.ones(len(values), dtype=bool)
    return np.asarray(np.isfinite(values).all(axis=1))


class FunctionProblem:
    """A vectorised function as a problem.

    Args:
        function: candidates [n, n_var] to objectives, then constraints [n, n_obj + n_constraints].
        xl, xu: inclusive bounds [n_var], finite, ``xl <= xu``.
        n_obj: objectives, all minimised.
        n_constraints: inequality constraints, kept where ``<= 0``.
        integer: true where a variable takes whole numbers only; default none.

    Raises:
        InvalidInputError: bounds that are not finite, crossed, or of another length.
    """

    def __init__(
        self,
        function: Evaluator,
        xl: ArrayLike,
        xu: ArrayLike,
        *,
        n_obj: int,
        n_constraints: int = 0,
        integer: Sequence[bool] | BoolArray | None = None,
    ) -> None:
        self.xl, self.xu = _bounds(xl, xu)
        self.n_var = len(self.xl)
        self.n_obj = n_obj
        self.n_constraints = n_constraints
        self.integer = np.zeros(self.n_var, dtype=bool) if integer is None else np.asarray(integer, dtype=bool)
        if self.integer.shape != self.xl.shape:
            raise InvalidInputError(
                f"integer has shape {self.integer.shape}; expected one flag for each of {self.n_var} variables",
                field="integer",
            )
        self._function = function

    def evaluate(self, X: FloatArray) -> FloatArray:
        """The function at X [n, n_var]."""
        return check_values(self, X, self._function(X))


class PymooProblem:
    """A pymoo problem behind this room's protocol.

    Inequality constraints are passed on; an equality constraint H becomes ``|H| - 1e-4 <= 0``. Variables are
    integer where the problem's ``vtype`` is ``int``.

    Raises:
        InvalidInputError: a problem without bounds, or over other than numeric variables.
    """

    def __init__(self, problem: Any) -> None:
        if problem.xl is None or problem.xu is None or isinstance(problem.xl, dict):
            raise InvalidInputError(
                f"pymoo problem {type(problem).__name__} needs numeric bounds xl and xu for every variable", field="xl"
            )
        self.xl, self.xu = _bounds(problem.xl, problem.xu)
        self.n_var = int(problem.n_var)
        self.n_obj = int(problem.n_obj)
        self.n_constraints = int(problem.n_ieq_constr) + int(problem.n_eq_constr)
        self._wanted = ["F", *(["G"] if problem.n_ieq_constr else []), *(["H"] if problem.n_eq_constr else [])]
        self.integer = np.full(self.n_var, problem.vtype is int)
        self.problem = problem

    def evaluate(self, X: FloatArray) -> FloatArray:
        """The pymoo problem's F, G and, for equalities, distance beyond tolerance at X [n, n_var], side by side."""
        out = self.problem.evaluate(X, return_values_of=self._wanted, return_as_dictionary=True)
        if not self.n_constraints:
            return check_values(self, X, out["F"])
        parts = [out["F"]]
        if "G" in self._wanted:
            parts.append(out["G"])
        if "H" in self._wanted:
            parts.append(np.abs(out["H"]) - EQUALITY_TOLERANCE)
        return check_values(self, X, np.concatenate(parts, axis=1))


def as_problem(problem: Any) -> Problem:
    """``problem`` itself if it follows :class:`Problem`, a :class:`PymooProblem` around a pymoo problem.

    Raises:
        InvalidInputError: anything else, naming what it lacks.
    """
    if hasattr(problem, "n_ieq_constr"):  # only pymoo's problems have it; spares importing pymoo to ask
        problem = PymooProblem(problem)
    wanted = ("n_var", "n_obj", "n_constraints", "xl", "xu", "integer", "evaluate")
    missing = [name for name in wanted if not hasattr(problem, name)]
    if missing:
        raise InvalidInputError(
            f"a {type(problem).__name__} is not a problem: it lacks {', '.join(missing)}; allowed: a pymoo problem, "
            f"a FunctionProblem, a scenario's ConfigurationProblem, or any object with {', '.join(wanted)}",
            field="problem",
        )
    adopted: Problem = problem
    if adopted.n_obj < 2:
        raise InvalidInputError(f"a search needs at least 2 objectives, got {adopted.n_obj}", field="n_obj")
    return adopted


def _bounds(xl: ArrayLike, xu: ArrayLike) -> tuple[FloatArray, FloatArray]:
    low, high = np.asarray(xl, dtype=np.float64), np.asarray(xu, dtype=np.float64)
    if low.ndim != 1 or low.shape != high.shape or not len(low):
        raise InvalidInputError(
            f"bounds have shapes {low.shape} and {high.shape}; expected two vectors of equal length", field="xl"
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise InvalidInputError("bounds must be finite with xl <= xu in every variable", field="xl")
    return low, high
