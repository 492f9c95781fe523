"""Rollouts on a real database: steps, verdicts, blue-green, shadow, and controllers that come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.rollout_kit import NEW, OLD, TARGET, World
from support.serving_kit import deployment

from rlaas.control.rollouts import Lease
from rlaas.control.rollouts.evidence import increments
from rlaas.errors import ConflictError, InvalidInputError, RetryableError
from rlaas.experiments.canary import Counts


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_good_canary_climbs_its_steps_and_the_alias_follows(world: World) -> None:
    world.start(steps=[0.05, 0.5])
    assert world.shares == {OLD: 0.95, NEW: 0.05}
    assert world.live.fallback == OLD
    seen = []
    for _ in range(400):
        world.second(new=30)
        seen.append(world.shares.get(NEW))
        if world.rollout()["state"] != "running":
            break
    assert world.rollout()["state"] == "succeeded"
    assert world.kinds() == ["started", "advanced", "succeeded"]
    assert [share for share, before in zip(seen, [None, *seen], strict=False) if share != before] == [0.05, 0.5, 1.0]
    assert (world.live.variants[0].name, world.live.fallback, world.live.generation) == ("champion", OLD, 4)
    world.second()
    assert world.mirrored == [("toy", NEW)]
    world.second()
    assert world.mirrored == [("toy", NEW)]
    evidence = world.rollout()["events"][1]["evidence"]["errors"]
    assert evidence["says"] == "no_harm"
    assert evidence["no_harm"] >= 20


@pytest.mark.parametrize(
    ("metric", "harm"),
    [("errors", {"errors": 0.2}), ("latency", {"slow": True}), ("reward", {"utility": 0.45})],
)
@pytest.mark.parametrize("seed", range(3))
def test_harm_is_rolled_back_within_a_minute_though_the_controller_is_replaced_every_second(
    tmp_path: Path, metric: str, harm: dict[str, Any], seed: int
) -> None:
    world = World(tmp_path)
    world.gateways.rng = world.gateways.rng.spawn(seed + 1)[seed]
    world.start(analysis={})
    world.second(new=0)
    for _ in range(60):
        world.controller = world.another(holder="the same place")
        world.controller._lease.epoch = 1  # the lease of a process that was restarted at once, without the wait
        world.second(**harm)
        if world.rollout()["state"] == "rolled_back":
            break
    assert world.rollout()["state"] == "rolled_back"
    event = world.rollout()["events"][-1]
    assert (event["actor"], event["reason"]) == ("controller", f"harm shown in: {metric}")
    assert world.shares == {OLD: 1.0}
    assert world.live.generation == 3
    # Nothing was lost and nothing counted twice by any of them.
    assert event["evidence"]["errors"]["canary_count"] == world.gateways.attempts[NEW]


def test_evidence_that_comes_while_no_controller_runs_is_counted_once(world: World) -> None:
    world.start()
    world.second()
    baseline = dict(world.gateways.attempts)
    for second in range(40):
        world.second(tick=second % 7 == 0)
        world.gateways.report(world.live.generation)  # the same again, as after a lost reply
        if second % 5 == 0:
            world.controller.tick()
    world.controller.tick()
    seen = world.rollout()["evidence"]["errors"]
    assert seen["canary_count"] == world.gateways.attempts[NEW] - baseline[NEW]
    assert seen["stable_count"] == world.gateways.attempts[OLD] - baseline[OLD]


def test_a_failed_transaction_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies between any two statements: here at the last one, the counters."""
    world.start()
    world.second()
    world.second()
    before, live = world.rollout(), world.live
    store = world.controller._store

    def dies(*_: Any) -> None:
        raise RetryableError("the process is gone")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_write_counters", dies)
        with pytest.raises(RetryableError):
            world.second(errors=1.0, new=50)
    assert (world.rollout(), world.live) == (before, live)
    world.controller = world.another()
    world.now_us += 10_000_000
    world.second()
    assert world.kinds() == ["started", "rolled_back"]
    assert world.shares == {OLD: 1.0}


def test_a_controller_that_has_lost_the_lease_cannot_write(world: World) -> None:
    world.start()
    world.second()
    stale = world.controller
    world.now_us += 6_000_000  # it was stopped for longer than the lease lasts
    fresh = world.another()
    world.gateways.report(world.live.generation)
    fresh.tick()
    world.gateways.serve()
    world.gateways.report(world.live.generation)
    world.service.reports.flush()
    rollout = world.service.store.running()[0]
    with pytest.raises(ConflictError, match="lease"):
        stale._reconcile(rollout, world.service.reports.all())
    fresh.tick()
    world.second(errors=1.0, new=40, tick=False)
    before = world.rollout()
    stale.tick()  # it learns that it is one no longer
    assert world.rollout() == before
    fresh.tick()
    assert world.rollout()["state"] == "rolled_back"


def test_a_lease_changes_hands_only_when_it_has_run_out_or_was_given_up(world: World) -> None:
    first, second = (Lease(world.database, "x", clock=world.clock) for _ in range(2))
    assert first.hold()
    assert first.hold()
    assert not second.hold()
    world.now_us += 4_000_000
    assert first.hold()
    world.now_us += 4_000_000
    assert not second.hold()
    world.now_us += 2_000_000
    assert second.hold()
    assert second.epoch == 2
    assert not first.hold()
    second.release()
    assert first.hold()
    assert first.epoch == 3


def test_undecided_rollouts_hold_or_give_up(world: World) -> None:
    world.start(max_step_s=10, min_decisions=10**6)
    for _ in range(15):
        world.second()
    assert world.kinds() == ["started", "held"]
    assert world.shares == {OLD: 0.95, NEW: 0.05}
    number = world.rollout()["number"]
    world.service.act("toy", number, "rollback", actor="ada", reason="no time")
    assert world.rollout()["events"][-1]["actor"] == "ada"
    world.start(max_step_s=10, min_decisions=10**6, on_timeout="rollback")
    for _ in range(15):
        world.second()
    assert world.kinds() == ["started", "rolled_back"]
    assert "undecided after 10 s" in world.rollout()["events"][-1]["reason"]
    assert [one["number"] for one in world.service.history("toy")] == [2, 1]


def test_a_second_rollout_of_a_version_does_not_remember_the_first(world: World) -> None:
    world.start()
    for _ in range(30):
        world.second(errors=1.0)
        if world.rollout()["state"] != "running":
            break
    assert world.rollout()["state"] == "rolled_back"
    world.start()
    for _ in range(3):
        world.second()
    assert world.rollout()["state"] == "running"
    assert world.rollout()["evidence"]["errors"]["canary_loss"] == 0


def test_a_paused_canary_waits_but_harm_ends_it(world: World) -> None:
    world.start()
    world.second()
    world.service.act("toy", 1, "pause", actor="ada", reason="lunch")
    for _ in range(40):
        world.second(new=30)
    assert (world.rollout()["state"], world.rollout()["step"]) == ("paused", 0)
    with pytest.raises(ConflictError, match="running"):
        world.service.act("toy", 1, "pause", actor="ada", reason="again")
    world.service.act("toy", 1, "resume", actor="ada", reason="back")
    for _ in range(7):
        world.second(new=30)
    assert world.kinds() == ["started", "paused", "resumed", "advanced"]
    world.service.act("toy", 1, "pause", actor="ada", reason="dinner")
    for _ in range(30):
        world.second(errors=1.0, new=20)
    assert world.rollout()["state"] == "rolled_back"
    with pytest.raises(ConflictError, match="has ended"):
        world.service.act("toy", 1, "promote", actor="ada", reason="after all")


def test_blue_green_switches_when_every_gateway_has_loaded_it_and_back_at_once(world: World) -> None:
    world.start(kind="blue_green", keep_s=100)
    assert world.shares == {OLD: 1.0, NEW: 0.0}
    world.second(loaded=False)
    assert world.rollout()["state"] == "warming"
    with pytest.raises(ConflictError, match="g1, g2"):
        world.service.act("toy", 1, "switch", actor="ada", reason="now")
    world.second()
    assert (world.rollout()["state"], world.shares) == ("switched", {OLD: 0.0, NEW: 1.0})
    world.service.act("toy", 1, "switch-back", actor="ada", reason="looks odd")
    assert (world.rollout()["state"], world.shares) == ("standby", {OLD: 1.0, NEW: 0.0})
    world.second()
    assert world.rollout()["state"] == "standby"
    world.service.act("toy", 1, "switch", actor="ada", reason="was the dashboard")
    assert world.shares == {OLD: 0.0, NEW: 1.0}
    world.now_us += 100_000_000
    world.second()
    assert (world.rollout()["state"], world.shares) == ("succeeded", {NEW: 1.0})
    assert world.kinds() == ["started", "switched", "switched_back", "switched", "succeeded"]


def test_blue_green_can_wait_for_the_operator_and_gives_up_what_does_not_load(world: World) -> None:
    world.start(kind="blue_green", auto_switch=False, warm_s=30)
    world.second()
    assert (world.rollout()["state"], world.shares[OLD]) == ("standby", 1.0)
    world.service.act("toy", 1, "rollback", actor="ada", reason="not today")
    world.start(kind="blue_green", warm_s=30)
    for _ in range(31):
        world.second(loaded=False)
    assert "not loaded everywhere" in world.rollout()["events"][-1]["reason"]
    world.start(kind="blue_green")
    world.gateways.failures = {"dep-toy": "bundle is damaged"}
    for _ in range(6):
        world.second(loaded=False)
    assert world.rollout()["state"] == "rolled_back"
    assert "g1: bundle is damaged" in world.rollout()["events"][-1]["reason"]
    assert world.shares == {OLD: 1.0}


def test_a_shadow_is_compared_and_never_serves(world: World) -> None:
    world.start(kind="shadow")
    shadow = world.live.variants[1]
    assert (shadow.shadow, shadow.weight, shadow.version) == (True, 0.0, NEW)
    for _ in range(30):
        world.second(new=95)
        if world.rollout()["state"] != "running":
            break
    assert world.rollout()["state"] == "succeeded"
    assert world.shares == {OLD: 1.0}
    world.second()
    assert world.mirrored == []
    world.start(kind="shadow")
    world.second()
    for _ in range(30):
        world.second(new=95, errors=0.2)
    assert world.rollout()["state"] == "rolled_back"


def test_what_was_changed_past_a_rollout_is_left_alone(world: World) -> None:
    world.start()
    world.second()
    other = [{"name": "champion", "version": 7, "weight": 1}]
    world.database.write(deployment("toy", other, generation=3))
    world.second()
    assert world.kinds() == ["started", "aborted"]
    assert world.shares == {7: 1.0}


@pytest.mark.parametrize(
    ("live", "variants", "error", "field"),
    [
        ([OLD], [*TARGET, *TARGET], InvalidInputError, "variants"),
        ([OLD], [{"name": "x", "version": 0, "weight": 1}], InvalidInputError, "variants.0.version"),
        ([NEW], TARGET, ConflictError, "variants"),
        ([OLD, 3], TARGET, ConflictError, "strategy"),
        ([], TARGET, ConflictError, "strategy"),
    ],
)
def test_a_rollout_needs_one_version_to_begin_from_and_another_to_reach(
    world: World, live: list[int], variants: list[Any], error: type[Exception], field: str
) -> None:
    shares = [{"name": f"v{version}", "version": version, "weight": 1} for version in live]
    before = deployment("toy", shares) if live else None
    with pytest.raises(error) as caught:
        world.service.start(before, variants, {"kind": "canary"}, check=lambda record: None)
    assert getattr(caught.value, "field", None) == field
    assert world.service.history("toy") == []


def test_a_process_that_is_new_sets_its_baseline_and_an_old_report_changes_nothing(world: World) -> None:
    world.gateways.serve()
    world.gateways.report()
    world.service.reports.flush()
    reports = world.service.reports.all()
    grown, last = increments(reports, {}, "toy", (OLD, NEW))
    assert grown == {OLD: Counts(), NEW: Counts()}
    assert increments(reports, last, "toy", (OLD, NEW)) == ({OLD: Counts(), NEW: Counts()}, {})
    world.gateways.serve()
    world.gateways.report()
    world.service.reports.flush()
    grown, later = increments(world.service.reports.all(), last, "toy", (OLD, NEW))
    assert grown[NEW].decisions + grown[NEW].errors == 5
    assert grown[OLD].decisions + grown[OLD].errors == 95
    assert increments(reports, later, "toy", (OLD, NEW)) == ({OLD: Counts(), NEW: Counts()}, {})
