"""The state of a search on the disk: arrays and plain JSON types in one file, whole or absent; nothing is pickled."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.errors import OperatorError
from rlaas.files import write_bytes

__all__ = ["load_state", "save_state"]

_TREE = "tree"
_ARRAY = "array of the file"


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write nested mappings and lists of arrays, numbers, text and None to ``path`` (a NumPy ``.npz``), in one piece.

    Raises:
        TypeError: the state holds something else.
    """
    arrays: dict[str, Any] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = f"a{len(arrays)}"
            arrays[name] = value
            return {_ARRAY: name}
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry) for entry in value]
        return value.item() if isinstance(value, np.generic) else value

    tree = json.dumps(plain(state))
    buffer = io.BytesIO()
    arrays[_TREE] = np.frombuffer(tree.encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, **arrays)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(target, buffer.getbuffer())


def load_state(path: str | Path) -> dict[str, Any]:
    """What :func:`save_state` wrote; tuples come back as lists.

    Raises:
        OperatorError: no such file, or one that is not whole.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        tree = json.loads(arrays.pop(_TREE).tobytes())

        def full(value: Any) -> Any:
            if isinstance(value, dict):
                if value.keys() == {_ARRAY}:
                    return arrays[value[_ARRAY]]
                return {key: full(entry) for key, entry in value.items()}
            return [full(entry) for entry in value] if isinstance(value, list) else value

        state: dict[str, Any] = full(tree)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise OperatorError(f"no usable search state in {path}: {problem}", field="checkpoint") from problem
    return state
