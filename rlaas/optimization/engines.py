"""The engines by name, built for a problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.optimization.directions import reference_directions
from rlaas.optimization.moead import MOEAD
from rlaas.optimization.nsga3 import NSGA3
from rlaas.optimization.population import Engine
from rlaas.optimization.problems import as_problem

__all__ = ["ALGORITHMS", "make_engine"]

FloatArray = NDArray[np.float64]

_BUILDERS: Mapping[str, Callable[..., Engine]] = {
    "nsga3": NSGA3,
    "unsga3": lambda *given, **options: NSGA3(*given, **options, unified=True),
    "moead-pbi": lambda *given, **options: MOEAD(*given, **options, decomposition="pbi"),
    "moead-tchebycheff": lambda *given, **options: MOEAD(*given, **options, decomposition="tchebycheff"),
}

ALGORITHMS = tuple(_BUILDERS)
"""What a search can be run with."""


def make_engine(
    problem: Any,
    algorithm: str = "nsga3",
    population: int | None = None,
    seed: int = 0,
    initial: Any = None,
    directions: ArrayLike | None = None,
    **options: Any,
) -> Engine:
    """An engine for ``problem``.

    Args:
        problem: a pymoo problem or anything that follows :class:`~rlaas.optimization.Problem`; its ``evaluate`` is not
            called.
        algorithm: one of :data:`ALGORITHMS`.
        population: candidates kept; default one per direction. MOEA/D keeps one per direction whatever this says.
        seed: of every random choice, a whole number >= 0.
        initial: candidates to start with [n, n_var], or an earlier result, whose ``X`` are taken.
        directions: reference directions [n, n_obj]; default :func:`~rlaas.optimization.reference_directions`.
        options: of the engine, such as ``eta_crossover``.

    Raises:
        ConfigurationError: an unknown algorithm or option, or a population below its minimum.
        InvalidInputError: not a problem, directions or initial candidates that do not fit it, not a seed.
    """
    check_choice(algorithm, ALGORITHMS, field="algorithm")
    target = as_problem(problem)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InvalidInputError(f"seed is {shown(seed)}; expected a whole number >= 0", field="seed")
    if population is not None and (isinstance(population, bool) or not isinstance(population, int | np.integer)):
        raise ConfigurationError(f"population is {shown(population)}; expected a whole number", field="population")
    given = None if directions is None else _checked(directions, target.n_obj)
    lines = reference_directions(target.n_obj, population) if given is None else given
    if population is not None and population < 2:
        raise ConfigurationError(f"population must be at least 2, got {population}", field="population")
    size = len(lines) if population is None or algorithm.startswith("moead") else int(population)
    try:
        return _BUILDERS[algorithm](target, lines, size, int(seed), getattr(initial, "X", initial), **options)
    except TypeError as problem_:
        raise ConfigurationError(f"{algorithm}: {problem_}", field="options") from problem_


def _checked(directions: ArrayLike, n_obj: int) -> FloatArray:
    lines = np.asarray(directions, dtype=np.float64)
    if lines.ndim != 2 or lines.shape[1] != n_obj or not len(lines):
        raise InvalidInputError(
            f"directions have shape {lines.shape}; expected [n, {n_obj}] with n >= 1", field="directions"
        )
    if not np.isfinite(lines).all() or (lines < 0).any() or not lines.any(axis=1).all():
        raise InvalidInputError("directions must be finite and >= 0, none of them all zero", field="directions")
    return lines
