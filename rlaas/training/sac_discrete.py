"""Soft actor-critic for one choice of several (Christodoulou 2019, arXiv 1910.07207).

Critics give the values of every choice at once, so expectations over the policy are sums instead of samples: the
target is the expected value of the next state, and the actor's loss needs no draw.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from rlaas.training.distributions import draw_choices, forbid
from rlaas.training.networks import TwinCritic
from rlaas.training.sac_learner import HUBER_DELTA, SACLearner, SACModule, utility

__all__ = ["DiscreteSACLearner", "DiscreteSACModule"]

USUAL_SHARE = 0.5
"""Share of the entropy of equal chances that the temperature aims for, where nothing else is configured."""


class DiscreteSACModule(SACModule):
    """Critics with ``n_actions`` times as many heads and no action among their inputs."""

    @property
    def action_inputs(self) -> int:
        """None: the heads tell the choices apart."""
        return 0

    @property
    def critic_outputs(self) -> int:
        """Values of every choice, one choice behind another."""
        return self.policy.n_actions * (self.n_rewards + 1)

    def bias_of_rewards(self, network: TwinCritic) -> Tensor:
        """The biases behind the rewards' values (a view) [2, 1, n_actions, n_rewards]."""
        biases: Tensor = network.biases[-1]
        return biases.view(2, 1, self.policy.n_actions, -1)[..., : self.n_rewards]

    def by_choice(self, values: Tensor) -> Tensor:
        """Critics' outputs [2, n, ...] as [2, n, n_actions, n_rewards + 1]."""
        return values.view(*values.shape[:2], self.policy.n_actions, -1)

    def explore(
        self, observation: Tensor, preference: Tensor, noise: Tensor, memory: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Sampled choices [rows, 1]."""
        heads = self.policy.heads(self.policy.features(observation, preference), self.policy.mask(observation))
        return draw_choices(heads["logits"], noise, self.policy.sizes), {}, memory


class DiscreteSACLearner(SACLearner):
    """The learner of :class:`SACAlgorithm` for choices."""

    def losses(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Critic, actor and temperature loss, and the policy's entropy in nats [4]; ``noise`` is not needed."""
        net = self.net
        temperature = net.log_temperature.exp().detach()
        now = net.policy.features(batch["observation"], batch["preference"])
        inside = net.inside(now, batch.get("context"))
        values = net.by_choice(net.critic(inside))
        index = batch["action"].long()[None, :, :, None].expand(2, -1, 1, values.shape[-1])
        predicted = values.gather(2, index).squeeze(2)
        wanted = self._wanted(batch, noise).expand_as(predicted)
        errors = functional.huber_loss(predicted, wanted, reduction="none", delta=HUBER_DELTA)
        critic_loss = errors.mean(dim=1).sum()
        log_p = functional.log_softmax(net.policy.heads(now, net.policy.mask(batch["observation"]))["logits"], dim=1)
        p = log_p.exp()
        best = self._utilities(values.detach(), batch["preference"]).amin(dim=0)
        moves = self._moves()
        actor_loss = moves * (p * (temperature * log_p - best)).sum(dim=1).mean()
        entropy = -(p * log_p).sum(dim=1).mean().detach()
        temperature_loss = -moves * net.log_temperature * self._shortfall(entropy, net.policy.n_actions)
        return torch.stack((critic_loss, actor_loss, temperature_loss, entropy))

    def _step(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """What :meth:`losses` gives, and the gradients of the sum of its losses in the parameters."""
        net, n, moves = self.net, len(batch["action"]), self._moves()
        temperature = net.log_temperature.exp()
        wanted = self._wanted(batch, noise)
        now = net.policy.features(batch["observation"], batch["preference"])
        mask = net.policy.mask(batch["observation"])
        outputs = self._critic.forward(net.inside(now, batch.get("context")))
        values = net.by_choice(outputs)
        index = batch["action"].long()[None, :, :, None].expand(2, -1, 1, values.shape[-1])
        error = values.gather(2, index).squeeze(2) - wanted
        bounded = error.clamp(-HUBER_DELTA, HUBER_DELTA)
        critic_loss = (bounded * (error - 0.5 * bounded)).sum() / n
        slope = torch.zeros_like(values).scatter_(2, index, (bounded / n).unsqueeze(2))
        self._critic.backward(slope.view_as(outputs))

        log_p = functional.log_softmax(forbid(self._actor.forward(now), mask), dim=1)
        p = log_p.exp()
        cost = temperature * log_p - self._utilities(values, batch["preference"]).amin(dim=0)
        expected = (p * cost).sum(dim=1, keepdim=True)
        gradient = p * (cost - expected) * (moves / n)
        self._actor.backward(gradient if mask is None else gradient * mask)

        entropy = -(p * log_p).sum(dim=1).mean()
        shortfall = self._shortfall(entropy, net.policy.n_actions)
        assert net.log_temperature.grad is not None
        net.log_temperature.grad.copy_(-moves * shortfall)
        return torch.stack((critic_loss, moves * expected.mean(), -moves * net.log_temperature * shortfall, entropy))

    def _utilities(self, values: Tensor, preference: Tensor) -> Tensor:
        """Utility of every choice [2, n, n_actions] for values [2, n, n_actions, n_rewards + 1]."""
        return utility(values, self.net.weights(preference)[:, None, :])

    def _wanted(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """What the critics should say of the choice that was made [n, n_rewards + 1]."""
        net, policy = self.net, self.net.policy
        with torch.no_grad():
            later = policy.features(batch["next_observation"], batch["preference"])
            values = net.by_choice(net.target(net.inside(later, batch.get("next_context"))))
            log_p = functional.log_softmax(policy.heads(later, policy.mask(batch["next_observation"]))["logits"], dim=1)
            p = log_p.exp()
            smaller = self._utilities(values, batch["preference"]).argmin(dim=0)
            chosen = torch.where((smaller == 0)[..., None], values[0], values[1])
            expected = (p[..., None] * chosen).sum(dim=1)
            self.observe_returns(batch["preference"], expected)
            expected[:, -1] -= net.log_temperature.exp() * (p * log_p).sum(dim=1)
            return self._targets(batch, expected)

    def _noise(self, action: Tensor) -> Tensor:
        """Nothing: expectations are sums."""
        return action.new_empty(2, len(action), 0)

    def _usual_entropy(self, n_actions: int) -> float:
        """Half of the entropy of equal chances."""
        return USUAL_SHARE * math.log(n_actions)
