"""Proximal policy optimisation on packed rollouts (Schulman et al. 2017, arXiv 1707.06347).

Advantages come from one backward sweep over [steps, rows] arrays. Values of every observation are known from
sampling, so nothing is evaluated twice; the update shuffles all valid decisions of all environments together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlaas.errors import ConfigurationError
from rlaas.training.algorithm import PackedAlgorithm, PackedConfig, PackedLearner, PackedModule
from rlaas.training.backprop import Pass
from rlaas.training.conditioning import reward_scale
from rlaas.training.networks import GatedMLP, log_std_of, log_std_slope, normal_entropy, normal_log_density
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

    def noise(self, steps: int, rows: int, generator: torch.Generator) -> Tensor:
        """Normal numbers for a box, and for choices Gumbel's: the largest sum with the logits samples the softmax."""
        if not self.policy.discrete:
            return super().noise(steps, rows, generator)
        uniform = torch.rand(steps, rows, self.policy.n_actions, generator=generator).clamp_(min=1e-20)
        return uniform.log_().neg_().log_().neg_()

    def explore(self, observation: Tensor, preference: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sampled actions, with the distribution's parameters."""
        heads = self.policy.heads(self.policy.features(observation, preference))
        if self.policy.discrete:
            action = (heads["logits"] + noise).argmax(dim=-1)
            return action, {**heads, "taken": action}
        before = heads["mean"] + heads["log_std"].exp() * noise
        return torch.tanh(before), {**heads, "taken": before}

    def complete(
        self, observation: Tensor, preference: Tensor, later: Tensor, extras: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """``log_prob`` [steps, rows], ``value`` [steps + 1, rows], ``taken``: choices, or actions before the tanh."""
        asked = torch.cat((preference, later[None]))
        features = self.policy.features(observation.flatten(0, 1), asked.flatten(0, 1))
        return {
            "log_prob": self.log_prob(extras, extras["taken"]),
            "value": self.critic(features).view(observation.shape[:2]),
            "taken": extras["taken"],
        }

    def log_prob(self, heads: dict[str, Tensor], action: Tensor) -> Tensor:
        """Log-probability of choices [n], or log-density of box actions *before* the tanh [n, n_actions].

        The tanh's Jacobian depends on the action only, so it cancels in PPO's ratio.
        """
        if self.policy.discrete:
            return functional.log_softmax(heads["logits"], dim=-1).gather(-1, action[..., None]).squeeze(-1)
        noise = (action - heads["mean"]) / heads["log_std"].exp()
        return normal_log_density(noise, heads["log_std"])

    def entropy(self, heads: dict[str, Tensor]) -> Tensor:
        """Entropy in nats [n]; for a box that of the Gaussian before the tanh."""
        if self.policy.discrete:
            log_p = functional.log_softmax(heads["logits"], dim=-1)
            return -(log_p.exp() * log_p).sum(dim=-1)
        return normal_entropy(heads["log_std"])


class PPOLearner(PackedLearner):
    """Minibatch epochs over one rollout."""

    def build(self) -> None:
        """Build RLlib's parts, and the passes through both networks."""
        super().build()
        self._actor, self._critic = Pass(self.net.policy.body), Pass(self.net.critic)

    def update_from_rollout(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Learn from ``rollout``.

        Args:
            rollout: with the extras of :meth:`PPOModule.complete`.
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
        minibatch = min(settings.minibatch, n)
        # One gather an epoch brings all of a decision into its new place.
        joined = torch.cat([value.reshape(n, -1).float() for value in rows.values()], dim=1)
        widths = [value[0].numel() for value in rows.values()]
        totals, count = torch.zeros(3), 0
        with torch.no_grad():
            for _ in range(settings.epochs):
                shuffled = joined.index_select(0, torch.randperm(n, generator=self.generator))
                # The rest that does not fill a minibatch is dropped: another order brings it back in the next epoch.
                for start in range(0, n - minibatch + 1, minibatch):
                    parts = self._step(*torch.split(shuffled[start : start + minibatch], widths, dim=1))
                    self.flat.pull()
                    self.flat.clip(settings.max_grad_norm)
                    optimizer.advance()
                    totals += parts
                    count += 1
        self.updates += count
        names = ("policy_loss", "value_loss", "entropy")
        return self.check_losses(dict(zip(names, (totals / count).tolist(), strict=True)))

    def _step(self, features: Tensor, action: Tensor, log_prob: Tensor, advantage: Tensor, wanted: Tensor) -> Tensor:
        """Losses of a minibatch [3] as :meth:`losses` gives them, and the gradients of their sum in the parameters.

        Args:
            features: [n, n_features + n_objectives].
            action: choices [n, 1], or box actions before the tanh [n, n_actions].
            log_prob, advantage, wanted: [n, 1].
        """
        settings, n = self.training.ppo, len(features)
        out = self._actor.forward(features)
        if self.net.policy.discrete:
            choice = action.long()
            log_p = functional.log_softmax(out, dim=1)
            p = log_p.exp()
            now = log_p.gather(1, choice)
            entropy = -(p * log_p).sum(dim=1, keepdim=True)
        else:
            mean, raw = torch.split(out, self.net.policy.n_actions, dim=1)
            squashed = torch.tanh(raw)
            log_std = log_std_of(squashed)
            per_std = (-log_std).exp()
            noise = (action - mean) * per_std
            now = normal_log_density(noise, log_std).unsqueeze(1)
            entropy = normal_entropy(log_std).unsqueeze(1)
        ratio = (now - log_prob).exp_()
        clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
        free, bound = ratio * advantage, clipped * advantage
        # Where the bound is the smaller one, and differs, the loss does not depend on the policy.
        toward = torch.where(free <= bound, free, 0.0).mul_(-1.0 / n)
        bonus = settings.entropy / n
        if self.net.policy.discrete:
            gradient = p * (bonus * (log_p + entropy) - toward)
            gradient.scatter_add_(1, choice, toward)
        else:
            spread = toward * (noise.square() - 1.0) - bonus
            gradient = torch.cat((toward * noise * per_std, spread * log_std_slope(squashed)), dim=1)
        self._actor.backward(gradient)
        missing = self._critic.forward(features).sub_(wanted)
        self._critic.backward(missing * (settings.value_coefficient / n))
        return torch.stack((-torch.minimum(free, bound).mean(), 0.5 * missing.square().mean(), entropy.mean()))

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Policy loss, value loss and entropy of a minibatch [3]."""
        net, features = self.net, batch["features"]
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
        return {
            "features": self.net.policy.features(rollout.observation[:-1][keep], rollout.preference[keep]),
            "action": rollout.extras["taken"][keep],
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

    @property
    def calibrated(self) -> bool:
        """Whether a first rollout, or somebody else, has set the returns' scale."""
        return float(self.learner.net.reward_scale) != 0.0

    def training_step(self) -> None:
        """One rollout and the epochs over it."""
        before = self.steps_done
        rollout = self.runner.sample(num_timesteps=self.training.ppo.rollout_length)
        losses = self.learner.update_from_rollout(rollout, before / self.training.steps)
        self.log_progress(self.steps_done - before, losses)
