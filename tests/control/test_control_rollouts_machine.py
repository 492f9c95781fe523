"""The documents of rollouts, and what a rollout does next: pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.rollout_kit import NEW, OLD
from support.serving_kit import deployment

from rlaas.control.rollouts.machine import ACTIONS, Readiness, act, advance, begin
from rlaas.control.rollouts.plan import Canary, ReplicaBounds, Shadow, parse_strategy
from rlaas.control.rollouts.store import Rollout
from rlaas.errors import ConflictError, InvalidInputError
from rlaas.experiments.canary import CanaryBounds, Verdict
from rlaas.serving.live import DeploymentRecord, Variant

SECOND = 1_000_000
READY = Readiness(ready=True)


def _begin(kind: str = "canary", **strategy: Any) -> tuple[Rollout, DeploymentRecord]:
    before = deployment("toy", [{"name": "stable", "version": OLD, "weight": 3, "explore": True}], generation=7)
    target = Variant(name="stable", version=NEW, weight=0.5)
    change = begin(
        before,
        target,
        parse_strategy({"kind": kind, **strategy}),
        number=1,
        now_us=0,
        actor="ada",
        reason="because",
    )
    assert change.record is not None
    return change.rollout, change.record


def test_both_versions_are_live_under_names_of_their_own_and_the_new_one_ends_under_its_name() -> None:
    rollout, record = _begin()
    assert [(v.name, v.version, v.weight, v.explore) for v in record.variants] == [
        ("stable", OLD, 0.95, True),
        ("canary", NEW, 0.05, False),
    ]
    assert record.generation == 8
    change = act(rollout, "promote", now_us=1, actor="ada", reason="sure", readiness=READY)
    assert change.record is not None
    assert [(v.name, v.version, v.weight) for v in change.record.variants] == [("stable", NEW, 1.0)]
    assert (change.record.fallback, change.rollout.mirror) == (OLD, NEW)


@given(
    kind=st.sampled_from(["canary", "shadow", "blue_green"]),
    moves=st.lists(
        st.tuples(
            st.sampled_from([*ACTIONS, "tick"]),
            st.sampled_from(get_args(Verdict)),
            st.integers(0, 1000),
            st.booleans(),
            st.sampled_from(["", "g1: damaged"]),
        ),
        max_size=25,
    ),
)
def test_whatever_happens_one_of_the_two_serves_and_generations_have_no_gap(
    kind: str, moves: list[tuple[str, Any, int, bool, str]]
) -> None:
    rollout, record = _begin(kind)
    now = 0
    for action, verdict, seconds, ready, failure in moves:
        now += seconds * SECOND
        readiness = Readiness(ready and not failure, () if ready else ("g1",), failure)
        if not rollout.running:
            break
        try:
            change = (
                advance(rollout, now_us=now, verdict=verdict, decisions=seconds, readiness=readiness)
                if action == "tick"
                else act(rollout, action, now_us=now, actor="ada", reason="r", readiness=readiness)
            )
        except ConflictError:
            continue
        if change is None:
            continue
        assert change.rollout.revision == rollout.revision + 1
        if change.record is not None:
            assert change.record.generation == rollout.generation + 1
            record = change.record
        rollout = change.rollout
        weights = {variant.version: variant.weight for variant in record.variants}
        assert rollout.generation == record.generation
        assert set(weights) <= {OLD, NEW}
        if rollout.state == "rolled_back":
            assert record.variants == rollout.before.variants
        elif rollout.state == "switched" or rollout.mirror is not None:
            assert weights[NEW] == 1.0
        elif kind != "canary":
            assert weights[OLD] > 0
            assert weights.get(NEW, 0) == 0
    else:
        assert rollout.running or rollout.ended_us == now


def test_a_step_takes_its_time_its_decisions_and_its_evidence() -> None:
    rollout, _ = _begin(step_s=10, max_step_s=20, min_decisions=50)
    for seconds, decisions, verdict in ((9, 99, "no_harm"), (10, 49, "no_harm"), (10, 99, "undecided")):
        found = advance(rollout, now_us=seconds * SECOND, verdict=verdict, decisions=decisions)
        assert found is None
    change = advance(rollout, now_us=10 * SECOND, verdict="no_harm", decisions=50)
    assert change is not None
    assert (change.rollout.step, change.event.kind, change.rollout.step_us) == (1, "advanced", 10 * SECOND)
    assert advance(replace(rollout, held=True), now_us=99 * SECOND) is None
    last = advance(replace(rollout, step=2), now_us=10 * SECOND, verdict="no_harm", decisions=50)
    assert last is not None
    assert last.rollout.state == "succeeded"


def test_one_gateway_that_cannot_load_ends_the_first_step_only() -> None:
    rollout, _ = _begin()
    failing = Readiness(failure="g1: damaged")
    change = advance(rollout, now_us=SECOND, readiness=failing)
    assert change is not None
    assert change.rollout.state == "rolled_back"
    assert advance(replace(rollout, step=1), now_us=SECOND, readiness=failing) is None


def test_analysis_defaults_are_those_of_the_judge() -> None:
    canary = parse_strategy({"kind": "canary"})
    assert isinstance(canary, Canary)
    assert canary.analysis.bounds() == CanaryBounds()
    shadow = parse_strategy({"kind": "shadow"})
    assert isinstance(shadow, Shadow)
    assert shadow.analysis.bounds().metrics == ("errors", "latency")


@pytest.mark.parametrize(
    ("document", "field", "says"),
    [
        ("canary", "strategy", "object"),
        ({}, "strategy.kind", "blue_green, canary, shadow"),
        ({"kind": "magic"}, "strategy.kind", "blue_green, canary, shadow"),
        ({"kind": ["canary"]}, "strategy.kind", "allowed"),
        ({"kind": "canary", "stps": [0.1]}, "strategy.stps", "steps"),
        ({"kind": "canary", "steps": []}, "strategy.steps", "at least 1"),
        ({"kind": "canary", "steps": [0.5, 0.25]}, "strategy.steps", "larger than the one before"),
        ({"kind": "canary", "steps": [0.5, 1.0]}, "strategy.steps", "< 1"),
        ({"kind": "canary", "steps": [float("nan")]}, "strategy.steps", "> 0"),
        ({"kind": "canary", "step_s": 0}, "strategy.step_s", "greater than 0"),
        ({"kind": "canary", "step_s": 60, "max_step_s": 10}, "strategy", "max_step_s"),
        ({"kind": "canary", "min_decisions": 1.5}, "strategy.min_decisions", "integer"),
        ({"kind": "canary", "on_timeout": "explode"}, "strategy.on_timeout", "hold"),
        ({"kind": "canary", "analysis": {"alpha": 0}}, "strategy.analysis.alpha", "greater than 0"),
        ({"kind": "canary", "analysis": {"metrics": ["errors", "errors"]}}, "strategy.analysis.metrics", "repeats"),
        ({"kind": "canary", "analysis": {"metrics": ["speed"]}}, "strategy.analysis.metrics.0", "latency"),
        ({"kind": "shadow", "analysis": {"metrics": ["reward"]}}, "strategy.analysis", "reward"),
        ({"kind": "blue_green", "auto_switch": "yes"}, "strategy.auto_switch", "boolean"),
        ({"kind": "blue_green", "keep_s": -1}, "strategy.keep_s", "greater than 0"),
    ],
)
def test_impossible_strategies_are_refused_by_field(document: Any, field: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_strategy(document)
    assert caught.value.field == field
    assert says in caught.value.message


def test_bounds_of_the_pool_are_ordered() -> None:
    assert ReplicaBounds(min_replicas=2, max_replicas=2).max_replicas == 2
    with pytest.raises(ValidationError, match="max_replicas"):
        ReplicaBounds(min_replicas=3, max_replicas=2)


# --- what a deployment record says ----------------------------------------------------------------------------------


def test_documents_of_before_are_read_and_shadows_have_no_weight() -> None:
    old = {
        "schema_version": 1,
        "id": "dep-1",
        "tenant": "default",
        "policy": "toy",
        "generation": 1,
        "variants": [{"name": "a", "version": 1, "weight": 1, "explore": True}],
        "experiment": None,
        "updated_us": 1,
    }
    record = DeploymentRecord.model_validate(old)
    assert (record.fallback, record.variants[0].shadow, record.variants[0].epsilon) == (None, False, 0.0)
    for change in ({"shadow": True}, {"epsilon": 1.5}, {"epsilon": -0.1}, {"epsilon": "0.1"}, {"shadow": 1}):
        with pytest.raises(ValidationError):
            DeploymentRecord.model_validate({**old, "variants": [{**old["variants"][0], **change}]})
    for fallback in (0, 1.5, "1"):
        with pytest.raises(ValidationError):
            DeploymentRecord.model_validate({**old, "fallback": fallback})
