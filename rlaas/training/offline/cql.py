"""Conservative Q-learning, the variant CQL(H) (Kumar et al. 2020, arXiv 2006.04779), with vector values.

Besides its temporal-difference error a critic pays for valuing actions above the logged one: the softmax of all
actions' values less the value of the logged action. So an action that nobody took cannot look good by accident.

With several rewards the temporal differences are vectors; the penalty, the greedy choice and the twin that gives the
target go by the weighted sums.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlaas.training.networks import squashed_sample
from rlaas.training.offline.methods import OfflineMethod, descend, follow, smaller
from rlaas.training.offline.problem import Problem, Step

__all__ = ["ConservativeQ"]

FIRST_TEMPERATURE = 0.1
# A policy that knows nothing would have its own first values learned: it clones meanwhile, as in the authors' code.
CLONING_SHARE = 0.1


class ConservativeQ(OfflineMethod):
    """Twin critic and policy: SAC's for a box, a softmax of the values for choices."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.critic = problem.twin_critic()
        self._target = copy.deepcopy(self.critic).requires_grad_(False)
        self._log_temperature = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))
        rate = problem.settings.learning_rate
        self._critics = self.optimizer(self.critic)
        self._adam = self.optimizer(self.policy.body, rate=rate if self.policy.discrete else rate / 3.0)
        self._heat = torch.optim.Adam([self._log_temperature], lr=rate)
        self._updates = 0
        self.cloning_updates = 0

    def plan(self, updates: int) -> None:
        """Clone during the first tenth of ``updates``."""
        self.cloning_updates = 0 if self.policy.discrete else int(CLONING_SHARE * updates)

    def update(self, step: Step, stage: int) -> dict[str, Tensor]:
        """One step of the critics and the policy."""
        losses = self._choices(step) if self.policy.discrete else self._box(step)
        follow(self._target, self.critic, self.problem.settings.cql.tau)
        self._updates += 1
        return losses

    def critics(self) -> dict[str, nn.Module]:
        """The twin critic."""
        return {"critic": self.critic}

    def _choices(self, step: Step) -> dict[str, Tensor]:
        problem, settings = self.problem, self.problem.settings.cql
        weights = step.weights[:, None, :]
        with torch.no_grad():
            # Double: the online critics choose, the target's value it (van Hasselt et al. 2016, arXiv 1509.06461).
            later = (problem.all_values(self.critic, step.following) * weights).sum(dim=3).amin(dim=0)
            value = smaller(problem.twin_values(self._target, step.following, later.argmax(dim=1)), step.weights)
            wanted = step.reward + problem.settings.gamma * step.bootstraps[:, None] * value
        every = problem.all_values(self.critic, step.features)
        index = step.action[None, :, None, None].expand(2, -1, 1, problem.n_rewards)
        error = (every.gather(2, index).squeeze(2) - wanted).square().sum(dim=(0, 2)).mean()
        worth = (every * weights).sum(dim=3)
        logged = worth.gather(2, step.action[None, :, None].expand(2, -1, 1)).squeeze(2)
        penalty = (worth.logsumexp(dim=2) - logged).sum(dim=0).mean()
        descend(self._critics, 0.5 * error + settings.alpha * penalty)
        best = worth.detach().amin(dim=0)
        logits = self.policy.heads(step.features)["logits"]
        policy_loss = functional.cross_entropy(logits, (best / settings.temperature).softmax(dim=1))
        descend(self._adam, policy_loss)
        return {
            "critic_loss": error.detach(),
            "conservative_loss": penalty.detach(),
            "policy_loss": policy_loss.detach(),
        }

    def _box(self, step: Step) -> dict[str, Tensor]:
        problem, settings = self.problem, self.problem.settings.cql
        with torch.no_grad():
            action, _ = self._sample(step.following)
            value = smaller(problem.twin_values(self._target, step.following, action), step.weights)
            wanted = step.reward + problem.settings.gamma * step.bootstraps[:, None] * value
        predicted = problem.twin_values(self.critic, step.features, step.action)
        error = (predicted - wanted).square().sum(dim=(0, 2)).mean()
        penalty = (self._softmax(step) - (predicted * step.weights).sum(dim=2)).sum(dim=0).mean()
        descend(self._critics, 0.5 * error + settings.alpha * penalty)

        temperature = self._log_temperature.exp().detach()
        action, log_prob = self._sample(step.features)
        if self._updates < self.cloning_updates:
            policy_loss = self.clone(step, step.importance) + (temperature * log_prob).mean()
        else:
            worth = (self._frozen(step.features, action) * step.weights).sum(dim=2).amin(dim=0)
            policy_loss = (temperature * log_prob - worth).mean()
        descend(self._adam, policy_loss)
        wanted_entropy = -float(self.policy.n_actions) if settings.target_entropy is None else settings.target_entropy
        descend(self._heat, self._log_temperature * (-log_prob.detach().mean() - wanted_entropy))
        return {
            "critic_loss": error.detach(),
            "conservative_loss": penalty.detach(),
            "policy_loss": policy_loss.detach(),
        }

    def _softmax(self, step: Step) -> Tensor:
        """Log of the integral of exp(value) over the box [2, n], by importance sampling (the paper's appendix F).

        Proposals are the uniform density, and the policy here and at the successor.
        """
        problem, samples = self.problem, self.problem.settings.cql.action_samples
        n, n_actions = step.action.shape
        with torch.no_grad():
            uniform = torch.rand(samples * n, n_actions, generator=problem.generator) * 2.0 - 1.0
            here, density_here = self._sample(step.features.repeat(samples, 1))
            there, density_there = self._sample(step.following.repeat(samples, 1))
            densities = torch.cat((torch.full((samples * n,), -n_actions * math.log(2.0)), density_here, density_there))
            actions = torch.cat((uniform, here, there))
        values = problem.twin_values(self.critic, step.features.repeat(3 * samples, 1), actions)
        worth = (values.view(2, 3 * samples, n, problem.n_rewards) * step.weights).sum(dim=3)
        return (worth - densities.view(3 * samples, n)).logsumexp(dim=1) - math.log(3 * samples)

    def _sample(self, features: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.policy.heads(features)
        noise = torch.randn(heads["mean"].shape, generator=self.problem.generator)
        return squashed_sample(heads["mean"], heads["log_std"], noise)

    def _frozen(self, features: Tensor, action: Tensor) -> Tensor:
        values: Tensor = self.critic(torch.cat((features, action), dim=1), frozen=True)
        return values
