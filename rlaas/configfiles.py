"""YAML in, typed object out: one reader for every file under ``configs/``."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

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
        raise ConfigurationError(f"cannot read {file}: {reason}", field="config") from problem
    except yaml.YAMLError as problem:
        raise ConfigurationError(f"{file} is not YAML: {' '.join(str(problem).split())}", field="config") from problem
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"{file} holds a {type(document).__name__}; expected keys: {', '.join(model.model_fields)}", field="config"
        )
    try:
        return model.model_validate(document)
    except ValidationError as problem:
        first = problem.errors()[0]
        location = [str(part) for part in first["loc"]]
        key = ".".join(location) or "config"
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(_model_at(model, location[:-1]).model_fields)
            raise ConfigurationError(f"{file}: unknown key {key!r}; allowed: {allowed}", field=key) from problem
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{file}: {key}: {message}", field=key) from problem


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    """The (possibly nested) model that a key of the document belongs to."""
    for part in location:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return model
