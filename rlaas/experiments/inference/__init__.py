"""What may be concluded from an experiment: by looking at any time, by looking once, and what to plan beforehand."""

from rlaas.experiments.inference.bayes import BayesResult, NormalPrior, bayes_means, bayes_proportions
from rlaas.experiments.inference.betting import BoundedDifference, BoundedMean
from rlaas.experiments.inference.checks import SIDES, Side, Standing
from rlaas.experiments.inference.fixed import FixedResult, chi_square, proportions_z_test, welch_test
from rlaas.experiments.inference.mismatch import SplitMonitor
from rlaas.experiments.inference.moments import Moments
from rlaas.experiments.inference.multiplicity import benjamini_hochberg, e_benjamini_hochberg, holm
from rlaas.experiments.inference.power import (
    duration_days,
    mde_mean,
    mde_proportion,
    power_mean,
    power_proportion,
    ratio_deviation,
    sample_size_mean,
    sample_size_proportion,
    sequential_inflation,
)
from rlaas.experiments.inference.proportions import ProportionDifference, ProportionSequence
from rlaas.experiments.inference.quantiles import QuantileRatio, QuantileSequence, log_edges
from rlaas.experiments.inference.sequences import MeanDifference, MeanSequence

__all__ = [
    "SIDES",
    "BayesResult",
    "BoundedDifference",
    "BoundedMean",
    "FixedResult",
    "MeanDifference",
    "MeanSequence",
    "Moments",
    "NormalPrior",
    "ProportionDifference",
    "ProportionSequence",
    "QuantileRatio",
    "QuantileSequence",
    "Side",
    "SplitMonitor",
    "Standing",
    "bayes_means",
    "bayes_proportions",
    "benjamini_hochberg",
    "chi_square",
    "duration_days",
    "e_benjamini_hochberg",
    "holm",
    "log_edges",
    "mde_mean",
    "mde_proportion",
    "power_mean",
    "power_proportion",
    "proportions_z_test",
    "ratio_deviation",
    "sample_size_mean",
    "sample_size_proportion",
    "sequential_inflation",
    "welch_test",
]
