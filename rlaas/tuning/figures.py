"""The figures of a trial: what may be searched for, and how it is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Preference, normalise
from rlaas.optimization import front_hypervolume
from rlaas.scenarios import Scenario
from rlaas.training import TrainingConfig
from rlaas.training.conditioning import spread_preferences
from rlaas.training.evaluation import evaluate_policy, preference_label

__all__ = [
    "FAILURE",
    "FINISHED",
    "SECONDS",
    "STEPS",
    "direction_of",
    "evaluated_figures",
    "is_evaluated",
    "known_metrics",
]

FAILURE = "failure"
"""Key of a report that says why its trial cannot go on."""
FINISHED = "finished"
"""Key of a report: whether the trial has taken all its steps."""
STEPS, SECONDS = "steps", "seconds"
HYPERVOLUME, UTILITY = "hypervolume", "utility"
TRAINING_REWARD, TRAINING_RETURN = "training_reward", "training_return"


def known_metrics(scenario: Scenario) -> list[str]:
    """Everything that a trial on ``scenario`` reports and a search may improve."""
    names = [o.name for o in scenario.objectives]
    found = [HYPERVOLUME, UTILITY, SECONDS, TRAINING_REWARD, *(f"{TRAINING_REWARD}_{name}" for name in names)]
    if len(names) == 1:
        found += [names[0], TRAINING_RETURN]
    for mode in scenario.modes:
        found += [f"{UTILITY}@{mode}", *(f"{name}@{mode}" for name in names)]
    return sorted(found)


def is_evaluated(metric: str) -> bool:
    """Whether the metric comes from evaluating the policy, not from training it."""
    return metric != SECONDS and not metric.startswith((TRAINING_REWARD, TRAINING_RETURN))


def direction_of(metric: str, scenario: Scenario, field: str = "objectives") -> str:
    """``maximize`` or ``minimize``, where nothing else was asked for; ``field`` is where the metric was named.

    Raises:
        ConfigurationError: the scenario has no such metric; names those it has.
    """
    known = known_metrics(scenario)
    if metric not in known:
        raise ConfigurationError(
            f"unknown metric {metric!r} for {scenario.name}; allowed: {', '.join(known)}", field=field
        )
    if metric == SECONDS:
        return "minimize"
    own = metric.partition("@")[0]
    return next((o.direction for o in scenario.objectives if o.name == own), "maximize")


def evaluated_figures(algorithm: Any, kind: str, scenario: Scenario, config: TrainingConfig) -> dict[str, float]:
    """Figures of the policy as it is, on the evaluation seeds of ``config``.

    The policy goes through a bundle, so what is judged is what would be served.

    Args:
        algorithm: the RLlib algorithm that holds it.
        kind: ``sac`` or ``ppo``.
        scenario: what it controls.
        config: gives seeds, steps, warm-up, replicas and the number of preferences (at least one for each mode).
    """
    from rlaas.training.export import export_bundle

    asked = {name: mode.preference for name, mode in scenario.modes.items()}
    asked |= _spread(scenario, config.evaluation_preferences, asked.values())
    with tempfile.TemporaryDirectory(prefix="rlaas-tune-") as folder:
        bundle = export_bundle(algorithm.policy, scenario, Path(folder), algorithm=kind)
        try:
            candidates = evaluate_policy(
                scenario,
                bundle,
                asked,
                config.evaluation_seeds,
                steps=config.evaluation_steps,
                warmup=config.evaluation_warmup,
                replicas=config.evaluation_replicas,
            )
        except InvalidInputError as problem:
            raise ConfigurationError(
                f"the policy cannot be judged: {problem.message}; raise training.evaluation_steps",
                field="training.evaluation_steps",
            ) from problem
    return _summary(scenario, list(asked), list(asked.values()), [candidate.mean for candidate in candidates])


def _spread(scenario: Scenario, wanted: int, taken: Iterable[Preference]) -> dict[str, Preference]:
    """Preferences over the simplex until there are ``wanted`` with those that are taken."""
    known = {preference.weights for preference in taken}
    names = [o.name for o in scenario.objectives]
    found: dict[str, Preference] = {}
    for preference in spread_preferences(names, wanted + len(known)):
        if len(known) + len(found) < max(wanted, 1) and preference.weights not in known:
            found[preference_label(preference)] = preference
    return found


def _summary(
    scenario: Scenario, labels: Sequence[str], preferences: Sequence[Preference], means: Sequence[Sequence[float]]
) -> dict[str, float]:
    utilities = [
        float(normalise(scenario.objectives, mean) @ preference.array())
        for preference, mean in zip(preferences, means, strict=True)
    ]
    figures = {
        HYPERVOLUME: front_hypervolume(list(means), scenario.objectives),
        UTILITY: sum(utilities) / len(utilities),
    }
    names = [o.name for o in scenario.objectives]
    if len(names) == 1:
        figures[names[0]] = float(means[0][0])
    for label, mean, worth in zip(labels, means, utilities, strict=True):
        if label in scenario.modes:
            figures[f"{UTILITY}@{label}"] = worth
            figures |= {f"{name}@{label}": float(value) for name, value in zip(names, mean, strict=True)}
    return figures
