"""The vector environment: streams of user sessions, one slate of ten items per step."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios.base import VectorScenarioEnv, seed_list
from rlaas.scenarios.recsys.draws import RandomBlocks
from rlaas.scenarios.recsys.platform import Platform
from rlaas.scenarios.recsys.population import Population, Response
from rlaas.scenarios.recsys.reference import SLATE
from rlaas.scenarios.recsys.slates import intra_list_diversity

if TYPE_CHECKING:
    from rlaas.scenarios.recsys.scenario import Recommender

__all__ = ["PART_NAMES", "RecommenderVectorEnv"]

FloatArray = NDArray[np.float64]

PART_NAMES = ("ctr", "cvr", "diversity", "cost", "orders_per_session", "impressions_per_session", "coverage")
"""Additive parts: each is the sum of its numerators over the sum of its denominators."""


class RecommenderVectorEnv(VectorScenarioEnv):
    """Environments whose episodes are sessions; see :class:`~rlaas.scenarios.recsys.Recommender`.

    An episode terminates when the user's patience runs out and is truncated after ``episode_steps`` pages. The next
    episode of the same environment is the next session of its stream, of the same user or a new one; ``reset``
    begins a new stream. Beside the parts, ``infos`` holds the page: ``slate`` [num_envs, 10] items (-1 where none
    was shown), ``click`` [num_envs] position or -1, ``order`` [num_envs] bool, and ``user`` [num_envs], the running
    number of the user in its stream.
    """

    def __init__(self, scenario: Recommender, num_envs: int, seed: int | Sequence[int]) -> None:
        super().__init__(scenario, num_envs)
        self._reference, self._catalogue = scenario.reference, scenario.catalogue
        self._builder = scenario.slate_builder
        self._episode_steps: int = scenario.options["episode_steps"]
        self._random = RandomBlocks(self._reference.users, self._catalogue.segment_prior_sk, num_envs)
        self._random.seed(seed_list(seed, num_envs))
        self._population = Population(self._reference, self._catalogue, num_envs)
        self._platform = Platform(self._reference, self._catalogue, num_envs, self._episode_steps)
        self._ended = np.zeros(num_envs, dtype=bool)
        self._started = False
        self._levels = _RewardLevels(scenario)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new stream in every environment; without a seed the random streams go on.

        Raises:
            InvalidInputError: a sequence of seeds of another length, or a negative seed.
        """
        if seed is not None:
            self._random.seed(seed_list(seed, self.num_envs))
        self._population.begin(self._random.next())
        self._platform.begin(self._population)
        self._ended = np.zeros(self.num_envs, dtype=bool)
        self._started = True
        return self._platform.observe(self._population), {"user": self._population.user.copy()}

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], FloatArray, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Show one page in each environment, or begin the next session where the last one ended.

        Args:
            actions: whole numbers [num_envs]; ignored where a session ended in the step before.

        Raises:
            InvalidInputError: wrong shape or type, or out of range.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset before step")
        chosen = self._builder.table.check(actions, self.num_envs)
        population, platform, draws = self._population, self._platform, self._random.next()
        live, over = ~self._ended, self._ended
        first_page = live & (platform.page == 0)

        slate = self._builder.build(
            chosen, platform.beliefs(population), platform.shown, coin=draws.coin, ticket=draws.ticket
        )
        diversity = intra_list_diversity(slate, self._catalogue.similarity_ii)
        response = population.respond(slate, live, draws)
        user = population.user.copy()
        uncovered = platform.record(slate, diversity, response, live)
        numerators, denominators = self._parts(slate, chosen, response, diversity, uncovered, live, first_page)

        if over.any():
            platform.open(over, population.arrive(over, draws))
            user = population.user.copy()
        population.evolve(draws)
        platform.measure(population)
        terminated = response.left
        truncated = live & ~terminated & (platform.page >= self._episode_steps)
        self._ended = terminated | truncated
        infos = {
            "numerators": numerators,
            "denominators": denominators,
            "slate": np.where(live[:, None], slate, -1),
            "click": response.position,
            "order": response.ordered,
            "user": user,
        }
        reward = self._levels.reward(numerators, denominators, response)
        return platform.observe(population), reward, terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """Everything the next steps depend on, random generators included; arrays are copies."""
        parts = {name: _public(part) for name, part in self._stateful().items()}
        return copy.deepcopy({**parts, "ended": self._ended, "started": self._started})

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state` as if nothing had happened in between.

        Raises:
            InvalidInputError: the state is of another number of environments.
        """
        if len(state["ended"]) != self.num_envs:
            raise InvalidInputError(
                f"state has {len(state['ended'])} environments; expected {self.num_envs}", field="state"
            )
        own = copy.deepcopy(dict(state))
        for name, part in self._stateful().items():
            vars(part).update(own[name])
        self._ended, self._started = own["ended"], own["started"]

    def _stateful(self) -> dict[str, RandomBlocks | Population | Platform]:
        return {"random": self._random, "population": self._population, "platform": self._platform}

    def _parts(
        self,
        slate: NDArray[np.int64],
        actions: NDArray[np.int64],
        response: Response,
        diversity: FloatArray,
        uncovered: FloatArray,
        live: NDArray[np.bool_],
        first_page: NDArray[np.bool_],
    ) -> tuple[FloatArray, FloatArray]:
        clicks, orders = response.clicked.astype(np.float64), response.ordered.astype(np.float64)
        pages = live.astype(np.float64)
        impressions = SLATE * pages
        sessions = first_page.astype(np.float64)
        retrieval = self._builder.table.parts[actions, 0]
        # Costs are per 1,000 impressions: their sum is 1,000 times the money spent on the page.
        per_thousand = self._catalogue.cost_i[slate].sum(axis=1) + SLATE * self._builder.retrieval_cost_r[retrieval]
        numerators = [clicks, orders, diversity * pages, per_thousand * pages, orders, impressions, uncovered]
        denominators = [impressions, clicks, pages, impressions, sessions, sessions, impressions]
        return np.stack(numerators, axis=1), np.stack(denominators, axis=1)


def _public(part: object) -> dict[str, Any]:
    # The parts keep what is frozen (catalogue, constants) in private attributes and their state in public ones.
    return {name: value for name, value in vars(part).items() if not name.startswith("_")}


class _RewardLevels:
    """Rewards in normalised units: their mean over pages is the normalised objective (for cvr: near the default)."""

    def __init__(self, scenario: Recommender) -> None:
        calibrated = scenario.reference.calibrated
        self._low = np.array([o.low for o in scenario.objectives])
        self._span = np.array([o.high - o.low for o in scenario.objectives])
        self._up = np.array([o.direction == "maximize" for o in scenario.objectives])
        names = [o.name for o in scenario.objectives]
        self._ctr, self._cvr = names.index("ctr"), names.index("cvr")
        self._expected = scenario.options["reward"] == "expected"
        self._cvr0, self._clicks_per_page = calibrated.cvr0, calibrated.clicks_per_page

    def reward(self, numerators: FloatArray, denominators: FloatArray, response: Response) -> FloatArray:
        """Rewards [num_envs, n_objectives] of one step; zero where no page was shown.

        ctr, diversity and cost are ratios per page already. A conversion rate per page is mostly 0 / 0, so its reward
        is the surplus ``orders - cvr0 * clicks`` in units of the default's clicks per page, around the default's level;
        a page without a click gets that level, which is neutral.
        """
        n = len(self._low)
        up, down = numerators[:, :n].copy(), denominators[:, :n]
        clicks, orders = up[:, self._ctr], up[:, self._cvr]
        if self._expected:
            clicks, orders = response.expected_clicks, response.expected_orders
        up[:, self._ctr] = clicks
        values = up / np.maximum(down, 1.0)
        values[:, self._cvr] = self._cvr0 + (orders - self._cvr0 * clicks) / self._clicks_per_page
        share = (values - self._low) / self._span
        reward = np.where(self._up, share, 1.0 - share)
        shown = denominators[:, :1] > 0
        return np.where(shown, reward, 0.0)
