"""Answers whatever happens to the optimiser: live front, last good front, best static configuration, safe default."""

from rlaas.decisions.fallback.answers import STEPS, Answer, PassedOver
from rlaas.decisions.fallback.direct import answer_from
from rlaas.decisions.fallback.fetching import FrontSource, TimedFront
from rlaas.decisions.fallback.resolver import FallbackResolver

__all__ = ["STEPS", "Answer", "FallbackResolver", "FrontSource", "PassedOver", "TimedFront", "answer_from"]
