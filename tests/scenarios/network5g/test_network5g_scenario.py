"""The scenario: options, the frozen reference, baselines, tunables, objectives and Gymnasium's checker."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import gymnasium
import mo_gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from mo_gymnasium.wrappers import LinearReward, MONormalizeReward, MORecordEpisodeStatistics

import rlaas.scenarios.network5g as room
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios import ConfigurationProblem, evaluate
from rlaas.scenarios.network5g import ENVIRONMENT_ID, Network5G, VectorNetwork5G
from rlaas.scenarios.network5g.calibration import FIRST_SEED, Effort, measure_default
from rlaas.scenarios.network5g.control import HIGH, LOW
from rlaas.scenarios.network5g.objectives import step_rewards
from rlaas.scenarios.network5g.reference import LOADS, Regime, build, parse, reference
from rlaas.scenarios.network5g.single import SingleNetwork5G


def test_reference_covers_every_size_and_load_and_is_hashed():
    ref = reference()
    text = files(room).joinpath("reference.json").read_bytes()
    assert Network5G().reference_hash == hashlib.sha256(text).hexdigest()[:16]
    for size in ("small", "medium", "large"):
        for load in LOADS:
            regime = ref.regimes[size][load]
            assert regime.rb_use == pytest.approx(ref.rb_use[load], abs=0.005)
            assert all(regime.ranges[o.name] == (o.low, o.high) for o in Network5G(size=size, load=load).objectives)
    assert parse(text.decode()).hash == ref.hash
    with pytest.raises(TypeError, match="scale"):
        build(Regime, {"rb_use": 0.1})


def test_shipped_small_mid_regime_reproduces():
    shipped, effort = reference().regimes["small"]["mid"], Effort(networks=96, warmup=100, steps=250)
    found = measure_default(reference(), "small", shipped.scale, effort)
    assert found.rb_use == pytest.approx(shipped.rb_use, rel=0.08)
    assert found.energy == pytest.approx(shipped.energy, rel=0.02)
    assert found.satisfaction == pytest.approx(shipped.satisfaction, rel=0.03)
    assert found.throughput == pytest.approx(shipped.throughput, rel=0.15)
    assert found.packets == pytest.approx(shipped.packets, rel=0.06)
    # A few overloaded cells make most of the URLLC delay.
    assert found.latency_ms[1:] == pytest.approx(shipped.latency_ms[1:], rel=0.4)


def test_the_default_is_about_the_reference_and_max_rsrp_is_weaker():
    scenario = Network5G()
    seeds = list(range(FIRST_SEED, FIRST_SEED + 64))
    default = evaluate(scenario, scenario.baselines["default"].make(), seeds, steps=150, warmup=40)
    latency, throughput, _, satisfaction = scenario.objective_values(
        default.numerators.sum(axis=0), default.denominators.sum(axis=0)
    )
    assert latency == pytest.approx(1.0, abs=0.35)
    weakest = evaluate(scenario, scenario.baselines["max_rsrp"].make(), seeds, steps=150, warmup=40)
    values = scenario.objective_values(weakest.numerators.sum(axis=0), weakest.denominators.sum(axis=0))
    assert values[1] < throughput
    assert values[3] < satisfaction
    guards = scenario.guards(default.numerators, default.denominators)
    assert set(guards) == set(scenario.guard_shares)
    assert guards["served"].shape == (64,)


def test_modes_and_targets_are_the_published_ones():
    scenario = Network5G()
    assert scenario.modes["emergency"].preference.to_dict() == pytest.approx(
        {"latency": 0.6, "throughput": 0.2, "energy": 0.1, "satisfaction": 0.1}
    )
    assert scenario.modes[scenario.primary_mode].preference.weights == (0.25,) * 4
    assert [t.describe() for t in scenario.targets.values()] == ["-30 %", "+40 %", "-30 %", "> 0.95"]
    assert (scenario.algorithm, scenario.experiment_design, scenario.default_baseline) == (
        "sac",
        "switchback",
        "default",
    )
    assert (scenario.options["size"], scenario.options["load"]) == ("small", "mid")


def test_objectives_are_ratios_of_sums():
    scenario = Network5G()
    n, d = np.ones((2, len(scenario.part_names))), np.full((2, len(scenario.part_names)), 2.0)
    n[0], d[0] = 3.0, 4.0
    pooled = scenario.objective_values(n.sum(axis=0), d.sum(axis=0))
    regime = scenario.reference.regimes["small"]["mid"]
    ratio = 4.0 / 6.0
    assert pooled == pytest.approx([np.mean([ratio / x for x in regime.latency_ms]), ratio, ratio, ratio])
    d[1, scenario.part_names.index("throughput")] = 0.0
    assert np.isnan(scenario.objective_values(n, d)).tolist() == [[False] * 4, [False, True, False, False]]


def test_reward_is_the_normalised_default_where_the_default_is_met():
    scenario = Network5G()
    regime = scenario.reference.regimes["small"]["mid"]
    names = scenario.part_names
    n, d = np.zeros((1, 3, len(names))), np.ones((1, 3, len(names)))
    for s, name in enumerate(names[:3]):
        n[..., names.index(name)] = regime.packets[s] * regime.latency_ms[s]
    n[..., names.index("throughput")] = regime.throughput
    n[..., names.index("energy")] = regime.energy
    n[..., names.index("satisfaction")] = regime.satisfaction
    wanted = [
        (v - o.low) / (o.high - o.low) if o.direction == "maximize" else (o.high - v) / (o.high - o.low)
        for v, o in zip((1.0, regime.throughput, regime.energy, regime.satisfaction), scenario.objectives, strict=True)
    ]
    rewards = step_rewards(n, d, regime, scenario.objectives)
    assert rewards == pytest.approx(np.broadcast_to(wanted, (1, 3, 4)))
    n[0, 1, names.index("energy")] *= 1.1
    change = step_rewards(n, d, regime, scenario.objectives) - rewards
    # Half of a cell's reward is the network's mean, so a third of the half reaches the others.
    assert change[0, :, 2] / change[0, 1, 2] == pytest.approx([0.25, 1.0, 0.25])


def test_mean_rewards_are_the_objectives_where_denominators_are_fixed():
    scenario = Network5G(episode_steps=1000)
    env, regime = scenario.vector_env(48, seed=5), scenario.reference.regimes["small"]["mid"]
    env.reset()
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    rewards, n, d = [], 0.0, 0.0
    for _ in range(60):
        _, reward, _, _, infos = env.step(actions)
        rewards.append(reward.mean(axis=0))
        n, d = n + infos["numerators"].sum(axis=0), d + infos["denominators"].sum(axis=0)
    energy = scenario.objectives[2]
    assert energy.high - np.mean(rewards, axis=0)[2] * (energy.high - energy.low) == pytest.approx(n[4] / d[4])
    packets = np.array(regime.packets) * 60 * env.num_envs
    latency = (n[:3] / packets / np.array(regime.latency_ms)).mean()
    assert 1.5 - np.mean(rewards, axis=0)[0] == pytest.approx(latency)


def test_rewards_from_logs_leave_out_the_neighbours():
    scenario = Network5G(episode_steps=50)
    env = scenario.vector_env(4)
    env.reset(seed=1)
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    _, reward, _, _, infos = env.step(actions)
    own = scenario.step_rewards(infos["numerators"], infos["denominators"]).reshape(4, 3, 4)
    mixed = 0.5 * own + 0.5 * own.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(reward.reshape(4, 3, 4), mixed, rtol=1e-12)


@pytest.mark.parametrize("family", ["static", "reactive"])
def test_tunables_run_at_their_corners_and_travel(family):
    problem = ConfigurationProblem(Network5G(), family, seeds=(1, 2), steps=4)
    problem = pickle.loads(pickle.dumps(problem))
    values = problem.evaluate(np.stack([problem.xl, problem.xu, (problem.xl + problem.xu) / 2]))
    assert values.shape == (3, 4)
    assert np.isfinite(values[-1]).all()
    assert np.isfinite(values[:, 2]).all()


def test_static_default_is_the_default():
    scenario = Network5G()
    default = scenario.baselines["default"].make()
    static = scenario.tunables["static"].controller(default.action)
    a = evaluate(scenario, default, (1, 2), steps=10)
    b = evaluate(scenario, static, (1, 2), steps=10)
    np.testing.assert_array_equal(a.values, b.values)


# The checker warns of the wrapper that it needs for a vector reward, and of physical action bounds.
@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium.utils")
def test_gymnasium_checks_the_single_environment():
    env = LinearReward(gymnasium.make(ENVIRONMENT_ID, load="high"), weight=np.full(4, 0.25))
    check_env(env, skip_render_check=True)


def test_a_vector_of_whole_networks_by_gymnasium():
    envs = gymnasium.make_vec(
        ENVIRONMENT_ID, num_envs=3, vectorization_mode="vector_entry_point", size="medium", episode_steps=6
    )
    scenario = Network5G(size="medium", episode_steps=6, control="central")
    mine = scenario.vector_env(3)
    np.testing.assert_array_equal(envs.reset(seed=5)[0], mine.reset(seed=5)[0])
    assert envs.num_envs == 3
    assert envs.single_action_space == scenario.single_action_space
    actions = np.repeat(scenario.baselines["default"].make().action[None], 3, axis=0)
    for _ in range(8):
        theirs, ours = envs.step(actions), mine.step(actions)
        for a, b in zip(theirs[:4], ours[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(theirs[4]["numerators"], ours[4]["numerators"])
    envs.close()


def test_mo_gymnasium_wrappers_work():
    env = MORecordEpisodeStatistics(MONormalizeReward(mo_gymnasium.make(ENVIRONMENT_ID, episode_steps=5), idx=2))
    assert env.unwrapped.reward_dim == 4
    env.reset(seed=1)
    action = Network5G(control="central").baselines["default"].make().action
    total = np.zeros(4)
    for _ in range(5):
        _, reward, terminated, truncated, info = env.step(action)
        assert reward.shape == (4,)
        total += reward
    assert truncated
    assert not terminated
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-5)


def test_a_render_mode_that_does_not_exist_is_refused():
    with pytest.raises(InvalidInputError, match="render_mode must be None or 'rgb_array', got 'human'"):
        SingleNetwork5G(render_mode="human")


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"control": "cell"}, "control", "control must be 'central' .* got 'cell'; make_vec takes 'cell' too"),
        ({"control": "both"}, "control", "control must be 'central' .* got 'both'"),
        ({"colour": "red"}, None, "unknown option of scenario network5g 'colour'; allowed: bandwidth_mhz"),
        ({"size": "huge"}, "size", "unknown size 'huge'"),
    ],
    ids=str,
)
def test_options_of_the_single_environment_are_checked(options, field, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        gymnasium.make(ENVIRONMENT_ID, **options)
    assert field is None or caught.value.field == field


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"render_mode": "rgb_array"}, "render_mode must be None for many networks"),
        ({"control": "both"}, "unknown control 'both'; allowed: cell, central"),
        ({"colour": "red"}, "unknown option of scenario network5g 'colour'"),
    ],
    ids=str,
)
def test_options_of_many_environments_are_checked(options, message):
    with pytest.raises(ConfigurationError, match=message):
        gymnasium.make_vec(ENVIRONMENT_ID, num_envs=2, **options)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, [3]], ids=repr)
def test_a_seed_of_the_single_environment_is_a_whole_number(seed):
    with pytest.raises(InvalidInputError, match="seed must be a whole number >= 0") as caught:
        SingleNetwork5G().reset(seed=seed)
    assert caught.value.field == "seed"


@pytest.mark.parametrize("action", [[[1], [2, 3]], None, np.zeros(27, dtype=bool), ["a"] * 27], ids=str)
def test_an_action_of_the_single_environment_is_numbers(action):
    env = SingleNetwork5G()
    env.reset(seed=1)
    with pytest.raises(InvalidInputError, match="action is not an array of numbers") as caught:
        env.step(action)
    assert caught.value.field == "action"


@pytest.mark.parametrize("environment", [5, -1, "a", True, 0.0, None])
def test_a_picture_of_an_environment_that_is_not_there_is_refused(environment):
    scenario = Network5G()
    with pytest.raises(InvalidInputError, match="environment must be from 0 to 1") as caught:
        scenario.picture(scenario.vector_env(2), environment)
    assert caught.value.field == "environment"


@pytest.mark.parametrize("values", [["a"] * 9, [None] * 9, [[1], [2, 3]], [True] * 9, None, "static"], ids=str)
def test_a_configuration_is_numbers(values):
    with pytest.raises(InvalidInputError, match="static is not an array of numbers"):
        Network5G().tunables["static"].controller(values)


@pytest.mark.parametrize(
    "code",
    [
        "import gymnasium, rlaas",
        "import rlaas, rlaas.scenarios, gymnasium",
    ],
)
def test_the_ids_are_known_without_the_kernels(code):
    code += (
        "; import sys; print({'rlaas/Network5G-v0', 'rlaas/Recommender-v0'} <= set(gymnasium.registry),"
        " 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_single_environment_is_the_vector_one():
    single = gymnasium.make(ENVIRONMENT_ID, episode_steps=6).unwrapped
    scenario = Network5G(episode_steps=6)
    env = scenario.vector_env(1)
    observation, _ = single.reset(seed=4)
    rows, _ = env.reset(seed=4)
    np.testing.assert_array_equal(observation, rows.ravel())
    rng = np.random.default_rng(0)
    for step in range(6):
        actions = LOW + (HIGH - LOW) * rng.random((env.num_envs, len(LOW)))
        observation, reward, terminated, truncated, info = single.step(actions.ravel())
        rows, rewards, _, _, infos = env.step(actions)
        np.testing.assert_array_equal(observation, rows.ravel())
        np.testing.assert_allclose(reward, rewards.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(info["numerators"], infos["numerators"].sum(axis=0), rtol=1e-12)
        assert (terminated, truncated) == (False, step == 5)
    with pytest.raises(InvalidInputError, match=r"shape \(5,\); expected \(27,\)"):
        single.step(np.zeros(5))


def test_registration_is_repeatable_and_the_room_stays_light():
    code = (
        "import sys, rlaas.scenarios.network5g, rlaas.environments as e; e.register_environments();"
        "heavy = {'ray', 'torch', 'mlflow', 'fastapi'} & set(sys.modules); print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_network_without_some_slices_still_runs():
    # No option leads there, but a description does.
    scenario = Network5G(users=3)
    env = VectorNetwork5G(scenario, replace(scenario.network, users=(1, 0, 0)), 2, 1)
    env.reset(seed=1)
    for _ in range(12):
        observation, reward, _, _, _ = env.step(np.repeat(((LOW + HIGH) / 2)[None], env.num_envs, axis=0))
    assert np.isfinite(observation).all()
    assert np.isfinite(reward).all()
