"""The verdict on a candidate: what it gains over its opponent in the same worlds, and what it may not lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.objectives import Preference
from rlaas.pipeline.continuous.config import EvaluationConfig
from rlaas.pipeline.experiment import pseudo_values
from rlaas.pipeline.targets import judge_targets
from rlaas.scenarios import Evaluation, Scenario

__all__ = ["Difference", "Judgement", "judge", "paired_difference"]

Word = Literal["better", "not shown", "worse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Candidate minus opponent, in normalised units: 1 is the whole range of an objective.

    Attributes:
        mean: of the difference of preference-weighted utilities.
        low, high: its confidence interval.
    """

    mean: float
    low: float
    high: float

    @property
    def word(self) -> Word:
        """What is shown: the interval lies above 0, below it, or holds it."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not shown"

    def to_dict(self) -> dict[str, float]:
        """Plain JSON types."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict and what it rests on.

    Attributes:
        verdict: in the mode that decides.
        mode: that mode.
        differences: by mode.
        objectives: by mode, of ``candidate`` and ``opponent``, the means by objective.
        guards: by name whether it holds, and a sentence.
        broken: sentences of what stands against a promotion besides the verdict.
    """

    verdict: Word
    mode: str
    differences: Mapping[str, Difference]
    objectives: Mapping[str, Mapping[str, Mapping[str, float]]]
    guards: Mapping[str, tuple[bool, str]]
    broken: tuple[str, ...]

    @property
    def promote(self) -> bool:
        """Better, and nothing stands against it."""
        return self.verdict == "better" and not self.broken

    def sentence(self, opponent: str) -> str:
        """The verdict with its figures."""
        d = self.differences[self.mode]
        words = {"better": "is better than", "not shown": "is not shown to differ from", "worse": "is worse than"}
        return (
            f"the candidate {words[self.verdict]} {opponent} in mode {self.mode}: utility {d.mean:+.4f} "
            f"({d.low:+.4f} to {d.high:+.4f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "verdict": self.verdict,
            "mode": self.mode,
            "promote": self.promote,
            "modes": {
                name: {**difference.to_dict(), **{k: dict(v) for k, v in self.objectives[name].items()}}
                for name, difference in self.differences.items()
            },
            "guards": {name: {"holds": holds, "detail": text} for name, (holds, text) in self.guards.items()},
            "broken": list(self.broken),
        }


def paired_difference(
    scenario: Scenario, ours: Evaluation, theirs: Evaluation, preference: Preference, confidence: float
) -> Difference:
    """Student interval of the difference of utilities over common evaluation seeds.

    The utility is a function of sums over all seeds; its jackknife pseudo-values (one per seed) make it a mean again,
    and their differences within a seed are free of what the world alone decides.

    Raises:
        InvalidInputError: other seeds, fewer than two, or an objective that no data define.
    """
    if ours.seeds != theirs.seeds:
        raise InvalidInputError("candidate and opponent were evaluated on different seeds", field="seeds")
    gained = pseudo_values(scenario, ours.numerators, ours.denominators, preference) - pseudo_values(
        scenario, theirs.numerators, theirs.denominators, preference
    )
    n, mean = len(gained), float(gained.mean())
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * gained.std(ddof=1) / np.sqrt(n))
    return Difference(mean=mean, low=mean - half, high=mean + half)


def judge(
    scenario: Scenario,
    candidate: Mapping[str, Evaluation],
    opponent: Mapping[str, Evaluation],
    default: Evaluation,
    config: EvaluationConfig,
) -> Judgement:
    """Hold a candidate against its opponent.

    Args:
        scenario: gives modes, objectives and guards.
        candidate, opponent: evaluation in each mode, all on the same seeds.
        default: the default baseline's, which the scenario's guards are relative to.
        config: which mode decides, the confidence, the guardrails.

    Raises:
        InvalidInputError: other seeds, fewer than two, or an objective that no data define.
    """
    mode = config.mode or scenario.primary_mode
    differences = {
        name: paired_difference(scenario, candidate[name], opponent[name], entry.preference, config.confidence)
        for name, entry in scenario.modes.items()
    }
    names = [o.name for o in scenario.objectives]
    objectives = {
        name: {
            who: dict(zip(names, _pooled(scenario, evaluations[name]), strict=True))
            for who, evaluations in (("candidate", candidate), ("opponent", opponent))
        }
        for name in scenario.modes
    }
    guards = _scenario_guards(scenario, default, candidate[mode])
    for name, margin in config.guardrails.items():
        alone = Preference.of(names, {name: 1.0})
        change = paired_difference(scenario, candidate[mode], opponent[mode], alone, config.confidence)
        text = f"{name} {change.mean:+.4f} of its range (down to {change.low:+.4f}), allowed {-margin:+.4f}"
        guards[f"guardrail {name}"] = (change.low >= -margin, text)
    broken = [f"{name} does not hold: {text}" for name, (holds, text) in guards.items() if not holds]
    if config.other_modes:
        broken += [
            f"worse in mode {name}: utility {d.mean:+.4f} ({d.low:+.4f} to {d.high:+.4f})"
            for name, d in differences.items()
            if name != mode and d.word == "worse"
        ]
    return Judgement(
        verdict=differences[mode].word,
        mode=mode,
        differences=differences,
        objectives=objectives,
        guards=guards,
        broken=tuple(broken),
    )


def _scenario_guards(scenario: Scenario, default: Evaluation, candidate: Evaluation) -> dict[str, tuple[bool, str]]:
    """The scenario's own guards: what may not be bought with a gain elsewhere."""
    found = judge_targets(scenario, default, [candidate]).guards
    return {
        f"guard {name}": (
            holds,
            f"{ratio:.4f} of the default's, required {scenario.guard_shares[name]:.4g}",
        )
        for name, (ratio, holds) in found.items()
    }


def _pooled(scenario: Scenario, evaluation: Evaluation) -> list[float]:
    values = scenario.objective_values(evaluation.numerators.sum(axis=0), evaluation.denominators.sum(axis=0))
    return [float(value) for value in np.asarray(values)]
