"""A search by NSGA-III whose driver is killed proposes what an unbroken one would have."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tuning_kit import begin_tuning, kill_everything, searched

from rlaas.optimization.checkpoint import load_state
from rlaas.tuning import TuningConfig
from rlaas.tuning.figures import FINISHED
from rlaas.tuning.front_search import FIRST, FrontSearch
from rlaas.tuning.snapshots import newest_snapshot
from rlaas.tuning.space import values_of

METRICS = ("training_reward_near", "training_reward_mirror")
TRIALS = FIRST + 2


def _search(hold: Path, book: Path) -> TuningConfig:
    return searched(
        training={
            "scenario": "tuning_toys:HeldToy",
            "options": {"hold": str(hold), "book": str(book)},
            "steps": 1_024,
        },
        space={
            "learning_rate": {"kind": "loguniform", "low": 1e-4, "high": 1e-2},
            "gamma": {"kind": "uniform", "low": 0.1, "high": 0.9},
            "sac.updates_per_step": {"kind": "choice", "values": [0.05, 0.1, 0.2]},
        },
        objectives=list(METRICS),
        search="nsga3",
        trials=4,
        report_every=512,
    )


def _trials(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["trials"]
    return rows


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_killed_search_proposes_what_an_unbroken_one_would_have(tmp_path: Path) -> None:
    config, home, log, hold = (tmp_path / name for name in ("toy.yaml", "home", "log", "hold"))
    output = home / "tuning" / "toy"
    # A trial takes a quarter of a second, and Tune writes its state every half: the third trial waits for the kill.
    search = _search(hold, output / "trials.json")
    hold.touch()
    config.write_text(yaml.safe_dump(search.model_dump(mode="json", exclude_unset=True)))
    process = begin_tuning(["--config", str(config), "--json"], home, log)
    deadline = time.monotonic() + 240
    rows: list[dict[str, Any]] = []
    while sum(row["status"] == "finished" for row in rows) < 2 or all(row["status"] == "finished" for row in rows):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        snapshot = newest_snapshot(output / "state-search")
        if snapshot is not None:
            rows = _trials(snapshot / "trials.json")
        time.sleep(0.02)
    kill_everything(process.pid, str(home))
    process.wait(30)
    hold.unlink()

    resumed = begin_tuning(["--config", str(config), "--trials", str(TRIALS), "--resume", "--json"], home, log)
    assert resumed.wait(400) == 0, log.read_text()
    rows = _trials(output / "trials.json")
    assert [row["status"] for row in rows] == ["finished"] * TRIALS

    unbroken = FrontSearch(search.space, METRICS, ("max", "max"), seed=search.seed)
    for row in rows:
        suggested = unbroken.suggest(row["id"])
        assert isinstance(suggested, dict)
        assert values_of(suggested["point"]) == row["values"], f"trial {row['number']}"
        unbroken.on_trial_complete(row["id"], {**row["figures"], FINISHED: True})
    state = load_state(sorted((output / "search").glob("searcher-state-*.pkl"))[-1])
    assert state["running"] == []
    assert len(state["known"]) == TRIALS
    members = json.loads((output / "result.json").read_text())["found"]
    assert [member["name"] for member in members] == [f"pareto-{n + 1}" for n in range(len(members))]
