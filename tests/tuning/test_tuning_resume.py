"""A search whose driver is killed goes on where it was."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState
from tuning_kit import begin_tuning, kill_everything, searched

from rlaas.errors import ConfigurationError, OperatorError
from rlaas.tuning.book import Book
from rlaas.tuning.snapshots import Snapshots, check_resumed, install_snapshot, newest_snapshot


def _trials(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads(path.read_text())["trials"]}


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_killed_search_resumes_without_repeating_itself(tmp_path: Path) -> None:
    config, home = tmp_path / "toy.yaml", tmp_path / "home"
    document = searched(training={"steps": 5_000}, trials=3).model_dump(mode="json", exclude_unset=True)
    config.write_text(yaml.safe_dump(document))
    output, log = home / "tuning" / "toy", tmp_path / "log"
    process = begin_tuning(["--config", str(config), "--json"], home, log)
    deadline = time.monotonic() + 240
    snapshot, before = None, {}
    # One trial over, and another under way that a snapshot knows of.
    while not (
        any(row["status"] == "finished" for row in before.values())
        and any(row["status"] == "running" and len(row["reports"]) >= 2 for row in before.values())
    ):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        snapshot = newest_snapshot(output / "state-search")
        if snapshot is not None:
            before = _trials(snapshot / "trials.json")
        time.sleep(0.02)
    kill_everything(process.pid, str(home))
    process.wait(30)
    snapshot = newest_snapshot(output / "state-search")
    assert snapshot is not None
    before = _trials(snapshot / "trials.json")
    # Tune's own copies may be anything after a kill: half a file is what it would stumble over.
    for state in (output / "search").glob("experiment_state-*.json"):
        state.write_text(state.read_text()[:100])

    resumed = begin_tuning(["--config", str(config), "--trials", "4", "--resume", "--json"], home, log)
    assert resumed.wait(240) == 0, log.read_text()
    text = log.read_text()
    result = json.loads(text[text.index("{") :])
    assert result["trials"] == {"finished": 4}, "the resumed search was given one more"
    after = _trials(output / "trials.json")
    assert list(after)[: len(before)] == list(before), "the same trials"
    for name, row in before.items():
        assert after[name]["values"] == row["values"]
        # What was trained anew took other seconds: nothing of a trial that was over, and of one under way at most the
        # report whose checkpoint was not on the disk yet. It says the same again, bit for bit.
        safe = len(row["reports"]) - (row["status"] != "finished")
        assert after[name]["reports"][:safe] == row["reports"][:safe]
        for old, new in zip(row["reports"], after[name]["reports"], strict=False):
            assert {**old, "seconds": None} == {**new, "seconds": None}
    assert [len(row["reports"]) for row in after.values()] == [5] * 4
    searcher = pickle.loads(sorted((output / "search").glob("searcher-state-*.pkl"))[-1].read_bytes())
    told = [(t.state, t.value) for t in searcher["_ot_study"].trials]
    assert told == [(TrialState.COMPLETE, row["figures"]["training_reward"]) for row in after.values()]
    best = max(after.values(), key=lambda row: row["figures"]["training_reward"])
    assert result["found"][0]["values"] == best["values"]
    _check_mlflow(home, result, after)


def _check_mlflow(home: Path, result: dict[str, Any], after: dict[str, dict[str, Any]]) -> None:
    from rlaas.registry import Store
    from rlaas.settings import load_settings

    store = Store(load_settings(home=home))
    runs = {run.info.run_id: run for run in store.call("search_runs", [store.experiment()])}
    assert runs.pop(result["mlflow_run_id"]).info.status == "FINISHED"
    known = {row["mlflow_run_id"] for row in after.values()}
    assert known <= set(runs)
    assert all(runs[run_id].info.status == "FINISHED" for run_id in known)
    lost = set(runs) - known  # begun after the last snapshot
    assert all(runs[run_id].info.status == "KILLED" for run_id in lost)


class _Storage:
    def __init__(self, root: Path, trial: str) -> None:
        self.experiment_driver_staging_path = str(root / "staging")
        self.trial_fs_path = str(root / trial)


class _Checkpoint:
    def __init__(self, path: Path) -> None:
        self.path = str(path)


class _Trial:
    def __init__(self, root: Path, name: str, *, finished: bool, wants: str | None) -> None:
        self.trial_id, self.config = name, {"point": {}}
        self.storage, self._finished = _Storage(root, name), finished
        self.checkpoint = None if wants is None else _Checkpoint(root / wants)

    def is_finished(self) -> bool:
        return self._finished


class _Scheduler:
    def save(self, path: str) -> None:
        Path(path).write_text("rungs")


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    staging = tmp_path / "staging"
    staging.mkdir()
    for name in ("experiment_state-S.json", "searcher-state-S.pkl", "search_gen_state-S.json"):
        (staging / name).write_text(name)
    (staging / "experiment_state-OLD.json").write_text("of an earlier session")
    os.utime(staging / "experiment_state-OLD.json", (1, 1))
    return tmp_path


def _touch(staged: Path, book: Book, text: str) -> None:
    state = staged / "staging" / "experiment_state-S.json"
    stamp = state.stat().st_mtime_ns
    state.write_text(text)
    os.utime(state, ns=(stamp + 1_000, stamp + 1_000))
    book.write()


def test_a_snapshot_is_complete_and_of_one_moment(staged: Path) -> None:
    book = Book(staged / "confirmation.json", [])
    trial = _Trial(staged, "a", finished=False, wants=None)
    book.record(trial)
    snapshots = Snapshots(staged / "state", book, _Scheduler())
    assert newest_snapshot(staged / "state") is None
    for number in range(4):
        _touch(staged, book, f"state {number}")
        snapshots.take([trial])
        snapshots.take([trial])  # nothing new: nothing is written
    kept = sorted(path.name for path in (staged / "state").iterdir())
    assert kept == ["00000003", "00000004"]
    (staged / "state" / "00000005.partial").mkdir()  # a driver that died while it wrote
    newest = newest_snapshot(staged / "state")
    assert newest is not None
    assert newest.name == "00000004"
    assert sorted(path.name for path in newest.iterdir()) == [
        "experiment_state-S.json",
        "scheduler.pkl",
        "search_gen_state-S.json",
        "searcher-state-S.pkl",
        "trials.json",
    ]
    assert (newest / "experiment_state-S.json").read_text() == "state 3"
    _touch(staged, book, "state 4")
    Snapshots(staged / "state", book, None).take([trial])
    assert newest_snapshot(staged / "state") == staged / "state" / "00000005"


def test_a_snapshot_takes_the_place_of_what_tune_left(staged: Path) -> None:
    book = Book(staged / "trials.json", [])
    trial = _Trial(staged, "a", finished=False, wants=None)
    book.record(trial)
    _touch(staged, book, "good")
    Snapshots(staged / "state", book, None).take([trial])
    experiment = staged / "search"
    experiment.mkdir()
    (experiment / "experiment_state-Z.json").write_text("half a fi")
    snapshot = newest_snapshot(staged / "state")
    assert snapshot is not None
    install_snapshot(snapshot, experiment)
    assert [path.read_text() for path in experiment.glob("experiment_state-*.json")] == ["good"]
    assert not (experiment / "trials.json").exists()
    shutil.rmtree(experiment)
    with pytest.raises(OperatorError, match="is gone"):
        install_snapshot(snapshot, experiment)


def test_checkpoints_go_once_no_snapshot_needs_them(staged: Path) -> None:
    for name in ("going", "over"):
        for number in range(5):
            (staged / name / f"checkpoint_{number:06d}").mkdir(parents=True)
    trials = [
        _Trial(staged, "going", finished=False, wants="going/checkpoint_000000"),
        _Trial(staged, "taker", finished=False, wants="over/checkpoint_000001"),
        _Trial(staged, "over", finished=True, wants="over/checkpoint_000004"),
    ]
    book = Book(staged / "trials.json", [])
    _touch(staged, book, "new")
    Snapshots(staged / "state", book, None).take(trials)
    left = sorted(path.relative_to(staged).as_posix() for path in staged.glob("*/checkpoint_*"))
    assert left == [f"going/checkpoint_00000{n}" for n in (0, 2, 3, 4)] + ["over/checkpoint_000001"]


def test_a_search_that_tune_began_anew_is_stopped(tmp_path: Path) -> None:
    check_resumed({"a"}, [_Trial(tmp_path, "a", finished=True, wants=None)])
    with pytest.raises(ConfigurationError, match="2 of its trials are missing"):
        check_resumed({"a", "b", "c"}, [_Trial(tmp_path, "a", finished=True, wants=None)])
