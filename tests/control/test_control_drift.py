"""Drift in Control: from rows of the lake to episodes, one retraining for each, and who is told."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import write_deltalake
from drift_kit import Asked, World, decision_table

from rlaas.control.drift import DRIFT_GAUGES, DriftGauges, DriftLoop, DriftService
from rlaas.control.drift.deliveries import MOST_TRIES
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError, NotReadyError
from rlaas.monitoring import BronzeTail, DriftConfig, Seconds


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which ``toy`` is watched already; tests take a copy of its watch."""
    world = World(tmp_path_factory.mktemp("trained"))
    world.learn()
    return world


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    """Another one, with the same history behind it."""
    copy = World(tmp_path)
    copy.second = trained.second
    kept = trained.store.watch("toy")
    assert kept is not None
    fresh = dict.fromkeys(("bronze.decisions", "bronze.outcomes"), 0)
    document = {**kept.document, "positions": fresh}
    copy.store.commit(replace(kept, revision=1, document=document))
    return copy


def reconfigure(world: World, **config: Any) -> None:
    """Change what happens on drift, and go on with what was learned."""
    world.configure(**config)
    watch = world.store.watch("toy")
    assert watch is not None
    revision = world.store.config("toy").revision
    world.store.commit(replace(watch, revision=watch.revision + 1, config_revision=revision))


def test_a_shift_becomes_one_episode_that_ends_when_it_is_over(world: World) -> None:
    begun = world.second
    episode = world.detect(shift=3.0)
    assert episode.second - begun < 60
    assert episode.streams[0]["stream"] == "observation.0"
    assert episode.retrain == "none"
    for _ in range(4):
        world.traffic(10, shift=3.0)
        world.reconciler.tick()
    lasting = world.store.open_episode("toy")
    assert lasting is not None
    assert (lasting.number, lasting.last_us > episode.last_us) == (1, True)
    for _ in range(12):
        world.traffic(10)
        world.reconciler.tick()
    assert world.store.open_episode("toy") is None
    (ended,) = world.store.episodes()
    assert (ended.closed_by, ended.number) == ("quiet", 1)
    assert world.detect(shift=-4.0).number == 2
    assert [one.number for one in world.store.episodes("toy")] == [2, 1]


def test_outcomes_and_actions_are_watched_by_their_arrival(world: World) -> None:
    episode = world.detect(shift=0.0, outcome_shift=4.0)
    assert [one["stream"] for one in episode.streams] == ["outcome.latency"]


def test_an_episode_asks_for_one_retraining_and_the_next_one_waits_for_the_cool_down(world: World) -> None:
    reconfigure(world, action="retrain", pipeline="p.yaml", quiet_s=20, cool_down_s=10_000)
    first = world.detect()
    assert (first.retrain, first.retrain_job) == ("requested", f"job {first.retrain_id}")
    for _ in range(5):
        world.traffic(5, shift=4.0)
        world.reconciler.tick()
    assert len(world.trigger.requests) == 1
    while world.store.open_episode("toy") is not None:
        world.traffic(10)
        world.reconciler.tick()
    second = world.detect()
    assert (second.number, second.retrain) == (2, "waiting")
    assert len(world.trigger.requests) == 1
    world.second += 10_000
    world.traffic(5, shift=4.0)
    world.reconciler.tick()
    after = world.store.open_episode("toy")
    assert after is not None
    assert (after.retrain, len(world.trigger.requests)) == ("requested", 2)
    assert len(world.trigger.begun) == 2


def test_a_claim_whose_owner_died_is_handed_over_under_the_same_id(world: World) -> None:
    reconfigure(world, action="retrain", pipeline="p.yaml")
    world.trigger.problem = NotReadyError("Ray does not answer")
    episode = world.detect()
    assert (episode.retrain, len(world.trigger.requests)) == ("claimed", 1)
    world.reconciler.release()
    heir = world.another(holder="heir", trigger=Asked())
    heir.tick()
    after = world.store.open_episode("toy")
    assert after is not None
    assert after.retrain == "requested"
    assert after.retrain_id == world.trigger.requests[0].id


def test_a_retraining_that_can_never_begin_is_said_and_not_asked_for_again(world: World) -> None:
    reconfigure(world, action="retrain", pipeline="p.yaml")
    world.trigger.problem = InvalidInputError("no such file", field="pipeline")
    episode = world.detect()
    world.traffic(5)
    world.reconciler.tick()
    assert (episode.retrain, episode.retrain_job, len(world.trigger.requests)) == ("failed", "no such file", 1)
    gauges = DriftGauges(world.store, "default", clock=world.clock).values()
    assert gauges["rlaas_drift_retrain_failed", "toy"] == 1.0


def test_a_promotion_ends_the_episode_and_the_new_version_is_learned(world: World) -> None:
    world.detect()
    world.promote(2)
    world.traffic(5, version=2)
    world.reconciler.tick()
    (episode,) = world.store.episodes()
    watch = world.store.watch("toy")
    assert watch is not None
    assert (episode.closed_by, watch.version, watch.document["phase"]) == ("promoted", 2, "settling")
    world.traffic(100, version=2)
    world.traffic(5, version=1, shift=50.0)  # of the old version, such as from a Gateway that is late
    world.reconciler.tick()
    watch = world.store.watch("toy")
    assert watch is not None
    assert watch.document["phase"] == "learning"
    assert watch.document["remaining_s"] > 480


def test_another_configuration_ends_the_episode(world: World) -> None:
    world.detect()
    world.configure(monitor=("input",))
    world.reconciler.tick()
    assert world.store.episodes()[0].closed_by == "reconfigured"
    world.traffic(100)
    world.reconciler.tick()
    watch = world.store.watch("toy")
    assert watch is not None
    assert watch.document["streams"] == ["observation.0", "observation.1"]


def test_streams_that_are_named_are_watched_alone(tmp_path: Path) -> None:
    world = World(tmp_path, features=("observation.1", "outcome.latency"))
    world.reconciler.tick()
    world.traffic(100)
    world.reconciler.tick()
    watch = world.store.watch("toy")
    assert watch is not None
    assert watch.document["streams"] == ["observation.1", "outcome.latency"]


def test_it_goes_on_where_it_was_whatever_is_between(world: World) -> None:
    """A reconciler for each look, as if each was killed behind it, sees what one sees that lives on."""
    one, two = world, World(world.folder / "two")
    two.second, two.lake = one.second, one.lake
    kept = one.store.watch("toy")
    assert kept is not None
    two.store.commit(replace(kept, revision=1))
    for step in range(12):
        before = one.second
        one.traffic(5, shift=2.0 if step > 3 else 0.0)
        one.reconciler.tick()
        two.second = before + 5
        two.another(holder=f"holder{step}").tick()
        two.second += 3600  # its lease has run out
        two.second -= 3600
        two.another(holder=f"holder{step}").release()
    mine, theirs = one.store.watch("toy"), two.store.watch("toy")
    assert mine is not None
    assert theirs is not None
    assert mine.document["evidence"] == theirs.document["evidence"]
    assert [e.second for e in one.store.episodes()] == [e.second for e in two.store.episodes()]


def test_of_two_that_compete_one_writes(world: World) -> None:
    world.traffic(10, shift=4.0)
    ours, other = world.reconciler, world.another(holder="second")
    assert ours._lease.hold()
    other.tick()
    watch = world.store.watch("toy")
    assert watch is not None
    assert watch.document["positions"]["bronze.decisions"] == 0, "the lease is the first one's"
    with pytest.raises(ConflictError, match="brought forward by another"):
        world.store.commit(replace(watch, revision=watch.revision))
    ours.tick()
    with pytest.raises(ConflictError):  # it has looked at what is no longer so
        world.store.commit(replace(watch, revision=watch.revision + 1))


def test_the_resolver_is_asked_once_and_its_word_is_kept(world: World) -> None:
    asked: list[int] = []

    def hook(episode: Any) -> dict[str, Any]:
        asked.append(episode.number)
        return {"candidate": "policy-0.3"}

    world.reconciler.release()
    world.reconciler = world.another(holder="resolving", hook=hook)
    world.detect()
    world.traffic(5, shift=4.0)
    world.reconciler.tick()
    episode = world.store.open_episode("toy")
    assert episode is not None
    assert (asked, episode.resolution) == ([1], {"candidate": "policy-0.3"})


def test_the_tail_reads_each_row_once_and_merging_files_adds_none(world: World) -> None:
    tail = BronzeTail(world.lake, "bronze.decisions")
    start = tail.version()
    for _ in range(3):
        world.traffic(2)
    world.lake.compact("bronze.decisions")
    world.traffic(1)
    write_deltalake(
        world.lake.open("bronze.decisions"),
        decision_table(range(5), world.rng)
        .set_column(0, "tenant", [["other"] * 100])
        .cast(world.lake.read("bronze.decisions").schema),
        mode="append",
    )
    found = list(tail.after(start))
    assert [number for number, _ in found] == list(range(start + 1, start + 7))
    assert [len(rows) for _, rows in found] == [40, 40, 40, 0, 20, 0]
    assert sorted(r for _, rows in found for r in rows["decision_id"].to_pylist()) == sorted(
        world.lake.read("bronze.decisions")["decision_id"].to_pylist()
    )


def test_what_comes_too_late_is_counted_and_changes_nothing() -> None:
    seconds = Seconds()
    seconds.add(np.array([10_000_000, 10_500_000, 11_000_000]), {"observation.0": np.array([1.0, 3.0, np.nan])})
    at, means, counts = seconds.close(10, ["observation.0"])
    assert (at.tolist(), means.tolist(), counts.tolist()) == ([10], [[2.0]], [[2.0]])
    seconds.add(np.array([10_900_000, 12_000_000]), {"observation.0": np.array([9.0, 5.0])})
    resumed = Seconds.from_dict(json.loads(json.dumps(seconds.to_dict())))
    assert resumed.late == 1
    at, means, _ = resumed.close(12, ["observation.0", "outcome.x"])
    assert at.tolist() == [12]
    assert means[0, 0] == 5.0
    assert np.isnan(means[0, 1])


class _Receiver(http.server.BaseHTTPRequestHandler):
    bodies: list[dict[str, Any]]
    refusals: int

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        refuse = server.refusals > 0
        server.refusals -= refuse
        if not refuse:
            server.bodies.append({**body, "id": self.headers["Idempotency-Key"]})
        self.send_response(503 if refuse else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    server.bodies, server.refusals = [], 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_is_tried_until_it_arrives_and_every_try_is_on_record(world: World, receiver: Any) -> None:
    url = f"http://127.0.0.1:{receiver.server_address[1]}/hook"
    reconfigure(world, webhook=url)
    receiver.refusals = 2
    world.detect()
    for _ in range(10):
        world.reconciler.deliveries.send()
        world.second += 20
    (told,) = receiver.bodies
    assert (told["event"], told["id"], told["alert"]["model"]) == ("opened", "toy/1/opened", "toy")
    (delivery,) = world.reconciler.deliveries.all()
    assert (delivery.tries, delivery.status) == (3, "delivered")
    world.configure(webhook=url)
    world.reconciler.tick()
    world.reconciler.deliveries.send()
    assert [body["event"] for body in receiver.bodies] == ["opened", "closed"]
    service = DriftService(world.database, "default", lambda _: None)
    (alert,) = service.alerts(state="closed")
    assert [one["event"] for one in alert["webhooks"]] == ["closed", "opened"]
    assert service.alerts(state="active") == []


def test_a_webhook_that_nobody_answers_is_given_up(world: World, receiver: Any) -> None:
    reconfigure(world, webhook=f"http://127.0.0.1:{receiver.server_address[1]}/hook")
    receiver.refusals = 100
    world.detect()
    for _ in range(MOST_TRIES + 3):
        world.reconciler.deliveries.send()
        world.second += 400
    (delivery,) = world.reconciler.deliveries.all()
    assert (delivery.tries, delivery.status) == (MOST_TRIES, "given up: HTTP 503")


def test_nobody_is_told_where_drift_is_only_recorded(world: World) -> None:
    reconfigure(world, action="none", webhook="http://127.0.0.1:9/")
    world.detect()
    assert world.reconciler.deliveries.all() == []


def test_the_loop_watches_sends_and_publishes(world: World, receiver: Any) -> None:
    reconfigure(world, webhook=f"http://127.0.0.1:{receiver.server_address[1]}/hook")
    published = threading.Event()
    world.traffic(60, shift=4.0)
    loop = DriftLoop(world.reconciler, interval_s=0.02, publish=[published.set])
    loop.start()
    assert published.wait(30)
    for _ in range(500):
        if receiver.bodies:
            break
        threading.Event().wait(0.02)
    loop.stop()
    assert [body["event"] for body in receiver.bodies] == ["opened"]
    assert not loop.running


def test_gauges_say_what_the_database_says(world: World) -> None:
    gauges = DriftGauges(world.store, "default", clock=world.clock)
    before = gauges.values()
    assert {name for name, _ in before} == set(DRIFT_GAUGES)
    assert (before["rlaas_drift_active", "toy"], before["rlaas_drift_watching", "toy"]) == (0.0, 1.0)
    world.detect()
    after = gauges.values()
    assert (after["rlaas_drift_active", "toy"], after["rlaas_drift_episodes", "toy"]) == (1.0, 1.0)
    assert after["rlaas_drift_behind_seconds", "toy"] < 10


def test_what_is_said_wrongly_is_named(world: World) -> None:
    def known(model: str) -> None:
        if model != "toy":
            raise NotFoundError(f"no policy {model!r}", field="policy")

    service = DriftService(world.database, "default", known)
    for document, field in (
        ({"arl_days": 0}, "arl_days"),
        ({"reference": {"lags": 99}}, "reference.lags"),
        ({"colour": 1}, "colour"),
        ({"action": "retrain"}, "body"),
        ([], "body"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            service.configure("toy", document)
        assert caught.value.field == field
    with pytest.raises(NotFoundError):
        service.configure("nobody", {})
    with pytest.raises(NotFoundError, match="no drift configuration"):
        service.status("nobody")
    revision = world.store.config("toy").revision
    assert service.configure("toy", {"arl_days": 10})["revision"] == revision + 1
    assert service.config("toy")["config"] == DriftConfig(arl_days=10).model_dump(mode="json")
