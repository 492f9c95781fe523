"""Soft actor-critic on packed transitions, conditioned on preferences (Haarnoja et al. 2018, arXiv 1812.05905).

What differs from the textbook, and why:

- The replay buffer keeps one reward per objective, and a share of each batch is given fresh preferences: every
  transition teaches every trade-off.
- The critics are vectors: one head per objective and one for the entropy bonus. Their preference-weighted sum is what
  the actor climbs; the twin with the smaller sum gives its whole vector as target. A single head would have to build
  the products of weights and values by itself.
- Gradients are written out (:mod:`~rlaas.training.backprop`) and one fused optimizer step moves actor, critics and
  temperature. The actor's loss moves no critic: each parameter receives only the gradient of its own loss.
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
from rlaas.training.backprop import FlatAdam, FlatParameters, Pass, TwinPass
from rlaas.training.conditioning import anchors_of, reward_scale, sample_preferences
from rlaas.training.networks import TwinCritic, log_std_of, log_std_slope, squashed_log_prob, squashed_sample
from rlaas.training.packed_runner import Rollout
from rlaas.training.replay import ReplayBuffer, Transitions

__all__ = ["SACAlgorithm", "SACConfig", "SACLearner", "SACModule", "transitions_of", "utility"]

# Errors beyond it, in deviations of a reward, count linearly: delays have tails that matter to their mean, so the
# bound is wide, but a step of full outage must not outweigh a thousand ordinary ones.
HUBER_DELTA = 10.0
FIRST_TEMPERATURE = 0.1
ROWS_PER_ITERATION = 1_024


def transitions_of(rollout: Rollout) -> Transitions:
    """The valid steps of a rollout as rows; the step of an automatic reset is no experience."""
    keep = rollout.valid
    everything = bool(keep.all())

    def rows(value: Tensor) -> Tensor:
        return value.flatten(0, 1) if everything else value[keep]

    return Transitions(
        observation=rows(rollout.observation[:-1]),
        action=rows(rollout.action),
        reward=rows(rollout.reward).float(),
        preference=rows(rollout.preference),
        terminated=rows(rollout.terminated).float()[:, None],
        next_observation=rows(rollout.observation[1:]),
    )


def utility(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum and entropy bonus [..., n] of critic values [..., n, n_objectives + 1]."""
    return (values[..., :-1] * weights).sum(dim=-1) + values[..., -1]


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

    def weights(self, preference: Tensor) -> Tensor:
        """What a unit of each objective's value is worth [n, n_objectives]; a unit of the entropy bonus is worth 1."""
        return preference * (self.utility_scale / self.reward_scale)


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
        self._flat_actor = FlatParameters(net.policy.parameters())
        self._flat_others = FlatParameters([*net.critic.parameters(), net.log_temperature])
        self._flat_target = FlatParameters(net.target.parameters())
        params = [self._flat_actor.value, self._flat_others.value]
        groups = [{"params": params[:1], "lr": actor_rate}, {"params": params[1:], "lr": rate}]
        optimizer = FlatAdam(groups, eps=1e-7, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params)

    def build(self) -> None:
        """Build RLlib's parts, and the passes through the networks."""
        super().build()
        self._actor = Pass(self.net.policy.body)
        self._critic, self._target = TwinPass(self.net.critic), TwinPass(self.net.target)
        # The temperature stands behind the critics.
        online = self._flat_others.value.detach()
        self._online = online[: self._flat_target.value.numel()]

    def end_head_start(self) -> None:
        """Let the actor move from now on."""
        self._head_start = 0

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
        optimizer, totals = self.optimizer, torch.zeros(4)
        with torch.no_grad():
            for _ in range(updates):
                batch = self._read(replay.sample(self.training.batch_size, self.generator))
                totals += self._step(batch, self._noise(batch))
                optimizer.advance()
                self._flat_target.value.lerp_(self._online, self.training.sac.tau)
                self.updates += 1
        names = ("critic_loss", "actor_loss", "temperature_loss", "entropy")
        losses = dict(zip(names, (totals / updates).tolist(), strict=True))
        losses["temperature"] = math.exp(self.net.log_temperature.item())
        return self.check_losses(losses)

    def losses(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Critic, actor and temperature loss, and the policy's entropy in nats [4].

        Args:
            batch: see :meth:`_read`.
            noise: normal numbers of the actions afterwards and now [2, n, n_actions].
        """
        net = self.net
        temperature = net.log_temperature.exp().detach()
        now = net.policy.features(batch["observation"], batch["preference"])
        predicted = net.critic(torch.cat((now, batch["action"]), dim=1))
        wanted = self._wanted(batch, noise[0]).expand_as(predicted)
        errors = functional.huber_loss(predicted, wanted, reduction="none", delta=HUBER_DELTA)
        critic_loss = errors.mean(dim=1).sum()
        heads = net.policy.heads(now)
        action, log_prob = squashed_sample(heads["mean"], heads["log_std"], noise[1])
        twins = net.critic(torch.cat((now, action), dim=1), frozen=True)
        best = utility(twins, net.weights(batch["preference"])).amin(dim=0)
        moves = self._moves()
        actor_loss = moves * (temperature * log_prob - best).mean()
        entropy = -log_prob.detach().mean()
        temperature_loss = -moves * net.log_temperature * self._shortfall(entropy, action.shape[1])
        return torch.stack((critic_loss, actor_loss, temperature_loss, entropy))

    def _step(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """What :meth:`losses` gives, and the gradients of the sum of its losses in the parameters."""
        net, n, moves = self.net, len(batch["action"]), self._moves()
        temperature, weights = net.log_temperature.exp(), net.weights(batch["preference"])
        # Both states go through the policy at once, and both actions in the present one through the critics.
        first, second = slice(0, n), slice(n, 2 * n)
        states = torch.cat((batch["next_observation"], batch["observation"]))
        features = net.policy.features(states, batch["preference"].repeat(2, 1))
        mean, raw = torch.split(self._actor.forward(features), net.policy.n_actions, dim=1)
        squashed, noise = torch.tanh(raw), noise.flatten(0, 1)
        log_std = log_std_of(squashed)
        spread = log_std.exp().mul_(noise)
        before = mean + spread
        action, log_prob = torch.tanh(before), squashed_log_prob(before, noise, log_std)
        twins = self._target.forward(torch.cat((features[first], action[first]), dim=1))
        wanted = self._discounted(batch, weights, twins, temperature * log_prob[first])

        now, action, log_prob = features[second], action[second], log_prob[second]
        inputs = torch.cat((torch.cat((now, batch["action"]), dim=1), torch.cat((now, action), dim=1)))
        twins = self._critic.forward(inputs)
        error = twins[:, first] - wanted
        bounded = error.clamp(-HUBER_DELTA, HUBER_DELTA)
        # Huber's loss: half the square of the bounded part, and the slope there for the rest.
        critic_loss = (bounded * (error - 0.5 * bounded)).sum() / n
        self._critic.backward(bounded.mul_(1.0 / n), first)

        best, smaller = utility(twins[:, second], weights).min(dim=0)
        rises = functional.pad(weights, (0, 1), value=1.0) * (-moves / n)
        other = rises * smaller[:, None]
        share = temperature * (moves / n)
        # The density of the squashed action falls by twice the action as it moves outwards.
        pull = self._critic.to_inputs(torch.stack((rises - other, other)), second)[:, now.shape[1] :]
        gradient = pull * (1.0 - action.square()) + 2.0 * share * action
        wider = (gradient * spread[second] - share) * log_std_slope(squashed[second])
        self._actor.backward(torch.cat((gradient, wider), dim=1), second)

        entropy = -log_prob.mean()
        shortfall = self._shortfall(entropy, action.shape[1])
        assert net.log_temperature.grad is not None
        net.log_temperature.grad.copy_(-moves * shortfall)
        actor_loss = moves * (temperature * log_prob - best).mean()
        return torch.stack((critic_loss, actor_loss, -moves * net.log_temperature * shortfall, entropy))

    def _wanted(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """What the critics should say [n, n_objectives + 1], for the actions that the policy takes afterwards."""
        net, policy = self.net, self.net.policy
        with torch.no_grad():
            later = policy.features(batch["next_observation"], batch["preference"])
            heads = policy.heads(later)
            action, log_prob = squashed_sample(heads["mean"], heads["log_std"], noise)
            twins = net.target(torch.cat((later, action), dim=1))
            weights = net.weights(batch["preference"])
            return self._discounted(batch, weights, twins, net.log_temperature.exp() * log_prob)

    def _discounted(self, batch: dict[str, Tensor], weights: Tensor, twins: Tensor, cost: Tensor) -> Tensor:
        """Rewards, and the discounted values of the twin with the smaller utility less the entropy's cost [n]."""
        smaller = utility(twins, weights).argmin(dim=0)
        value = torch.where((smaller == 0)[:, None], twins[0], twins[1])
        value[:, -1] -= cost
        wanted: Tensor = self.config.gamma * (1.0 - batch["terminated"])[:, None] * value
        wanted[:, :-1] += batch["reward"]
        return wanted

    def _moves(self) -> float:
        """1 once the actor learns: one that follows critics that know nothing yet leaves the default for the ends."""
        return 1.0 if self.updates >= self._head_start else 0.0

    def _shortfall(self, entropy: Tensor, n_actions: int) -> Tensor:
        """By how much the entropy falls short of what is wanted."""
        wanted = self.training.sac.target_entropy
        return (-float(n_actions) if wanted is None else wanted) - entropy

    def _noise(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.randn(2, *batch["action"].shape, generator=self.generator)

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
        """RLlib's hook: the summed loss of a batch as :meth:`losses` takes it."""
        return self.losses(batch, self._noise(batch))[:3].sum()

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

    def keep_critics(self) -> None:
        """The critics know something already: neither calibrate them nor keep the actor waiting for them."""
        self._calibrated = True
        self.learner.end_head_start()

    def training_step(self) -> None:
        """About a thousand decisions and the gradient updates they pay for."""
        runner, learner, sac = self.runner, self.learner, self.training.sac
        before, losses = self.steps_done, {}
        wanted = min(ROWS_PER_ITERATION, max(1, self.training.steps - before))
        for step in range(-(-wanted // runner.rows)):
            warming_up = self.steps_done < self._warm_up
            # Warming up alternates between the untrained policy, around the default, and the whole box. A policy that
            # was taken over knows better.
            alone = warming_up and self.taken_over is None
            at_random = alone and (self.steps_done // runner.rows) % 2 == 0
            # Moments hardly move once there are some: the next iteration takes them in.
            fresh = warming_up or step == 0
            sampled = runner.sample(num_timesteps=1, random_actions=at_random, renormalise=fresh)
            self.replay.add(transitions_of(sampled))
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
