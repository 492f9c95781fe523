"""The worker's side of offline scoring: tables in, decisions out; light, because every worker loads it."""

from rlaas.serving.scoring.rows import DECISION_COLUMNS, Scorer
from rlaas.serving.scoring.source import Reader, Source

__all__ = ["DECISION_COLUMNS", "Reader", "Scorer", "Source"]
