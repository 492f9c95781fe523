"""What every method fits with: the policy, preferences, scaled rewards, and the likelihood of logged actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from rlaas.scenarios import Scenario
from rlaas.training.conditioning import anchors_of, reward_scale, sample_preferences
from rlaas.training.export import LARGEST_SHARE
from rlaas.training.networks import GatedMLP, PolicyNetwork, TwinCritic, normal_log_density
from rlaas.training.offline.config import FitSettings
from rlaas.training.offline.rows import Batch, LoggedRows

__all__ = ["Problem", "Step", "surprise", "value_network"]

Activation = Literal["relu", "tanh"]

# A logged action at the very end of its range would have an infinite value before the tanh.
LOGGED_LIMIT = min(0.999, LARGEST_SHARE)
ROWS_FOR_SCALE = 65_536


@dataclass(frozen=True, slots=True)
class Step:
    """A batch as methods see it.

    Attributes:
        features, following: what networks take, of the state and of its successor [n, n_features + n_objectives].
        action: box actions within +-0.999 of their half range [n, n_actions], or choices [n].
        reward: scaled to about unit deviation [n, n_rewards].
        bootstraps: [n].
        weights: what a unit of each value is worth [n, n_rewards].
        importance: what the row counts in cloning [n].
    """

    features: Tensor
    following: Tensor
    action: Tensor
    reward: Tensor
    bootstraps: Tensor
    weights: Tensor
    importance: Tensor


class Problem:
    """Networks' shapes, scales and random numbers of one fit.

    Args:
        rows: what is fitted to.
        scenario: what was controlled.
        settings: of the fit.
        conditioned: one policy for all preferences; rows are relabelled with preferences drawn per batch, or keep the
            logged ones where the rows have them.

    Attributes:
        policy: the network that is fitted, its normaliser frozen.
        n_rewards: columns of a reward, heads of a critic.
        scales: factor that brings each reward to about unit deviation [n_rewards].
        utility_scale: the same for their weighted sum.
        generator: of torch's numbers; ``rng`` of numpy's.
    """

    def __init__(self, rows: LoggedRows, scenario: Scenario, settings: FitSettings, *, conditioned: bool) -> None:
        action = scenario.single_action_space
        self.settings, self.conditioned = settings, conditioned
        self.activation = activation_of(settings, scenario)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.rng = np.random.default_rng(np.random.SeedSequence([settings.seed, 3]))
        self._anchors = anchors_of(scenario)
        self.policy = PolicyNetwork(
            rows.moments.mean.shape[0],
            len(scenario.objectives) if conditioned else 0,
            int(action.n) if isinstance(action, spaces.Discrete) else int(action.shape[0]),
            settings.hidden,
            discrete=isinstance(action, spaces.Discrete),
            activation=self.activation,
        )
        self.policy.normaliser.freeze(rows.moments.mean, rows.moments.deviation())
        mean, deviation = rows.reward_moments.mean, rows.reward_moments.deviation()
        self.n_rewards = len(mean)
        scales = [reward_scale(s, m) for s, m in zip(deviation.tolist(), mean.tolist(), strict=True)]
        self.scales = torch.tensor(scales)
        self.utility_scale = self._utility_scale(rows) if conditioned else float(self.scales[0])
        # What a policy without influence would reach, episodes ending at the logged rate.
        horizon = 1.0 / (1.0 - settings.gamma * (1.0 - rows.ended / len(rows)))
        self.first_values = torch.from_numpy(mean).float() * self.scales * horizon

    def step(self, batch: Batch) -> Step:
        """Normalise, scale, and give each row a preference."""
        n = len(batch.reward)
        preference: Tensor | None = None
        weights = torch.ones(n, self.n_rewards)
        if self.conditioned:
            logged = batch.preference.shape[1] > 0
            preference = batch.preference if logged else self._fresh(n)
            weights = preference * (self.utility_scale / self.scales)
        action = batch.action if self.policy.discrete else batch.action.clamp(-LOGGED_LIMIT, LOGGED_LIMIT)
        with torch.no_grad():
            features = self.policy.features(batch.observation, preference)
            following = self.policy.features(batch.following, preference)
        return Step(features, following, action, batch.reward * self.scales, batch.bootstraps, weights, batch.weight)

    def twin_critic(self) -> TwinCritic:
        """Twin values of an action: of the given one for a box [2, n, n_rewards], of all choices otherwise."""
        policy = self.policy
        inputs = policy.n_features + policy.n_objectives
        if policy.discrete:
            critic = TwinCritic(inputs, self.settings.hidden, policy.n_actions * self.n_rewards)
        else:
            critic = TwinCritic(inputs + policy.n_actions, self.settings.hidden, self.n_rewards)
        first = self.first_values.repeat(policy.n_actions if policy.discrete else 1)
        with torch.no_grad():
            critic.biases[-1].add_(first)
        return critic

    def twin_values(self, critic: TwinCritic, features: Tensor, action: Tensor) -> Tensor:
        """Values of one action per row [2, n, n_rewards]."""
        if not self.policy.discrete:
            twins: Tensor = critic(torch.cat((features, action), dim=1))
            return twins
        every = self.all_values(critic, features)
        index = action[None, :, None, None].expand(2, -1, 1, self.n_rewards)
        return every.gather(2, index).squeeze(2)

    def all_values(self, critic: TwinCritic, features: Tensor) -> Tensor:
        """Values of every choice [2, n, n_choices, n_rewards]."""
        values: Tensor = critic(features).view(2, len(features), self.policy.n_actions, self.n_rewards)
        return values

    def _fresh(self, n: int) -> Tensor:
        return torch.from_numpy(sample_preferences(n, self._anchors, self.rng)).float()

    def _utility_scale(self, rows: LoggedRows) -> float:
        """Scale of weighted sums, over rows spread evenly and fresh preferences."""
        index = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), ROWS_FOR_SCALE)).astype(np.int64))
        reward = rows.take(index).reward
        scalar = (reward * self._fresh(len(reward))).sum(dim=1)
        deviation = float(scalar.std()) if len(scalar) > 1 else 0.0
        return reward_scale(deviation, float(scalar.mean()))


def activation_of(settings: FitSettings, scenario: Scenario) -> Activation:
    """That of the algorithm which is to go on: SAC's networks are relu, PPO's tanh."""
    return "relu" if (settings.algorithm or scenario.algorithm) == "sac" else "tanh"


def value_network(problem: Problem) -> GatedMLP:
    """Values of a state [n, n_rewards], starting at those of a policy without influence."""
    policy = problem.policy
    network = GatedMLP(
        policy.n_features,
        policy.n_objectives,
        problem.settings.hidden,
        problem.n_rewards,
        activation="tanh",
        last_gain=1.0,
    )
    head: nn.Module = network.layers[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.bias.add_(problem.first_values)
    return network


def surprise(policy: PolicyNetwork, heads: Mapping[str, Tensor], action: Tensor) -> Tensor:
    """Negative log-likelihood of logged actions [n]; for a box up to the tanh's constant Jacobian."""
    if policy.discrete:
        return functional.cross_entropy(heads["logits"], action, reduction="none")
    noise = (torch.atanh(action) - heads["mean"]) / heads["log_std"].exp()
    return -normal_log_density(noise, heads["log_std"])
