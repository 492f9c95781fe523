"""What sites share: the parameters of a module as one vector, and sums over observations and reports beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlaas.training.conditioning import RunningMoments
from rlaas.training.federated.fixed_point import from_wide, to_wide

__all__ = ["LOSSES", "FixedMoments", "GlobalModel", "Layout", "Sums", "moments_of", "sums_of"]

LOSSES: Mapping[str, tuple[str, ...]] = {
    "ppo": ("policy_loss", "value_loss", "entropy"),
    "sac": ("critic_loss", "actor_loss", "temperature_loss", "entropy", "temperature"),
}
"""Losses that are summed over sites, by algorithm."""

Share = Literal["all", "policy"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and shapes of what is shared; equal at every site, or they cannot be averaged.

    Attributes:
        parameters: name and shape of each trained tensor.
        scales: name and shape of the buffers with the rewards' scales.
        features: names of the observation's features.
        objectives: names of the objectives.
        losses: names of the reported losses.
    """

    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    scales: tuple[tuple[str, tuple[int, ...]], ...]
    features: tuple[str, ...]
    objectives: tuple[str, ...]
    losses: tuple[str, ...]

    @classmethod
    def of(cls, algo: Any, algorithm: str, share: Share) -> Layout:
        """The layout of a packed algorithm's module. Targets and the normaliser are no part of it."""
        net: nn.Module = algo.learner.net
        policy = [(n, tuple(p.shape)) for n, p in net.named_parameters() if n.startswith("policy.")]
        others = [
            (n, tuple(p.shape)) for n, p in net.named_parameters() if p.requires_grad and not n.startswith("policy.")
        ]
        buffers = [
            (n, tuple(b.shape))
            for n, b in net.named_buffers()
            # A site keeps its own constraints by its own multipliers, and its noise falls with its own progress.
            if "normaliser" not in n and n not in ("multipliers", "policy.noise")
        ]
        scenario = algo.scenario
        return cls(
            parameters=tuple(policy + (others if share == "all" else [])),
            scales=tuple(buffers if share == "all" else []),
            features=tuple(scenario.observation_names),
            objectives=tuple(o.name for o in scenario.objectives),
            losses=LOSSES[algorithm],
        )

    @property
    def size(self) -> int:
        """Numbers in the parameters' vector."""
        return sum(int(np.prod(shape)) for _, shape in self.parameters)

    @property
    def scale_size(self) -> int:
        """Numbers in the scales' vector."""
        return sum(int(np.prod(shape)) for _, shape in self.scales)

    def read(self, net: nn.Module) -> NDArray[np.float32]:
        """The parameters as one vector [size]."""
        return _read(net, self.parameters)

    def read_scales(self, net: nn.Module) -> NDArray[np.float32]:
        """The scales as one vector [scale_size]."""
        return _read(net, self.scales)

    def write(self, net: nn.Module, vector: NDArray[np.float32]) -> None:
        """Overwrite the parameters in place, as optimizers hold views of them."""
        _write(net, self.parameters, vector)

    def write_scales(self, net: nn.Module, vector: NDArray[np.float32]) -> None:
        """Overwrite the scales in place."""
        _write(net, self.scales, vector)


@dataclass(frozen=True, slots=True)
class GlobalModel:
    """What the coordinator hands to every site.

    Attributes:
        parameters: [Layout.size].
        scales: [Layout.scale_size], or None while no site has set them.
        moments: state of :class:`RunningMoments` over all observations so far.
    """

    parameters: NDArray[np.float32]
    scales: NDArray[np.float32] | None
    moments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sums:
    """What is summed over sites beside the parameters; as wide numbers in a fixed order.

    Attributes:
        decisions: taken in the round.
        moments: count, sums [features] and sums of squares [features] of the round's observations.
        scales: decisions of sites that have scales, and their scales times these decisions [1 + scale_size].
        losses: for each loss, decisions of the sites that have it, and it times these decisions [2 * losses].
    """

    decisions: Fraction
    moments: tuple[Fraction, ...]
    scales: tuple[Fraction, ...]
    losses: tuple[Fraction, ...]

    def wide(self) -> list[int]:
        """As whole multiples of the wide grid.

        Raises:
            TrainingError: a number is too large.
        """
        named = [("decisions", (self.decisions,)), ("observations", self.moments)]
        named += [("reward scales", self.scales), ("losses", self.losses)]
        return [to_wide(value, name) for name, values in named for value in values]

    @classmethod
    def from_wide(cls, values: Sequence[int], layout: Layout) -> Sums:
        """The inverse of :meth:`wide`, also for sums of several."""
        numbers = [from_wide(value) for value in values]
        ends = np.cumsum([1, 1 + 2 * len(layout.features), 1 + layout.scale_size, 2 * len(layout.losses)])
        parts = [tuple(numbers[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        return cls(decisions=parts[0][0], moments=parts[1], scales=parts[2], losses=parts[3])

    @staticmethod
    def count(layout: Layout) -> int:
        """How many wide numbers there are."""
        return 3 + 2 * len(layout.features) + layout.scale_size + 2 * len(layout.losses)


class FixedMoments(RunningMoments):
    """Moments that no observation moves.

    Args:
        mean, deviation: [n_features].
    """

    def __init__(self, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        super().__init__(len(mean))
        self.set_state({"count": 2.0, "mean": mean, "squares": 2.0 * deviation**2})

    def update(self, rows: NDArray[np.floating[Any]] | Tensor) -> None:
        """Nothing."""


def sums_of(moments: Mapping[str, Any]) -> tuple[Fraction, ...]:
    """Count, sums and sums of squares, exactly, from the state of :class:`RunningMoments`."""
    count = Fraction(float(moments["count"]))
    means = [Fraction(float(mean)) for mean in moments["mean"]]
    squares = [Fraction(float(square)) for square in moments["squares"]]
    second = [square + count * mean**2 for square, mean in zip(squares, means, strict=True)]
    return (count, *(count * mean for mean in means), *second)


def moments_of(sums: Sequence[Fraction]) -> dict[str, Any]:
    """The state of :class:`RunningMoments` from count, sums and sums of squares, exact until the last rounding."""
    count, n = sums[0], len(sums) // 2
    if count == 0:
        return {"count": 0.0, "mean": np.zeros(n), "squares": np.zeros(n)}
    first, second = sums[1 : n + 1], sums[n + 1 :]
    squares = [max(Fraction(0), b - a * a / count) for a, b in zip(first, second, strict=True)]
    return {
        "count": float(count),
        "mean": np.array([float(a / count) for a in first]),
        "squares": np.array([float(square) for square in squares]),
    }


Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def _read(net: nn.Module, shapes: Shapes) -> NDArray[np.float32]:
    tensors = net.state_dict()
    parts = [tensors[name].detach().reshape(-1).float() for name, _ in shapes]
    return torch.cat(parts).numpy().copy() if parts else np.zeros(0, dtype=np.float32)


def _write(net: nn.Module, shapes: Shapes, vector: NDArray[np.float32]) -> None:
    tensors = net.state_dict()
    start = 0
    with torch.no_grad():
        for name, shape in shapes:
            end = start + int(np.prod(shape))
            tensors[name].copy_(torch.tensor(vector[start:end]).view(shape))
            start = end
