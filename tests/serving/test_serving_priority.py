from __future__ import annotations

import json
import os
import subprocess
import sys

from rlaas.serving.priority import BEHIND_SERVING

_CODE = """
import json, os, sys, threading
from rlaas.serving.priority import give_way

os.nice(int(sys.argv[1]))
stop = threading.Event()
before = threading.Thread(target=stop.wait)
before.start()
give_way()
after = threading.Thread(target=stop.wait)
after.start()
print(json.dumps([os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")]))
stop.set()
"""


def _niceness(nicer: int) -> list[int]:
    done = subprocess.run([sys.executable, "-c", _CODE, str(nicer)], check=True, capture_output=True, text=True)
    found: list[int] = json.loads(done.stdout)
    assert len(found) >= 3
    return found


def test_every_thread_gives_way_and_later_ones_too() -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert set(_niceness(0)) == {max(mine, BEHIND_SERVING)}


def test_a_process_that_is_nicer_stays_so() -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert set(_niceness(15)) == {min(mine + 15, 19)}
