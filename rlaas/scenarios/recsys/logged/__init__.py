"""Logged recommendations of a real shop: reading them, describing them, replaying learners on them."""

from rlaas.scenarios.recsys.logged.curves import (
    PositionCurve,
    PropensityBalance,
    clustered_interval,
    detectable_ratio,
    position_curve,
    propensity_balance,
    wilson_interval,
)
from rlaas.scenarios.recsys.logged.learners import LinUcbItems, ThompsonItems
from rlaas.scenarios.recsys.logged.open_bandit import LoggedFeedback, item_distribution, read_log
from rlaas.scenarios.recsys.logged.replay import ReplayLearner, ReplayResult, replay_policy

__all__ = [
    "LinUcbItems",
    "LoggedFeedback",
    "PositionCurve",
    "PropensityBalance",
    "ReplayLearner",
    "ReplayResult",
    "ThompsonItems",
    "clustered_interval",
    "detectable_ratio",
    "item_distribution",
    "position_curve",
    "propensity_balance",
    "read_log",
    "replay_policy",
    "wilson_interval",
]
