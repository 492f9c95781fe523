"""Starting a training run from a policy that exists instead of from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from rlaas.bundles import WEIGHTS, load_bundle
from rlaas.errors import ConfigurationError

__all__ = ["start_from"]

REMEMBERED_ROWS = 10_000
"""Observations that the normaliser's statistics count for: enough not to jump, few enough to move on."""


def start_from(algo: Any, bundle: Path) -> None:
    """Give a fresh algorithm the network of a bundle, its normaliser included; critics and optimizer stay fresh.

    Args:
        algo: as of :func:`rlaas.training.build_algorithm`, before its first iteration.
        bundle: folder of the bundle.

    Raises:
        BundleError: the bundle is damaged.
        ConfigurationError: its network has another shape than the one to be trained.
    """
    load_bundle(bundle)
    tensors = load_file(bundle / WEIGHTS)
    policy = algo.policy
    wanted: dict[str, Tensor] = policy.state_dict()
    if {name: tuple(t.shape) for name, t in tensors.items()} != {name: tuple(t.shape) for name, t in wanted.items()}:
        raise ConfigurationError(
            f"the network of {bundle} has another shape than the one to be trained; give hidden the same widths, and "
            "the same scenario and options, or start afresh",
            field="hidden",
        )
    with torch.no_grad():
        # Copied in place: optimizer and learner hold views of the same memory.
        policy.load_state_dict(tensors)
    mean, deviation = (tensors[f"normaliser.{name}"].double().numpy() for name in ("mean", "deviation"))
    algo.runner.moments.set_state(
        {"count": float(REMEMBERED_ROWS), "mean": mean, "squares": deviation**2 * REMEMBERED_ROWS}
    )
