"""Comparing two arms by the design that the experiment had, and checking that the split was kept."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.comparison import Arm, Comparison, column, identities, labels, student

__all__ = ["compare_by_unit", "compare_switchback", "srm_check"]

FloatArray = NDArray[np.float64]

EXACT_PAIRS = 14
"""Pairs up to which all 2^n flips are tried; beyond, a seeded sample of them."""

FLIPS = 20_000


def compare_by_unit(
    unit: ArrayLike,
    arm: ArrayLike,
    numerator: ArrayLike,
    denominator: ArrayLike | None = None,
    *,
    control: str,
    treatment: str,
    metric: str,
) -> Comparison:
    """Treatment against control where units are independent (users), from one row per decision or session.

    Without a denominator the metric is the mean of unit means, compared by Welch's t-test. With one it is the ratio
    of sums, sum(numerator) / sum(denominator), whose variance the delta method gives: each unit enters by
    (N - R D) / mean(D), rows of one unit together (Deng, Knoblich & Lu 2018). Both share one arithmetic, since the
    linearised values of a ratio with equal denominators are the deviations from the mean.

    Args:
        unit: who each row belongs to [n].
        arm: name of the row's arm [n]; rows of other arms are ignored.
        numerator: value of each row [n].
        denominator: of a ratio metric [n], non-negative.
        control: name of the arm compared with.
        treatment: name of the arm compared.
        metric: name of the metric.

    Raises:
        InvalidInputError: rows that do not fit, a unit in both arms, fewer than 2 units in an arm, or an arm whose
            denominators sum to 0.
    """
    names = labels(arm, control, treatment)
    top = column(numerator, "numerator", len(names))
    bottom = None if denominator is None else _denominator(denominator, len(names))
    units = identities(unit, "unit", len(names))
    crossed = np.intersect1d(units[names == control], units[names == treatment])
    if len(crossed):
        one = np.asarray(unit, dtype=object)[units == crossed[0]][0]
        raise InvalidInputError(
            f"{len(crossed)} units are in both arms, such as {shown(one, str)}; a unit must keep its arm", field="unit"
        )
    arms: dict[str, Arm] = {}
    errors: list[tuple[float, int]] = []
    for name in (control, treatment):
        rows = names == name
        mean, deviations = _arm_mean(units[rows], top[rows], None if bottom is None else bottom[rows], name)
        arms[name] = Arm(len(deviations), mean)
        errors.append((float(deviations.var(ddof=1)) / len(deviations), len(deviations)))
    effect = arms[treatment].mean - arms[control].mean
    variance = sum(v for v, _ in errors)
    # Welch-Satterthwaite degrees of freedom.
    degrees = variance**2 / sum(v**2 / (n - 1) for v, n in errors) if variance > 0 else 1.0
    interval, p_value = student(effect, float(np.sqrt(variance)), degrees)
    return Comparison(
        metric=metric,
        design="unit",
        control=control,
        treatment=treatment,
        arms=arms,
        effect=effect,
        relative=_relative(effect, arms[control].mean),
        interval=interval,
        p_value=p_value,
    )


def compare_switchback(
    step: ArrayLike,
    arm: ArrayLike,
    numerator: ArrayLike,
    denominator: ArrayLike | None = None,
    *,
    block_steps: int,
    washout_steps: int,
    control: str,
    treatment: str,
    metric: str,
    seed: int = 0,
) -> Comparison:
    """Treatment against control where the whole system alternated between them in blocks of time.

    The first ``washout_steps`` of each block are dropped: there the system still carries the other arm's state. Each
    block gives one value (ratio of sums, or mean), and each pair of blocks 2k and 2k + 1 that holds both arms one
    difference: steps depend on one another, but the order within each pair was drawn on its own. The interval is
    Student's over pairs; beside it stands the randomisation p-value, which asks how often flipping the order within
    pairs gives as large a mean difference and needs no distribution (every flip to 14 pairs, a seeded 20,000 beyond).

    Args:
        step: of the experiment for each row [n], from 0; several rows may share a step (the cells of a network).
        arm: name of the row's arm [n]; rows of other arms are ignored.
        numerator: value of each row [n].
        denominator: of a ratio metric [n], non-negative; default 1 (a mean).
        block_steps: steps per block, as assigned.
        washout_steps: steps dropped at the start of each block, fewer than ``block_steps``.
        control: name of the arm compared with.
        treatment: name of the arm compared.
        metric: name of the metric.
        seed: of the sampled flips.

    Raises:
        InvalidInputError: rows that do not fit, a block that holds both arms, or fewer than 2 complete pairs.
    """
    for name, value in (("block_steps", block_steps), ("washout_steps", washout_steps)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InvalidInputError(f"{name} must be a whole number, got {shown(value)}", field=name)
    if block_steps < 1 or not 0 <= washout_steps < block_steps:
        raise InvalidInputError(
            f"washout_steps must be in [0, block_steps), got washout_steps={washout_steps}, block_steps={block_steps}",
            field="washout_steps",
        )
    names = labels(arm, control, treatment)
    top = column(numerator, "numerator", len(names))
    bottom = np.ones(len(names)) if denominator is None else _denominator(denominator, len(names))
    steps = column(step, "step", len(names))
    if (steps < 0).any() or (steps != np.floor(steps)).any():
        raise InvalidInputError("step must hold whole numbers >= 0", field="step")
    used = ((names == treatment) | (names == control)) & (steps % block_steps >= washout_steps)
    blocks = (steps[used] // block_steps).astype(np.int64)
    pairs, n_blocks = _block_pairs(blocks, names[used] == treatment, top[used], bottom[used])
    if len(pairs) < 2:
        raise InvalidInputError(
            f"a switchback needs at least 2 pairs of blocks (2k, 2k + 1) that hold both arms, found {len(pairs)} in "
            f"{n_blocks} blocks of {block_steps} steps; run longer or use shorter blocks",
            field="block_steps",
        )
    controls, treatments = np.array(pairs).T
    differences = treatments - controls
    effect = float(differences.mean())
    n = len(differences)
    interval, p_value = student(effect, float(differences.std(ddof=1)) / np.sqrt(n), n - 1)
    return Comparison(
        metric=metric,
        design="switchback",
        control=control,
        treatment=treatment,
        arms={control: Arm(n, float(controls.mean())), treatment: Arm(n, float(treatments.mean()))},
        effect=effect,
        relative=_relative(effect, float(controls.mean())),
        interval=interval,
        p_value=p_value,
        randomisation_p_value=_flip_p_value(differences, seed),
        n_pairs=n,
    )


def srm_check(counts: Mapping[str, int], weights: Mapping[str, float]) -> float:
    """P-value that the units counted per variant came from the intended split (Pearson's chi-square).

    A small one (below 0.001 by custom) is a sample ratio mismatch: the assignment or the logging is broken, and no
    comparison of the arms should be believed.

    Raises:
        InvalidInputError: other variants counted than weighted, no unit at all, a count that is not a whole number,
            or a unit in a variant of weight 0.
    """
    if set(counts) != set(weights):
        raise InvalidInputError(
            f"counts are of {', '.join(sorted(counts))}; expected {', '.join(sorted(weights))}", field="counts"
        )
    names = sorted(weights)
    seen = np.array([counts[name] for name in names], dtype=np.float64)
    share = np.array([weights[name] for name in names], dtype=np.float64)
    if not (np.isfinite(share).all() and (share >= 0).all() and share.sum() > 0):
        raise InvalidInputError("weights must be finite and >= 0 with a positive sum", field="weights")
    if not ((seen >= 0) & (seen == np.floor(seen))).all() or not seen.sum() > 0:
        raise InvalidInputError("counts must be whole numbers >= 0 with a positive sum", field="counts")
    if (seen[share == 0] > 0).any():
        raise InvalidInputError("a variant of weight 0 has units; the split was not kept", field="counts")
    seen, share = seen[share > 0], share[share > 0]
    if len(seen) == 1:
        return 1.0
    return float(stats.chisquare(seen, seen.sum() * share / share.sum()).pvalue)


def _arm_mean(units: NDArray[Any], top: FloatArray, bottom: FloatArray | None, name: str) -> tuple[float, FloatArray]:
    """Mean of one arm and the deviation that each of its units [n_units] contributes to it."""
    _, where = np.unique(units, return_inverse=True)
    totals = np.bincount(where, weights=top)
    if len(totals) < 2:
        raise InvalidInputError(f"arm {name!r} has {len(totals)} unit; a comparison needs at least 2", field="unit")
    if bottom is None:
        values = totals / np.bincount(where)
        mean = float(values.mean())
        return mean, values - mean
    sums = np.bincount(where, weights=bottom)
    if not sums.sum() > 0:
        raise InvalidInputError(f"denominators of arm {name!r} sum to 0; its ratio is undefined", field="denominator")
    ratio = float(totals.sum() / sums.sum())
    return ratio, (totals - ratio * sums) / sums.mean()


def _block_pairs(
    block: NDArray[np.int64], treated: NDArray[np.bool_], top: FloatArray, bottom: FloatArray
) -> tuple[list[tuple[float, float]], int]:
    """(control, treatment) values of the blocks 2k and 2k + 1 where they hold both arms, and the blocks with a value.

    Raises:
        InvalidInputError: a block whose rows are of both arms.
    """
    blocks, where = np.unique(block, return_inverse=True)
    in_treatment, rows = np.bincount(where, weights=treated), np.bincount(where)
    mixed = (in_treatment > 0) & (in_treatment < rows)
    if mixed.any():
        raise InvalidInputError(
            f"block {blocks[mixed][0]} holds both arms; block_steps is not what the arms were assigned by",
            field="block_steps",
        )
    totals, sums = np.bincount(where, weights=top), np.bincount(where, weights=bottom)
    is_treated = dict(zip(blocks.tolist(), (in_treatment > 0).tolist(), strict=True))
    values = {int(b): float(t / s) for b, t, s in zip(blocks, totals, sums, strict=True) if s > 0}
    pairs = [
        (values[b], values[b + 1]) if is_treated[b + 1] else (values[b + 1], values[b])
        for b in values
        if b % 2 == 0 and b + 1 in values and is_treated[b] != is_treated[b + 1]
    ]
    return pairs, len(values)


def _denominator(values: ArrayLike, length: int) -> FloatArray:
    array = column(values, "denominator", length)
    if (array < 0).any():
        raise InvalidInputError("denominator must be >= 0 in every row", field="denominator")
    return array


def _relative(effect: float, control: float) -> float:
    return effect / control if control != 0 else float("nan")


def _flip_p_value(differences: FloatArray, seed: int) -> float:
    """Two-sided sign-flip p-value of the mean of paired differences [n]."""
    n = len(differences)
    # As large means equal up to rounding too: sums in another order differ in the last bits.
    bar = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    if n <= EXACT_PAIRS:
        signs = np.array(list(product((-1.0, 1.0), repeat=n)))
        return float((np.abs(signs @ differences) >= bar).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(FLIPS // 1000):  # in slices, so that memory does not grow with the number of pairs
        signs = rng.integers(0, 2, size=(1000, n), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ differences) >= bar).sum())
    # The observed order counts as one of the draws, which keeps the test valid.
    return (hits + 1) / (FLIPS + 1)
