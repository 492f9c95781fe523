"""The commit of a real work tree, and the tags that say where a bundle comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rlaas.registry import git_commit
from rlaas.registry.lineage import lineage_tags


@pytest.fixture
def work_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "tree"
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def commit(folder: Path) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(
        ["git", "-C", str(folder), *identity, "commit", "--quiet", "--allow-empty", "--no-verify", "-m", "x"],
        check=True,
    )


def test_the_commit_of_a_work_tree(work_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_commit(work_tree) is None, "before the first commit there is none"
    commit(work_tree)
    head = (work_tree / ".git" / (work_tree / ".git" / "HEAD").read_text().split()[1]).read_text().strip()
    (work_tree / "inner").mkdir()
    monkeypatch.chdir(work_tree / "inner")
    assert git_commit() == git_commit(work_tree) == head
    assert len(head) == 40


def test_no_commit_outside_a_work_tree_or_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "missing") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


def test_the_bundles_own_commit_counts_before_that_of_the_process(
    work_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(work_tree)
    monkeypatch.chdir(work_tree)
    assert lineage_tags({"git_commit": "f" * 40, "seed": 3, "parent": None, "lake": {"b": 1, "a": 2}}) == {
        "lineage.git_commit": "f" * 40,
        "lineage.seed": "3",
        "lineage.lake": '{"a": 2, "b": 1}',
        "mlflow.source.git.commit": "f" * 40,
    }
    assert lineage_tags({}) == {"mlflow.source.git.commit": git_commit()}
