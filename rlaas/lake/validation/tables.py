"""The rules of each table: what bronze and silver must hold for a scenario, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlaas import scenarios
from rlaas.errors import RequestError
from rlaas.lake.tables import Lake
from rlaas.lake.validation.columns import (
    BoolArray,
    action_width,
    matrix_of,
    missing_objective,
    outside,
    outside_action,
)
from rlaas.lake.validation.config import TableContract, ValidationConfig
from rlaas.lake.validation.rules import Offence, Rule
from rlaas.scenarios import Scenario

__all__ = ["Worlds", "arrival_column", "key_column", "rules_of"]


class Worlds:
    """Scenarios by name, made when they are asked for.

    Args:
        options: of a scenario, by name.
        known: scenarios that need not be looked up.
    """

    def __init__(
        self, options: Mapping[str, Mapping[str, Any]] | None = None, known: Mapping[str, Scenario] | None = None
    ) -> None:
        self._options, self._known = dict(options or {}), dict(known or {})
        self.of = cache(self._of)

    def _of(self, name: str | None) -> Scenario | None:
        """The scenario; None where there is none of that name here."""
        if name is None or name in self._known:
            return None if name is None else self._known[name]
        try:
            return scenarios.load(name, **self._options.get(name, {}))
        except RequestError:
            # Options that do not fit are the configuration's fault, and must not pass for rows in error.
            if name in self._options:
                raise
            return None


def arrival_column(table: str) -> str:
    """The column that says when a row arrived, or where nothing says so, when it was decided."""
    return "received_us" if table in ("bronze.outcomes", "bronze.events") else "time_us"


def key_column(table: str) -> str:
    """The column that is unique."""
    return "decision_id" if table in ("bronze.decisions", "silver.transitions") else "receipt_id"


def rules_of(
    table: str,
    rows: pa.Table,
    lake: Lake,
    worlds: Worlds,
    contract: TableContract,
    config: ValidationConfig,
    now_us: int,
) -> list[Rule]:
    """The rules of a table, applied to rows of it.

    Raises:
        ConfigurationError: options for a scenario that it does not have.
    """
    latest = float(now_us + round(config.max_skew_s * 1e6))
    rules = [
        Rule(
            name="time",
            column=arrival_column(table),
            required=f"a time no more than {config.max_skew_s:g} s ahead",
            bounds=(0.0, latest, True, True),
        ),
        Rule(
            name="unique",
            column=key_column(table),
            required=f"every {key_column(table)} once",
            offence=_repeated(rows, key_column(table)),
        ),
    ]
    if table == "bronze.events":
        return [*rules, *_value_rules(rows, contract)]
    if table == "bronze.outcomes":
        return [*rules, *_outcome_rules(rows, lake, worlds, config, now_us)]
    names = rows.column("scenario").to_pylist()
    rules += [
        Rule(
            name="variant_propensity",
            column="variant_propensity",
            required="a probability above 0 and at most 1",
            bounds=(0.0, 1.0, False, True),
        ),
        Rule(
            name="scenario",
            column="scenario",
            required="a scenario that is installed",
            offence=Offence(
                np.array([worlds.of(name) is None for name in names], dtype=np.bool_),
                lambda row: f"unknown scenario {names[row]}",
            ),
        ),
        *(_space_rule(rows, column, names, worlds) for column in ("observation", "action")),
        Rule(
            name="preference",
            column="preference",
            required="weights of the scenario's objectives that are not negative and sum to 1",
            offence=_bad_preference(rows, names, worlds),
        ),
    ]
    if table == "silver.transitions":
        rules.append(_space_rule(rows, "next_observation", names, worlds))
        rules.append(_objectives_rule(rows, names, worlds))
    return rules


def _repeated(rows: pa.Table, column: str) -> Offence:
    """Rows whose key an earlier row has: the first one is the original."""
    codes = rows.column(column).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    first = np.unique(codes, return_index=True)[1]
    repeated = np.ones(rows.num_rows, dtype=np.bool_)
    repeated[first] = False
    return Offence(repeated, lambda row: f"{column} {rows.column(column)[row].as_py()} occurs before")


def _value_rules(rows: pa.Table, contract: TableContract) -> list[Rule]:
    values = rows.column("values").combine_chunks()
    owner = np.repeat(np.arange(rows.num_rows), np.diff(values.offsets.to_numpy()))
    keys = values.keys
    numbers = values.items.to_numpy(zero_copy_only=False)

    def rule(name: str, required: str, wrong: BoolArray) -> Rule:
        bad = np.zeros(rows.num_rows, dtype=np.bool_)
        bad[owner[wrong]] = True
        first = np.searchsorted(owner[wrong], np.arange(rows.num_rows))
        places = np.flatnonzero(wrong)

        def text(row: int) -> str:
            at = int(places[first[row]])
            return f"{keys[at].as_py()} is {numbers[at]}"

        return Rule(name=name, column="values", required=required, offence=Offence(bad, text))

    rules = [rule("finite", "finite values", ~np.isfinite(numbers))]
    for name, (low, high) in contract.ranges.items():
        mine = pc.equal(keys, name).to_numpy(zero_copy_only=False).astype(np.bool_)
        wrong = mine & ((numbers < low) | (numbers > high))
        rules.append(rule(f"range.{name}", f"{name} between {low:g} and {high:g}", wrong))
    return rules


def _outcome_rules(rows: pa.Table, lake: Lake, worlds: Worlds, config: ValidationConfig, now_us: int) -> list[Rule]:
    wanted = rows.column("decision_id").combine_chunks().unique()
    decided = lake.read(
        "bronze.decisions", ["decision_id", "scenario"], filter=pc.field("decision_id").isin(wanted)
    ).combine_chunks()
    at = pc.index_in(rows.column("decision_id"), value_set=decided.column("decision_id").combine_chunks())
    names = decided.column("scenario").combine_chunks().take(at.combine_chunks()).to_pylist()
    waited = now_us - round(config.orphan_after_s * 1e6)
    orphan = at.is_null().to_numpy() & (rows.column("received_us").to_numpy() < waited)
    return [
        Rule(
            name="referential",
            column="decision_id",
            required=f"a decision for every outcome older than {config.orphan_after_s:g} s",
            offence=Offence(orphan, lambda row: f"no decision {rows.column('decision_id')[row].as_py()}"),
        ),
        _objectives_rule(rows, names, worlds),
    ]


def _groups(names: Sequence[str | None], worlds: Worlds) -> list[tuple[Scenario, NDArray[np.int64]]]:
    """Rows by scenario; those of an unknown one are left out."""
    column = np.array(names, dtype=object)
    found = [(worlds.of(name), np.flatnonzero(column == name)) for name in dict.fromkeys(names)]
    return [(scenario, index) for scenario, index in found if scenario is not None]


def _space_rule(rows: pa.Table, column: str, names: Sequence[str | None], worlds: Worlds) -> Rule:
    """Lists of the length that the scenario has, within its space; null passes where the column may be null."""
    bad = np.zeros(rows.num_rows, dtype=np.bool_)
    texts: dict[int, Callable[[], str]] = {}
    for scenario, group in _groups(names, worlds):
        part = rows.column(column).take(pa.array(group))
        there = part.is_valid().to_numpy()
        index, lists = group[there], part.drop_null()
        is_action = column == "action"
        width = action_width(scenario) if is_action else len(scenario.observation_names)
        matrix, wrong = matrix_of(lists, width)
        space = scenario.single_observation_space
        beyond = outside_action(matrix, scenario) if is_action else outside(matrix, space.low, space.high)
        beyond[wrong] = False
        labels = [f"{column} {i}" for i in range(width)] if is_action else scenario.observation_names
        for row in np.flatnonzero(wrong | beyond.any(axis=1)).tolist():
            bad[index[row]] = True
            texts[int(index[row])] = _space_text(column, labels, matrix[row], bool(wrong[row]), beyond[row], width)
    return Rule(
        name=column,
        column=column,
        required=f"{column}: as many finite numbers as the scenario's space has, within it",
        offence=Offence(bad, lambda row: texts[row]()),
    )


def _space_text(
    column: str, labels: Sequence[str], values: NDArray[np.float64], wrong: bool, beyond: BoolArray, width: int
) -> Callable[[], str]:
    def text() -> str:
        if wrong:
            return f"{column} is not {width} finite numbers"
        at = int(beyond.argmax())
        return f"{labels[at]} is {values[at]:.6g}, outside the scenario's space"

    return text


def _objectives_rule(rows: pa.Table, names: Sequence[str | None], worlds: Worlds) -> Rule:
    bad = np.zeros(rows.num_rows, dtype=np.bool_)
    lacks: dict[int, str] = {}
    for scenario, group in _groups(names, worlds):
        missing, objectives = missing_objective(rows.column("outcome").take(pa.array(group)), scenario)
        for row in np.flatnonzero(missing).tolist():
            bad[group[row]] = True
            lacks[int(group[row])] = next(name for name, mask in objectives if not mask[row])
    return Rule(
        name="outcome",
        column="outcome",
        required="every objective of the scenario, or every part of them, as a finite number",
        offence=Offence(bad, lambda row: f"outcome lacks a finite {lacks[row]}"),
    )


def _bad_preference(rows: pa.Table, names: Sequence[str | None], worlds: Worlds) -> Offence:
    texts: dict[int, str] = {}
    bad = np.zeros(rows.num_rows, dtype=np.bool_)
    for row, given in enumerate(rows.column("preference").to_pylist()):
        if given is None:
            continue
        weights = dict(given)
        scenario = worlds.of(names[row])
        unknown = set() if scenario is None else set(weights) - {o.name for o in scenario.objectives}
        total = sum(weights.values())
        if unknown:
            texts[row] = f"preference names {min(unknown)}, which is no objective"
        elif not min(weights.values(), default=0.0) >= 0.0 or not abs(total - 1.0) <= 1e-6:
            texts[row] = f"preference sums to {total:.6g}, or has a negative weight"
    bad[list(texts)] = True
    return Offence(bad, lambda row: texts[row])
