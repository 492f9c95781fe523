"""Topics into the lake, every message once.

What is committed is the lake's to say: offsets lie in the Delta transactions that hold the rows, and the group
coordinator only shares the partitions out. A consumer that starts, or is given a partition, looks there and seeks; one
that was killed leaves nothing behind that matters. Two that believe in the same partition at once (the one that lost it
does not know yet) cannot both commit: see :mod:`~rlaas.lake.ingestion.once`. The second adds nothing, drops what it has
read and goes on where the table says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from rlaas.errors import ConfigurationError, LakeError
from rlaas.lake.ingestion.once import FencedError, append_spans
from rlaas.lake.ingestion.partitions import Partition, position_in
from rlaas.lake.ingestion.streams import StreamConfig
from rlaas.lake.ingestion.window_tables import TABLE as WINDOWS
from rlaas.lake.tables import Lake

__all__ = ["StreamConsumer", "StreamReport"]

_log = structlog.get_logger("rlaas.lake")
_POLL_S = 0.2
_ASK_S = 10.0


@dataclass(slots=True)
class StreamReport:
    """What a consumer did.

    Attributes:
        rows: rows in bronze.
        refused: rows in the quarantine.
        windows: rows in ``silver.windows``.
        commits: batches.
        fenced: batches that somebody else had committed.
    """

    rows: int = 0
    refused: int = 0
    windows: int = 0
    commits: int = 0
    fenced: int = 0

    def to_dict(self) -> dict[str, int]:
        """Plain JSON types."""
        return asdict(self)


class StreamConsumer:
    """Reads the topics of a configuration into the lake.

    Args:
        lake: the tables.
        config: topics, windows, batches.
        bootstrap: brokers, where the configuration names none.

    Raises:
        ConfigurationError: no brokers, or options that librdkafka refuses.
    """

    def __init__(self, lake: Lake, config: StreamConfig, *, bootstrap: str | None = None) -> None:
        brokers = config.bootstrap or bootstrap
        if not brokers:
            raise ConfigurationError(
                "bootstrap is missing: give the brokers there, or in RLAAS_KAFKA_BOOTSTRAP", field="bootstrap"
            )
        self.report = StreamReport()
        self._lake, self._config = lake, config
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._ended: set[tuple[str, int]] = set()
        self._failure: Exception | None = None
        self._oldest_s: float | None = None  # monotonic time of the oldest pending message
        try:
            self._consumer = Consumer(
                {
                    **config.client,
                    "bootstrap.servers": brokers,
                    "group.id": config.group,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "enable.partition.eof": True,
                    # Where an offset is gone, that is for us to say.
                    "auto.offset.reset": "error",
                    "partition.assignment.strategy": "range",
                    "logger": logging.getLogger("rlaas.lake.kafka"),
                }
            )
        except (KafkaException, TypeError, ValueError) as problem:
            raise ConfigurationError(f"client: {_said(problem)}", field="client") from problem

    def run(self, stop: Callable[[], bool] = lambda: False, *, until_end: bool = False) -> StreamReport:
        """Read until ``stop`` says so, then commit what was read and leave the group.

        Args:
            stop: asked several times a second.
            until_end: stop at the end of the partitions that were assigned, too.

        Raises:
            LakeError: messages were deleted before they were read, a broker refuses for good, or a table failed.
        """
        self._consumer.subscribe(
            list(self._config.topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        try:
            while not stop() and not (until_end and self._at_end()):
                self._turn()
            self._flush()
        finally:
            # Without the partitions nothing more is committed, whatever the callbacks of closing do.
            self._partitions.clear()
            self._consumer.close()
        return self.report

    def _turn(self) -> None:
        """Read what there is, and commit it if it is time."""
        room = self._config.batch.max_rows - sum(p.pending for p in self._partitions.values())
        try:
            messages = self._consumer.consume(max(1, min(room, 1000)), timeout=self._wait_s())
        except KafkaException as problem:
            raise LakeError(f"Kafka: {_said(problem)}") from problem
        if self._failure is not None:
            raise self._failure
        for message in messages:
            self._take(message)
        pending = sum(p.pending for p in self._partitions.values())
        if pending and self._oldest_s is None:
            self._oldest_s = time.monotonic()
        if pending >= self._config.batch.max_rows or (self._oldest_s is not None and self._wait_s() <= 0):
            self._flush()

    def _wait_s(self) -> float:
        if self._oldest_s is None:
            return _POLL_S
        return min(_POLL_S, max(0.0, self._oldest_s + self._config.batch.max_wait_s - time.monotonic()))

    def _take(self, message: Any) -> None:
        place = (message.topic(), message.partition())
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(place)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._gone(*place)
            elif error.fatal() or not error.retriable():
                # A topic that does not exist yet is no reason to stop: it may be made any time.
                if error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                    raise LakeError(f"Kafka: {error.str()}")
                _log.warning("stream_topic_unknown", topic=message.topic(), error=error.str())
            return
        partition = self._partitions.get(place)
        if partition is None:
            return  # taken away while it was on its way
        kind, stamp_ms = message.timestamp()
        sent_us = -1 if kind == TIMESTAMP_NOT_AVAILABLE else stamp_ms * 1000
        partition.take(message.offset(), message.key(), message.value(), sent_us)
        self._ended.discard(place)

    def _at_end(self) -> bool:
        return bool(self._partitions) and self._ended >= self._partitions.keys()

    def _flush(self) -> None:
        """Commit what was read: the quarantine, the windows, and bronze last: it says how far everything is."""
        self._oldest_s = None
        moved = [partition for partition in self._partitions.values() if partition.moved]
        for table in sorted({partition.kind.table for partition in moved}):
            self._commit(table, [partition for partition in moved if partition.kind.table == table])

    def _commit(self, table: str, partitions: Sequence[Partition]) -> None:
        now_us = time.time_ns() // 1000
        decoded = [(partition, partition.decode(now_us)) for partition in partitions]
        bad = [partition.span(said, good=False) for partition, said in decoded if said.refused]
        refused = append_spans(self._lake, partitions[0].kind.quarantine, bad, sparse=True) if bad else 0
        spans = [span for partition, said in decoded for span in partition.window_spans(said)]
        try:
            windows = append_spans(self._lake, WINDOWS, spans) if spans else 0
        except FencedError as problem:
            self._overtaken(partitions, problem)
            return
        rows = append_spans(self._lake, table, [partition.span(said, good=True) for partition, said in decoded])
        for partition in partitions:
            partition.committed()
        self.report.rows += rows
        self.report.refused += refused
        self.report.windows += windows
        self.report.commits += 1
        _log.info(
            "stream_committed",
            table=table,
            rows=rows,
            refused=refused,
            windows=windows,
            offsets={f"{p.topic}/{p.number}": p.position for p in partitions},
        )

    def _overtaken(self, partitions: Sequence[Partition], problem: FencedError) -> None:
        """Somebody else is at work on a partition: forget what was read, and go on where the lake is."""
        self.report.fenced += 1
        _log.warning("stream_fenced", error=problem.message)
        for partition in partitions:
            known = position_in(self._lake, self._config, partition.topic, partition.number)
            position = partition.position if known is None else known
            self._hold(partition.topic, partition.number, position, position)
        self._go_on()

    def _assigned(self, consumer: Consumer, given: list[TopicPartition]) -> None:
        try:
            for item in given:
                position, item.offset = self._start(consumer, item)
                self._hold(item.topic, item.partition, position, item.offset)
        except Exception as problem:
            self._failure = problem  # raised behind the callback, which librdkafka's loop has called
            return
        self._ended.clear()
        consumer.assign(given)
        _log.info("stream_assigned", offsets={f"{item.topic}/{item.partition}": item.offset for item in given})

    def _hold(self, topic: str, number: int, position: int, next_offset: int) -> None:
        self._partitions[topic, number] = Partition(self._lake, self._config, topic, number, position, next_offset)

    def _start(self, consumer: Consumer, item: TopicPartition) -> tuple[int, int]:
        """Offset behind what is committed, and the one to begin at.

        Raises:
            LakeError: messages were deleted before they were read, or the topic is not the one that it was.
        """
        low, high = consumer.get_watermark_offsets(TopicPartition(item.topic, item.partition), timeout=_ASK_S)
        position = position_in(self._lake, self._config, item.topic, item.partition)
        if position is None:
            first = int(low if self._config.start == "earliest" else high)
            return first, first
        if position > high:
            raise _made_anew(item.topic, item.partition, int(high), position)
        if position < low:
            self._lost_range(item.topic, item.partition, position, int(low))
        return position, max(position, int(low))

    def _gone(self, topic: str, number: int) -> None:
        """The broker no longer has what was to be read next."""
        self._flush()
        partition = self._partitions[topic, number]
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_ASK_S)
        if partition.position > high:
            raise _made_anew(topic, number, int(high), partition.position)
        if partition.position < low:
            self._lost_range(topic, number, partition.position, int(low))
            partition.next_offset = int(low)
        self._go_on()

    def _go_on(self) -> None:
        """Read on behind what was read of each partition."""
        # Not a seek: behind an error a partition stands still, and librdkafka seeks only in one that moves.
        self._consumer.assign([TopicPartition(p.topic, p.number, p.next_offset) for p in self._partitions.values()])

    def _lost_range(self, topic: str, number: int, first: int, low: int) -> None:
        what = f"topic {topic} partition {number}: offsets {first} to {low - 1} were deleted before they were read"
        if self._config.on_gap == "fail":
            raise LakeError(f"{what}; on_gap: accept goes on behind them")
        _log.warning("stream_gap", topic=topic, partition=number, first=first, low=low)

    def _revoked(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        try:
            self._flush()
        except Exception as problem:
            self._failure = problem
        self._forget(taken)
        consumer.unassign()  # by ourselves: the commit may have assigned anew, see _overtaken

    def _lost(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        """Somebody else has them already: what was read of them is theirs."""
        self._forget(taken)
        consumer.unassign()

    def _forget(self, taken: list[TopicPartition]) -> None:
        for item in taken:
            self._partitions.pop((item.topic, item.partition), None)
        self._ended.clear()


def _made_anew(topic: str, number: int, high: int, position: int) -> LakeError:
    return LakeError(
        f"topic {topic} partition {number} ends at {high}, and the lake holds it up to {position}: it was made anew; "
        "give it another source name"
    )


def _said(problem: Exception) -> str:
    error = problem.args[0] if problem.args else problem
    return " ".join(str(error.str() if isinstance(error, KafkaError) else error).split())
