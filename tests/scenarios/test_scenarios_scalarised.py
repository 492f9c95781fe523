import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rlaas.errors import InvalidInputError
from rlaas.scenarios import ScalarisedVectorEnv, load


def test_the_scalar_reward_is_the_weighted_sum_and_the_vector_stays_in_infos():
    env = load("network5g", episode_steps=5).vector_env(3)
    wrapped = ScalarisedVectorEnv(env, {"latency": 1, "energy": 3})
    wrapped.reset(seed=1)
    _, reward, _, _, infos = wrapped.step(wrapped.action_space.sample())
    assert reward.shape == (9,)
    np.testing.assert_allclose(reward, 0.25 * infos["objectives"][:, 0] + 0.75 * infos["objectives"][:, 2])


@pytest.mark.parametrize(
    ("preference", "message"),
    [({"speed": 1.0}, "speed"), ([1.0, 2.0], "expected 4"), ([0.0, 0.0, 0.0, 0.0], "at least one weight")],
)
def test_a_preference_that_does_not_fit_is_refused(preference, message):
    env = load("recsys").vector_env(1)
    with pytest.raises(InvalidInputError, match=message):
        ScalarisedVectorEnv(env, preference)


@pytest.mark.parametrize(
    ("name", "options"), [("network5g", {"control": "central", "episode_steps": 8}), ("recsys", {})]
)
def test_rllib_samples_from_it_through_the_vector_entry_point(name, options):
    def create(context):
        return ScalarisedVectorEnv(load(name, **options).vector_env(context["num_envs"]), [0.25] * 4)

    config = (
        PPOConfig()
        .environment(env=create)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, gym_env_vectorize_mode="vector_entry_point")
        .debugging(seed=5)
    )
    firsts = []
    for worker in (1, 2):
        runner = SingleAgentEnvRunner(config=config, worker_index=worker)
        try:
            episodes = runner.sample(num_timesteps=80, random_actions=True)
        finally:
            runner.stop()
        firsts.append(np.asarray(episodes[0].get_observations(0)))
    assert not np.array_equal(*firsts)
    assert sum(len(episode) for episode in episodes) >= 80
    rewards = np.concatenate([episode.get_rewards() for episode in episodes])
    assert rewards.ndim == 1
    assert np.isfinite(rewards).all()
    if name == "network5g":
        assert any(episode.is_truncated for episode in episodes)
