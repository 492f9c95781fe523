"""Which trade-off is taken: methods, the resolver and its certificate, borders between modes, dynamic weights."""

from rlaas.decisions.border import Border, Crossing, border
from rlaas.decisions.certificate import Certificate
from rlaas.decisions.contest import Requirements, SignedRequirements
from rlaas.decisions.dynamic import DynamicWeights, Ramp, WeightAdapter, Window
from rlaas.decisions.lookup import Resolver
from rlaas.decisions.methods import (
    METHODS,
    NORMALISATIONS,
    Knee,
    Lexicographic,
    Method,
    Nash,
    Topsis,
    Vikor,
    WeightedSum,
    method_named,
    topsis,
)
from rlaas.decisions.region import HalfSpace, Region
from rlaas.decisions.resolver import Choice, resolve
from rlaas.decisions.reversal import Reversal
from rlaas.decisions.rule_changes import RuleChange

__all__ = [
    "METHODS",
    "NORMALISATIONS",
    "Border",
    "Certificate",
    "Choice",
    "Crossing",
    "DynamicWeights",
    "HalfSpace",
    "Knee",
    "Lexicographic",
    "Method",
    "Nash",
    "Ramp",
    "Region",
    "Requirements",
    "Resolver",
    "Reversal",
    "RuleChange",
    "SignedRequirements",
    "Topsis",
    "Vikor",
    "WeightAdapter",
    "WeightedSum",
    "Window",
    "border",
    "method_named",
    "resolve",
    "topsis",
]
