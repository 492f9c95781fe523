"""The stages of the loop, composed: train, search, front, resolve, register, experiment, targets."""

from rlaas.pipeline.candidates import (
    Hypervolumes,
    build_front,
    configuration_parameters,
    hypervolumes,
    search_configurations,
    utility,
)
from rlaas.pipeline.cluster import local_ray
from rlaas.pipeline.experiment import analyse_experiment, pseudo_values
from rlaas.pipeline.jobs import (
    PipelineConfig,
    config_parameters,
    load_pipeline_config,
    run_optimization,
    run_pipeline,
    run_training,
)
from rlaas.pipeline.replay import ReplayComparison, compare_estimators
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import (
    EvaluatedCandidates,
    best_configuration,
    evaluate_baselines,
    evaluate_candidates,
    evaluate_controller,
    policy_preferences,
    resolve_modes,
    spread_subset,
)
from rlaas.pipeline.targets import TargetRow, Verdict, judge_targets

__all__ = [
    "EvaluatedCandidates",
    "Hypervolumes",
    "PipelineConfig",
    "ReplayComparison",
    "TargetRow",
    "Verdict",
    "analyse_experiment",
    "best_configuration",
    "build_front",
    "compare_estimators",
    "config_parameters",
    "configuration_parameters",
    "evaluate_baselines",
    "evaluate_candidates",
    "evaluate_controller",
    "hypervolumes",
    "judge_targets",
    "load_pipeline_config",
    "local_ray",
    "policy_preferences",
    "pseudo_values",
    "resolve_modes",
    "run_optimization",
    "run_pipeline",
    "run_training",
    "search_configurations",
    "seeds_for",
    "spread_subset",
    "utility",
]
