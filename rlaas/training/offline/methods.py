"""The interface of a method, cloning, and advantage-weighted regression."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from rlaas.training.offline.problem import Problem, Step, surprise, value_network

__all__ = ["AdvantageWeighted", "Cloning", "OfflineMethod", "advantage_weights", "descend", "follow", "smaller"]

TARGET_STEP = 0.05


class OfflineMethod(ABC):
    """Fits a problem's policy, a batch at a time.

    Attributes:
        stages: how often it passes over the rows ``epochs`` times; the stage is told to :meth:`update`.
        needs_successors: rows whose successor is unknown are left out.
    """

    stages: ClassVar[int] = 1
    needs_successors: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        self.problem, self.policy = problem, problem.policy
        self.weight_sums = torch.zeros(2, dtype=torch.float64)

    @abstractmethod
    def update(self, step: Step, stage: int) -> dict[str, Tensor]:
        """Take one gradient step of every network; returns the losses by name."""

    def critics(self) -> dict[str, nn.Module]:
        """What a fine-tuning can take over, by the name of the file."""
        return {}

    def optimizer(self, *networks: nn.Module, rate: float | None = None) -> torch.optim.Adam:
        """Adam over the parameters of ``networks`` that are trained."""
        parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=rate or self.problem.settings.learning_rate, fused=True)

    def clone(self, step: Step, weight: Tensor) -> Tensor:
        """The loss of cloning the logged actions with weights [n]."""
        self.weight_sums += torch.stack((weight.sum(), weight.square().sum())).double()
        heads = self.policy.heads(step.features)
        return (weight * surprise(self.policy, heads, step.action)).mean()


class Cloning(OfflineMethod):
    """Behaviour cloning: the likelihood of the logged actions, all rows alike."""

    needs_successors = False

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._adam = self.optimizer(self.policy.body)

    def update(self, step: Step, stage: int) -> dict[str, Tensor]:
        """One step of the policy."""
        loss = self.clone(step, step.importance)
        descend(self._adam, loss)
        return {"policy_loss": loss.detach()}


class AdvantageWeighted(OfflineMethod):
    """Advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177; Wang et al. 2020, arXiv 2006.15134).

    First the behaviour's own value is fitted by one-step temporal differences against a slowly following copy, one head
    per column of the reward. Then actions are cloned with weights exp(advantage / deviation), clipped.
    """

    stages = 2

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.value = value_network(problem)
        self._target = copy.deepcopy(self.value).requires_grad_(False)
        self._values, self._adam = self.optimizer(self.value), self.optimizer(self.policy.body)

    def update(self, step: Step, stage: int) -> dict[str, Tensor]:
        """One step of the value, or in the second stage of the policy."""
        gamma, settings = self.problem.settings.gamma, self.problem.settings.advantage_weighted
        if stage == 0:
            with torch.no_grad():
                wanted = step.reward + gamma * step.bootstraps[:, None] * self._target(step.following)
            loss = (self.value(step.features) - wanted).square().sum(dim=1).mean()
            descend(self._values, loss)
            follow(self._target, self.value, TARGET_STEP)
            return {"value_loss": loss.detach()}
        with torch.no_grad():
            later = gamma * step.bootstraps[:, None] * self.value(step.following)
            advantage = ((step.reward + later - self.value(step.features)) * step.weights).sum(dim=1)
        weight = advantage_weights(advantage, settings.temperature, settings.largest_weight)
        loss = self.clone(step, weight * step.importance)
        descend(self._adam, loss)
        return {"policy_loss": loss.detach()}

    def critics(self) -> dict[str, nn.Module]:
        """The value network."""
        return {"value": self.value}


def advantage_weights(advantage: Tensor, temperature: float, largest: float) -> Tensor:
    """exp(advantage / (temperature deviation)) [n], at most ``largest``; the batch's mean advantage weighs 1.

    In deviations, since advantages have no scale of their own: it differs by preference, reward and problem.
    """
    deviation = advantage.std(correction=0).clamp_min(1e-6)
    return ((advantage - advantage.mean()) / (temperature * deviation)).exp().clamp_max(largest)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One gradient step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def follow(target: nn.Module, online: nn.Module, step: float) -> None:
    """Move a target network's parameters towards the online ones (Polyak)."""
    pairs: tuple[Iterable[Tensor], Iterable[Tensor]] = (target.parameters(), online.parameters())
    mine, theirs = [p.detach() for p in pairs[0]], [p.detach() for p in pairs[1]]
    torch._foreach_lerp_(mine, theirs, step)


def smaller(twins: Tensor, weights: Tensor) -> Tensor:
    """Of twin values [2, n, n_rewards] the whole vector of the twin with the smaller weighted sum [n, n_rewards]."""
    worse = (twins * weights).sum(dim=-1).argmin(dim=0)
    return torch.where((worse == 0)[:, None], twins[0], twins[1])
