"""The target table: what a column reaches against the default, with the bound that decides "met"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.scenarios import Evaluation, Scenario

__all__ = ["TargetRow", "Verdict", "judge_targets"]

FloatArray = NDArray[np.float64]

RESAMPLES = 4000
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """One objective against its target.

    Attributes:
        objective: its name.
        target: the published target as text.
        value: relative change against the default, or the value itself for an absolute target.
        bound: one-sided Bonferroni bound of ``value`` on the unfavourable side.
        met: the bound lies beyond the target (guards are judged apart, see :class:`Verdict`).
    """

    objective: str
    target: str
    value: float
    bound: float
    met: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; a bound or value that cannot be computed is null."""
        return {
            "target": self.target,
            "value": self.value if np.isfinite(self.value) else None,
            "bound": self.bound if np.isfinite(self.bound) else None,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All targets of one column, and the guards that keep a gain from being bought elsewhere.

    Attributes:
        rows: one per target.
        guards: for each guard its value relative to the default's and whether it holds.
    """

    rows: tuple[TargetRow, ...]
    guards: Mapping[str, tuple[float, bool]]

    @property
    def guards_hold(self) -> bool:
        """Every guard holds."""
        return all(held for _, held in self.guards.values())

    def met(self, row: TargetRow) -> bool:
        """The target counts as met: beyond the bound, and no guard broken."""
        return row.met and self.guards_hold

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """By objective: target, value, bound, met."""
        return {row.objective: {**row.to_dict(), "met": self.met(row)} for row in self.rows}


def judge_targets(scenario: Scenario, default: Evaluation, ours: Sequence[Evaluation], *, seed: int = 0) -> Verdict:
    """Judge ``ours`` against the scenario's targets by a paired hierarchical bootstrap.

    Training runs are resampled first, evaluation seeds second; a draw takes the same evaluation seeds for the default
    and for ours, because both saw the same worlds. The bound is one-sided at 5 % divided by the number of targets.

    Args:
        scenario: gives targets and guards.
        default: the default baseline.
        ours: one evaluation per training seed, all on the default's evaluation seeds.
        seed: of the bootstrap.

    Raises:
        InvalidInputError: ``ours`` is empty or saw other seeds than the default.
    """
    if not ours:
        raise InvalidInputError("judge_targets needs at least one evaluation", field="ours")
    if any(e.seeds != default.seeds for e in ours):
        raise InvalidInputError("default and ours were evaluated on different seeds", field="seeds")
    rng = np.random.default_rng(seed)
    n_runs, n_seeds = len(ours), len(default.seeds)
    numerators = np.stack([e.numerators for e in ours])
    denominators = np.stack([e.denominators for e in ours])
    runs = rng.integers(n_runs, size=(RESAMPLES, n_runs))
    seeds = rng.integers(n_seeds, size=(RESAMPLES, n_seeds))
    run_weight = _counts(runs, n_runs)
    seed_weight = _counts(seeds, n_seeds)

    def ours_sum(parts: FloatArray) -> FloatArray:
        return np.asarray(np.einsum("br,bs,rsp->bp", run_weight, seed_weight, parts) / n_runs)

    drawn = _objectives(scenario, ours_sum(numerators), ours_sum(denominators))
    drawn_default = _objectives(scenario, seed_weight @ default.numerators, seed_weight @ default.denominators)
    point = _objectives(scenario, numerators.mean(axis=0).sum(axis=0), denominators.mean(axis=0).sum(axis=0))
    point_default = _objectives(scenario, default.numerators.sum(axis=0), default.denominators.sum(axis=0))

    names = [o.name for o in scenario.objectives]
    alpha = ALPHA / max(1, len(scenario.targets))
    rows: list[TargetRow] = []
    for target in scenario.targets.values():
        k = names.index(target.objective)
        up = scenario.objectives[k].direction == "maximize"
        if target.relative is not None:
            wanted = target.relative
            value = float((point[k] - point_default[k]) / abs(point_default[k]))
            spread = (drawn[:, k] - drawn_default[:, k]) / np.abs(drawn_default[:, k])
        else:
            wanted = float(target.absolute or 0.0)
            value = float(point[k])
            spread = drawn[:, k]
        # One evaluation seed leaves nothing to resample: then nothing can be called met.
        bound = float(np.quantile(spread, alpha if up else 1 - alpha)) if n_seeds > 1 else float("nan")
        met = bool(bound > wanted if up else bound < wanted)
        rows.append(TargetRow(objective=target.objective, target=target.describe(), value=value, bound=bound, met=met))
    return Verdict(rows=tuple(rows), guards=_guards(scenario, default, numerators, denominators))


def _counts(index: NDArray[np.int64], n: int) -> FloatArray:
    return np.stack([(index == i).sum(axis=1) for i in range(n)], axis=1).astype(np.float64)


def _objectives(scenario: Scenario, numerators: FloatArray, denominators: FloatArray) -> FloatArray:
    return np.asarray(scenario.objective_values(numerators, denominators), dtype=np.float64)


def _guards(
    scenario: Scenario, default: Evaluation, numerators: FloatArray, denominators: FloatArray
) -> dict[str, tuple[float, bool]]:
    reached = scenario.guards(numerators.mean(axis=0).sum(axis=0), denominators.mean(axis=0).sum(axis=0))
    wanted = scenario.guards(default.numerators.sum(axis=0), default.denominators.sum(axis=0))
    out: dict[str, tuple[float, bool]] = {}
    for name, share in scenario.guard_shares.items():
        ratio = float(reached[name]) / float(wanted[name])
        out[name] = (ratio, bool(ratio >= share))
    return out
