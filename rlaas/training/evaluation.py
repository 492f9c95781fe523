"""Evaluating bundles like any other controller: on common seeds, at several preferences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate
from rlaas.objectives import Preference
from rlaas.scenarios import Controller, Scenario, evaluate

__all__ = ["PolicyController", "evaluate_policy", "named_preferences", "preference_label"]

FloatArray = NDArray[np.floating[Any]]

MOST_DIGITS = 17
"""So many tell any two weights apart."""


class PolicyController(Controller):
    """A bundle at one preference as a controller.

    Args:
        policy: the loaded bundle.
        preference: what it is asked for; None only for a bundle that takes none.
        sample: draw from the policy's distribution instead of taking its mode.

    Raises:
        InvalidInputError: the bundle is preference-conditioned and no preference was given.
    """

    def __init__(self, policy: BundlePolicy, preference: Preference | None = None, *, sample: bool = False) -> None:
        if policy.manifest.preference_conditioned and preference is None:
            names = ", ".join(o.name for o in policy.objectives)
            raise InvalidInputError(f"this policy needs a preference over {names}", field="preference")
        self._policy = policy
        self._weights = None if preference is None else preference.array().astype(np.float32)
        self._sample = sample
        self._rng: np.random.Generator | None = None
        self._states: NDArray[np.float32] | None = None

    def reset(self, num_rows: int, seed: int) -> None:
        """Start the random stream of a sampling controller, and forget."""
        self._states = None
        self._rng = np.random.default_rng(seed) if self._sample else None

    def act(self, observation: FloatArray) -> NDArray[Any]:
        """Actions of the scenario's action space for observations [num_rows, n_features]."""
        rows = np.asarray(observation, dtype=np.float32)
        actions, _, self._states = self._policy.step(rows, self._weights, self._states, rng=self._rng)
        return actions

    def begin(self, first: NDArray[np.bool_]) -> None:
        """Forget, where an episode begins."""
        if self._states is not None:
            self._states[first] = 0.0


def preference_label(preference: Preference, digits: int = 2) -> str:
    """``latency=0.60,energy=0.40``: the non-zero weights, in the objectives' order."""
    return ",".join(
        f"{name}={weight:.{digits}f}"
        for name, weight in zip(preference.names, preference.weights, strict=True)
        if weight > 0
    )


def named_preferences(preferences: Iterable[Preference]) -> dict[str, Preference]:
    """Preferences by label; labels that would be alike get more digits. One that comes twice stands once."""
    named: dict[str, Preference] = {}
    for preference in preferences:
        digits = 2
        while (label := preference_label(preference, digits)) in named and digits < MOST_DIGITS:
            if named[label] == preference:
                break
            digits += 1
        named[label] = preference
    return named


def evaluate_policy(
    scenario: Scenario,
    bundle: Path | str | BundlePolicy,
    preferences: Sequence[Preference] | Mapping[str, Preference],
    seeds: Sequence[int],
    *,
    steps: int,
    warmup: int = 0,
    replicas: int = 1,
) -> list[Candidate]:
    """The policy at each preference as a candidate of a front, all on the same seeds.

    Args:
        scenario: what is controlled.
        bundle: folder of the bundle, or the loaded policy.
        preferences: a sequence, or by name (modes); ``policy@latency=0.60,...`` or ``policy@normal`` names a candidate.
        seeds: one environment (times ``replicas``) each.
        steps: counted steps.
        warmup: steps run first and left out.
        replicas: environments per seed, pooled.

    Raises:
        InvalidInputError: no seed, no counted step, or an objective undefined because nothing was counted for it.
    """
    policy = bundle if isinstance(bundle, BundlePolicy) else load_bundle(bundle)
    named = dict(preferences) if isinstance(preferences, Mapping) else named_preferences(preferences)
    return [
        evaluate(
            scenario, PolicyController(policy, preference), seeds, steps=steps, warmup=warmup, replicas=replicas
        ).candidate(f"policy@{name}", "policy", {"preference": preference.to_dict()})
        for name, preference in named.items()
    ]
