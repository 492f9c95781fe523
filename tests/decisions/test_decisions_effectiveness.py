"""Regret against what is known later, and figures over windows, against plain recounts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.resolution_log import ResolutionLog

from rlaas.decisions import resolve
from rlaas.decisions.effectiveness import Resolution, settle
from rlaas.decisions.fallback import FallbackResolver
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, Rule

OBJECTIVES = (
    Objective(name="latency", unit="ms", direction="minimize", low=0.0, high=10.0),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0.0, high=20.0),
)


def _front(**values: tuple[float, float]) -> Front:
    members = [Candidate(name=k, kind="policy", mean=v, half_width=(0.0, 0.0)) for k, v in values.items()]
    return Front(scenario="toy", objectives=OBJECTIVES, candidates=tuple(members))


def _resolution(number: int = 1, **changes: Any) -> Resolution:
    fields: dict[str, Any] = {
        "id": f"r{number:03}",
        "time_us": number * 1_000_000,
        "scenario": "toy",
        "mode": "normal",
        "step": "live",
        "candidate": "mine",
        "values": {"latency": 5.0, "throughput": 10.0},
        "weights": {"latency": 0.25, "throughput": 0.75},
        **changes,
    }
    return Resolution(**fields)


LATER = _front(mine=(4.0, 10.0), better=(5.0, 16.0), fastest=(0.0, 11.0))


def test_regret_is_the_weighted_goodness_that_was_missed() -> None:
    settled = settle(_resolution(), LATER, time_us=9)
    assert settled is not None
    # By the later front mine has goodness (.6, .5), better (.5, .8), fastest (1, .55).
    assert settled.utility == pytest.approx(0.25 * 0.6 + 0.75 * 0.5)
    assert (settled.best, settled.best_utility) == ("better", pytest.approx(0.25 * 0.5 + 0.75 * 0.8))
    assert settled.regret == pytest.approx(0.2)
    assert not settled.observed
    assert json.loads(json.dumps(settled.to_dict()))["regret"] == settled.regret


def test_what_the_choice_is_valued_by() -> None:
    gone = settle(_resolution(candidate="gone"), LATER, time_us=9)
    assert gone is not None
    assert gone.utility == pytest.approx(0.25 * 0.5 + 0.75 * 0.5), "the values known then"
    outcome = {"latency": 8.0, "throughput": 4.0}
    observed = settle(_resolution(), LATER, time_us=9, outcome=outcome)
    assert observed is not None
    assert observed.observed
    assert observed.utility == pytest.approx(0.25 * 0.2 + 0.75 * 0.2)
    lucky = settle(_resolution(), LATER, time_us=9, outcome={"latency": 0.0, "throughput": 20.0})
    assert lucky is not None
    assert (lucky.regret, lucky.best) == (0.0, "mine")
    assert settle(_resolution(candidate="unknown", values={}), LATER, time_us=9) is None


def test_only_candidates_that_keep_the_rules_are_regretted() -> None:
    rules = (Rule(objective="latency", at_most=4.5),)
    settled = settle(_resolution(rules=rules), LATER, time_us=9)
    assert settled is not None
    assert settled.best == "fastest"

    class NotFastest:
        def violations(self, front: Front) -> np.ndarray[Any, Any]:
            return np.array([[float(c.name == "fastest")] for c in front.candidates])

        def describe(self) -> tuple[str, ...]:
            return ("not fastest",)

    alone = settle(_resolution(rules=rules), LATER, time_us=9, rules=NotFastest())
    assert alone is not None
    assert (alone.best, alone.regret) == ("mine", 0.0)
    impossible = settle(_resolution(rules=(Rule(objective="latency", at_most=-1.0),)), LATER, time_us=9)
    assert impossible is not None
    assert impossible.regret == 0.0


@given(
    points=st.lists(st.tuples(st.floats(0, 10), st.floats(0, 20)), min_size=1, max_size=8),
    weight=st.floats(0.01, 0.99),
)
def test_the_best_choice_has_no_regret_and_no_choice_a_negative_one(
    points: list[tuple[float, float]], weight: float
) -> None:
    front = _front(**{f"c{i}": point for i, point in enumerate(points)})
    mode = Mode(name="m", preference=Preference.of(OBJECTIVES, [weight, 1 - weight]))
    best = resolve(front, mode=mode, method="weighted_sum").candidate
    for candidate in front.candidates:
        record = _resolution(
            candidate=candidate.name,
            values=candidate.objectives(front.names),
            weights=mode.preference.to_dict(),
        )
        settled = settle(record, front, time_us=1)
        assert settled is not None
        assert settled.regret >= 0
        if candidate == best:
            assert settled.regret == pytest.approx(0.0, abs=1e-9)


def test_of_an_answer() -> None:
    front = _front(fast=(2.0, 5.0), wide=(9.0, 19.0))
    mode = Mode(
        name="normal",
        preference=Preference.of(OBJECTIVES, [0.5, 0.5]),
        rules=(Rule(objective="latency", at_most=3.0),),
    )
    with FallbackResolver("toy", OBJECTIVES, live=front, safe_default={"power": 1}) as resolver:
        answer = resolver.resolve(mode, deadline=60)
        record = Resolution.of(answer, scenario="toy", names=front.names, mode=mode, time_us=5)
    assert (record.step, record.candidate, record.rules_hit) == ("live", "fast", ("latency <= 3",))
    assert record.values == {"latency": 2.0, "throughput": 5.0}
    assert answer.choice is not None
    assert record.front_version == answer.choice.certificate.front_version != ""
    assert Resolution.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    with FallbackResolver("toy", OBJECTIVES, safe_default={"power": 1}) as resolver:
        answer = resolver.resolve(mode, deadline=60)
    record = Resolution.of(answer, scenario="toy", names=front.names, mode=mode, time_us=6, id_="given")
    assert (record.id, record.step, record.values, record.front_version) == ("given", "safe_default", {}, "")


def test_figures_count_what_happened() -> None:
    log = ResolutionLog()
    story = [
        ("normal", "a", "live", ()),
        ("normal", "b", "live", ("latency <= 3", "latency <= 3")),
        ("emergency", "b", "last_good", ("latency <= 3", "energy <= 9")),
        ("normal", "a", "live", ()),
    ]
    for number, (mode, candidate, step, hit) in enumerate(story, start=1):
        log.record(_resolution(number, mode=mode, candidate=candidate, step=step, rules_hit=hit))
    log.record(_resolution(1, mode="normal", candidate="a"))  # again: counted once
    settled = log.settle(_front(a=(5.0, 10.0), b=(5.0, 8.0)), time_us=3_500_000)
    assert [one.id for one in settled] == ["r001", "r002", "r003"], "r004 is later than the front"
    figures = log.effectiveness(since_us=0, until_us=10_000_000)
    assert figures.by_step == {"last_good": 1, "live": 3}
    assert figures.by_mode == {"emergency": 1, "normal": 3}
    assert figures.rule_hits == {"energy <= 9": 1, "latency <= 3": 2}
    assert (figures.mode_changes, figures.choice_changes) == (2, 2)
    assert (figures.settled, figures.resolutions) == (3, 4)
    assert figures.mean_regret == pytest.approx((0 + 0.075 + 0.075) / 3)
    assert figures.worst_regret == pytest.approx(0.075)
    assert figures.mean_regret_by_mode == pytest.approx({"emergency": 0.075, "normal": 0.0375})
    # A change is counted in the window of the resolution that made it.
    starts = range(1_000_000, 5_000_000, 1_000_000)
    windows = [log.effectiveness(since_us=at, until_us=at + 1_000_000) for at in starts]
    assert [w.mode_changes for w in windows] == [0, 0, 1, 1]
    assert [w.resolutions for w in windows] == [1, 1, 1, 1]
    assert (windows[-1].mean_regret, windows[-1].worst_regret, windows[-1].settled) == (None, None, 0)
    assert json.loads(json.dumps(figures.to_dict()))["by_step"] == {"last_good": 1, "live": 3}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"candidate": "a\0b"}, "candidate"),
        ({"mode": "\ud800"}, "mode"),
        ({"rules_hit": ("",)}, "rules_hit"),
        ({"time_us": True}, "time_us"),
        ({"time_us": -1}, "time_us"),
        ({"time_us": 2**63}, "time_us"),
        ({"step": "guess"}, "step"),
        ({"weights": {"latency": 0.0, "throughput": 0.0}}, "weights"),
        ({"values": {"latency": 1.0}}, "values"),
        ({"values": {"latency": 1.0, "throughput": float("nan")}}, "values.throughput"),
        ({"values": {"latency": 1.0, "throughput": True}}, "values.throughput"),
    ],
)
def test_bad_records(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _resolution(**changes)
    assert caught.value.field == field


def test_bad_documents_fronts_and_outcomes() -> None:
    good = _resolution().to_dict()
    for bad in ({**good, "schema_version": 9}, {**good, "more": 1}, {k: v for k, v in good.items() if k != "rules"}):
        with pytest.raises(InvalidInputError):
            Resolution.from_dict(bad)
    other = Front(scenario="toy", objectives=OBJECTIVES[:1], candidates=())
    with pytest.raises(InvalidInputError, match="0 candidates over latency"):
        settle(_resolution(), other, time_us=1)
    for outcome in ({"latency": 1.0}, {"latency": 1.0, "throughput": float("inf")}):
        with pytest.raises(InvalidInputError, match="outcome"):
            settle(_resolution(), LATER, time_us=1, outcome=outcome)
