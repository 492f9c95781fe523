"""Live state of one Gateway: loaded bundles under the deployment records that name them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy, DiscreteAction, load_bundle
from rlaas.errors import BundleError, InvalidInputError, RlaasError
from rlaas.experiments.assignment import unit_assigner
from rlaas.experiments.conditional import ConditionalAssigner, FeatureReader
from rlaas.experiments.layers import placer
from rlaas.experiments.targeting import matcher
from rlaas.serving.choosing import FrontChooser
from rlaas.serving.decision_ids import policy_tag
from rlaas.serving.entities import FeatureCatalogue, ObservationFeatures, check_places
from rlaas.serving.live import DeploymentRecord, ExperimentSpec, Variant
from rlaas.serving.loaded import (
    FALLBACK,
    HELD_OUT,
    OUTSIDE,
    SAFE_DEFAULT,
    Audience,
    Conditional,
    LivePolicy,
    LiveState,
    LoadedVariant,
    SafeDefault,
)
from rlaas.serving.served_front import front_key, read_served_front
from rlaas.serving.shield import ActiveShield, action_of

__all__ = ["check_compatible", "check_record", "load_state"]


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
        InvalidInputError: they do not fit together, or its shield, safe action or features do not fit them.
    """
    check_compatible(policies)
    policy = next(iter(policies.values()))
    _safety(record, policy)
    check_places(policy.manifest.observation.names, record.features or {})


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
    catalogue: FeatureCatalogue | None = None,
) -> tuple[LiveState, dict[str, str]]:
    """Load what is new, keep what is loaded already.

    Slow (reads files): call it off the event loop.

    Args:
        previous: what is served now; a policy whose new record cannot be loaded keeps its entry from here.
        records: what should be served.
        paths: folder of the bundle of each (policy, version).
        keep: names to have in memory; the others stay cold. None keeps all.
        catalogue: where the features are that deployments declare; None: there are none.

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
            policies[record.policy] = _load(record, before, paths, catalogue)
        except RlaasError as problem:
            failures[record.id] = problem.message
            if before is not None:
                policies[record.policy] = before
    by_tag = {live.tag: live for live in policies.values()}
    return LiveState(MappingProxyType(policies), cold, MappingProxyType(by_tag)), failures


def _load(
    record: DeploymentRecord,
    before: LivePolicy | None,
    paths: Mapping[tuple[str, int], Path],
    catalogue: FeatureCatalogue | None,
) -> LivePolicy:
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
    if record.experiment is not None and record.experiment.weighs:
        variants = {name: replace(variant, weighed=True) for name, variant in variants.items()}
    primary = max(variants.values(), key=lambda variant: variant.share)
    shield, safe_action = _safety(record, primary.policy)
    audience = _audience(record.experiment, variants[record.variants[0].name], weights)
    return LivePolicy(
        record=record,
        variants=MappingProxyType(variants),
        weights=MappingProxyType(weights),
        primary=primary,
        alone=primary.share == 1.0 and audience is None,
        assign=unit_assigner(record.experiment.salt if record.experiment else record.id, weights),
        experiment=record.experiment.name if record.experiment else None,
        audience=audience,
        shadows=tuple(variants[v.name] for v in record.variants if v.shadow),
        reserves=tuple(
            LoadedVariant.of(v, 0.0, record.policy, bundles[v.version], fronts[v.version]) for v in fallback
        ),
        safe_default=None if safe_action is None else _safe_default(primary, safe_action),
        shield=shield,
        features=_features(record, primary.policy, catalogue),
        tag=policy_tag(record.policy),
        outcome_fields=frozenset(name for policy in bundles.values() for name in policy.outcome_fields),
    )


def _features(
    record: DeploymentRecord, policy: BundlePolicy, catalogue: FeatureCatalogue | None
) -> ObservationFeatures | None:
    if not record.features:
        return None
    if catalogue is None:
        raise InvalidInputError("features: this process has no store of features", field="features")
    return catalogue.filler(policy.manifest.observation.names, record.features)


def _audience(
    experiment: ExperimentSpec | None, control: LoadedVariant, weights: Mapping[str, float]
) -> Audience | None:
    if experiment is None or not experiment.selective:
        return None
    placement, rule = experiment.placement, experiment.targeting
    return Audience(
        where=None if placement is None else placer(placement.salt, placement.buckets, placement.holdout),
        matches=None if rule is None else matcher(rule),
        conditional=_conditional(experiment, control, weights),
        outside=replace(control, name=OUTSIDE, share=0.0),
        held=replace(control, name=HELD_OUT, share=0.0),
    )


def _conditional(
    experiment: ExperimentSpec, control: LoadedVariant, weights: Mapping[str, float]
) -> Conditional | None:
    """Raise InvalidInputError where a spec does not fit the policy."""
    spec = experiment.conditional
    if spec is None:
        return None
    names = [objective.name for objective in control.policy.objectives]
    wide = max((one.index for one in spec.features if one.index is not None), default=-1)
    if (spec.objectives and list(spec.objectives) != names) or wide >= control.policy.n_features:
        raise InvalidInputError(
            f"conditional: expected objectives {', '.join(names)}, features of {control.policy.n_features}",
            field="experiment.conditional",
        )
    assigner = ConditionalAssigner(
        spec, experiment.salt, {name: weight for name, weight in weights.items() if weight > 0}
    )
    if spec.features:
        return Conditional(assigner, FeatureReader(spec.features), MappingProxyType({}))
    by_mode = {mode: (x, assigner.shares(x)) for mode, (x, _) in control.preferences.items()}
    return Conditional(assigner, None, MappingProxyType(by_mode))


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
