"""Searching a front: one call for every algorithm, evaluator and problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from rlaas.errors import ConfigurationError, shown
from rlaas.optimization.checkpoint import load_state, save_state
from rlaas.optimization.engines import make_engine
from rlaas.optimization.generational import EXHAUSTED, run_generation
from rlaas.optimization.history import Generation, SearchResult
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.population import Engine, Population
from rlaas.optimization.problems import Evaluator, Problem, as_problem
from rlaas.optimization.termination import Stop, stops_of

__all__ = ["Search", "minimize"]

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
        Exception: the problem's own. Whatever ends a search that has begun carries the :class:`SearchResult` so far as
            ``partial``.
    """
    stops = stops_of(generations, stop, measured=reference is not None)
    if progress is not None and generations is None:
        raise ConfigurationError("progress needs generations, to say how many there will be", field="generations")
    search = Search(
        problem,
        stops=stops,
        algorithm=algorithm,
        population=population,
        directions=directions,
        seed=seed,
        evaluator=evaluator,
        initial=initial,
        reference=reference,
        keep_populations=keep_populations,
        **options,
    )
    if checkpoint is not None and resume and Path(checkpoint).exists():
        search.load(checkpoint)
    try:
        while (stopped := search.stopped) is None:
            if not search.advance():
                continue
            if checkpoint is not None and search.n_gen % checkpoint_every == 0:
                search.save(checkpoint)
            if progress is not None and generations is not None:
                progress(search.n_gen, generations)
            if callback is not None:
                callback(search)
    except Exception as failure:
        if search.n_gen:
            failure.partial = search.result(f"failed: {shown(failure, str)}")  # type: ignore[attr-defined]
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
        stops: what it may end by.
    """

    def __init__(
        self,
        problem: Any,
        *,
        stops: Sequence[Stop] = (),
        algorithm: str = "nsga3",
        population: int | None = None,
        directions: ArrayLike | None = None,
        seed: int = 0,
        evaluator: Evaluator | None = None,
        initial: Any = None,
        reference: ArrayLike | None = None,
        keep_populations: bool = False,
        **options: Any,
    ) -> None:
        self._given = problem
        self._problem: Problem = as_problem(problem)
        self.engine: Engine = make_engine(self._problem, algorithm, population, seed, initial, directions, **options)
        self._evaluate = evaluator or self._problem.evaluate
        self._ledger = Ledger(self._problem, self.engine.size, stops, reference, keep_populations=keep_populations)
        self._identity = [algorithm, self._problem.n_var, self._problem.n_obj, self._problem.n_constraints, int(seed)]
        self._exhausted = False

    @property
    def history(self) -> list[Generation]:
        """One entry per generation done."""
        return self._ledger.history

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
        return self._ledger.front

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

    @property
    def stopped(self) -> str | None:
        """Why the search is over; None while it goes on."""
        return EXHAUSTED if self._exhausted else self._ledger.stopped_by()

    def advance(self) -> bool:
        """One generation: breed, evaluate, select; false where a finite space holds no candidate that was not tried.

        Raises:
            Exception: see :func:`~rlaas.optimization.generational.run_generation`; the engine is as before.
        """
        self._exhausted = not run_generation(self._problem, self.engine, self._ledger, self._evaluate)
        return not self._exhausted

    def result(self, stopped: str) -> SearchResult:
        """What was found so far."""
        return self._ledger.result(self.engine.population, stopped)

    def save(self, path: str | Path) -> None:
        """Write the state; populations of the history are not kept."""
        save_state(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "identity": self._identity,
                "engine": self.engine.state(),
                "account": self._ledger.state(),
                "exhausted": self._exhausted,
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
        self._ledger.restore(state["account"], self.engine.population)
        self._exhausted = state["exhausted"]
