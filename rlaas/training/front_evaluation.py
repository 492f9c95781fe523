"""How good a policy's front is: hypervolume, expected utility and sparsity, with intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.errors import InvalidInputError
from rlaas.fronts import Front
from rlaas.objectives import Objective, ObjectiveVector, Preference, normalise
from rlaas.optimization import expected_utility, hypervolume, sparsity
from rlaas.scenarios import Evaluation, Scenario, evaluate
from rlaas.scenarios.checks import check_seeds
from rlaas.training.conditioning import lattice, spread_preferences
from rlaas.training.config import TrainingConfig
from rlaas.training.episodes import episode_returns
from rlaas.training.evaluation import PolicyController, named_preferences
from rlaas.training.gymnasium_scenario import GymnasiumScenario

__all__ = ["FrontEvaluation", "Interval", "configured_preferences", "evaluate_front", "front_quality", "with_default"]

FloatArray = NDArray[np.float64]

UTILITY_PREFERENCES = 100
"""At most so many points of a Das-Dennis lattice are what expected utility is averaged over."""
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the ends of its 95 % bootstrap interval; infinite ones where there is a single seed."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def to_dict(self) -> dict[str, float | None]:
        """Value and ends; an infinite end is null."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {"value": self.value, "low": low, "high": high}


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEvaluation:
    """A policy's front and how good it is.

    Attributes:
        front: the non-dominated candidates, each with its confidence interval and seeds.
        names: all candidates, dominated ones included.
        values: objective values of all candidates on each seed [n_candidates, n_seeds, n_objectives].
        seeds: in the order of ``values``.
        unit: of the three figures: ``goodness`` (1 at the better end of an objective's range, 0 at the worse) of a
            scenario, ``return`` of a plain environment.
        gamma: discount factor of the returns; 1 for a scenario, whose objectives are averages.
        reference: what hypervolume is measured from, in the objectives' units; None where nobody stated one.
        hypervolume: in products of ``unit``; None without a reference.
        expected_utility: see :func:`rlaas.optimization.expected_utility`; over a Das-Dennis lattice of at most 100
            preferences.
        sparsity: see :func:`rlaas.optimization.sparsity`.
        cut_episodes: episodes that were longer than they may be, and count as they stood.
    """

    front: Front
    names: tuple[str, ...]
    values: FloatArray
    seeds: tuple[int, ...]
    unit: Literal["goodness", "return"]
    gamma: float
    reference: ObjectiveVector | None
    hypervolume: Interval | None
    expected_utility: Interval
    sparsity: Interval
    cut_episodes: int

    def intervals(self) -> dict[str, Interval]:
        """The figures by name; none for a single objective, where a front is one point."""
        if len(self.front.objectives) == 1:
            return {}
        known = {} if self.hypervolume is None else {"hypervolume": self.hypervolume}
        return known | {"expected_utility": self.expected_utility, "sparsity": self.sparsity}

    def metrics(self) -> dict[str, float]:
        """The figures' values by name, as they go into a run's metrics."""
        return {name: interval.value for name, interval in self.intervals().items()}

    def to_dict(self) -> dict[str, Any]:
        """All but the single values, as plain JSON types."""
        return {
            "front": self.front.to_dict(),
            "candidates": len(self.names),
            "seeds": list(self.seeds),
            "unit": self.unit,
            "gamma": self.gamma,
            "reference": None if self.reference is None else dict(self.reference),
            "cut_episodes": self.cut_episodes,
            **{name: interval.to_dict() for name, interval in self.intervals().items()},
        }


def evaluate_front(
    scenario: Scenario,
    policy: Path | str | BundlePolicy,
    preferences: TrainingConfig | Sequence[Preference] | Mapping[str, Preference],
    seeds: Sequence[int] | None = None,
    *,
    steps: int | None = None,
    warmup: int | None = None,
    replicas: int | None = None,
    gamma: float | None = None,
    reference: ObjectiveVector | None = None,
) -> FrontEvaluation:
    """The policy at each preference, the front of what it reaches, and how good that front is.

    A scenario is judged as everywhere (:func:`rlaas.scenarios.evaluate`) and its figures are in normalised goodness. A
    plain environment is judged by the returns of whole episodes, as they are.

    Args:
        scenario: what is controlled.
        policy: folder of the bundle, or the loaded policy.
        preferences: a sequence, or by name (modes), or the configuration that the policy was trained with: then its
            ``evaluation_...`` fields are what is not given here.
        seeds: one environment each, common to all preferences; may be left out with a configuration only.
        steps: counted steps (default 200); for a plain environment the longest episode that is waited for.
        warmup: steps run first and left out (default 0); for a scenario only.
        replicas: environments per seed (default 1); for a plain environment episodes per seed.
        gamma: discount factor of a plain environment's returns (default 1: none).
        reference: of the hypervolume, in the objectives' units. Default: the worse end of every range, and for a plain
            environment, which has none, no hypervolume.

    Raises:
        InvalidInputError: no seed, no preference, a count or discount out of range, a reference of other objectives,
            a discount for a scenario, or an objective undefined because nothing was counted for it.
    """
    loaded = policy if isinstance(policy, BundlePolicy) else load_bundle(policy)
    if isinstance(preferences, TrainingConfig):
        config = preferences
        named = configured_preferences(scenario, config)
        seeds = config.evaluation_seeds if seeds is None else seeds
        steps = config.evaluation_steps if steps is None else steps
        warmup = config.evaluation_warmup if warmup is None else warmup
        replicas = config.evaluation_replicas if replicas is None else replicas
        gamma = config.evaluation_gamma if gamma is None else gamma
        reference = config.evaluation_reference if reference is None else reference
    elif isinstance(preferences, Mapping):
        named = dict(preferences)
    else:
        named = named_preferences(preferences)
    if seeds is None:
        raise InvalidInputError("evaluate_front needs seeds, or the configuration that names them", field="seeds")
    if not named:
        raise InvalidInputError("evaluate_front needs at least one preference", field="preferences")
    chosen = check_seeds(seeds)
    steps, warmup, replicas = (
        usual if given is None else given for given, usual in ((steps, 200), (warmup, 0), (replicas, 1))
    )
    controllers = [
        PolicyController(loaded, preference if loaded.manifest.preference_conditioned else None)
        for preference in named.values()
    ]
    cut = 0
    if isinstance(scenario, GymnasiumScenario):
        played = episode_returns(
            scenario, controllers, chosen, steps=steps, episodes=replicas, gamma=1.0 if gamma is None else gamma
        )
        values, cut = played.values, played.cut
    elif gamma is not None:
        raise InvalidInputError(
            f"the objectives of {scenario.name!r} are averages over steps and cannot be discounted; leave gamma out",
            field="gamma",
        )
    else:
        values = np.stack(
            [
                evaluate(scenario, one, chosen, steps=steps, warmup=warmup, replicas=replicas).values
                for one in controllers
            ]
        )
    return front_quality(
        scenario,
        {f"policy@{name}": preference.to_dict() for name, preference in named.items()},
        values,
        chosen,
        gamma=1.0 if gamma is None else gamma,
        reference=reference,
        cut_episodes=cut,
    )


def with_default(scenario: Scenario, evaluation: FrontEvaluation, config: TrainingConfig) -> FrontEvaluation:
    """The evaluation whose front also knows what the scenario's default reaches: where bargaining would end.

    The default is evaluated as the candidates were. The front stays as it is where the scenario has no default (a plain
    Gymnasium environment), and where the default leaves an objective undefined.

    Args:
        scenario: what is controlled.
        evaluation: of the policy.
        config: by whose ``evaluation_...`` fields it was evaluated.
    """
    baseline = scenario.baselines.get(scenario.default_baseline)
    if baseline is None:
        return evaluation
    reached = evaluate(
        scenario,
        baseline.make(),
        evaluation.seeds,
        steps=config.evaluation_steps,
        warmup=config.evaluation_warmup,
        replicas=config.evaluation_replicas,
    ).values.mean(axis=0)
    if not np.isfinite(reached).all():
        return evaluation
    return replace(evaluation, front=replace(evaluation.front, default=tuple(reached.tolist())))


def front_quality(
    scenario: Scenario,
    candidates: Mapping[str, Mapping[str, float]],
    values: FloatArray,
    seeds: Sequence[int],
    *,
    gamma: float = 1.0,
    reference: ObjectiveVector | None = None,
    cut_episodes: int = 0,
) -> FrontEvaluation:
    """The front of policies that were evaluated elsewhere (a rival's, several specialists), and how good it is.

    Args:
        scenario: what was controlled.
        candidates: name and preference of each.
        values: objective values [n_candidates, n_seeds, n_objectives] in their units.
        seeds: on which they were evaluated; the bootstrap draws them anew, the same for all candidates.
        gamma, reference, cut_episodes: see :class:`FrontEvaluation`.

    Raises:
        InvalidInputError: a value that is not finite, or a reference of other objectives.
    """
    objectives, plain = scenario.objectives, isinstance(scenario, GymnasiumScenario)
    corner = _corner(objectives, reference, plain)
    members = [
        Evaluation(
            seeds=tuple(seeds), values=own, numerators=np.empty(0), denominators=np.empty(0), seconds=0.0
        ).candidate(name, "policy", {"preference": dict(preference)})
        for (name, preference), own in zip(candidates.items(), values, strict=True)
    ]
    front = Front.of(scenario.name, objectives, members, scenario.reference_hash)
    goodness = normalise(objectives, values)
    weights = lattice(len(objectives), UTILITY_PREFERENCES)
    figures = [lambda points: expected_utility(points, weights), sparsity]
    if corner is not None:
        shifted = normalise(objectives, [corner[o.name] for o in objectives])
        figures.append(lambda points: hypervolume(-points, -shifted))
    utility, gaps, *volume = _intervals(goodness, figures)
    return FrontEvaluation(
        front=front,
        names=tuple(candidates),
        values=values,
        seeds=tuple(seeds),
        unit="return" if plain else "goodness",
        gamma=gamma,
        reference=corner,
        hypervolume=volume[0] if volume else None,
        expected_utility=utility,
        sparsity=gaps,
        cut_episodes=cut_episodes,
    )


def configured_preferences(scenario: Scenario, config: TrainingConfig) -> dict[str, Preference]:
    """The modes' preferences, then points spread over the simplex, as many as ``config`` evaluates, by name."""
    modes = {name: mode.preference for name, mode in scenario.modes.items()}
    taken = {preference.weights for preference in modes.values()}
    count, names = config.evaluation_preferences, [o.name for o in scenario.objectives]
    spread = [one for one in spread_preferences(names, count + len(modes)) if one.weights not in taken]
    others = named_preferences(spread[: max(0, count - len(modes))])
    return dict(list((modes | others).items())[:count])


def _corner(objectives: Sequence[Objective], reference: ObjectiveVector | None, plain: bool) -> dict[str, float] | None:
    """The reference point by objective, or None where there is none."""
    names = [o.name for o in objectives]
    if reference is None:
        worse = {o.name: o.low if o.direction == "maximize" else o.high for o in objectives}
        return None if plain else worse
    if set(reference) != set(names) or not all(math.isfinite(reference[name]) for name in names):
        raise InvalidInputError(
            f"the reference point needs a finite value for each of {', '.join(names)}, got {dict(reference)}",
            field="reference",
        )
    return {name: float(reference[name]) for name in names}


def _intervals(points: FloatArray, figures: Sequence[Callable[[FloatArray], float]]) -> list[Interval]:
    """Figures of the candidates' means over seeds, with percentile intervals over resampled seeds.

    Args:
        points: goodness [n_candidates, n_seeds, n_objectives].
        figures: functions of means [n_candidates, n_objectives].
    """
    values = [figure(points.mean(axis=1)) for figure in figures]
    n = points.shape[1]
    if n < 2:
        return [Interval(value, -math.inf, math.inf) for value in values]
    rng = np.random.default_rng(0)
    drawn = np.empty((RESAMPLES, len(figures)))
    for row in drawn:
        means = points[:, rng.integers(n, size=n)].mean(axis=1)
        row[:] = [figure(means) for figure in figures]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return [Interval(value, float(a), float(b)) for value, a, b in zip(values, low, high, strict=True)]
