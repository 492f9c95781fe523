"""Rows of a table in, the same rows with decisions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.bundles import BundlePolicy, Float32, load_bundle
from rlaas.errors import InvalidInputError

__all__ = ["DECISION_COLUMNS", "Scorer"]

DECISION_COLUMNS = pa.schema(
    [
        pa.field("action", pa.list_(pa.field("element", pa.float64()))),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("version", pa.int64()),
        pa.field("preference", pa.map_(pa.string(), pa.float64())),
        pa.field("propensity", pa.float64()),
        pa.field("rejected", pa.string()),
    ]
)
"""What is added to each row: the action (one element holds the index of a discrete one; null where rejected), who
decided (version null for a bundle outside the registry), the preference it was taken under (null for a policy without),
its propensity (null: the mode of the distribution is taken), and why the row was rejected, if it was."""


class Scorer:
    """Decides; an actor of Ray, which loads the bundle when it starts.

    Args:
        bundle: folder of the bundle.
        policy, version: for the result.
        columns: that hold the observation.
        keep: that the result keeps.
        preference: of rows that name none; None for a policy without preferences.
        preferences_from: column with the mode or the preference of each row.
        schema: of the result.
    """

    def __init__(
        self,
        *,
        bundle: Path,
        policy: str,
        version: int | None,
        columns: Sequence[str],
        keep: Sequence[str],
        preference: Mapping[str, float] | None,
        preferences_from: str | None,
        schema: pa.Schema,
    ) -> None:
        self._policy = load_bundle(bundle)
        self._name, self._version = policy, version
        self._columns, self._keep = columns, keep
        self._preference, self._preferences_from = preference, preferences_from
        self._schema = schema
        self._known: dict[Any, Float32 | str] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows [n] of a table, and the same with what was decided."""
        policy, count = self._policy, rows.num_rows
        observations, reasons = _observations(rows, self._columns, policy)
        weights = self._weights(rows, reasons) if policy.manifest.preference_conditioned else None
        good = np.flatnonzero([reason is None for reason in reasons])
        actions: list[list[float] | None] = [None] * count
        if len(good):
            chosen, _ = policy.act(observations[good], None if weights is None else weights[good])
            finite = np.isfinite(chosen).reshape(len(good), -1).all(axis=1)
            for row, action, is_finite in zip(good.tolist(), chosen.tolist(), finite.tolist(), strict=True):
                if is_finite:
                    actions[row] = [float(a) for a in action] if isinstance(action, list) else [float(action)]
                else:
                    reasons[row] = "the action is not finite"
        names = [objective.name for objective in policy.objectives]
        preferences = (
            [None] * count
            if weights is None
            else [
                None if reason is not None else list(zip(names, row, strict=True))
                for row, reason in zip(weights.astype(np.float64).tolist(), reasons, strict=True)
            ]
        )
        added: list[Sequence[Any]] = [
            actions,
            [self._name] * count,
            [self._version] * count,
            preferences,
            [None] * count,  # the mode of the distribution was taken: no probability goes with it
            reasons,
        ]
        columns = [pa.array(values, type=field.type) for values, field in zip(added, DECISION_COLUMNS, strict=True)]
        kept = [rows[name].combine_chunks() for name in self._keep]
        return pa.Table.from_arrays([*kept, *columns], schema=self._schema)

    def _weights(self, rows: pa.Table, reasons: list[str | None]) -> Float32:
        """Preference of each row [n, n_objectives]; where a row's own is impossible, the reason is noted."""
        column = self._preferences_from
        given = [None] * rows.num_rows if column is None else rows[column].to_pylist()
        weights = np.zeros((rows.num_rows, len(self._policy.objectives)), dtype=np.float32)
        for row, value in enumerate(given):
            found = self._weights_of(value)
            if isinstance(found, str):
                reasons[row] = reasons[row] or found
            else:
                weights[row] = found
        return weights

    def _weights_of(self, value: Any) -> Float32 | str:
        """The weights that a row asks for, or why it cannot have them; worked out once for each value."""
        pairs = value.items() if isinstance(value, dict) else value if isinstance(value, list) else None
        key = value if pairs is None else tuple(pairs)
        found = self._known.get(key)
        if found is not None:
            return found
        weights: Mapping[str, float] | None = self._preference if value is None else None
        if isinstance(value, str):
            weights = self._policy.manifest.modes.get(value)
        elif pairs is not None:
            weights = {name: weight for name, weight in key if weight is not None}
        try:
            found = "unknown mode" if weights is None else self._policy.preference(weights)
        except InvalidInputError:
            found = "impossible preference"
        if len(self._known) < 10_000:
            self._known[key] = found
        return found


def _observations(rows: pa.Table, columns: Sequence[str], policy: BundlePolicy) -> tuple[Float32, list[str | None]]:
    """Observations float32 [n, n_features] (rubbish where a row is rejected), and why each row is rejected or None."""
    names = policy.manifest.observation.names
    if pa.types.is_integer(kind := rows.schema.field(columns[0]).type) or pa.types.is_floating(kind):
        values = np.stack([_numbers(rows[name]) for name in columns], axis=1)
        fits = np.ones(rows.num_rows, dtype=bool)
    else:
        lists = rows[columns[0]].combine_chunks()
        fits = np.asarray(
            pc.equal(pc.list_value_length(lists), len(names)).fill_null(False).to_numpy(zero_copy_only=False)
        )
        values = np.zeros((rows.num_rows, len(names)))
        values[fits] = _numbers(pc.list_flatten(lists.filter(pa.array(fits)))).reshape(-1, len(names))
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    finite = np.isfinite(single)
    reasons: list[str | None] = [None] * rows.num_rows
    for row in np.flatnonzero(~(fits & finite.all(axis=1))).tolist():
        name = names[int(np.argmin(finite[row]))]
        reasons[row] = f"{name} is missing or not a finite float32" if fits[row] else f"not {len(names)} numbers"
    return single, reasons


def _numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values as float64, null as NaN."""
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy(), dtype=np.float64)
