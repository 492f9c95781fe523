"""Implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169), with vector values.

The value of a state is an upper expectile of the values of the actions logged there: what the better half of them
brings, without asking a critic about an action that nobody took. The policy clones logged actions by their advantage.

With several rewards the critics have one head each. Which side of the expectile a row is on is decided by the weighted
sums; the row's weight then applies to all heads, so that the vector stays the value of one way of acting. With one
reward this is the paper's loss.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rlaas.training.offline.methods import OfflineMethod, advantage_weights, descend, follow, smaller
from rlaas.training.offline.problem import Problem, Step, value_network

__all__ = ["ImplicitQ"]


class ImplicitQ(OfflineMethod):
    """Value, twin critic and policy, stepped together."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.critic, self.value = problem.twin_critic(), value_network(problem)
        self._target = copy.deepcopy(self.critic).requires_grad_(False)
        self._values, self._critics = self.optimizer(self.value), self.optimizer(self.critic)
        self._adam = self.optimizer(self.policy.body)

    def update(self, step: Step, stage: int) -> dict[str, Tensor]:
        """One step of the value, the critics and the policy."""
        problem, settings = self.problem, self.problem.settings.iql
        with torch.no_grad():
            acted = smaller(problem.twin_values(self._target, step.features, step.action), step.weights)
        value = self.value(step.features)
        advantage = ((acted - value.detach()) * step.weights).sum(dim=1)
        side = torch.where(advantage > 0, settings.expectile, 1.0 - settings.expectile)
        value_loss = (side[:, None] * (acted - value).square()).sum(dim=1).mean()
        with torch.no_grad():
            wanted = step.reward + problem.settings.gamma * step.bootstraps[:, None] * self.value(step.following)
        predicted = problem.twin_values(self.critic, step.features, step.action)
        critic_loss = (predicted - wanted).square().sum(dim=(0, 2)).mean()
        weight = advantage_weights(advantage, settings.temperature, settings.largest_weight)
        policy_loss = self.clone(step, weight * step.importance)
        descend(self._values, value_loss)
        descend(self._critics, critic_loss)
        descend(self._adam, policy_loss)
        follow(self._target, self.critic, settings.tau)
        return {
            "value_loss": value_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "policy_loss": policy_loss.detach(),
        }

    def critics(self) -> dict[str, nn.Module]:
        """The value network and the twin critic."""
        return {"value": self.value, "critic": self.critic}
