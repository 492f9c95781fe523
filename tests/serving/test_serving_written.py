"""The log keeps observations as they were sent, whatever the caller's JSON looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.serving.written import as_written, many_as_written

ROWS = st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    variants = [{"name": "champion", "version": 1, "weight": 1}, {"name": "challenger", "version": 2, "weight": 1}]
    paths = {("toy", version): policy_bundle(tmp_path / f"toy{version}", seed=version) for version in (1, 2)}
    return make_bench(tmp_path, paths, deployment("toy", variants))


@given(ROWS, st.integers(0, 3), st.booleans())
def test_the_same_numbers_are_read_from_it(rows: list[list[float]], indent: int, first: bool) -> None:
    document: dict[str, Any] = {"context": {"observations": [[9]], "observation": 1}, "observations": rows, "step": 1}
    document = document if first else dict(reversed(document.items()))
    body = json.dumps(document, indent=indent or None).encode()
    assert msgspec.json.decode(msgspec.json.encode(many_as_written(body, rows))) == rows
    for row in rows:
        one = json.dumps({"observation": row, "unit": "observation"}, indent=indent or None).encode()
        assert msgspec.json.decode(msgspec.json.encode(as_written(one, row))) == row


def test_the_last_of_repeated_fields_counts_in_the_log_too(bench: Bench) -> None:
    bench.engine.decide(PRINCIPAL, "toy", b'{"observation": [1, 1, 1], "\\u006fbservation": [2, 3e0, -4]}')
    assert [record.observation for record in bench.logged_decisions()] == [[2.0, 3.0, -4.0]]


@pytest.mark.parametrize("spaces", [0, 10, 100_000])
def test_spaces_are_not_kept_without_bound(bench: Bench, spaces: int) -> None:
    rows = [[0.1 * row, -1e-3, 2.0] for row in range(5)]
    gap = " " * spaces
    inner = f",{gap}".join(f"[{gap}{', '.join(map(repr, row))}{gap}]" for row in rows)
    bench.engine.decide(PRINCIPAL, "toy", f'{{"observations": [{inner}]}}'.encode())
    bench.engine.decide(PRINCIPAL, "toy", f'{{"observation": {gap}[{rows[0][0]},{gap}-1e-3, 2]}}'.encode())
    assert [record.observation for record in bench.logged_decisions()] == [*rows, rows[0]]
    (segment,) = bench.decisions.folder.glob("*.seg")
    assert segment.stat().st_size < 12_000
