"""Searching a front: one call for every algorithm, evaluator and problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, OperatorError, check_choice
from rlaas.optimization.directions import reference_directions
from rlaas.optimization.indicators import hypervolume
from rlaas.optimization.problems import Evaluator, Problem, as_problem, check_values

__all__ = ["ALGORITHMS", "Generation", "SearchResult", "minimize"]

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]

ALGORITHMS = ("nsga3",)
"""What ``minimize`` can search with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What one generation left behind.

    Attributes:
        number: from 1.
        evaluations: candidates evaluated so far.
        unknown: of these, how many came back without a value.
        front_size: feasible non-dominated members of the population.
        ideal: least value reached per objective [n_obj] among them; NaN while there is none.
        hypervolume: of them, against the caller's reference; None without one.
    """

    number: int
    evaluations: int
    unknown: int
    front_size: int
    ideal: tuple[float, ...]
    hypervolume: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The feasible non-dominated members of the last population; empty where nothing was feasible.

    Attributes:
        X: variables [n, n_var].
        F: objectives [n, n_obj], smaller is better.
        G: constraints [n, n_constraints], kept where ``<= 0``.
        generations: generations run; fewer than asked where a finite space was exhausted.
        evaluations: candidates evaluated, the unknown ones included.
        unknown: candidates without a value (NaN); they took no part in the search.
        seconds: wall time.
        history: one entry per generation.
    """

    X: FloatArray
    F: FloatArray
    G: FloatArray
    generations: int
    evaluations: int
    unknown: int
    seconds: float = field(compare=False)
    history: tuple[Generation, ...]


def minimize(
    problem: Any,
    *,
    algorithm: str = "nsga3",
    generations: int,
    population: int | None = None,
    seed: int = 0,
    evaluator: Evaluator | None = None,
    progress: Progress | None = None,
    initial: ArrayLike | None = None,
    reference: ArrayLike | None = None,
) -> SearchResult:
    """Search the front of ``problem``, all objectives minimised.

    NSGA-III (Deb & Jain 2014) with Das-Dennis directions, SBX (probability 1, eta 30) and polynomial mutation
    (probability 1/n_var, eta 20). The same seed gives the same result, whoever evaluates.

    Args:
        problem: a pymoo problem or anything that follows :class:`~rlaas.optimization.Problem`.
        algorithm: ``nsga3``.
        generations: generations, the first (sampled) one included.
        population: members kept; default one per reference direction.
        seed: of every random choice.
        evaluator: evaluates in place of ``problem.evaluate``, for example ``ActorPool.evaluate``.
        progress: called with (generations done, generations) after each.
        initial: candidates to start from [n, n_var]; the rest of the first generation is sampled.
        reference: point [n_obj] that each generation's hypervolume is measured against.

    Raises:
        ConfigurationError: an unknown algorithm, or a size below its minimum.
        InvalidInputError: not a problem, or initial candidates out of bounds.
        OperatorError: every candidate of the first generation is unknown.
    """
    check_choice(algorithm, ALGORITHMS, field="algorithm")
    if generations < 1:
        raise ConfigurationError(f"generations must be at least 1, got {generations}", field="generations")
    started = time.perf_counter()
    target = as_problem(problem)
    engine = _nsga3(target, population, generations, seed, initial)
    evaluate = evaluator or target.evaluate
    evaluations = unknown = 0
    history: list[Generation] = []
    front = _Members.none(target)
    for number in range(1, generations + 1):
        infills = engine.ask()
        if infills is None or not len(infills):  # a finite space holds no candidate that was not tried
            break
        X = np.asarray(infills.get("X"), dtype=np.float64)
        values = check_values(target, X, evaluate(X))
        known = np.isfinite(values).all(axis=1)
        evaluations += len(X)
        unknown += int((~known).sum())
        if not known.any() and not history:
            raise OperatorError(f"none of the {len(X)} candidates of the first generation could be evaluated")
        # Unknown candidates never reach the sorting: a made-up bad value would distort ideal and nadir points.
        engine.tell(infills=_filled(target, infills[known], values[known]))
        front = _Members.of(target, engine.pop)
        history.append(front.summary(number, evaluations, unknown, reference))
        if progress is not None:
            progress(number, generations)
    return SearchResult(
        X=front.X,
        F=front.F,
        G=front.G,
        generations=len(history),
        evaluations=evaluations,
        unknown=unknown,
        seconds=time.perf_counter() - started,
        history=tuple(history),
    )


@dataclass(frozen=True, slots=True)
class _Members:
    """Feasible, mutually non-dominated candidates."""

    X: FloatArray
    F: FloatArray
    G: FloatArray

    @classmethod
    def none(cls, problem: Problem) -> _Members:
        return cls(np.empty((0, problem.n_var)), np.empty((0, problem.n_obj)), np.empty((0, problem.n_constraints)))

    @classmethod
    def of(cls, problem: Problem, population: Any) -> _Members:
        if not len(population):
            return cls.none(problem)
        import moocore

        X, F = (np.asarray(population.get(key), dtype=np.float64) for key in ("X", "F"))
        G = np.asarray(population.get("G"), dtype=np.float64).reshape(len(X), problem.n_constraints)
        feasible = (G <= 0).all(axis=1)
        X, F, G = X[feasible], F[feasible], G[feasible]
        # Of equal rows one is kept. In C: this runs every generation.
        keep = np.asarray(moocore.is_nondominated(F, keep_weakly=False)) if len(F) else np.empty(0, dtype=bool)
        return cls(X[keep], F[keep], G[keep])

    def summary(self, number: int, evaluations: int, unknown: int, reference: ArrayLike | None) -> Generation:
        ideal = self.F.min(axis=0) if len(self.F) else np.full(self.F.shape[1], np.nan)
        return Generation(
            number=number,
            evaluations=evaluations,
            unknown=unknown,
            front_size=len(self.F),
            ideal=tuple(ideal.tolist()),
            hypervolume=None if reference is None else hypervolume(self.F, reference),
        )


def _filled(problem: Problem, infills: Any, values: FloatArray) -> Any:
    """Pymoo's individuals with their values set, as its evaluator would."""
    for individual, row in zip(infills, values, strict=True):
        individual.F = row[: problem.n_obj]
        individual.G = row[problem.n_obj :]
        individual.evaluated = {"F", "G"}
    return infills


def _nsga3(problem: Problem, population: int | None, generations: int, seed: int, initial: ArrayLike | None) -> Any:
    """Pymoo's NSGA-III, set up for ask and tell."""
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.core.problem import Problem as PymooBase
    from pymoo.core.repair import Repair

    low = np.where(problem.integer, np.ceil(problem.xl), problem.xl)
    high = np.where(problem.integer, np.floor(problem.xu), problem.xu)
    if (low > high).any():
        raise InvalidInputError("an integer variable has no whole number between its bounds", field="integer")

    class Round(Repair):
        """Keeps integer variables whole."""

        def _do(self, _problem: Any, X: Any, **_: Any) -> Any:
            values = np.asarray(X, dtype=np.float64)
            return np.clip(np.where(problem.integer, np.round(values), values), low, high)

    directions = reference_directions(problem.n_obj, population)
    size = population or len(directions)
    engine = NSGA3(
        ref_dirs=directions, pop_size=size, sampling=_first(problem, (low, high), size, seed, initial), repair=Round()
    )
    shell = PymooBase(
        n_var=problem.n_var, n_obj=problem.n_obj, n_ieq_constr=problem.n_constraints, xl=problem.xl, xu=problem.xu
    )
    engine.setup(shell, termination=("n_gen", generations), seed=seed, verbose=False)
    return engine


def _first(
    problem: Problem, bounds: tuple[FloatArray, FloatArray], size: int, seed: int, initial: ArrayLike | None
) -> FloatArray:
    """The first generation [>= size, n_var]: the caller's candidates, then uniform samples."""
    # A stream of its own: pymoo seeds its generator with ``seed`` itself.
    rng = np.random.default_rng([seed, 1])
    given = np.empty((0, problem.n_var)) if initial is None else np.asarray(initial, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != problem.n_var:
        raise InvalidInputError(
            f"initial candidates have shape {given.shape}; expected [n, {problem.n_var}]", field="initial"
        )
    if not ((given >= problem.xl) & (given <= problem.xu)).all():
        raise InvalidInputError("an initial candidate lies outside the bounds xl..xu (or is NaN)", field="initial")
    return np.concatenate([given, rng.uniform(*bounds, size=(max(0, size - len(given)), problem.n_var))])
