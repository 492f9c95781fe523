"""The stages of the loop between a scenario and a registered policy, composed from the rooms below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlaas.decisions import Choice, resolve
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Preference
from rlaas.optimization import Contender, EvidenceArchive, RaceResult, Standing
from rlaas.pipeline.candidates import configuration_parameters, utility
from rlaas.pipeline.evidence import ContenderEvaluator, RacePlan, judged, policy_contenders
from rlaas.scenarios import Controller, Evaluation, EvaluationProtocol, Scenario, evaluate
from rlaas.tuning import TrialPolicy

__all__ = [
    "EvaluatedCandidates",
    "Searched",
    "best_configuration",
    "evaluate_baselines",
    "evaluate_candidates",
    "evaluate_controller",
    "policy_preferences",
    "resolve_modes",
    "spread_subset",
    "with_default",
]

Progress = Callable[[int, int], None]


def evaluate_controller(
    scenario: Scenario, controller: Controller, seeds: Sequence[int], protocol: EvaluationProtocol
) -> Evaluation:
    """One controller on ``seeds`` by ``protocol``."""
    return evaluate(
        scenario,
        controller,
        seeds,
        steps=protocol.steps,
        warmup=protocol.warmup,
        replicas=protocol.replicas,
    )


def evaluate_baselines(
    scenario: Scenario, seeds: Sequence[int], protocol: EvaluationProtocol, progress: Progress | None = None
) -> dict[str, Evaluation]:
    """Every baseline of the scenario on the same seeds, by name."""
    results: dict[str, Evaluation] = {}
    for name, baseline in scenario.baselines.items():
        results[name] = evaluate_controller(scenario, baseline.make(), seeds, protocol)
        if progress:
            progress(len(results), len(scenario.baselines))
    return results


def with_default(scenario: Scenario, front: Front, protocol: EvaluationProtocol) -> Front:
    """The front with what the scenario's default reaches on the seeds of its candidates: where bargaining would end."""
    baseline = scenario.baselines[scenario.default_baseline]
    reached = evaluate_controller(scenario, baseline.make(), front.candidates[0].seeds, protocol).mean()
    return replace(front, default=tuple(reached.tolist()))


def policy_preferences(scenario: Scenario) -> dict[str, Preference]:
    """Where a preference-conditioned policy is evaluated: every mode, equal weights, and a lean to each objective."""
    names = [o.name for o in scenario.objectives]
    preferences = {mode.name: mode.preference for mode in scenario.modes.values()}
    preferences["equal"] = Preference.uniform(names)
    rest = 0.1 / max(1, len(names) - 1)
    for name in names:
        preferences[f"mostly-{name}"] = Preference.of(names, {n: 0.9 if n == name else rest for n in names})
    half = {frozenset((a, b)) for a in names for b in names if a != b}
    for pair in sorted(half, key=sorted):
        preferences["+".join(sorted(pair))] = Preference.of(names, {n: 0.4 if n in pair else 0.1 for n in names})
    distinct: dict[tuple[float, ...], str] = {}
    for label, preference in preferences.items():
        distinct.setdefault(tuple(round(w, 9) for w in preference.weights), label)
    # A mode keeps its name even where another preference says the same.
    return {label: p for label, p in preferences.items() if label in scenario.modes or label in distinct.values()}


def spread_subset(objectives_min: np.ndarray[Any, Any], count: int) -> list[int]:
    """Indices of ``count`` rows of [n, m] that lie far apart: extremes first, then the farthest from those chosen.

    Greedy max-min selection in the unit box of the points (Gonzalez 1985), deterministic.
    """
    points = np.asarray(objectives_min, dtype=np.float64)
    if len(points) <= count:
        return list(range(len(points)))
    span = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    chosen = list(dict.fromkeys(int(i) for i in unit.argmin(axis=0)))[:count]
    distance = np.min([np.linalg.norm(unit - unit[i], axis=1) for i in chosen], axis=0)
    while len(chosen) < count:
        farthest = int(distance.argmax())
        chosen.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(unit - unit[farthest], axis=1))
    return chosen


class Searched(Protocol):
    """What counts of a search here: a ``SearchResult`` has it."""

    @property
    def X(self) -> np.ndarray[Any, Any]:  # noqa: N802 - as in the paper
        """Variables [n, n_var]."""

    @property
    def F(self) -> np.ndarray[Any, Any]:  # noqa: N802 - as in the paper
        """Objectives [n, n_obj], smaller is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedCandidates:
    """Candidates of one archive, with the evaluations behind them and where each stands.

    Attributes:
        candidates: all of them, by their means over the common seeds.
        evaluations: on the common seeds, by candidate name.
        race: the archive with every evaluation, and the standing of each candidate.
    """

    candidates: tuple[Candidate, ...]
    evaluations: Mapping[str, Evaluation]
    race: RaceResult

    @property
    def archive(self) -> EvidenceArchive:
        """What is known of every candidate, the race's evaluations included."""
        return self.race.archive

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Where every candidate stands, in the order of :attr:`candidates`."""
        return self.race.standings

    def front(self) -> Front:
        """The front of those that are not dominated, by their means over all seeds that they share."""
        return self.race.front()

    def undecided(self) -> tuple[str, ...]:
        """Names of the front's candidates of which the evaluations do not say whether another dominates them."""
        open_ones = {one.name for one in self.standings if one.status == "undecided"}
        return tuple(c.name for c in self.front().candidates if c.name in open_ones)


def evaluate_candidates(
    scenario: Scenario,
    bundle: Path,
    searches: Mapping[str, Searched],
    seeds: Sequence[int],
    protocol: EvaluationProtocol,
    *,
    configurations_each: int = 10,
    trials: Sequence[TrialPolicy] = (),
    race: RacePlan | None = None,
    progress: Progress | None = None,
) -> EvaluatedCandidates:
    """Evaluate candidates of every kind on the same seeds, and race those that the seeds do not tell apart.

    They are the policy at its preferences, a spread of searched configurations, and the policies of tuning trials at
    every mode (kind ``hyperparameters``).

    Args:
        scenario: what is controlled.
        bundle: the trained policy.
        searches: search result by tunable name.
        seeds: several per candidate; never seen in training or search.
        protocol: how much is simulated.
        configurations_each: configurations kept per search.
        trials: tuning trials whose policies are candidates.
        race: fresh seeds and budget of the race; default none: they are judged on ``seeds`` alone.
        progress: called with (evaluations done, evaluations allowed), of one candidate on one seed.

    Raises:
        InvalidInputError: an objective that is undefined on a seed, a policy of another form of the scenario, or an
            impossible race.
    """
    contenders = policy_contenders("policy", bundle, policy_preferences(scenario))
    for tunable, result in searches.items():
        for i in spread_subset(result.F, configurations_each):
            parameters = configuration_parameters(scenario, tunable, result.X[i])
            contenders.append(Contender(name=f"{tunable}-{i}", kind="configuration", parameters=parameters))
    modes = {mode.name: mode.preference for mode in scenario.modes.values()}
    for trial in trials:
        contenders += policy_contenders(
            f"trial-{trial.trial}", trial.bundle, modes, kind="hyperparameters", parameters=trial.parameters()
        )
    plan = race or RacePlan()
    common = len(contenders) * len(seeds)
    advance = _counted(progress, common + plan.evaluations(common))
    evaluator = ContenderEvaluator(scenario, protocol, (bundle, *(t.bundle for t in trials)), advance=advance)
    evaluations = evaluator.evaluations(contenders, seeds)
    archive = EvidenceArchive(scenario.name, scenario.objectives, reference_hash=scenario.reference_hash)
    candidates: list[Candidate] = []
    for contender, evaluation in zip(contenders, evaluations, strict=True):
        candidates.append(evaluation.candidate(contender.name, contender.kind, contender.parameters))
        archive.add(contender, seeds, evaluation.values)
    return EvaluatedCandidates(
        candidates=tuple(candidates),
        evaluations={c.name: evaluation for c, evaluation in zip(contenders, evaluations, strict=True)},
        race=judged(archive, evaluator, seeds, plan),
    )


def _counted(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Adds up what is done; what the survivors of a race are evaluated beyond the total leaves it there."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done = min(done + more, total)
        if progress:
            progress(done, total)

    return advance


def best_configuration(
    scenario: Scenario, candidates: Sequence[Candidate], tunable: str, preference: Preference
) -> Candidate:
    """The configuration of one family with the highest utility under ``preference``."""
    family = [c for c in candidates if c.parameters.get("tunable") == tunable]
    return max(family, key=lambda c: float(utility(scenario, np.array(c.mean), preference)))


def resolve_modes(scenario: Scenario, front: Front) -> dict[str, Choice]:
    """One choice per mode of the scenario."""
    return {name: resolve(front, mode=mode) for name, mode in scenario.modes.items()}
