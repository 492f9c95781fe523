"""The recommender scenario: objectives, modes, baselines, tunables and how it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.objectives import Direction, Mode, Objective, Preference
from rlaas.scenarios.base import (
    EvaluationProtocol,
    FloatArray,
    LoggedPair,
    Scenario,
    Target,
    VectorScenarioEnv,
)
from rlaas.scenarios.recsys.actions import ActionTable
from rlaas.scenarios.recsys.baselines import Baselines, baselines_of, tunables_of
from rlaas.scenarios.recsys.catalogue import Catalogue, build_catalogue
from rlaas.scenarios.recsys.collaborative import Collaborative, fit_collaborative
from rlaas.scenarios.recsys.engine import OBSERVATION_BOUND, constants_of, observation_names, tables_of
from rlaas.scenarios.recsys.environment import PART_NAMES, RecommenderVectorEnv
from rlaas.scenarios.recsys.events import check_events, schedule_of
from rlaas.scenarios.recsys.picture import draw_session
from rlaas.scenarios.recsys.reference import SLATE, ActionConstants, Reference, load_reference
from rlaas.scenarios.reports import Report
from rlaas.scenarios.tuned import tuned_baselines

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
    "attribution_pages": (0, 20),
}

_REWARDS = ("realised", "expected")
_LEVELS = ("demonstration", "open_bandit")
_RETRIEVALS = ("full", "shortlist")
_STRATEGIES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]] | None] = {
    "all": None,
    "core": (("popularity", "content", "fresh", "economy"), ("none", "uniform")),
}
_KEPT = 4
_built: dict[tuple[str, int, int], tuple[Catalogue, Collaborative]] = {}


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
            training. With ``attribution_pages`` orders count as they are placed. Observations, parts and hence every
            evaluation are the same under both.
        attribution_pages: pages after a click within which its order may follow, in the same session; 0 puts every
            order on the page of its click. The levels were calibrated at 0.
        level: ``demonstration`` has 0.04 clicks per impression, ``open_bandit`` the 0.0038 of the Open Bandit Dataset.
        retrieval: ``full`` scores every item on every page. ``shortlist`` scores those of lists made beforehand, see
            :mod:`rlaas.scenarios.recsys.candidates`, which takes less time where a strategy explores and with large
            catalogues; it finds 98 to 100 % of the same 50 items.
        strategies: ``all``, or ``core`` for the retrieval strategies popularity, content, fresh and economy without
            exploration but the uniform one: a smaller set of actions.
        events: scheduled regimes, for example ``{"kind": "shock", "topic": 3, "at_page": 500, "size": 2.0,
            "duration": 200}``, ``{"kind": "new_items", "share": 0.3, "at_page": 500, "duration": 200}`` or
            ``{"kind": "price_rise", "factor": 1.3, "at_page": 500, "duration": 200}``; see
            :data:`~rlaas.scenarios.recsys.events.EVENT_FIELDS`. Pages count from the reset of a stream. Price rises
            that overlap multiply, to a product from 0.1 to 10.

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
        attribution_pages: int = 0,
        level: str = "demonstration",
        retrieval: str = "full",
        strategies: str = "all",
        events: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        sizes = {
            "items": items,
            "topics": topics,
            "slate": slate,
            "shortlist": shortlist,
            "episode_steps": episode_steps,
            "attribution_pages": attribution_pages,
        }
        for option, value in sizes.items():
            _check_option(option, value)
        check_choice(reward, _REWARDS, field="reward")
        check_choice(level, _LEVELS, field="level")
        check_choice(retrieval, _RETRIEVALS, field="retrieval")
        check_choice(strategies, _STRATEGIES, field="strategies")
        needed = _room(sizes)
        if items < needed:
            raise ConfigurationError(
                f"items must be at least {needed} (10 x episode_steps + shortlist: no item repeats in a session), "
                f"got {items}",
                field="items",
            )
        named = {"reward": reward, "level": level, "retrieval": retrieval, "strategies": strategies}
        self._build(load_reference(), {**sizes, **named, "events": check_events(events, topics)})

    @classmethod
    def from_reference(cls, reference: Reference, **options: Any) -> Recommender:
        """The scenario under other constants, for calibration and what-if studies; its hash tells it apart."""
        scenario = cls(**options)
        scenario._build(reference, dict(scenario.options))
        return scenario

    def __getstate__(self) -> dict[str, Any]:
        # What it was built from: tables of several megabytes need not travel to every worker.
        return {"reference": self.reference, "options": self.options}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._build(state["reference"], state["options"])

    def _build(self, reference: Reference, options: Mapping[str, Any]) -> None:
        self.reference = reference
        self.options = options
        self.reference_hash = reference.hash
        self.catalogue, collaborative = _models(reference, options["items"], options["topics"])
        chosen = replace(reference, actions=_subset(reference.actions, options["strategies"]))
        self.actions = ActionTable(chosen.actions.sizes)
        self.calibrated = reference.calibrated[options["level"]]
        ranges = self.calibrated.ranges
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
        self._parts = chosen.actions
        self.regime = f"{options['level']}/{options['strategies']}"
        self.tunables = tunables_of(self.actions, self.observation_names)
        made = baselines_of(self.actions, chosen.actions, self.observation_names, self.calibrated.best_mmr)
        self.baselines = Baselines(made | tuned_baselines(__package__, self.regime, self.tunables))
        constants = constants_of(
            reference,
            episode_steps=options["episode_steps"],
            attribution_pages=options["attribution_pages"],
            expected=options["reward"] == "expected",
            exit_utility=self.calibrated.exit_utility,
        )
        self.tables = tables_of(
            chosen,
            self.catalogue,
            collaborative,
            schedule_of(options["events"], reference, self.catalogue),
            constants=constants,
            parts=self.actions.parts,
            calibrated=self.calibrated,
            objectives=self.objectives,
            room=_room(options) if options["retrieval"] == "shortlist" else 0,
        )

    def describe_action(self, action: int) -> dict[str, str | float]:
        """The four parts of an action by name: strategy, preset, MMR strength or ``dpp``, exploration.

        Raises:
            InvalidInputError: an action out of range.
        """
        retrieval, ranking, diversity, exploration = self.actions.parts[self.actions.check([action], 1)[0]]
        return {
            "retrieval": list(self._parts.retrieval)[retrieval],
            "ranking": list(self._parts.ranking)[ranking],
            "diversity": self._parts.diversity[diversity],
            "exploration": self._parts.exploration[exploration],
        }

    def vector_env(
        self, num_envs: int, seed: int | Sequence[int] = 0, *, copy: bool = True, threads: int | None = None
    ) -> RecommenderVectorEnv:
        """``num_envs`` streams of sessions; a sequence gives each its own seed.

        Args:
            num_envs: number of streams.
            seed: one for all or one each.
            copy: False returns the same arrays from every step, overwritten by the next.
            threads: how many to use, None for as many as there are; results do not depend on it.
        """
        return RecommenderVectorEnv(self, num_envs, seed, copy=copy, threads=threads)

    def calibration(self, data_dir: Path | None = None, *, quick: bool = False) -> Report:
        """Click levels and position curves beside the Open Bandit Dataset's."""
        from rlaas.scenarios.recsys.logged.report import calibration_report

        return calibration_report(data_dir, quick=quick)

    def logs(self, data_dir: Path | None = None) -> Sequence[LoggedPair]:
        """The logs of two policies in one real shop, for estimators to be judged on."""
        from rlaas.scenarios.recsys.logged.report import logged_pairs

        return logged_pairs(data_dir)

    def picture(self, env: VectorScenarioEnv, environment: int = 0) -> NDArray[np.uint8]:
        """The session of one environment [540, 960, 3]: page, clicks, interests against their estimate, patience.

        It shows what is hidden from a policy too.

        Raises:
            InvalidInputError: an environment of another scenario, or none of that number.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if not isinstance(env, RecommenderVectorEnv):
            raise InvalidInputError(f"env must be one of {self.name}, got {type(env).__name__}", field="env")
        return draw_session(env.session_view(environment))

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
        raise ConfigurationError(f"{option} must be {allowed}, got {shown(value)}", field=option)


def _room(options: Mapping[str, Any]) -> int:
    """Items needed so that a shortlist is left when a session has shown all it may."""
    return int(SLATE * options["episode_steps"] + options["shortlist"])


def _ratio(numerators: FloatArray, denominators: FloatArray) -> NDArray[np.float64]:
    up, down = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    return np.asarray(np.divide(up, down, out=np.full(up.shape, np.nan), where=down > 0))


def _models(reference: Reference, items: int, topics: int) -> tuple[Catalogue, Collaborative]:
    """Catalogue and collaborative models, kept for the next scenario that wants the same."""
    # What they are made from, rather than the whole reference: calibration changes levels many times.
    used = (reference.catalogue, reference.users, reference.choice.match, reference.choice.quality)
    key = (repr((used, reference.actions.exploring)), items, topics)
    if key not in _built:
        catalogue = build_catalogue(reference, items, topics)
        while len(_built) >= _KEPT:
            _built.pop(next(iter(_built)), None)
        _built[key] = (catalogue, fit_collaborative(reference, catalogue))
    return _built[key]


def _subset(actions: ActionConstants, strategies: str) -> ActionConstants:
    chosen = _STRATEGIES[strategies]
    if chosen is None:
        return actions
    retrieval, exploration = chosen
    return replace(
        actions,
        retrieval={name: actions.retrieval[name] for name in retrieval},
        exploration=exploration,
    )
