"""Scheduled regimes, orders that come later, and the two levels of clicks."""

from __future__ import annotations

import numpy as np
import pytest

from rlaas.errors import ConfigurationError
from rlaas.scenarios.recsys import Recommender
from rlaas.scenarios.recsys.engine.tables import FRESHNESS, KNOWN

SMALL = {"items": 300, "episode_steps": 10}
PLAIN = Recommender(**SMALL)


def side_by_side(events, steps=60, n=64, action=None):
    """A world with events beside the same world without, under the same actions."""
    envs = [
        PLAIN.vector_env(n, seed=5),
        Recommender(**SMALL, events=events).vector_env(n, seed=5),
    ]
    rng = np.random.default_rng(0)
    for env in envs:
        env.reset()
    for _ in range(steps):
        chosen = rng.integers(735, size=n) if action is None else np.full(n, action)
        yield [(env.step(chosen), env.get_state()) for env in envs]


def test_a_shock_lifts_the_measured_trend_of_its_topic_while_it_lasts() -> None:
    event = {"kind": "shock", "topic": 3, "at_page": 20, "size": 2.0, "duration": 25}
    first = PLAIN.observation_names.index("trend_0")
    lifts = []
    for (plain, _), (shocked, _) in side_by_side([event]):
        difference = shocked[0][:, first : first + 12] - plain[0][:, first : first + 12]
        assert np.abs(np.delete(difference, 3, axis=1)).max() < 1e-5
        lifts.append(difference[:, 3].mean())
    lifts = np.array(lifts)
    assert (np.abs(lifts[:20]) < 1e-6).all()
    # An exponential approach to the size: 1 - lag^pages.
    lag = PLAIN.reference.platform.trend_lag
    assert lifts[44] == pytest.approx(2.0 * (1 - lag**25), rel=0.02)
    assert lifts[59] < 0.25 * lifts[44]


def test_a_price_rise_costs_orders() -> None:
    event = {"kind": "price_rise", "factor": 2.0, "at_page": 10, "duration": 1000}
    orders = np.zeros((2, 2))
    for step, pair in enumerate(side_by_side([event], steps=150, n=256, action=PLAIN.actions.index(1, 1, 0, 0))):
        for world, (out, _) in enumerate(pair):
            orders[world, int(step >= 10)] += out[4]["numerators"][:, 1].sum()
    assert orders[0, 0] == orders[1, 0]
    assert orders[1, 1] < 0.8 * orders[0, 1]


def test_new_items_are_unknown_and_then_known() -> None:
    event = {"kind": "new_items", "share": 0.5, "at_page": 15, "duration": 20}
    scenario = Recommender(**SMALL, events=[event])
    tables, plain = scenario.tables, PLAIN.tables
    assert tables.phase_from.tolist() == [0, 15, 35]
    changed = tables.quality[1] != tables.quality[0]
    assert 0.35 < changed.mean() < 0.65
    np.testing.assert_array_equal(tables.quality[1], tables.quality[2])
    assert (tables.daily[1][:, FRESHNESS, changed] == 1).all()
    assert tables.daily[1][:, KNOWN, changed].max() < 0.2
    for name in ("quality", "daily"):
        np.testing.assert_array_equal(getattr(tables, name)[0], getattr(plain, name)[0])
        np.testing.assert_array_equal(getattr(tables, name)[1][..., ~changed], getattr(plain, name)[0][..., ~changed])
    for step, ((_, before), (_, after)) in enumerate(side_by_side([event], steps=17)):
        if step < 15:
            np.testing.assert_array_equal(before["estimate"], after["estimate"])
        elif step == 15:
            # What feedback had said about the replaced items is gone, but for the page just shown.
            assert (after["precision"][:, changed] > 0).mean() < (before["precision"][:, changed] > 0).mean()


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("shock", "events must be a list of mappings, got 'shock'"),
        ({"kind": "shock"}, "events must be a list"),
        ([3], r"events\[0\] must be a mapping with a kind, got 3"),
        ([{"kind": "flood"}], r"unknown events\[0\].kind 'flood'; allowed: new_items, price_rise, shock"),
        ([{"topic": 1}], "allowed: new_items, price_rise, shock"),
        (
            [{"kind": "shock", "at_page": 1, "duration": 2, "topic": 12, "size": 1}],
            r"events\[0\].topic must be a whole number from 0 to 11, got 12",
        ),
        ([{"kind": "price_rise", "at_page": 1, "duration": 2}], r"factor must be a number from 0.1 to 10, got None"),
        ([{"kind": "price_rise", "at_page": 1.5, "duration": 2, "factor": 2}], "at_page must be a whole number"),
        ([{"kind": "new_items", "at_page": 1, "duration": 2, "share": float("nan")}], "share must be a number"),
        ([{"kind": "new_items", "at_page": 1, "duration": 2, "share": 0.5, "size": 2}], r"unknown events\[0\] field"),
        (
            [{"kind": "price_rise", "at_page": i, "duration": 50, "factor": 10} for i in range(39)],
            r"overlap at step 1 multiply to 10\^2; their product must be from 0.1 to 10",
        ),
        (
            [{"kind": "price_rise", "at_page": 5, "duration": 9, "factor": f} for f in (0.2, 0.4)],
            r"multiply to 10\^-1.1; their product",
        ),
    ],
)
def test_impossible_events_name_the_field(events, message) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Recommender(events=events)
    assert caught.value.field.startswith("events")


def test_price_rises_may_follow_and_balance_one_another() -> None:
    after = [{"kind": "price_rise", "at_page": 10 * i, "duration": 10, "factor": 10} for i in range(9)]
    both = [{"kind": "price_rise", "at_page": 3, "duration": 10, "factor": f} for f in (10, 0.1, 5, 2)]
    for events in (after, both):
        assert len(Recommender(**SMALL, events=events).options["events"]) == len(events)


def totals(scenario, steps=200, n=256):
    env = scenario.vector_env(n, seed=8)
    env.reset()
    action = np.full(n, scenario.actions.index(1, 1, 0, 0))
    up = np.zeros(len(scenario.part_names))
    late = 0
    for _ in range(steps):
        infos = env.step(action)[4]
        up += infos["numerators"].sum(axis=0)
        late += int((infos["order"] & (infos["click"] < 0)).sum())
    return up, late


def test_orders_follow_their_click_within_the_window() -> None:
    at_once, late_at_once = totals(PLAIN)
    within, late = totals(Recommender(**SMALL, attribution_pages=3))
    assert late_at_once == 0
    assert late > 0
    # Orders do not move anyone: clicks differ only by what the platform learns from orders.
    assert within[0] == pytest.approx(at_once[0], rel=0.05)
    # 1 - 1/2^4 would arrive in endless sessions; sessions end.
    share = within[1] / at_once[1]
    assert 0.6 < share < 1 - 0.5**4 + 0.05


def test_a_late_order_tells_of_the_taste_when_it_comes() -> None:
    scenario = Recommender(**SMALL, attribution_pages=3)
    env, platform = scenario.vector_env(512, seed=9), scenario.reference.platform
    env.reset()
    topics, action = scenario.catalogue.topics_ik, np.full(512, scenario.actions.index(1, 1, 0, 0))
    clicked: list[list[int]] = [[] for _ in range(512)]
    late = 0
    for _ in range(60):
        before = env.get_state()
        infos = env.step(action)[4]
        gained = env.get_state()["evidence"] - platform.evidence_memory * before["evidence"]
        for e in range(512):
            slate, click = infos["slate"][e], int(infos["click"][e])
            if slate[0] < 0:
                clicked[e] = []
                continue
            if click >= 0:
                gained[e] -= platform.click_evidence * topics[slate[click]]
            clicked[e].append(int(slate[click]) if click >= 0 else -1)
            orders = int(infos["numerators"][e, 1])
            assert gained[e].sum() == pytest.approx(orders * platform.order_evidence, abs=1e-4)
            if orders == 1:
                # What is left is the item of one of the last four clicks.
                candidates = [item for item in clicked[e][-4:] if item >= 0]
                errors = [np.abs(gained[e] - platform.order_evidence * topics[item]).max() for item in candidates]
                assert min(errors) < 1e-4
                late += click < 0
    assert late > 20


def test_the_level_of_open_bandit_has_a_tenth_of_the_clicks() -> None:
    high, _ = totals(PLAIN, steps=100)
    low, _ = totals(Recommender(**SMALL, level="open_bandit"), steps=100)
    assert 0.05 < low[0] / high[0] < 0.2


def test_core_strategies_are_fewer_actions() -> None:
    core = Recommender(strategies="core")
    assert core.single_action_space.n == 4 * 3 * 5 * 2
    assert {core.describe_action(a)["exploration"] for a in range(120)} == {"none", "uniform"}
    assert "als" not in core.baselines
    assert "mmr" in core.baselines
    # The same parts make the same page.
    slates = []
    for scenario in (core, Recommender()):
        env = scenario.vector_env(16, seed=1)
        env.reset()
        slates.append(env.step(np.full(16, scenario.actions.index(2, 2, 4, 1)))[4]["slate"])
    np.testing.assert_array_equal(*slates)
