"""Tables as they are declared: made so, and brought up to their declaration later.

A declaration may add: columns that may be null, constraints, properties. It may not change: a type, whether a column
may be null, the partitioning, a constraint, or the set of columns by taking one away. Whatever was written before would
then mean something else, or nothing; a table with another meaning gets another name.
"""

from __future__ import annotations

import time

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError

from rlaas.errors import InvalidInputError, LakeError
from rlaas.lake.schemas import TableSpec

__all__ = ["check_evolution", "check_rows", "declared"]

_ATTEMPTS = 10
_CONSTRAINT = "delta.constraints."


def declared(location: str, spec: TableSpec, delta: DeltaTable | None) -> DeltaTable:
    """The table as declared: made if there is none, with what was added since if there is one.

    Args:
        location: folder or URL of the table.
        spec: its declaration.
        delta: the table as it was opened; None where there is none.

    Raises:
        LakeError: the declaration changes what may only be added to, or rows break a constraint that is new; names the
            column. Nothing was written.
    """
    for attempt in range(_ATTEMPTS):
        try:
            if delta is None:
                DeltaTable.create(
                    location,
                    schema=spec.schema,
                    partition_by=list(spec.partition_by),
                    mode="ignore",
                    name=spec.name,
                    configuration=spec.configuration,
                    # Or of two that make it at once the slower one would make it a second time, behind the first.
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
                delta = DeltaTable(location)
            # Looked at first as a whole: a table that cannot follow is not half brought up.
            check_evolution(spec, delta)
            return _brought_up(location, spec, delta)
        except CommitFailedError as problem:
            # Somebody else, at the same: what is left to add is seen in a new snapshot.
            if attempt == _ATTEMPTS - 1:
                raise LakeError(
                    f"table {spec.name} refused {_ATTEMPTS} changes of its declaration: {problem}"
                ) from problem
            time.sleep(0.01 * 2**attempt)
            delta = DeltaTable(location)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _brought_up(location: str, spec: TableSpec, delta: DeltaTable) -> DeltaTable:
    held = {field.name for field in delta.schema().fields}
    columns = [field for field in Schema.from_arrow(spec.schema).fields if field.name not in held]
    configuration = delta.metadata().configuration
    constraints = {
        within.name: within.sql(spec.schema)
        for within in spec.within
        if f"{_CONSTRAINT}{within.name}" not in configuration
    }
    properties = {key: value for key, value in spec.configuration.items() if configuration.get(key) != value}
    if not columns and not constraints and not properties:
        return delta
    if columns:
        delta.alter.add_columns(columns)
        delta = DeltaTable(location)
    if constraints:
        try:
            delta.alter.add_constraint(constraints)
        except CommitFailedError:
            raise
        except DeltaError as problem:
            broken = _broken(spec, delta)
            raise LakeError(
                f"table {spec.name} cannot be given the constraints of its declaration: {broken or problem}; mend or "
                "remove those rows first",
                field=broken.split(":")[0] if broken else None,
            ) from problem
        delta = DeltaTable(location)
    if properties:
        delta.alter.set_table_properties(properties)
        delta = DeltaTable(location)
    return delta


def _broken(spec: TableSpec, delta: DeltaTable) -> str:
    """The first constraint that rows of the table break, as ``<column>: <n> rows break <rule>``."""
    for within in spec.within:
        # Counted by Delta itself, so that the answer is that of the check that failed. Names and bounds are declared.
        bad = sum(
            batch.num_rows
            for batch in delta.scan(columns=[within.column], predicate=f"NOT ({within.sql(spec.schema)})")
        )
        if bad:
            return f"{within.column}: {bad} rows break {within.rule}"
    return ""


def check_evolution(spec: TableSpec, delta: DeltaTable) -> None:
    """Refuse a declaration that changes what a table says already.

    Raises:
        LakeError: names the column.
    """
    held = {field.name: field for field in delta.schema().fields}
    wanted = {field.name: field for field in Schema.from_arrow(spec.schema).fields}
    rule = "a table may be given columns that may be null, and nothing else may change"
    for name, field in held.items():
        declared_field = wanted.get(name)
        if declared_field is None:
            raise _refused(spec, name, f"the table has it and the declaration does not; {rule}")
        if field.type != declared_field.type:
            types = (pa.schema(delta.schema().to_arrow()).field(name).type, spec.schema.field(name).type)
            raise _refused(spec, name, f"the table holds {types[0]}, declared is {types[1]}; {rule}")
        if field.nullable != declared_field.nullable:
            null = ("may not be null", "may be null")
            raise _refused(
                spec, name, f"it {null[field.nullable]} in the table and {null[declared_field.nullable]} here; {rule}"
            )
    for name, field in wanted.items():
        if name not in held and not field.nullable:
            raise _refused(spec, name, f"it is new and may not be null, but older rows have no value for it; {rule}")
    metadata = delta.metadata()
    if tuple(metadata.partition_columns) != spec.partition_by:
        name = next(iter(set(metadata.partition_columns) ^ set(spec.partition_by)), spec.partition_by[0])
        raise _refused(
            spec,
            name,
            f"the table is partitioned by {', '.join(metadata.partition_columns)}, declared is "
            f"{', '.join(spec.partition_by)}; {rule}",
        )
    for within in spec.within:
        said, says = metadata.configuration.get(f"{_CONSTRAINT}{within.name}"), within.sql(spec.schema)
        if said is not None and said != says:
            raise _refused(spec, within.column, f"the table is constrained to {said}, declared is {says}; {rule}")


def _refused(spec: TableSpec, column: str, why: str) -> LakeError:
    return LakeError(f"table {spec.name}, column {column}: {why}", field=column)


def check_rows(spec: TableSpec, rows: pa.Table) -> None:
    """Refuse rows that are not as declared, before anything is written.

    Delta checks the constraints once more, for writers that do not come through here; its answer shows rows and not
    the constraint.

    Raises:
        InvalidInputError: names the column.
    """
    for name in rows.schema.names:
        if name not in spec.schema.names:
            raise InvalidInputError(
                f"table {spec.name} has no column {name!r}; allowed: {', '.join(spec.schema.names)}", field=name
            )
    for field in spec.schema:
        if field.name not in rows.schema.names:
            raise InvalidInputError(f"rows for table {spec.name} lack the column {field.name!r}", field=field.name)
        column = rows.column(field.name)
        if not column.type.equals(field.type):
            raise InvalidInputError(
                f"rows for table {spec.name}: column {field.name} is {column.type}; allowed: {field.type}",
                field=field.name,
            )
        if not field.nullable and column.null_count:
            raise InvalidInputError(
                f"rows for table {spec.name}: column {field.name} is null in {column.null_count} rows; it may not be",
                field=field.name,
            )
    for within in spec.within:
        # Of the one column: a filter over the whole table copies its lists.
        values = pa.table({within.column: rows.column(within.column)})
        bad = values.filter(~within.kept()).num_rows
        if bad:
            raise InvalidInputError(
                f"rows for table {spec.name}: column {within.column} breaks {within.rule} in {bad} of {rows.num_rows} "
                "rows; nothing was written",
                field=within.column,
            )
