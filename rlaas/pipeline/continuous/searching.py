"""The search stage: static and reactive configurations beside the policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.pipeline.candidates import search_configurations
from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.fingerprints import Room, libraries, room_of
from rlaas.pipeline.continuous.stage import PROBLEM_ROOMS, Context, Stage

__all__ = ["Found", "SearchStage", "searched"]

DOCUMENT = "searches.json"


class SearchStage(Stage):
    """Searches each configured family of controllers."""

    name = "search"

    def skip(self, context: Context) -> str | None:
        """Without searches there is nothing to do."""
        return None if context.config.searches else "the configuration has no searches"

    def inputs(self, context: Context) -> dict[str, Any]:
        """The searches; how many actors share the work makes no difference."""
        searches = {search.tunable: search for search in context.config.searches}
        return {
            "config": {
                "searches": {name: s.model_dump(mode="json", exclude={"workers"}) for name, s in searches.items()}
            },
            "libraries": libraries("numpy", "pymoo"),
        }

    def rooms(self, context: Context) -> Iterable[Room]:
        """The optimiser's, and the scenario's."""
        return (
            *PROBLEM_ROOMS,
            room_of(context.scenario),
            Room("rlaas.optimization"),
            Room("rlaas.pipeline.candidates"),
            Room(__name__),
        )

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``searches.json``: variables and objectives of what each search found."""
        context.ensure_ray()
        document: dict[str, Any] = {}
        metrics: dict[str, float] = {}
        total = sum(search.generations for search in context.config.searches)
        done = 0
        for search in context.config.searches:
            progress = context.scaled(done, done + search.generations, total)
            result = search_configurations(search, progress=progress).found
            document[search.tunable] = {"X": result.X.tolist(), "F": result.F.tolist()}
            metrics[f"{search.tunable}.found"] = float(len(result.X))
            metrics[f"{search.tunable}.evaluations"] = float(result.evaluations)
            done += search.generations
        write_json(folder / DOCUMENT, document)
        return metrics


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: variables [n, n_var] and objectives [n, n_obj], smaller is better."""

    X: NDArray[np.float64]
    F: NDArray[np.float64]


def searched(artefact: Artefact) -> dict[str, Found]:
    """What each search found, by family."""
    return {
        name: Found(np.array(found["X"], dtype=np.float64), np.array(found["F"], dtype=np.float64))
        for name, found in artefact.read(DOCUMENT).items()
    }
