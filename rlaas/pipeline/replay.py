"""How well off-policy estimators do on real logs: two policies ran side by side, so each one's value is known.

The value of a policy is estimated from the other's log, on bootstrap samples of it, and compared with the click rate
that the policy itself logged (the protocol of Saito, Aihara, Matsutani & Narita 2021, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.experiments.off_policy import ESTIMATORS, MODEL_FREE, EstimatorName, estimate
from rlaas.experiments.reward_model import cross_fitted_prediction

__all__ = ["EstimatorError", "LoggedBandit", "ReplayComparison", "compare_estimators"]

_COLUMNS = ("policy", "campaign", "item", "position", "click", "propensity", "features", "n_items", "n_positions")

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class LoggedBandit(Protocol):
    """A log of chosen items, clicks and propensities, as the scenarios' readers give it."""

    @property
    def policy(self) -> str:
        """Name of the policy that chose."""

    @property
    def campaign(self) -> str:
        """What it chose for."""

    @property
    def item(self) -> IntArray:
        """Chosen item [n]."""

    @property
    def position(self) -> IntArray:
        """Position on the page [n], from 0."""

    @property
    def click(self) -> IntArray:
        """0 or 1 [n]."""

    @property
    def propensity(self) -> FloatArray:
        """Probability of the choice [n]."""

    @property
    def features(self) -> FloatArray:
        """Of the user [n, n_features]."""

    @property
    def n_items(self) -> int:
        """Items to choose from."""

    @property
    def n_positions(self) -> int:
        """Positions of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorError:
    """One estimator over all bootstrap runs.

    Attributes:
        estimator: name; ``logged rate`` is the click rate of the log itself, which ignores the policy asked about.
        error: mean relative error |estimate - truth| / truth.
        low, high: 95 % Student interval of that mean over the runs.
        value: mean estimate.
        bias: mean (estimate - truth) / truth.
        effective_sample_size: mean over the runs, in rows.
    """

    estimator: str
    error: float
    low: float
    high: float
    value: float
    bias: float
    effective_sample_size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayComparison:
    """Estimators of one policy's value from another's log.

    Attributes:
        behaviour, evaluation: names of the logging policy and of the one asked about.
        campaign: of both logs.
        n: rows of the logging policy.
        runs: bootstrap runs.
        truth: click rate that the evaluation policy logged itself.
        truth_error: its standard error.
        noise: relative error that a perfect estimator would show on average, because the truth is itself an estimate:
            sqrt(2 / pi) x truth_error / truth. Differences below it mean nothing.
        errors: by estimator, smallest error first.
    """

    behaviour: str
    evaluation: str
    campaign: str
    n: int
    runs: int
    truth: float
    truth_error: float
    noise: float
    errors: tuple[EstimatorError, ...]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON types."""
        return asdict(self)


def compare_estimators(
    behaviour: LoggedBandit,
    evaluation: LoggedBandit,
    distribution: FloatArray,
    *,
    estimators: Sequence[EstimatorName] = ESTIMATORS,
    runs: int = 30,
    seed: int = 0,
    ridge: float = 4.0,
) -> ReplayComparison:
    """Estimate the value of ``evaluation``'s policy from ``behaviour``'s log, ``runs`` times.

    Each run draws the log's rows with replacement, fits the reward model (item, position and user features) with
    cross-fitting, in which copies of a row share a fold, and estimates. SLOPE picks the tuned estimators' parameters.

    Args:
        behaviour: log that the estimators see.
        evaluation: log of the policy asked about; only its click rate is used.
        distribution: of the policy asked about [n_positions, n_items]; rows sum to 1.
        estimators: to compare.
        runs: bootstrap runs, at least 2.
        seed: of the bootstrap.
        ridge: penalty of the reward model.

    Raises:
        ConfigurationError: an unknown estimator, or a ridge that is not > 0 where a model is fitted.
        InvalidInputError: logs or a distribution that do not fit one another, fewer than 2 runs, or no click in
            ``evaluation``'s log.
    """
    _check_arguments(behaviour, evaluation, estimators, seed, ridge)
    distribution = _numbers(distribution)
    shape = (behaviour.n_positions, behaviour.n_items)
    if behaviour.campaign != evaluation.campaign or distribution.shape != shape:
        raise InvalidInputError(
            f"distribution has shape {distribution.shape} and the logs are of {behaviour.campaign!r} and "
            f"{evaluation.campaign!r}; expected {shape} and one campaign",
            field="distribution",
        )
    if not _is_whole(runs) or runs < 2:
        raise InvalidInputError(f"runs is {shown(runs)}; expected a whole number, at least 2", field="runs")
    truth = float(evaluation.click.mean())
    if truth == 0:
        raise InvalidInputError("the evaluation policy's log holds no click; its value is unknown", field="evaluation")
    rng = np.random.default_rng(seed)
    names = (*estimators, "logged rate")
    values, sizes = np.empty((runs, len(names))), np.empty((runs, len(names)))
    for run in range(runs):
        rows = rng.integers(0, len(behaviour.item), len(behaviour.item))
        found = _one_run(behaviour, rows, distribution, estimators, ridge, run)
        values[run], sizes[run] = found[:, 0], found[:, 1]
    truth_error = float(evaluation.click.std(ddof=1) / np.sqrt(len(evaluation.click)))
    errors = [_summary(name, values[:, i], sizes[:, i], truth) for i, name in enumerate(names)]
    return ReplayComparison(
        behaviour=behaviour.policy,
        evaluation=evaluation.policy,
        campaign=behaviour.campaign,
        n=len(behaviour.item),
        runs=runs,
        truth=truth,
        truth_error=truth_error,
        noise=float(np.sqrt(2 / np.pi)) * truth_error / truth,
        errors=tuple(sorted(errors, key=lambda row: row.error)),
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_arguments(behaviour: Any, evaluation: Any, estimators: Any, seed: Any, ridge: Any) -> None:
    for name, log in (("behaviour", behaviour), ("evaluation", evaluation)):
        missing = [column for column in _COLUMNS if not hasattr(log, column)]
        if missing:
            raise InvalidInputError(f"{name} is {shown(log)}; expected a log, it lacks {missing[0]}", field=name)
    if isinstance(estimators, str) or not isinstance(estimators, Sequence) or not estimators:
        raise InvalidInputError(
            f"estimators is {shown(estimators)}; expected a list of {', '.join(ESTIMATORS)}", field="estimators"
        )
    for name in estimators:
        check_choice(name, ESTIMATORS, field="estimators")
    if len(set(estimators)) < len(estimators):
        raise InvalidInputError(f"estimators must differ, got {shown(list(estimators))}", field="estimators")
    if not _is_whole(seed) or seed < 0:
        raise InvalidInputError(f"seed is {shown(seed)}; expected a whole number >= 0", field="seed")
    if isinstance(ridge, bool) or not isinstance(ridge, int | float | np.integer | np.floating):
        raise ConfigurationError(f"ridge is {shown(ridge)}; expected a number > 0", field="ridge")


def _numbers(distribution: Any) -> FloatArray:
    try:
        return np.asarray(distribution, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"distribution is {shown(distribution)}; expected numbers [n_positions, n_items]", field="distribution"
        ) from error


def _one_run(
    log: LoggedBandit,
    rows: IntArray,
    distribution: FloatArray,
    estimators: Sequence[EstimatorName],
    ridge: float,
    seed: int,
) -> FloatArray:
    """Value and effective sample size [n_estimators + 1, 2] on the drawn rows; the last is the log's own rate."""
    item, click, position = log.item[rows], log.click[rows].astype(np.float64), log.position[rows]
    prediction = None
    if set(estimators) - set(MODEL_FREE):
        at = (position[:, None] == np.arange(log.n_positions)).astype(np.float64)
        prediction = cross_fitted_prediction(
            np.hstack([at, log.features[rows]]), item, click, n_actions=log.n_items, ridge=ridge, row=rows, seed=seed
        )
    found = np.empty((len(estimators) + 1, 2))
    for i, name in enumerate(estimators):
        result = estimate(
            click,
            log.propensity[rows],
            distribution[position],
            estimator=name,
            action=item,
            prediction=None if name in MODEL_FREE else prediction,
        )
        found[i] = result.value, result.effective_sample_size
    found[-1] = click.mean(), len(rows)
    return found


def _summary(name: str, values: FloatArray, sizes: FloatArray, truth: float) -> EstimatorError:
    relative = (values - truth) / truth
    error = np.abs(relative)
    half = stats.t.ppf(0.975, len(values) - 1) * error.std(ddof=1) / np.sqrt(len(values))
    return EstimatorError(
        estimator=name,
        error=float(error.mean()),
        low=float(error.mean() - half),
        high=float(error.mean() + half),
        value=float(values.mean()),
        bias=float(relative.mean()),
        effective_sample_size=float(sizes.mean()),
    )
