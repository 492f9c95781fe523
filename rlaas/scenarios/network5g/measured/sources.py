"""How the tables of the measured data are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError
from rlaas.scenarios.data import data_directory

__all__ = ["data_directory", "read_columns"]


def read_columns(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Columns of a CSV or parquet file as arrays [rows]; missing values of number columns become NaN.

    Raises:
        ConfigurationError: no such file, an unknown file type, a file that cannot be parsed, or missing columns.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    if not path.is_file():
        raise ConfigurationError(f"no file {str(path)!r}", field="path")
    if path.suffix not in {".csv", ".parquet"}:
        raise ConfigurationError(f"{path.name} is of an unknown type; allowed: .csv, .parquet", field="path")
    try:
        if path.suffix == ".parquet":
            names = parquet.read_schema(path).names
            table = parquet.read_table(path, columns=[c for c in (*required, *optional) if c in names])
        else:
            table = csv.read_csv(path)
            names = table.column_names
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"{path.name} cannot be read: {str(error).splitlines()[0]}", field="path") from error
    missing = [column for column in required if column not in names]
    if missing:
        raise ConfigurationError(
            f"{path.name} misses column(s) {', '.join(missing)}; required: {', '.join(required)}", field="path"
        )
    found = [column for column in (*required, *optional) if column in names]
    return {column: np.asarray(table[column].to_numpy()) for column in found}
