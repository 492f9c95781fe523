"""The tables of the lake: their columns, in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import and_

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import check_choice

__all__ = ["TABLES", "TableSpec", "Within", "table_spec", "training_table"]

_TEXT = pa.string()
_DOUBLES = pa.list_(pa.field("element", pa.float64()))
_WEIGHTS = pa.map_(pa.string(), pa.float64())

_CHECKPOINT_EVERY = 20
"""Commits. Whoever opens a table reads every commit since the last checkpoint, each on a thread of its own."""


@dataclass(frozen=True, slots=True)
class Within:
    """The range that a column of numbers keeps to; it becomes a CHECK constraint of the Delta table.

    A null passes where the column may be null; NaN never does.

    Attributes:
        column: name of the column.
        at_least: smallest value allowed.
        above: every value is greater than this.
        at_most: greatest value allowed.
    """

    column: str
    at_least: int | float | None = None
    above: int | float | None = None
    at_most: int | float | None = None

    @property
    def name(self) -> str:
        """Name of the constraint."""
        return f"{self.column}_within"

    @property
    def rule(self) -> str:
        """The range as an SQL condition."""
        bounds = ((">=", self.at_least), (">", self.above), ("<=", self.at_most))
        return " AND ".join(f"{self.column} {sign} {bound}" for sign, bound in bounds if bound is not None)

    def sql(self, schema: pa.Schema) -> str:
        """The constraint for a table with these columns, written as Delta keeps it (without brackets)."""
        return f"{self.column} IS NULL OR {self.rule}" if schema.field(self.column).nullable else self.rule

    def kept(self) -> pc.Expression:
        """Whether a row keeps to the range; null where the value is null."""
        value = pc.field(self.column)
        parts = []
        if self.at_least is not None:
            parts.append(value >= self.at_least)
        if self.above is not None:
            parts.append(value > self.above)
        if self.at_most is not None:
            parts.append(value <= self.at_most)
        return reduce(and_, parts)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A declared table.

    Attributes:
        name: ``<layer>.<table>``.
        schema: columns; the order is that of :meth:`Lake.read`.
        partition_by: columns that become folders.
        order_by: columns that order the rows of the table fully.
        append_only: rows are never changed or removed.
        within: ranges of columns, kept by Delta itself.
        change_feed: the changes from version to version can be read, see :meth:`Lake.changes`.
    """

    name: str
    schema: pa.Schema
    partition_by: tuple[str, ...]
    order_by: tuple[str, ...]
    append_only: bool
    within: tuple[Within, ...] = ()
    change_feed: bool = False
    configuration: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        configuration = {"delta.checkpointInterval": str(_CHECKPOINT_EVERY)}
        if self.append_only:
            configuration["delta.appendOnly"] = "true"
        if self.change_feed:
            configuration["delta.enableChangeDataFeed"] = "true"
        object.__setattr__(self, "configuration", configuration)

    @property
    def path(self) -> str:
        """Path below the root of the lake."""
        return self.name.replace(".", "/")


def _columns(**types: pa.DataType) -> pa.Schema:
    """Columns by name; a trailing underscore marks one that may be null."""
    return pa.schema([pa.field(name.rstrip("_"), kind, nullable=name.endswith("_")) for name, kind in types.items()])


_DECISIONS = _columns(
    tenant=_TEXT,
    date=_TEXT,
    receipt_id=_TEXT,
    decision_id=_TEXT,
    time_us=pa.int64(),
    scenario=_TEXT,
    policy=_TEXT,
    version=pa.int64(),
    variant=_TEXT,
    experiment_=_TEXT,
    variant_propensity=pa.float64(),
    action_propensity_=pa.float64(),
    session_=_TEXT,
    step_=pa.int64(),
    unit_=_TEXT,
    mode_=_TEXT,
    preference_=_WEIGHTS,
    observation=_DOUBLES,
    action=_DOUBLES,
    proposed_action_=_DOUBLES,
    candidate_=_TEXT,
    context_=_TEXT,
    generation=pa.int64(),
    producer=_TEXT,
    schema_version=pa.int64(),
)
_OUTCOMES = _columns(
    tenant=_TEXT,
    date=_TEXT,
    receipt_id=_TEXT,
    outcome_id=_TEXT,
    decision_id=_TEXT,
    revision=pa.int64(),
    policy_=_TEXT,
    outcome=_WEIGHTS,
    terminated=pa.bool_(),
    truncated=pa.bool_(),
    time_us=pa.int64(),
    received_us=pa.int64(),
    producer=_TEXT,
    schema_version=pa.int64(),
)
_TRANSITIONS = _columns(
    decision_id=_TEXT,
    tenant=_TEXT,
    date=_TEXT,
    time_us=pa.int64(),
    scenario=_TEXT,
    policy=_TEXT,
    version=pa.int64(),
    variant=_TEXT,
    experiment_=_TEXT,
    variant_propensity=pa.float64(),
    action_propensity_=pa.float64(),
    session_=_TEXT,
    step_=pa.int64(),
    unit_=_TEXT,
    mode_=_TEXT,
    preference_=_WEIGHTS,
    observation=_DOUBLES,
    action=_DOUBLES,
    proposed_action_=_DOUBLES,
    candidate_=_TEXT,
    outcome=_WEIGHTS,
    revision=pa.int64(),
    next_observation_=_DOUBLES,
    terminated=pa.bool_(),
    truncated=pa.bool_(),
)
_EVENTS = _columns(
    tenant=_TEXT,
    date=_TEXT,  # when it arrived, as of outcomes
    receipt_id=_TEXT,
    event_id_=_TEXT,
    source=_TEXT,  # topic, or name of the file
    kind=_TEXT,
    entity_=_TEXT,
    time_us=pa.int64(),  # when it happened, as the sender says
    received_us=pa.int64(),
    values=_WEIGHTS,
    attributes_=_TEXT,  # whatever else was sent, as a JSON object
    producer=_TEXT,
    schema_version=pa.int64(),
)
_WINDOWS = _columns(
    tenant=_TEXT,
    date=_TEXT,  # of the window's start; of a row of kind "source", of its newest event
    name=_TEXT,
    kind=_TEXT,  # "window", or "source": how far one source has come
    source=_TEXT,
    entity=_TEXT,
    start_us=pa.int64(),
    end_us=pa.int64(),
    revision=pa.int64(),  # position in the source that the row is of; the highest of a window counts
    count=pa.int64(),
    parts=_DOUBLES,  # their sum is that of the values, exactly
    minimum_=pa.float64(),
    maximum_=pa.float64(),
    last_=pa.float64(),
    last_us_=pa.int64(),
    last_receipt_=_TEXT,
    watermark_us=pa.int64(),
    late=pa.int64(),  # kind "source": events that no window took, too late or too far ahead
    final=pa.bool_(),
)
_REPORTS = _columns(
    tenant=_TEXT,
    date=_TEXT,
    run_id=_TEXT,
    time_us=pa.int64(),
    table=_TEXT,
    version=pa.int64(),
    scenario_=_TEXT,  # null: the clause is about all of them
    rows=pa.int64(),
    check=_TEXT,
    passed=pa.bool_(),
    measured_=pa.float64(),
    required=_TEXT,
    detail=_TEXT,
)
_QUARANTINE = _columns(
    tenant=_TEXT,
    # "commit", "ingest": refused on the way into bronze; "join": in bronze, refused on the way into silver;
    # "validate": in its table, and in breach of the table's contract
    stage=_TEXT,
    date=_TEXT,
    time_us=pa.int64(),  # stage "commit": when it was refused; stage "join": when it had arrived
    producer=_TEXT,
    receipt_id_=_TEXT,  # null where the payload could not be read
    reason=_TEXT,
    payload=pa.binary(),
)

# 1970 to 9999: what a date partition can say, and what a record may say.
_LAST_US = 253_402_300_799_999_999
_TIME = Within("time_us", at_least=0, at_most=_LAST_US)
_DECIDED = (
    _TIME,
    Within("variant_propensity", above=0, at_most=1),
    Within("version", at_least=0),
    Within("step", at_least=0),
)
_OBSERVED = (_TIME, Within("received_us", at_least=0, at_most=_LAST_US), Within("revision", at_least=0))
_PLACE = ("tenant", "date")

TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec(
            "bronze.decisions",
            _DECISIONS,
            _PLACE,
            ("time_us", "decision_id"),
            append_only=True,
            within=(*_DECIDED, Within("generation", at_least=0)),
            change_feed=True,
        ),
        TableSpec(
            "bronze.outcomes",
            _OUTCOMES,
            _PLACE,
            ("received_us", "receipt_id"),
            append_only=True,
            within=_OBSERVED,
            change_feed=True,
        ),
        TableSpec(
            "silver.transitions",
            _TRANSITIONS,
            _PLACE,
            ("time_us", "decision_id"),
            append_only=False,
            within=(*_DECIDED, Within("revision", at_least=0)),
            change_feed=True,
        ),
        TableSpec(
            "quarantine.decisions",
            _QUARANTINE,
            ("tenant", "stage", "date"),
            ("time_us", "producer", "receipt_id"),
            append_only=False,
        ),
        TableSpec(
            "bronze.events",
            _EVENTS,
            _PLACE,
            ("received_us", "receipt_id"),
            append_only=True,
            within=(_TIME, Within("received_us", at_least=0, at_most=_LAST_US)),
            change_feed=True,
        ),
        TableSpec(
            "quarantine.outcomes",
            _QUARANTINE,
            ("tenant", "stage", "date"),
            ("time_us", "producer", "receipt_id"),
            append_only=False,
        ),
        *(
            TableSpec(
                f"quarantine.{name}",
                _QUARANTINE,
                ("tenant", "stage", "date"),
                ("time_us", "producer", "receipt_id"),
                append_only=False,
            )
            for name in ("events", "transitions")
        ),
        TableSpec(
            "silver.windows",
            _WINDOWS,
            _PLACE,
            ("name", "source", "entity", "start_us", "kind", "revision"),
            append_only=True,
        ),
        TableSpec("quality.reports", _REPORTS, _PLACE, ("time_us", "run_id", "table", "check"), append_only=True),
    )
}

_TRAINING = pa.schema(
    [
        *_TRANSITIONS,
        pa.field("objectives", pa.list_(pa.field("element", _TEXT)), nullable=False),
        pa.field("reward", _DOUBLES, nullable=False),
    ]
)
_TRAINING_NAME = re.compile(r"gold\.[a-z0-9_]+_training")


def training_table(scenario: str) -> str:
    """Name of the table with a scenario's ready-to-train rows: ``gold.<scenario>_training``.

    Whatever is no small letter or digit becomes ``_``; rows say their scenario themselves.
    """
    return f"gold.{re.sub('[^a-z0-9]+', '_', scenario.lower())}_training"


@lru_cache(maxsize=256)
def _training_spec(name: str) -> TableSpec:
    within = TABLES["silver.transitions"].within
    return TableSpec(name, _TRAINING, _PLACE, ("time_us", "decision_id"), append_only=False, within=within)


def table_spec(name: str) -> TableSpec:
    """The declaration of a table; those of scenarios (``gold.<scenario>_training``) are made when asked for.

    Raises:
        ConfigurationError: there is no such table; names those there are.
    """
    if isinstance(name, str) and name not in TABLES and _TRAINING_NAME.fullmatch(name):
        return _training_spec(name)
    return TABLES[check_choice(name, [*TABLES, "gold.<scenario>_training"], field="table")]
