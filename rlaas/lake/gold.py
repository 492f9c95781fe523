"""Ready-to-train rows of one scenario: ``silver.transitions`` to ``gold.<scenario>_training``.

A transition is ready when its successor is known or its session ended, and its outcome has a finite value for every
objective. The gold row is the transition, and the values as one vector in the scenario's order.

Each update reads the change feed of silver behind the version that the last one processed. That version stands in the
same commit as the rows, so an update that dies is done again, and one that is done twice finds nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from rlaas.errors import InvalidInputError, LakeError
from rlaas.lake.datafiles import live_files
from rlaas.lake.schemas import table_spec, training_table
from rlaas.lake.tables import Lake

__all__ = ["TrainingUpdate", "training_rows", "update_training"]

_log = structlog.get_logger("rlaas.lake")

_SOURCE = "silver.transitions"
_ATTEMPTS = 5
_KEYS = ("tenant", "date", "time_us", "decision_id")
_REMOVED = ("delete", "update_preimage")


@dataclass(frozen=True, slots=True)
class TrainingUpdate:
    """What an update did.

    Attributes:
        table: the gold table.
        rows: rows that it holds.
        written: rows that were added or changed.
        removed: rows that are not ready any more.
        how: ``append``, ``merge``, ``rebuild``, or ``nothing`` where nothing was new.
        source_version: Delta version of silver that it says the same as.
    """

    table: str
    rows: int
    written: int
    removed: int
    how: Literal["append", "merge", "rebuild", "nothing"]
    source_version: int


def training_rows(transitions: pa.Table, scenario: str, objectives: Sequence[str]) -> pa.Table:
    """The ready rows of a scenario among rows of ``silver.transitions``, as rows of its gold table.

    Args:
        transitions: rows of silver, in any order.
        scenario: whose rows.
        objectives: order of the reward vector [n_objectives], each in its own unit as it was observed.
    """
    schema = table_spec(training_table(scenario)).schema
    mine = pc.equal(transitions.column("scenario"), scenario)
    ended = pc.or_(transitions.column("terminated"), transitions.column("truncated"))
    complete = pc.or_(transitions.column("next_observation").is_valid(), ended)
    rows = transitions.filter(pc.and_(mine, complete)).combine_chunks()
    reward = np.full((rows.num_rows, len(objectives)), np.nan)
    entries = _entries(rows.column("outcome").combine_chunks())
    for place, name in enumerate(objectives):
        chosen = pc.equal(entries.column("name"), name).to_numpy(zero_copy_only=False)
        at = entries.column("row").to_numpy()[chosen]
        reward[at, place] = entries.column("value").to_numpy()[chosen]
    finite = np.isfinite(reward).all(axis=1)
    rows = rows.filter(pa.array(finite))
    lengths = np.full(rows.num_rows, len(objectives), dtype=np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    names = pa.array(list(objectives) * rows.num_rows, type=pa.string())
    columns = {name: rows.column(name) for name in rows.column_names}
    columns["objectives"] = pa.ListArray.from_arrays(offsets, names, type=schema.field("objectives").type)
    columns["reward"] = pa.ListArray.from_arrays(
        offsets, pa.array(reward[finite].reshape(-1)), type=schema.field("reward").type
    )
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def update_training(lake: Lake, scenario: str, objectives: Sequence[str]) -> TrainingUpdate:
    """Bring a scenario's gold table to what ``silver.transitions`` says; writes only what changed.

    Rows that silver lost to an archive stay: moving them is no change.

    Args:
        lake: the tables.
        scenario: whose rows.
        objectives: order of the reward vector. If it is another than that of the rows there are, all are made anew.

    Raises:
        InvalidInputError: no objectives, or the same twice.
        LakeError: a table is damaged, or other writers changed the table again and again meanwhile.
    """
    if not objectives or len(set(objectives)) < len(objectives):
        raise InvalidInputError(
            f"objectives {', '.join(objectives) or '(none)'}: allowed is one or more, each once", field="objectives"
        )
    for attempt in range(_ATTEMPTS):
        try:
            # From the first look to the commit: who is erased in between would otherwise be written once more.
            with lake.writing():
                return _update(lake, scenario, list(objectives))
        except CommitFailedError as problem:
            if attempt == _ATTEMPTS - 1:
                raise LakeError(f"{training_table(scenario)}: {_ATTEMPTS} commits refused: {problem}") from problem
            time.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _update(lake: Lake, scenario: str, objectives: list[str]) -> TrainingUpdate:
    table = training_table(scenario)
    # Opened before silver is read: of two updates the one that read less cannot overwrite the one that read more.
    gold = lake.open_or_create(table)
    source = lake.open(_SOURCE)
    newest = -1 if source is None else int(source.version())
    app_id = f"rlaas/{lake.tenant}/training/{scenario}"
    seen = gold.transaction_version(app_id)
    same_order = _stored_objectives(lake, gold, scenario) in (None, objectives)
    if seen == newest + 1 and same_order:
        return TrainingUpdate(table, _count(lake, gold), 0, 0, "nothing", newest)
    mark = CommitProperties(app_transactions=[Transaction(app_id, newest + 1)])
    if seen is not None and 0 < seen <= newest and same_order:
        try:
            changes = lake.changes(_SOURCE, seen - 1, until_version=newest)
        except LakeError as problem:
            _log.warning("training_rows_rebuilt", table=table, tenant=lake.tenant, reason=problem.message)
        else:
            before = training_rows(_edges(changes, first=True), scenario, objectives)
            after = training_rows(_edges(changes, first=False), scenario, objectives)
            written, removed = _apply(lake, gold, before, after, mark)
            how: Literal["append", "merge"] = "merge" if before.num_rows else "append"
            return TrainingUpdate(table, _count(lake, lake.open_or_create(table)), written, removed, how, newest)
    held = _count(lake, gold)
    rows = _all_rows(lake, table, gold, source, scenario, objectives)
    quoted = scenario.replace("'", "''")
    write_deltalake(
        gold,
        rows,
        mode="overwrite",
        predicate=f"tenant = '{lake.tenant}' AND scenario = '{quoted}'",
        commit_properties=mark,
    )
    return TrainingUpdate(table, _count(lake, lake.open_or_create(table)), rows.num_rows, held, "rebuild", newest)


def _all_rows(
    lake: Lake, table: str, gold: DeltaTable, source: DeltaTable | None, scenario: str, objectives: list[str]
) -> pa.Table:
    """The gold rows of all that silver holds, and of what it held before that was archived."""
    transitions = lake.read(_SOURCE) if source is None else lake.read_open(table_spec(_SOURCE), source)
    since = pc.min(transitions.column("date")).as_py()
    older = pc.field("scenario") == scenario
    if since is not None:
        older = older & (pc.field("date") < since)
    archived = lake.read_open(table_spec(table), gold, columns=transitions.column_names, filter=older)
    return training_rows(pa.concat_tables([transitions, archived]), scenario, objectives)


def _apply(lake: Lake, gold: DeltaTable, before: pa.Table, after: pa.Table, mark: CommitProperties) -> tuple[int, int]:
    """Write the difference in one commit; returns the number of rows written and removed."""
    if not before.num_rows:
        write_deltalake(gold, after, mode="append", commit_properties=mark)
        return after.num_rows, 0
    old = {_key(row): row for row in before.to_pylist()}
    new = {_key(row): row for row in after.to_pylist()}
    written = [place for place, (key, row) in enumerate(new.items()) if old.get(key) != row]
    gone = [place for place, key in enumerate(old) if key not in new]
    if written or gone:
        _merge(lake, gold, after.take(pa.array(written, pa.int64())), before.take(pa.array(gone, pa.int64())), mark)
    else:
        write_deltalake(gold, after.slice(0, 0), mode="append", commit_properties=mark)
    return len(written), len(gone)


def _merge(lake: Lake, gold: DeltaTable, written: pa.Table, gone: pa.Table, properties: CommitProperties) -> None:
    source = pa.concat_tables([written, gone]).combine_chunks()
    flags = [False] * written.num_rows + [True] * gone.num_rows
    source = source.append_column("_gone", pa.array(flags, type=pa.bool_()))
    # The days say nothing that the keys do not say, but Delta leaves out folders by them.
    days = ", ".join(f"'{day}'" for day in sorted(set(source.column("date").to_pylist())))
    keys = " AND ".join(f"t.{key} = s.{key}" for key in _KEYS)
    names = [name for name in source.column_names if name != "_gone"]
    merge = gold.merge(
        source,
        f"{keys} AND t.tenant = '{lake.tenant}' AND t.date IN ({days})",
        source_alias="s",
        target_alias="t",
        streamed_exec=False,
        commit_properties=properties,
    )
    merge = merge.when_matched_delete(predicate="s._gone")
    merge = merge.when_matched_update({name: f"s.{name}" for name in names if name not in _KEYS})
    merge.when_not_matched_insert({name: f"s.{name}" for name in names}, predicate="NOT s._gone").execute()


def _edges(changes: pa.Table, *, first: bool) -> pa.Table:
    """The rows as they were before all changes, or as they are behind them.

    A row whose first change is an insertion was not there before; one whose last is a deletion is not there now. Within
    a commit what was there comes before what is there then.
    """
    removed = pc.is_in(changes.column("_change_type"), value_set=pa.array(_REMOVED))
    order = pa.table(
        {
            "date": changes.column("date"),
            "time_us": changes.column("time_us"),
            "decision_id": changes.column("decision_id"),
            "version": changes.column("_commit_version"),
            "added": pc.invert(removed),
        }
    )
    places = pc.sort_indices(order, sort_keys=[(name, "ascending") for name in order.column_names])
    ordered = order.take(places)
    same = np.ones(max(ordered.num_rows - 1, 0), dtype=np.bool_)
    for name in ("date", "time_us", "decision_id"):
        column = ordered.column(name).combine_chunks()
        same &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    at_edge = np.concatenate([[True], ~same] if first else [~same, [True]])[: ordered.num_rows]
    added = ordered.column("added").to_numpy()
    chosen = at_edge & (~added if first else added)
    return changes.take(places.filter(pa.array(chosen)))


def _entries(outcomes: pa.MapArray) -> pa.Table:
    """Entries of a map column with the number of their row."""
    lists = outcomes.cast(pa.list_(pa.struct([outcomes.type.key_field, outcomes.type.item_field])))
    flat = lists.flatten()
    return pa.table(
        {
            "row": pc.list_parent_indices(lists).cast(pa.int64()),
            "name": pc.struct_field(flat, [0]),
            "value": pc.fill_null(pc.struct_field(flat, [1]), float("nan")),
        }
    )


def _key(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row[name] for name in _KEYS)


def _stored_objectives(lake: Lake, gold: DeltaTable, scenario: str) -> list[str] | None:
    """The order of the rows there are; None where there are none."""
    quoted = scenario.replace("'", "''")
    for batch in gold.scan(columns=["objectives"], predicate=f"tenant = '{lake.tenant}' AND scenario = '{quoted}'"):
        if batch.num_rows:
            found: list[str] = pa.table(batch).column("objectives")[0].as_py()
            return found
    return None


def _count(lake: Lake, gold: DeltaTable) -> int:
    """Rows of the tenant, as the log counts them."""
    return sum(file.rows for file in live_files(gold, {"tenant": lake.tenant}))
