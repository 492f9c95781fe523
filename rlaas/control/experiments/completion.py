"""What the document of an experiment leaves to its policy, filled in when it begins."""

from __future__ import annotations

from collections.abc import Sequence

from rlaas.bundles import BundlePolicy
from rlaas.control.experiments.allocations import LinearThompsonAllocation, ObjectiveThompsonAllocation
from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.errors import InvalidInputError, check_choice
from rlaas.experiments.metrics import RatioMetric

__all__ = ["check_values", "completed"]


def completed(document: ExperimentDocument, policies: Sequence[BundlePolicy]) -> ExperimentDocument:
    """The document with the places of its features, and with objectives and modes.

    Args:
        document: as declared.
        policies: of its variants, in their order.

    Raises:
        InvalidInputError: a feature, an objective or a mode that the policy does not have, or a version whose
            objective vector depends on the mode.
    """
    rule, first = document.allocation, policies[0]
    if isinstance(rule, LinearThompsonAllocation):
        names = first.manifest.observation.names
        features = []
        for feature in rule.features:
            index = None
            if feature.source == "observation":
                check_choice(feature.name, names, field="allocation.features", error=InvalidInputError)
                index = names.index(feature.name)
            features.append(feature.model_copy(update={"index": index}))
        return document.model_copy(update={"allocation": rule.model_copy(update={"features": tuple(features)})})
    if isinstance(rule, ObjectiveThompsonAllocation):
        for variant, policy in zip(document.variants, policies, strict=True):
            if policy.manifest.preference_conditioned:
                raise InvalidInputError(
                    f"allocation: version {variant.version} acts on the preference, so that its objectives differ by "
                    "mode; allowed: versions that do not",
                    field="allocation",
                )
        found = rule.model_copy(update={"objectives": first.objectives, "modes": rule.modes or first.manifest.modes})
        if not found.modes:
            raise InvalidInputError(
                "allocation.modes is needed: the policy has none of its own", field="allocation.modes"
            )
        modes = {mode: preference.to_dict() for mode, preference in found.preferences().items()}
        return document.model_copy(update={"allocation": found.model_copy(update={"modes": modes})})
    return document


def check_values(document: ExperimentDocument, policies: Sequence[BundlePolicy]) -> None:
    """Refuse a metric of something that is never reported, which would be 0 for every unit.

    Raises:
        InvalidInputError: names what outcomes carry.
    """
    fields = set.intersection(*(set(policy.outcome_fields) for policy in policies))
    for metric in document.metrics:
        names = (metric.numerator, metric.denominator) if isinstance(metric, RatioMetric) else (metric.value,)
        for name in names:
            if name not in fields:
                raise InvalidInputError(
                    f"metric {metric.name}: outcomes of {document.policy} carry no {name[:80]!r}; allowed: "
                    f"{', '.join(sorted(fields)) or '(none)'}",
                    field=f"metric.{metric.name}",
                )
