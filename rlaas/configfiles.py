"""YAML in, typed object out: one reader for every file under ``configs/``."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rlaas.errors import ConfigurationError

__all__ = ["read_config"]

Model = TypeVar("Model", bound=BaseModel)


def read_config(path: str | Path, model: type[Model]) -> Model:
    """Read a YAML file into ``model``.

    Raises:
        ConfigurationError: no such file, not YAML, or a wrong key or value; names the file, the path of the key and
            what is allowed there.
    """
    file = Path(path)
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{file}: cannot be read: {reason}", field="config") from problem
    except yaml.YAMLError as problem:
        raise ConfigurationError(f"{file}: not YAML: {' '.join(str(problem).split())}", field="config") from problem
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
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{file}: {where}{message}", field=field) from problem


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
