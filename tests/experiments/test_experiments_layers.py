from __future__ import annotations

import hashlib
import math
import struct
import subprocess
import sys
from collections import Counter
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.experiments.diversion import Membership, PlanAssigner
from rlaas.experiments.layers import BUCKETS, AllocationPlan, Layer, LayeredExperiment, WeightedVariant, place
from rlaas.experiments.targeting import Condition

GERMANS = Condition(attribute="country", operator="equals", value="DE")


def arms(*weights: float) -> tuple[WeightedVariant, ...]:
    return tuple(WeightedVariant(name=f"v{i}", weight=weight) for i, weight in enumerate(weights))


def experiment(name: str, *weights: float, **options: Any) -> LayeredExperiment:
    return LayeredExperiment(name=name, salt=f"salt of {name}", variants=arms(*weights or (1, 1)), **options)


def layer(name: str, *experiments: LayeredExperiment, **options: Any) -> Layer:
    return Layer(name=name, salt=f"salt of {name}", experiments=experiments, **options)


def whole(*weights: float, salt: str = "salt") -> PlanAssigner:
    one = LayeredExperiment(name="one", salt=salt, variants=arms(*weights), buckets=((0, BUCKETS),))
    return PlanAssigner(AllocationPlan(layers=(layer("only", one),)))


def variants_of(assigner: PlanAssigner, n: int) -> list[str]:
    return [assigner.assign(f"user-{i}")[0].variant for i in range(n)]


def thirds() -> AllocationPlan:
    spans = ((0, 3_000), (3_000, 6_000), (6_000, 9_000))
    three = [experiment(name, buckets=(span,)) for name, span in zip("abc", spans, strict=True)]
    return AllocationPlan(layers=(layer("one", *three), layer("two", experiment("d", 3, 1, buckets=((0, 5_000),)))))


WEIGHTS = st.lists(st.just(0.0) | st.floats(0.01, 100), min_size=1, max_size=20).filter(any)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30).filter(str.isprintable), st.text(min_size=1, max_size=30), WEIGHTS)
def test_a_variant_is_drawn_as_described(unit: str, salt: str, weights: list[float]) -> None:
    """An exponential arrival of each variant from its own 64 bits; equal weights and two variants are no exception."""
    total, arrivals = sum(weights), {}
    for i, weight in enumerate(weights):
        digest = hashlib.blake2b(f"variants{i // 8 * 8}:{len(salt)}:{salt}{unit}".encode()).digest()
        (draw,) = struct.unpack_from(">Q", digest, 8 * (i % 8))
        if weight > 0:
            arrivals[f"v{i}"] = -math.log((draw + 0.5) / 2**64) / (weight / total)
    found = whole(*weights, salt=salt).assign(unit)[0]
    assert found.variant == min(arrivals, key=lambda name: arrivals[name])
    assert found.propensity == pytest.approx(weights[int(found.variant[1:])] / total)
    assert found.inclusion == 1.0


@pytest.mark.parametrize("weights", [(1, 1), (9, 1), (1, 1, 1, 1, 1), (5, 3, 2), tuple(range(1, 11)), (1,) * 12])
def test_shares_are_the_weights(weights: tuple[float, ...]) -> None:
    n = 20_000
    counts = Counter(variants_of(whole(*weights), n))
    expected = [n * weight / sum(weights) for weight in weights]
    assert stats.chisquare([counts[f"v{i}"] for i in range(len(weights))], expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("before", "after", "gains"),
    [
        ((1, 1), (1, 3), {"v1"}),
        ((1, 1, 1), (1, 1, 2), {"v2"}),
        ((5, 3, 2), (5, 0, 2), {"v0", "v2"}),
        ((1, 1), (1, 1, 1), {"v2"}),
        ((1,) * 8, (1,) * 9, {"v8"}),
        ((2, 1), (2, 1, 0), set()),
    ],
)
def test_new_weights_move_only_the_units_they_have_to(
    before: tuple[float, ...], after: tuple[float, ...], gains: set[str]
) -> None:
    n = 6_000
    moved = [
        (x, y) for x, y in zip(variants_of(whole(*before), n), variants_of(whole(*after), n), strict=True) if x != y
    ]
    assert {new for _, new in moved} == gains
    # As many as the shares grew by, and no more.
    shares = [[w / sum(ws) for w in (*ws, 0, 0)[:9]] for ws in (before, after)]
    least = sum(max(new - old, 0) for old, new in zip(*shares, strict=False))
    if least:
        assert stats.binomtest(len(moved), n, least).pvalue > 1e-3


def test_experiments_of_a_layer_never_meet_and_layers_are_independent() -> None:
    assigner, n = PlanAssigner(thirds()), 30_000
    seen: Counter[tuple[str, ...]] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for i in range(n):
        found = assigner.assign(f"user-{i}")
        names = tuple(member.experiment for member in found)
        seen[names] += 1
        assert sum(name in "abc" for name in names) <= 1
        together[names[0] if names and names[0] in "abc" else "-", "d" if "d" in names else "-"] += 1
    shares = {"a": 0.3, "b": 0.3, "c": 0.3, "-": 0.1}
    table = [[together[row, column] for column in "d-"] for row in shares]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert stats.chisquare([sum(row) for row in table], [n * share for share in shares.values()]).pvalue > 1e-3


def test_variants_of_different_experiments_are_independent() -> None:
    assigner = PlanAssigner(thirds())
    rows: Counter[tuple[str, str]] = Counter()
    for i in range(20_000):
        found = {member.experiment: member.variant for member in assigner.assign(f"user-{i}")}
        if "a" in found and "d" in found:
            rows[found["a"], found["d"]] += 1
    assert stats.chi2_contingency([[rows[x, y] for y in ("v0", "v1")] for x in ("v0", "v1")]).pvalue > 1e-3


def test_every_probability_is_what_happens() -> None:
    """Inclusion times propensity, summed over units, against how often it came so: holdout, buckets and weights."""
    plan = thirds().model_copy(update={"holdout": 0.2})
    assigner, n = PlanAssigner(plan), 40_000
    counts: Counter[Membership] = Counter(member for i in range(n) for member in assigner.assign(f"unit {i}"))
    assert len(counts) == 8
    for member, count in counts.items():
        assert stats.binomtest(count, n, member.inclusion * member.propensity).pvalue > 1e-3
    assert {round(member.inclusion, 12) for member in counts} == {0.24, 0.4}


def test_units_of_the_holdout_are_in_no_experiment() -> None:
    assigner = PlanAssigner(thirds().model_copy(update={"holdout": 0.1}))
    units = [f"user-{i}" for i in range(10_000)]
    held = [unit for unit in units if assigner.held_out(unit)]
    assert stats.binomtest(len(held), len(units), 0.1).pvalue > 1e-3
    assert all(assigner.assign(unit) == () for unit in held)
    more = PlanAssigner(thirds().model_copy(update={"holdout": 0.2}))
    assert all(more.held_out(unit) for unit in held)
    nobody = PlanAssigner(thirds())
    assert not any(nobody.held_out(unit) for unit in units)


def test_a_layer_keeps_its_holdout_free() -> None:
    held = layer("one", experiment("a"), holdout=0.05)
    placed = place(held, experiment("a"), 0.95)
    assert placed.experiments[0].buckets == ((0, 9_500),)
    with pytest.raises(InvalidInputError, match=r"needs 9600 buckets, 9500 are free; at most 0\.95 can be had"):
        place(held, experiment("a"), 0.96)
    with pytest.raises(ValidationError, match="bucket 9500 belongs to a and to the holdout"):
        layer("one", experiment("a", buckets=((0, 9_501),)), holdout=0.05)


def test_targeting_leaves_out_and_moves_nobody_else() -> None:
    everyone = PlanAssigner(AllocationPlan(layers=(layer("one", experiment("a", buckets=((0, 5_000),))),)))
    targeted = PlanAssigner(
        AllocationPlan(layers=(layer("one", experiment("a", buckets=((0, 5_000),), targeting=GERMANS)),))
    )
    for i in range(2_000):
        unit = f"user-{i}"
        assert targeted.assign(unit, {"country": "DE"}) == everyone.assign(unit)
        assert targeted.assign(unit, {"country": "FR"}) == targeted.assign(unit) == ()


def test_the_same_in_another_process() -> None:
    plan = thirds()
    code = (
        "import sys; from rlaas.experiments.layers import AllocationPlan as P;"
        "from rlaas.experiments.diversion import PlanAssigner as A;"
        "a = A(P.model_validate_json(sys.argv[1]));"
        "print([[(m.experiment, m.variant) for m in a.assign(f'u{i}')] for i in range(100)])"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, plan.model_dump_json()], capture_output=True, text=True, check=True
    ).stdout.strip()
    here = PlanAssigner(plan)
    assert there == str([[(m.experiment, m.variant) for m in here.assign(f"u{i}")] for i in range(100)])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0001, 0.5)), min_size=1, max_size=8))
def test_placing_keeps_what_it_can_and_never_overlaps(steps: list[tuple[str, float]]) -> None:
    current = layer("one", holdout=0.02)
    for name, share in steps:
        before = {e.name: e for e in current.experiments}
        count = max(round(share * BUCKETS), 1)
        try:
            current = place(current, experiment(name), share)
        except InvalidInputError:
            assert count > len(current.free(without=name))
            continue
        owned = {e.name: {b for first, end in e.buckets for b in range(first, end)} for e in current.experiments}
        assert len(owned[name]) == count
        assert not any(x & y for x, y in combinations(owned.values(), 2))
        Layer.model_validate(current.model_dump())
        for other, old in before.items():
            had = {b for first, end in old.buckets for b in range(first, end)}
            if other == name:
                assert owned[name] <= had or had <= owned[name]
            else:
                assert owned[other] == had


def test_growing_keeps_every_unit_with_its_variant() -> None:
    small = place(layer("one"), experiment("a"), 0.1)
    large = place(place(small, experiment("b"), 0.3), experiment("a"), 0.4)
    assert [e.share for e in large.experiments] == [0.4, 0.3]
    before, after = (PlanAssigner(AllocationPlan(layers=(one,))) for one in (small, large))
    units = [f"user-{i}" for i in range(5_000)]
    inside = [unit for unit in units if before.assign(unit)]
    assert inside
    assert all(before.assign(u)[0].variant == after.assign(u)[0].variant for u in inside)
    assert all(after.assign(u)[0].experiment == "a" for u in inside)


@pytest.mark.parametrize("unit", [7, None, "\ud800"])
def test_a_unit_that_is_no_text_is_named(unit: Any) -> None:
    assigner = PlanAssigner(thirds())
    for call in (assigner.assign, assigner.held_out):
        with pytest.raises(InvalidInputError, match="unit must be text") as caught:
            call(unit)
        assert caught.value.field == "unit"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: experiment("a", 0, 0), "at least one positive weight"),
        (lambda: experiment("a", buckets=((5, 5),)), r"span \(5, 5\) must keep 0 <= first < end <= 10000"),
        (lambda: experiment("a", buckets=((0, 10_001),)), "must keep 0 <= first < end <= 10000"),
        (lambda: experiment("a", buckets=((0, 9), (8, 12))), "spans of an experiment overlap"),
        (
            lambda: layer("l", experiment("a", buckets=((0, 9),)), experiment("b", buckets=((8, 12),))),
            "bucket 8 belongs to b and to a",
        ),
        (lambda: AllocationPlan(layers=(layer("l"), layer("l"))), "layers repeat a name: l"),
        (
            lambda: AllocationPlan(layers=(layer("k", experiment("a")), layer("l", experiment("a")))),
            "experiments repeat a name: a",
        ),
        (
            lambda: AllocationPlan(layers=(Layer(name="k", salt="s"), Layer(name="l", salt="s"))),
            "layers repeat a salt: s",
        ),
        (
            lambda: LayeredExperiment(name="a", salt="s", variants=(*arms(1), *arms(2))),
            "variants repeat a name: v0",
        ),
        (lambda: experiment("a/b"), "is not a plain name"),
        (lambda: AllocationPlan(holdout=1.0), "less than 1"),
    ],
)
def test_bad_plans_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan"), True, "half"])
def test_bad_shares_are_named(share: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"share must be in \(0, 1\]"):
        place(layer("one"), experiment("a"), share)
