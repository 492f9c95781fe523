"""What a search hands back: its best configurations, and what confirming them gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import stats

from rlaas.files import write_text
from rlaas.fronts import non_dominated
from rlaas.training import TrainingConfig, load_config
from rlaas.tuning.book import TrialRecord
from rlaas.tuning.contenders import TrialPolicy, policy_folder, trial_folder
from rlaas.tuning.space import training_document

__all__ = ["EXPERIMENT", "Confirmed", "Found", "TuningResult", "confirmed", "ranked", "select", "write_config"]

EXPERIMENT = "search"
"""Name of the experiment that searches, and of its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """One configuration trained anew and judged on fresh seeds.

    Attributes:
        name: ``base``, or that of the configuration found.
        seeds: training seeds that went well.
        failures: training seeds that failed, with the reason.
        figures: metric by metric one value for each training seed.
    """

    name: str
    seeds: tuple[int, ...]
    failures: Mapping[int, str]
    figures: Mapping[str, tuple[float, ...]]

    def mean(self, metric: str) -> float:
        """Mean over the training seeds; NaN without any."""
        values = self.figures[metric]
        return float(np.mean(values)) if values else math.nan

    def half_width(self, metric: str, confidence: float = 0.95) -> float:
        """Half width of the Student interval of the mean; infinite for fewer than two seeds."""
        values = self.figures[metric]
        if len(values) < 2:
            return math.inf
        spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        return float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A configuration worth keeping.

    Attributes:
        name: ``best``, or ``pareto-1`` and so on, which is its file's name as well.
        trial: number of the trial it comes from.
        values: searched fields by dotted name.
        figures: metrics of the trial, which selection has made too good.
        file: what ``rlaas train --config`` takes.
    """

    name: str
    trial: int
    values: Mapping[str, Any]
    figures: Mapping[str, float]
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningResult:
    """A finished search.

    Attributes:
        output: its folder.
        metrics: the objectives' metrics.
        directions: ``maximize`` or ``minimize`` for each.
        found: the best configuration, or a Pareto front of them.
        trials: every trial.
        confirmation: the base and the configurations found on fresh seeds; empty if that was left out.
        mlflow_run_id: the search's run, if it was tracked.
    """

    output: Path
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    found: tuple[Found, ...]
    trials: tuple[TrialRecord, ...]
    confirmation: tuple[Confirmed, ...] = field(default=())
    mlflow_run_id: str | None = None

    @property
    def best(self) -> TrainingConfig:
        """The best configuration; of a front its first, which has the best first objective."""
        return load_config(self.found[0].file)

    def policies(self) -> tuple[TrialPolicy, ...]:
        """The policies that trials ended with, those of the best trials first: candidates of a front.

        They were trained with the search's seed and judged on its evaluation seeds, which chose them: evaluate them
        anew. Trials that were stopped early or failed have none, nor have those whose folder is not on this machine.
        """
        root = self.output / EXPERIMENT
        found = (
            TrialPolicy(trial=record.number, values=record.values, bundle=policy_folder(root / trial_folder(record.id)))
            for record in ranked(self.trials, self.metrics, self.directions)
        )
        return tuple(one for one in found if one.kept)

    def counts(self) -> dict[str, int]:
        """Number of trials by status."""
        return {s: n for s in ("finished", "stopped", "failed") if (n := sum(t.status == s for t in self.trials))}

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types, but for figures that are no numbers; trials are in ``trials.json``."""
        return {
            "output": str(self.output),
            "objectives": dict(zip(self.metrics, self.directions, strict=True)),
            "trials": self.counts(),
            "found": [{**asdict(one), "file": str(one.file)} for one in self.found],
            "confirmation": [
                {
                    "name": one.name,
                    "training_seeds": list(one.seeds),
                    "failures": {str(seed): reason for seed, reason in one.failures.items()},
                    "mean": {m: one.mean(m) for m in self.metrics},
                    "half_width": {m: one.half_width(m) for m in self.metrics},
                }
                for one in self.confirmation
            ],
            "mlflow_run_id": self.mlflow_run_id,
        }


def select(
    records: Sequence[TrialRecord], metrics: Sequence[str], directions: Sequence[str]
) -> list[tuple[str, TrialRecord]]:
    """The best trials by name: the best one, or all that no other dominates.

    Only trials that ran to their end are compared: figures after fewer steps are figures of something else.
    """
    judged, points = _judged(records, metrics, directions)
    if not judged:
        return []
    order = [int(i) for i in np.lexsort(points.T[::-1])]
    if len(metrics) == 1:
        return [("best", judged[order[0]])]
    keep = non_dominated(points)
    members = [judged[i] for i in order if keep[i]]
    return [(f"pareto-{number}", record) for number, record in enumerate(members, start=1)]


def ranked(records: Sequence[TrialRecord], metrics: Sequence[str], directions: Sequence[str]) -> list[TrialRecord]:
    """The trials that ran to their end, best first.

    By non-dominated sorting (Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II"): those
    that no other dominates, then those that only they dominate, and so on; within a layer by the objectives in turn.
    """
    import moocore

    judged, points = _judged(records, metrics, directions)
    if not judged:
        return []
    layers = moocore.pareto_rank(points)
    return [judged[i] for i in np.lexsort((*points.T[::-1], layers))]


def _judged(
    records: Sequence[TrialRecord], metrics: Sequence[str], directions: Sequence[str]
) -> tuple[list[TrialRecord], NDArray[np.float64]]:
    """The trials that ran to their end with all figures, and those, smaller is better [n_trials, n_metrics]."""
    judged = [record for record in records if record.judged(metrics)]
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    figures = np.array([[record.figures[m] for m in metrics] for record in judged], dtype=np.float64)
    return judged, figures.reshape(-1, len(metrics)) * signs


def confirmed(name: str, runs: Mapping[int, TrialRecord], metrics: Sequence[str]) -> Confirmed:
    """Gather the runs of one configuration by training seed."""
    good = {seed: record for seed, record in sorted(runs.items()) if record.judged(metrics)}
    return Confirmed(
        name=name,
        seeds=tuple(good),
        failures={s: r.failure or "no finite figure" for s, r in sorted(runs.items()) if s not in good},
        figures={m: tuple(record.figures[m] for record in good.values()) for m in metrics},
    )


def write_config(path: Path, base: TrainingConfig, values: Mapping[str, Any], remarks: Sequence[str]) -> Path:
    """Write a training configuration with remarks above it; ``rlaas train --config`` takes it."""
    head = "".join(f"# {remark}\n" for remark in remarks)
    body = yaml.safe_dump(training_document(base, values), sort_keys=False, default_flow_style=None)
    write_text(path, head + body)
    return path
