"""Proximal policy optimisation on packed rollouts (Schulman et al. 2017, arXiv 1707.06347).

Advantages come from one backward sweep over [steps, rows, objectives] arrays. The critic has a head for each objective:
advantages are estimated for each, then weighed by the preference, then standardised, so that what one objective's
value is does not depend on what the others are worth. The update shuffles all valid decisions of all environments
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rlaas.training.backprop import Pass
from rlaas.training.distributions import (
    choice_entropies,
    choice_log_prob,
    choice_log_probs,
    draw_choices,
    forbid,
    log_std_slope,
    normal_entropy,
    normal_log_density,
    places,
)
from rlaas.training.networks import GatedMLP
from rlaas.training.packed_learner import PackedLearner
from rlaas.training.packed_module import PackedModule
from rlaas.training.rollouts import Rollout

__all__ = ["PPOLearner", "PPOModule", "generalised_advantages"]


def generalised_advantages(
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lam: float,
    following: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2015, arXiv 1506.02438).

    Args:
        reward: [steps, rows], or [steps, rows, n] for several rewards at once.
        value: [steps + 1, rows] or [steps + 1, rows, n].
        terminated: [steps, rows] bool, the episode ended for good.
        truncated: [steps, rows] bool, it was cut off.
        gamma: discount factor.
        lam: the estimator's lambda: 0 trusts the values, 1 the rewards.
        following: value of what each step led to, shaped as ``reward``: a truncated episode bootstraps from it, a
            terminated one from nothing. None for ``value[1:]``, which with next-step autoreset is just that.

    Returns:
        Advantages, shaped as ``reward``; those of automatic-reset steps are meaningless and to be masked.
    """
    alive = 1.0 - terminated.float()
    going_on = 1.0 - (terminated | truncated).float()
    if reward.dim() == 3:
        alive, going_on = alive[..., None], going_on[..., None]
    delta = reward + gamma * alive * (value[1:] if following is None else following) - value[:-1]
    carry = gamma * lam * going_on
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = delta[t] + carry[t] * running
        advantage[t] = running
    return advantage


class PPOModule(PackedModule):
    """Policy and value network, apart from each other."""

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        shape = dict(self.model_config)
        self.critic = GatedMLP(
            (shape["memory"] or self.policy.n_seen) + self.n_context,
            shape["n_preferences"],
            shape["hidden"],
            self.n_rewards,
            activation="tanh",
            last_gain=1.0,
        )

    def critic_parameters(self) -> list[nn.Parameter]:
        """What the value loss moves."""
        return list(self.critic.parameters())

    def explore(
        self, observation: Tensor, preference: Tensor, noise: Tensor, memory: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Sampled actions, with the distribution's parameters."""
        heads = self.policy.heads(self.policy.features(observation, preference), self.policy.mask(observation))
        return *self.draw(heads, noise), memory

    def draw(self, heads: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Actions, and beside the parameters what was ``taken``: choices, or numbers before the tanh."""
        if self.policy.discrete:
            action = draw_choices(heads["logits"], noise, self.policy.sizes)
            return action, {**heads, "taken": action}
        before = heads["mean"] + heads["log_std"].exp() * noise
        return torch.tanh(before), {**heads, "taken": before}

    def log_prob(self, heads: Mapping[str, Tensor], action: Tensor) -> Tensor:
        """Log-probability of choices [..., n_components], or log-density of numbers *before* the tanh [..., n_actions].

        The tanh's Jacobian depends on the action only, so it cancels in PPO's ratio.
        """
        if self.policy.discrete:
            log_probs = choice_log_probs(heads["logits"], self.policy.sizes)
            return choice_log_prob(log_probs, action.long(), self.policy.sizes)
        noise = (action - heads["mean"]) / heads["log_std"].exp()
        return normal_log_density(noise, heads["log_std"])

    def entropy(self, heads: Mapping[str, Tensor]) -> Tensor:
        """Entropy in nats [...] of all components; for a box that of the Gaussian before the tanh."""
        if self.policy.discrete:
            log_p = choice_log_probs(heads["logits"], self.policy.sizes)
            return -(log_p.exp() * log_p).sum(dim=-1)
        return normal_entropy(heads["log_std"])


class PPOLearner(PackedLearner):
    """Minibatch epochs over one rollout."""

    def build(self) -> None:
        """Build RLlib's parts, and the passes through both networks."""
        super().build()
        self._actor, self._critic = Pass(self.net.policy.body), Pass(self.net.critic)
        self._clip: Any = self.training.ppo.clip
        self._policy_size = sum(parameter.numel() for parameter in self.net.policy.parameters())

    def trained_parameters(self, module: PackedModule) -> list[nn.Parameter]:
        """Policy, then critic."""
        assert isinstance(module, PPOModule)
        return [*module.policy.parameters(), *module.critic_parameters()]

    def update_from_rollout(self, rollout: Rollout | dict[str, Any], progress: float) -> dict[str, float]:
        """Learn from ``rollout``.

        Args:
            rollout: packed experience, or its arrays.
            progress: share of the training behind us; learning rate and clip fall linearly with it, noise by a constant
                factor, as configured.

        Returns:
            Losses averaged over the minibatches.

        Raises:
            TrainingError: a loss is not finite.
        """
        if isinstance(rollout, dict):
            rollout = Rollout.of_arrays(rollout)
        settings, passed = self.training.ppo, min(max(progress, 0.0), 1.0)
        rate = float(self.config.lr) * (1.0 - (1.0 - settings.final_rate) * passed)
        for group in self.optimizer.param_groups:
            group["lr"] = self._set(group["lr"], rate)
        self._clip = self._set(self._clip, settings.clip * (1.0 - (1.0 - settings.final_clip) * passed))
        with torch.no_grad():
            totals, count = self._epochs(rollout.to(self.device))
        self.updates += count
        # After the update: what the rollout says of its own probabilities was true until now.
        if not self.net.policy.discrete and settings.final_noise < 1.0:
            falling = max(0.0, passed - settings.noise_from) / (1.0 - settings.noise_from)
            self.net.policy.leave_noise(settings.final_noise**falling)
        names = ("policy_loss", "value_loss", "entropy")
        return self.check_losses(dict(zip(names, (totals / count).tolist(), strict=True)))

    def _set(self, place: Any, value: float) -> float | Tensor:
        """``value``; for captured updates in a place on the device, which they read anew each time."""
        if self.training.device is None:
            return value
        if isinstance(place, Tensor) and place.device == self.device:
            return place.fill_(value)
        # The first time, and after a restoration.
        self._captured.clear()
        return torch.tensor(value, device=self.device)

    def _epochs(self, rollout: Rollout) -> tuple[Tensor, int]:
        """Sums of the minibatches' losses [3], and their number."""
        settings = self.training.ppo
        rows = self._rows(rollout)
        n = len(rows["advantage"])
        minibatch = min(settings.minibatch, n - n % self.world)
        # One gather an epoch brings all of a decision into its new place.
        joined = torch.cat([value.reshape(n, -1).float() for value in rows.values()], dim=1)
        widths = [value[0].numel() for value in rows.values()]
        totals, count = torch.zeros(3, device=joined.device), 0
        update = self.captured(partial(self._update, tuple(rows), tuple(widths)), under=minibatch)
        for _ in range(settings.epochs):
            shuffled = joined.index_select(0, self.epoch_order(n, minibatch).to(joined.device))
            for part in torch.split(shuffled, minibatch):
                totals += update(self.own(part))
                count += 1
        return totals, count

    def epoch_order(self, n: int, size: int) -> Tensor:
        """What an epoch over ``n`` takes in turn, in a new order each time [a multiple of ``size``].

        Where they do not fill the last minibatch it takes some of the first again, or a few are left out until the
        next epoch, whatever is nearer: all minibatches are of one size, as captured updates want them.
        """
        order = torch.randperm(n, generator=self.generator, device=self.generator.device)
        wanted = round(n / size) * size
        return (order.repeat(2) if wanted > n else order)[:wanted]

    def _update(self, names: Sequence[str], widths: Sequence[int], rows: Tensor) -> Tensor:
        """One update with a minibatch whose fields stand side by side; returns its losses [3]."""
        losses = self._step(dict(zip(names, torch.split(rows, list(widths), dim=1), strict=True)))
        self._advance()
        return losses

    def _advance(self) -> None:
        """Take the step that the gradients ask for."""
        self.share()
        # Each by itself, if not asked otherwise: a critic that is far off shortens the policy's steps with its own.
        settings = self.training.ppo
        self.flat.clip(settings.max_grad_norm, first=None if settings.clip_jointly else self._policy_size)
        self.optimizer.advance()

    def _step(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Losses of a minibatch [3] as :meth:`losses` gives them, and the gradients of their sum in the parameters.

        Args:
            batch: ``features`` [n, n_seen + n_preferences], ``action`` (choices [n, n_components], or numbers before
                the tanh [n, n_actions]), ``log_prob`` and ``advantage`` [n, 1], ``wanted`` [n, n_rewards]; where there
                is one, ``mask`` [n, n_actions] and what the critic sees, ``inside``.
        """
        settings, policy, features = self.training.ppo, self.net.policy, batch["features"]
        n, action, advantage, mask = len(features), batch["action"], batch["advantage"], batch.get("mask")
        out = self._actor.forward(features)
        if policy.discrete:
            choice = places(action.long(), policy.sizes)
            log_p = choice_log_probs(forbid(out, mask), policy.sizes)
            p = log_p.exp()
            now = log_p.gather(1, choice).sum(dim=1, keepdim=True)
            entropy = -(p * log_p).sum(dim=1, keepdim=True)
        else:
            mean, raw = torch.split(out, policy.n_actions, dim=1)
            squashed = torch.tanh(raw)
            log_std = policy.log_std(squashed)
            per_std = (-log_std).exp()
            noise = (action - mean) * per_std
            now = normal_log_density(noise, log_std).unsqueeze(1)
            entropy = normal_entropy(log_std).unsqueeze(1)
        ratio = (now - batch["log_prob"]).exp_()
        clipped = ratio.clamp(1.0 - self._clip, 1.0 + self._clip)
        free, bound = ratio * advantage, clipped * advantage
        # Where the bound is the smaller one, and differs, the loss does not depend on the policy.
        toward = torch.where(free <= bound, free, 0.0).mul_(-1.0 / n)
        bonus = settings.entropy / n
        if policy.discrete:
            gradient = p * (bonus * (log_p + choice_entropies(log_p, policy.sizes)) - toward)
            gradient.scatter_add_(1, choice, toward.expand_as(choice))
            if mask is not None:
                gradient *= mask
        else:
            spread = toward * (noise.square() - 1.0) - bonus
            gradient = torch.cat((toward * noise * per_std, spread * log_std_slope(squashed)), dim=1)
        self._actor.backward(gradient)
        missing = self._critic.forward(batch.get("inside", features)).sub_(batch["wanted"])
        self._critic.backward(missing * (settings.value_coefficient / n))
        return torch.stack((-torch.minimum(free, bound).mean(), 0.5 * missing.square().sum() / n, entropy.mean()))

    def losses(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Policy loss, value loss and entropy of a minibatch [3]; see :meth:`_step`."""
        net, features = self.net, batch["features"]
        heads = net.policy.heads(features, batch.get("mask"))
        value = net.critic(batch.get("inside", features))
        return self.losses_of(heads, value, batch)

    def losses_of(self, heads: Mapping[str, Tensor], value: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Policy loss, value loss and entropy [3] of what the networks say about a minibatch."""
        ratio = (self.net.log_prob(heads, batch["action"])[..., None] - batch["log_prob"]).exp()
        advantage, clip = batch["advantage"], self._clip
        policy_loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
        value_loss = 0.5 * (value - batch["wanted"]).square().sum(dim=-1).mean()
        return torch.stack((policy_loss, value_loss, self.net.entropy(heads).mean()))

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
        """RLlib's hook: the weighted loss of a minibatch as :meth:`losses` takes it."""
        return self.total(self.losses(batch))

    def total(self, parts: Tensor) -> Tensor:
        """The weighted sum of :meth:`losses` that is minimised."""
        settings = self.training.ppo
        return parts[0] + settings.value_coefficient * parts[1] - settings.entropy * parts[2]

    def _rows(self, rollout: Rollout) -> dict[str, Tensor]:
        """Advantages and wanted values of all valid decisions, flattened to [n, ...]."""
        net, rows = self.net, rollout.rows
        features = net.policy.features(rollout.observation, rollout.preference)
        context = rollout.context() if net.n_context else None
        inside = features
        if context is not None:
            inside = net.inside(features.flatten(0, 1), context.flatten(0, 1)).view(*features.shape[:2], -1)
        value = net.critic(inside.flatten(0, 1)).view(*features.shape[:2], -1)
        following = None if rollout.final is None else self._values_after(rollout)
        advantage, wanted = self.advantages(rollout, value, following)
        found = {
            "features": rows(features[:-1]),
            "action": rows(rollout.extras["taken"]),
            "log_prob": rows(net.log_prob(rollout.extras, rollout.extras["taken"]))[:, None],
            "advantage": advantage[:, None],
            "wanted": rows(wanted),
        }
        if net.policy.masked:
            found["mask"] = rows(rollout.observation[:-1, :, net.policy.n_seen :])
        if context is not None:
            found["inside"] = rows(inside[:-1])
        return found

    def advantages(self, rollout: Rollout, value: Tensor, following: Tensor | None) -> tuple[Tensor, Tensor]:
        """Standardised advantages of valid decisions [n], and the values wanted everywhere [steps, rows, n_rewards].

        Args:
            rollout: packed experience.
            value: of every observation, in scaled units [steps + 1, rows, n_rewards].
            following: of what each step led to, where that is not ``value[1:]``.
        """
        net, rows = self.net, rollout.rows
        reward = rollout.reward.float()
        if float(net.reward_scale[0]) == 0.0:
            self._calibrate(rollout, reward)
        each = generalised_advantages(
            reward * net.reward_scale,
            value,
            rollout.terminated,
            rollout.truncated,
            gamma=self.config.gamma,
            lam=self.training.ppo.gae_lambda,
            following=following,
        )
        wanted = each + value[:-1]
        preference = rows(rollout.preference[:-1])
        self.observe_returns(preference, rows(wanted))
        scalar = (rows(each) * net.weights(preference)).sum(dim=1)
        return (scalar - scalar.mean()) / (scalar.std() + 1e-8), wanted

    def _values_after(self, rollout: Rollout) -> Tensor:
        """Values of what each step led to [steps, rows, n_rewards]: true last observations, not what follows resets."""
        net, final = self.net, rollout.following.flatten(0, 1)
        features = net.policy.features(final, rollout.preference[:-1].flatten(0, 1))
        context = rollout.following_context().flatten(0, 1) if net.n_context else None
        value: Tensor = net.critic(net.inside(features, context))
        return value.view(*rollout.reward.shape)

    def _calibrate(self, rollout: Rollout, reward: Tensor) -> None:
        """Scale rewards [steps, rows, n_rewards] by the deviations of the returns they discount to."""
        nothing = torch.zeros(len(reward) + 1, *reward.shape[1:], device=reward.device)
        returns = generalised_advantages(
            reward, nothing, rollout.terminated, rollout.truncated, gamma=self.config.gamma, lam=1.0
        )
        self.set_scales(rollout.rows(returns), rollout.rows(rollout.preference[:-1]))
