"""Replay evaluation of a policy that learns online, on a log of uniformly random choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import InvalidInputError, shown
from rlaas.scenarios.checks import check_seed, is_whole
from rlaas.scenarios.recsys.logged.curves import wilson_interval
from rlaas.scenarios.recsys.logged.open_bandit import LoggedFeedback, check_log

__all__ = ["ReplayLearner", "ReplayResult", "replay_policy"]


class ReplayLearner(Protocol):
    """Chooses an item for a user and a position, and learns from what it showed."""

    def choose(self, features: NDArray[np.float64], position: int, rng: np.random.Generator) -> int:
        """Item for a user with ``features`` [n_features]."""

    def learn(self, features: NDArray[np.float64], position: int, item: int, click: int) -> None:
        """Outcome (0 or 1) of a shown item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What a learner reached on the rows where it agreed with the log.

    Attributes:
        events: rows offered.
        matched: rows where the learner chose the logged item; about events / n_items.
        clicks: on the matched rows.
        rate, low, high: clicks per matched row with a 95 % Wilson interval; NaN without a match.
        random_rate, random_low, random_high: of all rows, which is the value of the uniform policy.
        p_value: two-sided, of no difference between matched and unmatched rows (Fisher's exact test). Small is news;
            large is not proof of equality where ``matched`` is small.
    """

    events: int
    matched: int
    clicks: int
    rate: float
    low: float
    high: float
    random_rate: float
    random_low: float
    random_high: float
    p_value: float

    @property
    def decision(self) -> str:
        """What may be said."""
        seen = f"{self.clicks} clicks on {self.matched} matched of {self.events} rows"
        if self.p_value >= 0.05:
            return f"no difference to the uniform policy shown ({seen})"
        word = "higher" if self.rate > self.random_rate else "lower"
        return f"{word} click rate than the uniform policy ({seen})"


def replay_policy(log: LoggedFeedback, choose: ReplayLearner, seed: int = 0) -> ReplayResult:
    """Run a learner through the log by rejection (Li, Chu, Langford & Wang 2011, algorithm 2).

    Each row is offered in order of time; where the learner chooses the logged item the row counts and is learned from,
    otherwise it is dropped. On a uniform log the counted rows are distributed as if the learner had run live.

    Args:
        log: of a policy that chose uniformly.
        choose: the learner, fresh; it is changed.
        seed: of the learner's random numbers.

    Raises:
        InvalidInputError: no log or learner, a log that is not of a uniform policy, or an item that does not exist
            chosen by the learner.
    """
    check_log(log)
    check_seed(seed)
    if not (callable(getattr(choose, "choose", None)) and callable(getattr(choose, "learn", None))):
        raise InvalidInputError(f"choose is {shown(choose)}; expected a learner with choose and learn", field="choose")
    if not np.allclose(log.propensity, 1 / log.n_items, rtol=1e-4, atol=0.0):
        raise InvalidInputError(
            f"replay needs a log of uniform choices, propensity 1/{log.n_items} in every row; got "
            f"{log.propensity.min():.3g} to {log.propensity.max():.3g}; use off-policy estimators instead",
            field="propensity",
        )
    rng = np.random.default_rng(seed)
    matched = np.zeros(len(log), dtype=np.bool_)
    for row in range(len(log)):
        features, position = log.features[row], int(log.position[row])
        item = choose.choose(features, position, rng)
        if not is_whole(item) or not 0 <= item < log.n_items:
            raise InvalidInputError(
                f"the learner chose item {shown(item)}; expected 0 .. {log.n_items - 1}", field="item"
            )
        if item == log.item[row]:
            matched[row] = True
            choose.learn(features, position, item, int(log.click[row]))
    n, total = int(matched.sum()), int(log.click.sum())
    clicks = int(log.click[matched].sum())
    low, high = wilson_interval(clicks, n)
    random_low, random_high = wilson_interval(total, len(log))
    rest = len(log) - n
    table = np.array([[clicks, n - clicks], [total - clicks, rest - (total - clicks)]])
    return ReplayResult(
        events=len(log),
        matched=n,
        clicks=clicks,
        rate=clicks / n if n else float("nan"),
        low=float(low),
        high=float(high),
        random_rate=total / len(log),
        random_low=float(random_low),
        random_high=float(random_high),
        p_value=float(stats.fisher_exact(table).pvalue),
    )
