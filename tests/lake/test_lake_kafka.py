"""Topics into the lake, against librdkafka's own mock cluster: every message once, whatever is killed when."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ingestion_children
import msgspec
import pyarrow.compute as pc
import pytest
from confluent_kafka import Producer
from support.kafka_mock import MockCluster
from support.processes import interrupt, start, wait_for

from rlaas.errors import ConfigurationError, LakeError
from rlaas.lake import Lake
from rlaas.lake.ingestion import StreamConfig, StreamConsumer, StreamReport, read_windows
from rlaas.lake.ingestion.once import committed_positions
from rlaas.lake.ingestion.partitions import Partition
from rlaas.lake.ingestion.window_tables import TABLE, load_fold
from rlaas.lake.ingestion.windows import Event, Fold

TOPIC = "5g-network-events"
TOPICS = {TOPIC: 4, "user-behavior-stream": 1, "model-predictions": 1}
NOW_US = time.time_ns() // 1000
# The mock forgets a member that leaves no sooner than one that dies.
QUICK = {"session.timeout.ms": 1000, "heartbeat.interval.ms": 100, "log_level": 2}
WINDOW = {"name": "load", "topic": TOPIC, "value": "load", "size_s": 0.05, "slide_s": 0.025, "delay_s": 0.01}


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster(TOPICS) as running:
        yield running


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rlaas.lake.ingestion.consumer"])  # a child costs a fork, not an import of Delta
    return context


def document(cluster: MockCluster, **changes: Any) -> dict[str, Any]:
    mapping = {"columns": {"time_us": "at", "entity": "cell", "event_id": "id"}, "constants": {"kind": "load"}}
    return {
        "bootstrap": cluster.bootstrap,
        "client": QUICK,
        "batch": {"max_rows": 40, "max_wait_s": 0.2},
        "topics": {TOPIC: {"as": "events", "mapping": mapping}},
        "windows": [WINDOW],
        **changes,
    }


def drain(lake: Lake, description: dict[str, Any]) -> StreamReport:
    return StreamConsumer(lake, StreamConfig.model_validate(description)).run(until_end=True)


def messages(first: int, count: int, partition: int) -> list[Any]:
    """Loads whose times jump to and fro; every ninth message is poison."""
    rng = random.Random(first * 7 + partition)
    return [
        b"{poison"
        if i % 9 == 4
        else {
            "id": f"{partition}-{i}",
            "at": NOW_US + i * 1000 + rng.randrange(-30_000, 5000),
            "cell": "c",
            "load": i / 8,
        }
        for i in range(first, first + count)
    ]


def fill(cluster: MockCluster, first: int, count: int, partitions: int = 4) -> None:
    for partition in range(partitions):
        cluster.send(TOPIC, messages(first, count, partition), partition=partition)


def check_once(lake: Lake, count: int, partitions: int = 4) -> None:
    """Every message of :func:`fill` from the first on is in its table once, and the windows are those over bronze."""
    bronze = lake.read("bronze.events")
    good = [f"{p}-{i}" for p in range(partitions) for i in range(count) if i % 9 != 4]
    assert sorted(bronze.column("event_id").to_pylist()) == sorted(good)
    bad = lake.read("quarantine.events", ["receipt_id"]).column("receipt_id").to_pylist()
    assert sorted(bad) == sorted(
        f"kafka:{TOPIC}:{p}:{i}" for p in range(partitions) for i in range(count) if i % 9 == 4
    )
    config = StreamConfig.model_validate({"topics": {TOPIC: {"as": "events"}}, "windows": [WINDOW]}).windows[0]
    for partition in range(partitions):
        source = f"kafka:{TOPIC}:{partition}"
        mine = bronze.filter(pc.equal(bronze.column("producer"), source)).to_pylist()
        mine.sort(key=lambda row: int(row["receipt_id"].rpartition(":")[2]))
        fold = Fold(config.shape)
        fold.apply(Event("c", r["time_us"], dict(r["values"])["load"], r["receipt_id"]) for r in mine)
        stored, position = load_fold(lake, config, source)
        assert position == count
        assert stored.windows == fold.windows
        assert (stored.count, stored.late, stored.newest_us) == (fold.count, fold.late, fold.newest_us)
    assert len(lake.read(TABLE, ["source", "revision", "entity", "start_us"]).to_pylist()) == lake.count(TABLE)


def test_topics_become_tables_and_poison_becomes_a_listing(
    tmp_path: Path, cluster: MockCluster, repository: Path
) -> None:
    from rlaas.lake.ingestion import load_stream_config

    lake = Lake(tmp_path / "lake")
    shipped = load_stream_config(repository / "configs" / "lake" / "ingest-streams.yaml")
    config = shipped.model_copy(update={"bootstrap": cluster.bootstrap, "client": QUICK})
    cell = {"id": "e1", "timestamp": 1_700_000_000_500, "cell_id": "c-17", "event": "load", "load": 0.5, "note": "x"}
    cluster.send(TOPIC, [cell, None, b"\xff", [1], {"id": "e2"}], partition=3)
    view = {
        "id": "u1",
        "at": "2023-11-14T22:13:20Z",
        "user": {"id": "u-9"},
        "action": "view",
        "dwell": 3.5,
        "rating": 4,
    }
    cluster.send("user-behavior-stream", [view])
    predicted = {
        "prediction_id": "p1",
        "timestamp": 1_700_000_000_000,
        "model": {"name": "ranker", "version": 3},
        "features": [0.5, 1],
        "prediction": [2.0],
    }
    cluster.send("model-predictions", [predicted], key="user-1")
    report = StreamConsumer(lake, config).run(until_end=True)
    assert (report.rows, report.refused, report.fenced) == (3, 4, 0)
    events = {row["event_id"]: row for row in lake.read("bronze.events").to_pylist()}
    first = events["e1"]
    assert (first["entity"], first["kind"], first["time_us"]) == ("c-17", "load", 1_700_000_000_500_000)
    assert (dict(first["values"]), first["attributes"]) == ({"load": 0.5}, '{"note":"x"}')
    assert (first["source"], first["producer"], first["receipt_id"]) == (
        TOPIC,
        f"kafka:{TOPIC}:3",
        f"kafka:{TOPIC}:3:0",
    )
    assert (events["u1"]["entity"], dict(events["u1"]["values"])) == ("u-9", {"dwell_s": 3.5, "rating": 4.0})
    (decision,) = lake.read("bronze.decisions").to_pylist()
    assert (decision["decision_id"], decision["policy"], decision["version"]) == ("p1", "ranker", 3)
    assert (decision["unit"], decision["observation"], decision["action"]) == ("user-1", [0.5, 1.0], [2.0])
    reasons = lake.read("quarantine.events", ["reason", "payload"]).to_pylist()
    found = {row["reason"]: row["payload"] for row in reasons}
    where = f"{TOPIC} partition 3 offset"
    assert {reason.partition(" JSON")[0]: payload[:3] for reason, payload in found.items()} == {
        f"{where} 1: the message has no value": b"",
        f"{where} 2: not json:": b"\xff",
        f"{where} 3: not an object": b"[1]",
        f"{where} 4: Object missing required field `kind`": b'{"i',
    }
    (window,) = read_windows(lake, "user-dwell-5m").to_pylist()
    assert (window["entity"], window["count"], window["mean"], window["final"]) == ("u-9", 1, 3.5, False)
    assert drain_again(lake, config) == StreamReport()


def drain_again(lake: Lake, config: StreamConfig) -> StreamReport:
    return StreamConsumer(lake, config).run(until_end=True)


def test_messages_may_be_msgpack(tmp_path: Path, cluster: MockCluster) -> None:
    lake = Lake(tmp_path / "lake")
    cluster.send(TOPIC, [msgspec.msgpack.encode({"kind": "k", "x": 1.5}), b"\xc1"])
    mapping = {"columns": {"time_us": "$timestamp_us"}}
    topics = {TOPIC: {"as": "events", "format": "msgpack", "mapping": mapping}}
    report = drain(lake, document(cluster, topics=topics, windows=[]))
    assert (report.rows, report.refused) == (1, 1)
    (event,) = lake.read("bronze.events").to_pylist()
    assert dict(event["values"]) == {"x": 1.5}
    assert abs(event["time_us"] - time.time_ns() // 1000) < 60_000_000


def test_a_restart_goes_on_where_the_lake_is_and_not_where_the_group_is(tmp_path: Path, cluster: MockCluster) -> None:
    lake, other = Lake(tmp_path / "lake"), Lake(tmp_path / "other")
    fill(cluster, 0, 30)
    drain(lake, document(cluster))
    check_once(lake, 30)
    versions = lake.versions()
    assert drain(lake, document(cluster)).commits == 0
    assert lake.versions() == versions
    fill(cluster, 30, 20)
    drain(lake, document(cluster))
    check_once(lake, 50)
    # Another lake has read nothing, whatever the group has.
    drain(other, document(cluster))
    check_once(other, 50)


def test_a_consumer_killed_at_any_commit_loses_and_repeats_nothing(
    tmp_path: Path, cluster: MockCluster, processes
) -> None:
    fill(cluster, 0, 12)
    exits: list[int | None] = []
    steps = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 40]
    for step in steps:
        root = tmp_path / str(step)
        # A group for each: the dead members of one would hold the next one up.
        child = processes.Process(
            target=ingestion_children.stream, args=(root, document(cluster, group=f"killed-{step}"), step)
        )
        child.start()
        child.join(120)
        exits.append(child.exitcode)
        drain(Lake(root), document(cluster, group=f"after-{step}"))
        check_once(Lake(root), 12)
    # Three tables made and filled at least, before and behind; with the last step there was nothing left to die at.
    assert exits == [-signal.SIGKILL] * (len(steps) - 1) + [0]


def test_consumers_killed_at_any_moment_lose_and_repeat_nothing(
    tmp_path: Path, cluster: MockCluster, processes
) -> None:
    root, sent = tmp_path / "lake", 0
    rng = random.Random(11)
    killed = 0
    for attempt in range(6):
        children = [
            processes.Process(target=ingestion_children.stream, args=(root, document(cluster), None)) for _ in range(2)
        ]
        for child in children:
            child.start()
        for _ in range(2):
            fill(cluster, sent, 15)
            sent += 15
            time.sleep(rng.uniform(0.2, 0.8))
        for child in rng.sample(children, 2 if attempt % 2 else 1):
            child.kill()
            killed += 1
        for child in children:
            child.terminate()
            child.join()
    assert killed == 9
    drain(Lake(root), document(cluster, group="last"))
    check_once(Lake(root), sent)


def test_two_consumers_share_and_hand_over_without_doubles(tmp_path: Path, cluster: MockCluster) -> None:
    lake = Lake(tmp_path / "lake")
    config = StreamConfig.model_validate(document(cluster))
    stops = [threading.Event() for _ in range(3)]
    consumers = [StreamConsumer(Lake(tmp_path / "lake"), config) for _ in stops]
    threads = [
        threading.Thread(target=consumer.run, args=(stop.is_set,))
        for consumer, stop in zip(consumers, stops, strict=True)
    ]
    sent = 0
    for number, thread in enumerate(threads):
        thread.start()
        for _ in range(6):
            fill(cluster, sent, 5)
            sent += 5
            time.sleep(0.25)
        if number:
            stops[number - 1].set()
    stops[-1].set()
    for thread in threads:
        thread.join()
    drain(lake, document(cluster, group="last"))
    check_once(lake, sent)
    assert sum(consumer.report.commits > 0 for consumer in consumers) >= 2


@pytest.mark.parametrize("windows", [[WINDOW], []], ids=["windows", "rows"])
def test_one_who_does_not_know_yet_that_it_lost_a_partition_adds_nothing(
    tmp_path: Path, cluster: MockCluster, windows: list[Any]
) -> None:
    """Two that hold the same partitions at once: groups of their own make both believe in all of them."""
    fill(cluster, 0, 60)
    config = [StreamConfig.model_validate(document(cluster, group=f"g{i}", windows=windows)) for i in range(3)]
    consumers = [StreamConsumer(Lake(tmp_path / "lake"), one) for one in config]
    threads = [threading.Thread(target=one.run, kwargs={"until_end": True}) for one in consumers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lake = Lake(tmp_path / "lake")
    if windows:
        check_once(lake, 60)
    assert lake.count("bronze.events") == 4 * sum(i % 9 != 4 for i in range(60))
    app_id = config[0].app_id("default", TOPIC, 0)
    assert committed_positions(lake, "bronze.events", [app_id]) == {app_id: 60}
    assert sum(one.report.rows for one in consumers) == lake.count("bronze.events")


def test_windows_asked_for_later_begin_where_bronze_is(tmp_path: Path, cluster: MockCluster) -> None:
    lake = Lake(tmp_path / "lake")
    fill(cluster, 0, 10)
    drain(lake, document(cluster, windows=[]))
    fill(cluster, 10, 10)
    drain(lake, document(cluster))
    assert lake.count("bronze.events") == 4 * sum(i % 9 != 4 for i in range(20))
    starts = read_windows(lake, "load").column("start_us").to_pylist()
    assert min(starts) >= NOW_US + 10_000 - 30_000 - 50_000


def test_messages_that_are_gone_stop_the_stream_or_are_passed_by(
    tmp_path: Path, cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mock keeps everything: what retention would do is told to the consumer by the brokers' low watermark."""
    lake = Lake(tmp_path / "lake")
    fill(cluster, 0, 10, partitions=1)
    drain(lake, document(cluster, windows=[]))
    fill(cluster, 10, 10, partitions=1)
    from rlaas.lake.ingestion import consumer as module

    class Retained(module.Consumer):
        def get_watermark_offsets(self, place: Any, **options: Any) -> tuple[int, int]:
            low, high = super().get_watermark_offsets(place, **options)
            return (15, high) if place.partition == 0 else (low, high)

    monkeypatch.setattr(module, "Consumer", Retained)
    said = rf"topic {TOPIC} partition 0: offsets 10 to 14 were deleted before they were read; on_gap: accept goes on"
    with pytest.raises(LakeError, match=said):
        drain(lake, document(cluster, windows=[]))
    assert drain(lake, document(cluster, windows=[], on_gap="accept")).rows == 5
    ids = lake.read("bronze.events", ["event_id"]).column("event_id").to_pylist()
    assert sorted(ids) == sorted(f"0-{i}" for i in range(20) if i % 9 != 4 and not 10 <= i < 15)


def test_messages_that_go_while_the_stream_runs_are_noticed(
    tmp_path: Path, cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker itself says that an offset is none of its own: the consumer was sent to one, and told of a new low."""
    from rlaas.lake.ingestion import consumer as module

    fill(cluster, 0, 20, partitions=1)

    class Misled(module.Consumer):
        assigned = False

        def assign(self, places: list[Any]) -> None:
            if not self.assigned:
                places = [
                    module.TopicPartition(p.topic, p.partition, 10_000 if p.partition == 0 else 0) for p in places
                ]
            self.assigned = True
            super().assign(places)

        def get_watermark_offsets(self, place: Any, **options: Any) -> tuple[int, int]:
            low, high = super().get_watermark_offsets(place, **options)
            return (15 if self.assigned and place.partition == 0 else low, high)

    monkeypatch.setattr(module, "Consumer", Misled)
    with pytest.raises(
        LakeError, match=rf"topic {TOPIC} partition 0: offsets 0 to 14 were deleted before they were read"
    ):
        StreamConsumer(Lake(tmp_path / "strict"), StreamConfig.model_validate(document(cluster, group="a"))).run()
    lake = Lake(tmp_path / "lake")
    consumer = StreamConsumer(lake, StreamConfig.model_validate(document(cluster, group="b", on_gap="accept")))
    started = time.monotonic()
    consumer.run(lambda: consumer.report.rows >= 5 or time.monotonic() > started + 60)
    ids = lake.read("bronze.events", ["event_id"]).column("event_id").to_pylist()
    assert sorted(ids) == sorted(f"0-{i}" for i in range(15, 20))


def test_a_topic_that_was_made_anew_is_not_taken_for_the_old_one(tmp_path: Path, cluster: MockCluster) -> None:
    lake = Lake(tmp_path / "lake")
    fill(cluster, 0, 10)
    drain(lake, document(cluster))
    with MockCluster(TOPICS) as fresh:
        fill(fresh, 0, 3)
        with pytest.raises(LakeError, match=r"ends at 3, and the lake holds it up to 10: it was made anew"):
            drain(lake, document(fresh))
        assert drain(lake, document(fresh, source="second")).rows == 12


def test_brokers_and_options_are_checked(cluster: MockCluster) -> None:
    lake = Lake("unused")
    with pytest.raises(ConfigurationError, match=r"bootstrap is missing: .* RLAAS_KAFKA_BOOTSTRAP"):
        StreamConsumer(lake, StreamConfig.model_validate(document(cluster, bootstrap=None)))
    with pytest.raises(ConfigurationError, match=r"client: .*colour"):
        StreamConsumer(lake, StreamConfig.model_validate(document(cluster, client={"colour": "red"})))


def test_a_message_read_twice_is_taken_once(tmp_path: Path, cluster: MockCluster) -> None:
    partition = Partition(Lake(tmp_path), StreamConfig.model_validate(document(cluster)), TOPIC, 0, 5, 5)
    for offset in (4, 5, 6, 6, 5, 7):
        partition.take(offset, None, b"{}", -1)
    assert (partition.pending, partition.next_offset, partition.moved) == (3, 8, True)


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_gracefully(tmp_path: Path, cluster: MockCluster, with_signal: signal.Signals) -> None:
    file, home, log = tmp_path / "stream.yaml", tmp_path / "home", tmp_path / "log"
    described = document(cluster, bootstrap=None, batch={"max_rows": 10_000, "max_wait_s": 0.5})
    file.write_text(json.dumps(described))
    fill(cluster, 0, 20)
    running = start(
        ["lake", "stream", "--config", str(file), "--json"], home, log, RLAAS_KAFKA_BOOTSTRAP=cluster.bootstrap
    )
    wait_for(running, log, "stream_committed")
    fill(cluster, 20, 5)
    assert interrupt(running, with_signal) == 0, log.read_text()
    lines = log.read_text()
    report = json.loads(lines[lines.rindex("{\n") :])
    assert report["rows"] == lake_rows(home)
    drain(Lake(home / "lake"), document(cluster, group="last"))
    check_once(Lake(home / "lake"), 25)


def lake_rows(home: Path) -> int:
    return Lake(home / "lake").count("bronze.events")


@pytest.mark.skipif("RLAAS_KAFKA_BOOTSTRAP" not in os.environ, reason="RLAAS_KAFKA_BOOTSTRAP names no broker")
def test_a_real_broker(tmp_path: Path) -> None:
    bootstrap, topic = os.environ["RLAAS_KAFKA_BOOTSTRAP"], f"rlaas-test-{uuid.uuid4().hex}"
    producer = Producer({"bootstrap.servers": bootstrap})
    for i in range(100):
        producer.produce(topic, json.dumps({"kind": "k", "time_us": i, "event_id": str(i)}).encode())
    assert producer.flush(30) == 0
    lake = Lake(tmp_path / "lake")
    config = {"bootstrap": bootstrap, "group": topic, "topics": {topic: {"as": "events"}}}
    assert drain(lake, config).rows == 100
    assert drain(lake, config).rows == 0
    assert sorted(map(int, lake.read("bronze.events", ["event_id"]).column("event_id").to_pylist())) == list(range(100))
