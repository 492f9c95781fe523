"""The rows of the lake that a version is judged on: decisions with a logged propensity, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy, Float32
from rlaas.control.gating.declaration import GateDeclaration
from rlaas.errors import InvalidInputError
from rlaas.lake import Lake
from rlaas.lake.rows import date_of
from rlaas.lake.schemas import table_spec
from rlaas.objectives import Preference, normalise

__all__ = ["MOST_CELLS", "MOST_ROWS", "LoggedDay", "LoggedRows", "columns_of", "read_logged", "telling_days"]

FloatArray = NDArray[np.float64]
_Mask = NDArray[np.bool_]

MOST_ROWS = 100_000
"""The newest rows that are taken; more would narrow no interval that matters, and make an operator wait."""

MOST_CELLS = 20_000_000
"""Rows times choices: the table of probabilities stays below 160 MB."""

_TABLE = "silver.transitions"
_COLUMNS = (
    "decision_id",
    "time_us",
    "action_propensity",
    "session",
    "unit",
    "mode",
    "preference",
    "observation",
    "action",
    "proposed_action",
    "candidate",
    "outcome",
)


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Decisions that say something about a version.

    Attributes:
        reward: what is judged, of each decision [n].
        propensity: probability, or log-density of an action in a box [n].
        observation: float32 [n, n_features].
        action: what the logging version chose, before any shield [n, n_components].
        preference: what the version would have acted under [n, n_objectives]; None where it takes none.
        unit: whose decision it was [n]: the unit, else the session, else the decision itself.
        until_us: time of the newest, UTC microseconds; 0 where there is none.
        read: decisions with an outcome that were read: the days of the window, newest first, until there were enough.
        left_out: how many of them say nothing, by reason.
    """

    reward: FloatArray
    propensity: FloatArray
    observation: Float32
    action: FloatArray
    preference: Float32 | None
    unit: NDArray[Any]
    until_us: int
    read: int
    left_out: Mapping[str, int]

    def sentence(self) -> str:
        """How many there are, and why not more."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"{len(self.reward)} of {self.read} decisions with an outcome count{f' ({reasons})' if reasons else ''}"


@dataclass(frozen=True, slots=True)
class LoggedDay:
    """Decisions of a day that say something about a version.

    Attributes:
        rows: in any order, with ``chosen`` before any shield and ``reward``.
        read: decisions with an outcome on that day, in the window.
        left_out: how many of them say nothing, by reason.
        oldest: whether the window has no day before it.
    """

    rows: pa.Table
    read: int
    left_out: Mapping[str, int]
    oldest: bool


def read_logged(
    lake: Lake, policy: str, declaration: GateDeclaration, bundle: BundlePolicy, *, now_us: int
) -> LoggedRows:
    """Read what was logged of a policy, a day at a time and the newest first, until there are enough rows.

    Left out is what has no propensity (a version that always took its mode, a safe default), what constraints chose
    from a front, outcomes without the value, and observations or actions of another shape than the version's.

    Args:
        lake: the tables.
        policy: whose decisions.
        declaration: what is judged, and how far back.
        bundle: the version.
        now_us: time of the judgement, UTC microseconds.

    Raises:
        InvalidInputError: the version has no such mode or objective.
        LakeError: the table is damaged.
    """
    most = max(1, min(MOST_ROWS, MOST_CELLS // getattr(bundle.manifest.action, "n", 1)))
    days, read, held, left_out = list[pa.Table](), 0, 0, Counter[str]()
    for day in telling_days(lake, policy, declaration, bundle, now_us=now_us):
        days.append(day.rows)
        read, held = read + day.read, held + day.rows.num_rows
        left_out.update(day.left_out)
        if held >= most:
            break
    rows = pa.concat_tables(days).sort_by([("time_us", "descending"), ("decision_id", "ascending")])
    if rows.num_rows > most:
        left_out["older"] = rows.num_rows - most
        rows = rows.slice(0, most)
    return columns_of(rows, bundle, read, left_out)


def telling_days(
    lake: Lake,
    policy: str,
    declaration: GateDeclaration,
    bundle: BundlePolicy,
    *,
    now_us: int,
    more: Sequence[str] = (),
) -> Iterator[LoggedDay]:
    """Decisions of the window that say something about a version, by the day, newest first; at least one, empty, day.

    Whoever has enough stops, so that no more than a day is held beside what is taken.

    Args:
        lake, policy, declaration, bundle, now_us: as of :func:`read_logged`.
        more: further columns of ``silver.transitions``.

    Raises:
        InvalidInputError, LakeError: as :func:`read_logged`.
    """
    utility = declaration.utility_weights(bundle)
    since_us = max(0, now_us - round(declaration.window_s * 1e6))
    columns, mine = (*_COLUMNS, *more), (pc.field("policy") == policy) & (pc.field("time_us") >= since_us)
    delta = lake.open(_TABLE)  # once: every day is of the same state of the table
    dates = [] if delta is None else [one["date"] for one in delta.partitions() if one["tenant"] == lake.tenant]
    wanted = sorted((date for date in dates if date >= date_of(since_us)), reverse=True)
    if delta is None or not wanted:
        yield _telling(lake.read(_TABLE, columns, filter=pc.scalar(False)), declaration, bundle, utility, oldest=True)
        return
    for date in wanted:
        rows = lake.read_open(table_spec(_TABLE), delta, columns=columns, filter=mine & (pc.field("date") == date))
        yield _telling(rows, declaration, bundle, utility, oldest=date == wanted[-1])


def _telling(
    rows: pa.Table, declaration: GateDeclaration, bundle: BundlePolicy, utility: Preference | None, *, oldest: bool
) -> LoggedDay:
    read, left_out = rows.num_rows, dict[str, int]()

    def keep(rows: pa.Table, mask: Any, reason: str) -> pa.Table:
        kept = rows.filter(mask)
        if kept.num_rows < rows.num_rows:
            left_out[reason] = rows.num_rows - kept.num_rows
        return kept

    rows = keep(rows, rows.column("candidate").is_null(), "chosen from a front")
    rows = keep(rows, rows.column("action_propensity").is_valid(), "without a propensity")
    chosen = pc.coalesce(rows.column("proposed_action"), rows.column("action"))
    rows = rows.drop_columns(["proposed_action", "action"]).append_column("chosen", chosen)
    fits = pc.and_(
        pc.equal(pc.list_value_length(rows.column("observation")), bundle.n_features),
        pc.equal(pc.list_value_length(rows.column("chosen")), _components(bundle)),
    )
    rows = keep(rows, fits, "of another shape")
    reward = _reward(rows.column("outcome"), declaration, bundle, utility)
    finite = np.isfinite(reward)
    rows = keep(rows, pa.array(finite), f"without {declaration.what()}")
    return LoggedDay(rows.append_column("reward", pa.array(reward[finite])), read, left_out, oldest)


def columns_of(rows: pa.Table, bundle: BundlePolicy, read: int, left_out: Mapping[str, int]) -> LoggedRows:
    """Rows of :func:`telling_days` as arrays, in their order."""
    rows = rows.combine_chunks()
    unit = pc.coalesce(rows.column("unit"), rows.column("session"), rows.column("decision_id"))
    return LoggedRows(
        reward=_numbers(rows.column("reward")),
        propensity=_numbers(rows.column("action_propensity")),
        observation=_matrix(rows.column("observation"), bundle.n_features).astype(np.float32),
        action=_matrix(rows.column("chosen"), _components(bundle)),
        preference=_preferences(rows, bundle),
        unit=np.unique(np.array(unit.to_pylist(), dtype=str), return_inverse=True)[1],
        until_us=int(pc.max(rows.column("time_us")).as_py()) if rows.num_rows else 0,
        read=read,
        left_out=left_out,
    )


def _components(bundle: BundlePolicy) -> int:
    action = bundle.manifest.action
    return len(getattr(action, "low", getattr(action, "sizes", (0,))))


def _reward(
    outcome: pa.ChunkedArray, declaration: GateDeclaration, bundle: BundlePolicy, utility: Preference | None
) -> FloatArray:
    """What is judged [n], NaN where the outcome lacks it."""

    def values(name: str) -> FloatArray:
        return _numbers(pc.map_lookup(outcome, pa.scalar(name), "first"))

    if declaration.value is not None or utility is None:
        return values(str(declaration.value))
    weights = utility.to_dict()
    columns = [values(objective.name) for objective in bundle.objectives]
    goodness = normalise(bundle.objectives, np.column_stack(columns)) if len(outcome) else np.zeros((0, len(columns)))
    # An objective without weight may be missing: it is not what is judged.
    used = [index for index, objective in enumerate(bundle.objectives) if weights[objective.name] > 0]
    share = np.array([weights[bundle.objectives[index].name] for index in used])
    return np.asarray(np.clip(goodness[:, used], 0.0, 1.0) @ share)


def _preferences(rows: pa.Table, bundle: BundlePolicy) -> Float32 | None:
    """What a Gateway would have handed to the version for the same requests [n, n_objectives]."""
    manifest, objectives = bundle.manifest, bundle.objectives
    if not manifest.preference_conditioned:
        return None
    uniform = Preference.uniform(objectives)
    by_mode = {mode: Preference.of(objectives, weights) for mode, weights in manifest.modes.items()}
    found = np.empty((rows.num_rows, len(objectives)), dtype=np.float32)
    asked: Sequence[tuple[str | None, Any]] = list(
        zip(rows.column("mode").to_pylist(), rows.column("preference").to_pylist(), strict=True)
    )
    known: dict[tuple[tuple[str, float], ...], Float32] = {}
    for index, (mode, weights) in enumerate(asked):
        if mode in by_mode:
            found[index] = by_mode[mode].array()
        elif weights is None:
            found[index] = uniform.array()
        else:
            key = tuple(weights)
            if key not in known:
                try:
                    known[key] = Preference.of(objectives, dict(key)).array().astype(np.float32)
                except InvalidInputError as problem:
                    raise InvalidInputError(f"a logged preference: {problem.message}", field="preference") from problem
            found[index] = known[key]
    return found


def _numbers(column: Any) -> FloatArray:
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _matrix(column: pa.ChunkedArray, width: int) -> FloatArray:
    flat = pc.list_flatten(column.combine_chunks())
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float64).reshape(-1, width)
