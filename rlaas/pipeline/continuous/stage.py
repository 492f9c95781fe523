"""What a stage is: a name, what its result depends on, and a function from that to a folder of files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rlaas.lake import Lake
from rlaas.pipeline.continuous.artefacts import Artefact
from rlaas.pipeline.continuous.config import PipelineConfig, StageName
from rlaas.pipeline.continuous.fingerprints import Room, code_fingerprint
from rlaas.registry import Registry
from rlaas.scenarios import Scenario
from rlaas.settings import Settings

__all__ = ["PROBLEM_ROOMS", "Context", "Progress", "Stage"]

Progress = Callable[[int, int, Mapping[str, float] | None], None]

PROBLEM_ROOMS = (Room("rlaas.objectives"), Room("rlaas.scenarios", deep=False), Room("rlaas.scenarios.compiled"))
"""Behind every scenario; its own package comes on top."""


@dataclass(kw_only=True)
class Context:
    """What a stage can ask for.

    Attributes:
        config: of the pipeline.
        settings: of the process.
        scenario: what the pipeline is about.
        artefacts: results of earlier stages, by stage.
        progress: of the stage that runs now.
        start_ray: makes sure that Ray runs until the pipeline ends; None where the caller has seen to it.
        resources: closed when the pipeline ends.
        run_id: MLflow run of the pipeline.
        stage_run_id: MLflow run of the stage that runs now.
        code: fingerprints of rooms taken so far, by room.
    """

    config: PipelineConfig
    settings: Settings
    scenario: Scenario
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    progress: Progress | None = None
    start_ray: Callable[[], AbstractContextManager[Any]] | None = None
    resources: ExitStack = field(default_factory=ExitStack)
    run_id: str = ""
    stage_run_id: str = ""
    code: dict[Room, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lake = Lake(self.settings.lake_root, self.settings.tenant)
        self.registry = Registry(self.settings)

    def ensure_ray(self) -> None:
        """Start Ray at the first call, if it is the pipeline's to start: a run from the cache needs none."""
        if self.start_ray is not None:
            self.resources.enter_context(self.start_ray())
            self.start_ray = None

    def fingerprints(self, rooms: Iterable[Room]) -> dict[str, str]:
        """Fingerprint of each room by name; taken once: what is edited while a pipeline runs is not what it runs."""
        wanted = list(rooms)
        for room in wanted:
            if room not in self.code:
                self.code[room] = code_fingerprint(room)
        return {room.name: self.code[room] for room in wanted}

    def scaled(self, first: int, last: int, total: int) -> Callable[..., None]:
        """Progress of one part of a stage, from ``first`` to ``last`` of ``total``."""

        def advance(done: int, of: int, metrics: Mapping[str, float] | None = None) -> None:
            if self.progress is not None:
                self.progress(first + (last - first) * done // max(1, of), total, metrics)

        return advance


class Stage(ABC):
    """One step of a pipeline.

    Attributes:
        name: as in the configuration.
        needs: earlier stages whose results are part of the inputs, where they were not skipped.
        keeps_work: a later attempt finds the folder as the last one left it, with its checkpoints.
    """

    name: ClassVar[StageName]
    needs: ClassVar[tuple[StageName, ...]] = ()
    keeps_work: ClassVar[bool] = False

    @abstractmethod
    def inputs(self, context: Context) -> dict[str, Any]:
        """Everything but code and earlier results that the result depends on, as plain JSON types.

        Groups at the top (``config``, ``lake``, ``libraries``, ``champion``) as
        :func:`~rlaas.pipeline.continuous.fingerprints.differences` words them.

        Raises:
            RlaasError: the stage cannot run under this configuration.
        """

    @abstractmethod
    def rooms(self, context: Context) -> Iterable[Room]:
        """The code that the result depends on."""

    @abstractmethod
    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write the result into ``folder``; returns figures for people.

        Raises:
            Exception: whatever went wrong; the runner tries again or gives up.
        """

    def skip(self, context: Context) -> str | None:
        """Why there is nothing to do here; None if there is."""
        return None

    def outdated(self, context: Context, artefact: Artefact) -> str | None:
        """Why a result does not hold although its inputs are the same; None if it does."""
        return None

    def lineage(self, context: Context, artefact: Artefact | None) -> dict[str, Any]:
        """Where the result comes from, for tags."""
        return {}
