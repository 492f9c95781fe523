"""Logs of the toys as ``silver.transitions`` holds them, and lakes to put them into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from training_toys import Toy

from rlaas.lake import TABLES, Lake

SCHEMA = TABLES["silver.transitions"].schema


def logged(scenario: Toy, steps: int, seed: int = 0, **columns: Any) -> pa.Table:
    """What serving uniformly random actions to 8 sessions leaves behind; ``columns`` replace a column's value."""
    rng = np.random.default_rng(seed)
    env = scenario.vector_env(8, seed=seed)
    observation, _ = env.reset()
    rows: list[dict[str, Any]] = []
    ended = np.zeros(env.num_envs, dtype=bool)
    for step in range(steps):
        action = rng.integers(5, size=env.num_envs) if scenario.discrete else rng.uniform(-2, 2, (env.num_envs, 1))
        following, reward, terminated, truncated, _ = env.step(action)
        for i in np.flatnonzero(~ended):
            row = {
                "decision_id": f"d{seed}-{step:05d}-{i}",
                "tenant": "default",
                "date": "2026-01-02",
                "time_us": 1_767_312_000_000_000 + step,
                "scenario": scenario.name,
                "policy": "toy",
                "version": 1,
                "variant": "champion",
                "variant_propensity": 1.0,
                "action_propensity": 0.2 if scenario.discrete else float(np.log(0.5)),
                "session": f"s{i}",
                "step": step,
                "preference": None,
                "observation": observation[i].tolist(),
                "action": np.atleast_1d(action[i]).astype(float).tolist(),
                "outcome": [("near", float(reward[i, 0])), ("mirror", float(reward[i, 1]))],
                "revision": 0,
                # The last decision of a session has no successor.
                "next_observation": None if step == steps - 1 else following[i].tolist(),
                "terminated": bool(terminated[i]),
                "truncated": bool(truncated[i]),
            }
            rows.append(row | columns)
        ended = terminated | truncated
        observation = following
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def edited(table: pa.Table, row: int, **values: Any) -> pa.Table:
    """A table with one row's values replaced."""
    rows = table.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, schema=table.schema)


def lake_of(root: Path, *tables: pa.Table, name: str = "silver.transitions") -> Lake:
    """A lake whose table got one commit per given table."""
    for table in tables:
        write_deltalake(root / name.replace(".", "/"), table, mode="append", partition_by=["tenant", "date"])
    return Lake(root)
