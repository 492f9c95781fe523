"""Switchbacks from a real lake, the rounds of the loop, and what an experiment's page survives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.experiment_kit import START_US, World, decided, reported

from rlaas.control.experiments import AnalysisLoop
from rlaas.errors import LakeError
from rlaas.experiments.assignment import assign_switchback

SECOND = 1_000_000
METRIC = {"kind": "ratio", "name": "per_order", "numerator": "throughput", "denominator": "orders", "window_s": 60.0}
PLAN: dict[str, Any] = {
    "design": "switchback",
    "block_steps": 10,
    "washout_steps": 3,
    "primary": METRIC,
    "stopping": {"kind": "fixed", "horizon": 10},
}


def filled(folder: Path, seed: int, *, lift: float, blocks: int) -> dict[str, Any]:
    """Steps a second apart; in the first steps of a block the other variant's effect lingers."""
    world = World(folder, **PLAN)
    rng = np.random.default_rng(seed)
    decisions, outcomes = [], []
    for step in range(10 * blocks):
        drawn = assign_switchback(step, 10, f"salt {seed}", {"A": 1, "B": 1})
        at, name = START_US + step * SECOND, f"s{step}"
        decisions.append(decided(world.parsed, name, at, drawn.variant, drawn.propensity, step=step))
        wash = 1000.0 if step % 10 < 3 else 0.0
        gain = lift if drawn.variant == "B" else 0.0
        orders = float(rng.integers(1, 5))
        # The level drifts, which pairs take out.
        level = 5 + 0.02 * step + gain + float(rng.normal(scale=0.5)) + wash
        outcomes.append(reported(name, at, at + SECOND, {"throughput": level * orders, "orders": orders}))
    world.commit(decisions, outcomes)
    return world.run(decisions[-1].time_us + 300 * SECOND)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_a_switchback_is_judged_at_its_horizon(tmp_path: Path, seed: int) -> None:
    for folder in ("short", "long", "alike"):
        (tmp_path / folder).mkdir()
    short = filled(tmp_path / "short", seed, lift=2.0, blocks=12)
    assert short["recommendation"]["action"] == "keep running"
    assert "10 pairs of blocks" in short["recommendation"]["reason"]
    found = short["metrics"]["per_order"]["treatments"]["B"]
    assert found["fixed"] is None
    assert found["so_far"]["n_pairs"] == 6
    long = filled(tmp_path / "long", seed, lift=2.0, blocks=24)
    found = long["metrics"]["per_order"]["treatments"]["B"]
    comparison = found["fixed"]["comparison"]
    assert comparison["n_pairs"] == 10
    assert comparison["interval"][0] < 2.0 < comparison["interval"][1]
    assert found["p_value"] == comparison["randomisation_p_value"]
    assert long["recommendation"]["words"] == "ship B"
    alike = filled(tmp_path / "alike", seed, lift=0.0, blocks=20)
    assert alike["recommendation"]["words"] == "keep A"
    assert not alike["split"]["alarm"]


class Rounds:
    """Experiments of which one cannot be analysed."""

    def __init__(self) -> None:
        self.analysed: list[str] = []

    def due(self) -> list[str]:
        return ["one", "broken", "three"]

    def analyse(self, id_: str) -> None:
        if id_ == "broken":
            raise LakeError("damaged")
        self.analysed.append(id_)


def test_one_that_fails_does_not_keep_the_others_from_it() -> None:
    rounds = Rounds()
    loop = AnalysisLoop(rounds, interval_s=0.01)  # type: ignore[arg-type]
    loop.round()
    assert rounds.analysed == ["one", "three"]
    loop.start()
    assert loop.running
    loop.stop()
    assert not loop.running


def test_a_damaged_lake_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    rows = [decided(world.parsed, f"d{k}", START_US + k, "A", 0.5, unit=f"u{k}") for k in range(3)]
    world.commit(rows, [])
    before = world.run(START_US + 10_000 * SECOND)
    more = [decided(world.parsed, f"e{k}", START_US + 15_000 * SECOND + k, "B", 0.5, unit=f"v{k}") for k in range(3)]
    files = set(Path(world.lake.root).rglob("*.parquet"))
    world.commit(more, [])
    (new,) = set(Path(world.lake.root).rglob("*.parquet")) - files
    kept = new.read_bytes()
    new.unlink()
    with pytest.raises(LakeError, match=r"bronze\.decisions"):
        world.run(START_US + 20_000 * SECOND)
    stored = world.store.analysis("exp")
    assert stored is not None
    assert stored.result == before
    new.write_bytes(kept)
    assert world.run(START_US + 20_000 * SECOND)["exposure"]["units"] == {"A": 3, "B": 3}


def test_a_decision_delivered_twice_counts_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    rows = [decided(world.parsed, f"d{k}", START_US + k, "A", 0.5, unit=f"u{k}") for k in range(3)]
    world.commit(rows, [])
    world.run(START_US + SECOND)
    world.commit([*rows, *rows], [])
    page = world.run(START_US + 10_000 * SECOND)
    assert page["exposure"]["decisions"] == {"A": 3, "B": 0}
    assert page["exposure"]["units"] == {"A": 3, "B": 0}


def test_who_only_assigns_loads_no_statistics() -> None:
    code = (
        "import sys, rlaas.experiments.assignment; "
        "print([name for name in ('scipy', 'numba', 'numpy') if name in sys.modules]); "
        "import rlaas.experiments; [getattr(rlaas.experiments, name) for name in rlaas.experiments.__all__]"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_extreme_values_and_options_end_in_a_page(tmp_path: Path) -> None:
    far = {"kind": "ratio", "name": "far", "numerator": "throughput", "denominator": "orders", "window_s": 1.0}
    world = World(
        tmp_path,
        primary=far,
        guardrails=[{"metric": {**far, "name": "guard"}, "margin": 1e300, "relative": False}],
        stopping={"kind": "sequential", "planned": 10**9, "start": 100, "effect": 1e300},
    )
    rows, outcomes = [], []
    for k in range(400):
        rows.append(decided(world.parsed, f"d{k}", START_US + k, "AB"[k % 2], 0.5, unit=f"u{k}"))
        values = {"throughput": [1e300, -1e100, 1e100, 0.0][k % 4], "orders": [1e-100, 1.0, -1.0, 1e100][k % 4]}
        outcomes.append(reported(f"d{k}", START_US + k, START_US + k + 1, values))
    world.commit(rows, outcomes)
    page = world.run(START_US + 1000 * SECOND)
    assert page["refused"] == {"far": 100, "guard": 100}  # a divisor below 0
    assert page["planned"]["expected_end_us"] is None or page["planned"]["expected_end_us"] < 253_402_300_800_000_000
    assert world.run(START_US + 2000 * SECOND)["metrics"] == page["metrics"]
