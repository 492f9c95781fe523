"""The single environment through other people's checkers."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from mo_gymnasium.wrappers import LinearReward, MORecordEpisodeStatistics
from mo_gymnasium.wrappers.vector import MOSyncVectorEnv

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios import load
from rlaas.scenarios.recsys import GYMNASIUM_ID, Recommender
from rlaas.scenarios.recsys.single import RecommenderEnv


def test_passes_the_environment_checker() -> None:
    env = gymnasium.make(GYMNASIUM_ID, disable_env_checker=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The wrapper is the point: a bare vector reward would draw warnings itself.
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        check_env(LinearReward(env.unwrapped, weight=np.full(4, 0.25)), skip_render_check=True)


def test_linear_reward_is_the_weighted_sum() -> None:
    weights = np.array([0.1, 0.6, 0.1, 0.2])
    plain, weighted = (gymnasium.make(GYMNASIUM_ID, disable_env_checker=True).unwrapped for _ in range(2))
    scalar = LinearReward(weighted, weight=weights)
    plain.reset(seed=3)
    scalar.reset(seed=3)
    for action in (5, 40, 734):
        vector = plain.step(action)[1]
        assert vector.shape == (4,)
        assert scalar.step(action)[1] == pytest.approx(float(weights @ vector))


def test_agrees_with_the_vector_environment() -> None:
    env = gymnasium.make(GYMNASIUM_ID, items=300, episode_steps=6, disable_env_checker=True).unwrapped
    vector = Recommender(items=300, episode_steps=6).vector_env(1)
    observation, _ = env.reset(seed=8)
    expected, _ = vector.reset(seed=8)
    np.testing.assert_array_equal(observation, expected[0])
    ended = False
    for action in np.random.default_rng(0).integers(735, size=60):
        if ended:
            observation, _ = env.reset()
            expected, *_ = vector.step([0])
            np.testing.assert_array_equal(observation, expected[0])
        observation, reward, terminated, truncated, info = env.step(action)
        expected, expected_reward, a, b, infos = vector.step([int(action)])
        np.testing.assert_array_equal(observation, expected[0])
        np.testing.assert_array_equal(reward, expected_reward[0])
        np.testing.assert_array_equal(info["numerators"], infos["numerators"][0])
        assert (terminated, truncated) == (a[0], b[0])
        ended = terminated or truncated


def test_registering_twice_is_harmless_and_options_are_checked() -> None:
    import importlib

    import rlaas.scenarios.recsys as room

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(room)
    with pytest.raises(ConfigurationError, match="topics must be"):
        gymnasium.make(GYMNASIUM_ID, topics=1)
    with pytest.raises(ConfigurationError, match="unknown option of scenario recsys 'colour'; allowed: attribution"):
        gymnasium.make(GYMNASIUM_ID, colour="red")
    with pytest.raises(ConfigurationError, match="unknown option of scenario recsys 'colour'; allowed: attribution"):
        gymnasium.make_vec(GYMNASIUM_ID, num_envs=2, colour="red")
    with pytest.raises(ConfigurationError, match="render_mode must be None for many streams"):
        gymnasium.make_vec(GYMNASIUM_ID, num_envs=2, render_mode="rgb_array")


@pytest.mark.parametrize("seed", [-1, 1.5, True, "3", [3]], ids=repr)
def test_a_seed_is_a_whole_number(seed: object) -> None:
    env = gymnasium.make(GYMNASIUM_ID, disable_env_checker=True).unwrapped
    with pytest.raises(InvalidInputError, match="seed must be a whole number >= 0") as caught:
        env.reset(seed=seed)
    assert caught.value.field == "seed"


def test_bad_action_names_the_field() -> None:
    env = gymnasium.make(GYMNASIUM_ID, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    for action in (735, -1, 1.5, float("nan")):
        with pytest.raises(InvalidInputError, match="action must be whole numbers from 0 to 734"):
            env.step(action)


def test_make_vec_gives_the_vector_environment() -> None:
    env = gymnasium.make_vec(
        GYMNASIUM_ID, num_envs=3, vectorization_mode="vector_entry_point", items=300, episode_steps=6
    )
    expected = Recommender(items=300, episode_steps=6).vector_env(3, seed=5)
    observation, _ = env.reset(seed=5)
    np.testing.assert_array_equal(observation, expected.reset(seed=5)[0])
    actions = np.array([1, 200, 734])
    for got, wanted in zip(env.step(actions)[:4], expected.step(actions)[:4], strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert env.step(actions)[1].shape == (3, 4)


def test_recorded_episodes_sum_the_vector_rewards() -> None:
    env = MORecordEpisodeStatistics(gymnasium.make(GYMNASIUM_ID, disable_env_checker=True).unwrapped, gamma=1.0)
    env.reset(seed=2)
    total, ended = np.zeros(4), False
    while not ended:
        _, reward, terminated, truncated, info = env.step(7)
        total += reward
        ended = terminated or truncated
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-5)


def test_vectors_of_single_environments_run_under_mo_gymnasium() -> None:
    def make():
        return gymnasium.make(GYMNASIUM_ID, items=300, episode_steps=6, disable_env_checker=True).unwrapped

    env = MOSyncVectorEnv([make, make])
    env.reset(seed=3)
    for _ in range(12):
        observation, reward, *_ = env.step(np.array([3, 100]))
    assert observation.shape == (2, len(Recommender().observation_names))
    assert reward.shape == (2, 4)


def test_render_shows_the_session() -> None:
    env = gymnasium.make(GYMNASIUM_ID, render_mode="rgb_array", disable_env_checker=True).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.render()
    env.reset(seed=1)
    empty = env.render()
    env.step(200)
    page = env.render()
    assert page.shape == (540, 960, 3)
    assert page.dtype == np.uint8
    assert (page != empty).any()
    np.testing.assert_array_equal(page, env.render())
    assert gymnasium.make(GYMNASIUM_ID, disable_env_checker=True).unwrapped.render() is None
    with pytest.raises(ConfigurationError, match="unknown render_mode 'human'; allowed: rgb_array"):
        RecommenderEnv(render_mode="human")


def test_a_picture_of_one_environment_of_many() -> None:
    scenario = Recommender(items=300, episode_steps=6)
    env = scenario.vector_env(3, seed=4)
    with pytest.raises(gymnasium.error.ResetNeeded):
        scenario.picture(env)
    env.reset()
    assert len(env.session_view(1).slate) == 0
    infos = env.step(np.array([0, 300, 600]))[4]
    view, state = env.session_view(2), env.get_state()
    np.testing.assert_array_equal(view.slate, infos["slate"][2])
    assert view.click == infos["click"][2]
    # A conditional logit: the logarithms of two probabilities differ as their utilities do.
    np.testing.assert_allclose(np.diff(np.log(view.probability)), np.diff(view.utility), atol=1e-4)
    np.testing.assert_array_equal(view.taste, state["taste"][2])
    assert len(view.patience) == 2
    assert view.patience[1] == state["patience"][2] < view.patience[0]
    picture = scenario.picture(env, 2)
    assert picture.shape == (540, 960, 3)
    assert (picture != scenario.picture(env, 1)).any()
    env.set_state(state)
    # The page is not part of the state.
    assert len(env.session_view(2).slate) == 0
    with pytest.raises(InvalidInputError, match="environment must be from 0 to 2, got 3"):
        scenario.picture(env, 3)
    with pytest.raises(InvalidInputError, match="env must be one of recsys"):
        scenario.picture(load("network5g", size="small").vector_env(1))
