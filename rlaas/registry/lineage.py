"""Where a policy comes from: the commit of the code, and what its bundle says of itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["COMMIT_TAG", "LINEAGE_PREFIX", "as_text", "git_commit", "lineage_tags"]

LINEAGE_PREFIX = "lineage."
COMMIT_TAG = "mlflow.source.git.commit"  # the tag under which MLflow's own pages show a commit

_GIT_TIMEOUT_S = 10.0


def git_commit(folder: Path | str | None = None) -> str | None:
    """Commit that is checked out in a work tree.

    Args:
        folder: a folder inside the work tree; by default the working directory of the process.

    Returns:
        The full hash; None outside a work tree, before its first commit, or without git.
    """
    command = ["git", "-C", str(folder or Path.cwd()), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def as_text(value: object) -> str:
    """A tag or parameter value: text as it is, everything else as JSON (sorted keys, so that equal means equal)."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def lineage_tags(lineage: Mapping[str, Any]) -> dict[str, str]:
    """Tags for what a bundle says of its origin (``lineage.seed``, ``lineage.reference_hash`` and so on).

    The commit is the bundle's own (``git_commit``); only a bundle without one gets that of the registering process.
    """
    tags = {f"{LINEAGE_PREFIX}{key}": as_text(value) for key, value in lineage.items() if value is not None}
    commit = lineage.get("git_commit") or git_commit()
    if commit is not None:
        tags[COMMIT_TAG] = str(commit)
    return tags
