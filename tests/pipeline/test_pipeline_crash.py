"""``kill -9`` in the middle of training, and two pipelines at once: nothing is lost, damaged or made twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline_logs import log_traffic

import rlaas
from rlaas.lake import Lake
from rlaas.pipeline.continuous import pipeline_folder
from rlaas.registry import Registry
from rlaas.registry.store import Store
from rlaas.settings import Settings

HERE = Path(__file__).parent
PATIENCE_S = 120


class Child:
    """A pipeline in a process of its own, and what it has said."""

    def __init__(self, name: str, settings: Settings, hold: Path, sockets: str) -> None:
        self.out, self.err = hold.with_name(f"{name}.out"), hold.with_name(f"{name}.err")
        path = os.pathsep.join([str(HERE), str(HERE.parent), str(Path(rlaas.__file__).parents[1])])
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "pipeline_child.py"), str(settings.home), str(hold), sockets],
                env={**environment, "PYTHONPATH": path},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def waits(self) -> bool:
        return "waits for process" in self.err.read_text()

    def report(self) -> dict[str, Any]:
        assert self.process.wait(PATIENCE_S) == 0, self.err.read_text()
        document: dict[str, Any] = json.loads(self.out.read_text())
        return document


def wait_until(reached: Callable[[], bool], *children: Child) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        for child in children:
            assert child.process.poll() is None, child.err.read_text()
            assert time.monotonic() < deadline, child.err.read_text()
        time.sleep(0.05)


@pytest.mark.ray
def test_a_killed_pipeline_goes_on_and_two_at_once_do_the_work_once(settings: Settings, tmp_path: Path) -> None:
    log_traffic(Lake(settings.lake_root), "held", 10)
    hold = tmp_path / "hold"
    reached = hold.with_suffix(".reached")
    hold.touch()
    sockets = tempfile.mkdtemp(prefix="rc", dir="/tmp")
    children = [Child("killed", settings, hold, sockets)]
    try:
        (killed,) = children
        wait_until(reached.exists, killed)
        killed.process.kill()
        killed.process.wait(30)
        root = pipeline_folder(settings, "held")
        (work,) = (root / "train").glob("*.work")
        # What a trainer leaves on its way is there for the next one.
        (work / "left_by_the_first").write_text("a checkpoint")
        (orphan,) = (root / "runs").iterdir()

        reached.unlink()
        both = [Child("one", settings, hold, sockets), Child("other", settings, hold, sockets)]
        children += both
        wait_until(lambda: reached.exists() and any(child.waits for child in both), *both)
        both.sort(key=lambda child: child.waits)
        trains, waits = both
        said = f"train waits for process {trains.process.pid}, which works on the same result"
        assert said in waits.err.read_text()
        hold.unlink()
        reports = [trains.report(), waits.report()]
    finally:
        hold.unlink(missing_ok=True)
        for child in children:
            child.process.kill()
            child.process.wait(30)
        shutil.rmtree(sockets, ignore_errors=True)

    first, other = ({stage["stage"]: stage for stage in report["stages"]} for report in reports)
    assert [first[name]["status"] for name in ("data", "validate", "train")] == ["cached", "cached", "run"]
    assert first["train"]["reason"] == "goes on after the last attempt: interrupted"
    assert other["train"]["status"] == "cached"
    assert other["train"]["key"] == first["train"]["key"]
    assert [report["policy"]["version"] for report in reports] == [1, 1]
    assert [version.version for version in Registry(settings).versions("held")] == [1]
    # Each result was made by exactly one of the two.
    for name in ("evaluate", "register"):
        assert sorted([first[name]["status"], other[name]["status"]]) == ["cached", "run"]
    folder = root / "train" / first["train"]["key"]
    assert (folder / "left_by_the_first").read_text() == "a checkpoint"
    assert not list((root / "train").glob("*.work"))

    store = Store(settings)
    runs = store.call("search_runs", [store.experiment()], f"tags.`mlflow.parentRunId` = '{orphan.name}'")
    states = {run.data.tags["mlflow.runName"]: run.info.status for run in runs}
    assert states == {"data": "FINISHED", "validate": "FINISHED", "train": "KILLED"}
    assert store.call("get_run", orphan.name).info.status == "KILLED"
    assert not list((root / "runs").iterdir())
