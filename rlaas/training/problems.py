"""The problem behind a training run: a scenario, or any Gymnasium environment dressed as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice
from rlaas.scenarios import ConstantController, Scenario, load
from rlaas.training.actions import ActionSpec
from rlaas.training.config import Algorithm, TrainingConfig
from rlaas.training.gymnasium_scenario import GymnasiumScenario

__all__ = ["algorithm_of", "check_problem", "constant_of", "problem_of", "recommended_config"]


def recommended_config(scenario: str, **changes: Any) -> TrainingConfig:
    """What a scenario recommends for its training, with the algorithm named.

    Args:
        scenario: entry-point name or ``module:attribute``.
        changes: fields of the configuration that are to differ.

    Raises:
        ConfigurationError: an unknown scenario, or a field that cannot be.
    """
    found = load(scenario)
    return TrainingConfig(**{"algorithm": found.algorithm, **found.training_defaults, "scenario": scenario, **changes})


def problem_of(config: TrainingConfig) -> Scenario:
    """The scenario that ``config`` names, or its Gymnasium environment as a scenario.

    Raises:
        ConfigurationError: unknown name or option, or spaces that cannot be trained on.
    """
    if config.scenario is not None:
        return load(config.scenario, **config.options)
    return GymnasiumScenario(str(config.environment), **config.options)


def algorithm_of(config: TrainingConfig, scenario: Scenario) -> Algorithm:
    """The algorithm to train with, after refusing combinations that cannot work.

    Raises:
        ConfigurationError: naming the field and what to change.
    """
    name = config.algorithm or scenario.algorithm
    if name not in ("sac", "ppo"):
        raise ConfigurationError(f"unknown algorithm {name!r}; allowed: ppo, sac", field="algorithm")
    check_problem(config, name, scenario)  # type: ignore[arg-type]
    return "sac" if name == "sac" else "ppo"


def check_problem(config: TrainingConfig, algorithm: Algorithm, scenario: Scenario) -> None:
    """Refuse what cannot work before anything starts.

    Raises:
        ConfigurationError: naming the field and what to change.
    """
    try:
        actions = ActionSpec.of(scenario.single_action_space)
    except InvalidInputError as problem:
        field = "environment" if config.environment else "scenario"
        raise ConfigurationError(f"{scenario.name!r}: {problem.message}", field=field) from None
    if algorithm == "sac" and len(actions.sizes) > 1:
        raise ConfigurationError(
            f"algorithm sac acts in a box or makes one choice, but the actions of {scenario.name!r} are "
            f"{scenario.single_action_space}; use algorithm ppo",
            field="algorithm",
        )
    if algorithm == "sac" and config.resolved_learning_starts() >= config.steps:
        raise ConfigurationError(
            f"sac.learning_starts {config.resolved_learning_starts()} leaves nothing to learn of {config.steps} steps; "
            "lower it or raise steps",
            field="sac.learning_starts",
        )
    if algorithm == "ppo" and actions.sizes and config.ppo.final_noise < 1.0:
        raise ConfigurationError(
            f"ppo.final_noise is about numbers in a box, but the actions of {scenario.name!r} are choices, whose "
            "chance ppo.entropy governs; leave ppo.final_noise out",
            field="ppo.final_noise",
        )
    if config.device is not None:
        _check_device(config, scenario)
    if config.start is not None:
        constant = [] if actions.sizes else [name for name in scenario.baselines if constant_of(scenario, name)]
        if config.start not in constant and (not constant or config.start in scenario.baselines):
            remedy = f"allowed: {', '.join(constant)}" if constant else "leave start out"
            raise ConfigurationError(
                f"start {config.start!r} is no constant setting that a policy of {scenario.name!r} could begin at; "
                f"{remedy}",
                field="start",
            )
        check_choice(config.start, constant, field="start")
    _check_evaluation(config, scenario)
    for index, constraint in enumerate(config.constraints):
        check_choice(constraint.part, scenario.part_names, field=f"constraints.{index}.part")
    if algorithm == "ppo":
        _check_rollout(config, scenario)


def constant_of(scenario: Scenario, baseline: str) -> ConstantController | None:
    """The baseline's controller where that always does the same, else None."""
    found = scenario.baselines.get(baseline)
    controller = None if found is None else found.make()
    return controller if isinstance(controller, ConstantController) else None


def _check_device(config: TrainingConfig, scenario: Scenario) -> None:
    """Refuse a device that is not here, and a scenario that cannot live on one.

    Raises:
        ConfigurationError: naming the field and what to change.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device cuda: torch finds no CUDA device here; leave device out", field="device")
    if config.ppo.memory:
        raise ConfigurationError("ppo.memory and device cannot be combined; leave one of them out", field="device")
    scenario.tensor_env(1, device="meta", seed=0)


def _check_evaluation(config: TrainingConfig, scenario: Scenario) -> None:
    """Refuse a reference point of other objectives, and a discount of what is no return."""
    names = [o.name for o in scenario.objectives]
    reference = config.evaluation_reference
    if reference is not None and (set(reference) != set(names) or not np.isfinite(list(reference.values())).all()):
        raise ConfigurationError(
            f"evaluation_reference needs a finite value for each of {', '.join(names)}, got {reference}",
            field="evaluation_reference",
        )
    if config.evaluation_gamma is not None and config.environment is None:
        raise ConfigurationError(
            f"the objectives of {scenario.name!r} are averages over steps and cannot be discounted; leave "
            "evaluation_gamma out",
            field="evaluation_gamma",
        )


def _check_rollout(config: TrainingConfig, scenario: Scenario) -> None:
    """Refuse a PPO rollout that does not fill a minibatch, and memories that have nowhere to stand."""
    ppo = config.ppo
    env = scenario.vector_env(1, seed=0)
    rows = config.num_envs * env.rows_per_env
    env.close()
    if ppo.rollout_length * rows < ppo.minibatch:
        raise ConfigurationError(
            f"ppo.minibatch {ppo.minibatch} exceeds a rollout of {ppo.rollout_length * rows} decisions "
            "(ppo.rollout_length times num_envs); lower it or raise num_envs",
            field="ppo.minibatch",
        )
    if not ppo.memory:
        return
    if config.centralised_critic:
        raise ConfigurationError(
            "ppo.memory and centralised_critic cannot be combined; leave one of them out", field="centralised_critic"
        )
    if ppo.minibatch % (ppo.rollout_length * max(1, config.num_learners)):
        raise ConfigurationError(
            f"with ppo.memory a minibatch holds whole rollouts: ppo.minibatch {ppo.minibatch} must be a multiple of "
            f"ppo.rollout_length {ppo.rollout_length} for each learner",
            field="ppo.minibatch",
        )
