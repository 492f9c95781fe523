"""One call that searches a front in the way that pays: here, on a pool in generations, in a steady flow, on islands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.optimization.history import Generation, SearchResult
from rlaas.optimization.ledger import Ledger, Watch
from rlaas.optimization.population import Population
from rlaas.optimization.problems import Problem, as_problem
from rlaas.optimization.spread.conduct import Conductor
from rlaas.optimization.spread.folder import RunFolder
from rlaas.optimization.spread.islands import island_count
from rlaas.optimization.spread.planner import WAYS, Overheads, Plan, plan
from rlaas.optimization.spread.recipe import Recipe
from rlaas.optimization.spread.trial import measure
from rlaas.optimization.spread.workers import Usage
from rlaas.optimization.termination import Stop, stops_of

__all__ = ["SpreadResult", "spread_search"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadResult:
    """What a spread search found, and how it went.

    Attributes:
        found: front, population and history.
        plan: how it was spread, and why.
        usage: of the workers; nothing where there were none.
        busy_share: share of the workers' time that was spent on evaluations (on epochs, of islands); NaN without
            workers.
        lost_epochs: epochs of islands that were lost twice.
    """

    found: SearchResult
    plan: Plan
    usage: Usage = field(compare=False)
    busy_share: float = field(compare=False)
    lost_epochs: int = 0


def spread_search(
    problem: Any,
    *,
    way: str = "auto",
    ways: Sequence[str] = WAYS,
    workers: int = 2,
    generations: int | None = None,
    stop: Stop | Sequence[Stop] = (),
    algorithm: str = "nsga3",
    population: int | None = None,
    directions: ArrayLike | None = None,
    seed: int = 0,
    initial: Any = None,
    reference: ArrayLike | None = None,
    rows_per_call: int | None = None,
    cpus_per_worker: float = 1.0,
    deadline_seconds: float = 300.0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    overheads: Overheads | None = None,
    **options: Any,
) -> SpreadResult:
    """Search the front of ``problem`` on as many workers as pay, all objectives minimised.

    * ``serial``: in this process.
    * ``batched``: each generation's candidates on a pool of Ray actors. The same seed gives the same result as serial.
    * ``asynchronous``: a steady flow in which no candidate waits for a generation to end. The result depends on the
      order of arrival; with a checkpoint, :func:`~rlaas.optimization.spread.replay` repeats it bit for bit.
    * ``islands``: sub-populations in the actors. The same seed and number of islands give the same result.
    * ``auto``: evaluates a few candidates here, predicts the speedup of each way and takes the best, or stays serial.

    Args:
        problem: a problem (see :func:`~rlaas.optimization.as_problem`), or a function without arguments that builds
            one, called here and in each worker's process. A problem travels by cloudpickle.
        way: one of the above.
        ways: that ``auto`` may pick, ``serial`` always.
        workers: actors at most.
        generations: generations at most, of ``population`` candidates each.
        stop: further reasons to end; the first that holds ends the search. They are looked at when a generation's
            worth of candidates has come back, of islands after each epoch, which is one entry of the history.
        algorithm, population, directions, seed, initial, options: see
            :func:`~rlaas.optimization.engines.make_engine`.
        reference: point [n_obj] that hypervolumes are measured against.
        rows_per_call: candidates sent together; default the plan's, and without one two calls for each worker in
            generations, one candidate a call in a steady flow.
        cpus_per_worker: processors that Ray sets aside for each worker.
        deadline_seconds: longest that a call may take (of islands: one generation). What misses it twice, or kills its
            worker twice, is unknown and takes no part.
        checkpoint: folder that the run is kept in. A failing run is kept there too.
        resume: go on with the run in ``checkpoint``, if there is one, in the way it was begun. Batched and island runs
            end as an unbroken one would have (islands that met at their end meet once more if they are prolonged); an
            asynchronous one goes on from its event log.
        identity: what makes the problem what it is, in JSON types. A folder begun with another one is refused: the
            shape of a problem does not tell two apart.
        progress: called with (generations done, generations) after each; needs ``generations``.
        watch: called with each entry of the history and the population it describes.
        overheads: of calls, for ``auto``.

    Raises:
        ConfigurationError: an unknown way or algorithm, a size below its minimum, or nothing that ends the search.
        ConflictError: the folder holds a run and ``resume`` was not said, or the run of another search.
        InvalidInputError: not a problem, or an evaluation of the wrong shape.
        NotReadyError: the way needs Ray, and Ray is not initialised.
        OverloadedError: the cluster has no room for the workers.
        OperatorError: the whole first generation is unknown, no worker is left, or the checkpoint is damaged.
        Exception: the problem's own. Whatever ends a search that has begun carries the :class:`SearchResult` so far as
            ``partial``.
    """
    check_choice(way, ("auto", *WAYS), field="way")
    _whole("workers", workers)
    if rows_per_call is not None:
        _whole("rows_per_call", rows_per_call)
    stops = stops_of(generations, stop, measured=reference is not None)
    if progress is not None and generations is None:
        raise ConfigurationError("progress needs generations, to say how many there will be", field="generations")
    factory, target = _built(problem)
    recipe = Recipe(
        algorithm=algorithm,
        population=population,
        seed=seed,
        initial=_array(getattr(initial, "X", initial), "initial"),
        directions=_array(directions, "directions"),
        options=options,
    )
    engine = recipe.build(target)
    ledger = Ledger(target, engine.size, stops, reference)
    folder = None if checkpoint is None else RunFolder(checkpoint, recipe, target, resume=resume, identity=identity)
    if folder is not None and folder.plan is not None:
        chosen = folder.plan
    elif way == "auto":
        chosen = _planned(target, recipe, workers, engine.size, generations, overheads, ways)
    else:
        chosen = _asked_for(way, workers, engine.size)
    if rows_per_call is not None:
        chosen = replace(chosen, rows_per_call=rows_per_call)

    def announce(entry: Generation, members: Population) -> None:
        if progress is not None and generations is not None:
            progress(min(entry.number, generations), generations)
        if watch is not None:
            watch(entry, members)

    with ExitStack() as stack:
        pool = None
        if chosen.way != "serial":
            from rlaas.optimization.pool import ActorPool

            pool = stack.enter_context(
                ActorPool(factory, chosen.workers, cpus_per_worker=cpus_per_worker, deadline_seconds=deadline_seconds)
            )
        conductor = Conductor(target, recipe, engine, chosen, ledger, folder, deadline_seconds)
        began = time.perf_counter()
        found = conductor.run(pool, announce)
        wall = time.perf_counter() - began
    usage = Usage() if pool is None else pool.usage
    return SpreadResult(
        found=found,
        plan=chosen,
        usage=usage,
        busy_share=float("nan") if pool is None else usage.busy_seconds / (pool.size * wall),
        lost_epochs=conductor.lost_epochs,
    )


def _built(problem: Any) -> tuple[Callable[[], Any], Problem]:
    """What builds the problem in a worker, and the problem here."""
    if callable(problem) and not hasattr(problem, "evaluate"):
        return problem, as_problem(problem())
    return lambda: problem, as_problem(problem)


def _planned(
    problem: Problem,
    recipe: Recipe,
    workers: int,
    size: int,
    generations: int | None,
    overheads: Overheads | None,
    ways: Sequence[str],
) -> Plan:
    from rlaas.optimization.pool import processors

    return plan(
        measure(problem, recipe),
        workers=workers,
        processors=processors(),
        population=size,
        generations=generations,
        overheads=overheads,
        ways=ways,
    )


def _asked_for(way: str, workers: int, size: int) -> Plan:
    """The plan of a caller who knows."""
    islands = island_count(size, workers) if way == "islands" else 1
    return Plan(
        way=way,
        workers={"serial": 1, "islands": islands}.get(way, workers),
        rows_per_call=None if way == "batched" else 1,
        islands=islands,
        speedups={},
        busy={},
        times=None,
        reason=f"{way}: asked for",
    )


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number >= 1, got {shown(value)}", field=name)


def _array(value: Any, name: str) -> NDArray[np.float64] | None:
    try:
        return None if value is None else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name} must be an array of numbers, got {shown(value)}", field=name) from None
