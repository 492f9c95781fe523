"""The runner on stages that only write files: what is cached, what runs, why, and what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pipeline_toys import Named, pipeline_config

from rlaas.errors import ConfigurationError, PipelineError, TrainingError
from rlaas.pipeline.continuous.artefacts import Artefact, ArtefactStore, write_json
from rlaas.pipeline.continuous.fingerprints import Room
from rlaas.pipeline.continuous.report import Observer, StageReport
from rlaas.pipeline.continuous.runner import plan_stages, run_stages
from rlaas.pipeline.continuous.stage import Context, Stage
from rlaas.pipeline.continuous.tracking import Tracker
from rlaas.settings import Settings

Work = Callable[[Context, Path], Mapping[str, float]]


class Small(Stage):
    """A stage put together by a test."""

    keeps_work = True

    def __init__(self, name: str, needs: Sequence[str] = (), work: Work | None = None, **inputs: Any) -> None:
        self.name, self.needs = name, tuple(needs)
        self.given, self.work, self.runs = inputs, work, 0
        self.held = True

    def inputs(self, context: Context) -> dict[str, Any]:
        return {"config": self.given}

    def rooms(self, context: Context) -> Iterable[Room]:
        return (Room("pipeline_toys"),)

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        self.runs += 1
        if self.work is not None:
            return self.work(context, folder)
        write_json(folder / "result.json", {"parity": self.given.get("value", 0) % 2})
        return {"value": float(self.given.get("value", 0)), "unknown": float("nan")}

    def outdated(self, context: Context, artefact: Artefact) -> str | None:
        return None if self.held else "the world moved on"


class Heard(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended: list[StageReport] = []

    def noted(self, stage: str, text: str) -> None:
        self.notes.append(f"{stage}: {text}")

    def finished(self, report: StageReport) -> None:
        self.ended.append(report)


class Bench:
    """Runs stages in one folder, each time with a fresh context, as another process would."""

    def __init__(self, settings: Settings, root: Path, **fields: Any) -> None:
        self.settings, self.store, self.fields = settings, ArtefactStore(root), fields
        self.heard = Heard()

    def context(self) -> Context:
        return Context(config=pipeline_config("small", **self.fields), settings=self.settings, scenario=Named("small"))

    def run(self, *stages: Stage, forced: Iterable[str] = ()) -> list[StageReport]:
        self.heard = Heard()
        tracker = Tracker(self.settings, "small", self.store.root)
        with tracker.pipeline({}):
            return run_stages(stages, self.context(), self.store, tracker, self.heard, forced=list(forced))

    def plan(self, *stages: Stage, forced: Iterable[str] = ()) -> list[tuple[str, str]]:
        return [
            (plan.outlook, plan.reason) for plan in plan_stages(stages, self.context(), self.store, forced=list(forced))
        ]


@pytest.fixture
def bench(settings: Settings, tmp_path: Path) -> Bench:
    return Bench(settings, tmp_path / "small")


def states(reports: Iterable[StageReport]) -> list[tuple[str, str]]:
    return [(report.status, report.reason) for report in reports]


def test_a_second_run_takes_every_result_and_a_change_makes_what_depends_on_it(bench: Bench) -> None:
    def pair(value: int) -> tuple[Small, Small]:
        return Small("data", value=value), Small("train", ["data"], steps=100)

    assert bench.plan(*pair(1)) == [
        ("run", "no earlier result"),
        ("open", "after data: runs unless the result is the same as before"),
    ]
    first = pair(1)
    assert states(bench.run(*first)) == [("run", "no earlier result")] * 2
    again = pair(1)
    assert bench.plan(*again) == [("cached", ""), ("cached", "")]
    reports = bench.run(*again)
    assert states(reports) == [("cached", ""), ("cached", "")]
    assert [stage.runs for stage in (*first, *again)] == [1, 1, 0, 0]
    assert reports[0].metrics == {"value": 1.0}, "what is not finite is left out"

    # Another input with the same result: what comes after does not run.
    reports = bench.run(*pair(3))
    assert states(reports) == [("run", "value changed (1 -> 3)"), ("cached", "")]
    reports = bench.run(*pair(2))
    assert states(reports) == [("run", "value changed (3 -> 2)"), ("run", "the result of data changed")]
    # Results of other inputs have stayed.
    assert states(bench.run(*pair(1))) == [("cached", ""), ("cached", "")]


def test_forcing_runs_a_stage_and_what_its_result_changes(bench: Bench) -> None:
    counter = iter(range(10))

    def counted(context: Context, folder: Path) -> Mapping[str, float]:
        write_json(folder / "result.json", next(counter))
        return {}

    def three() -> tuple[Small, ...]:
        return Small("data"), Small("train", ["data"], counted), Small("evaluate", ["train"])

    bench.run(*three())
    assert bench.plan(*three(), forced=["data"]) == [
        ("run", "asked for"),
        ("open", "after data: runs unless the result is the same as before"),
        ("open", "after train: runs unless the result is the same as before"),
    ]
    assert states(bench.run(*three(), forced=["data"])) == [("run", "asked for"), ("cached", ""), ("cached", "")]
    assert states(bench.run(*three(), forced=["train"])) == [
        ("cached", ""),
        ("run", "asked for"),
        ("run", "the result of train changed"),
    ]


def test_a_damaged_result_is_made_again_and_reported(bench: Bench) -> None:
    (report,) = bench.run(Small("data", value=1))
    (bench.store.root / "data" / report.key / "result.json").write_text("{}")
    (mended,) = bench.run(Small("data", value=1))
    assert states([mended]) == [("run", "the result on disk is damaged: result.json is not as it was written")]
    assert states(bench.run(Small("data", value=1))) == [("cached", "")]


def test_a_result_that_no_longer_holds_is_made_again(bench: Bench) -> None:
    bench.run(Small("register"))
    stage = Small("register")
    stage.held = False
    assert states(bench.run(stage)) == [("run", "the world moved on")]


def test_a_stage_is_tried_again_and_goes_on_where_it_was(bench: Bench) -> None:
    def flaky(context: Context, folder: Path) -> Mapping[str, float]:
        step = folder / "checkpoint"
        done = int(step.read_text()) if step.exists() else 0
        step.write_text(str(done + 1))
        if done < 1:
            raise TrainingError("a learner was lost")
        return {"attempts_seen": done}

    (report,) = bench.run(Small("train", work=flaky))
    assert (report.status, report.attempts, report.metrics) == ("run", 2, {"attempts_seen": 1.0})
    assert bench.heard.notes == ["train: attempt 1 of 2 failed: a learner was lost; again in 0 s"]


def test_a_stage_that_keeps_failing_stops_the_pipeline_and_the_next_run_goes_on_there(
    settings: Settings, tmp_path: Path
) -> None:
    bench = Bench(settings, tmp_path / "small", retries={"train": 2})
    broken = True

    def sometimes(context: Context, folder: Path) -> Mapping[str, float]:
        if broken:
            raise OSError("no space left\non the device")
        write_json(folder / "result.json", 1)
        return {}

    def three() -> tuple[Small, ...]:
        return Small("data", value=1), Small("train", ["data"], sometimes), Small("evaluate", ["train"])

    stages = three()
    with pytest.raises(PipelineError) as caught:
        bench.run(*stages)
    assert str(caught.value) == (
        "stage train failed after 3 attempts: OSError: no space left on the device; the results before it are kept: "
        "run the pipeline again to go on at train"
    )
    assert caught.value.field == "train"
    assert [stage.runs for stage in stages] == [1, 3, 0]
    assert [(r.name, r.status, r.attempts) for r in bench.heard.ended] == [("data", "run", 1), ("train", "failed", 3)]
    broken = False
    reports = bench.run(*three())
    assert states(reports) == [
        ("cached", ""),
        ("run", "goes on after the last attempt: OSError: no space left on the device"),
        ("run", "no earlier result"),
    ]


def test_a_wrong_request_is_not_tried_again(bench: Bench) -> None:
    def refuse(context: Context, folder: Path) -> Mapping[str, float]:
        raise ConfigurationError("hidden does not fit", field="hidden")

    stage = Small("train", work=refuse)
    with pytest.raises(PipelineError, match=r"^stage train failed: hidden does not fit; the results"):
        bench.run(stage)
    assert stage.runs == 1


def test_every_stage_is_an_mlflow_run_in_that_of_the_pipeline(bench: Bench, settings: Settings) -> None:
    from rlaas.registry.store import Store

    def fail(context: Context, folder: Path) -> Mapping[str, float]:
        raise ConfigurationError("no")

    bench.run(Small("data", value=1))
    with pytest.raises(PipelineError):
        bench.run(Small("data", value=1), Small("train", ["data"], fail))
    store = Store(settings)
    cached, failed = (store.call("get_run", report.run_id) for report in bench.heard.ended)
    parent = store.call("get_run", cached.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FAILED"
    assert failed.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (cached.info.status, cached.data.tags["status"]) == ("FINISHED", "cached")
    assert (failed.info.status, failed.data.tags["status"]) == ("FAILED", "failed")
    assert failed.data.tags["reason"] == "no"
    assert cached.data.params["key"] == bench.heard.ended[0].key
    assert cached.data.params["inputs.config"] == '{"value": 1}'
    assert cached.data.metrics["value"] == 1.0
    names = {entry.path for entry in store.call("list_artifacts", cached.info.run_id)}
    assert names == {"inputs.json", "result.json"}
