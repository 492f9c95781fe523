"""The simulated traffic of the benchmark, so that what is tested is what is quoted."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.canary import HARMS, at_the_margin, baseline, delays, rollout, without_cause
from benchmarks.canary_batch import Rollouts, Traffic, disagreement

__all__ = [
    "HARMS",
    "Rollouts",
    "Traffic",
    "at_the_margin",
    "baseline",
    "delays",
    "disagreement",
    "rollout",
    "without_cause",
]
