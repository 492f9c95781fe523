"""Sources, modes and fronts for tests of falling back."""

from __future__ import annotations

from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, Rule

OBJECTIVES = (
    Objective(name="latency", unit="ms", direction="minimize", low=0.0, high=10.0),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0.0, high=20.0),
)
NOW = 1_800_000_000_000_000
SECOND = 1_000_000


def candidate_of(name: str, latency: float, throughput: float) -> Candidate:
    return Candidate(
        name=name,
        kind="configuration",
        mean=(latency, throughput),
        half_width=(0.0, 0.0),
        parameters={"of": name},
    )


def front_of(*candidates: Candidate) -> Front:
    return Front(scenario="toy", objectives=OBJECTIVES, candidates=candidates)


OLD = front_of(candidate_of("old fast", 2.0, 5.0), candidate_of("old wide", 6.0, 15.0))
NEW = front_of(candidate_of("new fast", 1.5, 5.0), candidate_of("new wide", 6.0, 18.0))
STATIC = candidate_of("static", 4.0, 9.0)
SAFE = candidate_of("safe", 8.0, 2.0)


def mode_of(*rules: Rule) -> Mode:
    return Mode(name="normal", preference=Preference.of(OBJECTIVES, [0.8, 0.2]), rules=rules)


def below(latency: float) -> Mode:
    return mode_of(Rule(objective="latency", at_most=latency))
