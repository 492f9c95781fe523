"""Where measured data lies that simulators are compared with; none of it ships with the package."""

from __future__ import annotations

import os
from pathlib import Path

from rlaas.errors import ConfigurationError

__all__ = ["data_directory"]


def data_directory(data_dir: str | Path | None = None) -> Path:
    """The folder of measured data: the argument, or else the environment variable ``RLAAS_DATA_DIR``.

    Raises:
        ConfigurationError: neither is given, or it is no folder that exists.
    """
    chosen = data_dir if data_dir is not None else os.environ.get("RLAAS_DATA_DIR")
    if not chosen:
        raise ConfigurationError(
            "no data_dir given: pass it, or set RLAAS_DATA_DIR to the folder of measured data", field="data_dir"
        )
    path = Path(chosen)
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"data_dir {str(path)!r} is a file; allowed: an existing folder", field="data_dir")
    if not path.is_dir():
        raise ConfigurationError(
            f"data_dir {str(path)!r} does not exist; allowed: an existing folder", field="data_dir"
        )
    return path
