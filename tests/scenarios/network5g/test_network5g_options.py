"""Every option of the scenario: what is refused, by name, and what an option changes."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios import load
from rlaas.scenarios.network5g import Network5G
from rlaas.scenarios.network5g.reference import reference

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"size": "huge"}, "size", "unknown size 'huge'; allowed: large, medium, small"),
        ({"load": "full"}, "load", "unknown load 'full'; allowed: high, low, mid"),
        ({"control": "both"}, "control", "unknown control 'both'; allowed: cell, central"),
        ({"mobility": "teleport"}, "mobility", "unknown mobility 'teleport'; allowed: gauss_markov, trace, waypoint"),
        ({"embb_traffic": "video"}, "embb_traffic", "unknown embb_traffic 'video'; allowed: constant, files"),
        ({"mmtc_traffic": "video"}, "mmtc_traffic", "unknown mmtc_traffic 'video'; allowed: beta, poisson"),
        ({"fidelity": "exact"}, "fidelity", "unknown fidelity 'exact'; allowed: fluid, slot"),
        ({"episode_steps": 0}, "episode_steps", "episode_steps must be a whole number >= 1, got 0"),
        ({"episode_steps": 1.5}, "episode_steps", "episode_steps must be a whole number >= 1, got 1.5"),
        ({"episode_steps": True}, "episode_steps", "episode_steps must be a whole number >= 1, got True"),
        ({"users": -1}, "users", "users must be a whole number >= 1, got -1"),
        ({"users": 2.0}, "users", "users must be a whole number >= 1, got 2.0"),
        ({"hour": 24}, "hour", "hour must be below 24 (midnight is 0), got 24"),
        ({"hour": -1}, "hour", "hour must be a number in [0, 24], got -1"),
        ({"hour": "noon"}, "hour", "hour must be a number in [0, 24], got 'noon'"),
        ({"hour": NAN}, "hour", "hour must be a number in [0, 24], got nan"),
        ({"hours_per_s": -0.1}, "hours_per_s", "hours_per_s must be a number in [0, 24], got -0.1"),
        ({"cells": 0}, "cells", "cells must"),
        ({"cells": 1001}, "cells", "cells must"),
        ({"cells": 2.5}, "cells", "cells must"),
        ({"cells": "many"}, "cells", "cells must"),
        ({"cells": True}, "cells", "cells must"),
        ({"cells": 4, "sectors": 3}, "cells", "cells must be a multiple of sectors"),
        ({"cells": 4, "sectors": 2}, "sectors", "unknown sectors 2; allowed: 1, 3"),
        ({"sectors": 3}, "sectors", "sectors needs cells"),
        ({"sites": "nowhere.csv"}, "sites", "nowhere.csv"),
        ({"sites": "nowhere.csv", "cells": 3}, "sites", "leave cells and sectors out"),
        ({"propagation": "rural"}, "propagation", "propagation must be one of ('uma', 'umi'), got 'rural'"),
        ({"indoor": 1.1}, "indoor", "indoor must be a number in [0, 1], got 1.1"),
        ({"inter_site_m": 1}, "inter_site_m", "inter_site_m must be a number in [50, 5000], got 1"),
        ({"carrier_ghz": 300}, "carrier_ghz", "carrier_ghz must be a number in [0.5, 30], got 300"),
        ({"bandwidth_mhz": 21}, "bandwidth_mhz", "bandwidth_mhz"),
        ({"bandwidth_mhz": "wide"}, "bandwidth_mhz", "bandwidth_mhz"),
        ({"subcarrier_khz": 31}, "subcarrier_khz", "subcarrier_khz"),
        ({"bandwidth_mhz": 100.0, "subcarrier_khz": 15}, "bandwidth_mhz", "bandwidth_mhz"),
        ({"urllc_subcarrier_khz": 45}, "urllc_subcarrier_khz", "urllc_subcarrier_khz must be one of (15, 30, 60)"),
        ({"urllc_subcarrier_khz": 0}, "urllc_subcarrier_khz", "urllc_subcarrier_khz must be one of (15, 30, 60)"),
        ({"modulation": "qpsk"}, "modulation", "modulation must be one of ('64qam', '256qam'), got 'qpsk'"),
        ({"layers": 5}, "layers", "layers must be one of (1, 2, 3, 4), got 5"),
        ({"layers": True}, "layers", "layers must be one of (1, 2, 3, 4), got True"),
        ({"columns": 3}, "columns", "columns must be one of (1, 2, 4, 8), got 3"),
        ({"size": "medium", "columns": 4}, "columns", "unknown columns 4; allowed for medium: 1"),
        ({"mobility": "trace"}, "traces", "needs traces"),
        ({"mobility": "trace", "traces": "nowhere.csv"}, None, "nowhere.csv"),
        ({"traces": [np.zeros((5, 2))]}, "traces", "traces need mobility 'trace', got mobility 'waypoint'"),
        ({"power_model": "lamp"}, "power_model", "unknown power_model 'lamp'; allowed: earth_macro"),
        ({"power_model": ["earth_macro"]}, "power_model", "power_model has 1 entries; expected one or 3"),
        ({"events": ["rain"]}, "events[0]", "events[0] must be a mapping with the key kind"),
        ({"events": [{"kind": "rain"}]}, "events[0].kind", "unknown events[0].kind 'rain'"),
    ],
    ids=str,
)
def test_an_impossible_option_is_refused_by_name(options, field, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        Network5G(**options)
    assert field is None or caught.value.field == field
    assert "\n" not in str(caught.value)


def test_an_unknown_option_names_the_choices():
    with pytest.raises(ConfigurationError, match="colour"):
        load("network5g", colour="red")


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "two"])
def test_a_wrong_number_of_environments_is_refused(count):
    with pytest.raises(InvalidInputError, match="num_envs must be a whole number >= 1"):
        Network5G().vector_env(count)


@pytest.mark.parametrize("threads", [0, -2, 1.5, True])
def test_a_wrong_number_of_threads_is_refused(threads):
    with pytest.raises(ConfigurationError, match="threads must be a whole number >= 1 or None"):
        Network5G().vector_env(16, threads=threads)


def test_seeds_have_to_match_the_environments():
    with pytest.raises(InvalidInputError, match="seed has 1 entries; expected 2"):
        Network5G().vector_env(2, seed=[1])
    with pytest.raises(InvalidInputError, match=">= 0"):
        Network5G().vector_env(2, seed=-4)


@pytest.mark.parametrize(("cells", "sectors", "wraps"), [(1, 1, False), (7, 1, True), (9, 3, False), (21, 3, True)])
def test_any_number_of_cells_and_users(cells, sectors, wraps):
    scenario = Network5G(cells=cells, sectors=sectors)
    assert (scenario.cells, sum(scenario.users)) == (cells, 10 * cells)
    assert scenario.network.layout.wraps == wraps
    assert sum(Network5G(cells=cells, sectors=sectors, users=13).users) == 13


def test_other_users_keep_the_arrivals_per_cell():
    usual, crowded = Network5G(size="medium", hour=12), Network5G(size="medium", hour=12, users=210)
    rates = []
    for scenario in (usual, crowded):
        env = scenario.vector_env(1, threads=1)
        env.reset(seed=1)
        env.step(np.repeat(scenario.baselines["default"].make().action[None], 7, axis=0))
        embb = scenario.users[0]
        rates.append(env.engine.scratch.users["arrival_rate"][0, :embb].sum())
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)


def test_the_carrier_changes_rate_and_noise():
    usual, wide = Network5G(), Network5G(bandwidth_mhz=100.0, modulation="256qam", layers=4)
    c, d = (s.vector_env(1).engine.constants for s in (usual, wide))
    # TS 38.101-1 table 5.3.2-1: 51 and 273 blocks of 360 kHz, less the overhead.
    overhead = reference().radio.overhead
    assert c.usable_mhz_embb == pytest.approx(51 * 0.36 * (1 - overhead))
    assert d.usable_mhz_embb == pytest.approx(273 * 0.36 * (1 - overhead))
    assert 10 * math.log10(c.noise_mw) == pytest.approx(-92.36, abs=0.01)
    assert 10 * math.log10(d.noise_mw / c.noise_mw) == pytest.approx(10 * math.log10(273 / 51))
    # 8 bit x 948/1024 x 4 layers.
    assert wide.vector_env(1).engine.links.efficiency[-1] == pytest.approx(4 * 8 * 948 / 1024, rel=1e-5)
    fast = Network5G(urllc_subcarrier_khz=60).vector_env(1).engine.constants
    assert fast.minislot_s == pytest.approx(c.minislot_s / 2)
    assert fast.slot_s_embb == c.slot_s_embb


def test_beams_raise_the_signal_of_sectors():
    levels = []
    for columns in (1, 8):
        scenario = Network5G(columns=columns)
        env = scenario.vector_env(1, threads=1)
        env.reset(seed=1)
        env.step(np.repeat(scenario.baselines["default"].make().action[None], 3, axis=0))
        levels.append(env.engine.scratch.users["sinr_db"][0].copy())
    assert (levels[1] - levels[0]).mean() > 3.0
    assert (levels[1] - levels[0]).max() <= 10 * math.log10(8) + 0.05


def test_street_canyons_have_low_sites():
    assert Network5G(propagation="umi").network.radio.site_height_m == 10.0
    assert Network5G().network.radio.site_height_m == 25.0


def test_the_options_are_kept_and_make_the_same_scenario_again():
    scenario = Network5G(size="medium", indoor=0.3, columns=1, events=[{"kind": "demand", "factor": 2}])
    again = Network5G(**scenario.options)
    assert again.options == scenario.options
    first, second = (s.vector_env(2).reset(seed=3)[0] for s in (scenario, again))
    np.testing.assert_array_equal(first, second)


def test_what_the_filter_of_handover_amounts_to():
    # L3: (1 - share)^2 = 1 - 1/2 for two 100 ms samples instead of one of 200 ms.
    assert (1 - reference().handover.filter_share) ** 2 == pytest.approx(0.5)
