"""Point-in-time-correct training sets: to each row the features as they could have been served at its time.

A value counts if all that it is made of had happened *and had arrived* by the time of the row, and if its newest event
was no older then than the feature allows. Rows and events are put on disk apart by entity and joined part by part by a
sorted merge: memory holds a part, however many rows there are.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, NotFoundError, check_choice
from rlaas.lake.features.events import EntityCodes, EventReader, micros, texts
from rlaas.lake.features.expressions import column_at
from rlaas.lake.features.kernels import as_of, order_by
from rlaas.lake.features.sources import open_source
from rlaas.lake.features.spill import Spill
from rlaas.lake.features.states import transform
from rlaas.lake.features.store import FeatureVersion
from rlaas.lake.tables import Lake

__all__ = ["TrainingSetReport", "training_set", "write_training_set"]

_PART_ROWS = 1 << 20
_BATCH_ROWS = 1 << 19
_MOST_PARTS = 64


@dataclass(frozen=True, slots=True)
class TrainingSetReport:
    """What a training set is made of.

    Attributes:
        rows: in it.
        features: for each ``name@version`` the rows that have no fresh value, and how many of them had a stale one.
        sources: state in which each source was read.
    """

    rows: int
    features: dict[str, dict[str, int]]
    sources: dict[str, Any]


def training_set(
    lake: Lake, features: Sequence[FeatureVersion], entities: pa.Table, *, time: str = "time_us"
) -> tuple[pa.Table, TrainingSetReport]:
    """The rows of ``entities`` with a column for each feature, in the same order.

    Args:
        lake: of the sources.
        features: to join.
        entities: a column of ids for each kind of entity, named like it, a column of times, and any others.
        time: name of the column of times: UTC microseconds or timestamps.

    Raises:
        InvalidInputError: a column is missing, or has the name of a feature.
        LakeError: a source is damaged.
        RetryableError: a source was rewritten meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="rlaas-features-") as folder:
        join = _Join(lake, features, pa_dataset.dataset(entities), time, Path(folder))
        schema, batches = join.joined()
        table = pa.Table.from_batches(batches, schema=schema)
        return table, join.report()


def write_training_set(
    lake: Lake, features: Sequence[FeatureVersion], entities: Path, output: Path, *, time: str = "time_us"
) -> TrainingSetReport:
    """The same from a Parquet (or CSV) file to a Parquet file, with bounded memory.

    Args:
        lake, features, time: as of :func:`training_set`.
        entities: Parquet file or folder, or CSV file.
        output: Parquet file; written in one piece, in place of what there was.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: as of :func:`training_set`, or the file is neither Parquet nor CSV.
    """
    if not entities.exists():
        raise NotFoundError(f"{entities}: there is no such file", field="entities")
    kind = "csv" if entities.suffix == ".csv" else "parquet"
    try:
        rows = pa_dataset.dataset(entities, format=kind)
    except (OSError, pa.ArrowInvalid) as problem:
        raise InvalidInputError(f"{entities} cannot be read as {kind}: {problem}", field="entities") from problem
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    # Beside the output: there is room for that, and the files here are as large.
    with tempfile.TemporaryDirectory(prefix=".rlaas-features-", dir=output.parent) as folder:
        join = _Join(lake, features, rows, time, Path(folder))
        schema, batches = join.joined()
        try:
            texts_only = [one.name for one in schema if pa.types.is_string(one.type)]
            with pa_parquet.ParquetWriter(partial, schema, use_dictionary=texts_only) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
        return join.report()


class _Join:
    """The work of one training set, in a folder of its own."""

    def __init__(
        self, lake: Lake, features: Sequence[FeatureVersion], rows: pa_dataset.Dataset, time: str, folder: Path
    ) -> None:
        self._lake, self._features, self._rows, self._time, self._folder = lake, features, rows, time, folder
        names = rows.schema.names
        for feature in features:
            definition = feature.definition
            check_choice(definition.entity, names, field="column of entities", error=InvalidInputError)
            if definition.name in names:
                raise InvalidInputError(
                    f"entities has a column {definition.name!r} already; rename it", field=definition.name
                )
        labels = [feature.definition.name for feature in features]
        twice = next((name for name in labels if labels.count(name) > 1), None)
        if twice is not None:
            raise InvalidInputError(f"feature {twice!r} is asked for twice", field="features")
        check_choice(time, names, field="column of entities", error=InvalidInputError)
        self._count = int(rows.count_rows())
        self._codes = {feature.definition.entity: EntityCodes() for feature in features}
        self._out = [self._column(place) for place in range(len(features))]
        self._stale = [0] * len(features)
        self._sources: dict[str, Any] = {}

    def _column(self, place: int) -> NDArray[np.float64]:
        if not self._count:
            return np.empty(0)
        return np.memmap(self._folder / f"feature-{place}.column", np.float64, "w+", shape=(self._count,))

    def joined(self) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Schema and batches of the result."""
        by_source: dict[tuple[str, str], list[int]] = {}
        for place, feature in enumerate(self._features):
            definition = feature.definition
            by_source.setdefault((definition.entity, definition.source.model_dump_json()), []).append(place)
        states = {
            key: open_source(self._features[places[0]].definition.source, self._lake)
            for key, places in by_source.items()
        }
        most = max([self._count, *(state.dataset.count_rows() for state in states.values() if state.dataset)])
        parts = min(_MOST_PARTS, max(1, math.ceil(most / _PART_ROWS)))
        with self._asked(parts) as asked, ThreadPoolExecutor(2) as pool:
            for (kind, _), places in by_source.items():
                state = states[kind, _]
                definitions = [self._features[place].definition for place in places]
                self._sources[definitions[0].source.name] = json.loads(state.token)
                reader, codes = EventReader(definitions), self._codes[kind]
                columns = ["code", "available", "time", *(f"value-{column}" for column in range(len(places)))]
                with Spill(self._folder, f"events-{places[0]}", parts, columns) as spill:
                    for table in state.read(state.dataset, reader.columns):
                        events = reader.events(table)
                        code = codes.of(events.entities, known=True)
                        keep = np.flatnonzero(code >= 0)
                        part = [events.available[keep], events.times[keep], *events.values[:, keep]]
                        spill.add([code[keep], *part])
                for _ in pool.map(partial(self._join, places, spill, asked[kind], parts), range(parts)):
                    pass
        return self._schema(), self._batches()

    @contextmanager
    def _asked(self, parts: int) -> Iterator[Mapping[str, Spill]]:
        """The questions, apart by entity: one spill for each kind of entity."""
        spills = {kind: Spill(self._folder, f"asked-{kind}", parts, ["code", "at", "row"]) for kind in self._codes}
        first = 0
        for batch in self._rows.to_batches(columns=[*self._codes, self._time], batch_size=_BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            at, known = micros(table, self._time, field=f"entities column {self._time}")
            if not known.all():
                raise InvalidInputError(
                    f"entities has no {self._time} in row {first + int(known.argmin())}", field=self._time
                )
            rows = np.arange(first, first + len(at))
            for kind, spill in spills.items():
                ids = texts(column_at(table, (kind, ()), field="entities"), field=f"entities column {kind}")
                spill.add([self._codes[kind].of(ids), at, rows])
            first += len(at)
        for spill in spills.values():
            spill.close()
        yield spills

    def _join(self, places: Sequence[int], spill: Spill, asked: Spill, parts: int, part: int) -> None:
        codes, at, rows = (asked.read(part, name) for name in ("code", "at", "row"))
        order = order_by(codes // parts, at, at)
        codes, at, rows = codes[order], at[order], rows[order]
        code, available, time = (spill.read(part, name) for name in ("code", "available", "time"))
        order = order_by(code // parts, available, time)
        code, available, time = code[order], available[order], time[order]
        for column, place in enumerate(places):
            definition = self._features[place].definition
            fed = spill.read(part, f"value-{column}")[order]
            values, times = transform(definition, code, available, time, fed)
            self._stale[place] += as_of(
                code, available, times, values, codes, at, definition.ttl_us, self._out[place], rows
            )

    def _schema(self) -> pa.Schema:
        kinds = {"float": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}
        about = {"features": [one.key for one in self._features], "sources": self._sources}
        columns = [pa.field(one.definition.name, kinds[one.definition.type]) for one in self._features]
        schema: pa.Schema = self._rows.schema
        metadata = {**(schema.metadata or {}), b"rlaas.features": json.dumps(about).encode()}
        return pa.schema([*schema, *columns], metadata=metadata)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        schema, first = self._schema(), 0
        for batch in self._rows.to_batches(batch_size=_BATCH_ROWS):
            span = slice(first, first + batch.num_rows)
            columns = [self._shown(place, span) for place in range(len(self._features))]
            yield pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema)
            first += batch.num_rows

    def _shown(self, place: int, span: slice) -> pa.Array:
        definition = self._features[place].definition
        values = np.asarray(self._out[place][span])
        missing = np.isnan(values)
        filled = np.where(missing, 0.0 if definition.default is None else definition.default, values)
        typed = filled if definition.type == "float" else filled != 0 if definition.type == "bool" else np.rint(filled)
        result = pa.array(typed, mask=missing if definition.default is None else None)
        return result.cast(pa.int64()) if definition.type == "int" else result

    def report(self) -> TrainingSetReport:
        """What it was made of, once it is there."""
        features = {
            one.key: {"unknown": int(np.isnan(column).sum()), "stale": stale}
            for one, column, stale in zip(self._features, self._out, self._stale, strict=True)
        }
        return TrainingSetReport(self._count, features, self._sources)
