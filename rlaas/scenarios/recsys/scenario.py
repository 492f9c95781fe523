"""The recommender scenario: objectives, modes, baselines, tunables and how it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice
from rlaas.objectives import Direction, Mode, Objective, Preference
from rlaas.scenarios.base import (
    Baseline,
    ConstantController,
    Controller,
    EvaluationProtocol,
    FloatArray,
    Scenario,
    Target,
    Tunable,
)
from rlaas.scenarios.recsys.catalogue import build_catalogue
from rlaas.scenarios.recsys.controllers import LinUCBController, RandomController, ReactiveController, ReactiveRule
from rlaas.scenarios.recsys.environment import PART_NAMES, RecommenderVectorEnv
from rlaas.scenarios.recsys.platform import OBSERVATION_BOUND, observation_names
from rlaas.scenarios.recsys.reference import SLATE, Reference, load_reference
from rlaas.scenarios.recsys.slates import ActionTable, SlateBuilder

__all__ = ["Recommender"]

_OBJECTIVES: tuple[tuple[str, str, Direction, str], ...] = (
    ("ctr", "", "maximize", "clicks per impression"),
    ("cvr", "", "maximize", "orders per click, on the same page"),
    ("diversity", "", "maximize", "mean pairwise 1 - cosine of the item vectors of a slate"),
    ("cost", "EUR per 1,000 impressions", "minimize", "retrieval, serving and promotion"),
)

_MODES: Mapping[str, tuple[str, tuple[float, float, float, float]]] = {
    "revenue": ("orders first", (0.1, 0.6, 0.1, 0.2)),
    "user_experience": ("relevant and varied pages first", (0.5, 0.2, 0.2, 0.1)),
    "balanced": ("equal weights: the preference that has to meet the targets", (0.25, 0.25, 0.25, 0.25)),
}

_LIMITS: Mapping[str, tuple[int, int]] = {
    "items": (100, 4000),
    "topics": (2, 64),
    "slate": (SLATE, SLATE),
    "shortlist": (SLATE, 500),
    "episode_steps": (1, 200),
}

_REWARDS = ("realised", "expected")


class Recommender(Scenario):
    """Which slate of ten items to show to whom, page by page, over sessions of users with drifting interests.

    One environment is a stream of sessions; an episode is one session, which terminates when the user's patience runs
    out and is truncated after ``episode_steps`` pages. The action picks retrieval strategy, ranking preset, diversity
    factor and exploration rate; the user answers by a conditional logit with position bias and an exit.

    Args:
        items: size of the catalogue.
        topics: number of topics.
        slate: items on a page; the protocol fixes it at 10.
        shortlist: items retrieved for ranking.
        episode_steps: most pages of a session.
        reward: ``realised`` counts the clicks and orders that happened. ``expected`` takes their expectations given
            the slate: the same mean with a fraction of the variance, which only a simulator can offer, so it is for
            training. Observations, parts and hence every evaluation are the same under both.

    Raises:
        ConfigurationError: an option that is no whole number, out of range or unknown, or a catalogue too small for a
            session without repetition; names the option.

    The levels (click rate, normalisation ranges) were calibrated for the default options; see ``reference.json``.
    """

    name: ClassVar[str] = "recsys"
    algorithm: ClassVar[str] = "ppo"
    experiment_design: ClassVar[str] = "user"
    # Sessions last some six pages and every seventh step opens a session: 20,000 sessions a seed in the full protocol.
    protocols: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "short": EvaluationProtocol(name="short", seeds=8, warmup=20, steps=100, replicas=16),
        "full": EvaluationProtocol(name="full", seeds=30, warmup=100, steps=1250, replicas=128),
    }
    # Clicks are rare and orders rarer: with realised rewards most of what a short run sees is noise.
    training_defaults: ClassVar[Mapping[str, Any]] = {
        "options": {"reward": "expected"},
        "steps": 600_000,
        "num_envs": 128,
        "learning_rate": 0.0015,
        "gamma": 0.95,
        "ppo": {"rollout_length": 32, "minibatch": 512, "epochs": 4, "entropy": 0.003},
    }

    def __init__(
        self,
        items: int = 1000,
        topics: int = 12,
        slate: int = SLATE,
        shortlist: int = 50,
        episode_steps: int = 20,
        reward: str = "realised",
    ) -> None:
        sizes = {
            "items": items,
            "topics": topics,
            "slate": slate,
            "shortlist": shortlist,
            "episode_steps": episode_steps,
        }
        for option, value in sizes.items():
            _check_option(option, value)
        check_choice(reward, _REWARDS, field="reward")
        needed = SLATE * episode_steps + shortlist
        if items < needed:
            raise ConfigurationError(
                f"items must be at least {needed} (10 x episode_steps + shortlist: no item repeats in a session), "
                f"got {items}",
                field="items",
            )
        self._build(load_reference(), {**sizes, "reward": reward})

    @classmethod
    def from_reference(cls, reference: Reference, **options: Any) -> Recommender:
        """The scenario under other constants, for calibration and what-if studies; its hash tells it apart."""
        scenario = cls(**options)
        scenario._build(reference, dict(scenario.options))
        return scenario

    def _build(self, reference: Reference, options: Mapping[str, Any]) -> None:
        self.reference = reference
        self.options = options
        self.reference_hash = reference.hash
        self.catalogue = build_catalogue(reference, options["items"], options["topics"])
        self.actions = ActionTable(reference.actions.sizes)
        self.slate_builder = SlateBuilder(reference, self.catalogue, self.actions, options["shortlist"])
        ranges = reference.calibrated.ranges
        self.objectives = tuple(
            Objective(
                name=name,
                unit=unit,
                direction=direction,
                low=ranges[name][0],
                high=ranges[name][1],
                description=description,
            )
            for name, unit, direction, description in _OBJECTIVES
        )
        self.modes = {
            name: Mode(name=name, preference=Preference.of(self.objectives, weights), description=description)
            for name, (description, weights) in _MODES.items()
        }
        self.primary_mode = "balanced"
        self.targets = {
            name: Target(objective=name, relative=change)
            for name, change in (("ctr", 0.15), ("cvr", 0.10), ("diversity", 0.25), ("cost", -0.20))
        }
        self.part_names = PART_NAMES
        self.observation_names = observation_names(options["topics"])
        bound = np.full(len(self.observation_names), OBSERVATION_BOUND, dtype=np.float32)
        self.single_observation_space = spaces.Box(-bound, bound, dtype=np.float32)
        self.single_action_space = spaces.Discrete(self.actions.n)
        self.guard_shares = {"orders_per_session": 1.0, "impressions_per_session": 1.0, "coverage": 1.0}
        self.default_baseline = "popularity"
        self.baselines = self._baselines()
        self.tunables = self._tunables()

    def _baselines(self) -> dict[str, Baseline]:
        features = {name: column for column, name in enumerate(self.observation_names)}
        retrieval, ranking = self._part_names()
        popularity = self.actions.index(retrieval.index("popularity"), ranking.index("popularity"), 0, 0)
        mmr = self.actions.index(retrieval.index("content"), ranking.index("click"), 2, 0)
        made = (
            Baseline(
                name="random",
                description="a uniformly random action on every page",
                make=partial(RandomController, self.actions.n),
            ),
            Baseline(
                name="popularity",
                description="the most popular items not yet shown, the same for everyone",
                make=partial(ConstantController, popularity),
            ),
            Baseline(
                name="mmr",
                description="content retrieval, ranked by predicted click, diversified by MMR at a fixed lambda",
                make=partial(ConstantController, mmr),
            ),
            Baseline(
                name="linucb",
                description="contextual LinUCB over the same actions, learning online at equal weights",
                make=partial(LinUCBController, self.actions, features),
            ),
        )
        return {baseline.name: baseline for baseline in made}

    def _tunables(self) -> dict[str, Tunable]:
        features = {name: column for column, name in enumerate(self.observation_names)}
        retrieval, ranking, diversity, exploration = (float(size - 1) for size in self.actions.sizes)
        made = (
            Tunable(
                name="static",
                parameters=("retrieval", "ranking", "diversity", "exploration"),
                low=(0.0,) * 4,
                high=(retrieval, ranking, diversity, exploration),
                integer=(True,) * 4,
                make=partial(_static, self.actions),
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
                make=partial(_reactive, self.actions, features),
            ),
        )
        return {tunable.name: tunable for tunable in made}

    def _part_names(self) -> tuple[list[str], list[str]]:
        return list(self.reference.actions.retrieval), list(self.reference.actions.ranking)

    def describe_action(self, action: int) -> dict[str, str | float]:
        """The four parts of an action by name: strategy, preset, diversity factor, exploration rate.

        Raises:
            InvalidInputError: an action out of range.
        """
        retrieval, ranking, diversity, exploration = self.actions.parts[self.actions.check([action], 1)[0]]
        strategies, presets = self._part_names()
        return {
            "retrieval": strategies[retrieval],
            "ranking": presets[ranking],
            "diversity": self.reference.actions.diversity[diversity],
            "exploration": self.reference.actions.exploration[exploration],
        }

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> RecommenderVectorEnv:
        """``num_envs`` streams of sessions; a sequence gives each its own seed."""
        return RecommenderVectorEnv(self, num_envs, seed)

    def objective_values(self, numerators: FloatArray, denominators: FloatArray) -> NDArray[np.float64]:
        """ctr, cvr, diversity, cost [..., 4] from summed parts [..., 7]; NaN where a denominator is 0."""
        n = len(self.objectives)
        return _ratio(numerators[..., :n], denominators[..., :n])

    def guards(self, numerators: FloatArray, denominators: FloatArray) -> Mapping[str, NDArray[np.float64]]:
        """Orders per session, impressions per session and catalogue coverage, each [...].

        Coverage is the share of impressions that go to items not shown before in a window of 50 pages of the stream.
        """
        values = _ratio(numerators, denominators)
        return {name: values[..., self.part_names.index(name)] for name in self.guard_shares}


def _check_option(option: str, value: int) -> None:
    low, high = _LIMITS[option]
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        allowed = f"{low}" if low == high else f"a whole number from {low} to {high}"
        raise ConfigurationError(f"{option} must be {allowed}, got {value!r}", field=option)


def _ratio(numerators: FloatArray, denominators: FloatArray) -> NDArray[np.float64]:
    up, down = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    return np.asarray(np.divide(up, down, out=np.full(up.shape, np.nan), where=down > 0))


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
