"""What the runners share: problem, generators, preferences, and RLlib's interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import Any

import numpy as np
import ray
import torch
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from rlaas.training.conditioning import Focus, anchors_of, sample_preferences
from rlaas.training.config import TrainingConfig
from rlaas.training.problems import problem_of
from rlaas.training.rollouts import Rollout, SampledRewards
from rlaas.training.timing import ENVIRONMENT, Stopwatch

__all__ = ["Runner"]


class Runner(EnvRunner, Checkpointable):
    """Steps the environments of a :class:`TrainingConfig`.

    In the trainer's process ``module`` is the learner's own RLModule, set by the algorithm: a copy would only have to
    be kept in step. In an actor it is a copy whose policy :meth:`receive` brings up to date. Where actors do the
    stepping, the runner in the trainer's process holds a single environment, which it never steps.

    Attributes:
        rows: decision makers of all environments; those of one environment adjoin.
        rows_per_env: decision makers of one environment.
        first_observation: [rows, n_features].
    """

    rows: int
    rows_per_env: int
    first_observation: Tensor

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.training = TrainingConfig(**config.env_config["training"])
        self.scenario = problem_of(self.training)
        self.stopwatch = Stopwatch(ENVIRONMENT)
        index, remote = int(self.worker_index or 0), int(config.num_env_runners)
        self.module: Any = config.build_module() if index else None
        seed: int | list[int] = self.training.seed
        environments = self.training.num_envs
        if remote:
            environments = environments // remote if index else 1
        if index:
            drawn = np.random.SeedSequence([self.training.seed, 3, index]).generate_state(environments)
            seed = [int(value) >> 1 for value in drawn]
        self._anchors = anchors_of(self.scenario)
        self._focus: Focus | None = None
        self._rng = np.random.default_rng(np.random.SeedSequence([self.training.seed, 1, *([index] if index else [])]))
        self._generator = torch.Generator(self.training.device or "cpu")
        self._generator.manual_seed(self.training.seed + 1_000_003 * index)
        parts = list(self.scenario.part_names)
        self._constraints = [(parts.index(c.part), c.sign, c.bound) for c in self.training.constraints]
        self._reward_clip = self.training.resolved_reward_clip()
        self.open(environments, seed)

    @abstractmethod
    def open(self, environments: int, seed: int | list[int]) -> None:
        """Make the environments, reset them, and give each a preference."""

    @abstractmethod
    def sample(
        self, *, num_timesteps: int = 1, random_actions: bool = False, explore: bool = True, **_: Any
    ) -> Rollout:
        """Take ``num_timesteps`` steps of every row.

        Args:
            num_timesteps: steps of the environments.
            random_actions: draw actions uniformly instead of asking the module.
            explore: draw from the module's distribution; otherwise its mode is taken.
        """

    @abstractmethod
    def pop_rewards(self) -> SampledRewards:
        """Reward sums and finished episodes' returns since the last call."""

    @abstractmethod
    def rows_state(self) -> dict[str, Any]:
        """State of the environments (``env``) and of what goes with their rows (``rows``), as copies."""

    @abstractmethod
    def continue_rows(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`rows_state`."""

    def receive(self, policy: dict[str, NDArray[Any]], focus: Focus | None) -> None:
        """Act by these parameters of the policy from now on, and draw preferences with this focus."""
        self.module.policy.load_state_dict({name: torch.from_numpy(value) for name, value in policy.items()})
        self._focus = focus

    def draw_preferences_by(self, focus: Focus | None) -> None:
        """Draw half of the preferences from ``focus`` from now on."""
        self._focus = focus

    def noise(self, steps: int, explore: bool) -> Tensor:
        """What the module's actions are drawn from [steps, rows, n_actions]; zeros give the distribution's mode."""
        noise: Tensor = self.module.noise(steps, self.rows, self._generator)
        return noise if explore else noise.zero_()

    def act(
        self, observation: Tensor, preference: Tensor, noise: Tensor | None, memory: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The module's actions in one step, see its ``explore``; without noise uniform ones."""
        if noise is None:
            return self.module.explore_at_random(observation, self._generator), {}, memory
        action, extra, memory = self.module.explore(observation, preference, noise, memory)
        return action, extra, memory

    def fresh_preferences(self, environments: int) -> NDArray[np.float32]:
        """One preference per environment, shared by its rows [environments * rows_per_env, n_objectives]."""
        drawn = sample_preferences(environments, self._anchors, self._rng, self._focus)
        return np.repeat(drawn, self.rows_per_env, axis=0).astype(np.float32)

    # RLlib's EnvRunner and Checkpointable interfaces.

    def assert_healthy(self) -> None:
        """RLlib asks whether the runner was built."""
        assert self.rows

    def get_spaces(self) -> dict[str, Any]:
        """Spaces by module id, as RLlib wants them."""
        single = (self.scenario.single_observation_space, self.scenario.single_action_space)
        return {
            INPUT_ENV_SPACES: (batch_space(single[0], self.rows), batch_space(single[1], self.rows)),
            INPUT_ENV_SINGLE_SPACES: single,
            DEFAULT_MODULE_ID: single,
        }

    def get_metrics(self) -> Any:
        """Metrics logged in this runner (its reward sums go through :meth:`pop_rewards`)."""
        return self.metrics.reduce()

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """How RLlib rebuilds the runner from a checkpoint."""
        return (), {"config": self.config}

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Environment, generators and clocks: training continues bit for bit. No module: it is the learner's."""
        return {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime,
            "rng": self._rng.bit_generator.state,
            "generator": self._generator.get_state().numpy().copy(),
            "focus": self._focus,
            **self.rows_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`. RLlib also sends partial states: counters or weights alone."""
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = int(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])
        if COMPONENT_RL_MODULE in state and self.module is not None:
            weights = state[COMPONENT_RL_MODULE]
            if isinstance(weights, ray.ObjectRef):
                weights = ray.get(weights)
            self.module.set_state(weights.get(DEFAULT_MODULE_ID, weights))
        if "env" not in state:
            return
        self._rng.bit_generator.state = state["rng"]
        self._generator.set_state(torch.from_numpy(state["generator"]))
        self._focus = state["focus"]
        self.continue_rows(state)
