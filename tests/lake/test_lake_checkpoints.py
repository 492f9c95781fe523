"""What opening a table costs: every commit since its last checkpoint is read, each on a thread of its own."""

from __future__ import annotations

import json
from pathlib import Path

from support.lake_records import decisions, names

from rlaas.lake import Committer, Lake, WriteAheadLog, verify

_COMMITS = 45
_BETWEEN = 20


def test_few_commits_lie_behind_the_last_checkpoint(tmp_path: Path) -> None:
    committer = Committer(Lake(tmp_path / "lake"), tmp_path / "wal")
    farthest = 0
    with WriteAheadLog(committer.wal_root, "decisions", "gateway") as log:
        for number in range(_COMMITS):
            log.append(decisions(f"d{number}_", 2))
            log.seal()
            assert committer.run_once().decisions == 2
            version = committer.lake.version("bronze.decisions")
            assert version is not None
            (pointer,) = tmp_path.rglob("_last_checkpoint") if version >= _BETWEEN else (None,)
            checkpoint = json.loads(pointer.read_text())["version"] if pointer else 0
            farthest = max(farthest, version - checkpoint)
    assert farthest <= _BETWEEN
    wanted = [name for number in range(_COMMITS) for name in names(f"d{number}_", 2)]
    assert verify(committer.lake, decisions=wanted).exactly_once
