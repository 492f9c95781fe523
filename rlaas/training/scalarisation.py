"""From returns of several objectives to one: what each objective's gradient is worth under a preference.

The utility is of the *expected return* (Roijers et al. 2013, arXiv 1402.0590: scalarised expected returns). Its
gradient in the policy is the sum of the objectives' own gradients, each times the utility's derivative with respect
to that objective's return: so a utility that is not linear needs to know about how large the returns are, and no
scalarised step reward can stand in for it. :class:`ReturnModel` learns that from the critics as training goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlaas.optimization import hypervolume
from rlaas.training.conditioning import lattice

__all__ = ["ReturnModel", "chebyshev_weights", "expected_gains"]

SHARPNESS = 10.0
"""How much more the worst gap counts than one of half its size: a factor of exp(5)."""
AUGMENTATION = 0.05
OPTIMISM = 0.1
LATTICE_POINTS = 64
LEARNING_RATE = 1e-2


class ReturnModel(nn.Module):
    """Mean reward per step of each objective as a function of the preference, fitted while training.

    Args:
        n_objectives: of preference and returns.
        hidden: width of its one hidden layer.
    """

    offset: Tensor
    spread: Tensor
    before: Tensor
    best: Tensor
    worst: Tensor
    points: Tensor
    known: Tensor

    def __init__(self, n_objectives: int, hidden: int = 64) -> None:
        super().__init__()
        last = nn.Linear(hidden, n_objectives)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(n_objectives, hidden), nn.Tanh(), last)
        points = lattice(n_objectives, LATTICE_POINTS)
        self.register_buffer("points", torch.from_numpy(points).float())
        self.register_buffer("offset", torch.zeros(n_objectives))
        self.register_buffer("spread", torch.ones(n_objectives))
        self.register_buffer("before", torch.zeros(len(points), n_objectives))
        self.register_buffer("best", torch.zeros(n_objectives))
        self.register_buffer("worst", torch.zeros(n_objectives))
        self.register_buffer("known", torch.tensor(False))

    def forward(self, preference: Tensor) -> Tensor:
        """Expected mean reward per step [n, n_objectives] under preferences [n, n_objectives]."""
        out: Tensor = self.net(preference)
        return self.offset + self.spread * out

    def optimizer(self) -> torch.optim.Optimizer:
        """What :meth:`fit` moves it with."""
        return torch.optim.Adam(self.net.parameters(), lr=LEARNING_RATE)

    def fit(
        self,
        optimizer: torch.optim.Optimizer,
        preference: Tensor,
        returns: Tensor,
        average: Callable[[list[Tensor | None]], None] = lambda _: None,
    ) -> None:
        """One step towards ``returns`` [n, n_objectives] that were seen or estimated under ``preference``.

        Args:
            optimizer: see :meth:`optimizer`.
            preference, returns: [n, n_objectives].
            average: replaces tensors by their means over all who fit the same model to rows of their own.
        """
        if not bool(self.known):
            self.offset.copy_(returns.mean(dim=0))
            self.spread.copy_(returns.std(dim=0).clamp_min(1e-6))
            average([self.offset, self.spread])
            self.best.copy_(self.offset)
            self.worst.copy_(self.offset)
            self.known.fill_(True)
        wanted = (returns - self.offset) / self.spread
        with torch.enable_grad():
            loss = (self.net(preference) - wanted).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            average([parameter.grad for parameter in self.net.parameters()])
            optimizer.step()
        now = self(self.points).detach()
        torch.maximum(self.best, now.amax(dim=0), out=self.best)
        torch.minimum(self.worst, now.amin(dim=0), out=self.worst)

    def ideal(self) -> Tensor:
        """A little more than the best that each objective ever had under any preference [n_objectives].

        Of all times: the best of the present would follow policies down that have settled on a compromise.
        """
        return self.best + OPTIMISM * (self.best - self.worst)

    def gains(self) -> NDArray[np.float64]:
        """Chances of each lattice point by :func:`expected_gains`, from the change since the last call."""
        now = self(self.points)
        chances = expected_gains(now.double().cpu().numpy(), self.before.double().cpu().numpy())
        self.before.copy_(now)
        return chances


def chebyshev_weights(preference: Tensor, returns: Tensor, ideal: Tensor) -> Tensor:
    """Gradient of the smooth augmented Chebyshev utility with respect to the returns, scaled to sum 1 [n, m].

    The utility is ``-max_j w_j (ideal_j - returns_j) - 0.05 sum_j w_j (ideal_j - returns_j)`` (Steuer and Choo 1983),
    the maximum taken by softmax so that its gradient does not jump. Its best point reaches every part of a front,
    also where no weighted sum does.

    Args:
        preference: w [n, m].
        returns: expected under w [n, m].
        ideal: [m].
    """
    gaps = preference * (ideal - returns).clamp_min(0.0)
    largest = gaps.amax(dim=1, keepdim=True).clamp_min(1e-12)
    gradient = preference * (torch.softmax(SHARPNESS * gaps / largest, dim=1) + AUGMENTATION)
    return gradient / gradient.sum(dim=1, keepdim=True).clamp_min(1e-12)


def expected_gains(now: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chances [k] in proportion to the hypervolume that each preference may yet add.

    What a preference moved by since last time it is expected to move by again (as Xu et al. 2020, PGMORL, predict
    improvements); its gain is the volume that this adds to the front of all preferences' present returns.

    Args:
        now: returns of k preferences [k, m], larger is better.
        before: the same when last asked.
    """
    low, high = np.minimum(now, before).min(axis=0), np.maximum(now, before).max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    scaled, expected = (now - low) / span, (2.0 * now - before - low) / span
    reference = np.full(now.shape[1], 0.1)
    present = hypervolume(-scaled, reference)
    gains = np.array([hypervolume(-np.vstack((scaled, point)), reference) - present for point in expected])
    gains = np.maximum(gains, 0.0)
    total = float(gains.sum())
    if not math.isfinite(total) or total <= 1e-12:
        return np.full(len(now), 1.0 / len(now))
    return np.asarray(gains / total)
