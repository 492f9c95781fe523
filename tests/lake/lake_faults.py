"""Processes that die at a chosen change of a file (``fault_shim.c``): what runs in them, and how a test starts them.

    python lake_faults.py

reads orders, one JSON document a line, does each in a fork of its own and answers with the status that it ended with.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DIED = 66
"""Exit status of a process that died where it was told to."""


def commit(root: Path) -> None:
    """Run the committer once, with everything flushed to disk."""
    from rlaas.lake import Committer, Lake

    Committer(Lake(root / "lake"), root / "wal", fsync=True).run_once()


def join(root: Path) -> None:
    """Bring the transitions up to date."""
    from rlaas.lake import Lake, update_transitions

    update_transitions(Lake(root / "lake"))


def produce(root: Path) -> None:
    """Write batches in several segments; the file ``acknowledged``, outside of the root, names those that are safe."""
    from support.lake_records import decisions

    from rlaas.lake import WriteAheadLog

    told = os.open(f"{root}.acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with WriteAheadLog(root / "wal", "decisions", "gateway", max_segment_bytes=1000, fsync=True) as log:
        for batch in range(4):
            log.append(decisions(f"b{batch}-", 2))
            os.write(told, f"{batch}\n".encode())
            if batch == 2:
                log.seal()


def serve() -> None:
    """Do what is ordered until there are no more orders."""
    import rlaas.lake.committer
    import rlaas.lake.joins  # noqa: F401  (so that a child costs a fork, not an import of Delta)

    shim = ctypes.CDLL(None)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            root = order["root"]
            shim.fault_arm(f"{root}/".encode(), order["at"], int(order["torn"]))
            globals()[order["what"]](Path(root))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class Faults:
    """Starts such processes."""

    def __init__(self, orders: subprocess.Popen[str]) -> None:
        self._orders = orders

    def run(self, what: str, root: Path, *, at: int, torn: bool) -> bool:
        """Do something to a folder and die at the ``at``-th change in it; whether it came so far."""
        assert self._orders.stdin is not None
        assert self._orders.stdout is not None
        order: dict[str, Any] = {"what": what, "root": str(root), "at": at, "torn": torn}
        self._orders.stdin.write(json.dumps(order) + "\n")
        self._orders.stdin.flush()
        status = int(self._orders.stdout.readline())
        assert status in (0, DIED)
        return status == DIED


def compiler() -> str | None:
    """A C compiler, if the machine has one."""
    return shutil.which("cc") or shutil.which("gcc")


@contextmanager
def faults(folder: Path) -> Iterator[Faults]:
    """The means to start processes that die, with the library that makes them do so built in ``folder``."""
    library = folder / "fault_shim.so"
    source = Path(__file__).with_name("fault_shim.c")
    build = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(build, check=True)
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(Path(__file__).parent.parent)},
    ) as orders:
        yield Faults(orders)
        assert orders.stdin is not None
        orders.stdin.close()
        assert orders.wait(timeout=30) == 0


if __name__ == "__main__":
    serve()
