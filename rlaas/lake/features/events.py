"""Rows of a source as events of entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice
from rlaas.lake.features.definitions import FeatureDefinition, FeatureSource
from rlaas.lake.features.expressions import Expression, column_at

__all__ = ["EntityCodes", "EventReader", "Events", "micros", "texts"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_LARGEST = 2.0**900
"""Larger values do not count: sums of any number of the others cannot overflow."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one source [n].

    Attributes:
        entities: ids, an Arrow array of texts without nulls.
        available: when each could be used, UTC microseconds.
        times: when each happened.
        values: of each feature [n_features, n]; NaN does not count.
    """

    entities: pa.Array
    available: Ints
    times: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.times)


class EventReader:
    """Reads events of features that share a source.

    Args:
        definitions: of the features.

    Attributes:
        columns: that it needs.

    Raises:
        ConfigurationError: the features have several sources.
    """

    def __init__(self, definitions: Sequence[FeatureDefinition]) -> None:
        self._source: FeatureSource = definitions[0].source
        if any(one.source != self._source for one in definitions):
            raise ConfigurationError("features that are read together need one source", field="source")
        self._entity = Expression(self._source.entity, field="source.entity").path()
        self._where = None if self._source.where is None else Expression(self._source.where, field="source.where")
        self._values = [None if one.value is None else Expression(one.value, field="value") for one in definitions]
        self._delay_us = round((self._source.delay_s or 0.0) * 1e6)
        used = {self._entity[0], self._source.time, self._source.arrival}
        for expression in (self._where, *self._values):
            used |= expression.columns if expression is not None else set()
        self.columns = tuple(sorted(used))

    def events(self, table: pa.Table) -> Events:
        """Events in rows of the source. Rows without entity, time or arrival are left out.

        Raises:
            ConfigurationError: a column that is not there, or of an unusable type.
        """
        entities = texts(column_at(table, self._entity, field="source.entity"), field="source.entity")
        times, known = micros(table, self._source.time, field="source.time")
        arrived, known_too = micros(table, self._source.arrival, field="source.arrived")
        keep = known & known_too & np.asarray(pc.greater(pc.utf8_length(entities), 0).fill_null(False))
        if self._where is not None:
            keep &= self._where.holds(table)
        values = np.empty((len(self._values), table.num_rows))
        for row, expression in zip(values, self._values, strict=True):
            row[:] = 1.0 if expression is None else expression.numbers(table)
        values[~(np.abs(values) <= _LARGEST)] = np.nan
        values += 0.0
        # Nothing is known before it has happened, whatever the clocks of two machines say.
        available = np.maximum(arrived, times) + self._delay_us
        if keep.all():
            return Events(entities, available, times, values)
        return Events(entities.filter(pa.array(keep)), available[keep], times[keep], values[:, keep])


class EntityCodes:
    """Ids of entities as consecutive numbers, given out as they come."""

    def __init__(self) -> None:
        self._names = pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self._names)

    def of(self, entities: pa.Array, *, known: bool = False) -> Ints:
        """Their numbers [n], -1 for null; new ones get the next, or with ``known`` are -1 too."""
        found = pc.index_in(entities, value_set=self._names)
        if not known and found.null_count > entities.null_count:
            fresh = pc.unique(entities.filter(pc.and_(found.is_null(), entities.is_valid())))
            self._names = pa.concat_arrays([self._names, fresh])
            found = pc.index_in(entities, value_set=self._names)
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def names(self) -> list[str]:
        """Ids by number."""
        return list(self._names.to_pylist())


def texts(column: object, *, field: str) -> pa.Array:
    """Ids of entities as texts: those that are numbers are written as whole ones.

    Raises:
        ConfigurationError: numbers that are not whole.
    """
    if isinstance(column, pa.Array):
        return column.cast(pa.string())
    numbers = np.asarray(column, dtype=np.float64)
    missing = np.isnan(numbers)
    if not (np.mod(numbers[~missing], 1) == 0).all():
        raise ConfigurationError(f"{field} holds numbers that are not whole", field=field)
    return pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing).cast(pa.string())


def micros(table: pa.Table, name: str, *, field: str) -> tuple[Ints, NDArray[np.bool_]]:
    """A column of times as UTC microseconds [n], and which of them are known.

    Raises:
        ConfigurationError: no such column, or neither whole numbers nor timestamps.
    """
    check_choice(name, table.column_names, field=f"{field} column")
    column = table.column(name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
    if not pa.types.is_integer(column.type):
        raise ConfigurationError(
            f"{field}: column {name!r} is {column.type}; allowed: UTC microseconds (int64) or timestamps", field=field
        )
    known = np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)
    return np.asarray(column.fill_null(0).to_numpy(), dtype=np.int64), known
