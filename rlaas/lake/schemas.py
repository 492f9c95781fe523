"""The tables of the lake: their columns, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from rlaas.errors import check_choice

__all__ = ["TABLES", "TableSpec", "table_spec"]

_TEXT = pa.string()
_DOUBLES = pa.list_(pa.field("element", pa.float64()))
_WEIGHTS = pa.map_(pa.string(), pa.float64())

_CHECKPOINT_EVERY = 20
"""Commits. Whoever opens a table reads every commit since the last checkpoint, each on a thread of its own."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A declared table.

    Attributes:
        name: ``<layer>.<table>``.
        schema: columns; the order is that of :meth:`Lake.read`.
        partition_by: columns that become folders.
        order_by: columns that order the rows of the table fully.
        append_only: rows are never changed or removed.
    """

    name: str
    schema: pa.Schema
    partition_by: tuple[str, ...]
    order_by: tuple[str, ...]
    append_only: bool
    configuration: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        configuration = {"delta.checkpointInterval": str(_CHECKPOINT_EVERY)}
        if self.append_only:
            configuration["delta.appendOnly"] = "true"
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
_QUARANTINE = _columns(
    tenant=_TEXT,
    stage=_TEXT,  # "commit": refused on the way into bronze; "join": in bronze, refused on the way into silver
    date=_TEXT,
    time_us=pa.int64(),  # stage "commit": when it was refused; stage "join": when it had arrived
    producer=_TEXT,
    receipt_id_=_TEXT,  # null where the payload could not be read
    reason=_TEXT,
    payload=pa.binary(),
)

TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec("bronze.decisions", _DECISIONS, ("tenant", "date"), ("time_us", "decision_id"), append_only=True),
        TableSpec("bronze.outcomes", _OUTCOMES, ("tenant", "date"), ("received_us", "receipt_id"), append_only=True),
        TableSpec(
            "silver.transitions", _TRANSITIONS, ("tenant", "date"), ("time_us", "decision_id"), append_only=False
        ),
        TableSpec(
            "quarantine.decisions",
            _QUARANTINE,
            ("tenant", "stage", "date"),
            ("time_us", "producer", "receipt_id"),
            append_only=False,
        ),
        TableSpec(
            "quarantine.outcomes",
            _QUARANTINE,
            ("tenant", "stage", "date"),
            ("time_us", "producer", "receipt_id"),
            append_only=False,
        ),
    )
}


def table_spec(name: str) -> TableSpec:
    """The declaration of a table.

    Raises:
        ConfigurationError: there is no such table; names those there are.
    """
    return TABLES[check_choice(name, TABLES, field="table")]
