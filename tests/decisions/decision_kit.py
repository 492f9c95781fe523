"""Fronts for the tests of choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, Rule

NAMES = ("a", "b", "c", "d", "e", "f")
DIRECTIONS = ("minimize", "maximize", "minimize", "maximize", "maximize", "minimize")


def objectives_of(size: int, low: float = 0.0, high: float = 1.0) -> tuple[Objective, ...]:
    return tuple(
        Objective(name=name, unit="", direction=direction, low=low, high=high)  # type: ignore[arg-type]
        for name, direction in zip(NAMES[:size], DIRECTIONS[:size], strict=True)
    )


def front_of(rows: Sequence[Sequence[float]] | np.ndarray, objectives: Sequence[Objective] | None = None) -> Front:
    """All rows as candidates c00, c01, ..., dominated ones too."""
    table = np.asarray(rows, dtype=np.float64)
    return Front(
        scenario="toy",
        objectives=tuple(objectives or objectives_of(table.shape[1])),
        candidates=tuple(
            Candidate(name=f"c{i:02}", kind="policy", mean=tuple(row), half_width=(0.01,) * table.shape[1])
            for i, row in enumerate(table.tolist())
        ),
    )


def mode_of(weights: Sequence[float], *rules: Rule, name: str = "mode") -> Mode:
    return Mode(name=name, preference=Preference.of(NAMES[: len(weights)], weights), rules=rules)


def curved_front(size: int, seed: int = 3) -> Front:
    """Three objectives on a sphere's surface, bulging outwards: every candidate is the best under some weights."""
    rng = np.random.default_rng(seed)
    goodness = np.abs(rng.normal(size=(size, 3)))
    goodness /= np.linalg.norm(goodness, axis=1, keepdims=True)
    up = np.array([d == "maximize" for d in DIRECTIONS[:3]])
    return front_of(np.where(up, goodness, 1 - goodness))


@dataclass(frozen=True)
class Unsigned:
    """Prepared requirements given as numbers [n_candidates][n_requirements] that tell nothing about room left."""

    gaps: tuple[tuple[float, ...], ...]
    texts: tuple[str, ...]

    def violations(self, front: Front) -> np.ndarray:
        return np.maximum(self.gaps, 0.0)

    def describe(self) -> tuple[str, ...]:
        return self.texts


@dataclass(frozen=True)
class Columns(Unsigned):
    """Ones that do."""

    def constraints(self, front: Front) -> np.ndarray:
        return np.array(self.gaps)


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 7, size: int | None = None) -> np.ndarray:
    """Values [n, m] on a coarse grid, where equal values, rows and columns are frequent."""
    columns = size or draw(st.integers(1, 4))
    rows = draw(st.lists(st.tuples(*[st.integers(0, 12)] * columns), min_size=1, max_size=max_rows))
    return np.array(rows, dtype=np.float64) / 12


def weight_vectors(size: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*[st.integers(0, 10)] * size).filter(any)
