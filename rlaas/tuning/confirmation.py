"""Confirming what a search found: trained anew with other seeds, judged on seeds that the search has not seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaas.scenarios import Scenario
from rlaas.training import TrainingConfig
from rlaas.tuning.book import Book, TrialRecord
from rlaas.tuning.checks import Aim
from rlaas.tuning.cluster import trial_room
from rlaas.tuning.config import TuningConfig
from rlaas.tuning.experiment import Experiment
from rlaas.tuning.figures import known_metrics
from rlaas.tuning.progress import Notice, Progress, Reporter, Waiting
from rlaas.tuning.results import Confirmed, Found, confirmed
from rlaas.tuning.space import with_values
from rlaas.tuning.trainable import trial_config

__all__ = ["confirm"]

BASE = "base"


def confirm(
    config: TuningConfig,
    aim: Aim,
    scenario: Scenario,
    output: Path,
    found: Sequence[Found],
    *,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> list[Confirmed]:
    """Train the base and the first configurations found once for each training seed.

    An experiment of its own, which resumes like the search. What is confirmed is part of its name: a search that was
    given more trials and found something else is confirmed anew.

    Returns:
        The base first, then the configurations in their order.
    """
    import ray.tune

    assert config.confirmation is not None
    asked = config.confirmation
    candidates: dict[str, Any] = {BASE: {}, **{one.name: dict(one.values) for one in found[: asked.most]}}
    cases = {
        (name, seed): _document(config.training, values, seed, asked.evaluation_seeds)
        for name, values in candidates.items()
        for seed in asked.training_seeds
    }
    name = f"confirmation-{_digest(cases.values())}"
    book = Book(output / f"{name}.json", known_metrics(scenario))
    shared = trial_config(config.training, metrics=aim.reported, interval=config.interval)
    experiment = Experiment(
        folder=output,
        name=name,
        book=book,
        param_space={**shared, "training": ray.tune.grid_search(list(cases.values()))},
        trials=len(cases),
        concurrency=config.concurrency,
        room=trial_room(config),
        failures=config.failures_allowed,
        seed=config.seed,
    )
    experiment.reload()
    if progress is not None:
        experiment.callbacks.append(
            Reporter(
                book,
                progress,
                trials=len(cases),
                steps=config.training.steps,
                metric=aim.ranked_by,
                mode=aim.ranked,
                counted="confirmed",
            )
        )
    if notice is not None:
        experiment.callbacks.append(Waiting(notice, trial_room(config)))
    experiment.run()
    # A grid is laid out in order, and so are the trials' numbers.
    records = sorted(book.records.values(), key=lambda record: record.id)
    by_case: dict[str, dict[int, TrialRecord]] = {name: {} for name in candidates}
    for (label, seed), record in zip(cases, records, strict=True):
        by_case[label][seed] = record
    return [confirmed(label, runs, aim.metrics) for label, runs in by_case.items()]


def _document(base: TrainingConfig, values: dict[str, Any], seed: int, evaluation: tuple[int, ...]) -> dict[str, Any]:
    changed = {**values, "seed": seed}
    if base.evaluation_seeds:
        changed["evaluation_seeds"] = list(evaluation)
    return with_values(base, changed).model_dump(mode="json", exclude_unset=True)


def _digest(documents: Any) -> str:
    return hashlib.sha256(json.dumps(list(documents), sort_keys=True).encode()).hexdigest()[:10]
