"""Named rules to compare a policy with, and the families of controllers that a search may tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import UnknownNameError
from rlaas.scenarios.choices import Choices
from rlaas.scenarios.controllers import Baseline, ConstantController, Controller, Tunable
from rlaas.scenarios.recsys.actions import ActionTable
from rlaas.scenarios.recsys.controllers import LinUCBController, RandomController, ReactiveController, ReactiveRule
from rlaas.scenarios.recsys.reference import ActionConstants

__all__ = ["COLD_START", "baselines_of", "tunables_of"]

_FIXED: Mapping[str, tuple[str, str, str, str]] = {
    "popularity": ("popularity", "retrieval", "none", "the most popular items not yet shown, the same for everyone"),
    "demographic": ("demographic", "retrieval", "none", "content by the segment's taste alone, whatever a user did"),
    "content": ("content", "click", "none", "items like those the user clicked, by their features"),
    "fresh": ("fresh", "retrieval", "none", "new items first, of those that match the user"),
    "economy": (
        "economy",
        "retrieval",
        "none",
        "items that cost little to serve first, of those that match",
    ),
    "value": ("content", "value", "none", "content, ranked by the orders and the margin that are expected"),
    "uniform": ("content", "click", "uniform", "content, with some positions filled at random"),
    "item_knn": ("item_knn", "retrieval", "none", "items that users who clicked the same ones clicked"),
    "als": ("collaborative", "retrieval", "none", "implicit matrix factorisation, extended to new items by content"),
    "user_linucb": ("content", "click", "linucb", "content, by the upper confidence bound of taste and quality"),
    "thompson": ("content", "click", "thompson", "content, by tastes sampled from the user's posterior"),
    "bernoulli": ("content", "click", "bernoulli", "content, by item qualities sampled from their posteriors"),
    "top_two": ("content", "click", "top_two", "content, top-two Thompson sampling of taste and quality"),
    "active": ("content", "click", "active", "content, asking at some positions where the posterior is widest"),
}
"""Retrieval, ranking and exploration of rules that do not diversify."""

COLD_START = tuple(name for name in _FIXED if name not in ("economy", "value"))
"""Baselines that are strategies for new users or new items, each alone; ``strategies="core"`` has four of them."""


class Baselines(Choices[Baseline]):
    """Baselines by name; one that is missing for want of an option says which."""

    def __init__(self, values: Mapping[str, Baseline]) -> None:
        super().__init__("baseline", values)

    def __missing__(self, name: Any) -> NoReturn:
        if isinstance(name, str) and name in _FIXED:
            raise UnknownNameError(f"baseline {name!r} needs the option strategies='all'", field="strategies")
        super().__missing__(name)


def baselines_of(
    table: ActionTable, actions: ActionConstants, observation_names: Sequence[str], best_mmr: int
) -> dict[str, Baseline]:
    """The baselines that the actions allow, by name.

    Args:
        table: numbers of the actions.
        actions: their names.
        observation_names: of the observation's features.
        best_mmr: level of diversity of the baseline ``mmr``.
    """
    retrieval, ranking = list(actions.retrieval), list(actions.ranking)
    diversity, exploration = list(actions.diversity), list(actions.exploration)

    def fixed(name: str, description: str, parts: tuple[str, str, int, str]) -> Baseline:
        action = table.index(retrieval.index(parts[0]), ranking.index(parts[1]), parts[2], exploration.index(parts[3]))
        return Baseline(name=name, description=description, make=partial(ConstantController, action))

    made = [
        Baseline(
            name="random",
            description="a uniformly random action on every page",
            make=partial(RandomController, table.n),
        ),
        *(
            fixed(name, description, (strategy, preset, 0, exploring))
            for name, (strategy, preset, exploring, description) in _FIXED.items()
            if strategy in retrieval and exploring in exploration
        ),
        fixed(
            "mmr",
            "content retrieval, ranked by predicted click, diversified by MMR at the best fixed lambda",
            ("content", "click", best_mmr, "none"),
        ),
        fixed(
            "dpp",
            "content retrieval, ranked by predicted click, a determinantal point process picks the slate",
            ("content", "click", diversity.index("dpp"), "none"),
        ),
        Baseline(
            name="linucb",
            description="contextual LinUCB over the same actions, learning online at equal weights",
            make=partial(LinUCBController, table, {name: i for i, name in enumerate(observation_names)}),
        ),
    ]
    return {baseline.name: baseline for baseline in made}


def tunables_of(table: ActionTable, observation_names: Sequence[str]) -> dict[str, Tunable]:
    """The families ``static`` and ``reactive``."""
    features = {name: column for column, name in enumerate(observation_names)}
    retrieval, ranking, diversity, exploration = (float(size - 1) for size in table.sizes)
    made = (
        Tunable(
            name="static",
            parameters=("retrieval", "ranking", "diversity", "exploration"),
            low=(0.0,) * 4,
            high=(retrieval, ranking, diversity, exploration),
            integer=(True,) * 4,
            make=partial(_static, table),
        ),
        Tunable(
            name="reactive",
            parameters=(
                "confidence",
                "idle_pages",
                "unknown_retrieval",
                "known_retrieval",
                "ranking",
                "interested_diversity",
                "bored_diversity",
                "exploration",
            ),
            low=(0.0,) * 8,
            high=(1.0, 10.0, retrieval, retrieval, ranking, diversity, diversity, exploration),
            integer=(False, False, True, True, True, True, True, True),
            make=partial(_reactive, table, features),
            # Everybody counts as unknown, and hardly anybody as bored.
            as_static={
                "confidence": 1.0,
                "idle_pages": 10.0,
                "unknown_retrieval": "retrieval",
                "known_retrieval": "retrieval",
                "ranking": "ranking",
                "interested_diversity": "diversity",
                "bored_diversity": "diversity",
                "exploration": "exploration",
            },
        ),
    )
    return {tunable.name: tunable for tunable in made}


def _static(table: ActionTable, values: NDArray[np.float64]) -> Controller:
    return ConstantController(table.index(*(int(value) for value in values)))


def _reactive(table: ActionTable, features: Mapping[str, int], values: NDArray[np.float64]) -> Controller:
    confidence, idle_pages, *levels = values
    unknown, known, ranking, interested, bored, exploration = (int(level) for level in levels)
    rule = ReactiveRule(
        confidence=float(confidence),
        idle_pages=float(idle_pages),
        unknown_retrieval=unknown,
        known_retrieval=known,
        ranking=ranking,
        interested_diversity=interested,
        bored_diversity=bored,
        exploration=exploration,
    )
    return ReactiveController(rule, table, features)
