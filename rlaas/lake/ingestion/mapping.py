"""Which field of a record comes from where in a foreign row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError
from rlaas.lake.ingestion.events import KINDS, KindName

__all__ = ["RowMapping", "TimeUnit", "load_mapping", "mapper"]

Source = str | tuple[str, ...] | dict[str, str]
TimeUnit = Literal["us", "ms", "s", "ns", "iso"]
_PER_US: Mapping[str, float] = {"us": 1.0, "ms": 1e3, "s": 1e6, "ns": 1e-3}
_TIMES = ("time_us", "received_us")


class RowMapping(BaseModel):
    """How a foreign row becomes a record. A field that is not named has its own name in the row.

    Attributes:
        columns: by field of the record, where its value is: the name of a column (with dots: inside an object), a list
            of columns for a list, or a mapping of names to columns for a mapping.
        constants: by field, a value that all rows share.
        time: unit of the times in the rows.
        rest: of events, what becomes of the columns that nothing names: ``keep`` makes numbers values and everything
            else attributes, ``drop`` leaves them out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, Source] = Field(default_factory=dict)
    constants: dict[str, Any] = Field(default_factory=dict)
    time: TimeUnit = "us"
    rest: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def _once(self) -> RowMapping:
        twice = sorted(set(self.columns) & set(self.constants))
        if twice:
            raise ConfigurationError(f"{twice[0]} is both a column and a constant; give one of them", field=twice[0])
        return self

    def check_for(self, kind: KindName) -> None:
        """Refuse fields that a record of this kind does not have.

        Raises:
            ConfigurationError: names the field and those there are.
        """
        allowed = KINDS[kind].fields
        for group, names in (("columns", self.columns), ("constants", self.constants)):
            for name in names:
                if name not in allowed:
                    raise ConfigurationError(
                        f"{group}.{name}: {kind} have no such field; allowed: {', '.join(sorted(allowed))}",
                        field=f"{group}.{name}",
                    )


def load_mapping(path: str | Path) -> RowMapping:
    """Read a YAML file.

    Raises:
        ConfigurationError: see :func:`rlaas.configfiles.read_config`.
    """
    return read_config(path, RowMapping)


def mapper(
    mapping: RowMapping, kind: KindName, *, text: bool = False, lenient: bool = False
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The mapping as a function from a row to the fields of a record, without those that the row says nothing about.

    It raises ``ValueError`` (what is wrong, in words) for a time that is none.

    Args:
        mapping: what to take from where.
        kind: of the record.
        text: values are text, and one that reads as a number is a number.
        lenient: a time that is none is left as it is.

    Raises:
        ConfigurationError: see :meth:`RowMapping.check_for`.
    """
    mapping.check_for(kind)
    fields = KINDS[kind].fields
    sources: dict[str, Source] = {name: name for name in fields if name not in mapping.constants} | mapping.columns
    named = {part.partition(".")[0] for source in sources.values() for part in _parts(source)}
    keeps_rest = kind == "events" and mapping.rest == "keep"

    def mapped(row: Mapping[str, Any]) -> dict[str, Any]:
        record = dict(mapping.constants)
        for name, source in sources.items():
            value = _value(row, source)
            if value is not None:
                record[name] = _time(name, value, mapping.time) if name in _TIMES and not lenient else value
        if keeps_rest:
            rest = {name: value for name, value in row.items() if name not in named and value is not None}
            numbers = {name: number for name, value in rest.items() if (number := _number(value, text)) is not None}
            others = {name: value for name, value in rest.items() if name not in numbers}
            record["values"] = {**numbers, **(record.get("values") or {})}
            if others:
                record["attributes"] = {**others, **(record.get("attributes") or {})}
        return record

    return mapped


def _parts(source: Source) -> tuple[str, ...]:
    if isinstance(source, str):
        return (source,)
    return tuple(source.values()) if isinstance(source, dict) else source


def _value(row: Mapping[str, Any], source: Source) -> Any:
    if isinstance(source, str):
        return _at(row, source)
    if isinstance(source, dict):
        found = {name: _at(row, path) for name, path in source.items()}
        return {name: value for name, value in found.items() if value is not None} or None
    values = [_at(row, path) for path in source]
    return None if all(value is None for value in values) else values


def _at(row: Mapping[str, Any], path: str) -> Any:
    if path in row or "." not in path:
        return row.get(path)
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _number(value: Any, text: bool) -> float | None:
    if text and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _time(name: str, value: Any, unit: TimeUnit) -> int:
    """UTC microseconds."""
    if isinstance(value, datetime):
        return _microseconds(value)
    if unit == "iso":
        try:
            return _microseconds(datetime.fromisoformat(str(value)))
        except ValueError as problem:
            raise ValueError(f"{name} is {str(value)[:40]!r}, which is no ISO 8601 time") from problem
    try:
        if unit == "us" and isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)  # through a float only where a unit asks for it
        return round(float(value) * _PER_US[unit])
    except (ValueError, OverflowError, TypeError) as problem:
        raise ValueError(f"{name} is {str(value)[:40]!r}, which is no time in {unit}") from problem


def _microseconds(moment: datetime) -> int:
    """UTC microseconds; a time without an offset is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
