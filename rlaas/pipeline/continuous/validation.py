"""The validate stage: whether the transitions are what a policy of this scenario may be judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.config import DECISIONS, TRANSITIONS, ContractConfig
from rlaas.pipeline.continuous.data import pinned_rows
from rlaas.pipeline.continuous.fingerprints import Room, room_of
from rlaas.pipeline.continuous.stage import PROBLEM_ROOMS, Context, Stage
from rlaas.scenarios import Scenario

__all__ = ["Check", "ValidateStage", "check_transitions", "contract_of"]

DOCUMENT = "contract.json"
# Logged numbers went through float32 once.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One clause of the contract.

    Attributes:
        name: of the clause.
        passed: it holds.
        measured: what there is; null where it cannot be said.
        required: what there must be, as text.
        detail: a decision that breaks it.
    """

    name: str
    passed: bool
    measured: float | None
    required: str
    detail: str = ""

    def sentence(self) -> str:
        """For a reason: what was found and what is required."""
        found = "" if self.measured is None else f"{self.measured:.4g}, "
        return f"{self.name}: {found}required {self.required}" + (f" ({self.detail})" if self.detail else "")


class ValidateStage(Stage):
    """Holds the pinned transitions against the contract. What fails refuses promotion, with its reasons."""

    name = "validate"
    needs = ("data",)

    def inputs(self, context: Context) -> dict[str, Any]:
        """The thresholds, and which world the scenario is."""
        return {
            "config": {"contract": context.config.contract.model_dump(mode="json")},
            "scenario": {"options": dict(context.scenario.options), "reference": context.scenario.reference_hash},
        }

    def rooms(self, context: Context) -> Iterable[Room]:
        """The scenario's, which says what is in range."""
        return (*PROBLEM_ROOMS, room_of(context.scenario), Room(__name__))

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``contract.json``: whether it holds, and every clause."""
        data = context.artefacts["data"]
        rows = pinned_rows(context.lake, data, TRANSITIONS)
        if rows is None:
            document = {"passed": True, "note": f"nothing to check: {TRANSITIONS} is not read", "checks": []}
            write_json(folder / DOCUMENT, document)
            return {"contract_passed": 1.0}
        decisions = pinned_rows(context.lake, data, DECISIONS, ["decision_id"])
        checks = check_transitions(rows, context.scenario, context.config.contract, decisions)
        passed = all(check.passed for check in checks)
        write_json(folder / DOCUMENT, {"passed": passed, "note": "", "checks": [asdict(check) for check in checks]})
        measured = {f"contract.{check.name}": check.measured for check in checks if check.measured is not None}
        return {"contract_passed": float(passed), **measured}


def contract_of(artefact: Artefact) -> tuple[bool, list[str]]:
    """Whether the contract holds, and a sentence for each clause that does not."""
    document = artefact.read(DOCUMENT)
    broken = [Check(**check).sentence() for check in document["checks"] if not check["passed"]]
    return bool(document["passed"]), broken


def check_transitions(
    rows: pa.Table, scenario: Scenario, contract: ContractConfig, decisions: pa.Table | None = None
) -> list[Check]:
    """Every clause of the contract.

    Args:
        rows: ``silver.transitions`` of the scenario.
        scenario: gives names, spaces and objectives.
        contract: thresholds.
        decisions: the column ``decision_id`` of ``bronze.decisions``; without it coverage is not checked.
    """
    total = rows.num_rows
    checks = [
        Check(
            name="rows",
            passed=total >= contract.min_rows,
            measured=float(total),
            required=f"at least {contract.min_rows}",
        )
    ]
    if total == 0:
        return checks
    n_features, action = len(scenario.observation_names), scenario.single_action_space
    n_actions = 1 if isinstance(action, spaces.Discrete) else int(np.prod(action.shape))
    observations, wrong_observation = _matrix(rows.column("observation"), n_features)
    actions, wrong_action = _matrix(rows.column("action"), n_actions)
    checks.append(_schema(rows, wrong_observation, wrong_action, n_features, n_actions))
    fitting = ~(wrong_observation | wrong_action)
    checks.append(_range(rows, scenario, observations[fitting], actions[fitting], np.flatnonzero(fitting), contract))
    checks.append(_outcomes(rows, scenario))
    ended = pc.or_(rows.column("terminated"), rows.column("truncated"))
    complete = pc.or_(ended, rows.column("next_observation").is_valid())
    checks.append(
        _share(
            "complete",
            1.0 - _mean(complete),
            1.0 - contract.min_complete,
            f"a successor or an end in at least {contract.min_complete:.4g} of the rows",
            flipped=True,
        )
    )
    unique = len(rows.column("decision_id").unique())
    repeated = 1.0 - unique / total
    if decisions is not None and decisions.num_rows:
        decided = len(decisions.column("decision_id").unique())
        repeated = max(repeated, 1.0 - decided / decisions.num_rows)
        checks.append(
            _share(
                "outcome_coverage",
                1.0 - unique / decided,
                1.0 - contract.min_outcome_coverage,
                f"an outcome for at least {contract.min_outcome_coverage:.4g} of the decisions",
                flipped=True,
            )
        )
    checks.append(
        _share("duplicates", repeated, contract.max_duplicates, f"at most {contract.max_duplicates:.4g} of the rows")
    )
    return checks


def _share(name: str, excess: float, allowed: float, required: str, *, flipped: bool = False) -> Check:
    """A share that may be ``allowed`` at most; ``flipped`` reports its complement, which the clause is about."""
    # Shares of counts: what is equal must not fail by the last bit.
    return Check(
        name=name,
        passed=excess <= allowed + 1e-12,
        measured=1.0 - excess if flipped else excess,
        required=required,
    )


def _schema(
    rows: pa.Table,
    wrong_observation: NDArray[np.bool_],
    wrong_action: NDArray[np.bool_],
    n_features: int,
    n_actions: int,
) -> Check:
    wrong = wrong_observation | wrong_action
    detail = ""
    if wrong.any():
        row = int(wrong.argmax())
        what = "observation" if wrong_observation[row] else "action"
        detail = f"{_named(rows, row)}: {what} has another length or a number that is not finite"
    return Check(
        name="schema",
        passed=not wrong.any(),
        measured=float(wrong.mean()),
        required=f"{n_features} finite observations and {n_actions} finite action values in every row",
        detail=detail,
    )


def _range(
    rows: pa.Table,
    scenario: Scenario,
    observations: NDArray[np.float64],
    actions: NDArray[np.float64],
    index: NDArray[np.int64],
    contract: ContractConfig,
) -> Check:
    """Rows outside the spaces, among those that have the right form."""
    space, action = scenario.single_observation_space, scenario.single_action_space
    outside_observation = _outside(observations, space.low, space.high)
    if isinstance(action, spaces.Discrete):
        outside_action = (actions != np.floor(actions)) | (actions < 0) | (actions >= int(action.n))
    elif isinstance(action, spaces.MultiDiscrete):
        outside_action = (actions != np.floor(actions)) | (actions < 0) | (actions >= action.nvec.reshape(-1))
    else:
        outside_action = _outside(actions, action.low.reshape(-1), action.high.reshape(-1))
    outside = outside_observation.any(axis=1) | outside_action.any(axis=1)
    share = float(outside.sum()) / max(1, rows.num_rows)
    detail = ""
    if outside.any():
        first = int(outside.argmax())
        if outside_observation[first].any():
            column = int(outside_observation[first].argmax())
            what = f"{scenario.observation_names[column]} is {observations[first, column]:.6g}"
        else:
            column = int(outside_action[first].argmax())
            what = f"action {column} is {actions[first, column]:.6g}"
        detail = f"{_named(rows, int(index[first]))}: {what}"
    return Check(
        name="out_of_range",
        passed=share <= contract.max_out_of_range,
        measured=share,
        required=f"at most {contract.max_out_of_range:.4g} of the rows outside the scenario's spaces",
        detail=detail,
    )


def _outside(values: NDArray[np.float64], low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.bool_]:
    slack = TOLERANCE * np.maximum(1.0, np.abs(values))
    return np.asarray((values < low - slack) | (values > high + slack))


def _outcomes(rows: pa.Table, scenario: Scenario) -> Check:
    """Every outcome has all objectives, or all parts that they are made of, as finite numbers."""
    logged = rows.column("outcome")

    def there(names: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
        found = {name: pc.is_finite(pc.map_lookup(logged, name, "first")) for name in names}
        return {name: pc.fill_null(mask, False).to_numpy().astype(np.bool_) for name, mask in found.items()}

    objectives = there(o.name for o in scenario.objectives)
    enough = np.all(list(objectives.values()), axis=0) | np.all(list(there(scenario.measures).values()), axis=0)
    detail = ""
    if not enough.all():
        row = int(enough.argmin())
        missing = next(name for name, mask in objectives.items() if not mask[row])
        detail = f"{_named(rows, row)} lacks a finite {missing}"
    return Check(
        name="outcomes",
        passed=bool(enough.all()),
        measured=float(1.0 - enough.mean()),
        required="every objective, or every part of them, in every outcome",
        detail=detail,
    )


def _named(rows: pa.Table, row: int) -> str:
    """A row as somebody can find it again: a table has no order."""
    return f"decision {rows.column('decision_id')[row].as_py()}"


def _matrix(column: pa.ChunkedArray, width: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Lists as a matrix [n, width], and which rows [n] have another length or a number that is not finite."""
    lists = column.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    wrong = lengths != width
    matrix = np.full((len(lengths), width), np.nan)
    flat = pc.list_flatten(lists.filter(pa.array(~wrong)))
    matrix[~wrong] = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, width)
    wrong = wrong | ~np.isfinite(matrix).all(axis=1)
    return matrix, wrong


def _mean(flags: pa.ChunkedArray) -> float:
    return float(pc.mean(flags.cast(pa.float64())).as_py())
