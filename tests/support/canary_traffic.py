"""The simulated traffic of the benchmark, so that what is tested is what is quoted."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.canary import HARMS, Traffic, at_the_margin, baseline, rollout

__all__ = ["HARMS", "Traffic", "at_the_margin", "baseline", "rollout"]
