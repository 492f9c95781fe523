"""The runner of a training that stays on one device: its environments are tensors, and so is all that it makes of them.

The environments run in lockstep (:class:`~rlaas.scenarios.TensorEnv`), so the host knows without asking when episodes
end. Nothing is asked of the device while a rollout is taken, and its work is queued without a wait; only the sums of a
rollout are fetched behind it. The time that the environments take is therefore that of queueing their work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlaas.scenarios import TensorStep
from rlaas.training.rollouts import Rollout, SampledRewards
from rlaas.training.runner import Runner
from rlaas.training.timing import ENVIRONMENT

__all__ = ["TensorRunner"]


class TensorRunner(Runner):
    """Steps the scenario's tensors on the device of the :class:`TrainingConfig`, in the trainer's process."""

    def open(self, environments: int, seed: int | list[int]) -> None:
        """Make the environments, reset them, and give each a preference."""
        self.device = torch.device(str(self.training.device))
        self.env = self.scenario.tensor_env(environments, device=str(self.device), seed=seed)
        self.rows, self.rows_per_env = self.env.rows, self.env.rows_per_env
        self._bounds: tuple[Tensor, Tensor] | None = None
        action = self.scenario.single_action_space
        if isinstance(action, spaces.Box):
            low, high = (torch.from_numpy(edge).to(self.device, torch.float32) for edge in (action.low, action.high))
            self._bounds = (low, high - low)
        self._observation: Tensor = self.env.reset(seed)
        self.first_observation = self._observation.clone()
        self._preference = self._drawn()
        self._held, self._length, self._counted = 0, 0, 0
        self._returns = torch.zeros(self.rows, dtype=torch.float64, device=self.device)
        self._finished: list[tuple[Tensor, int]] = []
        self._sums = torch.zeros(1 + len(self.scenario.objectives), dtype=torch.float64, device=self.device)
        self._parts = torch.zeros(len(self._constraints), 2, dtype=torch.float64, device=self.device)

    def sample(
        self, *, num_timesteps: int = 1, random_actions: bool = False, explore: bool = True, **_: Any
    ) -> Rollout:
        """See :meth:`Runner.sample`; all tensors are on the device."""
        steps, rows = num_timesteps, self.rows
        n_objectives = self._preference.shape[1]
        if self._held >= self.training.preference_hold:
            self._renew()
        observation = self._observation.new_empty(steps + 1, *self._observation.shape)
        preference = self._preference.new_empty(steps + 1, rows, n_objectives)
        reward = observation.new_empty(steps, rows, n_objectives + len(self._constraints))
        actions: list[Tensor] = []
        extras: list[dict[str, Tensor]] = []
        valid: list[bool] = []
        truncated: list[bool] = []
        memory = observation.new_zeros(rows, 0)
        observation[0] = self._observation
        with torch.no_grad():
            noise = None if random_actions else self.noise(steps, explore)
            for t in range(steps):
                preference[t] = self._preference
                valid.append(not self.env.over)
                drawn = None if noise is None else noise[t]
                action, extra, memory = self.act(observation[t], preference[t], drawn, memory)
                with self.stopwatch.measure(ENVIRONMENT):
                    answer = self.env.step(self._physical(action))
                observation[t + 1], reward[t, :, :n_objectives] = answer.observation, answer.reward
                if self._constraints:
                    reward[t, :, n_objectives:] = self._margins_of(answer)
                truncated.append(self.env.over)
                actions.append(action)
                extras.append(extra)
                self._held += 1
                if not valid[-1]:
                    # The step of a reset itself still runs under the old preference, as its value is a bootstrap.
                    self._renew()
            preference[steps] = self._preference
            self._observation = observation[steps].clone()
            self._enter(reward[:, :, :n_objectives], preference[:-1], truncated, valid)
            if self._reward_clip is not None:
                reward[:, :, :n_objectives].clamp_(-self._reward_clip, self._reward_clip)
        self.num_env_steps_sampled_lifetime += steps * rows
        return Rollout(
            observation=observation,
            preference=preference,
            action=torch.stack(actions),
            extras={name: torch.stack([extra[name] for extra in extras]) for name in extras[0]},
            reward=reward,
            terminated=self._each_row([False] * steps),
            truncated=self._each_row(truncated),
            valid=self._each_row(valid),
            whole=all(valid),
            memory=memory,
            final=None,
            rows_per_env=self.rows_per_env,
        )

    def pop_rewards(self) -> SampledRewards:
        """Reward sums and finished episodes' returns since the last call: the one thing that is fetched."""
        sums = self._sums.tolist()
        taken = SampledRewards(
            rows=self._counted,
            scalar=sums[0],
            vector=np.array(sums[1:]),
            returns=[value for returns, _ in self._finished for value in returns.tolist()],
            lengths=[float(length) for _, length in self._finished for _ in range(self.rows)],
            parts=self._parts.cpu().numpy().copy(),
        )
        self._sums.zero_()
        self._parts.zero_()
        self._counted, self._finished = 0, []
        return taken

    def _physical(self, action: Tensor) -> Tensor:
        """Actions as the environments take them."""
        if self._bounds is None:
            return action
        low, span = self._bounds
        return low + (action + 1.0) * 0.5 * span

    def _margins_of(self, answer: TensorStep) -> Tensor:
        """By how much a step keeps each constraint [rows, n_constraints], as in the packed runner."""
        columns = []
        for number, (part, sign, bound) in enumerate(self._constraints):
            top, bottom = answer.numerators[:, part], answer.denominators[:, part]
            columns.append(sign * (top - bound * bottom))
            self._parts[number, 0] += top.sum()
            self._parts[number, 1] += bottom.sum()
        return torch.stack(columns, dim=1)

    def _enter(self, reward: Tensor, preference: Tensor, truncated: list[bool], valid: list[bool]) -> None:
        """Enter a rollout [steps, rows, n_objectives] into the sums and returns."""
        scalar = (reward * preference).sum(dim=2, dtype=torch.float64)
        first = 0
        for t in range(len(valid) + 1):
            # A stretch of experience ends with its episode, before a reset, and with the rollout.
            ends = t == len(valid) or not valid[t]
            if ends and t > first:
                self._returns += scalar[first:t].sum(dim=0)
                self._length += t - first
                self._sums[0] += scalar[first:t].sum()
                self._sums[1:] += reward[first:t].sum(dim=(0, 1), dtype=torch.float64)
                self._counted += (t - first) * self.rows
            if ends:
                first = t + 1
            if t > 0 and truncated[t - 1] and valid[t - 1]:
                self._finished.append((self._returns.clone(), self._length))
                self._returns.zero_()
                self._length = 0

    def _each_row(self, flags: list[bool]) -> Tensor:
        """A flag for each step as one for each row of it [steps, rows]."""
        found = torch.zeros(len(flags), self.rows, dtype=torch.bool, device=self.device)
        for step, flag in enumerate(flags):
            if flag:
                found[step] = True
        return found

    def _renew(self) -> None:
        self._preference, self._held = self._drawn(), 0

    def _drawn(self) -> Tensor:
        """A fresh preference for each environment."""
        drawn = torch.from_numpy(self.fresh_preferences(self.rows // self.rows_per_env))
        if self.device.type == "cuda":
            # From memory that cannot be moved away the copy waits for nothing.
            drawn = drawn.pin_memory()
        return drawn.to(self.device, non_blocking=True)

    def stop(self) -> None:
        """There is nothing to close."""

    def rows_state(self) -> dict[str, Any]:
        """State of environments and rows, as arrays."""
        return {
            "env": self.env.get_state(),
            "rows": {
                "observation": self._observation.cpu().numpy().copy(),
                "preference": self._preference.cpu().numpy().copy(),
                "returns": self._returns.cpu().numpy().copy(),
                "held": self._held,
                "length": self._length,
            },
        }

    def continue_rows(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`rows_state`."""
        self.env.load_state(state["env"])
        rows = state["rows"]
        self._observation, self._preference, self._returns = (
            torch.from_numpy(rows[name].copy()).to(self.device) for name in ("observation", "preference", "returns")
        )
        self._held, self._length = rows["held"], rows["length"]
