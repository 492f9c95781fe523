"""Analysing an experiment from the lake: what ``silver.transitions`` says about two arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.experiments import Comparison, compare_by_unit, compare_switchback
from rlaas.objectives import Preference, normalise
from rlaas.scenarios import Scenario, outcome_parts

__all__ = ["analyse_experiment", "pseudo_values"]

FloatArray = NDArray[np.float64]


def pseudo_values(
    scenario: Scenario, numerators: FloatArray, denominators: FloatArray, preference: Preference
) -> FloatArray:
    """Jackknife pseudo-values [n_units] of the preference-weighted utility of one arm.

    The utility is a smooth function of sums over units, not a mean over units. A unit's pseudo-value is
    n u(all) - (n - 1) u(all but this unit): their mean estimates the utility and their variance its sampling error,
    as the delta method would (Efron & Tibshirani 1993, chapter 11), so that tests of means apply.

    Args:
        scenario: gives the objectives of sums.
        numerators, denominators: sums per unit [n_units, n_parts].
        preference: weights of the utility.

    Raises:
        InvalidInputError: fewer than 2 units, or an objective that no data define.
    """
    n = len(numerators)
    if n < 2:
        raise InvalidInputError(f"an arm needs at least 2 units, got {n}", field="units")

    def utility(num: FloatArray, den: FloatArray) -> FloatArray:
        values = np.asarray(scenario.objective_values(num, den), dtype=np.float64)
        return np.asarray(normalise(scenario.objectives, values) @ preference.array())

    total_num, total_den = numerators.sum(axis=0), denominators.sum(axis=0)
    everyone = utility(total_num, total_den)
    without = utility(total_num - numerators, total_den - denominators)
    if not (np.isfinite(everyone) and np.isfinite(without).all()):
        raise InvalidInputError("an objective is undefined: too few observed events in one arm", field="units")
    return np.asarray(n * everyone - (n - 1) * without)


def analyse_experiment(
    scenario: Scenario,
    transitions: pa.Table,
    *,
    control: str,
    treatment: str,
    preference: Preference,
    block_steps: int,
    washout_steps: int,
) -> Comparison:
    """Compare two variants on the preference-weighted utility, by the scenario's experiment design.

    Users are independent: one value per user (session). Elements of one network interfere: one value per switchback
    block, washout dropped, compared within pairs of blocks.

    Args:
        scenario: gives objectives and design.
        transitions: ``silver.transitions`` of the experiment.
        control, treatment: variant names.
        preference: weights of the utility.
        block_steps, washout_steps: of the switchback; unused by a user split.

    Raises:
        InvalidInputError: a variant without data, or too few units or blocks.
    """
    arms = np.array(transitions.column("variant").to_pylist())
    keep = np.isin(arms, [control, treatment])
    table = transitions.filter(pa.array(keep))
    arms = arms[keep]
    for variant in (control, treatment):
        if not (arms == variant).any():
            raise InvalidInputError(f"variant {variant!r} has no transitions", field="variant")
    outcomes = [dict(row) for row in table.column("outcome").to_pylist()]
    numerators, denominators = outcome_parts(scenario, outcomes)
    if scenario.experiment_design == "switchback":
        return _by_block(
            scenario,
            np.array(table.column("step").to_pylist(), dtype=np.int64),
            arms,
            (numerators, denominators),
            preference=preference,
            block_steps=block_steps,
            washout_steps=washout_steps,
            names=(control, treatment),
        )
    units, index = np.unique(np.array(table.column("unit").to_pylist()), return_inverse=True)
    arm_of = np.empty(len(units), dtype=arms.dtype)
    arm_of[index] = arms
    num = _grouped(numerators, index, len(units))
    den = _grouped(denominators, index, len(units))
    values = np.empty(len(units))
    for variant in (control, treatment):
        mask = arm_of == variant
        values[mask] = pseudo_values(scenario, num[mask], den[mask], preference)
    return compare_by_unit(units, arm_of, values, control=control, treatment=treatment, metric="utility")


def _grouped(values: FloatArray, index: NDArray[Any], n: int) -> FloatArray:
    out = np.zeros((n, values.shape[1]))
    np.add.at(out, index, values)
    return out


def _by_block(
    scenario: Scenario,
    step: NDArray[np.int64],
    arms: NDArray[Any],
    parts: tuple[FloatArray, FloatArray],
    *,
    preference: Preference,
    block_steps: int,
    washout_steps: int,
    names: Sequence[str],
) -> Comparison:
    """One utility per block from its sums, repeated at its steps, so that the analysis sees blocks and nothing else."""
    counted = step % block_steps >= washout_steps
    step, arms = step[counted], arms[counted]
    blocks, index = np.unique(step // block_steps, return_inverse=True)
    num = _grouped(parts[0][counted], index, len(blocks))
    den = _grouped(parts[1][counted], index, len(blocks))
    values = normalise(scenario.objectives, scenario.objective_values(num, den)) @ preference.array()
    arm_of = np.empty(len(blocks), dtype=arms.dtype)
    arm_of[index] = arms
    return compare_switchback(
        blocks * block_steps + washout_steps,
        arm_of,
        values,
        block_steps=block_steps,
        washout_steps=washout_steps,
        control=names[0],
        treatment=names[1],
        metric="utility",
    )
