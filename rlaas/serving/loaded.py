"""What a Gateway has in memory: versions, the policies that they stand for, and all of it at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy, Float32
from rlaas.errors import InvalidInputError, NotFoundError, NotReadyError, check_choice
from rlaas.experiments.assignment import Assignment
from rlaas.experiments.conditional import ConditionalAssigner, FeatureReader
from rlaas.experiments.targeting import Matcher
from rlaas.names import check_name
from rlaas.objectives import Preference
from rlaas.serving.choosing import Chosen, FrontChooser
from rlaas.serving.decision_ids import policy_tag
from rlaas.serving.entities import ObservationFeatures
from rlaas.serving.live import DeploymentRecord, Variant
from rlaas.serving.shield import ActiveShield

__all__ = [
    "FALLBACK",
    "HELD_OUT",
    "OUTSIDE",
    "SAFE_DEFAULT",
    "Audience",
    "ColdPolicyError",
    "Conditional",
    "LivePolicy",
    "LiveState",
    "LoadedVariant",
    "SafeDefault",
]

_MOST_NAMED = 50


class ColdPolicyError(NotReadyError):
    """A policy that is live, but not in memory now.

    Attributes:
        policy: its name.
    """

    def __init__(self, policy: str) -> None:
        super().__init__(f"policy {policy!r} is being loaded; try again", field="policy")
        self.policy = policy


FALLBACK = "fallback"
"""Variant under which a deployment's fallback version answers."""

OUTSIDE = "outside"
"""Variant under which the units are answered that the experiment does not take in: the control's version."""

HELD_OUT = "layer-holdout"
"""Variant under which the units of the layer's holdout are answered: the control's version too."""

SAFE_DEFAULT = "safe-default"
"""Variant, of version 0, under which a deployment's safe action is answered."""


@dataclass(frozen=True, slots=True)
class LoadedVariant:
    """A variant with its bundle in memory.

    Attributes:
        name, version, explore, epsilon: as in the deployment record.
        share: probability that a decision goes here.
        policy_name: name of its policy.
        id_tag: of its decisions, see :func:`~rlaas.serving.decision_ids.policy_tag`.
        policy: the loaded bundle.
        preferences: weights float32 [n_objectives] and as a mapping, by mode; None stands for no mode: uniform.
        front: who picks a candidate under constraints; where there is no front, why.
        weighed: whether the preference of a request has a say in which variant answers it, and so is logged even where
            the policy does not act on it.
    """

    name: str
    version: int
    explore: bool
    epsilon: float
    share: float
    policy_name: str
    id_tag: str
    policy: BundlePolicy
    preferences: Mapping[str | None, tuple[Float32, dict[str, float]]]
    front: FrontChooser | str
    weighed: bool = False

    @classmethod
    def of(
        cls, variant: Variant, share: float, name: str, policy: BundlePolicy, front: FrontChooser | str = "has none"
    ) -> LoadedVariant:
        """Work out what every request needs once; ``name`` is that of the policy.

        Raises:
            InvalidInputError: a share of exploration for a policy whose actions have no density.
        """
        objectives = policy.objectives
        found: dict[str | None, Preference] = {None: Preference.uniform(objectives)} if objectives else {}
        found.update((mode, Preference.of(objectives, weights)) for mode, weights in policy.manifest.modes.items())
        preferences = {mode: (p.array().astype(np.float32), p.to_dict()) for mode, p in found.items()}
        return cls(
            variant.name,
            variant.version,
            variant.explore,
            policy.check_epsilon(variant.epsilon),
            share,
            name,
            policy_tag(name, variant.version),
            policy,
            preferences,
            front,
        )

    def preference(
        self, mode: str | None, weights: Mapping[str, float] | None
    ) -> tuple[Float32 | None, dict[str, float] | None]:
        """The preference to act under, as an array [n_objectives] and as it is logged; None where the policy has none.

        Raises:
            InvalidInputError: both or unknown mode, or impossible weights.
        """
        chosen = self.asked(mode, weights)
        if chosen is None or not self.policy.manifest.preference_conditioned:
            # An unconditioned policy acts the same under every preference: logging one would claim an influence.
            return None, chosen[1] if chosen is not None and self.weighed else None
        return chosen

    def choose(self, constraints: object, mode: str | None, weights: Mapping[str, float] | None) -> Chosen:
        """The candidate of the version's front that keeps ``constraints`` and fits the preference best.

        Raises:
            InvalidInputError: there is no front, no candidate keeps them, or they or the preference are malformed.
        """
        asked = self.asked(mode, weights)
        if isinstance(self.front, str) or asked is None:
            reason = self.front if isinstance(self.front, str) else "has no objectives"
            raise InvalidInputError(
                f"constraints need a front, and version {self.version} of {self.policy_name!r} {reason}",
                field="constraints",
            )
        return self.front.choose(constraints, asked[1])

    def asked(self, mode: str | None, weights: Mapping[str, float] | None) -> tuple[Float32, dict[str, float]] | None:
        """The preference of a request, whether the policy acts on it or not; None where there are no objectives.

        Raises:
            InvalidInputError: as of :meth:`preference`.
        """
        if mode is not None and weights is not None:
            raise InvalidInputError("mode and preference exclude each other; send one of them", field="preference")
        if mode is not None:
            check_choice(mode, self.policy.manifest.modes, field="mode", error=InvalidInputError)
        if weights is not None:
            checked = Preference.of(self.policy.objectives, weights)
            return checked.array().astype(np.float32), checked.to_dict()
        return self.preferences.get(mode)

    def utility(self, outcome: Mapping[str, float]) -> float | None:
        """How good an outcome is, in [0, 1]: normalised objectives under equal weights, each cut to its range.

        The yardstick of canaries: the same for every version and caller, whatever preference they decided under. None
        where the outcome lacks an objective, or the policy has none.
        """
        total = 0.0
        for objective in self.policy.objectives:
            value = outcome.get(objective.name)
            if value is None:
                return None
            share = min(1.0, max(0.0, (value - objective.low) / (objective.high - objective.low)))
            total += share if objective.direction == "maximize" else 1.0 - share
        return total / len(self.policy.objectives) if self.policy.objectives else None


@dataclass(frozen=True, slots=True)
class SafeDefault:
    """The action that answers when no version can.

    Attributes:
        variant: under which it is answered and logged.
        action: as one row [1, n_actions] or [1].
    """

    variant: LoadedVariant
    action: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Conditional:
    """Draws the variant of a unit by what its request brings.

    Attributes:
        assigner: of the batch.
        features: reads those that shares depend on; None: they depend on the preference.
        by_mode: weights [n_objectives] and shares of each mode, worked out beforehand; None stands for no mode.
    """

    assigner: ConditionalAssigner
    features: FeatureReader | None
    by_mode: Mapping[str | None, tuple[Float32, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom an experiment takes in: units whose bucket is its own, and whose attributes are targeted.

    Attributes:
        where: the part of the layer that a unit is in, see :func:`~rlaas.experiments.layers.placer`; None: all are
            inside.
        matches: whether attributes are targeted; None: all are.
        conditional: draws the variant of those that are in; None: by their key alone.
        outside: who answers the others.
        held: who answers the units of the layer's holdout.
    """

    where: Callable[[str], int] | None
    matches: Matcher | None
    conditional: Conditional | None
    outside: LoadedVariant
    held: LoadedVariant


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """One deployment, ready to decide.

    Attributes:
        record: which.
        variants: by name.
        weights: share of the decisions by name of the variant.
        primary: the variant with the largest share.
        alone: every decision goes to ``primary``.
        assign: variant of a unit, where they are drawn by unit.
        experiment: its name, if one runs.
        audience: of an experiment that does not take in everyone; None: it does, or there is none.
        shadows: variants that get copies of the decisions and never answer.
        safe_default: what answers when neither a version nor a reserve can; None: 503.
        shield: has the last word; None where there is none.
        features: fills observations of requests that name entities; None where the deployment declares none.
        reserves: who answers instead of a version that keeps failing, first the deployment's ``fallback``.
        tag: of the policy in decision ids.
        outcome_fields: what outcomes may carry.
    """

    record: DeploymentRecord
    variants: Mapping[str, LoadedVariant]
    weights: Mapping[str, float]
    primary: LoadedVariant
    alone: bool
    assign: Callable[[str], Assignment]
    experiment: str | None
    audience: Audience | None
    reserves: tuple[LoadedVariant, ...]
    shadows: tuple[LoadedVariant, ...]
    safe_default: SafeDefault | None
    shield: ActiveShield | None
    features: ObservationFeatures | None
    tag: str
    outcome_fields: frozenset[str]

    def of_version(self, version: int | None) -> LoadedVariant | None:
        """The first variant that serves a version."""
        return next((variant for variant in self.variants.values() if variant.version == version), None)


@dataclass(frozen=True, slots=True)
class LiveState:
    """Everything that a Gateway serves at one moment; replaced as a whole, never changed.

    Attributes:
        policies: in memory, by name.
        cold: names that are live, but not in memory.
        by_tag: the same policies by their tag in decision ids.
    """

    policies: Mapping[str, LivePolicy] = field(default_factory=lambda: MappingProxyType({}))
    cold: frozenset[str] = frozenset()
    by_tag: Mapping[str, LivePolicy] = field(default_factory=lambda: MappingProxyType({}))

    def generations(self) -> dict[str, int]:
        """Loaded generation by deployment id."""
        return {live.record.id: live.record.generation for live in self.policies.values()}

    def serves_as(self, other: LiveState) -> bool:
        """Whether every request gets the same answer under ``other``: the very same policies are there."""
        if self.cold != other.cold or self.policies.keys() != other.policies.keys():
            return False
        return all(other.policies[name] is live for name, live in self.policies.items())

    def policy(self, name: str, *, field: str = "policy") -> LivePolicy:
        """The live policy of that name.

        Raises:
            InvalidInputError: not a plain name.
            ColdPolicyError: it is live, but not in memory.
            NotFoundError: nothing of that name is live; says what is.
        """
        live = self.policies.get(name)
        if live is None:
            check_name(name, field=field)
            if name in self.cold:
                raise ColdPolicyError(name)
            names = sorted({*self.policies, *self.cold})
            allowed = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "") or "(none)"
            raise NotFoundError(f"no live {field} {name!r}; allowed: {allowed}", field=field)
        return live
