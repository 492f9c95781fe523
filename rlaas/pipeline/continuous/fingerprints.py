"""What a result depends on, as one key: its inputs, the code behind it, and what differs between two of them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlaas.errors import ConfigurationError, shown

__all__ = ["Room", "canonical", "code_fingerprint", "differences", "key_of", "libraries", "room_of"]

_DATA_SUFFIXES = (".json", ".yaml", ".csv")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Room:
    """Code that a stage's result depends on.

    Attributes:
        name: dotted name of a module or package.
        deep: with the packages inside it.
    """

    name: str
    deep: bool = True


def canonical(value: Any) -> str:
    """``value`` as JSON that is the same text for the same content.

    Raises:
        TypeError: something that JSON has no form for: a key must not depend on how an object happens to print.
        ValueError: NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(inputs: Mapping[str, Any]) -> str:
    """sha256 of the canonical inputs, 64 hex digits."""
    return hashlib.sha256(canonical(inputs).encode()).hexdigest()


def libraries(*names: str) -> dict[str, str]:
    """Versions of Python and of installed distributions."""
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def room_of(instance: object) -> Room:
    """The package that defines the class of ``instance``, or its module where that stands alone."""
    module = type(instance).__module__
    package = module.rpartition(".")[0]
    return Room(package or module)


def code_fingerprint(room: Room) -> str:
    """A digest of a room's source, 16 hex digits.

    Python counts by its syntax tree without docstrings: a comment or a line break does not cost a training run.
    Tables beside the code (JSON, YAML, CSV) count byte by byte.

    Raises:
        ConfigurationError: a room without source.
    """
    digest = hashlib.sha256()
    for name, path in _sources(room):
        digest.update(name.encode() + b"\0" + _content(path) + b"\0")
    return digest.hexdigest()[:16]


def _sources(room: Room) -> list[tuple[str, Path]]:
    """Relative name and path of every file of a room, in one order."""
    spec = importlib.util.find_spec(room.name)
    origin = None if spec is None else spec.origin
    if spec is None or (origin is None and not spec.submodule_search_locations):
        raise ConfigurationError(f"code of {room.name} cannot be found: a result could not be told by it", field="code")
    if not spec.submodule_search_locations:
        path = Path(str(origin))
        return [(path.name, path)]
    found: list[tuple[str, Path]] = []
    for place in spec.submodule_search_locations:
        folder = Path(place)
        for path in folder.rglob("*") if room.deep else folder.glob("*"):
            relative = path.relative_to(folder)
            if path.suffix in (".py", *_DATA_SUFFIXES) and "__pycache__" not in relative.parts and path.is_file():
                found.append((relative.as_posix(), path))
    return sorted(found)


def _content(path: Path) -> bytes:
    if path.suffix != ".py":
        return path.read_bytes()
    tree = ast.parse(path.read_bytes(), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                del node.body[0]
    return ast.dump(tree).encode()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What changed between two sets of inputs, one sentence each, in a fixed order.

    The first level of the inputs says what kind of thing it is: ``config``, ``lake`` (Delta versions by table),
    ``code`` and ``libraries`` (by name), ``stages`` (digests of earlier results); anything else speaks for itself.
    """
    sentences: list[str] = []
    for group in dict.fromkeys([*after, *before]):
        old, new = dict(_leaves(before.get(group, {}))), dict(_leaves(after.get(group, {})))
        for path in dict.fromkeys([*new, *old]):
            was, now = old.get(path, _ABSENT), new.get(path, _ABSENT)
            if was is now or was == now:
                continue
            sentences.append(_sentence(group, path, was, now))
    return sentences


def _sentence(group: str, path: str, was: Any, now: Any) -> str:
    if group == "code":
        return f"code of {path} changed"
    if group == "stages":
        return f"the result of {path} changed"
    step = f"{_word(was)} -> {_word(now)}"
    if group == "lake":
        return f"{path} version {step}"
    if group == "libraries":
        return f"{path} {step}"
    return f"{path} changed ({step})" if group == "config" else f"{group} {path} changed ({step})".replace("  ", " ")


def _word(value: Any) -> str:
    return "none" if value is None or value is _ABSENT else shown(value, str)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths of everything that is no mapping; a list is one value."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            # Names of tables and modules hold dots themselves, which does no harm: paths are only compared and shown.
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif not (isinstance(value, Mapping) and not path):
        yield path, value
