from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.recsys.logged import (
    LinUcbItems,
    LoggedFeedback,
    ReplayLearner,
    ThompsonItems,
    read_log,
    replay_policy,
)

ITEMS = 5


class Fixed:
    """Always the same item; counts what it is told."""

    def __init__(self, item: int) -> None:
        self.item, self.seen = item, 0

    def choose(self, features: NDArray[np.float64], position: int, rng: np.random.Generator) -> int:
        return self.item

    def learn(self, features: NDArray[np.float64], position: int, item: int, click: int) -> None:
        assert item == self.item
        self.seen += 1


def _log(rates: NDArray[np.float64], n: int, seed: int) -> LoggedFeedback:
    """A uniform log of two kinds of user; ``rates`` [2, ITEMS] is the click rate by kind and item."""
    rng = np.random.default_rng(seed)
    kind, item = rng.integers(0, 2, n), rng.integers(0, ITEMS, n)
    return LoggedFeedback(
        policy="random",
        campaign="toy",
        item=item,
        position=rng.integers(0, 3, n),
        click=(rng.random(n) < rates[kind, item]).astype(np.int64),
        propensity=np.full(n, 1 / ITEMS),
        features=(kind[:, None] == np.arange(2)).astype(float),
        feature_names=("first", "second"),
        time=np.arange(n).astype("datetime64[us]"),
        n_items=ITEMS,
    )


BLIND = np.tile([0.1, 0.1, 0.5, 0.1, 0.1], (2, 1))
"""One item is best for all."""

PERSONAL = np.array([[0.5, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.5]])
"""Each kind of user has an item of its own."""


def test_a_fixed_item_is_worth_what_the_log_says() -> None:
    log = _log(BLIND, 5_000, 0)
    learner = Fixed(2)
    result = replay_policy(log, learner)
    rows = log.item == 2
    assert (result.matched, result.clicks) == (rows.sum(), log.click[rows].sum())
    assert learner.seen == result.matched
    assert result.rate == log.click[rows].mean()
    assert result.low < 0.5 < result.high
    assert result.random_rate == log.click.mean()
    # Fisher's two-sided p-value: all tables with the same margins that are no likelier than the one seen.
    margins = stats.hypergeom(len(log), log.click.sum(), result.matched)
    likelihood = margins.pmf(np.arange(result.matched + 1))
    seen = margins.pmf(result.clicks)
    assert result.p_value == pytest.approx(likelihood[likelihood <= seen * (1 + 1e-7)].sum(), rel=1e-6)
    assert result.decision.startswith("higher click rate than the uniform policy")
    assert replay_policy(log, Fixed(0)).decision.startswith("lower click rate")


@pytest.mark.parametrize(
    ("learner", "rates"),
    [
        (ThompsonItems(ITEMS), BLIND),
        (LinUcbItems(ITEMS, 2, alpha=0.5), BLIND),
        (LinUcbItems(ITEMS, 2, alpha=0.5), PERSONAL),
    ],
)
def test_learners_beat_chance_where_there_is_something_to_learn(
    learner: ReplayLearner, rates: NDArray[np.float64]
) -> None:
    log = _log(rates, 20_000, 1)
    result = replay_policy(log, learner, seed=2)
    assert result.p_value < 1e-6
    # Within reach of the best item's .5, which costs exploration; chance is .18.
    assert result.low > 0.4
    assert result.matched == pytest.approx(len(log) / ITEMS, rel=0.1)


def test_a_learner_blind_to_the_user_misses_what_only_the_user_tells() -> None:
    log = _log(PERSONAL, 20_000, 3)
    blind, seeing = replay_policy(log, ThompsonItems(ITEMS)), replay_policy(log, LinUcbItems(ITEMS, 2, alpha=0.5))
    assert blind.high < 0.36
    assert seeing.low > blind.high


@pytest.mark.parametrize("make", [lambda: ThompsonItems(ITEMS), lambda: LinUcbItems(ITEMS, 2, alpha=1.0)])
def test_nothing_is_found_where_there_is_nothing(make: Any) -> None:
    flat = np.full((2, ITEMS), 0.2)
    p_values = np.array([replay_policy(_log(flat, 1_500, seed), make(), seed=seed).p_value for seed in range(60)])
    # Fisher's test is conservative: at most 5 % below .05, and 10 of 60 would be a chance of 1e-3.
    assert (p_values < 0.05).sum() < 10


def test_same_seed_same_result() -> None:
    log = _log(BLIND, 2_000, 4)
    first, second, other = (replay_policy(log, ThompsonItems(ITEMS), seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_linucb_is_ridge_regression() -> None:
    rng = np.random.default_rng(5)
    learner, ridge = LinUcbItems(2, 3, alpha=0.0, ridge=0.7), 0.7
    scores = []
    probes = rng.normal(size=(40, 3))
    for item in range(2):
        x, click = rng.normal(size=(50, 3)), rng.integers(0, 2, 50)
        for row, reward in zip(x, click, strict=True):
            learner.learn(row, 0, item, int(reward))
        design = np.column_stack([np.ones(50), x])
        theta = np.linalg.solve(design.T @ design + ridge * np.eye(4), design.T @ click)
        scores.append(np.column_stack([np.ones(40), probes]) @ theta)
    expected = np.argmax(scores, axis=0)
    assert [learner.choose(probe, 0, rng) for probe in probes] == expected.tolist()
    assert 0 < expected.sum() < 40


def test_bad_input_says_so() -> None:
    log = _log(BLIND, 100, 6)
    with pytest.raises(InvalidInputError, match="the learner chose item 7; expected 0"):
        replay_policy(log, Fixed(7))
    with pytest.raises(InvalidInputError, match="log is None"):
        replay_policy(None, Fixed(0))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="choose is 3; expected a learner"):
        replay_policy(log, 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="the learner chose item 'a'"):
        replay_policy(log, Fixed("a"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="seed"):
        replay_policy(log, Fixed(0), seed=-1)
    skewed = log.take(np.arange(100))
    object.__setattr__(skewed, "propensity", np.linspace(0.1, 0.3, 100))
    with pytest.raises(InvalidInputError, match=r"propensity 1/5 in every row; got 0\.1 to 0\.3") as caught:
        replay_policy(skewed, Fixed(0))
    assert caught.value.field == "propensity"
    for build in (
        lambda: ThompsonItems(0),
        lambda: ThompsonItems(3, clicks=0.0),
        lambda: LinUcbItems(0, 2),
        lambda: LinUcbItems(3, 2, alpha=-1.0),
        lambda: LinUcbItems(3, 2, ridge=0.0),
        lambda: LinUcbItems(3, 2.5),  # type: ignore[arg-type]
        lambda: LinUcbItems(3, 2, alpha="wide"),  # type: ignore[arg-type]
        lambda: ThompsonItems("three"),  # type: ignore[arg-type]
        lambda: ThompsonItems(3, skips=float("nan")),
    ):
        with pytest.raises(ConfigurationError, match="expected; got"):
            build()


def test_no_match_is_no_rate() -> None:
    log = _log(BLIND, 200, 7)
    rest = log.take(log.item != 0)
    result = replay_policy(rest, Fixed(0))
    assert result.matched == 0
    assert np.isnan([result.rate, result.low, result.high]).all()
    assert result.p_value == 1.0
    assert "0 clicks on 0 matched" in result.decision


@pytest.mark.parametrize("campaign", ["all", "men"])
def test_the_real_log_is_too_short_to_show_learning(repository: Path, campaign: Any) -> None:
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data")) / "open_bandit"
    if not root.is_dir():
        pytest.skip(f"{root} is missing; set RLAAS_DATA_DIR to the folder with open_bandit/")
    log = read_log(root, "random", campaign)
    result = replay_policy(log, ThompsonItems(log.n_items, skips=250.0), seed=0)
    # One row in n_items matches, whatever the learner: 4 standard deviations of that count.
    expected = len(log) / log.n_items
    assert abs(result.matched - expected) < 4 * np.sqrt(expected)
    # The interval is wider than any lift worth having: up to several times the uniform rate.
    assert result.low < result.random_rate < result.high
    assert result.decision.startswith("no difference to the uniform policy shown")
    with pytest.raises(InvalidInputError, match="use off-policy estimators instead"):
        replay_policy(read_log(root, "bts", campaign), ThompsonItems(log.n_items))
