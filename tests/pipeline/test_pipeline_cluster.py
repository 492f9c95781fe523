"""The folder of a local Ray: what a killed command leaves, the next one removes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlaas.pipeline import cluster

_OWNER = """
import sys
from pathlib import Path
from rlaas.pipeline import cluster
cluster._FOLDERS = Path(sys.argv[1])
print(cluster._own_folder()[0], flush=True)
sys.stdin.read()
"""


def test_a_folder_is_removed_once_its_process_is_dead_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_FOLDERS", tmp_path)
    command = [sys.executable, "-c", _OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        (folder / "session").mkdir()
        cluster._remove_leftovers()
        assert (folder / "session").is_dir()
        owner.kill()
        owner.wait()
    cluster._remove_leftovers()
    assert not folder.exists()


def test_folders_of_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_FOLDERS", tmp_path)
    unknown, other = tmp_path / "rlaas-ray-unknown", tmp_path / "something"
    unknown.mkdir()
    other.mkdir()
    (other / "owner.lock").touch()
    mine, lock = cluster._own_folder()
    cluster._remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {"rlaas-ray-unknown", "something", Path(mine).name}
    os.close(lock)
