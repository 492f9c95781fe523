"""Snapshots of a search that survive ``kill -9`` of the driver at any moment.

Tune writes the state of an experiment to a staging folder and copies it, file by file and in the background, to where
it resumes from. A driver that dies in between leaves half a file there, or the searcher of one moment next to the
trials of another; Tune then starts anew without a word. Here all parts are copied together once Tune has written them,
into a numbered folder that is complete or not there. Checkpoints of trials are removed only when a snapshot on the disk
no longer needs them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from ray.tune import Callback

from rlaas.errors import ConfigurationError, OperatorError
from rlaas.files import sync
from rlaas.tuning.book import Book

__all__ = ["BOOK", "SCHEDULER", "Snapshots", "check_resumed", "install_snapshot", "newest_snapshot"]

BOOK, SCHEDULER = "trials.json", "scheduler.pkl"
_STATE = (
    "experiment_state-*.json",
    "searcher-state-*.pkl",
    "search_gen_state-*.json",
    "basic-variant-state-*.json",
)
_NAME = re.compile(r"\d{8}")
_KEPT = 2
# The one being written, the one before, and that of a moment ago which population based training may hand on.
_CHECKPOINTS = 3


class Snapshots(Callback):
    """Takes a snapshot whenever Tune has written its state and something has happened since the last one.

    Args:
        folder: of the snapshots.
        book: its records are part of them.
        scheduler: so is its state; None for one that begins anew.
    """

    def __init__(self, folder: Path, book: Book, scheduler: Any) -> None:
        self._folder, self._book, self._scheduler = folder, book, scheduler
        self._seen = self._taken = 0
        folder.mkdir(parents=True, exist_ok=True)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune calls this once a step, after its own writing."""
        if trials:
            self.take(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The last state, whatever the time since the one before."""
        self.take(trials)

    def take(self, trials: list[Any]) -> None:
        """Take a snapshot if there is anything new."""
        staging = Path(trials[0].storage.experiment_driver_staging_path)
        states = sorted(staging.glob(_STATE[0]), key=lambda path: path.stat().st_mtime_ns)
        if not states or states[-1].stat().st_mtime_ns == self._seen or self._book.changes == self._taken:
            return
        self._seen, self._taken = states[-1].stat().st_mtime_ns, self._book.changes
        session = states[-1].stem.removeprefix("experiment_state-")
        files = [path for pattern in _STATE if (path := staging / pattern.replace("*", session)).exists()]
        self._write(files)
        self._remove_checkpoints(trials)

    def _write(self, files: list[Path]) -> None:
        names = _snapshots(self._folder)
        number = int(names[-1].name) + 1 if names else 1
        partial = self._folder / f"{number:08d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for file in files:
            shutil.copyfile(file, partial / file.name)
        shutil.copyfile(self._book.path, partial / BOOK)
        if self._scheduler is not None:
            self._scheduler.save(str(partial / SCHEDULER))
        for file in partial.iterdir():
            sync(file)
        sync(partial)
        partial.rename(self._folder / f"{number:08d}")
        sync(self._folder)
        for old in _snapshots(self._folder)[:-_KEPT]:
            shutil.rmtree(old)

    def _remove_checkpoints(self, trials: list[Any]) -> None:
        """Remove what no unfinished trial would go on from."""
        wanted = {Path(t.checkpoint.path) for t in trials if not t.is_finished() and t.checkpoint is not None}
        for trial in trials:
            found = sorted(Path(trial.storage.trial_fs_path).glob("checkpoint_*"))
            for folder in found if trial.is_finished() else found[:-_CHECKPOINTS]:
                if folder not in wanted:
                    shutil.rmtree(folder)


def _snapshots(folder: Path) -> list[Path]:
    """Complete snapshots, oldest first."""
    return sorted(path for path in folder.glob("*") if _NAME.fullmatch(path.name))


def newest_snapshot(folder: Path) -> Path | None:
    """The newest complete snapshot under ``folder``, or None."""
    found = _snapshots(folder)
    return found[-1] if found else None


def install_snapshot(snapshot: Path, experiment: Path) -> None:
    """Put a snapshot where Tune resumes from, in place of what it copied there itself.

    Raises:
        OperatorError: the experiment's folder is gone.
    """
    if not experiment.is_dir():
        raise OperatorError(f"{experiment} is gone: without its checkpoints the search cannot go on", field="resume")
    for pattern in _STATE:
        for old in experiment.glob(pattern):
            old.unlink()
    for file in snapshot.iterdir():
        if file.name not in (BOOK, SCHEDULER):
            shutil.copyfile(file, experiment / file.name)


def check_resumed(known: set[str], trials: list[Any]) -> None:
    """Stop when Tune has started anew although it was told to go on.

    Raises:
        ConfigurationError: trials of the book are missing.
    """
    missing = known - {trial.trial_id for trial in trials}
    if missing:
        raise ConfigurationError(
            f"the search did not resume: {len(missing)} of its trials are missing from Tune's state", field="resume"
        )
