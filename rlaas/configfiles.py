"""YAML in, typed object out: one reader for every file under ``configs/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rlaas.errors import ConfigurationError, shown

__all__ = ["complaint", "read_config", "read_yaml"]

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(file: Path, *, field: str = "config") -> Any:
    """What a YAML file says.

    Args:
        file: to read.
        field: what an error names.

    Raises:
        ConfigurationError: no such file, or not YAML; names the file.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{file}: cannot be read: {reason}", field=field) from problem
    except yaml.YAMLError as problem:
        raise ConfigurationError(f"{file}: not YAML: {' '.join(str(problem).split())}", field=field) from problem


def read_config(path: str | Path, model: type[Model]) -> Model:
    """Read a YAML file into ``model``.

    Raises:
        ConfigurationError: no such file, not YAML, or a wrong key or value; names the file, the path of the key and
            what is allowed there.
    """
    file = Path(path)
    document = read_yaml(file)
    if document is None:
        document = {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigurationError(f"{file}: expected a mapping with keys {_keys(model)}", field="config")
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        first = problem.errors()[0]
        location = [str(part) for part in first["loc"]]
        key = ".".join(location)
        if first["type"] == "extra_forbidden":
            allowed = _keys(_model_at(model, location[:-1]))
            raise ConfigurationError(f"{file}: unknown key {key!r}; allowed: {allowed}", field=key) from problem
        # A model that checks itself names its own field.
        cause = first.get("ctx", {}).get("error")
        inner = cause.field if isinstance(cause, ConfigurationError) else None
        field = ".".join([*location, *([inner] if inner else [])]) or "config"
        where = f"{key}: " if key else ""
        raise ConfigurationError(f"{file}: {where}{complaint(first)}", field=field) from problem


_EXPECTED = {
    "greater_than": "be > {gt}",
    "greater_than_equal": "be >= {ge}",
    "less_than": "be < {lt}",
    "less_than_equal": "be <= {le}",
    "multiple_of": "be a multiple of {multiple_of}",
    "finite_number": "be a finite number",
    "string_type": "be a text",
    "string_too_short": "be a text of at least {min_length} characters",
    "string_too_long": "be a text of at most {max_length} characters",
    "string_pattern_mismatch": "be a text of the form {pattern}",
    "too_short": "have at least {min_length} items",
    "too_long": "have at most {max_length} items",
    "union_tag_not_found": "be a mapping with the key {discriminator}",
}
_EXPECTED |= dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "be a whole number")
_EXPECTED |= dict.fromkeys(("float_type", "float_parsing"), "be a number")
_EXPECTED |= dict.fromkeys(("bool_type", "bool_parsing"), "be true or false")
_EXPECTED |= dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "be a list")
_EXPECTED |= dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "be a mapping of keys")


def complaint(error: Mapping[str, Any]) -> str:
    """What is wrong with one value and what is allowed there, for a person who writes YAML.

    Args:
        error: an entry of ``ValidationError.errors()``.
    """
    kind = error["type"]
    # Bounds of a number come as 0.0 where the model says 0.
    details: dict[str, Any] = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in error.get("ctx", {}).items()
    }
    if kind == "missing":
        return "is missing; it has to be given"
    given = shown(error["input"])
    if kind == "literal_error":
        return f"must be {details['expected']}, got {given}"
    if kind == "union_tag_invalid":
        key, allowed = (details[part].replace("'", "") for part in ("discriminator", "expected_tags"))
        return f"unknown {key} {details['tag']!r}; allowed: {allowed}"
    if kind in _EXPECTED:
        return f"must {_EXPECTED[kind].format(**details)}, got {given}"
    return str(error["msg"]).removeprefix("Value error, ")


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(sorted(model.model_fields))


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """The (possibly nested) model that a key of the document belongs to; positions in a list lead nowhere new."""
    for part in location:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        choices = get_args(annotation) or (annotation,)
        nested = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        if nested:
            model = nested[0]
    return model
