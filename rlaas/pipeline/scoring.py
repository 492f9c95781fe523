"""Offline scoring: a policy decides for every row of a table, on Ray Data, into a new Delta table.

Workers read files of the table and load the bundle once each; the driver writes what they return in one commit, as a
stream, so that no table has to fit into memory. A row that cannot be decided stays in the result with its reason.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.errors import ConfigurationError, InvalidInputError, PipelineError, check_choice
from rlaas.interrupts import check_interrupt
from rlaas.objectives import Preference
from rlaas.serving.scoring import DECISION_COLUMNS, Reader, Scorer, Source

__all__ = ["DECISION_COLUMNS", "ScoringPlan", "ScoringReport", "Source", "plan_scoring", "score_table"]

_OBSERVATION = "observation"


@dataclass(frozen=True)
class ScoringPlan:
    """What is scored, by what, and where to; made by :func:`plan_scoring`."""

    source: Source
    output: Path
    bundle: Path
    policy: str
    version: int | None
    columns: tuple[str, ...]
    keep: tuple[str, ...]
    rows: int
    preference: Mapping[str, float] | None
    mode_column: str | None
    preference_column: str | None
    batch_rows: int

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns to read."""
        wanted = [*self.keep, *self.columns, self.mode_column, self.preference_column]
        return tuple(dict.fromkeys(name for name in wanted if name is not None))

    @property
    def schema(self) -> pa.Schema:
        """Columns of the result."""
        return pa.schema([*(self.source.dataset.schema.field(name) for name in self.keep), *DECISION_COLUMNS])

    @property
    def scorer(self) -> dict[str, Any]:
        """Arguments of the workers."""
        return {
            "bundle": self.bundle,
            "policy": self.policy,
            "version": self.version,
            "columns": self.columns,
            "keep": self.keep,
            "preference": self.preference,
            "preferences_from": self.mode_column or self.preference_column,
            "schema": self.schema,
        }


@dataclass(frozen=True, slots=True)
class ScoringReport:
    """What was scored; ``rows`` = ``decided`` + the rejected ones, and all of them are in the result."""

    rows: int
    decided: int
    rejected: dict[str, int]
    output: Path
    table_version: int | None
    policy: str
    version: int | None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {
            "rows": self.rows,
            "decided": self.decided,
            "rejected": self.rejected,
            "output": str(self.output),
            "table_version": self.table_version,
            "policy": self.policy,
            "version": self.version,
        }


def plan_scoring(
    source: Source,
    output: Path,
    bundle: Path,
    *,
    policy: str,
    version: int | None = None,
    columns: Sequence[str] = (),
    keep: Sequence[str] | None = None,
    mode: str | None = None,
    preference: Mapping[str, float] | None = None,
    mode_column: str | None = None,
    preference_column: str | None = None,
    batch_rows: int = 8192,
) -> ScoringPlan:
    """Check everything that can be checked before a row is read.

    Args:
        source: the table.
        output: folder of the new Delta table.
        bundle: folder of the bundle.
        policy: its name, for the result.
        version: its version, for the result.
        columns: the features, one column each and in the policy's order, or one column of lists. Default: the columns
            with the names of the features, or the column ``observation``.
        keep: columns that the result keeps; default all.
        mode: one mode for every row; or
        preference: one preference for every row; or
        mode_column: column with the mode of each row (null: none); or
        preference_column: column with the preference of each row, a map or struct from objective to weight.
        batch_rows: rows of one forward pass.

    Raises:
        InvalidInputError: a column is missing or of the wrong type, the preference is impossible, or something stands
            at ``output``.
        ConfigurationError: more than one way to say the preference, or the policy has a memory.
        BundleError: the bundle is damaged.
    """
    if output.exists():
        raise InvalidInputError(f"--output {output} is there already; allowed: a new folder", field="output")
    if batch_rows < 1:
        raise ConfigurationError(f"batch_rows must be at least 1, got {batch_rows}", field="batch_rows")
    ways = {"mode": mode, "preference": preference, "mode_column": mode_column, "preference_column": preference_column}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} exclude each other; give one of them", field=given[1])
    loaded = load_bundle(bundle)
    if loaded.manifest.n_state:
        raise ConfigurationError(
            f"{policy} remembers from step to step, and rows of a table are decided one by one", field="policy"
        )
    if mode is not None:
        check_choice(mode, loaded.manifest.modes, field="mode", error=InvalidInputError)
        preference = loaded.manifest.modes[mode]
    if loaded.manifest.preference_conditioned:
        # Said once for all rows, or taken where a row says nothing.
        weights = preference if preference is not None else Preference.uniform(loaded.objectives).to_dict()
        preference = Preference.of(loaded.objectives, weights).to_dict()
    else:
        preference = None
    schema = source.dataset.schema
    _check_type(schema, mode_column, "text", (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
    _check_type(schema, preference_column, "a map or a struct", (pa.types.is_map, pa.types.is_struct))
    kept = tuple(schema.names if keep is None else keep)
    for name in kept:
        check_choice(name, schema.names, field="column", error=InvalidInputError)
    taken = [name for name in DECISION_COLUMNS.names if name in kept]
    if taken:
        raise InvalidInputError(
            f"the result's own columns would meet those of the table ({', '.join(taken)}); choose others with --keep",
            field="keep",
        )
    return ScoringPlan(
        source=source,
        output=output,
        bundle=bundle,
        policy=policy,
        version=version,
        columns=_feature_columns(schema, columns, loaded),
        keep=kept,
        rows=source.count(),
        preference=preference,
        mode_column=mode_column,
        preference_column=preference_column,
        batch_rows=batch_rows,
    )


def score_table(plan: ScoringPlan, *, progress: Callable[[int, int], None] | None = None) -> ScoringReport:
    """Score on the running Ray, and write the result in one commit: it is there whole, or not at all.

    Args:
        plan: what and where to.
        progress: called with (rows done, rows in all).

    Raises:
        PipelineError: a worker failed, or the result has not the rows that the table has; nothing is left at
            ``plan.output``.
    """
    from deltalake import DeltaTable, write_deltalake

    rejected: Counter[str] = Counter()
    partial = plan.output.with_name(f".{plan.output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)

    failures: list[BaseException] = []

    def counted() -> Iterator[pa.RecordBatch]:
        done = 0
        try:
            for table in _scored(plan):
                check_interrupt()
                rejected.update(table["rejected"].drop_null().to_pylist())
                done += table.num_rows
                if progress is not None:
                    progress(done, plan.rows)
                yield from table.cast(plan.schema).to_batches()
        except BaseException as problem:
            failures.append(problem)  # on its way through Arrow it becomes an error of Arrow's
            raise

    try:
        try:
            write_deltalake(str(partial), pa.RecordBatchReader.from_batches(plan.schema, counted()), mode="error")
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        written = int(DeltaTable(str(partial)).to_pyarrow_dataset().count_rows())
        if written != plan.rows:
            raise PipelineError(f"{plan.rows} rows were read and {written} written; nothing was kept")
        partial.rename(plan.output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ScoringReport(
        rows=written,
        decided=written - rejected.total(),
        rejected=dict(rejected.most_common()),
        output=plan.output,
        table_version=plan.source.version,
        policy=plan.policy,
        version=plan.version,
    )


def _scored(plan: ScoringPlan) -> Iterator[pa.Table]:
    """Scored batches, in the order of the table."""
    import ray.data
    from ray.exceptions import RayError

    fragments = plan.source.fragments()
    if not fragments:
        return
    # Ray Data announces each of its steps; how far it is, the caller is told by ``progress``.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    read = Reader(plan.source, plan.needed, plan.batch_rows)
    files = ray.data.from_items([{"file": path} for path in fragments], override_num_blocks=len(fragments))
    scored = files.map_batches(read.__call__, batch_size=1).map_batches(
        Scorer,
        fn_constructor_kwargs=plan.scorer,
        batch_size=plan.batch_rows,
        batch_format="pyarrow",
        concurrency=(1, max(1, min(len(fragments), int(ray.cluster_resources().get("CPU", 1)) - 1))),
        num_cpus=1,
    )
    try:
        yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayError as problem:
        last = str(problem).strip().splitlines()[-1]
        raise PipelineError(f"a worker failed: {last}") from problem


def _check_type(schema: pa.Schema, column: str | None, expected: str, kinds: Sequence[Callable[[Any], bool]]) -> None:
    if column is None:
        return
    check_choice(column, schema.names, field="column", error=InvalidInputError)
    found = schema.field(column).type
    if not any(is_kind(found) for is_kind in kinds):
        raise InvalidInputError(f"column {column!r} is {found}; expected {expected}", field="column")


def _feature_columns(schema: pa.Schema, columns: Sequence[str], policy: BundlePolicy) -> tuple[str, ...]:
    """Columns that hold the observation, checked for their types."""
    names = policy.manifest.observation.names
    chosen = tuple(columns)
    if not chosen:
        chosen = tuple(names) if set(names) <= set(schema.names) else (_OBSERVATION,)
        if chosen == (_OBSERVATION,) and _OBSERVATION not in schema.names:
            missing = [name for name in names if name not in schema.names]
            raise InvalidInputError(
                f"the table has neither a column {_OBSERVATION!r} nor the feature {missing[0]!r}; name the columns by "
                f"--columns; it has: {', '.join(schema.names)}",
                field="columns",
            )
    for name in chosen:
        check_choice(name, schema.names, field="column", error=InvalidInputError)
        kind = schema.field(name).type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        number = kind.value_type if is_list else kind
        allowed = (len(chosen) == 1) if is_list else len(chosen) == len(names)
        if not allowed or not (pa.types.is_integer(number) or pa.types.is_floating(number)):
            raise InvalidInputError(
                f"column {name!r} is {kind}; expected {len(names)} columns of numbers, or one of lists of numbers",
                field="columns",
            )
    return chosen
