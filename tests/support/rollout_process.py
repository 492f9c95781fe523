"""What a child process runs: the loop of a controller until it is killed."""

from __future__ import annotations

import sys
import time

from rlaas.control.rollouts import GatewayReports, Lease, RolloutController, RolloutLoop
from rlaas.control.state import StateDatabase

TTL_S = 0.5
TICK_S = 0.1

if __name__ == "__main__":
    database = StateDatabase(sys.argv[1])
    controller = RolloutController(
        database,
        "default",
        reports=GatewayReports(database, "default"),
        lease=Lease(database, "rollouts/default", ttl_s=TTL_S),
    )
    loop = RolloutLoop(controller, interval_s=TICK_S)
    loop.start()
    print("started", flush=True)
    while loop.running:
        time.sleep(0.05)
