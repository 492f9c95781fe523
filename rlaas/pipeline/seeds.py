"""Seeds that never meet: what is trained, searched, selected and reported on sees worlds of its own."""

from __future__ import annotations

from typing import Literal

import numpy as np

__all__ = ["Purpose", "seeds_for"]

Purpose = Literal["search", "front", "table", "traffic", "selection", "verdict", "race"]
_STREAM: dict[str, int] = {
    "search": 1,
    "front": 2,
    "table": 3,
    "traffic": 4,
    "selection": 5,
    "verdict": 6,
    "race": 7,
}


def seeds_for(purpose: Purpose, seed: int, count: int) -> tuple[int, ...]:
    """``count`` seeds for one purpose of a run; the same run and purpose give the same seeds."""
    return tuple(int(s) for s in np.random.SeedSequence([seed, _STREAM[purpose]]).generate_state(count))
