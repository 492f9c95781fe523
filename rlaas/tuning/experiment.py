"""One Ray Tune experiment that survives its driver: started, or resumed from its newest snapshot."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import CheckpointConfig, ResumeConfig
from ray.tune.error import TuneError
from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator

from rlaas.errors import OperatorError
from rlaas.tuning.book import Book, TrialRecord
from rlaas.tuning.contenders import trial_folder
from rlaas.tuning.snapshots import BOOK, SCHEDULER, Snapshots, check_resumed, install_snapshot, newest_snapshot
from rlaas.tuning.trainable import PolicyTrainable

__all__ = ["Experiment"]

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables; ours are drawn elsewhere
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the book and MLflow hold what CSV, JSON and TensorBoard files would
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt ends the search here; every state on the disk can be resumed
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "30",  # MLflow's first call takes seconds
    "TUNE_GLOBAL_CHECKPOINT_S": "0.5",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of scenarios keep their meaning
}


class _GrowingSearch(SearchGenerator):
    """Tune's loop around a searcher; a resumed search may be given more trials than it was begun with."""

    def __init__(self, searcher: Any, trials: int) -> None:
        super().__init__(searcher)
        self._wanted = trials

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._total_samples = self._wanted


@dataclass(slots=True, kw_only=True)
class Experiment:
    """What is run, and where.

    Attributes:
        folder: ``<folder>/<name>`` holds the trials, ``<folder>/state-<name>`` the snapshots.
        name: of the experiment.
        book: its trials.
        param_space: shared by all trials, with Tune's domains where no searcher draws the values.
        searcher: a Ray Tune ``Searcher``, or None to draw from ``param_space``.
        scheduler: a Ray Tune scheduler.
        resumable_scheduler: whether the scheduler's state belongs into the snapshots.
        trials: configurations to try.
        concurrency: trials at the same time; None leaves it to the CPUs.
        room: what each process of a trial reserves, by Ray's names, the trial's own first.
        failures: crashes after which a trial is continued.
        checkpoint_every: reports.
        seed: of what is drawn here.
        callbacks: called after the book.
    """

    folder: Path
    name: str
    book: Book
    param_space: dict[str, Any]
    searcher: Any = None
    scheduler: Any = None
    resumable_scheduler: bool = False
    trials: int
    concurrency: int | None
    room: list[dict[str, float]]
    failures: int
    checkpoint_every: int = 1
    seed: int
    callbacks: list[Any] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """Folder of the snapshots."""
        return self.folder / f"state-{self.name}"

    def reload(self) -> Mapping[str, TrialRecord]:
        """Bring the book back to the newest snapshot, so that it agrees with what Tune resumes.

        Returns:
            Records of trials that had begun after it: they are lost.
        """
        snapshot = newest_snapshot(self.state)
        written: dict[str, TrialRecord] = {}
        if self.book.path.exists():
            self.book.read(self.book.path)
            written = self.book.records
        if snapshot is None:
            self.book.records = {}
            return written
        self.book.read(snapshot / BOOK)
        return {key: record for key, record in written.items() if key not in self.book.records}

    def run(self) -> None:
        """Run to the end, from the newest snapshot if there is one.

        Raises:
            OperatorError: the search broke off; it can be resumed.
        """
        snapshot = newest_snapshot(self.state)
        resume = None
        if snapshot is not None:
            install_snapshot(snapshot, self.folder / self.name)
            if (snapshot / SCHEDULER).exists():
                self.scheduler.restore(str(snapshot / SCHEDULER))
            resume = ResumeConfig(unfinished=ResumeConfig.ResumeType.RESUME, errored=ResumeConfig.ResumeType.SKIP)
        snapshots = Snapshots(self.state, self.book, self.scheduler if self.resumable_scheduler else None)
        guard = _Guard(set(self.book.records) if resume else set())
        with _quiet(), _environment(), _seeded(self.seed):
            try:
                tune.run(
                    PolicyTrainable,
                    name=self.name,
                    storage_path=str(self.folder),
                    config=self.param_space,
                    num_samples=self.trials if self.searcher is not None or not _gridded(self.param_space) else 1,
                    search_alg=self._search(),
                    scheduler=self.scheduler,
                    resources_per_trial=tune.PlacementGroupFactory(self.room),
                    checkpoint_config=CheckpointConfig(
                        checkpoint_frequency=self.checkpoint_every, checkpoint_at_end=True
                    ),
                    max_failures=self.failures,
                    reuse_actors=True,
                    raise_on_failed_trial=False,
                    verbose=0,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                    resume_config=resume,
                    callbacks=[guard, self.book, *self.callbacks, snapshots],
                )
            except TuneError as problem:
                lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
                raise OperatorError(
                    f"the search broke off: {lines[-1] if lines else problem}; --resume continues it", field="resume"
                ) from problem

    def _search(self) -> Any:
        if self.searcher is None:
            return BasicVariantGenerator(max_concurrent=self.concurrency or 0, random_state=self.seed)
        limited = ConcurrencyLimiter(self.searcher, max_concurrent=self.concurrency or self.trials)
        return _GrowingSearch(limited, self.trials)


class _Guard(tune.Callback):
    """Stops a resumed search before its first step if Tune has not taken the trials up."""

    def __init__(self, known: set[str]) -> None:
        self._known = known

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        check_resumed(self._known, trials)


def _gridded(space: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) and "grid_search" in value for value in space.values())


def _trial_name(trial: Any) -> str:
    return trial_folder(trial.trial_id)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Tune's log: what a user has to know of a search is said by the search."""
    log = logging.getLogger("ray.tune")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _environment() -> Iterator[None]:
    """Tune's settings, which it reads from the environment."""
    before = {key: os.environ.get(key) for key in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """With Python's own generator seeded: population based training draws from it."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
