"""Drift on a real lake and a real state database, with a clock that the test moves and traffic that it makes up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from support.serving_kit import deployment

from rlaas.control.drift import DriftReconciler, DriftStore, Episode, RetrainRequest
from rlaas.control.rollouts.lease import Lease
from rlaas.control.state import StateDatabase
from rlaas.lake import Lake
from rlaas.lake.schemas import table_spec
from rlaas.monitoring import DriftConfig, Reference

__all__ = ["QUICK", "START_S", "Asked", "World", "decision_table", "outcome_table"]

START_S = 1_700_000_000
QUICK: dict[str, Any] = {
    "reference": Reference(learn_s=300, calibrate_s=300, cycle="none", lags=1),
    "arl_days": 100.0,
    "quiet_s": 60.0,
    "cool_down_s": 120.0,
}
RATE = 20
"""Decisions a second. Shifts are said in sigma of the one-second means, so that the rate does not matter."""


def _fill(table: str, rows: int, **values: Any) -> pa.Table:
    """Rows of a table: what is not given is null, or something of its type where it may not be."""
    schema = table_spec(table).schema
    blank = {pa.string(): "x", pa.int64(): 1, pa.float64(): 1.0, pa.bool_(): False}
    columns = []
    for column in schema:
        value = values.get(column.name)
        if value is None and column.nullable:
            columns.append(pa.nulls(rows, column.type))
        elif isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
            columns.append(pa.array(value, type=column.type))
        else:
            columns.append(pa.array([blank[column.type] if value is None else value] * rows, type=column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def decision_table(
    seconds: Sequence[int], rng: np.random.Generator, *, shift: float = 0.0, version: int = 1
) -> pa.Table:
    """RATE decisions of ``toy`` in each second: two features, of which the first may be shifted, and four actions."""
    n = len(seconds) * RATE
    at = np.repeat(np.asarray(seconds), RATE) * 1_000_000 + np.tile(np.arange(RATE) * (1_000_000 // RATE), len(seconds))
    x = rng.normal(size=(n, 2))
    x[:, 0] += shift / np.sqrt(RATE)
    return _fill(
        "bronze.decisions",
        n,
        tenant="default",
        date="2023-11-14",
        policy="toy",
        version=version,
        time_us=at,
        decision_id=[f"d{i}" for i in at],
        observation=x.tolist(),
        action=[[float(a)] for a in rng.integers(0, 4, n)],
    )


def outcome_table(seconds: Sequence[int], rng: np.random.Generator, *, shift: float = 0.0) -> pa.Table:
    """RATE outcomes of ``toy`` that arrive in each second."""
    n = len(seconds) * RATE
    at = np.repeat(np.asarray(seconds), RATE) * 1_000_000
    values = rng.normal(size=n) + shift / np.sqrt(RATE)
    return _fill(
        "bronze.outcomes",
        n,
        tenant="default",
        date="2023-11-14",
        policy="toy",
        decision_id=[f"d{i}" for i in range(n)],
        outcome=[[("latency", float(v))] for v in values],
        time_us=at,
        received_us=at,
    )


class Asked:
    """A trigger that keeps what it was asked, and begins each request once, as every trigger does."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.requests: list[RetrainRequest] = []
        self.problem = problem

    def request(self, wanted: RetrainRequest) -> str:
        self.requests.append(wanted)
        if self.problem is not None:
            raise self.problem
        return f"job {wanted.id}"

    @property
    def begun(self) -> set[str]:
        return {one.id for one in self.requests}


class World:
    """A lake, a state database in which ``toy`` is live in version 1, and everything that works on them."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder, self.url = folder, f"sqlite:///{folder / 'state.db'}"
        self.second, self.rng = START_S, np.random.default_rng(7)
        self.lake = Lake(folder / "lake")
        self.database = StateDatabase(self.url)
        self.database.write(deployment("toy", [{"name": "champion", "version": 1, "weight": 1}]))
        self.store = DriftStore(self.database, "default")
        self.trigger = Asked()
        self.reconciler = self.another()
        for table in ("bronze.decisions", "bronze.outcomes"):
            self.lake.open_or_create(table)
        self.configure(**config)

    def clock(self) -> int:
        return self.second * 1_000_000

    def configure(self, **config: Any) -> None:
        self.store.configure("toy", DriftConfig(**{**QUICK, **config}), self.clock())

    def another(self, **options: Any) -> DriftReconciler:
        """A reconciler, as in another process or after a restart."""
        options.setdefault("trigger", self.trigger)
        lease = Lease(self.database, "drift/default", holder=options.pop("holder", "first"), clock=self.clock)
        return DriftReconciler(self.database, "default", self.lake, lease=lease, clock=self.clock, **options)

    def traffic(self, seconds: int, *, shift: float = 0.0, version: int = 1, outcome_shift: float = 0.0) -> None:
        """Seconds pass, and the Committer has committed what happened in them."""
        span = range(self.second, self.second + seconds)
        decisions = decision_table(span, self.rng, shift=shift, version=version)
        write_deltalake(self.lake.open("bronze.decisions"), decisions, mode="append")
        outcomes = outcome_table(span, self.rng, shift=outcome_shift)
        write_deltalake(self.lake.open("bronze.outcomes"), outcomes, mode="append")
        self.second += seconds

    def learn(self) -> None:
        """Pass the time until the policy is watched."""
        self.reconciler.tick()
        for _ in range(3):
            self.traffic(230)
            self.reconciler.tick()
        watch = self.store.watch("toy")
        assert watch is not None
        assert watch.document["phase"] == "watching"

    def detect(self, seconds: int = 120, **traffic: Any) -> Episode:
        """Shifted traffic, second by second, until an episode is open."""
        for _ in range(seconds // 5):
            self.traffic(5, **{"shift": 4.0, **traffic})
            self.reconciler.tick()
            episode = self.store.open_episode("toy")
            if episode is not None:
                return episode
        raise AssertionError("nothing was detected")

    def promote(self, version: int) -> None:
        stored = self.database.of_policy("default", "toy")
        assert stored is not None
        assert stored.record is not None
        variants = [{"name": "champion", "version": version, "weight": 1}]
        self.database.write(deployment("toy", variants, generation=stored.generation + 1, updated_us=self.clock()))
