"""Strategies on new users and new items."""

from __future__ import annotations

import numpy as np
import pytest

from rlaas.errors import InvalidInputError
from rlaas.scenarios import ConstantController
from rlaas.scenarios.recsys import COLD_START, Recommender, cold_start_report

SCENARIO = Recommender(items=300, episode_steps=10)


def test_every_strategy_is_measured_alone() -> None:
    controllers = {name: SCENARIO.baselines[name].make() for name in COLD_START}
    rows = cold_start_report(SCENARIO, controllers, [1, 2, 3], steps=80, replicas=24)
    assert [row.strategy for row in rows] == list(COLD_START)
    for row in rows:
        assert 0.01 < row.user_ctr < 0.1
        assert 0 < row.user_half_width < 0.02
        assert row.user_impressions > 10_000
        assert row.item_impressions > 0
    by_name = {row.strategy: row for row in rows}
    # Knowing what a new user clicks beats knowing nothing of them.
    assert by_name["content"].user_ctr > by_name["popularity"].user_ctr
    # Bounds and samples look at new items more than means do.
    assert by_name["user_linucb"].item_impressions > by_name["item_knn"].item_impressions


def test_counts_agree_with_a_plain_loop() -> None:
    action = SCENARIO.actions.index(2, 1, 2, 0)
    (row,) = cold_start_report(SCENARIO, {"fresh": ConstantController(action)}, [4, 5], steps=60, replicas=2)
    streams = [int(c.generate_state(1)[0]) for seed in (4, 5) for c in np.random.SeedSequence(seed).spawn(2)]
    env = SCENARIO.vector_env(4, seed=streams)
    _, infos = env.reset(seed=streams)
    release, days = SCENARIO.catalogue.release_i, infos["day"].tolist()
    users = [0, 0]
    items = [0, 0]
    seen: list[dict[int, int]] = [{} for _ in streams]
    for _ in range(60):
        infos = env.step(np.full(4, action))[4]
        for e in range(4):
            while days[e] != infos["day"][e]:
                days[e] = (days[e] + 1) % 64
                seen[e] |= dict.fromkeys(np.flatnonzero(release == days[e]).tolist(), 0)
            slate, click = infos["slate"][e].tolist(), int(infos["click"][e])
            if slate[0] < 0:
                continue
            if infos["session"][e] <= 5:
                users[0] += 10
                users[1] += click >= 0
            for position, item in enumerate(slate):
                if seen[e].get(item, 100) < 100:
                    items[0] += 1
                    items[1] += position == click
                    seen[e][item] += 1
    assert row.user_impressions == users[0]
    assert row.item_impressions == items[0]
    assert row.user_ctr == pytest.approx(users[1] / users[0], rel=0.2)
    assert row.item_ctr == pytest.approx(items[1] / items[0], rel=0.2)


class Noting(ConstantController):
    """Takes one action, and notes how it is used."""

    def __init__(self, action: int) -> None:
        super().__init__(action)
        self.rollouts: list[list[int]] = []

    def reset(self, num_rows: int, seed: int) -> None:
        super().reset(num_rows, seed)
        self.rollouts.append([num_rows, seed, 0])

    def learn(self, observation, action, reward) -> None:
        self.rollouts[-1][2] += 1


def test_no_seed_learns_from_another() -> None:
    controller = Noting(3)
    cold_start_report(SCENARIO, {"noting": controller}, [5, 6, 7], steps=4, replicas=2)
    assert controller.rollouts == [[2, 5, 4], [2, 6, 4], [2, 7, 4]]
    learner = SCENARIO.baselines["linucb"].make()
    apart = [cold_start_report(SCENARIO, {"l": learner}, seeds, steps=30, replicas=4)[0] for seeds in ([1, 2], [2, 1])]
    assert apart[0].user_ctr == pytest.approx(apart[1].user_ctr, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1]}, "at least 2"),
        ({"seeds": [1, 2], "steps": 0}, "steps"),
        ({"seeds": [1, 2], "replicas": 0}, "replicas"),
        ({"seeds": [1, 2], "steps": 1.5}, "steps must be a whole number"),
        ({"seeds": [1, 2], "replicas": "many"}, "replicas must be a whole number"),
        ({"seeds": [3, 1, 3]}, "seeds must differ"),
        ({"seeds": 3}, "seeds must be a list"),
        ({"seeds": "12"}, "seeds must be a list"),
        ({"seeds": [1, "b"]}, "seeds must be a list of whole numbers"),
        ({"seeds": [1, 2], "controllers": None}, "controllers is None"),
        ({"seeds": [1, 2], "controllers": {"a": 3}}, r"controllers\['a'\] is 3; expected a controller"),
        ({"seeds": [1, 2], "scenario": "recsys"}, "scenario is 'recsys'"),
    ],
)
def test_too_little_is_refused(options, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        cold_start_report(**({"scenario": SCENARIO, "controllers": {}} | options))
