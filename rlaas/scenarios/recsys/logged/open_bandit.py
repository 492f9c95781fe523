"""The Open Bandit Dataset (Saito, Aihara, Matsutani & Narita 2021): logged recommendations with real propensities.

A fashion shop showed three items beside one another, chosen by a uniformly random policy (``random``) or by Bernoulli
Thompson sampling (``bts``), and logged each position as a row of its own. No orders and no prices: it can calibrate
click levels and position curves, and test off-policy estimators, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.scenarios.checks import numbers

__all__ = ["LoggedFeedback", "check_clicks", "check_log", "item_distribution", "read_log"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CAMPAIGN_ITEMS = {"all": 80, "men": 34, "women": 46}
"""Items of each campaign, from the paper's table 1."""

POLICIES = ("random", "bts")
N_POSITIONS = 3

COLUMNS = {
    "item": "item_id",
    "position": "position",
    "click": "click",
    "propensity": "propensity_score",
    "time": "timestamp",
}
"""Column of the file behind each field."""

USER_FEATURES = tuple(f"user_feature_{i}" for i in range(4))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoggedFeedback:
    """What a policy showed and what came of it, one row per shown item.

    Attributes:
        policy: that chose, such as ``random`` or ``bts``.
        campaign: that it chose for.
        item: shown [n], 0 .. n_items - 1.
        position: on the page [n], from 0 (left).
        click: 0 or 1 [n].
        propensity: probability that the policy gave to the item at the position [n], in (0, 1].
        features: of the user [n, n_features], one-hot in open_bandit.
        feature_names: [n_features].
        time: of the impression [n], UTC microseconds, ascending.
        n_items: items to choose from.
        n_positions: positions of a page.

    Raises:
        InvalidInputError: a column that does not fit; ``field`` names it.
    """

    policy: str
    campaign: str
    item: IntArray
    position: IntArray
    click: IntArray
    propensity: FloatArray
    features: FloatArray
    feature_names: tuple[str, ...]
    time: NDArray[np.datetime64]
    n_items: int
    n_positions: int = N_POSITIONS

    def __post_init__(self) -> None:
        for name in ("item", "position", "click", "propensity", "features", "time"):
            if not isinstance(getattr(self, name), np.ndarray):
                raise InvalidInputError(
                    f"{name} is {shown(getattr(self, name))}; expected a numpy array, one row each",
                    field=name,
                )
        n = len(self.item) if self.item.ndim else 0
        if not n:
            raise InvalidInputError("item holds no row; a log needs at least one", field="item")
        for name, limit in (("item", self.n_items), ("position", self.n_positions), ("click", 2)):
            values = getattr(self, name)
            if values.shape != (n,) or values.dtype.kind not in "iu":
                raise InvalidInputError(
                    f"{name} has shape {values.shape} of {values.dtype}; expected ({n},) whole numbers", field=name
                )
            _check(name, values, (values >= 0) & (values < limit), f"a whole number in 0 .. {limit - 1}")
        for name in ("propensity", "time"):
            if getattr(self, name).shape != (n,):
                raise InvalidInputError(f"{name} has shape {getattr(self, name).shape}; expected ({n},)", field=name)
        for name in ("propensity", "features"):
            numbers(getattr(self, name), name)
        _check("propensity", self.propensity, (self.propensity > 0) & (self.propensity <= 1), "a number in (0, 1]")
        if self.features.shape != (n, len(self.feature_names)) or not np.isfinite(self.features).all():
            raise InvalidInputError(
                f"features has shape {self.features.shape}; expected finite numbers ({n}, {len(self.feature_names)})",
                field="features",
            )

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: NDArray[Any]) -> LoggedFeedback:
        """The rows of an index or mask, in its order; an index may repeat rows (a bootstrap sample).

        Raises:
            InvalidInputError: neither an index of rows nor a mask, or no row at all.
        """
        try:
            np.empty(len(self), dtype=np.bool_)[rows]
        except (IndexError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"rows is {shown(rows)}; expected an index of 0 .. {len(self) - 1} or a mask [{len(self)}]",
                field="rows",
            ) from error
        return LoggedFeedback(
            policy=self.policy,
            campaign=self.campaign,
            item=self.item[rows],
            position=self.position[rows],
            click=self.click[rows],
            propensity=self.propensity[rows],
            features=self.features[rows],
            feature_names=self.feature_names,
            time=self.time[rows],
            n_items=self.n_items,
            n_positions=self.n_positions,
        )


def read_log(
    path: str | Path,
    policy: Literal["random", "bts"] = "random",
    campaign: Literal["all", "men", "women"] = "all",
) -> LoggedFeedback:
    """Read one log of the dataset, in order of time.

    Args:
        path: a file (Parquet or CSV), or a folder that holds ``{policy}_{campaign}.parquet`` or, as the full dataset
            is packed, ``{policy}/{campaign}/{campaign}.csv``.
        policy: that chose.
        campaign: that it chose for.

    Raises:
        ConfigurationError: an unknown policy or campaign, no such file, a missing column, or a value out of range; the
            message names file and column.
    """
    check_choice(policy, POLICIES, field="policy")
    check_choice(campaign, CAMPAIGN_ITEMS, field="campaign")
    if not isinstance(path, str | Path):
        raise ConfigurationError(f"path is {shown(path)}; expected a file or folder", field="path")
    file = _find(Path(path), policy, campaign)
    table = _read(file)
    for column in (*COLUMNS.values(), *USER_FEATURES):
        if column not in table:
            raise ConfigurationError(f"{file}: column {column!r} is missing", field=column)
    order = np.argsort(_times(file, table[COLUMNS["time"]]), kind="stable")
    features, names = _one_hot(file, table, order)
    try:
        return LoggedFeedback(
            policy=policy,
            campaign=campaign,
            item=_whole(file, table, "item_id")[order],
            position=_whole(file, table, "position")[order] - 1,  # the file counts from 1
            click=_whole(file, table, "click")[order],
            propensity=_numbers(file, table, "propensity_score")[order],
            features=features,
            feature_names=names,
            time=_times(file, table["timestamp"])[order],
            n_items=CAMPAIGN_ITEMS[campaign],
        )
    except InvalidInputError as error:
        column = COLUMNS.get(str(error.field), str(error.field))
        raise ConfigurationError(f"{file}: column {column!r}: {error.message}", field=column) from error


def check_log(log: Any) -> None:
    """Refuse what is no log.

    Raises:
        InvalidInputError: names ``log``.
    """
    if not isinstance(log, LoggedFeedback):
        raise InvalidInputError(f"log is {shown(log)}; expected what read_log returns", field="log")


def check_clicks(log: LoggedFeedback) -> None:
    """Refuse a log without any click: its level, and what any other has over it, are undefined.

    Raises:
        ConfigurationError: names the log and the column.
    """
    if not log.click.any():
        raise ConfigurationError(
            f"the log {log.policy} / {log.campaign} holds no click in {len(log)} rows of column 'click'; expected one "
            "at least",
            field="click",
        )


def item_distribution(log: LoggedFeedback) -> FloatArray:
    """Mean action distribution of a context-free policy [n_positions, n_items]: how often it showed each item where.

    The mean of the logged propensities would not do. Thompson sampling moves with time, and an item is logged mostly
    while its propensity is high: on ``bts_all`` those means sum to 3.7, 2.3 and 2.0 over the items of a position.

    Raises:
        InvalidInputError: no log, or a position without any row.
    """
    check_log(log)
    counts = np.zeros((log.n_positions, log.n_items))
    np.add.at(counts, (log.position, log.item), 1.0)
    total = counts.sum(axis=1, keepdims=True)
    if not total.all():
        raise InvalidInputError(
            f"position {int(np.flatnonzero(total[:, 0] == 0)[0])} has no row in the log", field="position"
        )
    return np.asarray(counts / total)


def _check(name: str, values: NDArray[Any], valid: NDArray[np.bool_], allowed: str) -> None:
    if not valid.all():
        row = int(np.flatnonzero(~valid)[0])
        raise InvalidInputError(f"{name}[{row}] is {values[row]}; expected {allowed}", field=name)


def _find(path: Path, policy: str, campaign: str) -> Path:
    if path.is_file():
        return path
    tried = (path / f"{policy}_{campaign}.parquet", path / policy / campaign / f"{campaign}.csv")
    for file in tried:
        if file.is_file():
            return file
    raise ConfigurationError(f"no log at {path}: neither it nor {tried[0]} nor {tried[1]} is a file", field="path")


def _read(file: Path) -> dict[str, Any]:
    """Columns that are needed, by name, as Arrow arrays."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    wanted = [*COLUMNS.values(), *USER_FEATURES]
    try:
        if file.suffix == ".csv":
            table = csv.read_csv(file)
        else:
            present = set(parquet.read_schema(file).names)
            table = parquet.read_table(file, columns=[name for name in wanted if name in present])
        # Several columns of one name cannot be told apart.
        return {n: table[n].combine_chunks() for n in wanted if n in table.column_names}
    except (pa.ArrowException, OSError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"{file} is neither Parquet nor CSV, or damaged: {reason}", field="path") from error


def _numbers(file: Path, table: dict[str, Any], name: str) -> FloatArray:
    import pyarrow as pa

    if table[name].null_count:
        raise ConfigurationError(f"{file}: column {name!r} is null in {table[name].null_count} rows", field=name)
    try:
        return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{file}: column {name!r} is {table[name].type}; expected numbers", field=name
        ) from error


def _whole(file: Path, table: dict[str, Any], name: str) -> IntArray:
    values = _numbers(file, table, name)
    if not (np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**53)).all():
        raise ConfigurationError(f"{file}: column {name!r} must hold whole numbers", field=name)
    return values.astype(np.int64)


def _times(file: Path, values: Any) -> NDArray[np.datetime64]:
    import pyarrow as pa

    try:
        times = values.cast(pa.timestamp("us", tz="UTC"))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ConfigurationError(f"{file}: column 'timestamp' must hold times", field="timestamp") from error
    if times.null_count:
        raise ConfigurationError(f"{file}: column 'timestamp' is null in {times.null_count} rows", field="timestamp")
    return np.asarray(times.to_numpy(zero_copy_only=False), dtype="datetime64[us]")


def _one_hot(file: Path, table: dict[str, Any], order: IntArray) -> tuple[FloatArray, tuple[str, ...]]:
    """The user features (hashed categories) as 0/1 columns, in alphabetical order of the category."""
    import pyarrow as pa

    blocks: list[FloatArray] = []
    names: list[str] = []
    for name in USER_FEATURES:
        if table[name].null_count:
            raise ConfigurationError(f"{file}: column {name!r} is null in {table[name].null_count} rows", field=name)
        try:
            values = np.asarray(table[name].cast(pa.string()).to_pylist())[order]
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{file}: column {name!r} is {table[name].type}; expected text", field=name
            ) from error
        levels, where = np.unique(values, return_inverse=True)
        blocks.append((where[:, None] == np.arange(len(levels))).astype(np.float64))
        names += [f"{name}={level}" for level in levels]
    return np.hstack(blocks), tuple(names)
