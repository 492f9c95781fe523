from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.experiments import assign_switchback, assign_unit, block_of
from rlaas.experiments.assignment import unit_assigner

HALVES = {"champion": 0.5, "challenger": 0.5}
THREE = {"a": 5.0, "b": 3.0, "c": 2.0}


@settings(deadline=None)
@given(st.text(), st.text(), st.dictionaries(st.text(min_size=1), st.floats(0.01, 100), min_size=1, max_size=5))
def test_sticky_and_independent_of_the_order(unit: str, salt: str, variants: dict[str, float]) -> None:
    first = assign_unit(unit, salt, variants)
    assert assign_unit(unit, salt, dict(reversed(variants.items()))) == first
    assert first.variant in variants
    assert first.propensity == pytest.approx(variants[first.variant] / sum(variants.values()))


def test_the_same_in_another_process() -> None:
    code = (
        "from rlaas.experiments import assign_unit as a;"
        f"print(','.join(a(f'user-{{i}}', 's', {THREE}).variant for i in range(50)))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == ",".join(assign_unit(f"user-{i}", "s", THREE).variant for i in range(50))


@pytest.mark.parametrize("variants", [HALVES, THREE, {"a": 0.9, "b": 0.1}])
def test_shares_are_the_weights(variants: dict[str, float]) -> None:
    n = 20_000
    counts = Counter(assign_unit(f"user-{i}", "salt", variants).variant for i in range(n))
    total = sum(variants.values())
    expected = [n * w / total for w in variants.values()]
    assert stats.chisquare([counts[v] for v in variants], expected).pvalue > 1e-3


def test_salts_assign_independently() -> None:
    n = 5_000
    table = Counter(
        (assign_unit(f"u{i}", "one", HALVES).variant, assign_unit(f"u{i}", "two", HALVES).variant) for i in range(n)
    )
    rows = [[table[a, b] for b in HALVES] for a in HALVES]
    assert stats.chi2_contingency(rows).pvalue > 1e-3


def test_a_ramp_moves_only_the_units_it_has_to() -> None:
    before = [assign_unit(f"u{i}", "s", {"a": 0.9, "b": 0.1}).variant for i in range(3_000)]
    after = [assign_unit(f"u{i}", "s", {"a": 0.6, "b": 0.4}).variant for i in range(3_000)]
    moved = Counter((x, y) for x, y in zip(before, after, strict=True) if x != y)
    assert set(moved) == {("a", "b")}


def test_a_variant_of_weight_zero_is_never_chosen() -> None:
    assert {assign_unit(f"u{i}", "s", {"a": 1, "off": 0}).variant for i in range(500)} == {"a"}
    assert assign_unit("u", "s", {"a": 1, "off": 0}).propensity == 1.0


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 500), st.text())
def test_switchback_alternates_within_pairs_and_keeps_its_block(pair: int, block_steps: int, salt: str) -> None:
    start = 2 * pair * block_steps
    first = assign_switchback(start, block_steps, salt, HALVES)
    assert assign_switchback(start + block_steps - 1, block_steps, salt, HALVES) == first
    second = assign_switchback(start + block_steps, block_steps, salt, HALVES)
    assert {first.variant, second.variant} == set(HALVES)
    assert first.propensity == second.propensity == 0.5
    assert block_of(start + block_steps - 1, block_steps) == 2 * pair


def test_order_within_pairs_is_random() -> None:
    n = 4_000
    heads = sum(assign_switchback(2 * k, 1, "salt", HALVES).variant == "champion" for k in range(n))
    assert stats.binomtest(heads, n).pvalue > 1e-3


@pytest.mark.parametrize("variants", [THREE, {"a": 0.8, "b": 0.2}])
def test_other_weights_draw_every_block_on_its_own(variants: dict[str, float]) -> None:
    n = 6_000
    total = sum(variants.values())
    drawn = [assign_switchback(7 * k, 7, "salt", variants) for k in range(n)]
    counts = Counter(a.variant for a in drawn)
    assert stats.chisquare([counts[v] for v in variants], [n * w / total for w in variants.values()]).pvalue > 1e-3
    assert all(a.propensity == pytest.approx(variants[a.variant] / total) for a in drawn)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({}, "at least one positive weight"),
        ({"a": 0.0}, "at least one positive weight"),
        ({"a": -1.0, "b": 2.0}, "weight of variant 'a' must be finite and >= 0, got -1.0"),
        ({"a": float("nan")}, "must be finite"),
        ({"a": True}, "must be finite and >= 0, got True"),
        ({"": 1.0}, "non-empty text"),
    ],
)
def test_bad_variants_are_named(variants: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        assign_unit("u", "s", variants)


def test_bad_steps_are_named() -> None:
    with pytest.raises(InvalidInputError, match="step must be a whole number >= 0, got -1"):
        assign_switchback(-1, 5, "s", HALVES)
    with pytest.raises(InvalidInputError, match="block_steps must be a whole number >= 1, got 0"):
        assign_switchback(1, 0, "s", HALVES)
    with pytest.raises(InvalidInputError, match=r"step must be a whole number >= 0, got 1\.5"):
        block_of(1.5, 5)  # type: ignore[arg-type]


def _as_written(unit: str, salt: str, variants: dict[str, float]) -> str:
    """Weighted rendezvous hashing as its description reads, one variant at a time and nothing kept."""
    total = sum(variants.values())
    arrivals = {}
    for name, weight in variants.items():
        if weight > 0:
            digest = hashlib.blake2b(f"{len(salt)}:{salt}{len(unit)}:{unit}{name}".encode(), digest_size=8).digest()
            fraction = ((int.from_bytes(digest, "big") >> 11) + 0.5) / 2**53
            arrivals[name] = -math.log(fraction) / (weight / total)
    return min(arrivals, key=lambda name: arrivals[name])


@settings(deadline=None)
@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.dictionaries(st.text(min_size=1, max_size=8), st.just(0.0) | st.floats(0.01, 100), min_size=1, max_size=9),
)
def test_units_are_assigned_as_described_and_never_otherwise(unit: str, salt: str, variants: dict[str, float]) -> None:
    if not any(variants.values()):
        variants["on"] = 1.0
    assert assign_unit(unit, salt, variants).variant == _as_written(unit, salt, variants)
    assert unit_assigner(salt, variants)(unit) == assign_unit(unit, salt, variants)


def test_compiled_assignment_checks_its_variants_before_the_first_unit() -> None:
    with pytest.raises(InvalidInputError, match="at least one positive weight"):
        unit_assigner("salt", {"a": 0.0})
    with pytest.raises(InvalidInputError, match=r"weight of variant 'a' must be finite and >= 0, got \[1\]"):
        assign_unit("u", "s", {"a": [1]})  # type: ignore[dict-item]
