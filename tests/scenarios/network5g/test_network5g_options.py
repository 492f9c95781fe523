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
        ({"episode_steps": 0}, "episode_steps", "episode_steps must be a whole number from 1 to 1000000000, got 0"),
        ({"episode_steps": 1.5}, "episode_steps", "episode_steps must be a whole number from 1 to 1000000000, got 1.5"),
        (
            {"episode_steps": True},
            "episode_steps",
            "episode_steps must be a whole number from 1 to 1000000000, got True",
        ),
        ({"episode_steps": 10**10}, "episode_steps", "from 1 to 1000000000, got 10000000000"),
        ({"users": -1}, "users", "users must be a whole number from 3 to 1000000, got -1"),
        ({"users": 2}, "users", "users must be a whole number from 3 to 1000000, got 2"),
        ({"users": 10**12}, "users", "users must be a whole number from 3 to 1000000, got 1000000000000"),
        ({"users": 5.0}, "users", "users must be a whole number from 3 to 1000000, got 5.0"),
        ({"hour": 24}, "hour", "hour must be a number in [0, 24), got 24"),
        ({"hour": -1}, "hour", "hour must be a number in [0, 24), got -1"),
        ({"hour": "noon"}, "hour", "hour must be a number in [0, 24), got 'noon'"),
        ({"hour": NAN}, "hour", "hour must be a number in [0, 24), got nan"),
        ({"hour": np.complex128(3)}, "hour", "hour must be a number in [0, 24)"),
        ({"delays": "no"}, "delays", "delays must be True or False, got 'no'"),
        ({"delays": 1}, "delays", "delays must be True or False, got 1"),
        ({"hours_per_s": -0.1}, "hours_per_s", "hours_per_s must be a number in [0, 24], got -0.1"),
        ({"cells": 0}, "cells", "cells must"),
        ({"cells": 1001}, "cells", "cells must"),
        ({"cells": 2.5}, "cells", "cells must"),
        ({"cells": "many"}, "cells", "cells must"),
        ({"cells": True}, "cells", "cells must"),
        ({"cells": 4, "sectors": 3}, "cells", "cells must be a multiple of sectors"),
        ({"cells": 4, "sectors": 2}, "sectors", "unknown sectors 2; allowed: 1, 3"),
        ({"cells": 3, "sectors": True}, "sectors", "unknown sectors True; allowed: 1, 3"),
        ({"cells": 3, "sectors": 3.0}, "sectors", "unknown sectors 3.0; allowed: 1, 3"),
        ({"cells": 3, "sectors": np.array([1, 3])}, "sectors", "unknown sectors array([1, 3]); allowed: 1, 3"),
        ({"sectors": 3}, "sectors", "sectors needs cells"),
        ({"sites": 5}, "sites", "sites must be the path of a CSV file, got 5"),
        ({"sites": b"a.csv"}, "sites", "sites must be the path of a CSV file, got b'a.csv'"),
        ({"sites": "a\0b"}, "sites", "sites must be the path of a CSV file, got 'a\\x00b'"),
        ({"sites": "nowhere.csv", "inter_site_m": 300}, "inter_site_m", "leave inter_site_m out"),
        ({"sites": "nowhere.csv"}, "sites", "nowhere.csv"),
        ({"sites": "nowhere.csv", "cells": 3}, "sites", "leave cells and sectors out"),
        ({"propagation": "rural"}, "propagation", "propagation must be one of ('uma', 'umi'), got 'rural'"),
        ({"indoor": 1.1}, "indoor", "indoor must be a number in [0, 1], got 1.1"),
        ({"inter_site_m": 1}, "inter_site_m", "inter_site_m must be a number in [50, 5000], got 1"),
        ({"carrier_ghz": 300}, "carrier_ghz", "carrier_ghz must be a number in [0.5, 30], got 300"),
        ({"bandwidth_mhz": 21}, "bandwidth_mhz", "bandwidth_mhz"),
        ({"bandwidth_mhz": "wide"}, "bandwidth_mhz", "bandwidth_mhz"),
        ({"bandwidth_mhz": [20]}, "bandwidth_mhz", "bandwidth_mhz must be one of 5, 10, 15,"),
        ({"bandwidth_mhz": True}, "bandwidth_mhz", "bandwidth_mhz must be one of 5, 10, 15,"),
        ({"subcarrier_khz": 31}, "subcarrier_khz", "must be one of (15, 30, 60) with a bandwidth of 20 MHz, got 31"),
        ({"subcarrier_khz": 120}, "subcarrier_khz", "must be one of (15, 30, 60) with a bandwidth of 20 MHz, got 120"),
        ({"subcarrier_khz": [15]}, "subcarrier_khz", "with a bandwidth of 20 MHz, got [15]"),
        ({"bandwidth_mhz": 100.0, "subcarrier_khz": 15}, "subcarrier_khz", "must be one of (30, 60) with a bandwidth"),
        ({"urllc_subcarrier_khz": [15]}, "urllc_subcarrier_khz", "must be one of (15, 30, 60)"),
        ({"bandwidth_mhz": 5, "urllc_subcarrier_khz": 60}, "urllc_subcarrier_khz", "must be one of (15, 30) with"),
        ({"urllc_subcarrier_khz": 45}, "urllc_subcarrier_khz", "urllc_subcarrier_khz must be one of (15, 30, 60)"),
        ({"urllc_subcarrier_khz": 0}, "urllc_subcarrier_khz", "urllc_subcarrier_khz must be one of (15, 30, 60)"),
        ({"modulation": "qpsk"}, "modulation", "modulation must be one of ('64qam', '256qam'), got 'qpsk'"),
        ({"layers": 5}, "layers", "layers must be one of (1, 2, 3, 4), got 5"),
        ({"layers": True}, "layers", "layers must be one of (1, 2, 3, 4), got True"),
        ({"layers": 2.0}, "layers", "layers must be one of (1, 2, 3, 4), got 2.0"),
        ({"layers": [2]}, "layers", "layers must be one of (1, 2, 3, 4), got [2]"),
        ({"columns": 2.0}, "columns", "columns must be one of (1, 2, 4, 8), got 2.0"),
        ({"columns": 3}, "columns", "columns must be one of (1, 2, 4, 8), got 3"),
        ({"size": "medium", "columns": 4}, "columns", "unknown columns 4; allowed for medium: 1"),
        ({"mobility": "trace"}, "traces", "needs traces"),
        ({"mobility": "trace", "traces": "nowhere.csv"}, "traces", "traces: no file 'nowhere.csv'"),
        (
            {"mobility": "trace", "traces": 5},
            "traces",
            "traces must be a file or a list of positions [n, 2] in m, got 5",
        ),
        ({"mobility": "trace", "traces": {"a": 1}}, "traces", "got {'a': 1}"),
        ({"mobility": "trace", "traces": [[["a", "b"], ["c", "d"]]]}, "traces[0]", "not an array of numbers"),
        ({"mobility": "trace", "traces": [[[0, 0], [1]]]}, "traces[0]", "traces[0] is not an array of numbers"),
        ({"mobility": "trace", "traces": [None]}, "traces[0]", "not an array of numbers but of object"),
        ({"mobility": "trace", "traces": np.zeros((5, 2))}, "traces[0]", "got shape (2,)"),
        ({"mobility": "trace", "traces": [[[0, 0], [0, NAN]]]}, "traces[0]", "got y = nan in row 1"),
        (
            {"mobility": "trace", "traces": [[[0, 0], [1, 1]], [[0, 0], [-2e6, 1]]]},
            "traces[1]",
            "got x = -2e+06 in row 1",
        ),
        ({"traces": [np.zeros((5, 2))]}, "traces", "traces need mobility 'trace', got mobility 'waypoint'"),
        ({"power_model": "lamp"}, "power_model", "unknown power_model 'lamp'; allowed: earth_macro"),
        ({"power_model": ["earth_macro"]}, "power_model", "power_model has 1 entries; expected one or 3"),
        ({"power_model": 5}, "power_model", "the name of a power model or a list of one per cell, got 5"),
        ({"power_model": [["earth_macro"]] * 3}, "power_model", "unknown power_model"),
        ({"events": 5}, "events", "events must be a list of mappings, got 5"),
        ({"events": None}, "events", "events must be a list of mappings, got None"),
        ({"events": {"kind": "demand"}}, "events", "events must be a list of mappings"),
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


CHOICES = (
    "size",
    "load",
    "control",
    "mobility",
    "embb_traffic",
    "mmtc_traffic",
    "fidelity",
    "propagation",
    "modulation",
)


@pytest.mark.parametrize("option", CHOICES)
@pytest.mark.parametrize("value", [np.array(["small", "mid"]), ["small"], {"small"}, 3, True, b"small"], ids=repr)
def test_a_choice_that_is_no_text_is_refused_by_name(option, value):
    with pytest.raises(ConfigurationError, match=f"{option}.*(allowed|must be one of)") as caught:
        Network5G(**{option: value})
    assert caught.value.field == option
    assert "\n" not in str(caught.value)


def test_a_number_too_long_to_write_is_refused():
    with pytest.raises(ConfigurationError, match=r"episode_steps must be .* got <int>"):
        Network5G(episode_steps=10**5000)


def test_an_unknown_option_names_the_choices():
    with pytest.raises(ConfigurationError, match="colour"):
        load("network5g", colour="red")


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "two"])
def test_a_wrong_number_of_environments_is_refused(count):
    with pytest.raises(InvalidInputError, match="num_envs must be a whole number >= 1"):
        Network5G().vector_env(count)


def test_more_environments_than_there_is_memory_for_are_refused(monkeypatch):
    with pytest.raises(InvalidInputError, match="num_envs must be at most 10000000") as caught:
        Network5G().vector_env(10**30)
    assert caught.value.field == "num_envs"
    monkeypatch.setattr("rlaas.scenarios.network5g.scenario.available_bytes", lambda: 10**6)
    with pytest.raises(InvalidInputError, match="num_envs = 1000000 needs more memory than there is") as caught:
        Network5G().vector_env(1_000_000)
    assert caught.value.field == "num_envs"


@pytest.mark.parametrize("threads", [0, -2, 1.5, True])
def test_a_wrong_number_of_threads_is_refused(threads):
    with pytest.raises(ConfigurationError, match="threads must be a whole number >= 1 or None"):
        Network5G().vector_env(16, threads=threads)


def test_seeds_have_to_match_the_environments():
    with pytest.raises(InvalidInputError, match="seed has 1 entries; expected 2"):
        Network5G().vector_env(2, seed=[1])
    with pytest.raises(InvalidInputError, match=">= 0"):
        Network5G().vector_env(2, seed=-4)


WRONG_SEEDS = [-1, 1.5, True, "12", b"ab", NAN, {}, {1, 2}, object(), [1, -2], [1.5, 2.5], [True, "3"], "ab", [1, 2, 3]]
WRONG_SEEDS += [np.array([1.0, 2.0]), np.array([[1, 2]]), np.array([True, False]), np.float64(3), np.array(2.0)]


@pytest.mark.parametrize("seed", WRONG_SEEDS, ids=[f"{i}-{type(s).__name__}" for i, s in enumerate(WRONG_SEEDS)])
def test_a_seed_that_is_none_is_refused(seed):
    scenario = Network5G()
    env = scenario.vector_env(2)
    for start in (lambda: scenario.vector_env(2, seed=seed), lambda: env.reset(seed=seed)):
        with pytest.raises(InvalidInputError) as caught:
            start()
        assert caught.value.field == "seed"
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "seed", [0, 2**100, np.int64(5), np.array(3), [1, 2], (1, 2), range(2), np.array([1, 2]), None]
)
def test_whole_numbers_are_seeds(seed):
    assert np.isfinite(Network5G().vector_env(2, seed=seed).reset(seed=seed)[0]).all()


def test_every_slice_has_a_user():
    assert Network5G(users=3).users == (1, 1, 1)
    assert sum(Network5G(users=1_000_000).users) == 1_000_000


def test_traces_of_a_file_are_walked(tmp_path):
    path = tmp_path / "tr.csv"
    rows = [f"walk,{second},{10 * second},{-second}" for second in range(5)] + ["point,0,1,1"]
    path.write_text("trace,time_s,x_m,y_m\n" + "\n".join(rows) + "\n")
    for given in (path, str(path)):
        scenario = Network5G(mobility="trace", traces=given)
        (walk,) = scenario.network.traces
        assert walk.shape == (41, 2)
        np.testing.assert_allclose(walk, np.stack([np.arange(41), -np.arange(41) / 10], axis=1), atol=1e-5)
        assert np.isfinite(scenario.vector_env(2).reset(seed=1)[0]).all()


def test_a_file_without_traces_is_refused(tmp_path):
    path = tmp_path / "tr.csv"
    for text, message in (
        ("trace,time_s,x_m,y_m\na,0,1,1\n", "traces: no trace of at least 0.1 s"),
        ("trace,time_s,x_m\na,0,1\n", "misses column"),
        ("trace,time_s,x_m,y_m\na,0,1,one\n", "holds text"),
        ("trace,time_s,x_m,y_m\na,0,1,0\na,1,1e9,0\n", "within 1e+06 m of the origin"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
            Network5G(mobility="trace", traces=path)
        assert caught.value.field.startswith("traces")


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
    # TS 38.101-1 table 5.3.2-1: 51 and 273 blocks of 360 kHz, 14 symbols in the time of 15, less the overhead.
    overhead = reference().radio.overhead
    assert c.usable_mhz_embb == pytest.approx(51 * 0.36 * 14 / 15 * (1 - overhead))
    assert d.usable_mhz_embb == pytest.approx(273 * 0.36 * 14 / 15 * (1 - overhead))
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
