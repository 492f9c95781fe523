"""Proximal policy optimisation on packed rollouts (Schulman et al. 2017, arXiv 1707.06347).

Advantages come from one backward sweep over [steps, rows] arrays. Values of every observation are known from
sampling, so nothing is evaluated twice; the update shuffles all valid decisions of all environments together.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlaas.errors import ConfigurationError
from rlaas.training.algorithm import PackedAlgorithm, PackedConfig, PackedLearner, PackedModule
from rlaas.training.conditioning import reward_scale
from rlaas.training.networks import GatedMLP
from rlaas.training.packed_runner import Rollout

__all__ = ["PPOAlgorithm", "PPOConfig", "PPOLearner", "PPOModule", "generalised_advantages"]


def generalised_advantages(
    reward: Tensor, value: Tensor, terminated: Tensor, truncated: Tensor, *, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2015, arXiv 1506.02438).

    Args:
        reward: [steps, rows].
        value: [steps + 1, rows]. Autoreset is NEXT_STEP, so the value after an episode's last step is that of its
            true last observation: a truncated episode bootstraps from it, a terminated one from nothing.
        terminated: [steps, rows] bool, the episode ended for good.
        truncated: [steps, rows] bool, it was cut off.
        gamma: discount factor.
        lam: the estimator's lambda: 0 trusts the values, 1 the rewards.

    Returns:
        Advantages [steps, rows]; those of automatic-reset steps are meaningless and to be masked.
    """
    alive = 1.0 - terminated.float()
    going_on = 1.0 - (terminated | truncated).float()
    delta = reward + gamma * alive * value[1:] - value[:-1]
    carry = gamma * lam * going_on
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + carry[t] * running
        advantage[t] = running
    return advantage


class PPOModule(PackedModule):
    """Policy and value network, apart from each other."""

    reward_scale: Tensor

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        shape = dict(self.model_config)
        self.critic = GatedMLP(
            shape["n_features"], shape["n_objectives"], shape["hidden"], 1, activation="tanh", last_gain=1.0
        )
        self.register_buffer("reward_scale", torch.tensor(0.0))

    def explore(
        self, observation: Tensor, preference: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sampled actions with ``log_prob`` [n] and ``value`` [n], and for a box ``before`` the tanh [n, n_actions]."""
        features = self.policy.features(observation, preference)
        heads, value = self.policy.heads(features), self.critic(features).squeeze(-1)
        if self.policy.discrete:
            # The Gumbel maximum is a sample of the softmax, without building the probabilities.
            uniform = torch.rand(heads["logits"].shape, generator=generator).clamp_min(1e-20)
            action = (heads["logits"] - (-uniform.log()).log()).argmax(dim=-1)
            return action, {"log_prob": self.log_prob(heads, action), "value": value}
        before = heads["mean"] + heads["log_std"].exp() * torch.randn(heads["mean"].shape, generator=generator)
        return torch.tanh(before), {"log_prob": self.log_prob(heads, before), "value": value, "before": before}

    def value(self, observation: Tensor, preference: Tensor) -> Tensor:
        """Values [n]."""
        values: Tensor = self.critic(self.policy.features(observation, preference))
        return values.squeeze(-1)

    def log_prob(self, heads: dict[str, Tensor], action: Tensor) -> Tensor:
        """Log-probability of choices [n], or log-density of box actions *before* the tanh [n, n_actions].

        The tanh's Jacobian depends on the action only, so it cancels in PPO's ratio.
        """
        if self.policy.discrete:
            return functional.log_softmax(heads["logits"], dim=-1).gather(-1, action[..., None]).squeeze(-1)
        noise = (action - heads["mean"]) / heads["log_std"].exp()
        return (-0.5 * noise.square() - heads["log_std"] - 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def entropy(self, heads: dict[str, Tensor]) -> Tensor:
        """Entropy in nats [n]; for a box that of the Gaussian before the tanh."""
        if self.policy.discrete:
            log_p = functional.log_softmax(heads["logits"], dim=-1)
            return -(log_p.exp() * log_p).sum(dim=-1)
        return (heads["log_std"] + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)


class PPOLearner(PackedLearner):
    """Minibatch epochs over one rollout."""

    def update_from_rollout(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Learn from ``rollout``.

        Args:
            rollout: with extras ``log_prob`` and ``value``.
            progress: share of the training behind us; the learning rate falls linearly to a tenth with it.

        Returns:
            Losses averaged over the minibatches.

        Raises:
            TrainingError: a loss is not finite.
        """
        settings, optimizer = self.training.ppo, self.optimizer
        for group in optimizer.param_groups:
            group["lr"] = float(self.config.lr) * (1.0 - 0.9 * min(max(progress, 0.0), 1.0))
        rows = self._rows(rollout)
        n = len(rows["advantage"])
        totals, count = torch.zeros(3), 0
        params = [p for group in optimizer.param_groups for p in group["params"]]
        for _ in range(settings.epochs):
            order = torch.randperm(n, generator=self.generator)
            # The rest that does not fill a minibatch is dropped: another order brings it back in the next epoch.
            for start in range(0, max(n - settings.minibatch + 1, 1), settings.minibatch):
                index = order[start : start + settings.minibatch]
                parts = self.losses({name: value.index_select(0, index) for name, value in rows.items()})
                optimizer.zero_grad(set_to_none=True)
                self._total(parts).backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(params, settings.max_grad_norm)
                optimizer.step()
                totals += parts.detach()
                count += 1
        self.updates += count
        names = ("policy_loss", "value_loss", "entropy")
        return self.check_losses(dict(zip(names, (totals / count).tolist(), strict=True)))

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Policy loss, value loss and entropy of a minibatch [3]."""
        net = self.net
        features = net.policy.features(batch["observation"], batch["preference"])
        heads = net.policy.heads(features)
        ratio = (net.log_prob(heads, batch["action"]) - batch["log_prob"]).exp()
        advantage = batch["advantage"]
        clip = self.training.ppo.clip
        policy_loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        value_loss = 0.5 * (net.critic(features).squeeze(-1) - batch["wanted"]).square().mean()
        return torch.stack((policy_loss, value_loss, net.entropy(heads).mean()))

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
        """RLlib's hook: the weighted loss of a minibatch as :meth:`losses` takes it."""
        return self._total(self.losses(batch))

    def _total(self, parts: Tensor) -> Tensor:
        settings = self.training.ppo
        return parts[0] + settings.value_coefficient * parts[1] - settings.entropy * parts[2]

    def _rows(self, rollout: Rollout) -> dict[str, Tensor]:
        """Advantages and wanted values of all valid decisions, flattened to [n, ...]."""
        keep = rollout.valid
        scalar = (rollout.reward * rollout.preference).sum(dim=-1).float()
        if float(self.net.reward_scale) == 0.0:
            # Fixed after the first rollout: a scale that moved would move the values' meaning with it.
            self.net.reward_scale.fill_(self._scale(scalar, rollout))
        value = rollout.extras["value"]
        advantage = generalised_advantages(
            scalar * self.net.reward_scale,
            value,
            rollout.terminated,
            rollout.truncated,
            gamma=self.config.gamma,
            lam=self.training.ppo.gae_lambda,
        )
        wanted = (advantage + value[:-1])[keep]
        flat = advantage[keep]
        action = rollout.action if self.net.policy.discrete else rollout.extras["before"]
        return {
            "observation": rollout.observation[:-1][keep],
            "preference": rollout.preference[keep],
            "action": action[keep],
            "log_prob": rollout.extras["log_prob"][keep],
            "advantage": (flat - flat.mean()) / (flat.std() + 1e-8),
            "wanted": wanted,
        }

    def _scale(self, scalar: Tensor, rollout: Rollout) -> float:
        """Scale of the rewards [steps, rows] by the deviation of the returns they discount to."""
        nothing = torch.zeros(len(scalar) + 1, scalar.shape[1])
        returns = generalised_advantages(
            scalar, nothing, rollout.terminated, rollout.truncated, gamma=self.config.gamma, lam=1.0
        )
        kept = returns[rollout.valid]
        return reward_scale(float(kept.std()), float(kept.mean()))


class PPOConfig(PackedConfig):
    """RLlib configuration of :class:`PPOAlgorithm`."""

    module_class = PPOModule
    learner_type = PPOLearner
    activation = "tanh"

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PPOAlgorithm)


class PPOAlgorithm(PackedAlgorithm):
    """PPO with the packed runner."""

    config_class = PPOConfig

    def setup(self, config: Any) -> None:
        """Build everything.

        Raises:
            ConfigurationError: a rollout does not fill a minibatch.
        """
        super().setup(config)
        ppo = self.training.ppo
        rows = ppo.rollout_length * self.runner.rows
        if rows < ppo.minibatch:
            raise ConfigurationError(
                f"ppo.minibatch {ppo.minibatch} exceeds a rollout of {rows} decisions "
                "(ppo.rollout_length times the rows); lower it or raise num_envs",
                field="ppo.minibatch",
            )

    def training_step(self) -> None:
        """One rollout and the epochs over it."""
        before = self.steps_done
        rollout = self.runner.sample(num_timesteps=self.training.ppo.rollout_length)
        losses = self.learner.update_from_rollout(rollout, before / self.training.steps)
        self.log_progress(self.steps_done - before, losses)
