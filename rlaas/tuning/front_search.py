"""NSGA-III as a search algorithm of Ray Tune: a front of configurations, one trial at a time.

Steady state and asynchronous: a trial that starts is a child of the population as it is now, one that ends joins it,
and the least member leaves. Nothing waits for a generation to be complete, however uneven trials are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.tune.search import Searcher
from scipy.stats import qmc

from rlaas.errors import ConfigurationError, OperatorError
from rlaas.optimization import FunctionProblem, make_engine
from rlaas.optimization.checkpoint import load_state, save_state
from rlaas.tuning.encoding import BoxEncoding, Cells
from rlaas.tuning.figures import FAILURE, FINISHED
from rlaas.tuning.surrogate import GaussianProcess, levels, volume_gains

__all__ = ["FrontSearch"]

FloatArray = NDArray[np.float64]

SCHEMA_VERSION = 1
POPULATION = 20
"""Members kept, and reference directions at most. The usual 50 to 200 would outnumber the trials of most searches."""
FIRST = 12
"""Trials that are spread over the space, and known ones from which on the model chooses among children."""
SPREAD = 5.0
"""Distribution index of crossover and mutation. The usual 30 and 20 stay so close to the parents that thousands of
trials would be needed to get anywhere."""
_POOL = 64
"""Children bred for each trial."""
_ROUNDS = 8
"""Attempts to breed them anew where some were tried before."""
_MODELLED = 400
"""Trials that the model is made of, the latest ones: its cost grows with the cube of their number."""


class FrontSearch(Searcher):
    """Proposes trials by NSGA-III (Deb & Jain 2014) in its steady-state form, with pre-selection by a model.

    The first trials are a Latin hypercube (McKay, Beckman & Conover 1979): every parameter is looked at over its whole
    range. After that, of many children the one is tried that, by a Gaussian process over all trials, would add most
    hypervolume to what has been reached; of trials that still run, their expected objectives count as reached (the
    Kriging believer of Ginsbourger, Le Riche & Carraro 2010), so that they do not all look into the same place.

    No point is proposed twice; where a space is finite and every point of it has been, the search ends. A trial that
    failed, was stopped early or has a figure that is not finite is unknown: it takes no part in the selection, and its
    point is not proposed again.

    Args:
        space: parameters by dotted name.
        metrics: figures to improve, at least 2.
        modes: ``max`` or ``min`` for each.
        seed: of every random choice.

    Raises:
        ConfigurationError: fewer than 2 metrics: there is no front to follow.
    """

    def __init__(self, space: Mapping[str, Any], metrics: Sequence[str], modes: Sequence[str], *, seed: int) -> None:
        if len(metrics) < 2:
            raise ConfigurationError(
                f"search nsga3 follows a front and needs at least 2 objectives, but {len(metrics)} is given; "
                "use tpe or random",
                field="search",
            )
        super().__init__(metric=list(metrics), mode=list(modes))
        self._signs = np.array([-1.0 if mode == "max" else 1.0 for mode in modes])
        self._encoding = BoxEncoding(space)
        # What a saved search has to agree with for its rows to mean the same here.
        self._identity = {
            "space": {name: parameter.model_dump(mode="json") for name, parameter in space.items()},
            "metrics": list(metrics),
            "modes": list(modes),
        }
        n_var, n_obj = self._encoding.n_var, len(metrics)
        self._engine = make_engine(
            # Trials evaluate; to the engine every value is unknown until it is told.
            FunctionProblem(lambda X: np.full((len(X), n_obj), math.nan), np.zeros(n_var), np.ones(n_var), n_obj=n_obj),
            population=max(POPULATION, n_obj),
            seed=seed,
            initial=qmc.LatinHypercube(n_var, rng=np.random.default_rng([seed, 1])).random(FIRST),
            eta_crossover=SPREAD,
            eta_mutation=SPREAD,
        )
        self._rng = np.random.default_rng([seed, 2])
        self._tried: set[Cells] = set()
        self._running: dict[str, FloatArray] = {}
        self._known = np.empty((0, n_var))
        self._values = np.empty((0, n_obj))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's ``{"point": {name: value}}``, or ``FINISHED`` once every point has been tried."""
        row = self._next()
        if row is None:
            return str(Searcher.FINISHED)
        self._tried.add(self._encoding.cells(row))
        self._running[trial_id] = row
        return {"point": self._encoding.point(row)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take in what came of a trial; of one that was not proposed here, nothing."""
        row = self._running.pop(trial_id, None)
        if row is None:
            return
        values = self._figures(None if error else result)
        self._engine.tell(row[np.newaxis], values[np.newaxis])
        if np.isfinite(values).all():
            self._known = np.vstack([self._known, row])
            self._values = np.vstack([self._values, values])

    def save(self, checkpoint_path: str) -> None:
        """Write everything that decides how the search goes on, as arrays and JSON: nothing is pickled."""
        running = list(self._running)
        save_state(
            Path(checkpoint_path),
            {
                "schema_version": SCHEMA_VERSION,
                "identity": self._identity,
                "engine": self._engine.state(),
                "generator": self._rng.bit_generator.state,
                "tried": [list(cells) for cells in sorted(self._tried)],
                "running": running,
                "rows": np.array([self._running[trial] for trial in running]).reshape(-1, self._encoding.n_var),
                "known": self._known,
                "values": self._values,
            },
        )

    def restore(self, checkpoint_path: str) -> None:
        """Go on from a file of :meth:`save`, bit for bit, whatever seed this one was built with.

        Raises:
            ConfigurationError: the file is of a search over another space or for other metrics.
            OperatorError: the file is damaged or of another version.
        """
        state = load_state(Path(checkpoint_path))
        if state.get("schema_version") != SCHEMA_VERSION:
            raise OperatorError(f"{checkpoint_path}: schema_version is not {SCHEMA_VERSION}", field="resume")
        if state["identity"] != self._identity:
            raise ConfigurationError(
                f"{checkpoint_path}: saved by a search over another space or for other metrics", field="resume"
            )
        self._engine.restore(state["engine"])
        self._rng.bit_generator.state = state["generator"]
        self._tried = {tuple(cells) for cells in state["tried"]}
        self._running = dict(zip(state["running"], state["rows"], strict=True))
        self._known, self._values = state["known"], state["values"]

    def _figures(self, result: Mapping[str, Any] | None) -> FloatArray:
        """A trial's objectives [n_obj], smaller is better; NaN unless it ran to its end."""
        if result is None or FAILURE in result or not result.get(FINISHED):
            return np.full(len(self._signs), math.nan)
        return self._signs * [float(result.get(metric, math.nan)) for metric in self.metric]

    def _next(self) -> FloatArray | None:
        """A row [n_var] in cells that no trial has had, or None."""
        size = self._encoding.size
        if size is not None and len(self._tried) >= size:
            return None
        modelled = len(self._known) >= FIRST
        pool = self._children(_POOL if modelled else 1)
        if not pool:
            return self._elsewhere()
        return pool[self._most_promising(np.array(pool)) if modelled else 0]

    def _children(self, count: int) -> list[FloatArray]:
        """At most ``count`` rows [n_var] of different, untried cells; fewer where the population has contracted."""
        found: dict[Cells, FloatArray] = {}
        for _ in range(_ROUNDS):
            for row in self._engine.ask(count - len(found)):
                cells = self._encoding.cells(row)
                if cells not in self._tried:
                    found.setdefault(cells, row)
            if len(found) == count:
                break
        return list(found.values())

    def _most_promising(self, rows: FloatArray) -> int:
        """Which of the rows [n, n_var] the model expects most of."""
        recent = levels(self._values[-_MODELLED:])
        model = GaussianProcess(self._encoding.features(self._known[-_MODELLED:]), recent)
        reached = recent
        if self._running:
            expected = model.predict(self._encoding.features(np.array(list(self._running.values()))))
            reached = np.vstack([recent, expected])
        return int(np.argmax(volume_gains(reached, model.predict(self._encoding.features(rows)))))

    def _elsewhere(self) -> FloatArray:
        """An untried row [n_var] away from a population all of whose children have been tried."""
        size = self._encoding.size
        if size is None:
            return self._rng.uniform(size=self._encoding.n_var)
        number = int(self._rng.integers(min(size, 2**62)))
        while self._encoding.cells(row := self._encoding.row(number, self._rng)) in self._tried:
            number = (number + 1) % size
        return row
