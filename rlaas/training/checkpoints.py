"""Checkpoints that survive: complete or absent, checked before they are used, replay written only once.

A run's folder holds ``<steps>/`` for each checkpoint: RLlib's own files under ``algorithm/``, the progress so far in
``curve.json``, and ``checkpoint.json`` with the sha256 of every file, written last. A folder is built under another
name, flushed to the disk, then renamed. What the replay buffer has taken in since the last checkpoint goes into another
file under ``replay/``; older files are named again. RLlib's files are cloudpickle: load them only where they were
written.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.errors import TrainingError
from rlaas.files import sha256_of, sync, write_bytes

__all__ = ["ALGORITHM", "Checkpoint", "CheckpointStore"]

MANIFEST, CURVE, ALGORITHM, REPLAY = "checkpoint.json", "curve.json", "algorithm", "replay"
PARTIAL = ".partial"
KEPT = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are all there and as they were written.

    Attributes:
        folder: where it is.
        steps: decisions taken when it was written.
        seconds: spent on training until then.
        curve: rows of the progress until then.
        replay: names of the replay's files, oldest first, and its position; empty without a replay.
    """

    folder: Path
    steps: int
    seconds: float
    curve: list[dict[str, float]]
    replay: Mapping[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: theirs alone; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def save(self, algo: Any, curve: Sequence[Mapping[str, float]], seconds: float) -> Path:
        """Write a checkpoint of ``algo`` and remove all but the newest two.

        Raises:
            TrainingError: it could not be written; earlier ones are as they were.
        """
        target = self.folder / f"{algo.steps_done:012d}"
        partial = self.folder / f"{target.name}{PARTIAL}"
        try:
            _remove(partial)
            partial.mkdir(parents=True)
            replay = self._save_replay(algo)
            algo.save_to_path(str(partial / ALGORITHM))
            (partial / CURVE).write_text(json.dumps(list(curve)))
            files = {str(path.relative_to(partial)): sha256_of(path) for path in _files(partial)}
            manifest = {
                "schema_version": 1,
                "steps": int(algo.steps_done),
                "seconds": seconds,
                "replay": replay,
                "files": files,
            }
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
            for path in _files(partial):
                sync(path)
            sync(partial)
            _remove(target)
            partial.rename(target)
            sync(self.folder)
        except OSError as problem:
            shutil.rmtree(partial, ignore_errors=True)
            last = self.newest()
            kept = f"the last good one is {last.folder}" if last else "there is no earlier one"
            raise TrainingError(
                f"checkpoint at {algo.steps_done} steps could not be written: {problem.strerror or problem}; {kept}",
                field="output",
            ) from problem
        self._prune()
        return target

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are reported and passed over. None if there is none."""
        for folder in sorted(self._folders(), reverse=True):
            try:
                return self._read(folder)
            except (OSError, ValueError, KeyError) as problem:
                log.warning("checkpoint %s is passed over: %s", folder, problem)
        return None

    def restore(self, algo: Any, checkpoint: Checkpoint) -> None:
        """Continue ``algo`` from a checkpoint."""
        algo.restore_from_path(str(checkpoint.folder / ALGORITHM))
        if checkpoint.replay:
            parts = [np.load(self.folder / REPLAY / name) for name in checkpoint.replay["files"]]
            algo.replay.continue_from(np.concatenate(parts), int(checkpoint.replay["total"]))

    def _save_replay(self, algo: Any) -> dict[str, Any]:
        """Write what the replay has taken in since the last checkpoint; returns what restoring it takes."""
        if getattr(algo, "replay", None) is None:
            return {}
        algo.replay_apart = True
        total, folder = algo.replay.total, self.folder / REPLAY
        oldest = total - len(algo.replay)
        last = self._replay_of_last()
        names = [name for name in last.get("files", []) if _range(name)[1] > oldest]
        # A run that was continued from an older checkpoint goes its own way from there.
        since = max(int(last.get("total", 0)), oldest) if int(last.get("total", 0)) <= total else oldest
        if since == oldest:
            names = []
        if since < total:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{since:012d}-{total:012d}.npy"
            # Into memory first: to a full disk numpy itself does not say what is wrong.
            content = io.BytesIO()
            np.save(content, algo.replay.rows_since(since))
            write_bytes(path, content.getbuffer())
            sync(folder)
            names.append(path.name)
        return {
            "files": names,
            "total": total,
            "sha256": {name: sha256_of(folder / name) for name in names},
        }

    def _replay_of_last(self) -> Mapping[str, Any]:
        folders = sorted(self._folders())
        if not folders:
            return {}
        try:
            found: Mapping[str, Any] = json.loads((folders[-1] / MANIFEST).read_text())["replay"]
        except (OSError, ValueError, KeyError):
            # Damaged: the replay is then written as a whole.
            return {}
        return found

    def _read(self, folder: Path) -> Checkpoint:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, digest in manifest["files"].items():
            if sha256_of(folder / name) != digest:
                raise ValueError(f"{name} does not match its sha256")
        for name, digest in manifest["replay"].get("sha256", {}).items():
            if sha256_of(self.folder / REPLAY / name) != digest:
                raise ValueError(f"{REPLAY}/{name} does not match its sha256")
        return Checkpoint(
            folder=folder,
            steps=int(manifest["steps"]),
            seconds=float(manifest["seconds"]),
            curve=json.loads((folder / CURVE).read_text()),
            replay=manifest["replay"],
        )

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.is_dir() and path.name.isdigit()]

    def _prune(self) -> None:
        folders = sorted(self._folders())
        for folder in folders[:-KEPT]:
            shutil.rmtree(folder)
        needed: set[str] = set()
        for folder in folders[-KEPT:]:
            needed |= set(json.loads((folder / MANIFEST).read_text())["replay"].get("files", []))
        for path in (self.folder / REPLAY).glob("*"):
            if path.name not in needed:
                path.unlink()


def _range(name: str) -> tuple[int, int]:
    first, last = name.removesuffix(".npy").split("-")
    return int(first), int(last)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
