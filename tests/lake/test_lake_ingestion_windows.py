"""Event-time windows: equal to what anybody would compute by hand, however events arrive and are cut into batches."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError
from rlaas.lake import Lake
from rlaas.lake.ingestion import WindowConfig, load_stream_config, read_windows
from rlaas.lake.ingestion.once import Span, append_spans
from rlaas.lake.ingestion.window_tables import load_fold, window_rows
from rlaas.lake.ingestion.windows import Event, Fold, WindowShape

ENTITIES = st.sampled_from(["a", "b"])
VALUES = st.floats(-1e12, 1e12, allow_nan=False).map(lambda x: x + 0.0) | st.sampled_from([1e16, -1e16, 0.1, 1e-9])
SHAPES = st.builds(
    lambda slide, times, delay, lateness: WindowShape(slide * times, slide, delay, lateness),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 10),
    st.integers(0, 10),
)
STREAMS = st.lists(st.tuples(ENTITIES, st.integers(0, 60), VALUES), max_size=40).map(
    lambda items: [Event(entity, at, value, f"r{i:03d}") for i, (entity, at, value) in enumerate(items)]
)


def by_hand(events: list[Event], shape: WindowShape) -> dict[tuple[str, int], dict[str, Any]]:
    """Every window from the list of all events, by the definition: quadratic, in exact numbers, and without a state."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    last_time = max((event.time_us for event in events), default=0)
    for start in range(-shape.size_us * shape.slide_us, last_time + 1):
        if start % shape.slide_us:
            continue
        for entity in ("a", "b"):
            taken = []
            for position, event in enumerate(events):
                earlier = [e.time_us for e in events[:position]]
                closes = start + shape.size_us + shape.lateness_us
                open_still = not earlier or max(0, max(earlier) - shape.delay_us + 1) - 1 < closes
                if event.entity == entity and start <= event.time_us < start + shape.size_us and open_still:
                    taken.append(event)
            if taken:
                total = sum((Fraction(e.value) for e in taken), Fraction(0))
                found[entity, start] = {
                    "count": len(taken),
                    "mean": float(total) / len(taken),
                    "minimum": min(e.value for e in taken),
                    "maximum": max(e.value for e in taken),
                    "last": max(taken, key=lambda e: (e.time_us, e.receipt)).value,
                }
    return found


def folded(changed: dict[tuple[str, int], Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {
        key: {
            "count": window.count,
            "mean": window.mean,
            "minimum": window.minimum,
            "maximum": window.maximum,
            "last": window.last[2],
        }
        for key, (window, _) in changed.items()
    }


@given(STREAMS, SHAPES)
def test_windows_equal_a_naive_recomputation_under_any_order(events: list[Event], shape: WindowShape) -> None:
    assert folded(Fold(shape).apply(events)) == by_hand(events, shape)


@given(STREAMS, SHAPES, st.randoms(use_true_random=False))
def test_order_makes_no_difference_while_nothing_is_too_late(
    events: list[Event], shape: WindowShape, random: Any
) -> None:
    patient = WindowShape(shape.size_us, shape.slide_us, shape.delay_us, lateness_us=100)
    shuffled = list(events)
    random.shuffle(shuffled)
    one, other = Fold(patient), Fold(patient)
    assert folded(one.apply(events)) == folded(other.apply(shuffled))
    assert (one.late, one.watermark_us) == (0, other.watermark_us)


@given(STREAMS, SHAPES, st.lists(st.integers(0, 40), max_size=5))
def test_batches_make_no_difference(events: list[Event], shape: WindowShape, cuts: list[int]) -> None:
    whole, parts = Fold(shape), Fold(shape)
    expected = whole.apply(events)
    places = [0, *sorted(cuts), len(events)]
    found: dict[tuple[str, int], Any] = {}
    final: set[tuple[str, int]] = set()
    for first, last in pairwise(places):
        changed = parts.apply(events[first:last])
        assert not final & changed.keys()
        final |= {key for key, (_, is_final) in changed.items() if is_final}
        found |= changed
    assert folded(found) == folded(expected)
    assert (parts.count, parts.late, parts.newest_us) == (whole.count, whole.late, whole.newest_us)
    assert final == {key for key, (_, is_final) in expected.items() if is_final}


@given(STREAMS, SHAPES)
def test_a_window_is_final_when_nothing_can_come_into_it_any_more(events: list[Event], shape: WindowShape) -> None:
    fold = Fold(shape)
    changed = fold.apply(events)
    for (entity, start), (_, is_final) in changed.items():
        assert is_final == ((entity, start) not in fold.windows)
        late = fold.late
        again = Fold(shape, fold.windows, newest_us=fold.newest_us, count=fold.count, late=late)
        again.apply([Event(entity, start, 1.0, "z")] if start >= 0 else [])
        if is_final and shape.size_us == shape.slide_us and start >= 0:
            assert again.late == late + 1


def test_an_event_far_ahead_closes_nothing() -> None:
    shape = WindowShape(10, 10, ahead_us=1000)
    fold = Fold(shape)
    events = [Event("a", 5, 1.0, "1", 5), Event("a", 5000, 9.0, "2", 7), Event("a", 6, 2.0, "3", 8)]
    changed = fold.apply(events)
    assert folded(changed)["a", 0]["count"] == 2
    assert set(changed) == {("a", 0)}
    assert (fold.late, fold.count, fold.newest_us) == (1, 3, 6)


def test_a_fold_is_taken_up_from_the_lake_and_sources_are_read_together(tmp_path: Path) -> None:
    config = WindowConfig(name="w", topic="t", value="x", size_s=1e-5, delay_s=2e-6)
    lake = Lake(tmp_path / "lake")
    events = {
        "s1": [
            Event("a", at, value, f"{at:03d}-1") for at, value in ((3, 0.1), (12, 0.2), (9, 5.0), (14, 7.0), (40, 1.0))
        ],
        "s2": [Event("a", at, value, f"{at:03d}-2") for at, value in ((9, 0.3), (2, -4.0), (11, 0.4))],
    }
    late = {}
    for source, stream in events.items():
        for position in range(0, len(stream), 2):
            batch = stream[position : position + 2]
            fold, at = load_fold(lake, config, source)  # as after a restart, every time
            assert at == (position or None)
            changed = fold.apply(batch)
            rows = window_rows("default", "w", source, position + len(batch), fold, changed)
            append_spans(lake, "silver.windows", [span(source, position, len(batch), rows)], fsync=False)
            late[source] = fold.late
    whole = {source: Fold(config.shape) for source in events}
    for source, fold in whole.items():
        fold.apply(events[source])
        assert load_fold(lake, config, source)[0].windows == fold.windows
    assert late == {source: fold.late for source, fold in whole.items()} == {"s1": 1, "s2": 0}
    found = {row["start_us"]: row for row in read_windows(lake, "w").to_pylist()}
    taken = [e for stream in events.values() for e in stream if e != Event("a", 9, 5.0, "009-1")]
    for start, row in found.items():
        mine = [e for e in taken if start <= e.time_us < start + 10]
        total = float(sum((Fraction(e.value) for e in mine), Fraction(0)))
        newest = max(mine, key=lambda e: (e.time_us, e.receipt))
        assert (row["count"], row["mean"], row["last"]) == (len(mine), total / len(mine), newest.value)
        assert (row["minimum"], row["maximum"]) == (min(e.value for e in mine), max(e.value for e in mine))
    assert {start: row["final"] for start, row in found.items()} == {0: False, 10: False, 40: False}
    assert read_windows(lake, "other").num_rows == 0


def span(source: str, start: int, length: int, rows: Any) -> Span:
    import numpy as np

    return Span(source, start, start + length, np.full(rows.num_rows, start), rows, whole=True)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("topics: {}", "topics: must have at least 1 items"),
        ("topics: {t: {as: colours}}", "topics.t.as: must be"),
        ("topics: {t: {as: events, mapping: {columns: {colour: x}}}}", "columns.colour: events have no such field"),
        ("topics: {t: {as: events}}\nclient: {group.id: x}", "group.id is set by rlaas"),
        (
            "topics: {t: {as: outcomes}}\nwindows: [{name: w, topic: t, value: x, size_s: 1}]",
            "windows.0.topic is 't'; allowed: a topic of events: (none)",
        ),
        (
            "topics: {t: {as: events}}\nwindows: [{name: w, topic: t, value: x, size_s: 1, slide_s: 2}]",
            "slide_s is more than size_s",
        ),
        (
            "topics: {t: {as: events}}\nwindows:\n- &w {name: w, topic: t, value: x, size_s: 1}\n- *w",
            "windows: the name 'w' occurs twice",
        ),
        ("topics: {t: {as: events}}\nbatch: {max_rows: 0}", "batch.max_rows: must be >= 1, got 0"),
    ],
)
def test_a_wrong_stream_is_refused_by_name(tmp_path: Path, document: str, message: str) -> None:
    file = tmp_path / "stream.yaml"
    file.write_text(document)
    with pytest.raises(ConfigurationError) as refused:
        load_stream_config(file)
    assert message in refused.value.message
