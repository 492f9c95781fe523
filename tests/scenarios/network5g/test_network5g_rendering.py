"""Pictures of networks: they are images, and they show what changed."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g import ACTION_NAMES, ENVIRONMENT_ID, Network5G
from rlaas.scenarios.network5g.rendering import network_figure

SLEEP = ACTION_NAMES.index("sleep")


def stepped(steps=5, **options):
    scenario = Network5G(**options)
    env = scenario.vector_env(2)
    env.reset(seed=1)
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    for _ in range(steps):
        env.step(actions)
    return scenario, env, actions


@pytest.mark.parametrize(
    "options", [{}, {"size": "medium"}, {"size": "large"}, {"cells": 1, "users": 3}, {"columns": 8}], ids=str
)
def test_a_picture_is_an_image_that_is_not_blank(options):
    scenario, env, _ = stepped(**options)
    picture = scenario.picture(env)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert min(picture.shape[:2]) >= 400
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert not np.array_equal(picture, scenario.picture(env, 1))


def test_the_picture_says_what_is_off_and_what_time_it_is():
    _, env, actions = stepped(hour=7.5)
    actions[1, SLEEP] = 1.0
    env.step(actions)
    area, bars = network_figure(env).axes
    texts = [text.get_text() for text in bars.texts]
    assert ["off" in text for text in texts] == [False, True, False]
    assert "07:30" in area.get_title()
    assert "3 cells, 15 users" in area.get_title()
    assert [text.get_text() for text in area.get_legend().get_texts()] == ["eMBB", "URLLC", "mMTC"]
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == pytest.approx(env.engine.state.cells["use"][0])


def test_drawing_changes_nothing():
    scenario, env, actions = stepped(size="medium")
    before = env.get_state()
    scenario.picture(env)
    first = env.step(actions)[0]
    env.set_state(before)
    np.testing.assert_array_equal(first, env.step(actions)[0])


def test_only_its_own_environments_are_drawn():
    class Other:
        pass

    with pytest.raises(InvalidInputError, match="expected an environment of network5g, got Other"):
        Network5G().picture(Other())


def test_gymnasium_renders_the_single_environment():
    env = gymnasium.make(ENVIRONMENT_ID, render_mode="rgb_array", size="medium")
    env.reset(seed=1)
    picture = env.render()
    assert picture.dtype == np.uint8
    silent = gymnasium.make(ENVIRONMENT_ID)
    silent.reset(seed=1)
    assert silent.unwrapped.render() is None
