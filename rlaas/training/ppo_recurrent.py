"""PPO with a memory: policy and critic each behind an LSTM, trained on whole rollouts (truncated backpropagation).

A minibatch holds some rows' rollouts from their first step to their last. The memory before the first step is the one
that sampling left, so nothing is warmed up anew; where an episode begins, it begins empty. Gradients are autograd's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlaas.training.ppo_learner import PPOLearner, PPOModule
from rlaas.training.recurrence import Memory
from rlaas.training.rollouts import Rollout

__all__ = ["RecurrentPPOLearner", "RecurrentPPOModule"]


class RecurrentPPOModule(PPOModule):
    """Policy and value network, each with a memory of its own; a row's state is the policy's, then the critic's."""

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        policy = self.policy
        assert policy.memory is not None
        self.critic_memory = Memory(policy.n_seen + policy.n_objectives, policy.memory.hidden)

    @property
    def memory_width(self) -> int:
        """Numbers of both states."""
        return 2 * self.critic_memory.width

    def critic_parameters(self) -> list[nn.Parameter]:
        """Critic and its memory."""
        return [*super().critic_parameters(), *self.critic_memory.parameters()]

    def explore(
        self, observation: Tensor, preference: Tensor, noise: Tensor, memory: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Sampled actions, with the distribution's parameters, and both memories moved on."""
        policy = self.policy
        features = policy.features(observation, preference)
        own, critics = memory.chunk(2, dim=1)
        seen, own = policy.remember(features, own)
        critics = self.critic_memory.step(features, critics)
        return *self.draw(policy.heads(seen, policy.mask(observation)), noise), torch.cat((own, critics), dim=1)

    def values(self, features: Tensor, memory: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Values [steps, rows, n_rewards] along features [steps, rows, n], and the critic's state afterwards."""
        remembered, state = self.critic_memory.scan(features, memory, fresh)
        inside = self.policy.beside_preference(remembered, features)
        return self.critic(inside.flatten(0, 1)).view(*features.shape[:2], -1), state

    def heads_along(self, features: Tensor, mask: Tensor | None, memory: Tensor, fresh: Tensor) -> dict[str, Tensor]:
        """Distribution parameters [steps, rows, ...] along features [steps, rows, n]."""
        assert self.policy.memory is not None
        remembered, _ = self.policy.memory.scan(features, memory, fresh)
        seen = self.policy.beside_preference(remembered, features).flatten(0, 1)
        heads = self.policy.heads(seen, None if mask is None else mask.flatten(0, 1))
        return {name: value.view(*features.shape[:2], -1) for name, value in heads.items()}


class RecurrentPPOLearner(PPOLearner):
    """Minibatches of whole rollouts."""

    def build(self) -> None:
        """Build RLlib's parts; the passes that the feed-forward learner writes out are autograd's here."""
        super().build()
        self._parameters = self.trained_parameters(self.net)

    def _epochs(self, rollout: Rollout) -> tuple[Tensor, int]:
        settings, net = self.training.ppo, self.net
        steps, rows = rollout.valid.shape
        features = net.policy.features(rollout.observation, rollout.preference)
        fresh = self._fresh(rollout)
        own, critics = rollout.memory.chunk(2, dim=1)
        value, following = self._values(rollout, features, critics, fresh)
        advantage, wanted = self.advantages(rollout, value, following)
        keep = rollout.valid
        spread = torch.zeros(steps, rows, device=keep.device)
        spread[keep] = advantage
        log_prob = net.log_prob(rollout.extras, rollout.extras["taken"])
        mask = rollout.observation[:-1, :, net.policy.n_seen :] if net.policy.masked else None
        together = max(1, settings.minibatch // steps)
        together = min(together, rows - rows % self.world)
        totals, count = torch.zeros(3, device=keep.device), 0
        for _ in range(settings.epochs):
            for turn in torch.split(self.epoch_order(rows, together).to(keep.device), together):
                chosen = self.own(turn)
                counts = keep[:, chosen]
                with torch.enable_grad():
                    part = features[:-1, chosen]
                    heads = net.heads_along(
                        part, None if mask is None else mask[:, chosen], own[chosen], fresh[:-1, chosen]
                    )
                    values, _ = net.values(part, critics[chosen], fresh[:-1, chosen])
                    batch = {
                        "action": rollout.extras["taken"][:, chosen][counts],
                        "log_prob": log_prob[:, chosen][counts][:, None],
                        "advantage": spread[:, chosen][counts][:, None],
                        "wanted": wanted[:, chosen][counts],
                    }
                    parts = self.losses_of({k: v[counts] for k, v in heads.items()}, values[counts], batch)
                    gradients = torch.autograd.grad(self.total(parts), self._parameters, allow_unused=True)
                for parameter, gradient in zip(self._parameters, gradients, strict=True):
                    assert parameter.grad is not None
                    if gradient is None:
                        parameter.grad.zero_()
                    else:
                        parameter.grad.copy_(gradient)
                self._advance()
                totals += parts.detach()
                count += 1
        return totals, count

    def _fresh(self, rollout: Rollout) -> Tensor:
        """1 where the memory begins empty [steps + 1, rows]: at an episode's first observation inside the rollout.

        Before the first step the sampling runner has already emptied what had to be.
        """
        first = torch.zeros(1, rollout.valid.shape[1], dtype=torch.bool, device=rollout.valid.device)
        reset = rollout.terminated | rollout.truncated if rollout.final is not None else ~rollout.valid
        return torch.cat((first, reset)).float()

    def _values(
        self, rollout: Rollout, features: Tensor, memory: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Values of every observation [steps + 1, rows, n_rewards], and of true last ones where resets hide them."""
        net = self.net
        if rollout.final is None:
            return net.values(features, memory, fresh)[0], None
        values, following, state = [], [], memory
        ahead = net.policy.features(rollout.final, rollout.preference[:-1])
        for t in range(len(features)):
            value, state = net.values(features[t : t + 1], state, fresh[t : t + 1])
            values.append(value)
            if t < len(ahead):
                following.append(net.values(ahead[t : t + 1], state, torch.zeros_like(fresh[t : t + 1]))[0])
        return torch.cat(values), torch.cat(following)
