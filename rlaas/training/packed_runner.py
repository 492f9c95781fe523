"""The packed environment runner: [steps, rows] tensors instead of a Python object per episode.

RLlib's stock runner builds an episode object per environment and its learner takes them apart again, timestep by
timestep; that is where its time goes. This one steps the vector environment and writes straight into arrays. It is
an RLlib ``EnvRunner``, so groups, checkpoints and metrics work as usual.

Autoreset is NEXT_STEP: in the step after an end the action is ignored and the observation is the new episode's
first. Such a step carries no experience and is marked invalid; the observation *before* it is the true last one of
the old episode, which is what a truncated episode bootstraps from.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from rlaas.training.conditioning import RunningMoments, anchors_of, sample_preferences
from rlaas.training.config import TrainingConfig
from rlaas.training.problems import problem_of

__all__ = ["PackedRunner", "Rollout", "SampledRewards"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What ``steps`` steps of ``rows`` decision makers gave.

    Attributes:
        observation: [steps + 1, rows, n_features]; the last is where the next rollout starts.
        preference: [steps, rows, n_objectives].
        action: [steps, rows, n_actions] in [-1, 1], or [steps, rows] int64.
        extras: what the module added, see its ``complete``.
        reward: [steps, rows, n_objectives], clipped if so configured.
        terminated, truncated, valid: [steps, rows] bool; only valid steps are experience.
    """

    observation: Tensor
    preference: Tensor
    action: Tensor
    extras: dict[str, Tensor]
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor


@dataclass
class SampledRewards:
    """Running sums since the last report."""

    rows: int
    scalar: float
    vector: NDArray[np.float64]
    returns: list[float]


class PackedRunner(EnvRunner, Checkpointable):
    """Steps the vector environment of a :class:`TrainingConfig`; see the module's docstring.

    ``module`` is the learner's own RLModule, set by the algorithm: with a local learner a copy would only have to be
    kept in step.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self.training = TrainingConfig(**config.env_config["training"])
        self.scenario = problem_of(self.training)
        self.module: Any = None
        self.env = self.scenario.vector_env(self.training.num_envs, seed=self.training.seed)
        self.rows = self.env.num_envs
        self.rows_per_env = self.env.rows_per_env
        self._anchors = anchors_of(self.scenario)
        self._rng = np.random.default_rng(np.random.SeedSequence([self.training.seed, 1]))
        self._generator = torch.Generator().manual_seed(self.training.seed)
        self.moments = RunningMoments(len(self.scenario.observation_names))
        action = self.scenario.single_action_space
        self._low = self._span = None
        if isinstance(action, spaces.Box):
            self._low = action.low.astype(np.float64)
            self._span = action.high.astype(np.float64) - self._low
        observation, _ = self.env.reset(seed=self.training.seed)
        self._observation = np.asarray(observation, dtype=np.float32)
        self._ended = np.zeros(self.rows, dtype=bool)
        self._preference = self._fresh_preferences(self.rows // self.rows_per_env)
        self._held: NDArray[np.int64] = np.zeros(self.rows // self.rows_per_env, dtype=np.int64)
        self._returns = np.zeros(self.rows)
        self._rewards = self._no_rewards()
        self._clip = self.training.resolved_reward_clip()
        self._not_taken_in = [self._observation]

    def sample(
        self, *, num_timesteps: int = 1, random_actions: bool = False, renormalise: bool = True, **_: Any
    ) -> Rollout:
        """Take ``num_timesteps`` steps of every row.

        Args:
            num_timesteps: steps of the vector environment.
            random_actions: draw actions uniformly instead of asking the module.
            renormalise: first let the policy normalise by all observations so far.
        """
        overdue = self._held >= self.training.preference_hold
        self._renew_preferences(overdue)
        module, steps, rows = self.module, num_timesteps, self.rows
        if renormalise:
            self._take_in()
            module.policy.normaliser.freeze(self.moments.mean, self.moments.deviation())
        observation = torch.empty(steps + 1, rows, self._observation.shape[1])
        preference = torch.empty(steps, rows, self._preference.shape[1])
        reward = np.empty((steps, rows, self._preference.shape[1]))
        terminated, truncated, valid = (np.empty((steps, rows), dtype=bool) for _ in range(3))
        actions: list[Tensor] = []
        extras: list[dict[str, Tensor]] = []
        seen, asked = observation.numpy(), preference.numpy()
        seen[0] = self._observation
        with torch.no_grad():
            noise = None if random_actions else module.noise(steps, rows, self._generator)
            for t in range(steps):
                asked[t], valid[t] = self._preference, ~self._ended
                if noise is None:
                    action, extra = module.explore_at_random(rows, self._generator), {}
                else:
                    action, extra = module.explore(observation[t], preference[t], noise[t])
                # An environment may reuse its output arrays: all of them are copied.
                seen[t + 1], reward[t], terminated[t], truncated[t], _ = self.env.step(self._to_environment(action))
                actions.append(action)
                extras.append(extra)
                self._finish_step(terminated[t] | truncated[t])
            stacked = {name: torch.stack([extra[name] for extra in extras]) for name in extras[0]}
            if noise is not None:
                stacked = module.complete(observation, preference, torch.from_numpy(self._preference), stacked)
        self._observation = seen[steps]
        self._not_taken_in.append(seen[1:].reshape(steps * rows, -1))
        self._account(reward, asked, terminated | truncated, valid)
        self.num_env_steps_sampled_lifetime += steps * rows
        return Rollout(
            observation=observation,
            preference=preference,
            action=torch.stack(actions),
            extras=stacked,
            reward=torch.from_numpy(reward if self._clip is None else np.clip(reward, -self._clip, self._clip)),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            valid=torch.from_numpy(valid),
        )

    def _take_in(self) -> None:
        """Bring the moments up to date with what was observed."""
        if self._not_taken_in:
            self.moments.update(np.concatenate(self._not_taken_in))
            self._not_taken_in = []

    def observed(self) -> dict[str, Any]:
        """State of the moments of every observation so far, the latest included."""
        self._take_in()
        return self.moments.get_state()

    def pop_rewards(self) -> SampledRewards:
        """Reward sums and finished episodes' returns since the last call."""
        taken, self._rewards = self._rewards, self._no_rewards()
        return taken

    def _no_rewards(self) -> SampledRewards:
        return SampledRewards(rows=0, scalar=0.0, vector=np.zeros(len(self.scenario.objectives)), returns=[])

    def _to_environment(self, action: Tensor) -> NDArray[Any]:
        if self._low is None or self._span is None:
            return np.asarray(action.numpy())
        return np.asarray(self._low + (action.numpy().astype(np.float64) + 1.0) * 0.5 * self._span)

    def _account(
        self,
        reward: NDArray[np.float64],
        preference: NDArray[np.float32],
        done: NDArray[np.bool_],
        valid: NDArray[np.bool_],
    ) -> None:
        """Enter a rollout [steps, rows, ...] into the sums and returns."""
        scalar = (reward * preference).sum(axis=2)
        self._rewards.rows += int(valid.sum())
        self._rewards.scalar += float(scalar[valid].sum())
        self._rewards.vector += reward[valid].sum(axis=0)
        finished = done & valid
        for earned, counts, over in zip(scalar, valid, finished, strict=True):
            self._returns[counts] += earned[counts]
            if over.any():
                self._rewards.returns += self._returns[over].tolist()
                self._returns[over] = 0.0

    def _finish_step(self, done: NDArray[np.bool_]) -> None:
        """Advance the clocks; give environments that have just been reset a fresh preference.

        The step of the reset itself still runs under the old preference: its value is the old episode's bootstrap.
        """
        self._held += 1
        if self._ended.any():
            self._renew_preferences(np.logical_or.reduce(self._ended.reshape(-1, self.rows_per_env), axis=1))
        self._ended = done

    def _renew_preferences(self, environments: NDArray[np.bool_]) -> None:
        count = int(environments.sum())
        if count:
            self._preference = self._preference.copy()
            self._preference[np.repeat(environments, self.rows_per_env)] = self._fresh_preferences(count)
            self._held[environments] = 0

    def _fresh_preferences(self, environments: int) -> NDArray[np.float32]:
        """One preference per environment, shared by its rows [environments * rows_per_env, n_objectives]."""
        drawn = sample_preferences(environments, self._anchors, self._rng)
        return np.repeat(drawn, self.rows_per_env, axis=0).astype(np.float32)

    # RLlib's EnvRunner and Checkpointable interfaces.

    def assert_healthy(self) -> None:
        """RLlib asks whether the runner was built."""
        assert self.env is not None

    def get_spaces(self) -> dict[str, Any]:
        """Spaces by module id, as RLlib wants them."""
        single = (self.scenario.single_observation_space, self.scenario.single_action_space)
        return {
            INPUT_ENV_SPACES: (self.env.observation_space, self.env.action_space),
            INPUT_ENV_SINGLE_SPACES: single,
            DEFAULT_MODULE_ID: single,
        }

    def get_metrics(self) -> Any:
        """Metrics logged in this runner (its reward sums go through :meth:`pop_rewards`)."""
        return self.metrics.reduce()

    def stop(self) -> None:
        """Close the environment."""
        self.env.close()

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
        """Environment, generators, statistics and clocks: training continues bit for bit. No module: the learner's."""
        self._take_in()
        return {
            NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime,
            "env": self.env.get_state(),
            "rng": self._rng.bit_generator.state,
            "generator": self._generator.get_state().numpy().copy(),
            "moments": self.moments.get_state(),
            "rows": {
                "observation": self._observation.copy(),
                "ended": self._ended.copy(),
                "preference": self._preference.copy(),
                "held": self._held.copy(),
                "returns": self._returns.copy(),
            },
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`. RLlib also sends partial states: counters or weights alone."""
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = int(state[NUM_ENV_STEPS_SAMPLED_LIFETIME])
        if COMPONENT_RL_MODULE in state and self.module is not None:
            weights = state[COMPONENT_RL_MODULE]
            self.module.set_state(weights.get(DEFAULT_MODULE_ID, weights))
        if "env" not in state:
            return
        self.env.set_state(state["env"])
        self._rng.bit_generator.state = state["rng"]
        self._generator.set_state(torch.from_numpy(state["generator"]))
        self.moments.set_state(state["moments"])
        self._not_taken_in = []
        rows = state["rows"]
        self._observation, self._ended = rows["observation"].copy(), rows["ended"].copy()
        self._preference, self._held = rows["preference"].copy(), rows["held"].copy()
        self._returns = rows["returns"].copy()
