"""Rules that every row of a table keeps, and which rows break which: pandera over Arrow, rule by rule.

pandera 0.35 validates ``pyarrow.Table`` (through narwhals) and gives the verdict of a check row by row. It knows types,
nulls and bounds of scalar columns. It has no type for map columns and no word for what lies inside a list: those rules
are Arrow and NumPy expressions that it runs as checks of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rlaas.errors import LakeError
from rlaas.lake.schemas import TableSpec
from rlaas.lake.validation.columns import BoolArray

__all__ = ["Finding", "Offence", "Rule", "findings"]


@dataclass(frozen=True, slots=True)
class Offence:
    """Rows that break a rule: which of them [n], and what to say about one."""

    bad: BoolArray
    text: Callable[[int], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What every row keeps.

    Attributes:
        name: of the clause.
        column: that it is about.
        required: what there must be, as text.
        offence: rows that break it, where Arrow and NumPy say so; otherwise
        bounds: lowest and highest value of a scalar column, and whether they are allowed themselves.
    """

    name: str
    column: str
    required: str
    offence: Offence | None = None
    bounds: tuple[float, float, bool, bool] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule and the rows that break it."""

    name: str
    required: str
    offence: Offence


def findings(spec: TableSpec, rows: pa.Table, rules: Sequence[Rule]) -> list[Finding]:
    """Hold rows against the table's declaration and the rules.

    Args:
        spec: declares type and nullability of every column.
        rows: rows [n] with all columns.
        rules: what else they keep.

    Returns:
        One finding for every rule, kept or not, and one for every column that breaks the declaration.

    Raises:
        LakeError: a rule itself failed.
    """
    import pandera.pyarrow as pandera
    from pandera.errors import SchemaErrors

    by_name = {rule.name: rule for rule in rules}
    checks: dict[str, list[Any]] = {}
    for rule in rules:
        checks.setdefault(rule.column, []).append(_check(rule))
    schema = pandera.DataFrameSchema(
        {
            column.name: pandera.Column(
                None if pa.types.is_map(column.type) else column.type,
                checks=checks.get(column.name, []),
                nullable=column.nullable,
            )
            for column in spec.schema
        }
    )
    found: dict[str, Finding] = {}
    try:
        schema.validate(rows, lazy=True)
    except SchemaErrors as problem:
        for error in problem.schema_errors:
            finding = _finding(error, rows, by_name)
            found[finding.name] = finding
    kept = Offence(np.zeros(rows.num_rows, dtype=np.bool_), lambda _: "")
    return [
        *(finding for name, finding in found.items() if name not in by_name),
        *(found.get(rule.name, Finding(rule.name, rule.required, kept)) for rule in rules),
    ]


def _check(rule: Rule) -> Any:
    from pandera.pyarrow import Check

    if rule.offence is not None:
        good = pa.array(~rule.offence.bad)
        return Check(lambda _: good, name=rule.name, ignore_na=False)
    assert rule.bounds is not None, "a rule has an offence or bounds"
    low, high, with_low, with_high = rule.bounds
    return Check.in_range(low, high, include_min=with_low, include_max=with_high, name=rule.name)


def _finding(error: Any, rows: pa.Table, rules: dict[str, Rule]) -> Finding:
    """The rows behind one of pandera's errors."""
    import narwhals.stable.v1 as nw
    from pandera.constants import CHECK_OUTPUT_KEY
    from pandera.errors import SchemaErrorReason

    column = getattr(error.schema, "name", None)
    if error.reason_code == SchemaErrorReason.SERIES_CONTAINS_NULLS:
        nulls = rows.column(column).is_null().to_numpy(zero_copy_only=False)
        return Finding(f"{column}.null", f"a value of {column}", Offence(nulls, lambda _: f"{column} is null"))
    if error.reason_code == SchemaErrorReason.DATAFRAME_CHECK:
        rule = rules[error.check.name]
        output = error.check_output
        # pandera keeps a check of its own as an expression and ours as a table with the answer beside the rows.
        frame = (
            nw.from_native(rows, eager_only=True).select(output.alias(CHECK_OUTPUT_KEY))
            if isinstance(output, nw.Expr)
            else output
        )
        good = frame.to_native()[CHECK_OUTPUT_KEY].fill_null(True).to_numpy(zero_copy_only=False)
        offence = rule.offence or Offence(
            np.asarray(~good, dtype=np.bool_), lambda row: f"{column} is {rows.column(column)[row].as_py()}"
        )
        return Finding(rule.name, rule.required, offence)
    if error.reason_code == SchemaErrorReason.WRONG_DATATYPE:
        kind = rows.schema.field(column).type
        every = np.ones(rows.num_rows, dtype=np.bool_)
        return Finding(f"{column}.type", f"{column} as declared", Offence(every, lambda _: f"{column} is {kind}"))
    raise LakeError(f"validation of {column or 'a table'} failed: {' '.join(str(error).split())[:300]}")
