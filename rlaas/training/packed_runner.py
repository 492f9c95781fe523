"""The packed environment runner: [steps, rows] tensors instead of a Python object per episode.

RLlib's stock runner builds an episode object per environment and its learner takes them apart again, timestep by
timestep; that is where its time goes. This one steps the vector environment and writes straight into arrays. It is
an RLlib ``EnvRunner``, so groups, checkpoints and metrics work as usual, in the trainer's process or in actors.

Autoreset is NEXT_STEP or SAME_STEP. With NEXT_STEP the action after an end is ignored and the observation is the new
episode's first: such a step carries no experience and is marked invalid, and the observation *before* it is the true
last one of the old episode, which is what a truncated episode bootstraps from. With SAME_STEP every step is
experience, and the true last observations come beside the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Tensor

from rlaas.training.actions import ActionSpec
from rlaas.training.rollouts import Rollout, SampledRewards
from rlaas.training.runner import Runner
from rlaas.training.timing import ENVIRONMENT

__all__ = ["PackedRunner"]


class PackedRunner(Runner):
    """Steps the vector environment of a :class:`TrainingConfig`; see the module's docstring."""

    def open(self, environments: int, seed: int | list[int]) -> None:
        """Make the environments, reset them, and give each a preference."""
        self.env = self.scenario.vector_env(environments, seed=seed)
        self.rows, self.rows_per_env = self.env.num_envs, self.env.rows_per_env
        self._same_step = self.env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        action = self.scenario.single_action_space
        self._action = ActionSpec.of(action)
        self._low = self._span = None
        if isinstance(action, spaces.Box):
            self._low = action.low.astype(np.float64)
            self._span = action.high.astype(np.float64) - self._low
        observation, _ = self.env.reset(seed=seed)
        self._observation = np.array(observation, dtype=np.float32)
        self.first_observation = torch.from_numpy(self._observation.copy())
        self._ended = np.zeros(self.rows, dtype=bool)
        self._preference = self.fresh_preferences(self.rows // self.rows_per_env)
        self._held: NDArray[np.int64] = np.zeros(self.rows // self.rows_per_env, dtype=np.int64)
        self._returns, self._lengths = np.zeros(self.rows), np.zeros(self.rows)
        self._rewards = self._no_rewards()
        self._memory: Tensor | None = None

    def sample(
        self, *, num_timesteps: int = 1, random_actions: bool = False, explore: bool = True, **_: Any
    ) -> Rollout:
        """See :meth:`Runner.sample`."""
        self._renew_preferences(self._held >= self.training.preference_hold)
        steps, rows = num_timesteps, self.rows
        n_features, n_objectives = self._observation.shape[1], self._preference.shape[1]
        observation = torch.empty(steps + 1, rows, n_features)
        preference = torch.empty(steps + 1, rows, n_objectives)
        reward = np.empty((steps, rows, n_objectives + len(self._constraints)))
        terminated, truncated, valid = (np.empty((steps, rows), dtype=bool) for _ in range(3))
        actions: list[Tensor] = []
        extras: list[dict[str, Tensor]] = []
        finals: dict[int, NDArray[np.float32]] = {}
        memory = first_memory = self._remembered()
        seen, asked = observation.numpy(), preference.numpy()
        seen[0] = self._observation
        with torch.no_grad():
            noise = None if random_actions else self.noise(steps, explore)
            for t in range(steps):
                asked[t], valid[t] = self._preference, ~self._ended
                drawn = None if noise is None else noise[t]
                action, extra, memory = self.act(observation[t], preference[t], drawn, memory)
                chosen = self._to_environment(action)
                with self.stopwatch.measure(ENVIRONMENT):
                    answer = self.env.step(chosen)
                # An environment may reuse its output arrays: all of them are copied.
                seen[t + 1], earned, terminated[t], truncated[t], infos = answer
                reward[t, :, :n_objectives] = earned
                if self._constraints:
                    reward[t, :, n_objectives:] = self._margins(infos)
                if "final_obs" in infos:
                    finals[t] = np.array(infos["final_obs"], dtype=np.float32)
                actions.append(action)
                extras.append(extra)
                self._finish_step(terminated[t] | truncated[t])
                if memory.shape[1]:
                    forget = terminated[t] | truncated[t] if self._same_step else ~valid[t]
                    memory = memory * torch.from_numpy(~forget)[:, None]
        asked[steps] = self._preference
        self._observation, self._memory = seen[steps], memory
        self._account(reward, asked[:-1], terminated | truncated, valid)
        if self._reward_clip is not None:
            reward[:, :, :n_objectives] = np.clip(reward[:, :, :n_objectives], -self._reward_clip, self._reward_clip)
        self.num_env_steps_sampled_lifetime += steps * rows
        return Rollout(
            observation=observation,
            preference=preference,
            action=torch.stack(actions),
            extras={name: torch.stack([extra[name] for extra in extras]) for name in extras[0]},
            reward=torch.from_numpy(reward),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            valid=torch.from_numpy(valid),
            whole=bool(valid.all()),
            memory=first_memory,
            final=_final_observations(finals, observation) if self._same_step else None,
            rows_per_env=self.rows_per_env,
        )

    def pop_rewards(self) -> SampledRewards:
        """Reward sums and finished episodes' returns since the last call."""
        taken, self._rewards = self._rewards, self._no_rewards()
        return taken

    def _no_rewards(self) -> SampledRewards:
        return SampledRewards.none(len(self.scenario.objectives), len(self._constraints))

    def _remembered(self) -> Tensor:
        """The module's memory [rows, memory_width] where the last rollout left it; at first there is none."""
        width = self.module.memory_width
        if self._memory is None or self._memory.shape[1] != width:
            return torch.zeros(self.rows, width)
        return self._memory

    def _to_environment(self, action: Tensor) -> NDArray[Any]:
        if self._low is None or self._span is None:
            return action.numpy().reshape(self.rows, *self._action.shape)
        return np.asarray(self._low + (action.numpy().astype(np.float64) + 1.0) * 0.5 * self._span)

    def _margins(self, infos: dict[str, Any]) -> NDArray[np.float64]:
        """By how much a step keeps each constraint [rows, n_constraints]: sign * (numerator - bound * denominator).

        It adds up over steps, and its sum is positive exactly where the ratio of the sums keeps the bound.
        """
        top, bottom = infos["numerators"], infos["denominators"]
        columns = []
        for number, (part, sign, bound) in enumerate(self._constraints):
            columns.append(sign * (top[:, part] - bound * bottom[:, part]))
            self._rewards.parts[number] += (top[:, part].sum(), bottom[:, part].sum())
        return np.stack(columns, axis=1)

    def _account(
        self,
        reward: NDArray[np.float64],
        preference: NDArray[np.float32],
        done: NDArray[np.bool_],
        valid: NDArray[np.bool_],
    ) -> None:
        """Enter a rollout [steps, rows, ...] into the sums and returns."""
        earned_by_objective = reward[:, :, : preference.shape[2]]
        scalar = (earned_by_objective * preference).sum(axis=2)
        self._rewards.rows += int(valid.sum())
        self._rewards.scalar += float(scalar[valid].sum())
        self._rewards.vector += earned_by_objective[valid].sum(axis=0)
        finished = done & valid
        for earned, counts, over in zip(scalar, valid, finished, strict=True):
            self._returns[counts] += earned[counts]
            self._lengths[counts] += 1
            if over.any():
                self._rewards.returns += self._returns[over].tolist()
                self._rewards.lengths += self._lengths[over].tolist()
                self._returns[over], self._lengths[over] = 0.0, 0.0

    def _finish_step(self, done: NDArray[np.bool_]) -> None:
        """Advance the clocks; give environments that have just been reset a fresh preference.

        The step of a next-step reset itself still runs under the old preference: its value is the old episode's
        bootstrap.
        """
        self._held += 1
        fresh = done if self._same_step else self._ended
        if fresh.any():
            self._renew_preferences(np.logical_or.reduce(fresh.reshape(-1, self.rows_per_env), axis=1))
        if not self._same_step:
            self._ended = done

    def _renew_preferences(self, environments: NDArray[np.bool_]) -> None:
        count = int(environments.sum())
        if count:
            self._preference = self._preference.copy()
            self._preference[np.repeat(environments, self.rows_per_env)] = self.fresh_preferences(count)
            self._held[environments] = 0

    def stop(self) -> None:
        """Close the environment."""
        self.env.close()

    def rows_state(self) -> dict[str, Any]:
        """State of environments and rows, as copies."""
        return {
            "env": self.env.get_state(),
            "rows": {
                "observation": self._observation.copy(),
                "ended": self._ended.copy(),
                "preference": self._preference.copy(),
                "held": self._held.copy(),
                "returns": self._returns.copy(),
                "lengths": self._lengths.copy(),
                "memory": None if self._memory is None else self._memory.numpy().copy(),
            },
        }

    def continue_rows(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`rows_state`."""
        self.env.set_state(state["env"])
        rows = state["rows"]
        self._observation, self._ended = rows["observation"].copy(), rows["ended"].copy()
        self._preference, self._held = rows["preference"].copy(), rows["held"].copy()
        self._returns, self._lengths = rows["returns"].copy(), rows["lengths"].copy()
        self._memory = None if rows["memory"] is None else torch.from_numpy(rows["memory"].copy())


def _final_observations(finals: dict[int, NDArray[np.float32]], observation: Tensor) -> Tensor:
    """What each step led to before any reset [steps, rows, n_features]."""
    following = observation[1:].clone()
    for t, final in finals.items():
        # Rows that did not end hold the same observation in both.
        following[t] = torch.from_numpy(final)
    return following
