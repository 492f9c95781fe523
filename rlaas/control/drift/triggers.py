"""How a retraining is begun. Whoever asks may be killed and ask again, so a request has an id and is done once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlaas.errors import InvalidInputError
from rlaas.settings import Settings

__all__ = ["ProcessTrigger", "RetrainRequest", "RetrainTrigger", "pipeline_file"]

_PIPELINE = "from rlaas.cli import main; main()"


@dataclass(frozen=True, slots=True)
class RetrainRequest:
    """A retraining that an episode asks for.

    Attributes:
        id: the same for every time that it is asked for.
        model: policy that has drifted.
        episode: number of the episode.
        pipeline: file that says what to run, relative to the home of the platform.
    """

    id: str
    model: str
    episode: int
    pipeline: str


class RetrainTrigger(Protocol):
    """Begins retrainings."""

    def request(self, wanted: RetrainRequest) -> str:
        """Begin it unless it has been begun; returns at once.

        Returns:
            What to look for: a job or a folder.

        Raises:
            RequestError: it can never be begun.
            RlaasError: not now.
        """


def pipeline_file(settings: Settings, path: str) -> Path:
    """The file that a configuration names; only one below the home, as whoever reaches the port may configure.

    Raises:
        InvalidInputError: there is no such file.
    """
    home = settings.home.resolve()
    try:
        file = (home / path).resolve()
        if file.is_relative_to(home) and file.is_file():
            return file
    except (OSError, ValueError):  # longer than a path may be, or with a zero in it
        pass
    raise InvalidInputError(f"pipeline {path!r} is no file below the home of the platform", field="pipeline")


class ProcessTrigger:
    """Runs ``rlaas pipeline --config FILE`` in a process of its own, which outlives this one.

    A folder for each request holds its log; a lock in it keeps two processes from running the same request.

    Args:
        settings: of the installation.
        command: what is run instead, in front of the name of the file.
    """

    def __init__(self, settings: Settings, command: Sequence[str] | None = None) -> None:
        self._settings = settings
        self._command = tuple(command or (sys.executable, "-c", _PIPELINE, "pipeline", "--config"))

    def request(self, wanted: RetrainRequest) -> str:
        """See :class:`RetrainTrigger`.

        Raises:
            InvalidInputError: there is no such file.
        """
        file = pipeline_file(self._settings, wanted.pipeline)
        folder = self._settings.home / "retrains" / self._settings.tenant / wanted.id
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [sys.executable, "-m", "rlaas.control.drift.retraining", str(folder), *self._command, str(file)]
        # A cluster of its own: the platform's has its processors in use.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment["RLAAS_HOME"] = str(self._settings.home)
        with (folder / "log.txt").open("ab") as log:
            subprocess.Popen(
                arguments, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return str(folder)
