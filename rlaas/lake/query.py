"""SQL over the lake: one tenant's rows, read only, a bounded number of them."""

from __future__ import annotations

import secrets

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from rlaas.errors import InvalidInputError
from rlaas.lake.tables import Lake

__all__ = ["query"]

MAX_ROWS = 100_000


def query(lake: Lake, sql: str, *, limit: int = 1000) -> tuple[pa.Table, bool]:
    """Answer a question about the newest versions of the tables, in the SQL of Apache DataFusion.

    Tables are named as everywhere, ``SELECT policy, count(*) FROM silver.transitions GROUP BY policy``; one that was
    never written to is not there. Each is a view of the tenant's rows. What lies below has a name that is drawn anew
    for every question, and nothing tells it.

    Args:
        lake: the tables.
        sql: one ``SELECT`` (or ``WITH``, ``VALUES``).
        limit: number of rows to stop at, at most 100,000.

    Returns:
        The rows, and whether there were more.

    Raises:
        InvalidInputError: the question is not one, cannot be answered, or would write; says what is wrong.
    """
    if not 1 <= limit <= MAX_ROWS:
        raise InvalidInputError(f"limit {limit} is out of range; allowed: 1 to {MAX_ROWS}", field="limit")
    builder = QueryBuilder()
    known = sorted(lake.versions())
    for layer in sorted({name.partition(".")[0] for name in known}):
        builder.execute(f"CREATE SCHEMA {layer}").read_all()
    for name in known:
        hidden = f"table_{secrets.token_hex(16)}"
        builder.register(hidden, DeltaTable(lake.location(name)))
        builder.execute(f"CREATE VIEW {name} AS SELECT * FROM {hidden} WHERE tenant = '{lake.tenant}'").read_all()
    try:
        # Only a question can stand in brackets: whatever would make, change or copy something is no SQL there. It is
        # asked without them afterwards, because what they hold loses its order.
        builder.execute(f"EXPLAIN SELECT * FROM (\n{sql}\n)").read_all()
        reader = builder.execute(sql)
        schema, batches, rows = pa.schema(reader.schema), [], 0
        for batch in reader:
            batches.append(pa.record_batch(batch))
            rows += batches[-1].num_rows
            if rows > limit:
                break
    except Exception as problem:  # what breaks off a stream of answers has no class of its own
        reason = " ".join(str(problem).split())[:400]
        raise InvalidInputError(
            f"the question has no answer: {reason}; tables: {', '.join(known) or '(none)'}", field="sql"
        ) from problem
    found = pa.Table.from_batches(batches, schema=schema)
    return found.slice(0, limit), rows > limit
