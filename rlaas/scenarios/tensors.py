"""The contract of environments whose steps are torch tensors and never leave their device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["TensorEnv", "TensorStep"]


class TensorStep(Protocol):
    """What a step returns, as tensors on the environments' device.

    Attributes:
        observation: [rows, n_features] float32.
        reward: [rows, n_objectives], larger is better.
        numerators, denominators: additive parts [rows, n_parts].
    """

    @property
    def observation(self) -> Any: ...  # noqa: D102
    @property
    def reward(self) -> Any: ...  # noqa: D102
    @property
    def numerators(self) -> Any: ...  # noqa: D102
    @property
    def denominators(self) -> Any: ...  # noqa: D102


class TensorEnv(Protocol):
    """Environments in lockstep: all episodes begin together and are cut off together, and none ends for good.

    So whether an episode is over is known without asking the device. The step after its end ignores the actions and
    returns the new episode's first observation, as with Gymnasium's NEXT_STEP.

    Attributes:
        rows: decision makers of all environments; those of one environment adjoin.
        rows_per_env: decision makers of one environment.
    """

    rows: int

    @property
    def rows_per_env(self) -> int: ...  # noqa: D102

    @property
    def over(self) -> bool:
        """The last step ended the episodes; the next one begins new ones."""

    def reset(self, seed: int | Sequence[int] | None = None) -> Any:
        """Begin new episodes; returns the observation [rows, n_features] float32."""

    def step(self, actions: Any) -> TensorStep:
        """Advance all environments; actions in physical units [rows, n_components] on the device."""

    def get_state(self) -> Mapping[str, Any]:
        """Everything the next steps depend on, as numpy arrays."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
