"""Searching what a family of controllers can reach while the scenario's guards hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from rlaas.errors import ConfigurationError
from rlaas.objectives import to_minimisation
from rlaas.optimization import minimize
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import evaluate_controller, spread_subset
from rlaas.scenarios import ConfigurationProblem, Evaluation, EvaluationProtocol, Scenario

__all__ = [
    "Budget",
    "Goal",
    "GuardedProblem",
    "Searched",
    "best_controller",
    "penalty",
    "pooled",
    "search_family",
    "target_slack",
]

FloatArray = NDArray[np.float64]
Goal = Callable[[FloatArray], FloatArray]
"""Scores [n] of objective values [n, n_objectives], larger is better."""

UNKNOWN = -1e12
VIOLATED = 1e6
"""Score of a controller without a value, and what is taken off per unit by which a guard is missed."""
LEAST_WAY = 0.01
"""Least length of the way from the default to a target, as a share of the objective's range."""
VARIED, SPREAD = 0.5, 0.15
"""Variants of known controllers that a search starts from: the share of parameters that differ, and by how much of
their range (standard deviation)."""
NEAREST = 6
"""Members of a front nearest to all targets that are evaluated again, whether or not they spread it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is searched and simulated.

    Attributes:
        generations, population: of every search.
        search: how long each evaluation of a search is, and on how many worlds.
        look: how all that was found is evaluated again, on a second set of worlds.
        judge: how those picked by then are evaluated, on a third.
        finalists: members of each family's front that are looked at again.

    Raises:
        ConfigurationError: a number below its minimum.
    """

    generations: int
    population: int
    search: EvaluationProtocol
    look: EvaluationProtocol
    judge: EvaluationProtocol
    finalists: int

    def __post_init__(self) -> None:
        for name, least in (("generations", 1), ("population", 8), ("finalists", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigurationError(f"{name} must be at least {least}, got {value}", field=name)
        if self.judge.seeds < 2:
            raise ConfigurationError(f"judge needs at least 2 seeds for a bound, got {self.judge.seeds}", field="judge")

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        *,
        quick: bool = False,
        generations: int | None = None,
        population: int | None = None,
        worlds: int | None = None,
        steps: int | None = None,
    ) -> Budget:
        """A budget by the scenario's protocols.

        Args:
            scenario: gives the protocols ``short`` and ``full``.
            quick: a first look instead of a study.
            generations, population, worlds, steps: of every search, instead of the usual ones; the worlds as seeds, the
                steps those counted.

        Raises:
            ConfigurationError: a number below its minimum.
        """
        short, full = scenario.protocols["short"], scenario.protocols["full"]
        usual = (6, 16, 2, max(1, short.steps // 2)) if quick else (60, 60, short.seeds // 2, short.steps)
        given = zip((generations, population, worlds, steps), usual, strict=True)
        generations, population, worlds, steps = (one if number is None else number for number, one in given)
        for name, value in (("worlds", worlds), ("steps", steps)):
            if value < 1:
                raise ConfigurationError(f"{name} must be at least 1, got {value}", field=name)
        return cls(
            generations=generations,
            population=population,
            search=EvaluationProtocol(
                name="search", seeds=worlds, warmup=short.warmup, steps=steps, replicas=short.replicas
            ),
            # The second look only has to pick; where the full protocol has many environments a seed, some do.
            look=short if quick else replace(full, name="look", replicas=max(1, full.replicas // 8)),
            judge=short if quick else full,
            finalists=8 if quick else 40,
        )

    def describe(self) -> str:
        """One line for a page."""
        look, judge = self.look, self.judge
        return (
            f"Every search {self.generations} generations of {self.population} controllers, each controller on "
            f"{self.search.seeds} x {self.search.replicas} worlds of {self.search.warmup} + {self.search.steps} steps; "
            f"all that was found again on {look.seeds} x {look.replicas} further worlds of {look.warmup} + "
            f"{look.steps} steps, and what was picked by them judged by the {judge.describe()}, on a third set"
        )


class GuardedProblem(ConfigurationProblem):
    """A family of controllers with the scenario's guards as constraints, relative to the default on the same seeds.

    Objectives are ratios of sums over all seeds, as the target table has them.

    Attributes:
        default: the default baseline on the same seeds.

    Args:
        scenario: what is configured.
        tunable: name of the family.
        seeds: worlds of each evaluation.
        protocol: how long each is.

    Raises:
        ConfigurationError: an unknown family, naming the choices.
    """

    def __init__(self, scenario: Scenario, tunable: str, seeds: Sequence[int], protocol: EvaluationProtocol) -> None:
        super().__init__(scenario, tunable, seeds, protocol.steps, warmup=protocol.warmup, replicas=protocol.replicas)
        self.n_constraints = len(scenario.guard_shares)
        controller = scenario.baselines[scenario.default_baseline].make()
        self.default = evaluate_controller(scenario, controller, seeds, protocol)
        self._wanted = self._guards(self.default) * np.array(list(scenario.guard_shares.values()))
        self._seen: dict[bytes, Evaluation] = {}

    def evaluations(self, X: Sequence[Sequence[float]] | FloatArray) -> list[Evaluation]:
        """As of the base class; a controller that was simulated before is not simulated again.

        Everybody faces the same seeds, so the answer would be the same, and where parameters are whole numbers
        searches come back to the same few.
        """
        rows = np.atleast_2d(np.asarray(X, dtype=np.float64))
        keys = [row.tobytes() for row in np.where(self.integer, np.round(rows), rows)]
        new = {key: i for i, key in enumerate(keys) if key not in self._seen}
        if new:
            self._seen |= zip(new, super().evaluations(rows[list(new.values())]), strict=True)
        return [self._seen[key] for key in keys]

    def _guards(self, evaluation: Evaluation) -> FloatArray:
        found = self.scenario.guards(evaluation.numerators.sum(axis=0), evaluation.denominators.sum(axis=0))
        return np.array([float(found[name]) for name in self.scenario.guard_shares], dtype=np.float64)

    def measured(self, evaluations: Sequence[Evaluation]) -> tuple[FloatArray, FloatArray]:
        """Objectives [n, n_obj] in their units, and the share by which each guard is missed [n, n_guards].

        A guard is kept where its share is at most 0; NaN where a value is undefined.
        """
        values = np.array([pooled(self.scenario, e) for e in evaluations]).reshape(-1, self.n_obj)
        guards = np.array([self._guards(e) for e in evaluations]).reshape(-1, self.n_constraints)
        return values, 1.0 - guards / self._wanted

    def evaluate(self, X: FloatArray) -> FloatArray:
        """Objectives to minimise, then guards missed [n, n_obj + n_guards]."""
        values, missed = self.measured(self.evaluations(X))
        return np.hstack([to_minimisation(self.scenario.objectives, values), missed])


def pooled(scenario: Scenario, evaluation: Evaluation) -> FloatArray:
    """Objectives [n_objectives] of the sums over all seeds."""
    sums = evaluation.numerators.sum(axis=0), evaluation.denominators.sum(axis=0)
    return np.asarray(scenario.objective_values(*sums), dtype=np.float64)


def target_slack(scenario: Scenario, values: FloatArray, default: FloatArray) -> FloatArray:
    """How far beyond each target objective values are, in units of the way from the default to it.

    0 is the target itself, -1 the default, more than 0 better than wanted.

    Args:
        scenario: gives the targets.
        values: in the objectives' units [n, n_objectives].
        default: of the default on the same seeds [n_objectives].

    Returns:
        Slack [n, n_targets] in the order of the targets.
    """
    names = [o.name for o in scenario.objectives]
    slack = np.empty((len(values), len(scenario.targets)))
    for column, target in enumerate(scenario.targets.values()):
        k = names.index(target.objective)
        objective, now = scenario.objectives[k], float(default[k])
        wanted = now + target.relative * abs(now) if target.relative is not None else float(target.absolute or 0.0)
        # A target that the default (nearly) meets already leaves no way to measure by.
        way = max(objective.sign * (wanted - now), LEAST_WAY * (objective.high - objective.low))
        slack[:, column] = objective.sign * (values[:, k] - wanted) / way
    return slack


def penalty(scores: FloatArray, missed: FloatArray) -> FloatArray:
    """Scores [n], far down by how much the guards [n, n_guards] are missed; a controller without a value is last."""
    guarded = scores - VIOLATED * np.clip(missed, 0.0, None).sum(axis=1)
    return np.where(np.isfinite(guarded), guarded, UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What the searches over one family left for a second look.

    Attributes:
        family: its name.
        X: controllers [n, n_var]: the best for each goal, a spread of the joint front and its members nearest to all
            targets.
        best: the best for each goal [n_goals, n_var].
        reached: largest smallest slack over all targets that any search saw with the guards kept; None for none.
    """

    family: str
    X: FloatArray
    best: FloatArray
    reached: float | None


def search_family(
    scenario: Scenario,
    family: str,
    budget: Budget,
    seed: int,
    tick: Callable[[int], None],
    static: FloatArray | None = None,
) -> Searched:
    """Search the best controller for each objective alone and for all targets, then the joint front from there.

    Args:
        scenario: what is controlled.
        family: name of the tunable.
        budget: how much.
        seed: of worlds and searches.
        tick: called with the number of generations done, ``generations`` for each search.
        static: configurations of ``static`` [n, n_parameters] to start from, where this family has controllers that
            behave like them.

    Raises:
        OperatorError: no controller of the first generation could be evaluated.
    """
    problem = GuardedProblem(scenario, family, seeds_for("search", seed, budget.search.seeds), budget.search)
    default = pooled(scenario, problem.default)
    goals = goals_of(scenario, default)
    started = _like_static(scenario, family, static)
    best: list[FloatArray] = []
    for goal in goals.values():
        known = np.array([*best, *started]).reshape(-1, problem.n_var)
        best.append(best_controller(problem, goal, known, budget, seed, tick))
    done = 0

    def progress(generation: int, _generations: int) -> None:
        nonlocal done
        tick(generation - done)
        done = generation

    joint = minimize(
        problem,
        generations=budget.generations,
        population=max(budget.population, problem.n_obj + len(best) + len(started)),
        seed=seed,
        progress=progress,
        initial=np.array([*best, *started]),
    )
    tick(budget.generations - done)
    slack = target_slack(scenario, joint.F * [-o.sign for o in scenario.objectives], default).min(axis=1)
    nearest = np.argsort(-slack)[:NEAREST]
    X = np.vstack([np.array(best), joint.X[spread_subset(joint.F, budget.finalists)], joint.X[nearest]])
    values, missed = problem.measured(problem.evaluations(X))
    kept = target_slack(scenario, values, default).min(axis=1)[(missed <= 0).all(axis=1)]
    kept = kept[np.isfinite(kept)]
    _, first = np.unique(np.where(problem.integer, np.round(X), X), axis=0, return_index=True)
    reached = float(kept.max()) if kept.size else None
    return Searched(family=family, X=X[np.sort(first)], best=np.array(best), reached=reached)


def _like_static(scenario: Scenario, family: str, static: FloatArray | None) -> list[FloatArray]:
    """Controllers of a family that behave like configurations of ``static``."""
    if static is None:
        return []
    names = scenario.tunables["static"].parameters
    made = [scenario.tunables[family].from_static(dict(zip(names, row.tolist(), strict=True))) for row in static]
    return [values for values in made if values is not None]


def goals_of(scenario: Scenario, default: FloatArray) -> Mapping[str, Goal]:
    """What is searched for by itself: each objective, and the smallest slack over all targets (key ``""``)."""

    def alone(k: int) -> Goal:
        sign = scenario.objectives[k].sign
        return lambda values: np.asarray(sign * values[:, k])

    goals = {objective.name: alone(k) for k, objective in enumerate(scenario.objectives)}
    return goals | {"": lambda values: np.asarray(target_slack(scenario, values, default).min(axis=1))}


def best_controller(
    problem: GuardedProblem,
    goal: Goal,
    known: FloatArray,
    budget: Budget,
    seed: int,
    tick: Callable[[int], None],
) -> FloatArray:
    """The controller [n_var] with the best score, by differential evolution (Storn & Price 1997).

    Half of the first generation is spread over the box; the other half, where there are known controllers, are these
    and variants of them. From a random start alone a short search would hardly find anything better than a good one.
    """
    rng = np.random.default_rng(seed)
    low, span = problem.xl, problem.xu - problem.xl
    first = low + span * rng.random((budget.population, problem.n_var))
    if len(known):
        near = budget.population // 2
        moved = rng.random((near, problem.n_var)) < VARIED
        variants = known[np.arange(near) % len(known)] + span * moved * rng.normal(0.0, SPREAD, moved.shape)
        variants[: len(known)] = known[:near]
        first[:near] = np.clip(variants, low, problem.xu)
    generations = -1

    def loss(x: FloatArray) -> FloatArray:
        nonlocal generations
        generations += 1
        tick(int(generations > 0))
        values, missed = problem.measured(problem.evaluations(np.clip(x.T, low, problem.xu)))
        return -penalty(goal(values), missed)

    evolve: Any = optimize.differential_evolution
    found = evolve(
        loss,
        list(zip(low, problem.xu, strict=True)),
        init=first,
        integrality=problem.integer,
        maxiter=budget.generations,
        # Stop early only where every member scores alike: a small space that is exhausted.
        tol=0.0,
        polish=False,
        updating="deferred",
        vectorized=True,
        rng=rng,
    )
    tick(budget.generations - generations)
    return np.asarray(np.clip(found.x, low, problem.xu), dtype=np.float64)
