"""The networks: policy with its normaliser, and the stacked twin critic. Plain torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rlaas.training.distributions import LOG_STD_RANGE, forbid, log_std_of
from rlaas.training.recurrence import Memory

__all__ = [
    "NORMALISED_LIMIT",
    "GatedMLP",
    "Normaliser",
    "PolicyNetwork",
    "TwinCritic",
    "mlp",
]

NORMALISED_LIMIT = 5.0
FIRST_LOG_STD = -0.5
# At the very ends of the box the tanh passes no gradient.
FIRST_ACTION_LIMIT = 0.9
Activation = Literal["relu", "tanh"]


class Normaliser(nn.Module):
    """Standardises observations with frozen statistics and clips them to +-5 deviations."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("deviation", torch.ones(n_features))

    def freeze(self, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        """Take over statistics [n_features]."""
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(deviation))

    def forward(self, observation: Tensor) -> Tensor:
        """Observations [n, n_features], standardised."""
        return torch.clamp((observation - self.mean) / self.deviation, -NORMALISED_LIMIT, NORMALISED_LIMIT)


def mlp(n_in: int, hidden: Sequence[int], n_out: int, activation: Activation, last_gain: float) -> nn.Sequential:
    """A multilayer perceptron with orthogonal weights; ``last_gain`` scales the last layer's."""
    layers: list[nn.Module] = []
    widths = (n_in, *hidden)
    for a, b in pairwise(widths):
        layer = nn.Linear(a, b)
        nn.init.orthogonal_(layer.weight, math.sqrt(2))
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU() if activation == "relu" else nn.Tanh()]
    head = nn.Linear(widths[-1], n_out)
    nn.init.orthogonal_(head.weight, last_gain)
    nn.init.zeros_(head.bias)
    return nn.Sequential(*layers, head)


class GatedMLP(nn.Module):
    """A perceptron whose first hidden layer is scaled by the preference.

    What is best often depends on the *product* of preference and state (follow the target, or its mirror image). A
    plain perceptron has to build that product first, and an on-policy learner has settled on one compromise for all
    preferences by then. Feature-wise scaling (Perez et al. 2018, arXiv 1709.07871) has it from the first update.

    Args:
        n_features: length of a normalised observation.
        n_objectives: length of the preference behind it; 0 for none, and then nothing is scaled.
        hidden: widths of the hidden layers.
        n_out: outputs.
        activation: ``relu`` or ``tanh``.
        last_gain: scale of the last layer's weights.
    """

    def __init__(
        self,
        n_features: int,
        n_objectives: int,
        hidden: Sequence[int],
        n_out: int,
        *,
        activation: Activation,
        last_gain: float,
    ) -> None:
        super().__init__()
        self.n_features, self.n_objectives = n_features, n_objectives
        self.layers = mlp(n_features + n_objectives, hidden, n_out, activation, last_gain)
        self.gate = nn.Linear(n_objectives, hidden[0]) if n_objectives else None
        if self.gate is not None:
            nn.init.normal_(self.gate.weight)
            # Equal weights scale by one.
            with torch.no_grad():
                self.gate.bias.copy_(1.0 - self.gate.weight.mean(dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Outputs [n, n_out] of observations and preferences, joined [n, n_features + n_objectives]."""
        hidden = features
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if number == 1 and self.gate is not None:
                hidden = hidden * self.gate(features[:, self.n_features :])
        return hidden


class PolicyNetwork(nn.Module):
    """Observation and preference in, distribution parameters out.

    Args:
        n_features: length of an observation, the mask included.
        n_objectives: length of a preference; 0 for a policy without one.
        n_actions: components of a box action, or choices of all components together.
        hidden: widths of the hidden layers.
        discrete: whether actions are choices.
        activation: ``relu`` or ``tanh``.
        sizes: choices of each component of a discrete action; None for a single one of ``n_actions``.
        masked: whether the last ``n_actions`` features say which choices are allowed (1) and which are not (0).
        memory: width of the LSTM between observation and hidden layers; 0 for none.
    """

    noise: Tensor

    def __init__(
        self,
        n_features: int,
        n_objectives: int,
        n_actions: int,
        hidden: Sequence[int],
        *,
        discrete: bool,
        activation: Activation,
        sizes: Sequence[int] | None = None,
        masked: bool = False,
        memory: int = 0,
    ) -> None:
        super().__init__()
        self.n_features, self.n_objectives, self.n_actions = n_features, n_objectives, n_actions
        self.discrete, self.activation, self.masked = discrete, activation, masked
        self.sizes = (tuple(sizes) if sizes else (n_actions,)) if discrete else ()
        self.n_seen = n_features - n_actions if masked else n_features
        self.normaliser = Normaliser(self.n_seen)
        self.memory = Memory(self.n_seen + n_objectives, memory) if memory else None
        self.body = GatedMLP(
            memory or self.n_seen,
            n_objectives,
            hidden,
            n_actions if discrete else 2 * n_actions,
            activation=activation,
            last_gain=0.01,
        )
        if not discrete:
            # Added to every log-deviation: where this training began, and now.
            self.register_buffer("noise", torch.zeros(2))
            low, high = LOG_STD_RANGE
            with torch.no_grad():
                head: nn.Module = self.body.layers[-1]
                assert isinstance(head, nn.Linear)
                head.bias[n_actions:] = math.atanh(2 * (FIRST_LOG_STD - low) / (high - low) - 1)

    def start_at(self, action: Sequence[float]) -> None:
        """Let an untrained box policy answer about ``action`` [n_actions], in the normalised box [-1, 1]."""
        before = torch.atanh(torch.tensor(action).clamp(-FIRST_ACTION_LIMIT, FIRST_ACTION_LIMIT))
        head: nn.Module = self.body.layers[-1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            head.bias[: self.n_actions] = before

    def features(self, observation: Tensor, preference: Tensor | None) -> Tensor:
        """What networks see [..., n_seen + n_objectives]: normalised, the mask left out, the preference behind."""
        normalised: Tensor = self.normaliser(observation[..., : self.n_seen] if self.masked else observation)
        if self.n_objectives == 0 or preference is None:
            return normalised
        return torch.cat((normalised, preference), dim=-1)

    def mask(self, observation: Tensor) -> Tensor | None:
        """Which choices are allowed [..., n_actions], 1 or 0; None where all of them always are."""
        return observation[..., self.n_seen :] if self.masked else None

    def heads(self, features: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Distribution parameters for :meth:`features`, under the names of the bundle's outputs.

        Args:
            features: [n, n_seen + n_objectives], or those of :meth:`remember`.
            mask: see :meth:`mask`.
        """
        out = self.body(features)
        if self.discrete:
            return {"logits": forbid(out, mask)}
        mean, raw = out.split(self.n_actions, dim=-1)
        return {"mean": mean, "log_std": self.log_std(torch.tanh(raw))}

    def log_std(self, squashed: Tensor) -> Tensor:
        """Log-deviations for the tanh of their head, the share of noise that is left included."""
        return log_std_of(squashed) + self.noise[1]

    def leave_noise(self, share: float) -> None:
        """Scale deviations to ``share`` of what they would be at the beginning of this training; box actions only."""
        self.noise[1] = self.noise[0] + math.log(share)

    def keep_noise(self) -> None:
        """Begin a training with the deviations as they are."""
        if not self.discrete:
            self.noise[0] = self.noise[1]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # What was stored before there was a share of noise has all of it.
        if not self.discrete:
            state_dict.setdefault(f"{prefix}noise", torch.zeros(2))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def remember(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the memory: what the body sees [n, memory + n_objectives], and the next state [n, 2 * memory]."""
        assert self.memory is not None
        state = self.memory.step(features, state)
        return self.beside_preference(self.memory.output(state), features), state

    def beside_preference(self, remembered: Tensor, features: Tensor) -> Tensor:
        """The memory's outputs [..., memory] with the preference behind them, as the body wants it."""
        return torch.cat((remembered, features[..., self.n_seen :]), dim=-1) if self.n_objectives else remembered

    def forward(
        self, observation: Tensor, preference: Tensor | None = None, state: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``logits`` [n, n_actions], or ``mean`` and ``log_std`` [n, n_actions] before the tanh.

        With a memory also ``next_state`` [n, 2 * memory]; ``state`` is that of the step before, zeros at first.
        """
        features, mask = self.features(observation, preference), self.mask(observation)
        if self.memory is None:
            return self.heads(features, mask)
        if state is None:
            state = features.new_zeros(len(features), self.memory.width)
        seen, following = self.remember(features, state)
        return {**self.heads(seen, mask), "next_state": following}


class TwinCritic(nn.Module):
    """Two independent Q networks in one stack: one batched product per layer instead of two products.

    Args:
        n_in: inputs.
        hidden: widths of the hidden layers.
        n_out: values, one head each.
    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for a, b in pairwise((n_in, *hidden, n_out)):
            # torch.nn.Linear's own initialisation, for each of the two.
            bound = 1.0 / math.sqrt(a)
            self.weights.append(nn.Parameter(torch.empty(2, a, b).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(2, 1, b).uniform_(-bound, bound)))

    def forward(self, x: Tensor, *, frozen: bool = False) -> Tensor:
        """Values of both networks [2, n, n_out] for inputs [n, n_in]; ``frozen`` keeps gradients from the weights."""
        h = x.expand(2, *x.shape)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias.detach() if frozen else bias, h, weight.detach() if frozen else weight)
            if i < last:
                h = functional.relu(h)
        return h
