"""What to do, in words: from the figures of a result page to one recommendation with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rlaas.control.experiments.allocations import ObjectiveThompsonAllocation
from rlaas.control.experiments.documents import ExperimentDocument

__all__ = ["Recommendation", "recommend"]

Action = Literal["keep running", "ship", "keep", "stop"]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do.

    Attributes:
        action: ``keep running``; ``ship`` a treatment; ``keep`` the control; ``stop``, since nothing can be concluded.
        variant: that should serve from now on; None while it runs and where nothing can be concluded.
        words: the action, for a person.
        reason: why, one sentence.
    """

    action: Action
    variant: str | None
    words: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"action": self.action, "variant": self.variant, "words": self.words, "reason": self.reason}


def recommend(
    document: ExperimentDocument,
    *,
    primary: Mapping[str, Mapping[str, Any]],
    guardrails: Sequence[Mapping[str, Any]],
    split_broken: str,
    disturbed: str,
    reached: bool,
    expected_end_us: int | None,
    modes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recommendation:
    """The recommendation.

    Args:
        document: the experiment.
        primary: by treatment ``p_value`` (of the stopping rule, adjusted for several treatments), ``estimate`` and
            ``better`` (whether it points the way that is wanted); without those that nothing is known of.
        guardrails: ``metric``, ``treatment`` and ``verdict`` of each.
        split_broken: why the split cannot be believed; empty if it can.
        disturbed: what somebody else has done to the deployment; empty: nothing.
        reached: whether the planned size is.
        expected_end_us: when it will be, if known.
        modes: of an allocation by objectives, by mode ``serve``: the variant that is shown to be better, or the
            control.
    """
    rule, control = document.stopping, document.control
    if split_broken:
        return Recommendation("stop", None, "stop: broken split", split_broken)
    if disturbed:
        return Recommendation("stop", None, "stop: disturbed", disturbed)
    if isinstance(document.allocation, ObjectiveThompsonAllocation):
        return _by_mode(document, modes, reached)
    failed = {one["treatment"]: one["metric"] for one in guardrails if one["verdict"] == "failed"}
    left = [name for name in document.treatments if name not in failed]
    if not left:
        named = ", ".join(sorted(set(failed.values())))
        return _keep(control, f"guardrail {named} is hurt by more than its margin")
    known = {name: found for name, found in primary.items() if name in left}
    judged = rule.kind == "sequential" or reached
    wins = {n: f for n, f in known.items() if judged and f["p_value"] <= rule.alpha and f["better"]}
    losses = [n for n, f in known.items() if judged and f["p_value"] <= rule.alpha and not f["better"]]
    metric = document.primary.name
    if wins:
        best = max(wins, key=lambda name: abs(wins[name]["estimate"]))
        open_ = [one["metric"] for one in guardrails if one["treatment"] == best and one["verdict"] == "undecided"]
        gain = f"{metric} of {best} is better than that of {control} (p = {wins[best]['p_value']:.2g})"
        if not open_:
            return Recommendation(
                "ship", best, f"ship {best}", f"{gain}{', every guardrail holds' if guardrails else ''}"
            )
        if not reached:
            return _run(f"{gain}, but guardrail {', '.join(open_)} is not yet decided", expected_end_us)
        return _keep(control, f"{gain}, but guardrail {', '.join(open_)} is undecided at the planned size")
    if len(losses) == len(left):
        return _keep(control, f"{metric} of {', '.join(losses)} is worse than that of {control}")
    if reached:
        return _keep(control, f"no difference in {metric} is shown at the planned size")
    if rule.kind == "sequential":
        return _run(f"no difference in {metric} is shown yet", expected_end_us)
    if document.design == "switchback":
        return _run(f"it is judged once, at {rule.size:,} pairs of blocks", expected_end_us)
    if document.allocation is not None:
        size = rule.size * len(document.variants)
        return _run(f"it is judged once, at {size:,} units of all variants together", expected_end_us)
    return _run(f"it is judged once, at {rule.size:,} units per variant", expected_end_us)


def _by_mode(
    document: ExperimentDocument, modes: Mapping[str, Mapping[str, Any]] | None, reached: bool
) -> Recommendation:
    """One variant where it is the one for every mode; otherwise the control, and the modes in words."""
    if not reached or modes is None:
        size = document.stopping.size * len(document.variants)
        return _run(f"it is judged once, at {size:,} units of all variants together", None)
    serve = {mode: str(one["serve"]) for mode, one in modes.items()}
    said = ", ".join(f"{name} in {mode}" for mode, name in serve.items())
    if len(set(serve.values())) > 1:
        words = f"keep {document.control}, or serve by mode: {said}"
        return Recommendation("keep", document.control, words, "no variant is the best one in every mode")
    (best,) = set(serve.values())
    if best == document.control:
        return _keep(best, "in no mode is another variant shown to be better at the planned size")
    return Recommendation("ship", best, f"ship {best}", f"it is better than {document.control} in every mode: {said}")


def _run(reason: str, end_us: int | None) -> Recommendation:
    end = "" if end_us is None else f"; the planned size is expected on {_day(end_us)}"
    return Recommendation("keep running", None, "keep running", reason + end)


def _keep(control: str, reason: str) -> Recommendation:
    return Recommendation("keep", control, f"keep {control}", reason)


def _day(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d")
