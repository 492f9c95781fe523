"""The process of one retraining: ``python -m rlaas.control.drift.retraining FOLDER COMMAND...`` runs the command once.

However often it is started for a folder, the command runs in one of them: the first takes the lock and leaves a mark
before it begins, and all others end at once. ``exit`` in the folder holds the command's status when it has ended.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rlaas.files import write_text

__all__ = ["run_once"]


def run_once(folder: Path, command: Sequence[str]) -> int | None:
    """Run ``command`` unless it was begun for this folder before; its exit status, None if it was."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        mark = folder / "started"
        if mark.exists():
            return None
        write_text(mark, f"{os.getpid()}\n")
        status = subprocess.run(command, check=False).returncode
        write_text(folder / "exit", f"{status}\n")
        return status
    finally:
        os.close(handle)


if __name__ == "__main__":
    sys.exit(run_once(Path(sys.argv[1]), sys.argv[2:]) or 0)
