"""What a scenario allows at all: each objective alone, all targets together, and which of them go together.

A target is worth learning for only where some controller reaches it. So the families of controllers that a scenario
can tune are searched, guards kept, for the best value of each objective alone, for the smallest shortfall over all
targets, and for the joint front (NSGA-III, started from what the single searches found). Three disjoint sets of seeds
keep the answer honest: controllers are searched on the first, picked on the second and judged on the third, by the
bounds of the target table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, OperatorError, check_choice
from rlaas.fronts import Front
from rlaas.pipeline.candidates import build_front, configuration_parameters
from rlaas.pipeline.feasibility_search import (
    Budget,
    GuardedProblem,
    Searched,
    goals_of,
    penalty,
    pooled,
    search_family,
    target_slack,
)
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import evaluate_controller
from rlaas.pipeline.targets import TargetRow, Verdict, judge_targets
from rlaas.scenarios import Evaluation, Scenario, Target

__all__ = ["Budget", "FeasibilityReport", "Finalist", "TargetSet", "feasibility"]

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A controller that was judged.

    Attributes:
        name: ``<family>-<number>``.
        parameters: the family's name and the values by name.
        evaluation: on the third set of seeds.
        verdict: against the targets, on the same.
        slack: by objective, see :func:`~rlaas.pipeline.feasibility_search.target_slack`, on the same.
    """

    name: str
    parameters: Mapping[str, Any]
    evaluation: Evaluation
    verdict: Verdict
    slack: Mapping[str, float]

    @property
    def met(self) -> tuple[str, ...]:
        """Objectives whose bound lies beyond the target, the guards holding."""
        return tuple(row.objective for row in self.verdict.rows if self.verdict.met(row))

    def to_dict(self, scenario: Scenario) -> dict[str, Any]:
        """The finalist as JSON types."""
        return {
            "name": self.name,
            "parameters": dict(self.parameters),
            "objectives": intervals(scenario, self.evaluation),
            "targets": self.verdict.to_dict(),
            "guards": {guard: {"ratio": ratio, "held": held} for guard, (ratio, held) in self.verdict.guards.items()},
            "slack": dict(self.slack),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSet:
    """Some of the targets, and the controller picked for them, or another that was judged and meets them.

    Attributes:
        targets: objectives.
        finalist: name of the controller.
        met: all of them are met, the guards holding.
    """

    targets: tuple[str, ...]
    finalist: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FeasibilityReport:
    """The answer.

    Attributes:
        scenario: what was asked about.
        options: of the scenario, where they differ from the usual.
        budget: how the answer was found.
        families: searched.
        default: the default baseline on the third set of seeds.
        default_values: objectives of the default [n_objectives] on the second set.
        alone: by objective, the finalist picked for it alone.
        sets: every set of targets, largest first; the first is all of them.
        finalists: by name.
        front: what was evaluated on the second set of seeds and kept the guards there, the non-dominated ones by
            their values over all seeds; None where nothing kept them.
        reached: by family, the largest smallest slack over all targets on the first set; None where no guard held.
    """

    scenario: Scenario
    options: Mapping[str, Any]
    budget: Budget
    families: tuple[str, ...]
    default: Evaluation
    default_values: FloatArray
    alone: Mapping[str, str]
    sets: tuple[TargetSet, ...]
    finalists: Mapping[str, Finalist]
    front: Front | None
    reached: Mapping[str, float | None]

    @property
    def together(self) -> bool:
        """One controller meets all targets."""
        return self.sets[0].met

    @property
    def closest(self) -> Finalist:
        """The controller picked for all targets."""
        return self.finalists[self.sets[0].finalist]

    def front_slack(self) -> FloatArray:
        """Slack [n_candidates, n_targets] of the members of the front."""
        if self.front is None:
            return np.empty((0, len(self.scenario.targets)))
        return target_slack(self.scenario, self.front.values(), self.default_values)

    def verdict(self) -> str:
        """In words: what can be met, and what cannot."""
        targets = self.scenario.targets
        closest = self.closest
        if self.together:
            parts = [f"All {len(targets)} targets are met together, by {closest.name}, the guards holding."]
        else:
            short = [self._row(row) for row in closest.verdict.rows if not row.met]
            broken = [name for name, (_, held) in closest.verdict.guards.items() if not held]
            parts = [
                f"No controller found meets all {len(targets)} targets together. The closest, {closest.name}, falls "
                f"short in {'; '.join(short) or 'no target'}" + (f" and breaks {_listed(broken)}." if broken else ".")
            ]
            met = [s for s in self.sets if s.met]
            most = [s for s in met if len(s.targets) == len(met[0].targets)]
            largest = "; ".join(_listed(s.targets) for s in most)
            parts.append(f"The most that is met at once: {largest}." if most else "No target is met at all.")
        alone = [name for name in targets if any(name in finalist.met for finalist in self.finalists.values())]
        missed = [name for name in targets if name not in alone]
        if not self.together and alone:
            parts.append(f"Each by itself is met: {_listed(alone)}.")
        if missed:
            parts.append(f"Not even by itself: {'; '.join(self._alone(name) for name in missed)}.")
        slack = self.front_slack()
        if len(slack):
            best = float(slack.min(axis=1).max())
            parts.append(
                f"Of the {len(slack)} non-dominated controllers seen anew, {int((slack >= 0).all(axis=1).sum())} reach "
                f"all targets in point estimates; the best goes {100 * (1 + best):.0f} % of the way to the target it "
                "is farthest from."
            )
        else:
            parts.append("No controller that was found kept the guards when seen anew.")
        return " ".join(parts)

    def _alone(self, name: str) -> str:
        """How near the controller that is best for one target comes to it, and the guards it breaks on the way."""
        verdict = self.finalists[self.alone[name]].verdict
        broken = [guard for guard, (_, held) in verdict.guards.items() if not held]
        row = next(row for row in verdict.rows if row.objective == name)
        return self._row(row) + (f", breaking {_listed(broken)}" if broken else "")

    def _row(self, row: TargetRow) -> str:
        target = self.scenario.targets[row.objective]
        bound = _shown(row.bound, target)
        return f"{row.objective} at {_shown(row.value, target)} (bound {bound}, target {row.target})"

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON types."""
        return {
            "scenario": self.scenario.name,
            "options": dict(self.options),
            "reference_hash": self.scenario.reference_hash,
            "budget": self.budget.describe(),
            "verdict": self.verdict(),
            "together": self.together,
            "default": intervals(self.scenario, self.default),
            "alone": dict(self.alone),
            "sets": [{"targets": list(s.targets), "finalist": s.finalist, "met": s.met} for s in self.sets],
            "closest": self.closest.name,
            "finalists": [finalist.to_dict(self.scenario) for finalist in self.finalists.values()],
            "front": None if self.front is None else self.front.to_dict(),
            "reached": dict(self.reached),
        }


def intervals(scenario: Scenario, evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Value over all seeds, and half width of the 95 % interval of its mean over seeds, by objective."""
    columns = zip(scenario.objectives, pooled(scenario, evaluation), evaluation.half_width(), strict=True)
    return {objective.name: {"value": float(v), "half_width": float(h)} for objective, v, h in columns}


def feasibility(
    scenario: Scenario,
    budget: Budget,
    *,
    tunables: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> FeasibilityReport:
    """Search what the scenario allows, and judge it.

    Args:
        scenario: what is asked about.
        budget: how much is searched and simulated.
        tunables: families of controllers; None for all.
        options: of the scenario, for the report.
        seed: of everything that is random.
        progress: called with (done, total).

    Raises:
        ConfigurationError: an unknown family.
        InvalidInputError: the scenario has no targets to be judged against.
        OperatorError: no controller could be evaluated.
    """
    if not scenario.targets:
        raise InvalidInputError(f"{scenario.name} has no targets to be judged against", field="scenario")
    families = tuple(scenario.tunables if tunables is None else tunables)
    if not families:
        raise InvalidInputError("feasibility needs at least one family of controllers", field="tunables")
    for family in families:
        check_choice(family, scenario.tunables, field="tunable")
    # The second look and the judgement count as one more search: progress is not held up by them for long.
    total, done = (len(families) * (len(scenario.objectives) + 2) + 1) * budget.generations, 0

    def tick(generations: int) -> None:
        nonlocal done
        done += generations
        if progress is not None:
            progress(done, total)

    searched: list[Searched] = []
    for family in families:
        static = next((s.best for s in searched if s.family == "static"), None)
        searched.append(search_family(scenario, family, budget, seed, tick, static))
    field = _Field.of(scenario, {s.family: s.X for s in searched}, budget, seed)
    alone = {name: field.best(field.goals[name](field.values)) for name in (o.name for o in scenario.objectives)}
    slack = target_slack(scenario, field.values, field.default)
    columns = list(scenario.targets)
    wanted = [s for n in range(len(columns), 0, -1) for s in combinations(columns, n)]
    picked = {s: field.best(slack[:, [columns.index(name) for name in s]].min(axis=1)) for s in wanted}
    seeds = seeds_for("table", seed, budget.judge.seeds)
    baseline = scenario.baselines[scenario.default_baseline].make()
    default = evaluate_controller(scenario, baseline, seeds, budget.judge)
    finalists = {
        name: _judge(scenario, field, name, default, seeds, budget)
        for name in dict.fromkeys([*picked.values(), *alone.values()])
    }
    tick(budget.generations)
    return FeasibilityReport(
        scenario=scenario,
        options=dict(options or {}),
        budget=budget,
        families=families,
        default=default,
        default_values=field.default,
        alone=alone,
        sets=tuple(_target_set(s, name, finalists) for s, name in picked.items()),
        finalists=finalists,
        front=field.front(scenario),
        reached={s.family: s.reached for s in searched},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """Everything that got a second look: names, controllers, and what they reached on the second set of seeds."""

    names: tuple[str, ...]
    families: tuple[str, ...]
    X: tuple[FloatArray, ...]
    evaluations: tuple[Evaluation, ...]
    values: FloatArray
    missed: FloatArray
    default: FloatArray

    goals: Mapping[str, Callable[[FloatArray], FloatArray]]

    @classmethod
    def of(cls, scenario: Scenario, found: Mapping[str, FloatArray], budget: Budget, seed: int) -> _Field:
        seeds = seeds_for("front", seed, budget.look.seeds)
        problems = {family: GuardedProblem(scenario, family, seeds, budget.look) for family in found}
        evaluations = {family: problems[family].evaluations(X) for family, X in found.items()}
        measured = [problems[family].measured(evaluations[family]) for family in found]
        values, missed = (np.concatenate(part) for part in zip(*measured, strict=True))
        if not np.isfinite(values).all(axis=1).any():
            raise OperatorError("no controller that was found has a value on fresh seeds")
        default = pooled(scenario, next(iter(problems.values())).default)
        return cls(
            names=tuple(f"{family}-{i}" for family, X in found.items() for i in range(len(X))),
            families=tuple(family for family, X in found.items() for _ in X),
            X=tuple(x for X in found.values() for x in X),
            evaluations=tuple(e for family in found for e in evaluations[family]),
            values=values,
            missed=missed,
            default=default,
            goals=goals_of(scenario, default),
        )

    def best(self, scores: FloatArray) -> str:
        """Name of the controller with the best score, the guards kept before anything else."""
        return self.names[int(np.argmax(penalty(scores, self.missed)))]

    def front(self, scenario: Scenario) -> Front | None:
        """The non-dominated ones of those that kept the guards."""
        kept = np.isfinite(self.values).all(axis=1) & (self.missed <= 0).all(axis=1)
        candidates = []
        for i in np.flatnonzero(kept):
            parameters = configuration_parameters(scenario, self.families[i], self.X[i].tolist())
            candidate = self.evaluations[i].candidate(self.names[i], "configuration", parameters)
            # Targets are about ratios of sums over all seeds, not about means of ratios.
            candidates.append(replace(candidate, mean=tuple(self.values[i].tolist())))
        return build_front(scenario, candidates) if candidates else None


def _judge(
    scenario: Scenario, field: _Field, name: str, default: Evaluation, seeds: Sequence[int], budget: Budget
) -> Finalist:
    i = field.names.index(name)
    controller = scenario.tunables[field.families[i]].controller(field.X[i])
    evaluation = evaluate_controller(scenario, controller, seeds, budget.judge)
    slack = target_slack(scenario, pooled(scenario, evaluation)[None], pooled(scenario, default))[0]
    return Finalist(
        name=name,
        parameters=configuration_parameters(scenario, field.families[i], field.X[i].tolist()),
        evaluation=evaluation,
        verdict=judge_targets(scenario, default, [evaluation]),
        slack=dict(zip(scenario.targets, slack.tolist(), strict=True)),
    )


def _target_set(targets: tuple[str, ...], picked: str, finalists: Mapping[str, Finalist]) -> TargetSet:
    """The answer for a set of targets: the controller picked for it, or else another judged one that meets them."""
    meeting = [name for name, finalist in finalists.items() if set(targets) <= set(finalist.met)]
    name = picked if picked in meeting or not meeting else meeting[0]
    return TargetSet(targets=targets, finalist=name, met=bool(meeting))


def _shown(value: float, target: Target) -> str:
    return f"{100 * value:+.1f} %" if target.relative is not None else f"{value:.3f}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
