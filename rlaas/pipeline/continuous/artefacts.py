"""Results of stages on disk: complete or not there, checked by their hashes before anybody builds on them.

Layout, below the root of one scenario::

    <stage>/<key>/              a finished result; ``manifest.json`` has the hash of every other file
    <stage>/<key>.work/         what an attempt has written so far
    <stage>/<key>.failed.json   why the last attempt ended
    <stage>/<key>.lock          held by whoever looks at or works on the key
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaas.errors import OperatorError
from rlaas.files import sha256_of, write_text
from rlaas.pipeline.continuous.fingerprints import differences, key_of
from rlaas.pipeline.continuous.locks import exclusive, try_exclusive

__all__ = ["Artefact", "ArtefactStore", "write_json"]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

_FIELDS = {"stage", "key", "inputs", "files", "digest", "metrics", "seconds", "finished_us"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A finished result.

    Attributes:
        stage: what made it.
        key: of its inputs.
        folder: where its files lie.
        inputs: what it was made from.
        digest: of the content of its files: equal digests, equal results.
        metrics: figures for people; not part of the content.
        seconds: wall time of the attempt that made it.
        finished_us: UTC microseconds.
    """

    stage: str
    key: str
    folder: Path
    inputs: Mapping[str, Any]
    digest: str
    metrics: Mapping[str, float]
    seconds: float
    finished_us: int

    def read(self, name: str) -> Any:
        """A JSON file of the result.

        Raises:
            OperatorError: it is not there, or no JSON.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise OperatorError(f"result of stage {self.stage}: {path} cannot be read: {problem}") from problem


class ArtefactStore:
    """The results of one scenario's pipeline.

    Args:
        root: folder of the scenario.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def lock(self, stage: str, key: str, waiting: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
        """Exclusive use of one key; see :func:`~rlaas.pipeline.continuous.locks.exclusive`."""
        return exclusive(self._beside(stage, key, ".lock"), waiting)

    def find(self, stage: str, key: str) -> tuple[Artefact | None, str | None]:
        """The result of a key, its files checked against their hashes.

        Returns:
            The result, or None; and what is wrong with the one that is there, or None.
        """
        folder = self.root / stage / key
        if not folder.is_dir():
            return None, None
        manifest = _manifest(folder)
        if manifest is None or manifest["key"] != key or key_of(manifest["inputs"]) != key:
            return None, f"{MANIFEST} is missing or damaged"
        wanted: dict[str, str] = manifest["files"]
        for name, digest in wanted.items():
            path = folder / name
            if not path.is_file():
                return None, f"{name} is missing"
            if sha256_of(path) != digest:
                return None, f"{name} is not as it was written"
        return _artefact(folder, manifest), None

    def nearest(self, stage: str, inputs: Mapping[str, Any]) -> list[str] | None:
        """How ``inputs`` differ from those of the most similar result of a stage (the newest of equals).

        None if there is no other result.
        """
        known = [(_manifest(folder), folder) for folder in self._results(stage)]
        changes = [
            (differences(manifest["inputs"], inputs), -int(manifest["finished_us"]))
            for manifest, _ in known
            if manifest is not None
        ]
        if not changes:
            return None
        return min(changes, key=lambda pair: (len(pair[0]), pair[1]))[0]

    def unfinished(self, stage: str, key: str) -> str | None:
        """Why the last attempt at a key left no result; None if there was none."""
        failed = self._beside(stage, key, ".failed.json")
        if failed.is_file():
            return str(json.loads(failed.read_text(encoding="utf-8"))["cause"])
        return "interrupted" if self._beside(stage, key, ".work").is_dir() else None

    def open_work(self, stage: str, key: str, *, keep: bool) -> Path:
        """The folder of an attempt: always the same for a key; empty unless ``keep``."""
        work = self._beside(stage, key, ".work")
        if work.exists() and not keep:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        return work

    def note_failure(self, stage: str, key: str, cause: str, attempts: int) -> None:
        """Keep why the last attempt failed, for whoever runs the pipeline next."""
        document = {"cause": cause, "attempts": attempts, "failed_us": time.time_ns() // 1000}
        write_json(self._beside(stage, key, ".failed.json"), document)

    def commit(
        self, stage: str, key: str, inputs: Mapping[str, Any], metrics: Mapping[str, float], seconds: float
    ) -> Artefact:
        """Turn the work folder of a key into its result, in one rename.

        What the power took before it reached the disk is noticed by its hash at the next look.
        """
        work, folder = self._beside(stage, key, ".work"), self.root / stage / key
        files = {
            path.relative_to(work).as_posix(): sha256_of(path)
            for path in sorted(work.rglob("*"))
            if path.is_file() and path != work / MANIFEST
        }
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "stage": stage,
            "key": key,
            "inputs": inputs,
            "files": files,
            "digest": key_of(files),
            "metrics": metrics,
            "seconds": seconds,
            "finished_us": time.time_ns() // 1000,
        }
        write_json(work / MANIFEST, manifest)
        if folder.exists():
            # A folder cannot be renamed over another one. A kill in between costs this result, never a half one.
            shutil.rmtree(folder)
        work.rename(folder)
        self._beside(stage, key, ".failed.json").unlink(missing_ok=True)
        return _artefact(folder, manifest)

    def prune(self, stage: str, keep: int) -> None:
        """Remove all but the newest ``keep`` results of a stage, and of attempts, that nobody is looking at."""
        for folders in (self._results(stage), [*(self.root / stage).glob("*.work")]):
            for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
                key = folder.name.removesuffix(".work")
                with try_exclusive(self._beside(stage, key, ".lock")) as free:
                    if free:
                        shutil.rmtree(folder)
                        self._beside(stage, key, ".failed.json").unlink(missing_ok=True)

    def _results(self, stage: str) -> list[Path]:
        return [path for path in (self.root / stage).glob("*") if path.is_dir() and path.suffix != ".work"]

    def _beside(self, stage: str, key: str, ending: str) -> Path:
        return self.root / stage / f"{key}{ending}"


def write_json(path: Path, document: Any) -> None:
    """Write JSON in one piece: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a result, or None where it is missing or not one of this version."""
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        return None
    return document if document.keys() >= _FIELDS else None


def _artefact(folder: Path, manifest: Mapping[str, Any]) -> Artefact:
    return Artefact(
        stage=manifest["stage"],
        key=manifest["key"],
        folder=folder,
        inputs=manifest["inputs"],
        digest=manifest["digest"],
        metrics=manifest["metrics"],
        seconds=manifest["seconds"],
        finished_us=manifest["finished_us"],
    )
