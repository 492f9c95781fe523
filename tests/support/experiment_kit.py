"""Synthetic experiments in a real lake: decisions as a Gateway logs them, outcomes late, corrected or lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.control.experiments import Analyst, ExperimentDocument, ExperimentStore, parse_document
from rlaas.control.experiments.store import Event, StoredExperiment
from rlaas.control.state import StateDatabase
from rlaas.experiments.assignment import unit_assigner
from rlaas.lake import Lake
from rlaas.lake.records import DecisionRecord, OutcomeRecord
from rlaas.lake.rows import decision_rows, outcome_rows

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
WINDOW_S, LATENESS_S = 600.0, 120.0


def document(**changes: Any) -> dict[str, Any]:
    """An experiment on the throughput of ``toy``, version 1 against version 2."""
    timing = {"window_s": WINDOW_S, "lateness_s": LATENESS_S}
    return {
        "id": "exp",
        "policy": "toy",
        "variants": [{"name": "A", "version": 1}, {"name": "B", "version": 2}],
        "primary": {"kind": "mean", "name": "revenue", "value": "throughput", **timing},
        "stopping": {"kind": "sequential", "planned": 1000, "start": 200},
        "start_us": START_US,
        **changes,
    }


@dataclass
class Traffic:
    """Units that come once a second, decide one to three times and report each outcome within some minutes.

    Attributes:
        lift: of the treatment, on outcomes of mean 10 and standard deviation 2.
        steer: chance that a unit that was assigned to B is served A all the same: a broken split.
        corrections: by decision the values that come long after the window, revision 1.
    """

    parsed: ExperimentDocument
    seed: int
    lift: float = 0.0
    steer: float = 0.0
    decisions: list[DecisionRecord] = field(default_factory=list)
    outcomes: list[OutcomeRecord] = field(default_factory=list)
    corrections: list[OutcomeRecord] = field(default_factory=list)

    def make(self, units: int) -> None:
        rng = np.random.default_rng(self.seed)
        shares = self.parsed.shares()
        assign = unit_assigner(f"{self.parsed.salt or self.parsed.id} {self.seed}", shares)
        for number in range(units):
            unit = f"u{number}"
            chosen = assign(unit)
            arm, before = chosen.variant, float(rng.normal())
            if arm == "B" and rng.random() < self.steer:
                arm = "A"
            for repeat in range(int(rng.integers(1, 4))):
                at = START_US + number * SECOND + repeat * 60 * SECOND
                name = f"d{number}-{repeat}"
                context = {"before": before, "country": "de" if number % 3 else "fr"}
                self.decisions.append(
                    decided(self.parsed, name, at, arm, chosen.propensity, unit=unit, context=context)
                )
                if rng.random() < 0.1:
                    continue  # never reported
                value = 10 + before + float(rng.normal(scale=2)) + (self.lift if arm == "B" else 0.0)
                observed = at + int(rng.integers(1, 120)) * SECOND
                values = {"throughput": value, "latency": float(rng.lognormal(1.0, 0.3)), "orders": 1.0}
                # Some come at once, some late but in time, some after their time.
                delay = int(rng.choice([1, 60, 100, 4_000], p=[0.7, 0.2, 0.07, 0.03])) * SECOND
                self.outcomes.append(reported(name, observed, observed + delay, values))
                if rng.random() < 0.05:
                    early = {**values, "throughput": value + 1}
                    self.outcomes.append(reported(name, observed, observed + delay + 10 * SECOND, early, revision=1))
                if rng.random() < 0.2:
                    wild = {**values, "throughput": 1000.0}
                    after = observed + 50_000 * SECOND
                    self.corrections.append(reported(name, observed, after, wild, revision=2))
        self.decisions.sort(key=lambda one: one.time_us)
        self.outcomes.sort(key=lambda one: one.received_us)

    @property
    def end_us(self) -> int:
        """After the last window of all."""
        return self.decisions[-1].time_us + round((WINDOW_S + LATENESS_S) * 1e6) + 10_000 * SECOND


def decided(parsed: ExperimentDocument, name: str, at: int, arm: str, share: float, **more: Any) -> DecisionRecord:
    return DecisionRecord(
        receipt_id=name,
        decision_id=name,
        tenant="default",
        time_us=at,
        scenario="toy",
        policy=parsed.policy,
        version=1,
        variant=arm,
        variant_propensity=share,
        observation=[0.0],
        action=[1.0],
        generation=1,
        producer="gateway",
        experiment=parsed.id,
        **more,
    )


def reported(of: str, at: int, received: int, values: dict[str, float], revision: int = 0) -> OutcomeRecord:
    return OutcomeRecord(
        receipt_id=f"{of}-{revision}",
        outcome_id=f"o-{of}",
        decision_id=of,
        tenant="default",
        outcome=values,
        time_us=at,
        received_us=received,
        producer="gateway",
        policy="toy",
        revision=revision,
    )


class World:
    """A lake, a state database with one declared experiment, and an analyst; every commit is a Delta commit."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.parsed = parse_document(document(**changes))
        self.lake = Lake(folder / "lake")
        self.url = f"sqlite:///{folder / 'state.db'}"
        self.store = ExperimentStore(StateDatabase(self.url), "default")
        self.store.insert(
            StoredExperiment(document=self.parsed, state="running", revision=1, created_us=START_US),
            Event(START_US, "operator", "created", ""),
        )
        self._commits = 0

    def commit(self, decisions: list[DecisionRecord], outcomes: list[OutcomeRecord]) -> None:
        self._commits += 1
        for table, rows in (("bronze.decisions", decisions), ("bronze.outcomes", outcomes)):
            make: Callable[..., Any] = decision_rows if table == "bronze.decisions" else outcome_rows
            if rows:
                self.lake.append_once(table, {"kit": [(self._commits, partial(make, rows))]})

    def commit_until(self, traffic: Traffic, first_us: int, last_us: int) -> None:
        """What was received in a span of time."""
        self.commit(
            [one for one in traffic.decisions if first_us <= one.time_us < last_us],
            [one for one in traffic.outcomes if first_us <= one.received_us < last_us],
        )

    def analyst(self) -> Analyst:
        """As in another process, or after a restart."""
        store = ExperimentStore(StateDatabase(self.url), "default")
        return Analyst(store, Lake(self.lake.root), settle_s=60.0, clock=lambda: START_US)

    def run(self, now_us: int) -> dict[str, Any]:
        return self.analyst().run("exp", now_us=now_us)
