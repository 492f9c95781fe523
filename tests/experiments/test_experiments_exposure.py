from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rlaas.errors import InvalidInputError
from rlaas.experiments.exposure import UnitEntries
from rlaas.experiments.metrics import (
    CountMetric,
    Guardrail,
    MeanMetric,
    Metric,
    ProportionMetric,
    QuantileMetric,
    RatioMetric,
    Winsorising,
)
from rlaas.experiments.records import Entry, Exposure, Outcome

SECOND = 1_000_000
REWARD = MeanMetric(name="reward", value="reward", window_s=10, lateness_s=2)
FOREVER = 10**15

Record = Exposure | Outcome


def exposure(unit: str, at: float, *, arm: str = "a", received: float | None = None, **options: Any) -> Exposure:
    time = round(at * SECOND)
    return Exposure(
        unit=unit,
        arm=arm,
        time_us=time,
        received_us=time if received is None else round(received * SECOND),
        **options,
    )


def outcome(
    unit: str, at: float, value: float, *, received: float | None = None, revision: int = 0, name: str = "o"
) -> Outcome:
    return Outcome(
        outcome_id=name,
        unit=unit,
        time_us=round(at * SECOND),
        received_us=round((at if received is None else received) * SECOND),
        values={"reward": value},
        revision=revision,
    )


def feed(stream: UnitEntries, records: Sequence[Record]) -> None:
    for record in records:
        if isinstance(record, Exposure):
            stream.expose(record)
        else:
            stream.observe(record)


def entries_of(records: Sequence[Record], metric: Metric = REWARD) -> list[Entry]:
    stream = UnitEntries(metric)
    feed(stream, records)
    return stream.advance(FOREVER)


def values(entries: Sequence[Entry]) -> dict[str, float]:
    return {entry.unit: entry.numerator for entry in entries}


def test_a_unit_enters_once_its_window_and_the_wait_are_over() -> None:
    stream = UnitEntries(REWARD)
    feed(stream, [exposure("u", 100), outcome("u", 105, 2.0)])
    assert stream.advance(112 * SECOND) == []
    assert stream.waiting == 1
    assert stream.advance(112 * SECOND + 1) == [Entry(unit="u", arm="a", exposed_us=100 * SECOND, numerator=2.0)]
    assert stream.advance(FOREVER) == []
    assert stream.waiting == 0


def test_a_unit_without_an_outcome_counts_with_zero() -> None:
    assert values(entries_of([exposure("u", 0), exposure("v", 1), outcome("v", 2, 3.0)])) == {"u": 0.0, "v": 3.0}


def test_only_the_window_counts() -> None:
    found = entries_of(
        [
            exposure("u", 100),
            outcome("u", 99.9, 1.0, name="before"),
            outcome("u", 100, 2.0, name="at the start"),
            outcome("u", 109.9, 4.0, name="at the end"),
            outcome("u", 110, 8.0, name="after"),
        ]
    )
    assert values(found) == {"u": 6.0}


def test_order_is_by_exposure_then_name() -> None:
    records = [exposure(unit, at) for unit, at in [("c", 5), ("a", 7), ("b", 5), ("d", 1)]]
    assert [entry.unit for entry in entries_of(records)] == ["d", "b", "c", "a"]


def test_the_first_exposure_counts_with_what_was_known_then() -> None:
    found = entries_of(
        [
            exposure("u", 105, covariates={"before": 2.0}, attributes={"country": "FR"}, propensity=0.9),
            exposure("u", 100, covariates={"before": 1.0}, attributes={"country": "DE"}, propensity=0.5),
            outcome("u", 112, 5.0),
        ]
    )
    (entry,) = found
    assert entry.exposed_us == 100 * SECOND
    assert (entry.covariates, entry.attributes) == ({"before": 1.0}, {"country": "DE"})
    assert entry.propensity == 0.5
    assert entry.numerator == 0.0


def test_the_highest_revision_received_in_time_counts() -> None:
    revised = [
        exposure("u", 0),
        outcome("u", 3, 7.0, revision=2, received=11.9),
        outcome("u", 3, 1.0, revision=0),
        outcome("u", 3, 5.0, revision=1, received=4),
        outcome("u", 3, 9.0, revision=3, received=12.1),
    ]
    stream = UnitEntries(REWARD)
    feed(stream, revised)
    assert values(stream.advance(FOREVER)) == {"u": 7.0}
    assert [(record.reason, record.record) for record in stream.audit] == [("late outcome", revised[-1])]


def test_an_outcome_can_be_taken_back_or_moved_out_of_the_window() -> None:
    back = Outcome(outcome_id="o", unit="u", time_us=3, received_us=4, values={}, revision=1)
    assert values(entries_of([exposure("u", 0), outcome("u", 0, 2.0), back])) == {"u": 0.0}
    assert values(entries_of([exposure("u", 0), outcome("u", 1, 2.0), outcome("u", 11, 2.0, revision=1)])) == {"u": 0.0}


def test_a_record_from_before_the_exposure_corrects_nothing() -> None:
    """It may have been let go before the exposure came in, so it must not count where it was not."""
    records = [
        outcome("u", 0, 9.0, revision=1),
        exposure("u", 1, received=13),
        outcome("u", 1, 1.0, received=13),
    ]
    stream = UnitEntries(REWARD)
    stream.observe(records[0])  # type: ignore[arg-type]
    assert stream.advance(13 * SECOND) == []
    assert stream.waiting == 0
    feed(stream, records[1:])
    assert values(stream.advance(FOREVER)) == values(entries_of(records)) == {"u": 1.0}


def test_what_comes_later_changes_nothing_and_is_written_down() -> None:
    stream = UnitEntries(REWARD)
    feed(stream, [exposure("u", 0), outcome("u", 3, 1.0)])
    entered = stream.advance(20 * SECOND)
    late: list[Record] = [
        outcome("u", 3, 100.0, revision=1, received=21),
        outcome("u", 4, 50.0, name="new", received=21),
        exposure("u", 20, arm="b", received=21),
        exposure("w", 1, received=21),
    ]
    silent = [exposure("u", 19, received=21), outcome("u", 15, 5.0, name="beyond", received=21)]
    feed(stream, [*late, *silent])
    assert stream.advance(FOREVER) == []
    assert values(entered) == {"u": 1.0}
    reasons = ["late outcome", "late outcome", "two arms", "late exposure"]
    assert [(record.reason, record.record) for record in stream.audit] == list(zip(reasons, late, strict=True))


def test_a_record_fed_behind_its_time_counts_as_received_then() -> None:
    stream = UnitEntries(REWARD)
    stream.expose(exposure("u", 10))
    assert stream.advance(22 * SECOND) == []
    stream.observe(outcome("u", 11, 1.0))
    stream.expose(exposure("v", 9))
    assert values(stream.advance(FOREVER)) == {"u": 1.0}
    assert [record.reason for record in stream.audit] == ["late exposure"]


def test_a_unit_seen_in_two_arms_does_not_enter() -> None:
    stream = UnitEntries(REWARD)
    crossed = [exposure("u", 0), exposure("u", 5, arm="b")]
    feed(stream, [*crossed, exposure("v", 1)])
    assert values(stream.advance(FOREVER)) == {"v": 0.0}
    assert [(record.reason, record.record) for record in stream.audit] == [("two arms", one) for one in crossed]
    # Once it has entered the other arm cannot push it out any more.
    assert values(entries_of([exposure("u", 0), exposure("u", 12.1, arm="b")])) == {"u": 0.0}


def test_outcomes_of_nobody_are_let_go() -> None:
    stream = UnitEntries(REWARD)
    feed(stream, [outcome("ghost", 0, 1.0), outcome("ghost", 50, 1.0, name="p"), exposure("u", 45)])
    assert stream.advance(40 * SECOND) == []
    assert [record.reason for record in stream.audit] == ["no exposure"]
    assert stream.waiting == 2
    assert values(stream.advance(FOREVER)) == {"u": 0.0}
    assert stream.waiting == 0


UNITS = st.sampled_from("uvwx")
TIMES = st.integers(0, 30)
EXPOSURES = st.builds(
    lambda unit, time, delay, arm, x: exposure(unit, time, arm=arm, received=time + delay, covariates={"x": x}),
    UNITS,
    TIMES,
    st.integers(0, 15),
    st.sampled_from(["a", "a", "a", "b"]),
    st.floats(-5, 5),
)
OUTCOMES = st.builds(
    lambda unit, time, delay, value, revision, name: outcome(
        unit, time, value, received=time + delay, revision=revision, name=name
    ),
    UNITS,
    TIMES,
    st.integers(0, 15),
    st.floats(-5, 5),
    st.integers(0, 3),
    st.sampled_from("pqr"),
)
RECORDS = st.lists(EXPOSURES | OUTCOMES, max_size=30)


@settings(deadline=None)
@given(RECORDS, st.randoms(use_true_random=False))
def test_any_order_of_arrival_before_the_end_gives_the_same_entries(records: list[Record], rng: random.Random) -> None:
    shuffled = list(records)
    rng.shuffle(shuffled)
    assert entries_of(shuffled) == entries_of(records)


@settings(deadline=None)
@given(RECORDS, st.lists(st.integers(0, 60), max_size=12), st.randoms(use_true_random=False))
def test_following_live_gives_what_reading_the_log_gives(
    records: list[Record], looks: list[int], rng: random.Random
) -> None:
    """However often one looks, and in whatever order records of one slice come."""
    stream, live, left = UnitEntries(REWARD), [], list(records)
    rng.shuffle(left)
    for now in [*sorted(looks), 1_000]:
        feed(stream, [record for record in left if record.received_us < now * SECOND])
        left = [record for record in left if record.received_us >= now * SECOND]
        live += stream.advance(now * SECOND)
    assert live == entries_of(records)
    assert [(e.exposed_us, e.unit) for e in live] == sorted((e.exposed_us, e.unit) for e in live)
    assert len({e.unit for e in live}) == len(live)
    assert stream.waiting == 0


@settings(deadline=None)
@given(RECORDS, RECORDS)
def test_late_records_never_change_a_value(records: list[Record], later: list[Record]) -> None:
    stream = UnitEntries(REWARD)
    feed(stream, records)
    entered = stream.advance(60 * SECOND)
    before = len(stream.audit)
    feed(stream, later)  # all of them received by now, and too late
    assert stream.advance(FOREVER) == []
    assert entered == entries_of(records)
    exposures = sum(isinstance(record, Exposure) for record in later)
    assert sum(a.reason == "late exposure" for a in stream.audit[before:]) == exposures


def one(metric: Metric, *rows: dict[str, float]) -> Entry:
    outcomes = [
        Outcome(outcome_id=str(i), unit="u", time_us=i, received_us=i, values=row) for i, row in enumerate(rows)
    ]
    (entry,) = entries_of([exposure("u", 0), *outcomes], metric)
    return entry


def test_how_outcomes_become_a_value() -> None:
    rows = [{"x": 3.0, "n": 2.0}, {"x": -1.0}, {"n": 1.0}, {}]
    assert one(MeanMetric(name="m", window_s=9, value="x"), *rows).numerator == 2.0
    assert one(CountMetric(name="m", window_s=9, value="x"), *rows).numerator == 2.0
    assert one(ProportionMetric(name="m", window_s=9, value="x", above=2.5), *rows).numerator == 1.0
    assert one(ProportionMetric(name="m", window_s=9, value="x", above=3.0), *rows).numerator == 0.0
    ratio = one(RatioMetric(name="m", window_s=9, numerator="x", denominator="n"), *rows)
    assert (ratio.numerator, ratio.denominator) == (2.0, 3.0)
    assert one(QuantileMetric(name="m", window_s=9, value="x", quantile=0.5), *rows).values == (3.0, -1.0)
    assert one(QuantileMetric(name="m", window_s=9, value="x", quantile=0.5)).values == ()


@pytest.mark.parametrize(
    ("record", "field", "message"),
    [
        (outcome("u", 0, float("nan")), "values.reward", "must be a number of size at most 1e\\+100, got nan"),
        (outcome("u", 0, 1e101), "values.reward", "must be a number"),
        (outcome("u", 0, 10**400), "values.reward", "must be a number"),
        (outcome("u", 0, "1"), "values.reward", "must be a number"),  # type: ignore[arg-type]
        (outcome(7, 0, 1.0), "unit", "unit must be text, got 7"),  # type: ignore[arg-type]
        (outcome("u", 0, 1.0, revision=0.5), "revision", "must be a whole number"),  # type: ignore[arg-type]
        (exposure("u", 0, arm=None), "arm", "arm must be text"),  # type: ignore[arg-type]
        (exposure("u", 0, covariates={"x": float("inf")}), "covariates.x", "must be a number"),
        (exposure("u", 0, propensity=0.0), "propensity", r"propensity must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_records_are_refused_when_they_come(record: Record, field: str, message: str) -> None:
    stream = UnitEntries(REWARD)
    with pytest.raises(InvalidInputError, match=message) as caught:
        feed(stream, [record])
    assert caught.value.field == field
    assert stream.waiting == 0


def test_a_negative_denominator_is_refused_when_it_comes() -> None:
    stream = UnitEntries(RatioMetric(name="m", window_s=9, numerator="x", denominator="reward"))
    with pytest.raises(InvalidInputError, match=r"values\.reward must be >= 0 as the denominator of m, got -1"):
        stream.observe(outcome("u", 0, -1.0))


def test_metrics_are_told_apart_by_kind_and_survive_json() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Metric)
    for metric in (
        REWARD,
        CountMetric(name="n", window_s=1, value="x", winsorise=Winsorising(upper=0.99), cuped="before"),
        ProportionMetric(name="p", window_s=1, value="x", segments=("country",), better="lower"),
        RatioMetric(name="r", window_s=1, numerator="x", denominator="y"),
        QuantileMetric(name="q", window_s=1, value="x", quantile=0.95),
    ):
        assert adapter.validate_json(adapter.dump_json(metric)) == metric


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "median"}, "'mean', 'count', 'proportion', 'ratio', 'quantile'"),
        ({"kind": "mean", "name": "m", "value": "x", "window_s": 0}, "greater than 0"),
        ({"kind": "quantile", "name": "m", "value": "x", "window_s": 1, "quantile": 1}, "less than 1"),
        ({"kind": "quantile", "name": "m", "value": "x", "window_s": 1, "quantile": 0.5, "cuped": "y"}, "Extra"),
        ({"kind": "mean", "name": "m m", "value": "x", "window_s": 1}, "not a plain name"),
        ({"kind": "mean", "name": "m", "value": "x", "window_s": 1, "segments": ["a", "a"]}, "must be different"),
        (
            {"kind": "mean", "name": "m", "value": "x", "window_s": 1, "winsorise": {"lower": 0.9, "upper": 0.1}},
            "lower must be below upper, got 0.9 and 0.1",
        ),
    ],
)
def test_bad_metrics_are_named(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Metric).validate_python(document)


def test_a_margin_in_per_cent_is_noticed() -> None:
    with pytest.raises(ValidationError, match="must be below 1, got 2; is it in per cent"):
        Guardrail(metric=REWARD, margin=2)
    assert Guardrail(metric=REWARD, margin=2, relative=False).margin == 2
