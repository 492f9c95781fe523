"""Sessions of a small solved task in a real lake, logged by a version that explores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from support.bundles import policy_bundle
from support.solved_tasks import ACTIONS, STATES, SolvedTask

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.experiments.sequential_off_policy import SessionLog
from rlaas.lake import Lake
from rlaas.lake.joins import update_transitions
from rlaas.lake.records import DecisionRecord, OutcomeRecord
from rlaas.lake.rows import decision_rows, outcome_rows

__all__ = ["EPSILON", "SECOND_US", "greedy_task", "log_sessions", "task_bundles"]

SECOND_US = 1_000_000
EPSILON = 0.7
STATE_ROWS = np.eye(STATES, dtype=np.float32)


def task_bundles(root: Path) -> list[Path]:
    """Folders of versions 1 (explores), 2 (what the task rewards) and 3 (elsewhere in all states) of one policy."""
    folders = {
        seed: policy_bundle(root / str(seed), features=STATES, actions=ACTIONS, conditioned=False, seed=seed)
        for seed in range(1, 12)
    }
    choice = {seed: load_bundle(folder).act(STATE_ROWS)[0] for seed, folder in folders.items()}
    good = next(s for s in choice if s > 1 and any((choice[s] != choice[o]).all() for o in choice if o > 1))
    bad = next(s for s in choice if s > 1 and (choice[good] != choice[s]).all())
    return [folders[1], folders[good], folders[bad]]


def greedy_task(logging: BundlePolicy, good: BundlePolicy, judged: BundlePolicy) -> SolvedTask:
    """A reward of 1 with a chance of .9 where ``good`` would have acted so, else of .1; ``judged`` takes its mode."""
    drawn = SolvedTask.draw(3, most_ends=0.2)
    reward = np.full((STATES, ACTIONS), 0.1)
    reward[np.arange(STATES), good.act(STATE_ROWS)[0]] = 0.9
    return drawn._replace(
        reward=reward,
        logging=logging.probabilities(STATE_ROWS, epsilon=EPSILON),
        evaluation=judged.probabilities(STATE_ROWS, greedy=True),
    )


def log_sessions(
    lake: Lake, log: SessionLog, *, policy: str = "toy", seed: int = 0, start_us: int | None = None, **changes: Any
) -> None:
    """Put a log into the lake; all sessions run at once, a step a second. ``changes`` map a row to its own value."""
    begin = time.time_ns() // 1000 - 3600 * SECOND_US if start_us is None else start_us
    columns = {
        name: np.asarray(getattr(log, name))
        for name in SessionLog.__dataclass_fields__
        if getattr(log, name) is not None
    }
    decisions, outcomes = [], []
    for index in range(len(columns["reward"])):
        row = {name: values[index] for name, values in columns.items()}
        name = f"{policy}-{seed}-{index}"
        time_us = begin + int(row["step"]) * SECOND_US + int(row["session"])
        common = {"tenant": "default", "producer": "kit"}
        document = {
            "receipt_id": name,
            "decision_id": name,
            "time_us": time_us,
            "scenario": "toy",
            "policy": policy,
            "version": 1,
            "variant": "champion",
            "variant_propensity": 1.0,
            "observation": row["features"].astype(float).tolist(),
            "action": [float(row["action"])],
            "generation": 1,
            "action_propensity": float(row["propensity"]),
            "session": f"{seed}/{row['session']:06d}",
            "step": int(row["step"]),
            **common,
        }
        document |= {key: value(row) if callable(value) else value for key, value in changes.items()}
        decisions.append(DecisionRecord(**document))
        outcomes.append(
            OutcomeRecord(
                receipt_id=f"o-{name}",
                outcome_id=f"o-{name}",
                decision_id=name,
                outcome={"throughput": float(row["reward"]), "latency": 5.0},
                terminated=bool(row["terminated"]),
                time_us=time_us,
                received_us=time_us,
                policy=policy,
                **common,
            )
        )
    part = f"kit-{policy}-{seed}"
    lake.append_once("bronze.decisions", {part: [(1, lambda: decision_rows(decisions))]})
    lake.append_once("bronze.outcomes", {part: [(1, lambda: outcome_rows(outcomes))]})
    update_transitions(lake)
