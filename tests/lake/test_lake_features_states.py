"""One state machine for both stores: the offline column is what the online state says, event by event."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feature_kit import AGGREGATES, definition, naive

from rlaas.errors import LakeError
from rlaas.lake.features import FeatureDefinition, FeatureState, transform
from rlaas.lake.features.kernels import order_by

SECOND = 1_000_000
# Many ties in time and arrival, late ones, nothings, and numbers whose sum is lost in rounding.
VALUES = st.one_of(
    st.none(), st.integers(-3, 3).map(float), st.floats(-1e16, 1e16), st.sampled_from([1e100, -1e100, 0.1, -0.0])
)
EVENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30), VALUES), max_size=60)
TRANSFORMATIONS = [(aggregate, None) for aggregate in AGGREGATES] + [(name, 7.0) for name in AGGREGATES[1:]]


def _definition(aggregate: str, window_s: float | None) -> FeatureDefinition:
    return definition(transformation={"aggregate": aggregate, "window_s": window_s})


def _columns(events: list[tuple[int, int, float | None]]) -> tuple[Any, ...]:
    """(available, times, values), by availability."""
    rows = sorted(((time + late) * SECOND, time * SECOND, value) for time, late, value in _known(events))
    available, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(available, np.int64), np.array(times, np.int64), np.array(values, np.float64)


def _known(events: list[tuple[int, int, float | None]]) -> list[tuple[int, int, float]]:
    return [(time, late, math.nan if value is None else value) for time, late, value in events]


@pytest.mark.parametrize(("aggregate", "window_s"), TRANSFORMATIONS)
@settings(max_examples=40)
@given(events=EVENTS, data=st.data())
def test_the_offline_column_is_what_the_online_state_says(
    aggregate: str, window_s: float | None, events: list[Any], data: st.DataObject
) -> None:
    feature = _definition(aggregate, window_s)
    available, times, values = _columns(events)
    column, heads = transform(feature, np.zeros(len(times), np.int64), available, times, values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(times)), max_size=6)))
    content: bytes | None = None
    online: list[float] = []
    for start, end in zip([0, *cuts], [*cuts, len(times)], strict=True):
        state = FeatureState(feature, content)
        for place in range(start, end):
            online += state.feed(
                available[place : place + 1], times[place : place + 1], values[place : place + 1]
            ).tolist()
            if not math.isnan(state.value):
                assert state.time_us == heads[place]
        content = state.encoded()
    assert np.array(online).tobytes() == column.tobytes()


@pytest.mark.parametrize(("aggregate", "window_s"), TRANSFORMATIONS)
@settings(max_examples=40)
@given(events=EVENTS, seed=st.integers(0, 1000))
def test_the_value_is_that_of_the_events_in_whatever_order(
    aggregate: str, window_s: float | None, events: list[Any], seed: int
) -> None:
    feature = _definition(aggregate, window_s)
    rows = list(zip(*_columns(events), strict=True))
    random.Random(seed).shuffle(rows)
    state = FeatureState(feature)
    for available, time, value in rows:
        state.feed(np.array([available]), np.array([time]), np.array([value]))
    plain = [("c", time * SECOND, (time + late) * SECOND, value) for time, late, value in events]
    expected = naive(feature, plain, "c", 10**9)
    if expected is None:
        assert math.isnan(state.value)
    else:
        assert (state.value, state.time_us) == expected


def test_sums_forget_what_left_the_window_completely() -> None:
    feature = _definition("sum", 10.0)
    times = np.arange(1000, dtype=np.int64) * SECOND
    values = np.where(np.arange(1000) % 20 == 0, 1e300, 0.1)
    state = FeatureState(feature)
    state.feed(times, times, np.minimum(values, 2.0**900))
    assert state.value == math.fsum([0.1] * 10)


def test_long_windows_and_entities_do_not_mix() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(5), 2000)
    times = np.tile(np.arange(2000, dtype=np.int64), 5) * SECOND
    values = rng.normal(size=10_000)
    column, _ = transform(_definition("max", 900.0), codes, times, times, values)
    for code in range(5):
        mine = values[codes == code]
        expected = [mine[max(0, i - 899) : i + 1].max() for i in range(2000)]
        assert column[codes == code].tolist() == expected


@pytest.mark.parametrize("content", [b"", b"123", bytes(56), np.full(9, 7, np.int64).tobytes()])
def test_a_damaged_state_is_refused(content: bytes) -> None:
    with pytest.raises(LakeError, match="damaged"):
        FeatureState(_definition("sum", 10.0), content)


def test_states_stay_small(tmp_path: Path) -> None:
    state = FeatureState(_definition("mean", None))
    times = np.arange(100_000, dtype=np.int64)
    state.feed(times, times, np.random.default_rng(0).normal(size=100_000))
    assert len(state.encoded()) < 200


@given(
    rows=st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 5), st.integers(0, 5)), max_size=40),
    repeats=st.sampled_from([1, 30]),
)
def test_rows_are_ordered_as_a_stable_sort_does(rows: list[tuple[int, int, int]], repeats: int) -> None:
    codes, first, second = np.array(rows * repeats, np.int64).reshape(-1, 3).T.copy()
    expected = np.lexsort((second, first, codes))
    np.testing.assert_array_equal(order_by(codes, first, second), expected)
