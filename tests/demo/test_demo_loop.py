"""The main job, as a user runs it: small budgets, real Ray, real HTTP, real Delta."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from support.processes import RLAAS, assert_gone, environment, free_port, interrupt, start, wait_for

from rlaas.lake import Lake
from rlaas.registry import Registry
from rlaas.scenarios import load
from rlaas.settings import load_settings

BUDGETS = {
    "network5g": ["--steps", "1500", "--generations", "2", "--traffic-steps", "200"],
    "recsys": ["--steps", "4000", "--generations", "2", "--traffic-steps", "60"],
}


@pytest.mark.ray
@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_the_whole_loop(name: str, tmp_path: Path) -> None:
    home, output = tmp_path / "home", tmp_path / "out"
    where = ["--output", str(output), "--port", str(free_port())]
    done = subprocess.run(
        [RLAAS, "demo", "--scenario", name, *BUDGETS[name], "--seed", "3", *where, "--json"],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((output / "summary.json").read_text())
    scenario = load(name)
    objectives = {o.name for o in scenario.objectives}

    assert summary["scenario"] == name
    assert summary["reference_hash"] == scenario.reference_hash
    assert summary["protocol"].startswith("short protocol")
    assert set(summary["resolved"]) == set(scenario.modes)
    for choice in summary["resolved"].values():
        assert set(choice["objectives"]) == objectives
        assert choice["why"]
    front = summary["front"]
    assert front["size"] == len(front["candidates"]) >= 1
    assert all(c["seeds"] >= 5 for c in front["candidates"])
    standing = {one["name"]: one["status"] for one in summary["race"]["standings"]}
    assert all(c["standing"] == standing[c["name"]] != "dominated" for c in front["candidates"])
    assert front["undecided"] == sum(c["standing"] == "undecided" for c in front["candidates"])
    assert {c["seeds"] for c in front["candidates"]} == {len(summary["race"]["seeds"])}
    assert front["hypervolume"] >= max(front["policies_hypervolume"], front["configurations_hypervolume"]) > 0
    assert front["baseline_hypervolume"] >= 0
    assert set(summary["targets"]) == objectives
    for target in summary["targets"].values():
        assert set(target) >= {"target", "value", "met"}

    # Nothing acknowledged is missing or doubled, by the demo's account and by our own count.
    for stream in ("decisions", "outcomes"):
        counts = summary[stream]
        assert counts["acknowledged"] == counts["in_bronze"] > 0
        assert counts["duplicates"] == 0
    lake = Lake(load_settings(home=home).lake_root)
    ids = lake.read("bronze.decisions", columns=["decision_id"]).column("decision_id").to_pylist()
    assert len(ids) == len(set(ids)) == summary["decisions"]["in_bronze"]
    silver = lake.read("silver.transitions", columns=["decision_id"]).column("decision_id").to_pylist()
    assert sorted(silver) == sorted(ids)
    assert summary["outcomes"]["sent"] > summary["outcomes"]["acknowledged"] >= summary["decisions"]["acknowledged"]

    experiment = summary["experiment"]
    assert set(experiment["arms"]) == {"champion", "challenger"}
    assert experiment["interval"][0] <= experiment["effect"] <= experiment["interval"][1]
    assert 0 <= experiment["p_value"] <= 1
    assert experiment["design"] == ("switchback" if name == "network5g" else "unit")

    registry = Registry(load_settings(home=home))
    policy = registry.get(name, summary["policy"]["version"])
    assert "candidate" in policy.aliases
    assert registry.get(name, "champion").version in (policy.version, summary["policy"]["champion_before"])
    assert registry.front(name, policy.version)["scenario"] == name
    for picture in ("front", "learning", "arms"):
        assert (output / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (output / f"{picture}.html").read_text()
    assert_gone(str(home))


@pytest.mark.ray
def test_ctrl_c_leaves_no_process_and_no_summary(tmp_path: Path) -> None:
    home, output, log = tmp_path / "home", tmp_path / "out", tmp_path / "log"
    process = start(
        ["demo", "--scenario", "support.toy:ToyScenario", "--steps", "2000000", "--output", str(output)], home, log
    )
    wait_for(process, log, "preference-conditioned")
    assert interrupt(process, signal.SIGINT) == 130, log.read_text()
    assert "interrupted" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not output.exists()
    assert_gone(str(home))
