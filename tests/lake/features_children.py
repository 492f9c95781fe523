"""Run as a process: brings features in step again and again, and is killed inside a transaction at every step of it.

    python features_children.py <database> <lake> <events> <seed>

A copy of this process appends events, starts to bring the features in step, and kills itself with SIGKILL before the
n-th statement of the transaction, or behind its commit. Then the database is compared with what it was: nothing of the
step may be there, or all of it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

POINTS = 11


def dump(database: Path) -> list[Any]:
    """Everything in the tables that a step changes."""
    with sqlite3.connect(database) as connection:
        tables = ("feature_progress", "feature_values", "feature_states")
        found = [row for table in tables for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]
    connection.close()
    return found


def step(url: str, lake: Path, events: Path, seed: int, point: int) -> None:
    """Append events and bring the features in step; killed before statement ``point``, or at the end."""
    from deltalake import write_deltalake
    from support.feature_kit import event_table

    from rlaas.lake import Lake
    from rlaas.lake.features import FeatureStore, materialize

    rng = np.random.default_rng([seed, point])
    names = [f"c{i}" for i in rng.integers(0, 20, 200)]
    times = rng.integers(0, 10**9, 200)
    arrived = times + rng.integers(0, 10**8, 200)
    rows = list(zip(names, times.tolist(), arrived.tolist(), rng.normal(size=200).tolist(), strict=True))
    write_deltalake(str(events), event_table(rows), mode="append")
    store = FeatureStore(url)
    count = 0

    def statement(*_: Any) -> None:
        nonlocal count
        count += inside
        if inside and count > point:
            os.kill(os.getpid(), signal.SIGKILL)

    inside = 0
    begin = store.begin

    def counted() -> Any:
        nonlocal inside
        inside = 1
        return begin()

    store.begin = counted  # type: ignore[method-assign]
    sa.event.listen(store._engine, "before_cursor_execute", statement)
    sa.event.listen(store._engine, "commit", statement)
    materialize(store, Lake(lake))
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    # What a step needs is loaded once, and none of it is used here: Delta's threads do not live in a copy.
    from support.feature_kit import definition

    import rlaas.lake.features.materialization
    from rlaas.lake.features import FeatureState

    rlaas.lake.features.materialization.EventReader([definition()])
    for aggregate in ("last", "mean"):
        state = FeatureState(definition(transformation={"aggregate": aggregate}))
        state.feed(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1))
    database, lake, events = (Path(argument) for argument in sys.argv[1:4])
    finished = 0
    for point in range(POINTS):
        before = dump(database)
        child = os.fork()  # before this process has used Delta's threads
        if child == 0:
            step(f"sqlite:///{database}", lake, events, int(sys.argv[4]), point)
            os._exit(3)  # not reached
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"the step was not killed: {status}")
        if dump(database) != before:
            finished += 1
            if point < 6:
                sys.exit(f"killed before statement {point}, the database has changed")
    print(finished)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
