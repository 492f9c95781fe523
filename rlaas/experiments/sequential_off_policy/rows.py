"""Logged sessions as the sequential estimators need them: checked, in order, cut at a horizon, weighed step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, shown
from rlaas.experiments.comparison import column, identities, numeric
from rlaas.experiments.off_policy_rows import LARGEST, checked_rows
from rlaas.experiments.reward_model import actions

__all__ = ["Grid", "SessionLog", "check_discount", "grid_of", "session_codes"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLog:
    """Transitions of a log, one row per decision, in any order.

    Attributes:
        session: whose decision it was [n]; sessions are taken as independent of one another, but for ``unit``.
        step: number of the decision in its session [n], from 0, without gaps.
        reward: observed [n].
        terminated: whether the session ended by itself after this decision [n]; a session that was merely cut is not.
        propensity: probability or density with which the logged action was taken [n], > 0.
        evaluation_probability: of the evaluation policy: of the logged action [n], or of every action [n, n_actions],
            which needs ``action``. For log-densities give exp(evaluation - logged) here and a propensity of 1.
        action: logged action [n], whole numbers.
        features: of the state [n, n_features], for fitted Q; a one-hot state is a table. No intercept is added.
        next_features: of the state that followed [n, n_features]; without meaning where ``terminated``, NaN throughout
            where it is not known: the fit does without that row.
        next_probability: evaluation policy's, of every action in the state that followed [n, n_actions].
        unit: who each row's session belongs to [n]: sessions of one unit count as one in the intervals. The first
            row of a session says whose it is.
    """

    session: ArrayLike
    step: ArrayLike
    reward: ArrayLike
    terminated: ArrayLike
    propensity: ArrayLike
    evaluation_probability: ArrayLike
    action: ArrayLike | None = None
    features: ArrayLike | None = None
    next_features: ArrayLike | None = None
    next_probability: ArrayLike | None = None
    unit: ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """Sessions by steps, [n_sessions, horizon] each; what lies behind a session's end is 0, its weight 1.

    Attributes:
        reward: observed.
        weight: of the single step.
        direct: expected value of the evaluation policy's action under the model, v(s).
        predicted: that of the logged action, q(s, a).
        row: index of the row in the log, -1 behind the end.
        row_weight: weight of every row of the log within the horizon [n_rows].
        unit: of each session [n_sessions], None where every session is one of its own.
        row_unit: of the rows of ``row_weight``.
    """

    reward: FloatArray
    weight: FloatArray
    direct: FloatArray
    predicted: FloatArray
    row: IntArray
    row_weight: FloatArray
    unit: IntArray | None
    row_unit: IntArray | None

    @property
    def n_sessions(self) -> int:
        """Sessions of the log."""
        return len(self.reward)

    @property
    def horizon(self) -> int:
        """Steps that are counted."""
        return int(self.reward.shape[1])

    def cumulative(self) -> FloatArray:
        """Weight of each session up to and with each step [n_sessions, horizon]; frozen where the session ended.

        Raises:
            InvalidInputError: weights beyond what floats hold, or a step that no logged session reaches by actions
                that the evaluation policy takes.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.asarray(self.weight.cumprod(axis=1))
        if not (product <= LARGEST).all():  # inf and NaN too
            raise InvalidInputError(
                f"the product of a session's weights exceeds {LARGEST:g}; choose a shorter horizon or fitted Q",
                field="horizon",
            )
        reached = product.any(axis=0)
        if not reached.all():
            step = int(reached.argmin())
            raise InvalidInputError(
                f"none of {self.n_sessions} sessions follows the evaluation policy beyond step {step}: the log does "
                f"not cover it; choose a horizon of at most {step}" + (" or fitted Q" if step else ""),
                field="horizon",
            )
        return product


def grid_of(
    log: SessionLog, *, horizon: int | None, prediction: ArrayLike | None, estimator: str, complete: bool = True
) -> Grid:
    """The log on a grid.

    Args:
        log: the log.
        horizon: steps that are counted, at least 1; default: the longest session.
        prediction: value of every action [n, n_actions], or None where the estimator has no model.
        estimator: name, for messages.
        complete: refuse a session that is shorter than the horizon and did not terminate.

    Raises:
        ConfigurationError: an impossible horizon.
        InvalidInputError: columns that do not fit, steps with gaps, a termination before the last step, or a session
            whose end was not seen.
    """
    rows = checked_rows(
        log.reward,
        log.propensity,
        log.evaluation_probability,
        action=log.action,
        prediction=prediction,
        logging_probability=None,
        unit=None,
        estimator=estimator,
        needs_model=prediction is not None,
        otherwise=("pdis", "wpdis"),
    )
    n = len(rows.reward)
    codes, step = session_codes(log, n)
    terminated = column(log.terminated, "terminated", n) != 0
    lengths = np.bincount(codes)
    order = np.lexsort((step, codes))
    first = np.concatenate([[0], lengths.cumsum()[:-1]])
    gaps = step[order] != np.arange(n) - np.repeat(first, lengths)
    if gaps.any():
        _refuse(log, order[int(gaps.argmax())], "step", "must count 0, 1, 2, ... without gaps or repeats")
    last = np.zeros(n, dtype=np.bool_)
    last[order[lengths.cumsum() - 1]] = True
    if (terminated & ~last).any():
        _refuse(log, int((terminated & ~last).argmax()), "terminated", "is set before the last step")
    steps = _horizon(horizon, int(lengths.max()))
    short = last & ~terminated & (lengths[codes] < steps)
    if complete and short.any():
        cut = int(short.argmax())
        _refuse(
            log,
            cut,
            "terminated",
            f"was cut after {int(lengths[codes[cut]])} steps, so what came then is unknown; expected {steps} steps or "
            "its end: choose a shorter horizon, leave such sessions out by a rule that looks at no outcome, or use "
            "fitted Q",
        )
    row = np.full((len(lengths), steps), -1, dtype=np.int64)
    kept = step < steps
    row[codes[kept], step[kept]] = np.flatnonzero(kept)
    inside = row >= 0
    unit = None if log.unit is None else identities(log.unit, "unit", n)[row[:, 0]]
    if unit is not None:
        unit = np.unique(unit, return_inverse=True)[1]
        if unit.max() < 1:
            raise InvalidInputError("off-policy evaluation needs at least 2 units", field="unit")
    return Grid(
        reward=np.where(inside, rows.reward[row], 0.0),
        weight=np.where(inside, rows.weight[row], 1.0),
        direct=np.where(inside, rows.direct[row], 0.0),
        predicted=np.where(inside, rows.predicted[row], 0.0),
        row=row,
        row_weight=rows.weight[kept],
        unit=unit,
        row_unit=None if unit is None else unit[codes[kept]],
    )


def session_codes(log: SessionLog, n: int) -> tuple[IntArray, IntArray]:
    """Running number of each row's session, and its step, both [n].

    Raises:
        InvalidInputError: missing names, a step that is no whole number, or fewer than 2 sessions.
    """
    codes = identities(log.session, "session", n)
    if codes.max() < 1:
        raise InvalidInputError("off-policy evaluation of sessions needs at least 2 of them", field="session")
    values = numeric(log.step, "step")
    if values.shape != (n,) or not ((values >= 0) & (values == np.floor(values)) & (values < 2**53)).all():
        raise InvalidInputError(f"step must hold one whole number >= 0 per row, {n} of them", field="step")
    return codes, actions(values.astype(np.int64), int(values.max()) + 1)


def check_discount(discount: object) -> float:
    """A discount factor.

    Raises:
        ConfigurationError: not in (0, 1].
    """
    known = isinstance(discount, int | float | np.integer | np.floating) and not isinstance(discount, bool)
    if not known or not 0 < float(discount) <= 1:  # type: ignore[arg-type]
        raise ConfigurationError(f"discount is {shown(discount)}; expected a number in (0, 1]", field="discount")
    return float(discount)  # type: ignore[arg-type]


def _horizon(horizon: object, longest: int) -> int:
    if horizon is None:
        return longest
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or not 1 <= horizon <= 1_000_000:
        raise ConfigurationError(
            f"horizon is {shown(horizon)}; expected a whole number of steps, 1 to 1,000,000", field="horizon"
        )
    return int(horizon)


def _refuse(log: SessionLog, row: int, field: str, says: str) -> None:
    name = np.asarray(log.session, dtype=object)[row]
    raise InvalidInputError(f"{field} of session {shown(name)} {says}", field=field)
