"""The interlock: a cell goes off only while a neighbour is on."""

from __future__ import annotations

import numpy as np
import pytest

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.control import DEEPEST_ON

SLEEP = ACTION_NAMES.index("sleep")
NAMES = Network5G().observation_names
OFF, OWN_SLEEP = NAMES.index("own_off"), NAMES.index("own_sleep")


def stepped(asked, *, steps=1, **options):
    """Observation and infos after steps of one network at the default's settings, with these sleep settings."""
    scenario = Network5G(**options)
    env = scenario.vector_env(1, threads=1)
    env.reset(seed=3)
    actions = np.repeat(scenario.baselines["default"].make().action[None], scenario.cells, axis=0)
    actions[:, SLEEP] = asked
    for _ in range(steps):
        observation, reward, _, _, infos = env.step(actions)
    return observation, reward, infos


def off_cells(asked, **options):
    return np.flatnonzero(stepped(asked, **options)[0][:, OFF]).tolist()


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_where_all_ask_to_be_off_the_busiest_stay_on_and_cover_the_others(size):
    scenario = Network5G(size=size, load="high")
    near = scenario.network.layout.neighbours
    env = scenario.vector_env(16)
    env.reset(seed=1)
    actions = np.repeat(scenario.baselines["default"].make().action[None], 16 * scenario.cells, axis=0)
    env.step(actions)
    use = env.engine.state.cells["use"].copy()
    actions[:, SLEEP] = 1.0
    off = env.step(actions)[0][:, OFF].reshape(16, -1) == 1.0
    for network in range(16):
        on = np.flatnonzero(~off[network])
        busiest = [j for j in range(scenario.cells) if use[network, j] > use[network, near[j]].max()]
        assert set(busiest) <= set(on)
        for j in np.flatnonzero(off[network]):
            assert set(near[j]) & set(on)
        for j in set(on) - set(busiest):
            assert not set(near[j]) & set(busiest)
    if size != "large":
        assert (~off).sum(axis=1).tolist() == [1] * 16


def test_of_equally_busy_cells_the_first_stays_on():
    assert off_cells(1.0) == [1, 2]


def test_a_cell_kept_on_sees_and_pays_for_the_setting_in_force():
    asked, granted = stepped(1.0), stepped([DEEPEST_ON, 1.0, 1.0])
    assert asked[0][:, OWN_SLEEP].tolist() == pytest.approx([DEEPEST_ON, 1.0, 1.0])
    np.testing.assert_array_equal(asked[0], granted[0])
    np.testing.assert_array_equal(asked[1], granted[1])


def test_whoever_has_a_neighbour_on_may_go_off():
    assert off_cells([0.0, 1.0, 1.0]) == [1, 2]
    assert off_cells([1.0, 1.0, 0.899]) == [0, 1]
    assert off_cells([1.0, 0.5, 0.5]) == [0]


def test_a_neighbour_out_of_order_does_not_count():
    outage = [{"kind": "outage", "cell": 0}]
    assert off_cells([0.0, 1.0, 1.0], events=outage) == [0, 2]
    assert off_cells([0.0, 1.0, 0.0], events=outage) == [0, 1]


def test_a_cell_without_neighbours_never_goes_off():
    assert off_cells(1.0, cells=1) == []
    assert off_cells(1.0, cells=1, interlock=False) == [0]


def test_without_the_interlock_a_network_may_go_dark():
    assert off_cells(1.0, interlock=False) == [0, 1, 2]
    _, _, infos = stepped(1.0, interlock=False, steps=3)
    assert not infos["numerators"][:, Network5G().part_names.index("served")].any()


def test_slot_by_slot_keeps_the_same_interlock():
    assert off_cells(1.0, fidelity="slot") == [1, 2]
    assert off_cells([0.0, 1.0, 1.0], fidelity="slot") == [1, 2]


def test_networks_of_a_batch_do_not_hold_each_other_on():
    env = Network5G().vector_env(3)
    env.reset(seed=1)
    actions = np.repeat(env.scenario.baselines["default"].make().action[None], 9, axis=0)
    actions[:, SLEEP] = [1, 1, 1, 0, 1, 1, 1, 1, 0]
    assert env.step(actions)[0][:, OFF].tolist() == [0, 1, 1, 0, 1, 1, 1, 1, 0]


def test_the_option_is_a_flag():
    with pytest.raises(ConfigurationError, match="interlock must be True or False, got 'yes'"):
        Network5G(interlock="yes")
