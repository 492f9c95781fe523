"""Which topics become which tables: one frozen document, from Python or YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError
from rlaas.lake.ingestion.events import KindName
from rlaas.lake.ingestion.mapping import RowMapping
from rlaas.lake.ingestion.windows import WindowShape

__all__ = ["BatchConfig", "StreamConfig", "TopicConfig", "WindowConfig", "load_stream_config"]

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]

# What exactly-once rests on is not for a file to change.
_OURS = frozenset(
    {
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "group.id",
        "partition.assignment.strategy",
    }
)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class TopicConfig(_Document):
    """What the messages of a topic are.

    Attributes:
        kind: ``as`` in a file: what a message becomes.
        format: of its value, an object.
        mapping: which field comes from where; besides the object's own there are the columns ``$key`` (text) and
            ``$timestamp_us`` (the broker's) of the message.
    """

    kind: KindName = Field(alias="as")
    format: Literal["json", "msgpack"] = "json"
    mapping: RowMapping = Field(default_factory=RowMapping)

    @model_validator(mode="after")
    def _fits(self) -> TopicConfig:
        self.mapping.check_for(self.kind)
        return self


class WindowConfig(_Document):
    """Aggregates of one value of events by event time: tumbling where ``slide_s`` is ``size_s``, else sliding.

    Attributes:
        name: of the windows in ``silver.windows``.
        topic: whose events.
        value: name of the value.
        kind: only events of this kind.
        size_s: length of a window, seconds.
        slide_s: from the start of one to the start of the next, seconds; default ``size_s``.
        delay_s: how far behind the newest event of its partition the watermark is: disorder that is usual.
        lateness_s: how long, in event time, a window takes events after the watermark has passed its end.
        ahead_s: an event further ahead of the broker's time than this is taken by no window, and moves no watermark.
    """

    name: _Name
    topic: str
    value: str
    kind: str | None = None
    size_s: float = Field(gt=0)
    slide_s: float | None = Field(default=None, gt=0)
    delay_s: float = Field(default=0.0, ge=0)
    lateness_s: float = Field(default=0.0, ge=0)
    ahead_s: float = Field(default=3600.0, ge=0)

    @model_validator(mode="after")
    def _covered(self) -> WindowConfig:
        if self.slide_us > self.size_us:
            raise ConfigurationError(
                "slide_s is more than size_s: events between windows would be in none", field="slide_s"
            )
        if self.size_us < 1 or self.slide_us < 1:
            raise ConfigurationError("size_s and slide_s must be at least a microsecond", field="size_s")
        if self.size_us // self.slide_us > 1000:
            raise ConfigurationError("slide_s must be at least a thousandth of size_s", field="slide_s")
        return self

    @property
    def size_us(self) -> int:
        """Length, microseconds."""
        return round(self.size_s * 1e6)

    @property
    def slide_us(self) -> int:
        """From start to start, microseconds."""
        return self.size_us if self.slide_s is None else round(self.slide_s * 1e6)

    @property
    def shape(self) -> WindowShape:
        """The same in microseconds."""
        return WindowShape(
            size_us=self.size_us,
            slide_us=self.slide_us,
            delay_us=round(self.delay_s * 1e6),
            lateness_us=round(self.lateness_s * 1e6),
            ahead_us=round(self.ahead_s * 1e6),
        )


class BatchConfig(_Document):
    """When what was read is committed."""

    max_rows: int = Field(default=5000, ge=1, le=1_000_000, description="messages of one commit, and in memory")
    max_wait_s: float = Field(default=1.0, gt=0, le=3600, description="age of the oldest one")


class StreamConfig(_Document):
    """Streams into the lake.

    Attributes:
        bootstrap: Kafka brokers, ``host:port`` with commas; default the setting ``RLAAS_KAFKA_BOOTSTRAP``.
        group: consumer group that shares the partitions out. Its offsets are not used: the lake has them.
        source: name of the cluster; two clusters with topics of the same name need two.
        client: further options of librdkafka, such as ``security.protocol``.
        batch: when what was read is committed.
        start: where a partition begins that the lake knows nothing of.
        on_gap: when messages were deleted before they were read: ``fail``, or go on behind them with a warning.
        topics: by name.
        windows: aggregates of events.
    """

    bootstrap: str | None = None
    group: str = Field(default="rlaas-lake", min_length=1)
    source: _Name = "kafka"
    client: dict[str, str | int | float | bool] = Field(default_factory=dict)
    batch: BatchConfig = Field(default_factory=BatchConfig)
    start: Literal["earliest", "latest"] = "earliest"
    on_gap: Literal["fail", "accept"] = "fail"
    topics: dict[_Name, TopicConfig] = Field(min_length=1)
    windows: tuple[WindowConfig, ...] = ()

    @field_validator("client")
    @classmethod
    def _not_ours(cls, value: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        for name in value:
            if name in _OURS:
                raise ValueError(f"{name} is set by rlaas; allowed: any other option of librdkafka")
        return value

    @model_validator(mode="after")
    def _windows_have_events(self) -> StreamConfig:
        names = [window.name for window in self.windows]
        for index, window in enumerate(self.windows):
            topic = self.topics.get(window.topic)
            if topic is None or topic.kind != "events":
                allowed = ", ".join(sorted(n for n, t in self.topics.items() if t.kind == "events")) or "(none)"
                raise ConfigurationError(
                    f"windows.{index}.topic is {window.topic!r}; allowed: a topic of events: {allowed}",
                    field=f"windows.{index}.topic",
                )
            if names.count(window.name) > 1:
                raise ConfigurationError(f"windows: the name {window.name!r} occurs twice", field="windows")
        return self

    def app_id(self, tenant: str, topic: str, partition: int, window: str | None = None) -> str:
        """Name of a partition, or of windows over it, as a source of positions in Delta."""
        return f"rlaas/{tenant}/{self.source}:{topic}:{partition}" + ("" if window is None else f"/{window}")

    def windows_of(self, topic: str) -> tuple[WindowConfig, ...]:
        """The windows over a topic."""
        return tuple(window for window in self.windows if window.topic == topic)


def load_stream_config(path: str | Path) -> StreamConfig:
    """Read a YAML file.

    Raises:
        ConfigurationError: see :func:`rlaas.configfiles.read_config`.
    """
    return read_config(path, StreamConfig)
