"""Soft actor-critic on packed transitions, conditioned on preferences (Haarnoja et al. 2018, arXiv 1812.05905).

What differs from the textbook, and why:

- The replay buffer keeps one reward per objective (and constraint), and a share of each batch is given fresh
  preferences: every transition teaches every trade-off.
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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rlaas.training.backprop import FlatAdam, FlatParameters, Pass, TwinPass
from rlaas.training.conditioning import Focus, anchors_of, sample_preferences
from rlaas.training.distributions import log_std_slope, squashed_log_prob, squashed_sample
from rlaas.training.networks import TwinCritic
from rlaas.training.packed_learner import PackedLearner
from rlaas.training.packed_module import PackedModule
from rlaas.training.problems import problem_of
from rlaas.training.replay import ReplayBuffer, Transitions

__all__ = ["SACLearner", "SACModule", "utility", "widths_of"]

# Errors beyond it, in deviations of a reward, count linearly: delays have tails that matter to their mean, so the
# bound is wide, but a step of full outage must not outweigh a thousand ordinary ones.
HUBER_DELTA = 10.0
FIRST_TEMPERATURE = 0.1


def utility(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum and entropy bonus [..., n] of critic values [..., n, n_rewards + 1]."""
    return (values[..., :-1] * weights).sum(dim=-1) + values[..., -1]


class SACModule(PackedModule):
    """Policy, twin critic, target critic and temperature."""

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        shape = dict(self.model_config)
        policy = self.policy
        inputs = policy.n_seen + self.n_context + policy.n_objectives + self.action_inputs
        self.critic = TwinCritic(inputs, shape["hidden"], self.critic_outputs)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(FIRST_TEMPERATURE)))

    @property
    def action_inputs(self) -> int:
        """Numbers of an action that critics take in."""
        return self.policy.n_actions

    @property
    def critic_outputs(self) -> int:
        """Values that critics give: one for each reward and one for the entropy bonus."""
        return self.n_rewards + 1

    def bias_of_rewards(self, network: TwinCritic) -> Tensor:
        """The biases behind the rewards' values (a view), ending in [n_rewards]."""
        biases: Tensor = network.biases[-1]
        return biases[..., : self.n_rewards]

    def explore(
        self, observation: Tensor, preference: Tensor, noise: Tensor, memory: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Sampled actions in (-1, 1)."""
        heads = self.policy.heads(self.policy.features(observation, preference))
        return torch.tanh(heads["mean"] + heads["log_std"].exp() * noise), {}, memory


class SACLearner(PackedLearner):
    """Several gradient updates per call, drawn from the replay buffer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rng = np.random.default_rng(np.random.SeedSequence([self.training.seed, 2]))
        self._head_start = self.training.resolved_head_start()
        scenario = problem_of(self.training)
        self._anchors = anchors_of(scenario)
        self._focus: Focus | None = None

    def trained_parameters(self, module: PackedModule) -> list[nn.Parameter]:
        """Policy, critics, temperature: two vectors, see :meth:`configure_optimizers_for_module`."""
        assert isinstance(module, SACModule)
        return [*module.policy.parameters(), *module.critic.parameters(), module.log_temperature]

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One fused Adam with a slower group for the actor, whose target the critics first have to find."""
        net, rate = self.module[module_id], float(config.lr)
        actor_rate = self.training.sac.actor_learning_rate or rate / 3.0
        members, own = self.trained_parameters(net), len(list(net.policy.parameters()))
        self._flat_actor, self._flat_others = FlatParameters(members[:own]), FlatParameters(members[own:])
        self._flat_target = FlatParameters(net.target.parameters())
        params = [self._flat_actor.value, self._flat_others.value]
        groups = [{"params": params[:1], "lr": actor_rate}, {"params": params[1:], "lr": rate}]
        optimizer = FlatAdam(groups, eps=1e-7, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params)

    @property
    def flats(self) -> tuple[FlatParameters, ...]:
        """The actor's parameters, and the critics' with the temperature."""
        return self._flat_actor, self._flat_others

    def build(self) -> None:
        """Build RLlib's parts, and the passes through the networks."""
        super().build()
        self._widths = widths_of(self.net)
        self._alone = self.world == 1 and self.device.type == "cpu"
        self._actor = Pass(self.net.policy.body)
        self._critic, self._target = TwinPass(self.net.critic), TwinPass(self.net.target)
        # The temperature stands behind the critics.
        online = self._flat_others.value.detach()
        self._online = online[: self._flat_target.value.numel()]

    def end_head_start(self) -> None:
        """Let the actor move from now on."""
        self._head_start = 0

    def calibrate(self, stored: Transitions) -> None:
        """Set the reward scales and the critics' first outputs from the warm-up's transitions."""
        net = self.net
        self.set_scales(stored.reward, self._fresh(len(stored.reward)).to(stored.reward.device))
        # Where episodes end for good the value is smaller; as a starting point any constant is unbiased.
        if not bool(stored.terminated.any()):
            offset = stored.reward.mean(dim=0).to(self.device) * net.reward_scale / (1.0 - self.config.gamma)
            with torch.no_grad():
                for network in (net.critic, net.target):
                    net.bias_of_rewards(network).add_(offset)

    def update_from_replay(self, replay: ReplayBuffer, updates: int) -> dict[str, float]:
        """Take ``updates`` gradient steps.

        Returns:
            Losses averaged over the call.

        Raises:
            TrainingError: a loss is not finite.
        """
        batch_size, totals = self.training.batch_size, torch.zeros(4, device=self.device)
        with torch.no_grad():
            if self.training.device is None:
                for _ in range(updates):
                    totals += self._update(self._transitions(replay.rows(batch_size, self.generator)))
            else:
                # A copy from the host waits for all that was launched before it: one brings every preference.
                drawn = [self._fresh(self._n_fresh(batch_size)) for _ in range(updates)]
                for fresh in torch.stack(drawn).to(self.device):
                    totals += self._update_in_place(replay.rows(batch_size, self.generator), fresh)
        return self._losses(totals, updates)

    def update_from_batches(self, rows: np.ndarray[Any, Any]) -> dict[str, float]:
        """Take a gradient step for each batch of stored rows [updates, batch_size, width]; see :class:`Transitions`."""
        totals = torch.zeros(4, device=self.device)
        with torch.no_grad():
            for batch in torch.from_numpy(np.array(rows)):
                totals += self._update(self._transitions(batch))
        return self._losses(totals, len(rows))

    def _update(self, rows: Transitions) -> Tensor:
        batch = self._read(rows)
        noise = self._noise(batch["action"])
        if not self._alone:
            # Every learner draws the same numbers for the whole batch, and works on its own rows.
            batch = {name: self.own(value).to(self.device) for name, value in batch.items()}
            noise = noise[:, self.rank :: self.world].to(self.device)
        parts = self._advance(batch, noise)
        self.updates += 1
        return parts

    def _update_in_place(self, rows: Tensor, fresh: Tensor) -> Tensor:
        """The same where everything is on one device: what is random is drawn first, the rest is one captured piece."""
        update = self.captured(self._update_with, under=self._moves())
        parts = update(rows, self._noise(self._transitions(rows).action), fresh)
        self.updates += 1
        return parts

    def _update_with(self, rows: Tensor, noise: Tensor, fresh: Tensor) -> Tensor:
        return self._advance(self._fields(self._transitions(rows), fresh), noise)

    def _transitions(self, rows: Tensor) -> Transitions:
        """The fields of stored rows [n, width]."""
        return Transitions(*torch.split(rows, self._widths, dim=1))

    def _advance(self, batch: dict[str, Tensor], noise: Tensor) -> Tensor:
        """Take the step that a batch asks for; returns its losses [4]."""
        parts = self._step(batch, noise)
        self.share()
        self.optimizer.advance()
        self._flat_target.value.lerp_(self._online, self.training.sac.tau)
        return parts

    def _losses(self, totals: Tensor, updates: int) -> dict[str, float]:
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
        inside = net.inside(now, batch.get("context"))
        predicted = net.critic(torch.cat((inside, batch["action"]), dim=1))
        wanted = self._wanted(batch, noise[0]).expand_as(predicted)
        errors = functional.huber_loss(predicted, wanted, reduction="none", delta=HUBER_DELTA)
        critic_loss = errors.mean(dim=1).sum()
        heads = net.policy.heads(now)
        action, log_prob = squashed_sample(heads["mean"], heads["log_std"], noise[1])
        twins = net.critic(torch.cat((inside, action), dim=1), frozen=True)
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
        contexts = torch.cat((batch["next_context"], batch["context"])) if net.n_context else None
        inside = net.inside(features, contexts)
        mean, raw = torch.split(self._actor.forward(features), net.policy.n_actions, dim=1)
        squashed, noise = torch.tanh(raw), noise.flatten(0, 1)
        log_std = net.policy.log_std(squashed)
        spread = log_std.exp().mul_(noise)
        before = mean + spread
        action, log_prob = torch.tanh(before), squashed_log_prob(before, noise, log_std)
        twins = self._target.forward(torch.cat((inside[first], action[first]), dim=1))
        wanted = self._discounted(batch, weights, twins, temperature * log_prob[first])

        now, action, log_prob = inside[second], action[second], log_prob[second]
        inputs = torch.cat((torch.cat((now, batch["action"]), dim=1), torch.cat((now, action), dim=1)))
        twins = self._critic.forward(inputs)
        # What the policy as it is now would get, not what was done when the transition was stored.
        self.observe_returns(batch["preference"], twins[:, second].mean(dim=0))
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
        """What the critics should say [n, n_rewards + 1], for the actions that the policy takes afterwards."""
        net, policy = self.net, self.net.policy
        with torch.no_grad():
            later = policy.features(batch["next_observation"], batch["preference"])
            heads = policy.heads(later)
            action, log_prob = squashed_sample(heads["mean"], heads["log_std"], noise)
            twins = net.target(torch.cat((net.inside(later, batch.get("next_context")), action), dim=1))
            weights = net.weights(batch["preference"])
            return self._discounted(batch, weights, twins, net.log_temperature.exp() * log_prob)

    def _discounted(self, batch: dict[str, Tensor], weights: Tensor, twins: Tensor, cost: Tensor) -> Tensor:
        """Rewards, and the discounted values of the twin with the smaller utility less the entropy's cost [n]."""
        smaller = utility(twins, weights).argmin(dim=0)
        value = torch.where((smaller == 0)[:, None], twins[0], twins[1])
        value[:, -1] -= cost
        return self._targets(batch, value)

    def _targets(self, batch: dict[str, Tensor], value: Tensor) -> Tensor:
        """Rewards, and the discounted values afterwards [n, n_rewards + 1]."""
        wanted: Tensor = self.config.gamma * (1.0 - batch["terminated"])[:, None] * value
        wanted[:, :-1] += batch["reward"]
        return wanted

    def _moves(self) -> float:
        """1 once the actor learns: one that follows critics that know nothing yet leaves the default for the ends."""
        return 1.0 if self.updates >= self._head_start else 0.0

    def _shortfall(self, entropy: Tensor, n_actions: int) -> Tensor:
        """By how much the entropy falls short of what is wanted."""
        wanted = self.training.sac.target_entropy
        return (self._usual_entropy(n_actions) if wanted is None else wanted) - entropy

    def _usual_entropy(self, n_actions: int) -> float:
        """Minus the dimensions of the box, as Haarnoja et al. have it."""
        return -float(n_actions)

    def _noise(self, action: Tensor) -> Tensor:
        """What a step draws from, for actions [n, n_actions] afterwards and now [2, n, n_actions]."""
        return torch.randn(2, *action.shape, generator=self.generator, device=self.generator.device)

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
        """RLlib's hook: the summed loss of a batch as :meth:`losses` takes it."""
        return self.losses(batch, self._noise(batch["action"]))[:3].sum()

    def _read(self, rows: Transitions) -> dict[str, Tensor]:
        """The fields of a batch, see :meth:`_fields`, with fresh preferences."""
        return self._fields(rows, self._fresh(self._n_fresh(len(rows.preference))))

    def _n_fresh(self, n: int) -> int:
        """How many of a batch of ``n`` are given a fresh preference."""
        return int(n * self.training.sac.relabel) if self.net.n_objectives > 1 else 0

    def _fields(self, rows: Transitions, fresh: Tensor) -> dict[str, Tensor]:
        """Scaled vector rewards, under the stored preferences, or fresh ones for the first rows (drawn i.i.d.)."""
        preference = rows.preference
        if len(fresh):
            preference = torch.cat((fresh, preference[len(fresh) :]))
        found = {
            "observation": rows.observation,
            "action": rows.action,
            "preference": preference,
            "reward": rows.reward * self.net.reward_scale.to(rows.reward.device),
            "terminated": rows.terminated.squeeze(1),
            "next_observation": rows.next_observation,
        }
        if self.net.n_context:
            found |= {"context": rows.context, "next_context": rows.next_context}
        return found

    def _fresh(self, n: int) -> Tensor:
        if n == 0:
            return torch.zeros(0, len(self._anchors[0]))
        return torch.from_numpy(sample_preferences(n, self._anchors, self._rng, self._focus)).float()

    def focus(self) -> Focus | None:
        """Preferences of the base's :meth:`focus`, which relabelling then draws too."""
        self._focus = super().focus()
        return self._focus

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The base's state with the preference generator."""
        state = super().get_state(*args, **kwargs)
        state["packed"] |= {"rng": self._rng.bit_generator.state, "focus": self._focus}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        super().set_state(state)
        if "packed" in state:
            self._rng.bit_generator.state, self._focus = state["packed"]["rng"], state["packed"]["focus"]


def widths_of(net: SACModule) -> list[int]:
    """Columns of each field of :class:`Transitions`."""
    policy = net.policy
    n, context = policy.n_features, policy.n_features if net.n_context else 0
    action = len(policy.sizes) if policy.discrete else policy.n_actions
    return [n, action, net.n_rewards, net.n_objectives, 1, n, context, context]
