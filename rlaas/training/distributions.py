"""The distributions that policies draw from: squashed normals for boxes, categorical ones for choices. Plain torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "FORBIDDEN",
    "LOG_STD_RANGE",
    "choice_entropies",
    "choice_log_prob",
    "choice_log_probs",
    "draw_choices",
    "forbid",
    "gumbel_noise",
    "log_std_of",
    "log_std_slope",
    "normal_entropy",
    "normal_log_density",
    "places",
    "squashed_log_prob",
    "squashed_sample",
]

LOG_STD_RANGE = (-5.0, 2.0)
# Far below any logit, and finite: a state that allows nothing is left with equal chances instead of NaN.
FORBIDDEN = -1e9


def log_std_of(squashed: Tensor) -> Tensor:
    """Logarithm of the deviation for the tanh of a head; a clamp's gradient would die at the ends."""
    low, high = LOG_STD_RANGE
    return low + 0.5 * (high - low) * (squashed + 1.0)


def log_std_slope(squashed: Tensor) -> Tensor:
    """Derivative of :func:`log_std_of` with respect to the head before its tanh."""
    low, high = LOG_STD_RANGE
    return 0.5 * (high - low) * (1.0 - squashed.square())


def normal_log_density(noise: Tensor, log_std: Tensor) -> Tensor:
    """Log-density [n] at ``mean + exp(log_std) * noise`` of independent normals [n, n_actions]."""
    return (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def normal_entropy(log_std: Tensor) -> Tensor:
    """Entropy in nats [n] of independent normals [n, n_actions]."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)


def squashed_log_prob(before: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """Log-density [n] of ``tanh(before)`` where ``before = mean + exp(log_std) * noise``.

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), stable for large |u| (Haarnoja et al. 2018, appendix C).
    """
    jacobian = 2.0 * (math.log(2.0) - before - functional.softplus(-2.0 * before))
    return (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi) - jacobian).sum(dim=-1)


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Reparametrised actions in (-1, 1) [n, n_actions] and their log-densities [n]."""
    before = mean + log_std.exp() * noise
    return torch.tanh(before), squashed_log_prob(before, noise, log_std)


def forbid(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits [..., n] without a chance where ``mask`` is 0; as they are where it is None."""
    return logits if mask is None else torch.where(mask > 0.5, logits, FORBIDDEN)


def choice_log_probs(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Log-probabilities [..., sum(sizes)] of every choice, each component normalised by itself."""
    if len(sizes) == 1:
        return functional.log_softmax(logits, dim=-1)
    parts = torch.split(logits, list(sizes), dim=-1)
    return torch.cat([functional.log_softmax(part, dim=-1) for part in parts], dim=-1)


def choice_entropies(log_probs: Tensor, sizes: Sequence[int]) -> Tensor:
    """Entropy in nats of each component, written at each of its choices [..., sum(sizes)]."""
    terms = log_probs.exp() * log_probs
    if len(sizes) == 1:
        return -terms.sum(dim=-1, keepdim=True).expand_as(terms)
    parts = torch.split(terms, list(sizes), dim=-1)
    return torch.cat([-part.sum(dim=-1, keepdim=True).expand_as(part) for part in parts], dim=-1)


def places(choices: Tensor, sizes: Sequence[int]) -> Tensor:
    """Where the chosen logits stand [..., n_components], for choices [..., n_components] int64."""
    if len(sizes) == 1:
        return choices
    # Numbers, not a tensor of them: on a GPU that would be a copy from the host.
    starts = accumulate((0, *sizes[:-1]))
    return torch.stack([choices[..., i] + start for i, start in enumerate(starts)], dim=-1)


def choice_log_prob(log_probs: Tensor, choices: Tensor, sizes: Sequence[int]) -> Tensor:
    """Log-probability [...] of all components' choices [..., n_components] together."""
    return log_probs.gather(-1, places(choices, sizes)).sum(dim=-1)


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Gumbel's numbers: where logits plus these are largest is a draw from the softmax."""
    uniform = torch.rand(*shape, generator=generator, device=generator.device).clamp_(min=1e-20)
    return uniform.log_().neg_().log_().neg_()


def draw_choices(logits: Tensor, noise: Tensor, sizes: Sequence[int]) -> Tensor:
    """A draw of each component [..., n_components] int64."""
    perturbed = logits + noise
    if len(sizes) == 1:
        return perturbed.argmax(dim=-1, keepdim=True)
    return torch.stack([part.argmax(dim=-1) for part in torch.split(perturbed, list(sizes), dim=-1)], dim=-1)
