"""Returns of whole episodes: what a plain Gymnasium environment is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios import Controller, Scenario
from rlaas.scenarios.checks import check_count, check_seeds
from rlaas.scenarios.evaluation import SideBySide

__all__ = ["EpisodeReturns", "episode_returns"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeReturns:
    """What controllers earned in whole episodes.

    Attributes:
        values: mean return of each controller on each seed [n_controllers, n_seeds, n_objectives].
        cut: episodes that had not ended after ``steps`` steps and count as they stood then.
    """

    values: NDArray[np.float64]
    cut: int


def episode_returns(
    scenario: Scenario,
    controllers: Sequence[Controller],
    seeds: Sequence[int],
    *,
    steps: int,
    episodes: int = 1,
    gamma: float = 1.0,
) -> EpisodeReturns:
    """Let every controller play whole episodes from every seed, all side by side.

    The return is the sum of the vector rewards of an episode, each discounted by ``gamma`` to the power of its step
    (the first has none), as MORL-Baselines' ``eval_mo`` has it.

    Args:
        scenario: a problem with one decision maker per environment, as every plain environment is.
        controllers: who plays.
        seeds: an environment of each controller is reset with each.
        steps: longest episode; one that goes on longer counts as it stands, and is its environment's last.
        episodes: of each controller on each seed, one after another; their returns are averaged.
        gamma: discount factor, above 0 and at most 1.

    Raises:
        InvalidInputError: no controller, no seed, a number out of range, or several decision makers per environment.
    """
    check_count("steps", steps, 1)
    check_count("episodes", episodes, 1)
    if not controllers:
        raise InvalidInputError("episodes need at least one controller", field="controllers")
    if not 0.0 < gamma <= 1.0:
        raise InvalidInputError(f"gamma must be above 0 and at most 1, got {gamma!r}", field="gamma")
    chosen = check_seeds(seeds)
    spread = [int(seed) for seed in chosen] * len(controllers)
    env = scenario.vector_env(len(spread), seed=spread)
    try:
        if env.rows_per_env != 1:
            raise InvalidInputError(
                f"{scenario.name!r} has {env.rows_per_env} decision makers per environment; whole episodes are played "
                "by one",
                field="scenario",
            )
        observation, _ = env.reset(seed=spread)
        everyone = SideBySide(controllers, [chosen[0]] * len(controllers))
        everyone.reset(env.num_envs, chosen[0])
        same_step = env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        rows = env.num_envs
        totals = np.zeros((rows, len(scenario.objectives)))
        discount, length = np.ones(rows), np.zeros(rows, dtype=np.int64)
        played, cut = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=bool)
        ended = np.zeros(rows, dtype=bool)
        while (unfinished := (played < episodes) & ~cut).any():
            observation, reward, terminated, truncated, _ = env.step(everyone.act(observation))
            over = terminated | truncated
            # With next-step autoreset the step after an end belongs to no episode.
            first = over if same_step else ended
            counts = unfinished if same_step else unfinished & ~ended
            totals[counts] += discount[counts, None] * np.asarray(reward)[counts]
            discount[counts] *= gamma
            length[counts] += 1
            cut |= counts & ~over & (length >= steps)
            played += counts & (over | cut)
            discount[over], length[over] = 1.0, 0
            if first.any():
                everyone.begin(first)
            ended = over
    finally:
        env.close()
    shape = (len(controllers), len(chosen), len(scenario.objectives))
    return EpisodeReturns(values=(totals / played[:, None]).reshape(shape), cut=int(cut.sum()))
