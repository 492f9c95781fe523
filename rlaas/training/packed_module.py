"""The RLModule that SAC and PPO share: policy, scales, multipliers, and what each objective is worth."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from rlaas.training.distributions import draw_choices, forbid, gumbel_noise
from rlaas.training.networks import PolicyNetwork
from rlaas.training.scalarisation import ReturnModel, chebyshev_weights

__all__ = ["PackedModule"]


class PackedModule(TorchRLModule):
    """An RLModule around a :class:`PolicyNetwork`; ``model_config`` holds the network's shape.

    Rewards have a column for each objective, then one for each constraint.

    Attributes:
        policy: the network that leaves the trainer.
        reward_scale: brings each reward column to unit deviation [n_rewards].
        utility_scale: brings the preference-weighted sum to unit deviation.
        multipliers: of the constraints [n_constraints]; 1 makes a deviation of a constraint worth one of the utility.
        returns: expected returns by preference, where scalarisation or sampling needs them, else None.
    """

    policy: PolicyNetwork
    reward_scale: Tensor
    utility_scale: Tensor
    multipliers: Tensor

    def setup(self) -> None:
        """Build the policy network; subclasses add their critics."""
        shape = dict(self.model_config)
        self.policy = PolicyNetwork(
            shape["n_features"],
            shape["n_preferences"],
            shape["n_actions"],
            shape["hidden"],
            discrete=bool(shape["sizes"]),
            activation=shape["activation"],
            sizes=shape["sizes"],
            masked=shape["masked"],
            memory=shape["memory"],
        )
        if shape["first_action"] is not None:
            self.policy.start_at(shape["first_action"])
        self.n_objectives, self.n_constraints = int(shape["n_objectives"]), int(shape["n_constraints"])
        self.n_rewards = self.n_objectives + self.n_constraints
        # A context stands between observation and preference: the mean observation of the environment's rows.
        self.n_context = self.policy.n_seen if shape["centralised"] else 0
        self.register_buffer("reward_scale", torch.zeros(self.n_rewards))
        self.register_buffer("utility_scale", torch.tensor(1.0))
        self.register_buffer("multipliers", torch.zeros(self.n_constraints))
        self.chebyshev = shape["scalarisation"] == "chebyshev"
        self.returns = ReturnModel(self.n_objectives) if self.chebyshev or shape["models_returns"] else None

    @property
    def memory_width(self) -> int:
        """Numbers that a row carries from step to step; 0 where the module remembers nothing."""
        return 0

    def weights(self, preference: Tensor) -> Tensor:
        """What a unit of each scaled reward column is worth [n, n_rewards], for preferences [n, n_objectives]."""
        if self.chebyshev and self.returns is not None:
            preference = chebyshev_weights(preference, self.returns(preference), self.returns.ideal())
        worth = preference * (self.utility_scale / self.reward_scale[: self.n_objectives])
        if not self.n_constraints:
            return worth
        return torch.cat((worth, self.multipliers.expand(len(worth), -1)), dim=1)

    def inside(self, features: Tensor, context: Tensor | None) -> Tensor:
        """What critics see: features [n, n_seen + n_preferences] with a context [n, n_seen] put between."""
        if context is None:
            return features
        seen = self.policy.n_seen
        return torch.cat((features[:, :seen], self.policy.normaliser(context), features[:, seen:]), dim=1)

    def explore_at_random(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform actions: [rows, n_actions] in [-1, 1), or choices among the allowed ones [rows, n_components]."""
        rows, policy = len(observation), self.policy
        if not policy.discrete:
            shape = (rows, policy.n_actions)
            return torch.rand(shape, generator=generator, device=generator.device) * 2.0 - 1.0
        equal = forbid(observation.new_zeros(rows, policy.n_actions), policy.mask(observation))
        return draw_choices(equal, gumbel_noise(equal.shape, generator), policy.sizes)

    def noise(self, steps: int, rows: int, generator: torch.Generator) -> Tensor:
        """What :meth:`explore` draws from, for a whole rollout [steps, rows, n_actions]: normal or Gumbel's numbers."""
        if self.policy.discrete:
            return gumbel_noise((steps, rows, self.policy.n_actions), generator)
        return torch.randn(steps, rows, self.policy.n_actions, generator=generator, device=generator.device)

    @abstractmethod
    def explore(
        self, observation: Tensor, preference: Tensor, noise: Tensor, memory: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Sampled actions of one step.

        Args:
            observation: [rows, n_features].
            preference: [rows, n_objectives].
            noise: of this step, see :meth:`noise`; zeros give the distribution's mode.
            memory: [rows, memory_width].

        Returns:
            Actions (in (-1, 1) [rows, n_actions], or choices [rows, n_components]), what the learner wants to know of
            them, and the memory afterwards.
        """

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return dict(self.policy(batch["observation"], batch.get("preference"), batch.get("state")))
