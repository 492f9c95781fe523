"""Experiments: who gets which variant, and what may be concluded.

Names are loaded on first use: a Gateway, which only assigns, never loads scipy or numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.experiments.allocation import (
        AdaptiveEstimate,
        AdaptiveEstimates,
        Allocation,
        AnyAllocator,
        BetaPrior,
        ContextualAllocation,
        Fixed,
        GaussianPrior,
        LinearThompson,
        ModeVerdict,
        ObjectiveThompson,
        PropensityCheck,
        Thompson,
        adaptive_estimates,
        allocator_from_dict,
        lai_robbins,
        propensity_check,
        sequential_regret,
        simulated_regret,
    )
    from rlaas.experiments.analysis import compare_by_unit, compare_switchback, srm_check
    from rlaas.experiments.assignment import Assignment, assign_switchback, assign_unit, block_of, unit_assigner
    from rlaas.experiments.canary import CanaryBounds, CanaryJudge
    from rlaas.experiments.comparison import Arm, Comparison
    from rlaas.experiments.conditional import (
        ArmPosterior,
        ConditionalAssigner,
        ConditionalSpec,
        Feature,
        FeatureReader,
    )
    from rlaas.experiments.continuous import (
        CONTINUOUS_ESTIMATORS,
        ContinuousEstimatorName,
        cross_fitted_values,
        estimate_continuous,
    )
    from rlaas.experiments.diversion import Membership, PlanAssigner
    from rlaas.experiments.exposure import UnitEntries
    from rlaas.experiments.gate import (
        Evidence,
        GateLine,
        GateOverride,
        GatePolicy,
        GateRecord,
        collect_evidence,
        passes_gate,
    )
    from rlaas.experiments.guardrails import GuardrailResult, check_guardrail
    from rlaas.experiments.inference import (
        SIDES,
        BayesResult,
        BoundedDifference,
        BoundedMean,
        FixedResult,
        MeanDifference,
        MeanSequence,
        Moments,
        NormalPrior,
        ProportionDifference,
        ProportionSequence,
        QuantileRatio,
        QuantileSequence,
        Side,
        SplitMonitor,
        Standing,
        bayes_means,
        bayes_proportions,
        benjamini_hochberg,
        chi_square,
        duration_days,
        e_benjamini_hochberg,
        holm,
        log_edges,
        mde_mean,
        mde_proportion,
        power_mean,
        power_proportion,
        proportions_z_test,
        ratio_deviation,
        sample_size_mean,
        sample_size_proportion,
        sequential_inflation,
        welch_test,
    )
    from rlaas.experiments.layers import (
        BUCKETS,
        AllocationPlan,
        Buckets,
        Layer,
        LayeredExperiment,
        WeightedVariant,
        diverter,
        place,
    )
    from rlaas.experiments.metric_analysis import MetricResult, Segment, analyse_metric
    from rlaas.experiments.metrics import (
        CountMetric,
        Guardrail,
        MeanMetric,
        Metric,
        MetricBase,
        ProportionMetric,
        QuantileMetric,
        RatioMetric,
        Winsorising,
    )
    from rlaas.experiments.off_policy import ESTIMATORS, Estimate, EstimatorName, estimate
    from rlaas.experiments.records import AuditRecord, Entry, Exposure, Outcome
    from rlaas.experiments.reward_model import RewardModel, cross_fitted_prediction, fit_reward_model
    from rlaas.experiments.sequential_off_policy import (
        SESSION_ESTIMATORS,
        FittedQ,
        SessionEstimate,
        SessionEstimatorName,
        SessionLog,
        cross_fitted_action_values,
        estimate_sessions,
        fit_q,
        fitted_q_evaluation,
    )
    from rlaas.experiments.targeting import AllOf, AnyOf, Condition, TargetingRule, matcher

__all__ = [
    "BUCKETS",
    "CONTINUOUS_ESTIMATORS",
    "ESTIMATORS",
    "SESSION_ESTIMATORS",
    "SIDES",
    "AdaptiveEstimate",
    "AdaptiveEstimates",
    "AllOf",
    "Allocation",
    "AllocationPlan",
    "AnyAllocator",
    "AnyOf",
    "Arm",
    "ArmPosterior",
    "Assignment",
    "AuditRecord",
    "BayesResult",
    "BetaPrior",
    "BoundedDifference",
    "BoundedMean",
    "Buckets",
    "CanaryBounds",
    "CanaryJudge",
    "Comparison",
    "Condition",
    "ConditionalAssigner",
    "ConditionalSpec",
    "ContextualAllocation",
    "ContinuousEstimatorName",
    "CountMetric",
    "Entry",
    "Estimate",
    "EstimatorName",
    "Evidence",
    "Exposure",
    "Feature",
    "FeatureReader",
    "FittedQ",
    "Fixed",
    "FixedResult",
    "GateLine",
    "GateOverride",
    "GatePolicy",
    "GateRecord",
    "GaussianPrior",
    "Guardrail",
    "GuardrailResult",
    "Layer",
    "LayeredExperiment",
    "LinearThompson",
    "MeanDifference",
    "MeanMetric",
    "MeanSequence",
    "Membership",
    "Metric",
    "MetricBase",
    "MetricResult",
    "ModeVerdict",
    "Moments",
    "NormalPrior",
    "ObjectiveThompson",
    "Outcome",
    "PlanAssigner",
    "PropensityCheck",
    "ProportionDifference",
    "ProportionMetric",
    "ProportionSequence",
    "QuantileMetric",
    "QuantileRatio",
    "QuantileSequence",
    "RatioMetric",
    "RewardModel",
    "Segment",
    "SessionEstimate",
    "SessionEstimatorName",
    "SessionLog",
    "Side",
    "SplitMonitor",
    "Standing",
    "TargetingRule",
    "Thompson",
    "UnitEntries",
    "WeightedVariant",
    "Winsorising",
    "adaptive_estimates",
    "allocator_from_dict",
    "analyse_metric",
    "assign_switchback",
    "assign_unit",
    "bayes_means",
    "bayes_proportions",
    "benjamini_hochberg",
    "block_of",
    "check_guardrail",
    "chi_square",
    "collect_evidence",
    "compare_by_unit",
    "compare_switchback",
    "cross_fitted_action_values",
    "cross_fitted_prediction",
    "cross_fitted_values",
    "diverter",
    "duration_days",
    "e_benjamini_hochberg",
    "estimate",
    "estimate_continuous",
    "estimate_sessions",
    "fit_q",
    "fit_reward_model",
    "fitted_q_evaluation",
    "holm",
    "lai_robbins",
    "log_edges",
    "matcher",
    "mde_mean",
    "mde_proportion",
    "passes_gate",
    "place",
    "power_mean",
    "power_proportion",
    "propensity_check",
    "proportions_z_test",
    "ratio_deviation",
    "sample_size_mean",
    "sample_size_proportion",
    "sequential_inflation",
    "sequential_regret",
    "simulated_regret",
    "srm_check",
    "unit_assigner",
    "welch_test",
]

_NAMES = {
    "allocation": (
        "AdaptiveEstimate AdaptiveEstimates Allocation AnyAllocator BetaPrior ContextualAllocation Fixed "
        "GaussianPrior LinearThompson ModeVerdict ObjectiveThompson PropensityCheck Thompson "
        "adaptive_estimates allocator_from_dict lai_robbins propensity_check sequential_regret "
        "simulated_regret"
    ),
    "analysis": "compare_by_unit compare_switchback srm_check",
    "assignment": "Assignment assign_switchback assign_unit block_of unit_assigner",
    "canary": "CanaryBounds CanaryJudge",
    "comparison": "Arm Comparison",
    "conditional": "ArmPosterior ConditionalAssigner ConditionalSpec Feature FeatureReader",
    "continuous": "CONTINUOUS_ESTIMATORS ContinuousEstimatorName cross_fitted_values estimate_continuous",
    "diversion": "Membership PlanAssigner",
    "exposure": "UnitEntries",
    "gate": "Evidence GateLine GateOverride GatePolicy GateRecord collect_evidence passes_gate",
    "guardrails": "GuardrailResult check_guardrail",
    "inference": (
        "BayesResult BoundedDifference BoundedMean FixedResult MeanDifference MeanSequence Moments "
        "NormalPrior ProportionDifference ProportionSequence QuantileRatio QuantileSequence SIDES Side "
        "SplitMonitor Standing bayes_means bayes_proportions benjamini_hochberg chi_square duration_days "
        "e_benjamini_hochberg holm log_edges mde_mean mde_proportion power_mean power_proportion "
        "proportions_z_test ratio_deviation sample_size_mean sample_size_proportion sequential_inflation "
        "welch_test"
    ),
    "layers": "AllocationPlan BUCKETS Layer LayeredExperiment WeightedVariant place Buckets diverter",
    "metric_analysis": "MetricResult Segment analyse_metric",
    "metrics": (
        "CountMetric Guardrail MeanMetric Metric MetricBase ProportionMetric QuantileMetric RatioMetric Winsorising"
    ),
    "off_policy": "ESTIMATORS Estimate EstimatorName estimate",
    "records": "AuditRecord Entry Exposure Outcome",
    "reward_model": "RewardModel cross_fitted_prediction fit_reward_model",
    "sequential_off_policy": (
        "FittedQ SESSION_ESTIMATORS SessionEstimate SessionEstimatorName SessionLog "
        "cross_fitted_action_values estimate_sessions fit_q fitted_q_evaluation"
    ),
    "targeting": "AllOf AnyOf Condition TargetingRule matcher",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
