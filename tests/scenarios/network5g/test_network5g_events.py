"""Scheduled changes: when they are on, whom they touch, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g import ACTION_NAMES, Network5G
from rlaas.scenarios.network5g.engine.arrays import POWER
from rlaas.scenarios.network5g.power import POWER_MODELS


class Show:
    """One network under a schedule, at the default's settings, with a view into its kernel."""

    def __init__(self, *events, seed=1, **options):
        self.scenario = Network5G(**{"hour": 12, "episode_steps": 10_000, "events": events, **options})
        self.env = self.scenario.vector_env(1, threads=1)
        self.env.reset(seed=seed)
        self.cells, self.users = self.env.engine.scratch.cells[0], self.env.engine.scratch.users[0]
        self.state = self.env.engine.state
        self.action = np.repeat(self.scenario.baselines["default"].make().action[None], self.scenario.cells, axis=0)

    def step(self):
        return self.env.step(self.action)


def on_when(show, steps, is_on):
    """Steps (counted from 1, the first after the reset) in which something was the case."""
    found = []
    for step in range(1, steps + 1):
        show.step()
        if is_on():
            found.append(step)
    return found


def test_an_outage_takes_a_cell_away_and_gives_it_back():
    show = Show({"kind": "outage", "cell": 1, "at_s": 1.0, "for_s": 0.5})
    served, energy = (show.scenario.part_names.index(name) for name in ("served", "energy"))
    off = show.scenario.observation_names.index("own_off")
    seen = []
    for step in range(1, 31):
        observation, _, _, _, infos = show.step()
        if show.cells["failed"][1]:
            seen.append(step)
            assert infos["numerators"][1, energy] == 0.0
            assert infos["numerators"][1, served] == 0.0
            assert observation[1, off] == 1.0
            assert not (show.state.users["serving"] == 1).any()
        assert not show.cells["failed"][[0, 2]].any()
    assert seen == [11, 12, 13, 14, 15]
    assert infos["numerators"][1, energy] > 20.0


def test_an_outage_overrules_the_settings_and_spares_the_neighbours():
    show = Show({"kind": "outage", "cell": 0}, size="medium")
    show.action[:, ACTION_NAMES.index("sleep")] = 0.0
    show.step()
    assert show.cells["power_w"][0] == 0.0
    assert (show.cells["power_w"][1:] >= POWER_MODELS["earth_macro"].idle_w - 1e-9).all()


def test_a_repeating_event_comes_back():
    show = Show({"kind": "outage", "cell": 2, "at_s": 0.3, "for_s": 0.2, "every_s": 1.0})
    assert on_when(show, 30, lambda: show.cells["failed"][2]) == [4, 5, 14, 15, 24, 25]


def test_an_event_goes_on_for_ever_and_across_resets():
    show = Show({"kind": "outage", "cell": 0, "at_s": 0.5}, episode_steps=10)
    # The step after ten is the reset; the clock of the stream runs on.
    assert on_when(show, 30, lambda: show.cells["failed"][0]) == list(range(6, 31))


def test_new_hardware_changes_power_and_model():
    show = Show({"kind": "hardware", "cell": 1, "at_s": 0.5, "power_db": -3.0, "unit": "earth_micro"})
    usual = float(show.env.engine.world.power_dbm[1])
    power = show.env.engine.scratch.pads[0, POWER]
    for step in range(1, 20):
        show.step()
        new = step >= 6
        assert power[1] == pytest.approx(usual - 3.0 * new)
        assert power[0] == pytest.approx(usual)
        assert show.cells["power_w"][1] <= POWER_MODELS["earth_micro" if new else "earth_macro"].full_w
        assert (show.cells["power_w"][1] < POWER_MODELS["earth_macro"].idle_w) == new
    only_power = Show({"kind": "hardware", "cell": 0, "power_db": 2.0})
    only_power.step()
    assert only_power.env.engine.scratch.pads[0, POWER, 0] == pytest.approx(usual + 2.0)
    assert only_power.cells["model"][0] == only_power.env.engine.world.power_model[0]


def test_demand_multiplies_every_slice():
    plain, doubled = Show(), Show({"kind": "demand", "factor": 2.0, "at_s": 0.5})
    packets = [0.0, 0.0]
    for step in range(1, 200):
        plain.step()
        doubled.step()
        factor = 2.0 if step >= 6 else 1.0
        assert doubled.users["arrival_rate"] == pytest.approx(factor * plain.users["arrival_rate"])
        if step >= 6:
            packets = [packets[0] + plain.users["demand"].sum(), packets[1] + doubled.users["demand"].sum()]
    assert packets[1] == pytest.approx(2 * packets[0], rel=0.05)


def test_two_events_at_once_multiply():
    plain, both = Show(), Show({"kind": "demand", "factor": 2.0}, {"kind": "demand", "factor": 1.5})
    plain.step()
    both.step()
    assert both.users["arrival_rate"] == pytest.approx(3.0 * plain.users["arrival_rate"])


def test_events_multiply_up_to_the_largest_factor():
    plain, crowded = Show(), Show(*({"kind": "demand", "factor": 20.0} for _ in range(300)))
    plain.step()
    observation = crowded.step()[0]
    assert crowded.users["arrival_rate"] == pytest.approx(20.0 * plain.users["arrival_rate"])
    assert np.isfinite(observation).all()


def test_an_event_at_the_start_is_seen_by_the_first_step():
    show = Show({"kind": "outage", "cell": 1, "at_s": 0.0, "for_s": 0.1})
    assert on_when(show, 10, lambda: show.cells["failed"][1]) == [1]


@pytest.mark.parametrize("size", ["small", "medium", "large"])
@pytest.mark.parametrize("cell", [0, 1, 2])
def test_a_stadium_draws_those_around_it_on_the_wrapped_plane_too(size, cell):
    radius = 220.0
    plain = Show(size=size, seed=4)
    event = {"kind": "stadium", "cell": cell, "radius_m": radius, "factor": 5.0}
    show = Show(event, size=size, seed=4)
    layout = show.scenario.network.layout
    near = 0
    for _ in range(20):
        plain.step()
        show.step()
        place = np.stack([show.state.users["x"][0], show.state.users["y"][0]], axis=1).astype(float)
        shift = place - layout.centres[cell]
        images = (
            [np.zeros(2)]
            if layout.periods is None
            else [a * layout.periods[0] + b * layout.periods[1] for a, b in itertools.product(range(-3, 4), repeat=2)]
        )
        distance = np.min([np.linalg.norm(shift + image, axis=1) for image in images], axis=0)
        clear = np.abs(distance - radius) > 0.01
        factor = np.where(distance <= radius, 5.0, 1.0)
        ratio = show.users["arrival_rate"] / plain.users["arrival_rate"]
        assert ratio[clear] == pytest.approx(factor[clear])
        near += int((distance <= radius).sum())
    assert near > 0


def test_a_stadium_stands_anywhere():
    show, plain = Show({"kind": "stadium", "x_m": 1e4, "y_m": 0.0, "radius_m": 50.0, "factor": 9.0}), Show()
    show.step()
    plain.step()
    assert show.users["arrival_rate"] == pytest.approx(plain.users["arrival_rate"])


GOOD = {"kind": "outage", "cell": 0}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("outage", r"events\[0\] must be a mapping with the key kind"),
        ({"cell": 0}, r"events\[0\] must be a mapping with the key kind"),
        ({"kind": "flood"}, r"unknown events\[0\].kind 'flood'; allowed: demand, hardware, outage, stadium"),
        ({**GOOD, "factor": 2}, r"unknown events\[0\].factor"),
        ({"kind": "outage"}, r"events\[0\].cell must be a whole number from 0 to 2, got None"),
        ({"kind": "outage", "cell": 3}, r"events\[0\].cell must be a whole number from 0 to 2, got 3"),
        ({"kind": "outage", "cell": True}, r"events\[0\].cell must be a whole number"),
        ({**GOOD, "at_s": -1}, r"events\[0\].at_s must be a number in \[0, 1e\+09\], got -1"),
        ({**GOOD, "at_s": float("nan")}, r"events\[0\].at_s must be a number in \[0, 1e\+09\], got nan"),
        ({**GOOD, "at_s": float("inf")}, r"events\[0\].at_s must be a number in \[0, 1e\+09\], got inf"),
        ({**GOOD, "at_s": 1e308}, r"events\[0\].at_s must be a number in \[0, 1e\+09\], got 1e\+308"),
        ({**GOOD, "at_s": 2 + 3j}, r"events\[0\].at_s must be a number"),
        ({**GOOD, "at_s": np.complex128(1)}, r"events\[0\].at_s must be a number"),
        ({**GOOD, "for_s": 10**400}, r"events\[0\].for_s must be a number in \[0.1, 1e\+09\]"),
        ({**GOOD, "every_s": 1e300}, r"events\[0\].every_s must be a number in \[0, 1e\+09\]"),
        ({**GOOD, "cell": np.array([0])}, r"events\[0\].cell must be a whole number"),
        ({"kind": ["outage"]}, r"unknown events\[0\].kind"),
        ({"kind": np.array(["outage", "demand"])}, r"unknown events\[0\].kind"),
        ({**GOOD, 1: 2}, r"unknown events\[0\].1 '1'"),
        ({"kind": "hardware", "cell": 0, "power_db": 21}, r"power_db must be a number in \[-20, 20\], got 21"),
        ({"kind": "hardware", "cell": 0, "power_db": -21}, r"power_db must be a number in \[-20, 20\], got -21"),
        ({"kind": "hardware", "cell": 0, "unit": ["earth_macro"]}, r"unknown events\[0\].unit"),
        ({"kind": "stadium", "factor": 2, "radius_m": 1e300, "x_m": 0, "y_m": 0}, r"radius_m must be a number in"),
        ({"kind": "stadium", "factor": 2, "radius_m": 9, "x_m": 1e300, "y_m": 0}, r"x_m must be a number in"),
        ({**GOOD, "for_s": 0}, r"events\[0\].for_s must be a number in \[0.1, 1e\+09\], got 0"),
        ({**GOOD, "every_s": 5}, r"events\[0\]: at_s \+ for_s must not exceed every_s \(5\)"),
        ({**GOOD, "for_s": 3, "at_s": 3, "every_s": 5}, r"must not exceed every_s"),
        ({"kind": "demand"}, r"events\[0\].factor is missing: a number is needed"),
        ({"kind": "demand", "factor": -1}, r"events\[0\].factor must be a number in \[0, 20\], got -1"),
        ({"kind": "demand", "factor": "many"}, r"events\[0\].factor must be a number in \[0, 20\], got 'many'"),
        ({"kind": "hardware", "cell": 0, "unit": "tube"}, r"unknown events\[0\].unit 'tube'; allowed: .*earth_macro"),
        (
            {"kind": "hardware", "cell": 0, "power_db": "x"},
            r"events\[0\].power_db must be a number in \[-20, 20\], got 'x'",
        ),
        ({"kind": "stadium", "factor": 2, "radius_m": 10}, r"events\[0\].x_m is missing"),
        ({"kind": "stadium", "factor": 2, "cell": 0}, r"events\[0\].radius_m is missing"),
        ({"kind": "stadium", "factor": 2, "cell": 9, "radius_m": 10}, r"events\[0\].cell must be a whole number"),
    ],
)
def test_an_impossible_event_is_refused_by_name(event, message):
    with pytest.raises(ConfigurationError, match=message):
        Network5G(events=[event])
