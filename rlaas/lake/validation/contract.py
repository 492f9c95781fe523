"""What the transitions of a scenario must be like for a policy to be judged by them or promoted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rlaas.lake.validation.checks import Check, share_check
from rlaas.lake.validation.columns import (
    BoolArray,
    FloatMatrix,
    action_width,
    matrix_of,
    missing_objective,
    outside,
    outside_action,
)
from rlaas.scenarios import Scenario

__all__ = ["ContractConfig", "check_transitions"]


class ContractConfig(BaseModel):
    """What the transitions of a scenario must be like for a policy to be promoted. Shares are of all its rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_rows: int = Field(default=1, ge=0, description="transitions of the scenario")
    max_out_of_range: float = Field(default=0.0, ge=0, le=1, description="observations or actions outside their space")
    min_complete: float = Field(default=0.9, ge=0, le=1, description="rows whose successor is known or that ended")
    min_outcome_coverage: float = Field(
        default=0.5, ge=0, le=1, description="decisions with an outcome; asks for bronze.decisions among the tables"
    )
    max_duplicates: float = Field(default=0.0, ge=0, le=1, description="decisions that occur more than once")


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
    n_features, n_actions = len(scenario.observation_names), action_width(scenario)
    observations, wrong_observation = matrix_of(rows.column("observation"), n_features)
    actions, wrong_action = matrix_of(rows.column("action"), n_actions)
    checks.append(_schema(rows, wrong_observation, wrong_action, n_features, n_actions))
    fitting = ~(wrong_observation | wrong_action)
    checks.append(_range(rows, scenario, observations[fitting], actions[fitting], np.flatnonzero(fitting), contract))
    checks.append(_outcomes(rows, scenario))
    ended = pc.or_(rows.column("terminated"), rows.column("truncated"))
    complete = pc.or_(ended, rows.column("next_observation").is_valid())
    checks.append(
        share_check(
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
            share_check(
                "outcome_coverage",
                1.0 - unique / decided,
                1.0 - contract.min_outcome_coverage,
                f"an outcome for at least {contract.min_outcome_coverage:.4g} of the decisions",
                flipped=True,
            )
        )
    checks.append(
        share_check(
            "duplicates", repeated, contract.max_duplicates, f"at most {contract.max_duplicates:.4g} of the rows"
        )
    )
    return checks


def _schema(
    rows: pa.Table,
    wrong_observation: BoolArray,
    wrong_action: BoolArray,
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
    observations: FloatMatrix,
    actions: FloatMatrix,
    index: NDArray[np.int64],
    contract: ContractConfig,
) -> Check:
    """Rows outside the spaces, among those that have the right form."""
    space = scenario.single_observation_space
    outside_observation = outside(observations, space.low, space.high)
    outside_actions = outside_action(actions, scenario)
    wrong = outside_observation.any(axis=1) | outside_actions.any(axis=1)
    share = float(wrong.sum()) / max(1, rows.num_rows)
    detail = ""
    if wrong.any():
        first = int(wrong.argmax())
        if outside_observation[first].any():
            column = int(outside_observation[first].argmax())
            what = f"{scenario.observation_names[column]} is {observations[first, column]:.6g}"
        else:
            column = int(outside_actions[first].argmax())
            what = f"action {column} is {actions[first, column]:.6g}"
        detail = f"{_named(rows, int(index[first]))}: {what}"
    return Check(
        name="out_of_range",
        passed=share <= contract.max_out_of_range,
        measured=share,
        required=f"at most {contract.max_out_of_range:.4g} of the rows outside the scenario's spaces",
        detail=detail,
    )


def _outcomes(rows: pa.Table, scenario: Scenario) -> Check:
    """Every outcome has all objectives, or all parts that they are made of, as finite numbers."""
    missing, objectives = missing_objective(rows.column("outcome"), scenario)
    detail = ""
    if missing.any():
        row = int(missing.argmax())
        name = next(name for name, mask in objectives if not mask[row])
        detail = f"{_named(rows, row)} lacks a finite {name}"
    return Check(
        name="outcomes",
        passed=not missing.any(),
        measured=float(missing.mean()),
        required="every objective, or every part of them, in every outcome",
        detail=detail,
    )


def _named(rows: pa.Table, row: int) -> str:
    """A row as somebody can find it again: a table has no order."""
    return f"decision {rows.column('decision_id')[row].as_py()}"


def _mean(flags: pa.ChunkedArray) -> float:
    return float(pc.mean(flags.cast(pa.float64())).as_py())
