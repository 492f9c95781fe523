"""Results on disk: whole or not there, damage noticed, one at a time, locks that end with their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlaas.errors import OperatorError
from rlaas.pipeline.continuous import locks
from rlaas.pipeline.continuous.artefacts import Artefact, ArtefactStore
from rlaas.pipeline.continuous.fingerprints import key_of
from rlaas.pipeline.continuous.locks import exclusive, try_exclusive

INPUTS = {"config": {"size": 3}}
KEY = key_of(INPUTS)
# The module alone: the package around it takes seconds to import.
HOLD = f"""
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("locks", {locks.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "toy")


def made(store: ArtefactStore, inputs: dict[str, object] = INPUTS, text: str = "hello") -> Artefact:
    key = key_of(inputs)
    work = store.open_work("train", key, keep=False)
    (work / "inner").mkdir()
    (work / "inner" / "file.txt").write_text(text)
    (work / "figures.json").write_text('{"a": 1}')
    return store.commit("train", key, inputs, {"loss": 0.5}, 1.5)


def test_a_result_is_found_by_its_key_and_by_no_other(store: ArtefactStore) -> None:
    assert store.find("train", KEY) == (None, None)
    written = made(store)
    found, damage = store.find("train", KEY)
    assert (found, damage) == (written, None)
    assert written.read("figures.json") == {"a": 1}
    assert (written.folder / "inner" / "file.txt").read_text() == "hello"
    assert store.find("train", key_of({"config": {"size": 4}})) == (None, None)
    with pytest.raises(OperatorError, match=r"absent\.json cannot be read"):
        written.read("absent.json")


def test_the_digest_is_of_the_content_alone(store: ArtefactStore) -> None:
    first = made(store)
    assert made(store, {"config": {"size": 4}}).digest == first.digest
    assert made(store, {"config": {"size": 5}}, "other").digest != first.digest


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "inner" / "file.txt").write_text("hellO"), "inner/file.txt is not as it was written"),
        (lambda folder: (folder / "figures.json").unlink(), "figures.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is missing or damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing or damaged"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace('"size": 3', '"size": 9')
            ),
            "manifest.json is missing or damaged",
        ),
    ],
)
def test_damage_is_noticed_and_mended(store: ArtefactStore, damage: object, said: str) -> None:
    damage(made(store).folder)
    assert store.find("train", KEY) == (None, said)
    made(store)
    assert store.find("train", KEY)[1] is None


def test_what_was_not_finished_is_no_result_and_is_told(store: ArtefactStore) -> None:
    assert store.unfinished("train", KEY) is None
    (store.open_work("train", KEY, keep=False) / "checkpoint").write_text("half")
    assert store.find("train", KEY) == (None, None)
    assert store.unfinished("train", KEY) == "interrupted"
    assert (store.open_work("train", KEY, keep=True) / "checkpoint").read_text() == "half"
    assert not list(store.open_work("train", KEY, keep=False).iterdir())
    store.note_failure("train", KEY, "the loss became nan", 2)
    assert store.unfinished("train", KEY) == "the loss became nan"
    made(store)
    assert store.unfinished("train", KEY) is None


def test_the_nearest_result_says_what_changed(store: ArtefactStore) -> None:
    assert store.nearest("train", INPUTS) is None
    made(store, {"config": {"size": 3, "seed": 1}})
    made(store, {"config": {"size": 9, "seed": 9}})
    assert store.nearest("train", {"config": {"size": 3, "seed": 2}}) == ["seed changed (1 -> 2)"]


def test_only_the_newest_results_stay(store: ArtefactStore) -> None:
    results = [made(store, {"config": {"size": size}}) for size in range(4)]
    for age, result in enumerate(results):
        os.utime(result.folder, (age, age))
    with store.lock("train", results[0].key):
        store.prune("train", 2)
    # The oldest was being looked at.
    assert [result.folder.is_dir() for result in results] == [True, False, True, True]


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "some.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with try_exclusive(lock) as free:
            assert not free
        waited: list[str] = []

        def kill_it(pid: str) -> None:
            waited.append(pid)
            holder.send_signal(signal.SIGKILL)

        with exclusive(lock, kill_it):
            assert waited == [str(holder.pid)]
    finally:
        holder.kill()
        holder.wait(30)
        holder.stdout.close()
    with try_exclusive(lock) as free:
        assert free
