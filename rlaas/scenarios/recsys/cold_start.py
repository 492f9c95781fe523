"""How strategies treat whom and what they do not know yet: new users and new items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, shown
from rlaas.scenarios.checks import is_whole
from rlaas.scenarios.controllers import Controller
from rlaas.scenarios.recsys.catalogue import Catalogue
from rlaas.scenarios.recsys.reference import SLATE

if TYPE_CHECKING:
    from rlaas.scenarios.recsys.scenario import Recommender

__all__ = ["FIRST_IMPRESSIONS", "FIRST_SESSIONS", "ColdStart", "cold_start_report"]

FIRST_SESSIONS = 5
"""Sessions for which a user counts as new."""

FIRST_IMPRESSIONS = 100
"""Impressions for which an item counts as new, in each stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """Clicks per impression of one strategy on new users and new items, with 95 % intervals over seeds.

    Seeds are what is independent: impressions of one user, session or stream are not, and count within their seed.

    Attributes:
        strategy: its name.
        user_ctr, user_half_width: over the first :data:`FIRST_SESSIONS` sessions of users.
        user_impressions: behind it.
        item_ctr, item_half_width: over the first :data:`FIRST_IMPRESSIONS` impressions of items that came out while
            the stream ran; NaN where none was shown.
        item_impressions: behind it: a strategy that never shows new items has few.
    """

    strategy: str
    user_ctr: float
    user_half_width: float
    user_impressions: int
    item_ctr: float
    item_half_width: float
    item_impressions: int


def cold_start_report(
    scenario: Recommender,
    controllers: Mapping[str, Controller],
    seeds: Sequence[int],
    *,
    steps: int = 300,
    replicas: int = 16,
) -> tuple[ColdStart, ...]:
    """Measure every controller on the same streams (common random numbers).

    Args:
        scenario: the recommender.
        controllers: by the name to report; for example those of :data:`~rlaas.scenarios.recsys.baselines.COLD_START`.
        seeds: at least two for the intervals, no two alike. Each is a rollout of its own: what learns starts anew.
        steps: of each stream.
        replicas: streams per seed, pooled before the ratio is taken.

    Raises:
        InvalidInputError: fewer than two seeds or one listed twice, no step or stream, or controllers that are none.
    """
    _check(scenario, controllers, seeds, steps, replicas)
    rows = []
    for name, controller in controllers.items():
        counts = np.stack([_run(scenario, controller, int(s), steps, replicas).sum(axis=1) for s in seeds], axis=1)
        user_ctr, user_half = _interval(counts[1], counts[0])
        item_ctr, item_half = _interval(counts[3], counts[2])
        rows.append(
            ColdStart(
                strategy=name,
                user_ctr=user_ctr,
                user_half_width=user_half,
                user_impressions=int(counts[0].sum()),
                item_ctr=item_ctr,
                item_half_width=item_half,
                item_impressions=int(counts[2].sum()),
            )
        )
    return tuple(rows)


def _check(scenario: Any, controllers: Any, seeds: Any, steps: Any, replicas: Any) -> None:
    if not isinstance(getattr(scenario, "catalogue", None), Catalogue):
        raise InvalidInputError(f"scenario is {shown(scenario)}; expected a Recommender", field="scenario")
    if not isinstance(controllers, Mapping):
        raise InvalidInputError(
            f"controllers is {shown(controllers)}; expected controllers by the name to report", field="controllers"
        )
    for name, controller in controllers.items():
        if not isinstance(controller, Controller):
            raise InvalidInputError(
                f"controllers[{shown(name)}] is {shown(controller)}; expected a controller, as Baseline.make() gives",
                field="controllers",
            )
    listed = isinstance(seeds, Sequence | np.ndarray) and not isinstance(seeds, str | bytes)
    listed = listed and getattr(seeds, "ndim", 1) == 1
    if not listed or not all(is_whole(seed) and seed >= 0 for seed in seeds):
        raise InvalidInputError(f"seeds must be a list of whole numbers >= 0, got {shown(seeds)}", field="seeds")
    if len(seeds) < 2:
        raise InvalidInputError(f"seeds must be at least 2 for an interval, got {len(seeds)}", field="seeds")
    if len(set(map(int, seeds))) < len(seeds):
        raise InvalidInputError(
            f"seeds must differ, got {shown(list(seeds))}: counted twice, a seed would narrow the interval",
            field="seeds",
        )
    for name, value in (("steps", steps), ("replicas", replicas)):
        if not is_whole(value) or value < 1:
            raise InvalidInputError(f"{name} must be a whole number, at least 1, got {shown(value)}", field=name)


def _run(scenario: Recommender, controller: Controller, seed: int, steps: int, replicas: int) -> NDArray[np.int64]:
    """Impressions and clicks of new users, impressions and clicks of new items [4, replicas]."""
    streams = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(replicas)]
    env = scenario.vector_env(len(streams), seed=streams)
    observation, infos = env.reset(seed=streams)
    controller.reset(env.num_envs, seed)
    n = env.num_envs
    rows = np.arange(n)
    release, life = scenario.catalogue.release_i, scenario.reference.catalogue.lifetime_days
    day = infos["day"]
    counts = np.zeros((4, n), dtype=np.int64)
    impressions = np.zeros((n, scenario.catalogue.items), dtype=np.int32)
    came_out = np.zeros((n, scenario.catalogue.items), dtype=np.bool_)
    for _ in range(steps):
        action = controller.act(observation)
        following, reward, _, _, infos = env.step(action)
        controller.learn(observation, action, reward)
        observation = following
        passed = (infos["day"] - day) % life
        for e in np.flatnonzero(passed):
            born = (infos["day"][e] - release) % life < passed[e]
            came_out[e, born] = True
            impressions[e, born] = 0
        day = infos["day"]
        shown = np.flatnonzero(infos["slate"][:, 0] >= 0)
        slate, click = infos["slate"][shown], infos["click"][shown]
        clicked = click >= 0
        young = infos["session"][shown] <= FIRST_SESSIONS
        counts[0, shown] += SLATE * young
        counts[1, shown] += clicked & young
        new = came_out[shown[:, None], slate] & (impressions[shown[:, None], slate] < FIRST_IMPRESSIONS)
        counts[2, shown] += new.sum(axis=1)
        counts[3, shown] += clicked & new[rows[: len(shown)], np.maximum(click, 0)]
        impressions[shown[:, None], slate] += 1
    return counts


def _interval(clicks: NDArray[np.int64], impressions: NDArray[np.int64]) -> tuple[float, float]:
    """Mean over seeds of clicks per impression, and the half-width of its 95 % interval."""
    seen = impressions > 0
    if not seen.any():
        return float("nan"), float("nan")
    rates = clicks[seen] / impressions[seen]
    if len(rates) < 2:
        return float(rates.mean()), float("nan")
    from scipy.special import stdtrit

    spread = rates.std(ddof=1) / np.sqrt(len(rates))
    return float(rates.mean()), float(stdtrit(len(rates) - 1, 0.975) * spread)
