"""Live state of one Gateway: loaded bundles under the deployment records that name them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy, DiscreteAction, Float32, load_bundle
from rlaas.errors import BundleError, InvalidInputError, NotReadyError, RlaasError, check_choice
from rlaas.experiments.assignment import Assignment, unit_assigner
from rlaas.objectives import Preference
from rlaas.serving.choosing import Chosen, FrontChooser
from rlaas.serving.decision_ids import policy_tag
from rlaas.serving.live import DeploymentRecord, Variant
from rlaas.serving.served_front import front_key, read_served_front
from rlaas.serving.shield import ActiveShield, action_of

__all__ = [
    "FALLBACK",
    "SAFE_DEFAULT",
    "ColdPolicyError",
    "LivePolicy",
    "LiveState",
    "LoadedVariant",
    "SafeDefault",
    "check_compatible",
    "check_record",
    "load_state",
]


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
        chosen = self._asked(mode, weights)
        # An unconditioned policy acts the same under every preference: logging one would claim an influence.
        if chosen is None or not self.policy.manifest.preference_conditioned:
            return None, None
        return chosen

    def choose(self, constraints: object, mode: str | None, weights: Mapping[str, float] | None) -> Chosen:
        """The candidate of the version's front that keeps ``constraints`` and fits the preference best.

        Raises:
            InvalidInputError: there is no front, no candidate keeps them, or they or the preference are malformed.
        """
        asked = self._asked(mode, weights)
        if isinstance(self.front, str) or asked is None:
            reason = self.front if isinstance(self.front, str) else "has no objectives"
            raise InvalidInputError(
                f"constraints need a front, and version {self.version} of {self.policy_name!r} {reason}",
                field="constraints",
            )
        return self.front.choose(constraints, asked[1])

    def _asked(self, mode: str | None, weights: Mapping[str, float] | None) -> tuple[Float32, dict[str, float]] | None:
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
        shadows: variants that get copies of the decisions and never answer.
        safe_default: what answers when neither a version nor a reserve can; None: 503.
        shield: has the last word; None where there is none.
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
    reserves: tuple[LoadedVariant, ...]
    shadows: tuple[LoadedVariant, ...]
    safe_default: SafeDefault | None
    shield: ActiveShield | None
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


def check_compatible(policies: Mapping[int, BundlePolicy]) -> None:
    """Check that versions can stand side by side behind one name.

    Raises:
        InvalidInputError: two versions differ in features, action space or objectives.
    """
    (first, reference), *others = policies.items()
    for version, policy in others:
        for what, mine, theirs in (
            ("features", policy.manifest.observation.names, reference.manifest.observation.names),
            ("action space", policy.manifest.action, reference.manifest.action),
            ("objectives", [o.name for o in policy.objectives], [o.name for o in reference.objectives]),
        ):
            if mine != theirs:
                raise InvalidInputError(f"variants: versions {first} and {version} have other {what}", field="variants")


def check_record(record: DeploymentRecord, policies: Mapping[int, BundlePolicy]) -> None:
    """Check that a deployment can be served from the versions that it names.

    Raises:
        InvalidInputError: they do not fit together, or its shield or safe action does not fit them.
    """
    check_compatible(policies)
    _safety(record, next(iter(policies.values())))


def _safety(record: DeploymentRecord, policy: BundlePolicy) -> tuple[ActiveShield | None, NDArray[Any] | None]:
    """The shield of a deployment and its safe action [n_actions], checked against one of its versions.

    Raises:
        InvalidInputError: one of them does not fit the policy, or the shield rules the safe action out.
    """
    shield = None
    if record.shield is not None and not record.shield.empty:
        shield = ActiveShield.of(record.shield, policy.manifest)
    if record.safe_action is None:
        return shield, None
    action = action_of(record.safe_action, policy.manifest.action, "safe_action")
    if shield is not None:
        shield.check(action, "safe_action")
    return shield, action


def load_state(
    previous: LiveState,
    records: Sequence[DeploymentRecord],
    paths: Mapping[tuple[str, int], Path],
    *,
    keep: Container[str] | None = None,
) -> tuple[LiveState, dict[str, str]]:
    """Load what is new, keep what is loaded already.

    Slow (reads files): call it off the event loop.

    Args:
        previous: what is served now; a policy whose new record cannot be loaded keeps its entry from here.
        records: what should be served.
        paths: folder of the bundle of each (policy, version).
        keep: names to have in memory; the others stay cold. None keeps all.

    Returns:
        The next state, and the reason by deployment id where a record could not be loaded.
    """
    failures: dict[str, str] = {}
    policies: dict[str, LivePolicy] = {}
    cold = frozenset(record.policy for record in records if keep is not None and record.policy not in keep)
    for record in records:
        if record.policy in cold:
            continue
        before = previous.policies.get(record.policy)
        if before is not None and before.record == record:
            policies[record.policy] = before
            continue
        try:
            policies[record.policy] = _load(record, before, paths)
        except RlaasError as problem:
            failures[record.id] = problem.message
            if before is not None:
                policies[record.policy] = before
    by_tag = {live.tag: live for live in policies.values()}
    return LiveState(MappingProxyType(policies), cold, MappingProxyType(by_tag)), failures


def _load(record: DeploymentRecord, before: LivePolicy | None, paths: Mapping[tuple[str, int], Path]) -> LivePolicy:
    loaded: dict[int, BundlePolicy] = {}
    if before is not None and before.record.id == record.id:
        loaded = {variant.version: variant.policy for variant in (*before.variants.values(), *before.reserves)}
    weights = record.weights()
    bundles: dict[int, BundlePolicy] = {}
    fallback = [] if record.fallback is None else [Variant(name=FALLBACK, version=record.fallback, weight=0.0)]
    for variant in (*record.variants, *fallback):
        if variant.version not in bundles:
            bundles[variant.version] = loaded.get(variant.version) or _read(record.policy, variant.version, paths)
    check_compatible(bundles)
    fronts = {version: _front(record.policy, version, policy, paths) for version, policy in bundles.items()}
    variants = {
        v.name: LoadedVariant.of(v, weights[v.name], record.policy, bundles[v.version], fronts[v.version])
        for v in record.variants
    }
    primary = max(variants.values(), key=lambda variant: variant.share)
    shield, safe_action = _safety(record, primary.policy)
    return LivePolicy(
        record=record,
        variants=MappingProxyType(variants),
        weights=MappingProxyType(weights),
        primary=primary,
        alone=primary.share == 1.0,
        assign=unit_assigner(record.experiment.salt if record.experiment else record.id, weights),
        experiment=record.experiment.name if record.experiment else None,
        shadows=tuple(variants[v.name] for v in record.variants if v.shadow),
        reserves=tuple(
            LoadedVariant.of(v, 0.0, record.policy, bundles[v.version], fronts[v.version]) for v in fallback
        ),
        safe_default=None if safe_action is None else _safe_default(primary, safe_action),
        shield=shield,
        tag=policy_tag(record.policy),
        outcome_fields=frozenset(name for policy in bundles.values() for name in policy.outcome_fields),
    )


def _safe_default(primary: LoadedVariant, action: NDArray[Any]) -> SafeDefault:
    variant = replace(
        primary,
        name=SAFE_DEFAULT,
        version=0,
        explore=False,
        epsilon=0.0,
        share=0.0,
        id_tag=policy_tag(primary.policy_name, 0),
    )
    single = isinstance(primary.policy.manifest.action, DiscreteAction)
    return SafeDefault(variant, action if single else action[None])


def _front(name: str, version: int, policy: BundlePolicy, paths: Mapping[tuple[str, int], Path]) -> FrontChooser | str:
    """Who picks from a version's front, or why nobody does: without a front it still answers everything else."""
    path = paths.get(front_key(name, version))
    if path is None:
        return "has none"
    try:
        return FrontChooser(read_served_front(path), policy)
    except BundleError as problem:
        return f"has none that can be used: {problem.message}"


def _read(policy: str, version: int, paths: Mapping[tuple[str, int], Path]) -> BundlePolicy:
    path = paths.get((policy, version))
    if path is None:
        raise BundleError(f"the registry has no bundle of {policy} version {version}", field="version")
    loaded = load_bundle(path)
    if loaded.manifest.n_state:
        raise BundleError(
            f"{policy} version {version} remembers from step to step, and a Gateway keeps no state between requests; "
            "train without ppo.memory to serve it",
            field="version",
        )
    return loaded
