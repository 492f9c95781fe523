"""The stages of the loop, composed: train, search, front, resolve, register, experiment, targets."""

from rlaas.pipeline.candidates import (
    Hypervolumes,
    build_front,
    configuration_parameters,
    hypervolumes,
    search_configurations,
    search_reference,
    utility,
)
from rlaas.pipeline.cluster import local_ray
from rlaas.pipeline.continuous import (
    STAGES,
    Observer,
    PipelineConfig,
    PipelineReport,
    StagePlan,
    StageReport,
    load_pipeline_config,
    plan_pipeline,
    run_pipeline,
)
from rlaas.pipeline.evidence import ContenderEvaluator, RacePlan, policy_contenders
from rlaas.pipeline.experiment import analyse_experiment, pseudo_values
from rlaas.pipeline.feasibility import Budget, FeasibilityReport, Finalist, TargetSet, feasibility
from rlaas.pipeline.feasibility_report import feasibility_page
from rlaas.pipeline.federation import federation_folder, run_federation
from rlaas.pipeline.fits import FitPlan, plan_fit, run_fit
from rlaas.pipeline.jobs import Optimization, config_parameters, run_folder, run_optimization, run_training, write_front
from rlaas.pipeline.replay import ReplayComparison, compare_estimators
from rlaas.pipeline.replay_report import replay_section
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
    with_default,
)
from rlaas.pipeline.targets import TargetRow, Verdict, judge_targets

__all__ = [
    "STAGES",
    "Budget",
    "ContenderEvaluator",
    "EvaluatedCandidates",
    "FeasibilityReport",
    "Finalist",
    "FitPlan",
    "Hypervolumes",
    "Observer",
    "Optimization",
    "PipelineConfig",
    "PipelineReport",
    "RacePlan",
    "ReplayComparison",
    "StagePlan",
    "StageReport",
    "TargetRow",
    "TargetSet",
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
    "feasibility",
    "feasibility_page",
    "federation_folder",
    "hypervolumes",
    "judge_targets",
    "load_pipeline_config",
    "local_ray",
    "plan_fit",
    "plan_pipeline",
    "policy_contenders",
    "policy_preferences",
    "pseudo_values",
    "replay_section",
    "resolve_modes",
    "run_federation",
    "run_fit",
    "run_folder",
    "run_optimization",
    "run_pipeline",
    "run_training",
    "search_configurations",
    "search_reference",
    "seeds_for",
    "spread_subset",
    "utility",
    "with_default",
    "write_front",
]
