"""Assigning a unit by a compiled plan, against the bucketing by md5 that most platforms use.

    python -m benchmarks.experiments_assignment [--quick] [--json]

The rival hashes salt and unit by md5, takes eight hexadecimal digits modulo 10,000 and looks the variant up by
cumulative weights: one draw, without layers, targeting, exclusion or propensity, and with units moved between variants
that had no reason to move when a weight changes. Every unit is new to both; the median CPU time of the rounds counts,
which neighbours on the machine disturb less than they do the clock.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate

from benchmarks.harness import Row, parse_arguments, report
from rlaas.experiments.assignment import assign_unit, unit_assigner
from rlaas.experiments.diversion import PlanAssigner
from rlaas.experiments.layers import BUCKETS, AllocationPlan, Layer, LayeredExperiment, WeightedVariant
from rlaas.experiments.targeting import AllOf, Condition

RIVAL = "md5 modulo 10,000, no layers"
ATTRIBUTES = {"country": "DE", "age": 34, "plan": "pro"}


def plan_of(
    layers: int, variants: int, *, even: bool = True, targeted: bool = False, holdout: float = 0.0
) -> AllocationPlan:
    """Layers with two experiments each, which share all buckets."""
    rule = AllOf(
        all=(
            Condition(attribute="country", operator="in", value=("DE", "FR", "NL")),
            Condition(attribute="age", operator="at_least", value=18),
        )
    )
    arms = tuple(WeightedVariant(name=f"variant-{i}", weight=1.0 if even else i + 1.0) for i in range(variants))

    def experiment(name: str, first: int, end: int) -> LayeredExperiment:
        return LayeredExperiment(
            name=name, salt=name, variants=arms, buckets=((first, end),), targeting=rule if targeted else None
        )

    return AllocationPlan(
        holdout=holdout,
        layers=tuple(
            Layer(
                name=f"layer-{i}",
                salt=f"layer-{i}",
                experiments=(
                    experiment(f"first-{i}", 0, BUCKETS // 2),
                    experiment(f"second-{i}", BUCKETS // 2, BUCKETS),
                ),
            )
            for i in range(layers)
        ),
    )


def md5_buckets(salt: str, variants: int) -> Callable[[str], str]:
    """One draw by md5."""
    names = [f"variant-{i}" for i in range(variants)]
    ends = [round(share * BUCKETS) for share in accumulate([1 / variants] * variants)]

    def assign(unit: str) -> str:
        return names[bisect_right(ends, int(hashlib.md5(f"{salt}:{unit}".encode()).hexdigest()[:8], 16) % BUCKETS)]

    return assign


def nanoseconds(works: list[Callable[[str], object]], units: list[str], rounds: int) -> list[float]:
    """Median CPU time per unit of each; they take turns, so that a slow moment of the machine falls on all."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for times, work in zip(spent, works, strict=True):
            started = time.thread_time_ns()
            for unit in units:
                work(unit)
            times.append((time.thread_time_ns() - started) / len(units))
    return [statistics.median(times) for times in spent]


def main() -> None:
    arguments = parse_arguments("experiments_assignment")
    units = [f"user-{i:07d}" for i in range(2_000 if arguments.quick else 20_000)]
    halves = {"variant-0": 0.5, "variant-1": 0.5}
    cases: list[tuple[str, int, Callable[[str], object]]] = [
        ("one layer, 2 variants", 2, PlanAssigner(plan_of(1, 2)).assign),
        ("one layer, 8 variants", 8, PlanAssigner(plan_of(1, 8)).assign),
        ("one layer, 2 uneven variants", 2, PlanAssigner(plan_of(1, 2, even=False)).assign),
        ("one layer, 4 uneven variants", 4, PlanAssigner(plan_of(1, 4, even=False)).assign),
        ("one layer, 2 variants, global holdout", 2, PlanAssigner(plan_of(1, 2, holdout=0.05)).assign),
        ("three layers, 2 variants each", 2, PlanAssigner(plan_of(3, 2)).assign),
    ]
    targeted = PlanAssigner(plan_of(1, 2, targeted=True))
    cases.append(("one layer, 2 variants, two conditions", 2, lambda unit: targeted.assign(unit, ATTRIBUTES)))
    cases.append(("no layer, 2 variants, compiled (unit_assigner)", 2, unit_assigner("salt", halves)))
    cases.append(("no layer, 2 variants, by mapping (assign_unit)", 2, lambda unit: assign_unit(unit, "salt", halves)))
    works = [work for _, _, work in cases] + [md5_buckets("salt", count) for count in (2, 4, 8)]
    spent = nanoseconds(works, units, 3 if arguments.quick else 25)
    rivals = dict(zip((2, 4, 8), spent[len(cases) :], strict=True))
    rows = [
        Row(what, "us of CPU per unit", ours / 1000, RIVAL, rivals[count] / 1000, better="lower")
        for (what, count, _), ours in zip(cases, spent, strict=False)
    ]
    report("experiments_assignment", rows, arguments.json)


if __name__ == "__main__":
    main()
