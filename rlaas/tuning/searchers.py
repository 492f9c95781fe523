"""The searchers by name: who proposes the next configuration.

Another one is an entry in :data:`SEARCHERS`: a function that builds a Ray Tune ``Searcher``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlaas.tuning.space import Choice, distributions

__all__ = ["SEARCHERS", "Question", "SearcherKind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a searcher is asked.

    Attributes:
        space: parameters by dotted name.
        metrics: figures to improve.
        modes: ``max`` or ``min`` for each.
        seed: of everything random in it.
    """

    space: Mapping[str, Any]
    metrics: tuple[str, ...]
    modes: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearcherKind:
    """A searcher that a configuration may name.

    Attributes:
        build: makes the Ray Tune ``Searcher``; its suggestions are ``{"point": {name: value}}`` with choices as labels.
        several: whether it can follow several objectives.
        front: whether it needs several.
        grid: whether it tries every combination, of choices only.
    """

    build: Callable[[Question], Any]
    several: bool
    front: bool = False
    grid: bool = False


def _tpe(question: Question) -> Any:
    from optuna.samplers import TPESampler

    # Trials run side by side: without the penalty the next one would repeat a proposal that still runs.
    return _optuna(question, TPESampler(seed=question.seed, constant_liar=True, n_startup_trials=5))


def _nsga2(question: Question) -> Any:
    from optuna.samplers import NSGAIISampler

    # Optuna's population of 50 would leave most searches in its random first generation.
    return _optuna(question, NSGAIISampler(seed=question.seed, population_size=8))


def _nsga3(question: Question) -> Any:
    from rlaas.tuning.front_search import FrontSearch

    return FrontSearch(question.space, question.metrics, question.modes, seed=question.seed)


def _random(question: Question) -> Any:
    from optuna.samplers import RandomSampler

    return _optuna(question, RandomSampler(seed=question.seed))


def _grid(question: Question) -> Any:
    from optuna.samplers import GridSampler

    choices = {
        f"point/{name}": parameter.labels()
        for name, parameter in question.space.items()
        if isinstance(parameter, Choice)
    }
    return _optuna(question, GridSampler(choices, seed=question.seed))


def _optuna(question: Question, sampler: Any) -> Any:
    import optuna

    from rlaas.tuning.optuna import PatientOptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    one = len(question.metrics) == 1
    return PatientOptunaSearch(
        space=distributions(question.space),
        metric=question.metrics[0] if one else list(question.metrics),
        mode=question.modes[0] if one else list(question.modes),
        sampler=sampler,
    )


SEARCHERS: Mapping[str, SearcherKind] = {
    "grid": SearcherKind(build=_grid, several=True, grid=True),
    "nsga2": SearcherKind(build=_nsga2, several=True),
    "nsga3": SearcherKind(build=_nsga3, several=True, front=True),
    "random": SearcherKind(build=_random, several=True),
    "tpe": SearcherKind(build=_tpe, several=True),
}
