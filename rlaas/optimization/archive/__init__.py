"""One front for everything: what nothing dominates, exactly for searches and statistically for noisy candidates."""

from __future__ import annotations

from rlaas.optimization.archive.contenders import Contender
from rlaas.optimization.archive.dominance import Comparison
from rlaas.optimization.archive.evidence import EvidenceArchive
from rlaas.optimization.archive.judging import Standing
from rlaas.optimization.archive.points import Archive
from rlaas.optimization.archive.racing import Evaluate, RaceResult, complete, race

__all__ = [
    "Archive",
    "Comparison",
    "Contender",
    "Evaluate",
    "EvidenceArchive",
    "RaceResult",
    "Standing",
    "complete",
    "race",
]
