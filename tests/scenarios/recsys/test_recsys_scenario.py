"""The scenario's face: options, objectives, baselines, tunables, reference."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rlaas.errors import ConfigurationError, InvalidInputError, UnknownNameError
from rlaas.scenarios import ConstantController, evaluate, load
from rlaas.scenarios.configuration import ConfigurationProblem
from rlaas.scenarios.recsys import COLD_START, Recommender
from rlaas.scenarios.recsys.calibration import calibrate, main, popularity_levels
from rlaas.scenarios.recsys.controllers import LinUCBController, ReactiveController, ReactiveRule
from rlaas.scenarios.recsys.reference import load_reference, parse_reference, reference_text

SCENARIO = Recommender()


def test_loads_by_name_with_options() -> None:
    scenario = load("recsys", items=500, topics=6, episode_steps=8)
    assert isinstance(scenario, Recommender)
    assert scenario.options == {
        "items": 500,
        "topics": 6,
        "slate": 10,
        "shortlist": 50,
        "episode_steps": 8,
        "attribution_pages": 0,
        "reward": "realised",
        "level": "demonstration",
        "retrieval": "full",
        "strategies": "all",
        "events": (),
    }
    assert scenario.catalogue.vectors_ik.shape == (500, 6)
    env = scenario.vector_env(2, seed=1)
    observation, _ = env.reset()
    assert observation.shape == (2, len(scenario.observation_names))


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"items": 50}, "items", "a whole number from 100 to 4000, got 50"),
        ({"items": 1000.0}, "items", "got 1000.0"),
        ({"items": True}, "items", "got True"),
        ({"items": "many"}, "items", "got 'many'"),
        ({"items": 200}, "items", "items must be at least 250"),
        ({"topics": 1}, "topics", "from 2 to 64"),
        ({"slate": 5}, "slate", "slate must be 10, got 5"),
        ({"shortlist": 9}, "shortlist", "from 10 to 500"),
        ({"episode_steps": 0}, "episode_steps", "from 1 to 200"),
        ({"attribution_pages": -1}, "attribution_pages", "from 0 to 20, got -1"),
        ({"level": "real"}, "level", "unknown level 'real'; allowed: demonstration, open_bandit"),
        ({"retrieval": "some"}, "retrieval", "unknown retrieval 'some'; allowed: full, shortlist"),
        ({"strategies": "few"}, "strategies", "unknown strategies 'few'; allowed: all, core"),
        ({"reward": "clicks"}, "reward", "unknown reward 'clicks'; allowed: expected, realised"),
    ],
)
def test_impossible_options_name_the_field(options, field, message) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Recommender(**options)
    assert caught.value.field == field


def test_unknown_option_names_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="allowed: attribution_pages, episode_steps, events, items"):
        load("recsys", size="big")


def test_describes_itself() -> None:
    assert [o.name for o in SCENARIO.objectives] == ["ctr", "cvr", "diversity", "cost"]
    assert [o.direction for o in SCENARIO.objectives] == ["maximize", "maximize", "maximize", "minimize"]
    assert {m: tuple(mode.preference.weights) for m, mode in SCENARIO.modes.items()} == {
        "revenue": (0.1, 0.6, 0.1, 0.2),
        "user_experience": (0.5, 0.2, 0.2, 0.1),
        "balanced": (0.25, 0.25, 0.25, 0.25),
    }
    assert SCENARIO.primary_mode in SCENARIO.modes
    assert SCENARIO.default_baseline in SCENARIO.baselines
    assert {t.objective: t.relative for t in SCENARIO.targets.values()} == {
        "ctr": 0.15,
        "cvr": 0.10,
        "diversity": 0.25,
        "cost": -0.20,
    }
    assert SCENARIO.single_action_space.n == 735
    assert len(set(SCENARIO.observation_names)) == SCENARIO.single_observation_space.shape[0]
    assert SCENARIO.describe_action(SCENARIO.actions.index(1, 2, 3, 1)) == {
        "retrieval": "content",
        "ranking": "value",
        "diversity": 0.7,
        "exploration": "uniform",
    }
    with pytest.raises(InvalidInputError, match="action"):
        SCENARIO.describe_action(735)


def test_objectives_and_guards_are_ratios_of_sums() -> None:
    up = np.array([[4.0, 1.0, 5.0, 700.0, 1.0, 100.0, 60.0]])
    down = np.array([[100.0, 4.0, 10.0, 100.0, 2.0, 2.0, 100.0]])
    np.testing.assert_allclose(SCENARIO.objective_values(up, down), [[0.04, 0.25, 0.5, 7.0]])
    guards = SCENARIO.guards(up, down)
    assert {name: float(value[0]) for name, value in guards.items()} == {
        "orders_per_session": 0.5,
        "impressions_per_session": 50.0,
        "coverage": 0.6,
    }
    assert guards.keys() == SCENARIO.guard_shares.keys()
    assert np.isnan(SCENARIO.objective_values(np.zeros(7), np.zeros(7))).all()


@pytest.mark.parametrize("name", sorted(SCENARIO.baselines))
def test_every_baseline_runs(name: str) -> None:
    evaluation = evaluate(SCENARIO, SCENARIO.baselines[name].make(), [1, 2, 3], steps=60, warmup=5, replicas=8)
    assert np.isfinite(evaluation.values).all()
    ctr, cvr, diversity, cost = evaluation.mean()
    assert 0.005 < ctr < 0.1
    assert 0 <= cvr < 0.5
    assert 0 < diversity < 1
    assert 0 < cost < 20
    again = evaluate(SCENARIO, SCENARIO.baselines[name].make(), [1, 2, 3], steps=60, warmup=5, replicas=8)
    np.testing.assert_array_equal(evaluation.values, again.values)


def test_popularity_is_the_most_popular_items_for_everyone() -> None:
    env = SCENARIO.vector_env(8, seed=3)
    env.reset()
    controller = SCENARIO.baselines["popularity"].make()
    controller.reset(8, 0)
    state = env.get_state()
    state["measured"][:] = 0.0
    env.set_state(state)
    _, _, _, _, infos = env.step(controller.act(np.zeros((8, 1))))
    day = (state["clock"] // 24).astype(int) % 64
    for slate, today in zip(infos["slate"], day, strict=True):
        assert slate.tolist() == np.argsort(-SCENARIO.catalogue.popularity_di[today])[:10].tolist()


def equal_weights(scenario, controller, steps, seeds=range(4), replicas=16, warmup=0) -> float:
    """Mean over pages of the equally weighted reward, as LinUCB learns it."""
    env = scenario.vector_env(len(seeds) * replicas, seed=int(seeds[0]))
    observation, _ = env.reset()
    controller.reset(env.num_envs, 1)
    total = pages = 0.0
    for step in range(warmup + steps):
        action = controller.act(observation)
        following, reward, _, _, infos = env.step(action)
        controller.learn(observation, action, reward)
        observation = following
        if step >= warmup:
            total += reward.mean(axis=1).sum()
            pages += infos["denominators"][:, 2].sum()
    return total / pages


def test_linucb_learns() -> None:
    random = equal_weights(SCENARIO, SCENARIO.baselines["random"].make(), 150, replicas=32)
    popularity = equal_weights(SCENARIO, SCENARIO.baselines["popularity"].make(), 150, replicas=32)
    linucb = equal_weights(SCENARIO, SCENARIO.baselines["linucb"].make(), 150, replicas=32, warmup=60)
    # One standard error of a mean is about 0.02.
    assert linucb > random + 0.05
    assert linucb > popularity + 0.1


def test_seeds_of_a_learner_do_not_learn_from_each_other() -> None:
    make = SCENARIO.baselines["linucb"].make
    together = evaluate(SCENARIO, make(), [4, 5, 6], steps=40, replicas=4)
    alone = [evaluate(SCENARIO, make(), [seed], steps=40, replicas=4) for seed in (4, 5, 6)]
    np.testing.assert_array_equal(together.values, np.concatenate([one.values for one in alone]))


def test_every_strategy_also_runs_alone() -> None:
    actions = [
        SCENARIO.describe_action(int(controller.action))
        for controller in (baseline.make() for baseline in SCENARIO.baselines.values())
        if isinstance(controller, ConstantController)
    ]
    names = SCENARIO.reference.actions
    assert {action["retrieval"] for action in actions} == set(names.retrieval)
    assert {action["ranking"] for action in actions} == set(names.ranking)
    assert {action["exploration"] for action in actions} == set(names.exploration)
    for name in ("fresh", "economy"):
        assert SCENARIO.describe_action(int(SCENARIO.baselines[name].make().action))["retrieval"] == name
    assert SCENARIO.describe_action(int(SCENARIO.baselines["value"].make().action))["ranking"] == "value"
    assert SCENARIO.describe_action(int(SCENARIO.baselines["uniform"].make().action))["exploration"] == "uniform"


def test_a_baseline_that_is_not_there_says_what_it_needs() -> None:
    core = Recommender(items=300, episode_steps=10, strategies="core")
    assert [name for name in COLD_START if name in core.baselines] == ["popularity", "content", "fresh", "uniform"]
    for name in set(COLD_START) - set(core.baselines):
        with pytest.raises(UnknownNameError, match=f"baseline '{name}' needs the option strategies='all'"):
            core.baselines[name]
    with pytest.raises(UnknownNameError, match=r"unknown baseline 'best'; allowed: .*popularity"):
        core.baselines["best"]
    assert core.baselines.get("als") is None


def test_linucb_bound_is_theta_x_plus_alpha_times_the_norm() -> None:
    features = {name: i for i, name in enumerate(SCENARIO.observation_names)}
    controller = LinUCBController(SCENARIO.actions, features, alpha=0.7, ridge=2.0)
    controller.reset(6, 0)
    rng = np.random.default_rng(0)
    observation = rng.random((6, len(features))).astype(np.float32)
    for _ in range(30):
        controller.learn(observation, rng.integers(735, size=6), rng.random((6, 4)))
    # The textbook way: one vector per row and action, one linear solve.
    gram, moment = controller._gram, controller._moment
    theta = np.linalg.solve(gram, moment)
    context = controller._context(observation)
    best = []
    for row in context:
        scores = []
        for parts in controller._actions:
            x = np.outer(parts, row).ravel()
            scores.append(theta @ x + 0.7 * np.sqrt(x @ np.linalg.solve(gram, x)))
        best.append(int(np.argmax(scores)))
    assert controller.act(observation).tolist() == best


def test_linucb_ignores_rows_that_showed_nothing() -> None:
    features = {name: i for i, name in enumerate(SCENARIO.observation_names)}
    controller = LinUCBController(SCENARIO.actions, features)
    controller.reset(2, 0)
    before = controller._gram.copy()
    controller.learn(np.ones((2, len(features)), dtype=np.float32), np.zeros(2, dtype=int), np.zeros((2, 4)))
    np.testing.assert_array_equal(controller._gram, before)
    assert controller._moment.any() == np.False_


def test_static_tunable_is_a_constant_action() -> None:
    static = SCENARIO.tunables["static"]
    controller = static.controller([1.2, 2, 3, 0])
    assert isinstance(controller, ConstantController)
    assert int(controller.action) == SCENARIO.actions.index(1, 2, 3, 0)
    assert tuple(int(high) + 1 for high in static.high) == SCENARIO.actions.sizes
    with pytest.raises(InvalidInputError, match=r"static.ranking must be in \[0, 2\], got 3"):
        static.controller([0, 3, 0, 0])


def test_reactive_tunable_switches_on_confidence_and_boredom() -> None:
    reactive = SCENARIO.tunables["reactive"]
    controller = reactive.controller([0.5, 3.0, 0, 1, 2, 1, 3, 1])
    assert isinstance(controller, ReactiveController)
    assert controller.rule == ReactiveRule(
        confidence=0.5,
        idle_pages=3.0,
        unknown_retrieval=0,
        known_retrieval=1,
        ranking=2,
        interested_diversity=1,
        bored_diversity=3,
        exploration=1,
    )
    observation = np.zeros((4, len(SCENARIO.observation_names)), dtype=np.float32)
    names = SCENARIO.observation_names
    observation[:, names.index("confidence")] = [0.1, 0.1, 0.9, 0.9]
    observation[:, names.index("pages_since_click")] = [0.0, 0.6, 0.0, 0.6]
    index = SCENARIO.actions.index
    assert controller.act(observation).tolist() == [
        index(0, 2, 1, 1),
        index(0, 2, 3, 1),
        index(1, 2, 1, 0),
        index(1, 2, 3, 0),
    ]


def test_tunables_can_be_searched_and_travel() -> None:
    scenario = pickle.loads(pickle.dumps(SCENARIO))
    problem = ConfigurationProblem(scenario, "reactive", seeds=[1, 2], steps=30, replicas=4)
    middle = (problem.xl + problem.xu) / 2
    F = problem.evaluate(np.stack([problem.xl, middle]))
    assert F.shape == (2, 4)
    assert np.isfinite(F).all()
    own = ConfigurationProblem(SCENARIO, "reactive", seeds=[1, 2], steps=30, replicas=4)
    np.testing.assert_array_equal(own.evaluate(middle[None])[0], F[1])


def test_reference_is_frozen_and_hashed() -> None:
    reference = load_reference()
    assert SCENARIO.reference_hash == reference.hash
    assert len(reference.hash) == 16
    document = json.loads(reference_text())
    assert parse_reference(document).hash == reference.hash
    document["choice"]["match"] += 0.1
    changed = parse_reference(document)
    assert changed.hash != reference.hash
    assert Recommender.from_reference(changed).reference_hash == changed.hash
    del document["choice"]["match"]
    with pytest.raises(TypeError, match="match"):
        parse_reference(document)


def test_catalogue_is_the_same_for_everyone_and_consistent() -> None:
    c = SCENARIO.catalogue
    np.testing.assert_array_equal(c.vectors_ik, Recommender().catalogue.vectors_ik)
    np.testing.assert_allclose(np.linalg.norm(c.vectors_ik, axis=1), 1.0)
    np.testing.assert_allclose(c.topics_ik.sum(axis=1), 1.0)
    assert c.price_i.mean() == pytest.approx(1.0)
    assert (c.cost_i > 0).all()
    assert ((c.freshness_di > 0) & (c.freshness_di <= 1)).all()
    # Everything has been new once in a life.
    np.testing.assert_allclose(c.freshness_di.max(axis=0), 1.0)


@pytest.mark.parametrize(("level", "width"), [("demonstration", 0.06), ("open_bandit", 0.25)])
def test_the_default_has_the_level_it_was_calibrated_to(level: str, width: float) -> None:
    calibrated = load_reference().calibrated[level]
    ctr, cvr, per_page = popularity_levels(json.loads(reference_text()), level, steps=200, replicas=8)
    # Four standard errors of the shares of some 11,000 pages, and of 4,500 or 420 clicks.
    assert ctr == pytest.approx(calibrated.ctr_level, rel=width)
    assert cvr == pytest.approx(calibrated.cvr0, rel=3 * width)
    assert per_page == pytest.approx(10 * ctr)
    assert calibrated.clicks_per_page == pytest.approx(10 * calibrated.ctr_level, rel=0.05)


def test_calibration_finds_its_way_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(reference_text())
    document["calibrated"] = {"demonstration": document["calibrated"]["demonstration"]}
    document["calibrated"]["demonstration"] |= {"exit_utility": 1.0, "ctr_level": 0.02}
    document["conversion"]["intercept"] = 0.0
    fitted = calibrate(document, steps=30, replicas=4)
    assert document["calibrated"]["demonstration"]["exit_utility"] == 1.0
    shipped, found = load_reference().calibrated["demonstration"], fitted["calibrated"]["demonstration"]
    # Half the clicks need a more attractive exit.
    assert found["exit_utility"] > shipped.exit_utility
    ctr, _, _ = popularity_levels(fitted, steps=30, replicas=4)
    assert ctr == pytest.approx(0.02, rel=0.1)
    assert all(low < high for low, high in found["ranges"].values())
    assert 0 <= found["best_mmr"] <= 3
    main(["--output", str(tmp_path / "out.json"), "--steps", "40", "--replicas", "8"])
    written = json.loads((tmp_path / "out.json").read_text())
    assert parse_reference(written).calibrated["open_bandit"].ctr_level == 0.0038
    printed = json.loads(capsys.readouterr().out)
    assert printed["open_bandit"]["exit_utility"] == written["calibrated"]["open_bandit"]["exit_utility"]


def test_calibration_on_too_few_pages_says_so() -> None:
    with pytest.raises(InvalidInputError, match="1 steps x 2 replicas show no click"):
        calibrate(json.loads(reference_text()), steps=1, replicas=1)


def test_click_rates_quoted_from_open_bandit_are_those_of_the_data(repository: Path) -> None:
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data")) / "open_bandit"
    if not root.is_dir():
        pytest.skip(f"{root} is missing; set RLAAS_DATA_DIR to the folder with open_bandit/")
    about = json.loads(reference_text())["about"]["level"]
    for policy in ("random", "bts"):
        clicks = pq.read_table(root / f"{policy}_all.parquet", columns=["click"])["click"].to_numpy()
        assert f"{clicks.mean():.4f}" in about
