"""What a child process runs: the loop of a drift reconciler with a real trigger, until it is killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rlaas.control.drift import DriftLoop, DriftReconciler, ProcessTrigger
from rlaas.control.rollouts.lease import Lease
from rlaas.control.state import StateDatabase
from rlaas.lake import Lake
from rlaas.settings import load_settings

TTL_S = 0.5

if __name__ == "__main__":
    folder, stop_behind_claim = Path(sys.argv[1]), sys.argv[2] == "claim-and-hang"
    database = StateDatabase(f"sqlite:///{folder / 'state.db'}")
    script = (
        "import pathlib, sys, time; time.sleep(0.3); open(pathlib.Path(sys.argv[1]).parent / 'ran', 'a').write('x')"
    )
    trigger = ProcessTrigger(load_settings(home=folder), [sys.executable, "-c", script])
    if stop_behind_claim:
        real = trigger.request

        def hang(wanted: object) -> str:
            real(wanted)  # type: ignore[arg-type]
            print("claimed", flush=True)
            time.sleep(3600)
            return ""

        trigger.request = hang  # type: ignore[method-assign,assignment]
    reconciler = DriftReconciler(
        database,
        "default",
        Lake(folder / "lake"),
        trigger=trigger,
        lease=Lease(database, "drift/default", ttl_s=TTL_S),
    )
    loop = DriftLoop(reconciler, interval_s=0.05)
    loop.start()
    print("started", flush=True)
    while loop.running:
        time.sleep(0.05)
