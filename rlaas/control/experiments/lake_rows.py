"""New rows of the lake for one experiment: what was committed since the last look, each row once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.control.experiments.batches import Batch, batch_at
from rlaas.control.experiments.contexts import ContextReader
from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.errors import LakeError
from rlaas.experiments.assignment import block_of
from rlaas.experiments.records import LARGEST, Exposure, Outcome
from rlaas.experiments.targeting import matcher
from rlaas.lake import Lake
from rlaas.lake.rows import date_of

__all__ = ["Decided", "ExposureReader", "NewRows", "outcome_of", "read_new"]

_DECISION_COLUMNS = (
    "decision_id",
    "time_us",
    "variant",
    "experiment",
    "variant_propensity",
    "step",
    "unit",
    "context",
    "generation",
)
_CONTEXT_COLUMNS = ("observation", "preference")
_LONGEST_UNIT = 256
_OUTCOME_COLUMNS = ("receipt_id", "decision_id", "revision", "outcome", "time_us", "received_us")


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows committed since the versions that were read before.

    Attributes:
        decisions: of the experiment, by time.
        outcomes: of the policy, in the order in which they were received.
        versions: of the tables, up to which everything has been read now; None where there is none.
    """

    decisions: Sequence[Mapping[str, Any]]
    outcomes: Sequence[Mapping[str, Any]]
    versions: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Decided:
    """The unit that a decision was for, and when, UTC microseconds."""

    unit: str
    time_us: int


def read_new(
    lake: Lake,
    document: ExperimentDocument,
    start_us: int,
    since: Mapping[str, int | None],
    *,
    beside: Sequence[str] = (),
) -> NewRows:
    """Read what is new; the first time, everything from the start on.

    Args:
        lake: the tables.
        document: the experiment.
        start_us: of the experiment, UTC microseconds.
        since: versions of the tables that were read last.
        beside: variants under which the policy decides for units in no experiment, that are wanted too.

    Raises:
        LakeError: a table is damaged, or its log no longer reaches back to those versions.
    """
    # Outcomes first: a decision is committed before its outcome, so that what is read here mostly finds its match.
    # The plain names of a document and of a tenant hold no quote.
    of_policy = f"(policy = '{document.policy}' OR policy IS NULL)"
    outcomes, outcome_version = _read(
        lake,
        "bronze.outcomes",
        _OUTCOME_COLUMNS,
        since.get("bronze.outcomes"),
        date_of(start_us),
        (pc.field("policy") == document.policy) | pc.field("policy").is_null(),
        of_policy,
    )
    decided, decided_sql = pc.field("experiment") == document.id, f"experiment = '{document.id}'"
    if beside:
        named = ", ".join(f"'{name}'" for name in beside)
        outside = pc.field("experiment").is_null() & pc.field("variant").isin(list(beside))
        decided = decided | ((pc.field("policy") == document.policy) & outside)
        outside_sql = f"experiment IS NULL AND variant IN ({named})"
        decided_sql = f"({decided_sql} OR (policy = '{document.policy}' AND {outside_sql}))"
    decisions, decision_version = _read(
        lake,
        "bronze.decisions",
        _DECISION_COLUMNS if document.conditional_spec() is None else (*_DECISION_COLUMNS, *_CONTEXT_COLUMNS),
        since.get("bronze.decisions"),
        date_of(start_us),
        decided,
        decided_sql,
    )
    return NewRows(
        sorted(decisions, key=lambda row: (row["time_us"], row["decision_id"])),
        sorted(outcomes, key=lambda row: (row["received_us"], row["receipt_id"])),
        {"bronze.outcomes": outcome_version, "bronze.decisions": decision_version},
    )


class ExposureReader:
    """Turns decisions into exposures.

    Args:
        document: the experiment.
        start_us: decisions before it do not count, UTC microseconds.
        batches: of an adaptive allocation, after the first.
    """

    def __init__(self, document: ExperimentDocument, start_us: int, batches: Sequence[Batch] = ()) -> None:
        self._document, self._start_us, self._batches = document, start_us, batches
        self._arms = frozenset(document.shares())
        self._context = None if document.conditional_spec() is None else ContextReader(document)
        self._matches = None if document.targeting is None else matcher(document.targeting)
        self._attributes = {name for metric in document.metrics for name in metric.segments}
        self._covariates = {name for metric in document.metrics if (name := getattr(metric, "cuped", None)) is not None}

    def read(self, row: Mapping[str, Any]) -> Exposure | None:
        """The exposure that a row of ``bronze.decisions`` is; None where it is none that counts."""
        if row["experiment"] != self._document.id or row["variant"] not in self._arms:
            return None
        if row["time_us"] < self._start_us:
            return None
        context = json.loads(row["context"]) if row["context"] else {}
        attributes: dict[str, Any] = {
            name: context[name] for name in self._attributes if isinstance(context.get(name), str | int | float)
        }
        if self._document.block_steps is not None:
            step, size = row["step"], self._document.block_steps
            if step is None or step % size < self._document.washout_steps:
                return None
            attributes = {"block": block_of(step, size)}
            unit = f"block {attributes['block']}"
        else:
            # Without a sticky key each decision is a unit of its own, as the Gateway drew it.
            unit = row["unit"] or row["decision_id"]
            if self._matches is not None and not self._matches(context):
                return None
            if self._document.allocation is not None:
                # Drawn anew in each batch, so that the chance of a variant is what was logged: a unit of its own.
                batch = batch_at(self._batches, row["generation"])
                attributes = {"batch": batch}
                if self._context is not None:
                    # And at each context.
                    x = self._context(row)
                    if x is None:
                        return None
                    attributes["x"] = x.tolist()
                    unit = f"{blake2b(x.tobytes(), digest_size=8).hexdigest()}/{unit}"
                unit = in_batch(unit, batch)
        return Exposure(
            unit=unit,
            arm=row["variant"],
            time_us=row["time_us"],
            received_us=row["time_us"],
            attributes=attributes,
            covariates={name: float(context[name]) for name in self._covariates if _is_number(context.get(name))},
            propensity=row["variant_propensity"],
        )


def in_batch(unit: str, batch: int) -> str:
    """Name of a unit in one batch, no longer than a unit's may be."""
    name = f"{batch}/{unit}"
    return name if len(name) <= _LONGEST_UNIT else f"{batch}/{blake2b(unit.encode(), digest_size=32).hexdigest()}"


def outcome_of(row: Mapping[str, Any], decided: Decided, names: frozenset[str]) -> Outcome:
    """An outcome as its unit's: a decision has one, of which the highest revision counts, as in the lake.

    Args:
        row: of ``bronze.outcomes``.
        decided: its decision; what it says of a time before that is put there, as clocks may differ.
        names: values that a metric needs.
    """
    return Outcome(
        outcome_id=row["decision_id"],
        unit=decided.unit,
        time_us=max(row["time_us"], decided.time_us),
        received_us=max(row["received_us"], decided.time_us),
        values={name: value for name, value in row["outcome"] if name in names and abs(value) <= LARGEST},
        revision=row["revision"],
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _read(
    lake: Lake,
    table: str,
    columns: Sequence[str],
    since: int | None,
    first_date: str,
    wanted: pc.Expression,
    wanted_sql: str,
) -> tuple[list[dict[str, Any]], int | None]:
    delta = lake.open(table)
    if delta is None:
        return [], None
    version = int(delta.version())
    if since is None:
        rows = lake.read(table, columns, filter=(pc.field("date") >= first_date) & wanted, version=version)
        return rows.to_pylist(), version
    if version <= since:
        return [], since
    try:
        # The changes of the commits in between. Merging small files is none, so that every row comes once.
        reader = delta.load_cdf(
            since + 1,
            version,
            columns=list(columns),
            predicate=f"tenant = '{lake.tenant}' AND date >= '{first_date}' AND {wanted_sql}",
        )
        return pa.table(reader.read_all()).to_pylist(), version
    except Exception as problem:  # the reader of changes raises it bare for a file that cannot be read
        raise LakeError(
            f"table {table} cannot be read from version {since + 1} on: {' '.join(str(problem).split())[:200]}"
        ) from problem
