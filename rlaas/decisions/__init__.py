"""Which trade-off is taken: scores, rules, the resolver and its certificate."""

from rlaas.decisions.certificate import Certificate
from rlaas.decisions.resolver import METHODS, Choice, resolve
from rlaas.decisions.topsis import NORMALISATIONS, topsis

__all__ = ["METHODS", "NORMALISATIONS", "Certificate", "Choice", "resolve", "topsis"]
