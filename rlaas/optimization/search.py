"""Searching a front: one call for every algorithm, evaluator and problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, OperatorError, RlaasError
from rlaas.optimization.checkpoint import load_state, save_state
from rlaas.optimization.engines import make_engine
from rlaas.optimization.history import Generation, SearchResult, summarise
from rlaas.optimization.indicators import hypervolume
from rlaas.optimization.population import Engine, Population
from rlaas.optimization.problems import Evaluator, Problem, as_problem, check_values
from rlaas.optimization.termination import DistanceStall, Stop, stops_of

__all__ = ["Search", "minimize"]

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
Callback = Callable[["Search"], None]

SCHEMA_VERSION = 1


def minimize(
    problem: Any,
    *,
    algorithm: str = "nsga3",
    generations: int | None = None,
    stop: Stop | Sequence[Stop] = (),
    population: int | None = None,
    directions: ArrayLike | None = None,
    seed: int = 0,
    evaluator: Evaluator | None = None,
    progress: Progress | None = None,
    callback: Callback | None = None,
    initial: Any = None,
    reference: ArrayLike | None = None,
    keep_populations: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    **options: Any,
) -> SearchResult:
    """Search the front of ``problem``, all objectives minimised.

    NSGA-III with Das-Dennis directions, SBX (probability 1, eta 30) and polynomial mutation (probability 1/n_var, eta
    20) unless told otherwise. The same seed gives the same result, whoever evaluates.

    Args:
        problem: a pymoo problem or anything that follows :class:`~rlaas.optimization.Problem`.
        algorithm: one of :data:`~rlaas.optimization.ALGORITHMS`: ``nsga3``, ``unsga3``, ``moead-pbi``,
            ``moead-tchebycheff``.
        generations: generations at most, the first (sampled) one included.
        stop: further reasons to end (:mod:`rlaas.optimization.termination`); the first that holds ends the search.
        population: members kept; default one per reference direction.
        directions: reference directions [n, n_obj] in place of the usual ones.
        seed: of every random choice.
        evaluator: evaluates in place of ``problem.evaluate``, for example ``ActorPool.evaluate``.
        progress: called with (generations done, generations) after each; needs ``generations``.
        callback: called with the :class:`Search` after each generation; a pymoo ``Callback`` will do.
        initial: candidates to start from [n, n_var] or an earlier result; the rest of the first generation is sampled.
        reference: point [n_obj] that each generation's hypervolume is measured against.
        keep_populations: keep every generation's population and front in the history.
        checkpoint: file that the state goes to, every ``checkpoint_every`` generations, at the end, and when an
            evaluation fails.
        checkpoint_every: generations between two states.
        resume: go on from ``checkpoint`` where it exists; the result is that of an unbroken run.
        options: of the engine, such as ``eta_crossover``.

    Raises:
        ConfigurationError: an unknown algorithm, a size below its minimum, nothing that ends the search, a stop that
            needs a reference without one, or a checkpoint of another search.
        InvalidInputError: not a problem, initial candidates out of bounds, or an evaluation of the wrong shape.
        OperatorError: every candidate of the first generation is unknown, or the checkpoint cannot be read.
        RlaasError: an evaluation failed. Whenever that ends a search that has begun, the error's ``partial`` is the
            :class:`SearchResult` so far.
    """
    stops = stops_of(generations, stop, measured=reference is not None)
    if progress is not None and generations is None:
        raise ConfigurationError("progress needs generations, to say how many there will be", field="generations")
    search = Search(
        problem,
        algorithm=algorithm,
        population=population,
        directions=directions,
        seed=seed,
        evaluator=evaluator,
        initial=initial,
        reference=reference,
        keep_populations=keep_populations,
        measure_moves=any(isinstance(one, DistanceStall) for one in stops),
        **options,
    )
    if checkpoint is not None and resume and Path(checkpoint).exists():
        search.load(checkpoint)
    try:
        while (stopped := search.stopped_by(stops)) is None:
            search.advance()
            if checkpoint is not None and search.history and search.history[-1].number % checkpoint_every == 0:
                search.save(checkpoint)
            if progress is not None and generations is not None:
                progress(search.history[-1].number, generations)
            if callback is not None:
                callback(search)
    except RlaasError as failure:
        if search.history:
            failure.partial = search.result(f"failed: {failure.message}")  # type: ignore[attr-defined]
            if checkpoint is not None:
                search.save(checkpoint)
        raise
    if checkpoint is not None:
        search.save(checkpoint)
    return search.result(stopped)


class Search:
    """A search under way, generation by generation.

    Callbacks get it; it answers to what pymoo's callbacks ask an algorithm for (``n_gen``, ``pop``, ``opt``,
    ``evaluator.n_eval``, ``problem``).

    Args:
        problem, algorithm, population, directions, seed, evaluator, initial, reference, keep_populations, options: see
            :func:`minimize`.
        measure_moves: work out how far the front moves in each generation, for :class:`DistanceStall`.
    """

    def __init__(
        self,
        problem: Any,
        *,
        algorithm: str = "nsga3",
        population: int | None = None,
        directions: ArrayLike | None = None,
        seed: int = 0,
        evaluator: Evaluator | None = None,
        initial: Any = None,
        reference: ArrayLike | None = None,
        keep_populations: bool = False,
        measure_moves: bool = True,
        **options: Any,
    ) -> None:
        self._given = problem
        self._problem: Problem = as_problem(problem)
        self.engine: Engine = make_engine(self._problem, algorithm, population, seed, initial, directions, **options)
        self._evaluate = evaluator or self._problem.evaluate
        self._reference = None if reference is None else np.asarray(reference, dtype=np.float64)
        if self._reference is not None:
            hypervolume(
                np.empty((0, self._problem.n_obj)), self._reference
            )  # refuses what does not fit, before any work
            if self._reference.shape != (self._problem.n_obj,):
                raise InvalidInputError(
                    f"reference has shape {self._reference.shape}; expected ({self._problem.n_obj},)", field="reference"
                )
        self._keep = keep_populations
        self._measure_moves = measure_moves
        self._identity = [algorithm, self._problem.n_var, self._problem.n_obj, self._problem.n_constraints, int(seed)]
        self._evaluations = self._unknown = 0
        self._started = time.perf_counter()
        self._exhausted = False
        self._front = Population.empty(self._problem.n_var, self._problem.n_obj, self._problem.n_constraints)
        self.history: list[Generation] = []

    @property
    def n_gen(self) -> int:
        """Generations done."""
        return self.history[-1].number if self.history else 0

    @property
    def pop(self) -> Population:
        """The population."""
        return self.engine.population

    @property
    def opt(self) -> Population:
        """Its feasible non-dominated members."""
        return self._front

    @property
    def problem(self) -> Any:
        """The problem as it was given."""
        return self._given

    @property
    def evaluator(self) -> Any:
        """Counts evaluations (``n_eval``)."""
        return self.history[-1].evaluator

    @property
    def is_initialized(self) -> bool:
        """For pymoo's callbacks: true."""
        return True

    def advance(self) -> None:
        """One generation: breed, evaluate, select; nothing where a finite space holds no candidate that was not tried.

        Raises:
            InvalidInputError: the evaluation has the wrong shape; the engine is as before.
            OperatorError: every candidate of the first generation is unknown.
        """
        resumable = self.engine.state()
        X = self.engine.ask()
        if not len(X):
            self._exhausted = True
            return
        try:
            values = check_values(self._problem, X, self._evaluate(X))
            missing = int((~np.isfinite(values).all(axis=1)).sum())
            if missing == len(X) and not self.history:
                raise OperatorError(f"none of the {len(X)} candidates of the first generation could be evaluated")
        except BaseException:
            self.engine.restore(resumable)  # to go on is to repeat the generation, with the same candidates
            raise
        self.engine.tell(X, values)
        self._evaluations += len(X)
        self._unknown += missing
        before, self._front = self._front, self.engine.front()
        self.history.append(
            summarise(
                self._front,
                before if self._measure_moves else None,
                number=self.n_gen + 1,
                evaluations=self._evaluations,
                unknown=self._unknown,
                hypervolume=None if self._reference is None else hypervolume(self._front.F, self._reference),
                seconds=time.perf_counter() - self._started,
                pop=self.engine.population if self._keep else None,
            )
        )

    def stopped_by(self, stops: Sequence[Stop]) -> str | None:
        """Why the search ends now, or None."""
        if self._exhausted:
            return "every candidate of the finite space was tried"
        if not self.history:
            return None
        return next((why for stop in stops if (why := stop.reason(self.history)) is not None), None)

    def result(self, stopped: str) -> SearchResult:
        """What was found so far."""
        return SearchResult(
            X=self._front.X,
            F=self._front.F,
            G=self._front.G,
            generations=self.n_gen,
            evaluations=self._evaluations,
            unknown=self._unknown,
            seconds=time.perf_counter() - self._started,
            history=tuple(self.history),
            pop=self.engine.population,
            stopped=stopped,
        )

    def save(self, path: str | Path) -> None:
        """Write the state; populations of the history are not kept."""
        save_state(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "identity": self._identity,
                "engine": self.engine.state(),
                "evaluations": self._evaluations,
                "unknown": self._unknown,
                "seconds": time.perf_counter() - self._started,
                "exhausted": self._exhausted,
                "history": [entry.to_dict() for entry in self.history],
            },
        )

    def load(self, path: str | Path) -> None:
        """Go on from a state.

        Raises:
            ConfigurationError: it is that of another search.
            OperatorError: it cannot be read.
        """
        state = load_state(path)
        if state.get("schema_version") != SCHEMA_VERSION or state["identity"] != self._identity:
            raise ConfigurationError(
                f"{path} is the state of another search ({state.get('identity')}; this one: {self._identity}); name "
                "another checkpoint or take its algorithm, problem and seed",
                field="checkpoint",
            )
        self.engine.restore(state["engine"])
        self._evaluations, self._unknown = state["evaluations"], state["unknown"]
        self._exhausted = state["exhausted"]
        self._started = time.perf_counter() - state["seconds"]
        self.history = [Generation.from_dict(entry) for entry in state["history"]]
        self._front = self.engine.front()
