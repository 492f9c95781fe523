"""Soft actor-critic on packed transitions, conditioned on preferences (Haarnoja et al. 2018, arXiv 1812.05905).

What differs from the textbook, and why:

- The replay buffer keeps one reward per objective, and a share of each batch is given fresh preferences: every
  transition teaches every trade-off.
- The critics are vectors: one head per objective and one for the entropy bonus. Their preference-weighted sum is what
  the actor climbs; the twin with the smaller sum gives its whole vector as target. A single head would have to build
  the products of weights and values by itself.
- Actor, critics and temperature are updated by one backward pass and one fused optimizer step. The actor's loss sees
  the critics' weights detached, so each parameter receives only the gradient of its own loss.
- Each objective's reward is scaled once, after the random warm-up, to unit deviation; the critics' outputs start at the
  discounted mean rewards, because a bias that large would take thousands of target updates to learn.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlaas.training.algorithm import PackedAlgorithm, PackedConfig, PackedLearner, PackedModule
from rlaas.training.conditioning import anchors_of, reward_scale, sample_preferences
from rlaas.training.networks import TwinCritic, squashed_sample
from rlaas.training.packed_runner import Rollout
from rlaas.training.replay import ReplayBuffer, Transitions

__all__ = ["SACAlgorithm", "SACConfig", "SACLearner", "SACModule", "transitions_of"]

# Errors beyond it, in deviations of a reward, count linearly: delays have tails that matter to their mean, so the
# bound is wide, but a step of full outage must not outweigh a thousand ordinary ones.
HUBER_DELTA = 10.0
FIRST_TEMPERATURE = 0.1
ROWS_PER_ITERATION = 1_024


def transitions_of(rollout: Rollout) -> Transitions:
    """The valid steps of a rollout as rows; the step of an automatic reset is no experience."""
    keep = rollout.valid
    return Transitions(
        observation=rollout.observation[:-1][keep],
        action=rollout.action[keep],
        reward=rollout.reward[keep].float(),
        preference=rollout.preference[keep],
        terminated=rollout.terminated[keep].float()[:, None],
        next_observation=rollout.observation[1:][keep],
    )


class SACModule(PackedModule):
    """Policy, twin critic, target critic and temperature."""

    reward_scale: Tensor
    utility_scale: Tensor

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        shape = dict(self.model_config)
        rewards = int(shape["n_rewards"])
        inputs = shape["n_features"] + shape["n_objectives"] + shape["n_actions"]
        self.critic = TwinCritic(inputs, shape["hidden"], rewards + 1)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))
        self.register_buffer("reward_scale", torch.ones(rewards))
        self.register_buffer("utility_scale", torch.tensor(1.0))

    def utility(self, values: Tensor, preference: Tensor) -> Tensor:
        """Preference-weighted sum and entropy bonus [..., n] of critic values [..., n, n_objectives + 1]."""
        weights = preference * (self.utility_scale / self.reward_scale)
        return (values[..., :-1] * weights).sum(dim=-1) + values[..., -1]

    def explore(
        self, observation: Tensor, preference: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sampled actions [n, n_actions] in (-1, 1)."""
        heads = self.policy(observation, preference)
        noise = torch.randn(heads["mean"].shape, generator=generator)
        return torch.tanh(heads["mean"] + heads["log_std"].exp() * noise), {}


class SACLearner(PackedLearner):
    """Several gradient updates per call, drawn from the replay buffer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rng = np.random.default_rng(np.random.SeedSequence([self.training.seed, 2]))
        self._head_start = self.training.resolved_head_start()
        self.anchors: Any = None

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One fused Adam with a slower group for the actor, whose target the critics first have to find."""
        net, rate = self.module[module_id], float(config.lr)
        actor_rate = self.training.sac.actor_learning_rate or rate / 3.0
        actor, others = list(net.policy.parameters()), [*net.critic.parameters(), net.log_temperature]
        groups = [{"params": actor, "lr": actor_rate}, {"params": others, "lr": rate}]
        optimizer = torch.optim.Adam(groups, eps=1e-7, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=[*actor, *others])

    def calibrate(self, replay: ReplayBuffer) -> None:
        """Set the reward scales and the critics' first outputs from the warm-up's transitions."""
        stored = replay.stored()
        scalar = (stored.reward * self._fresh(len(stored.reward))).sum(dim=1)
        self.net.utility_scale.fill_(reward_scale(float(scalar.std()), float(scalar.mean())))
        mean, deviation = stored.reward.mean(dim=0), stored.reward.std(dim=0)
        scales = [reward_scale(s, m) for s, m in zip(deviation.tolist(), mean.tolist(), strict=True)]
        self.net.reward_scale.copy_(torch.tensor(scales))
        # Where episodes end for good the value is smaller; as a starting point any constant is unbiased.
        if not bool(stored.terminated.any()):
            offset = mean * self.net.reward_scale / (1.0 - self.config.gamma)
            with torch.no_grad():
                for network in (self.net.critic, self.net.target):
                    network.biases[-1][..., :-1].add_(offset)

    def update_from_replay(self, replay: ReplayBuffer, updates: int) -> dict[str, float]:
        """Take ``updates`` gradient steps.

        Returns:
            Losses averaged over the call.

        Raises:
            TrainingError: a loss is not finite.
        """
        net, optimizer = self.net, self.optimizer
        online, target = list(net.critic.parameters()), list(net.target.parameters())
        totals = torch.zeros(4)
        for _ in range(updates):
            batch = self._read(replay.sample(self.training.batch_size, self.generator))
            parts = self.losses(batch)
            optimizer.zero_grad(set_to_none=True)
            parts[:3].sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(target, online, self.training.sac.tau)
            totals += parts.detach()
            self.updates += 1
        names = ("critic_loss", "actor_loss", "temperature_loss", "entropy")
        losses = dict(zip(names, (totals / updates).tolist(), strict=True))
        losses["temperature"] = math.exp(net.log_temperature.item())
        return self.check_losses(losses)

    def losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Critic, actor and temperature loss, and the policy's entropy in nats [4]."""
        net = self.net
        policy = net.policy
        n, dimensions = batch["action"].shape
        temperature = net.log_temperature.exp().detach()
        now = policy.features(batch["observation"], batch["preference"])
        later = policy.features(batch["next_observation"], batch["preference"])
        noise = torch.randn(2, n, dimensions, generator=self.generator)
        with torch.no_grad():
            heads = policy.heads(later)
            action, log_prob = squashed_sample(heads["mean"], heads["log_std"], noise[0])
            twins = net.target(torch.cat((later, action), dim=1))
            smaller = net.utility(twins, batch["preference"]).argmin(dim=0)
            value = twins[smaller, torch.arange(n)]
            value[:, -1] -= temperature * log_prob
            wanted = self.config.gamma * (1.0 - batch["terminated"])[:, None] * value
            wanted[:, :-1] += batch["reward"]
        predicted = net.critic(torch.cat((now, batch["action"]), dim=1))
        errors = functional.huber_loss(predicted, wanted.expand_as(predicted), reduction="none", delta=HUBER_DELTA)
        critic_loss = errors.mean(dim=1).sum()
        heads = policy.heads(now)
        action, log_prob = squashed_sample(heads["mean"], heads["log_std"], noise[1])
        twins = net.critic(torch.cat((now, action), dim=1), frozen=True)
        best = net.utility(twins, batch["preference"]).amin(dim=0)
        # An actor that follows critics that know nothing yet leaves the default for the ends of the box.
        moves = 1.0 if self.updates >= self._head_start else 0.0
        actor_loss = moves * (temperature * log_prob - best).mean()
        entropy = -log_prob.detach().mean()
        wanted_entropy = self.training.sac.target_entropy
        shortfall = (-float(dimensions) if wanted_entropy is None else wanted_entropy) - entropy
        temperature_loss = -moves * net.log_temperature * shortfall
        return torch.stack((critic_loss, actor_loss, temperature_loss, entropy))

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
        """RLlib's hook: the summed loss of a batch as :meth:`losses` takes it."""
        return self.losses(batch)[:3].sum()

    def _read(self, rows: Transitions) -> dict[str, Tensor]:
        """Scaled vector rewards, under the stored preferences, or fresh ones for the first rows (drawn i.i.d.)."""
        preference = rows.preference
        fresh = int(len(preference) * self.training.sac.relabel)
        if fresh and preference.shape[1] > 1:
            preference = torch.cat((self._fresh(fresh), preference[fresh:]))
        return {
            "observation": rows.observation,
            "action": rows.action,
            "preference": preference,
            "reward": rows.reward * self.net.reward_scale,
            "terminated": rows.terminated.squeeze(1),
            "next_observation": rows.next_observation,
        }

    def _fresh(self, n: int) -> Tensor:
        return torch.from_numpy(sample_preferences(n, self.anchors, self._rng)).float()

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The base's state with the preference generator."""
        state = super().get_state(*args, **kwargs)
        state["packed"]["rng"] = self._rng.bit_generator.state
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        super().set_state(state)
        if "packed" in state:
            self._rng.bit_generator.state = state["packed"]["rng"]


class SACConfig(PackedConfig):
    """RLlib configuration of :class:`SACAlgorithm`."""

    module_class = SACModule
    learner_type = SACLearner
    activation = "relu"

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or SACAlgorithm)


class SACAlgorithm(PackedAlgorithm):
    """SAC with the packed runner; the replay buffer is part of the checkpoint."""

    config_class = SACConfig

    def setup(self, config: Any) -> None:
        """Build everything, the buffer included."""
        super().setup(config)
        policy, runner = self.policy, self.runner
        m = len(runner.scenario.objectives)
        capacity = min(self.training.sac.buffer_size, self.training.steps + runner.rows)
        self.replay = ReplayBuffer(max(capacity, self.training.batch_size), policy.n_features, policy.n_actions, m)
        self.learner.anchors = anchors_of(runner.scenario)
        self._warm_up = self.training.resolved_learning_starts()
        self._calibrated = False
        self._owed = 0.0

    def training_step(self) -> None:
        """About a thousand decisions and the gradient updates they pay for."""
        runner, learner, sac = self.runner, self.learner, self.training.sac
        before, losses = self.steps_done, {}
        wanted = min(ROWS_PER_ITERATION, max(1, self.training.steps - before))
        for _ in range(-(-wanted // runner.rows)):
            warming_up = self.steps_done < self._warm_up
            # Warming up alternates between the untrained policy, around the default, and the whole box.
            at_random = warming_up and (self.steps_done // runner.rows) % 2 == 0
            self.replay.add(transitions_of(runner.sample(num_timesteps=1, random_actions=at_random)))
            if warming_up or len(self.replay) < 2:
                continue
            if not self._calibrated:
                learner.calibrate(self.replay)
                self._calibrated = True
            self._owed += runner.rows * sac.updates_per_step
            if self._owed >= 1:
                losses = learner.update_from_replay(self.replay, int(self._owed))
                self._owed -= int(self._owed)
        self.log_progress(self.steps_done - before, losses)

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """RLlib's state with the replay buffer, which the new API stack leaves out."""
        state = dict(super().get_state(components, not_components=not_components, **kwargs))
        state["replay"] = self.replay.get_state()
        state["clock"] = {"calibrated": self._calibrated, "owed": self._owed}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        super().set_state(state)
        if "replay" in state:
            self.replay.set_state(state["replay"])
            self._calibrated, self._owed = state["clock"]["calibrated"], state["clock"]["owed"]
