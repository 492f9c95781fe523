"""What the lake's crash tests run in processes of their own, to be killed there."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.lake_records import decisions


def produce(root: Path) -> None:
    """Append for ever; every line on stdout names a batch that was acknowledged."""
    from rlaas.lake.wal import WriteAheadLog

    log = WriteAheadLog(root, "decisions", "child", max_segment_bytes=200_000)
    batch = 0
    while True:
        log.append(decisions(f"b{batch}-", 50))
        os.write(1, f"{batch}\n".encode())
        batch += 1


def commit_until_step(root: Path, step: int) -> None:
    """Run the committer and die by SIGKILL just before its ``step``-th change of a file or a table."""
    from rlaas.lake import committer, segments, tables

    left = step

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*args, **kwargs)

        return wrapped

    tables.write_deltalake = dying(tables.write_deltalake)
    tables.DeltaTable.create = staticmethod(dying(tables.DeltaTable.create))
    segments.os.truncate = dying(os.truncate)
    for name in ("unlink", "rename", "rmdir"):
        setattr(Path, name, dying(getattr(Path, name)))
    committer.Committer(tables.Lake(root / "lake"), root / "wal").run_once()


def commit(root: Path) -> None:
    """Run the committer once."""
    from rlaas.lake.committer import Committer
    from rlaas.lake.tables import Lake

    Committer(Lake(root / "lake"), root / "wal").run_once()


def append(root: Path, first: int, writers: int, appends: int) -> None:
    """So many producers at once, each with a log of its own, each appending one record so many times."""
    from rlaas.lake.wal import WriteAheadLog

    def write(number: int) -> None:
        with WriteAheadLog(root, "decisions", f"w{number}", max_segment_bytes=4000) as log:
            for index in range(appends):
                log.append(decisions(f"w{number}-{index}-", 1))

    threads = [threading.Thread(target=write, args=(first + number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    produce(Path(sys.argv[1]))
