"""Experiments from a real lake to the result page."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.experiment_kit import START_US, Traffic, World

from rlaas.control.experiments.store import Analysis, AnalysisRows
from rlaas.errors import ConflictError

SEEDS = (1, 2, 3, 4, 5)
TIMING = {"window_s": 600.0, "lateness_s": 120.0}
RICH = {
    "primary": {"kind": "mean", "name": "revenue", "value": "throughput", "cuped": "before", **TIMING},
    "secondary": [
        {"kind": "ratio", "name": "per_order", "numerator": "throughput", "denominator": "orders", **TIMING},
        {"kind": "proportion", "name": "bought", "value": "orders", **TIMING},
    ],
    "guardrails": [
        {
            "metric": {
                "kind": "quantile",
                "name": "slow",
                "value": "latency",
                "quantile": 0.9,
                "better": "lower",
                **TIMING,
            },
            "margin": 0.5,
        }
    ],
}


def analysed(folder: Path, seed: int, *, units: int = 1500, **options: Any) -> tuple[World, Traffic, dict[str, Any]]:
    changes = options.pop("changes", {})
    world = World(folder, **changes)
    traffic = Traffic(world.parsed, seed, **options)
    traffic.make(units)
    world.commit_until(traffic, 0, traffic.end_us)
    return world, traffic, world.run(traffic.end_us)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lift_is_found_with_its_size_and_corrections_change_nothing(tmp_path: Path, seed: int) -> None:
    world, traffic, result = analysed(tmp_path, seed, lift=1.5, units=1200, changes=RICH)
    revenue = result["metrics"]["revenue"]["treatments"]["B"]
    standing = revenue["always_valid"]
    # Two decisions a unit on average, nine of ten reported, three of a hundred of those too late.
    truth = 1.5 * 2 * 0.9 * 0.97
    assert standing["low"] < truth < standing["high"]
    assert standing["low"] > 0
    assert revenue["p_value"] < 0.05
    assert result["metrics"]["revenue"]["best"]["B"]["probability"] > 0.99
    per_order = result["metrics"]["per_order"]["treatments"]["B"]["always_valid"]
    assert per_order["low"] < 1.5 < per_order["high"]
    assert result["guardrails"][0]["verdict"] == "passed"
    assert not result["split"]["alarm"]
    assert result["recommendation"]["words"] == "ship B"
    assert len(result["metrics"]["revenue"]["looks"]) > 10
    assert sum(result["exposure"]["units"].values()) == 1200
    assert result["audit"]["revenue"] > 0  # those after their time
    world.commit([], traffic.corrections)
    later = world.run(traffic.end_us + 1)
    assert later["audit"]["revenue"] == result["audit"]["revenue"] + len(traffic.corrections)
    records = [one for one in world.store.audit("exp") if one["metric"] == "revenue"]
    assert [one["reason"] for one in records[-len(traffic.corrections) :]] == ["late outcome"] * len(
        traffic.corrections
    )
    for page in (result, later):
        page.pop("audit")
        page.pop("time_us")
        page["planned"].pop("expected_end_us")
    assert later == result


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_found_where_nothing_is(tmp_path: Path, seed: int) -> None:
    _, traffic, result = analysed(tmp_path, seed, changes=RICH)
    revenue = result["metrics"]["revenue"]["treatments"]["B"]
    assert revenue["always_valid"]["low"] < 0 < revenue["always_valid"]["high"]
    assert revenue["p_value"] > 0.05
    assert not result["split"]["alarm"]
    assert result["recommendation"]["action"] == "keep running"
    assert "no difference" in result["recommendation"]["reason"]
    # At the pace of the slower variant so far.
    least = min(result["exposure"]["units"].values())
    wait = round((TIMING["window_s"] + TIMING["lateness_s"]) * 1e6)
    expected = START_US + (traffic.end_us - START_US) * 1000 / least + wait
    assert result["planned"]["expected_end_us"] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_broken_split_is_raised_and_no_winner_named(tmp_path: Path, seed: int) -> None:
    _, _, result = analysed(tmp_path, seed, lift=1.5, steer=0.3)
    assert result["split"]["alarm"]
    assert result["recommendation"]["words"] == "stop: broken split"
    assert "not split as planned" in result["recommendation"]["reason"]


@pytest.mark.parametrize("seed", SEEDS)
def test_many_runs_with_restarts_give_the_bits_of_one(tmp_path: Path, seed: int) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    _, traffic, once = analysed(tmp_path / "one", seed, units=600, lift=0.5, changes=RICH)
    world = World(tmp_path / "many", **RICH)
    rng = np.random.default_rng(seed)
    cuts = [0, *sorted(rng.integers(START_US, traffic.end_us, 6).tolist()), traffic.end_us]
    result: dict[str, Any] = {}
    for first, last in pairwise(cuts):
        world.commit_until(traffic, first, last)
        result = world.run(last)
    assert json.dumps(result) == json.dumps(once)


def test_a_run_reads_only_what_is_new(tmp_path: Path) -> None:
    world, traffic, result = analysed(tmp_path, 1, units=600)
    seen = world.store.analysis("exp")
    assert seen is not None
    assert seen.state["versions"] == {"bronze.decisions": 2, "bronze.outcomes": 2}
    # What was read is not read again: its files may go.
    for file in Path(world.lake.root).rglob("*.parquet"):
        file.unlink()
    again = world.run(traffic.end_us)
    assert again == result


def test_small_files_that_are_merged_are_not_read_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    traffic = Traffic(world.parsed, 1)
    traffic.make(600)
    middle = traffic.decisions[len(traffic.decisions) // 2].time_us
    world.commit_until(traffic, 0, middle)
    world.run(middle)
    world.commit_until(traffic, middle, traffic.end_us)
    for table in ("bronze.decisions", "bronze.outcomes"):
        assert world.lake.compact(table) > 0
    result = world.run(traffic.end_us)
    assert sum(result["exposure"]["units"].values()) == 600
    assert sum(result["exposure"]["decisions"].values()) == len(traffic.decisions)


def test_of_two_runs_at_once_one_is_refused(tmp_path: Path) -> None:
    world, traffic, _ = analysed(tmp_path, 1, units=300)
    known = world.store.analysis("exp")
    assert known is not None
    world.run(traffic.end_us)
    with pytest.raises(ConflictError, match="another run"):
        world.store.commit("exp", Analysis(known.revision + 1, {}, {}), AnalysisRows())


def test_a_fixed_horizon_says_nothing_before_it(tmp_path: Path) -> None:
    fixed = {"stopping": {"kind": "fixed", "horizon": 700}}
    (tmp_path / "few").mkdir()
    (tmp_path / "all").mkdir()
    _, _, few = analysed(tmp_path / "few", 1, units=600, lift=2.0, changes=fixed)
    assert few["recommendation"]["action"] == "keep running"
    assert "700 units per variant" in few["recommendation"]["reason"]
    assert few["metrics"]["revenue"]["treatments"]["B"]["fixed"] is None
    _, _, everything = analysed(tmp_path / "all", 1, units=1600, lift=2.0, changes=fixed)
    found = everything["metrics"]["revenue"]["treatments"]["B"]["fixed"]["comparison"]
    assert min(arm["n_units"] for arm in found["arms"].values()) == 700
    assert everything["recommendation"]["words"] == "ship B"


def test_targeting_segments_and_a_holdout(tmp_path: Path) -> None:
    changes = {
        "primary": {"kind": "mean", "name": "revenue", "value": "throughput", "segments": ["country"], **TIMING},
        "targeting": {"attribute": "country", "operator": "equals", "value": "de"},
        "holdout": 0.2,
    }
    _, traffic, result = analysed(tmp_path, 3, units=1500, lift=1.5, changes=changes)
    units = result["exposure"]["units"]
    assert sum(units.values()) == len({d.unit for d in traffic.decisions if d.context and d.context["country"] == "de"})
    assert units["holdout"] / sum(units.values()) == pytest.approx(0.2, abs=0.04)
    assert not result["split"]["alarm"]
    assert [one["value"] for one in result["metrics"]["revenue"]["segments"]] == ["de"]
