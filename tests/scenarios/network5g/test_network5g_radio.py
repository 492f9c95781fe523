"""Formulas against values worked out from the standards' own tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.scenarios.network5g import radio
from rlaas.scenarios.network5g.energy import cell_energy_j
from rlaas.scenarios.network5g.reference import STEP_S, reference

# 3GPP TR 38.901 table 7.4.1-1, UMa at 3.5 GHz, 25 m and 1.5 m, worked by hand: d2D, line of sight, without it.
# The breakpoint is 4 * 24 * 0.5 * 3.5e9 / 3e8 = 560 m.
PATH_LOSS = [(100.0, 83.138, 103.037), (300.0, 93.407, 121.279), (1000.0, 109.412, 141.666)]


@pytest.mark.parametrize(("distance", "with_sight", "without"), PATH_LOSS)
def test_uma_path_loss_matches_the_standard(distance, with_sight, without):
    los, nlos = radio.uma_path_loss_db(np.array([distance]), carrier_ghz=3.5)
    assert los[0] == pytest.approx(with_sight, abs=2e-3)
    assert nlos[0] == pytest.approx(without, abs=2e-3)


def test_path_loss_is_continuous_at_the_breakpoint():
    los, _ = radio.uma_path_loss_db(np.array([559.99, 560.01]), carrier_ghz=3.5)
    assert abs(los[1] - los[0]) < 0.01


def test_los_probability_matches_the_standard():
    # TR 38.901 table 7.4.2-1: 18/100 + exp(-100/63) * (1 - 18/100)
    assert radio.los_probability(np.array([10.0, 18.0, 100.0])) == pytest.approx([1.0, 1.0, 0.34767], abs=1e-5)


# Modulation order and code rate * 1024 of TS 38.214 tables 5.2.2.1-2 and 5.2.2.1-4; efficiency is their product.
TABLE_2 = [(2, r) for r in (78, 120, 193, 308, 449, 602)] + [(4, r) for r in (378, 490, 616)]
TABLE_2 += [(6, r) for r in (466, 567, 666, 772, 873, 948)]
TABLE_4 = [(2, r) for r in (30, 50, 78, 120, 193, 308, 449, 602)] + [(4, r) for r in (378, 490, 616)]
TABLE_4 += [(6, r) for r in (466, 567, 666, 772)]


@pytest.mark.parametrize(("ours", "table"), [(radio.CQI_64QAM, TABLE_2), (radio.CQI_LOW_RATE, TABLE_4)])
def test_cqi_efficiencies_are_modulation_times_code_rate(ours, table):
    assert ours[0] == 0
    assert ours[1:] == pytest.approx([bits * rate / 1024 for bits, rate in table], abs=6e-5)


def test_cqi_thresholds_and_steps():
    thresholds = radio.cqi_thresholds_db(radio.CQI_64QAM)
    # 10 log10(2^(0.1523 / 0.75) - 1) and 10 log10(2^(5.5547 / 0.75) - 1)
    assert thresholds[[0, -1]] == pytest.approx([-8.20, 22.27], abs=0.02)
    assert radio.cqi(np.array([-30.0, thresholds[0], thresholds[4] - 1e-6, 60.0]), thresholds).tolist() == [0, 1, 4, 15]


def test_element_pattern():
    # TR 38.901 table 7.3-1: 8 dBi, half power at 65/2 degrees, never more than 30 dB down.
    half = radio.azimuth_attenuation_db(np.array([0.0, 32.5, 180.0]))
    assert radio.element_gain_db(half) == pytest.approx([8.0, 5.0, -22.0])
    both = radio.azimuth_attenuation_db(np.array([100.0])) + radio.elevation_attenuation_db(np.array([40.0]))
    assert radio.element_gain_db(both)[0] == pytest.approx(8.0 - 30.0)


@given(angle=st.floats(-89, 89), tilt=st.floats(0, 16))
def test_array_gain_is_the_steered_sum_of_elements(angle, tilt):
    sine = math.sin(math.radians(angle))
    steering = np.exp(1j * np.pi * np.arange(8) * math.sin(math.radians(tilt))) / math.sqrt(8)
    arriving = np.exp(1j * np.pi * np.arange(8) * sine)
    wanted = max(abs(np.vdot(arriving, steering)) ** 2, 10 ** (-1.1))
    ours = radio.array_gain_db(np.array([sine]), np.array([tilt]), elements=8, floor_db=-11.0)
    assert ours[0] == pytest.approx(10 * math.log10(wanted), abs=1e-4)


def test_earth_power_of_a_macro_site():
    # EARTH (Auer et al. 2011, table 2): a macro with six transceivers draws 1,344 W at full load, 450 W asleep.
    model = reference().energy
    values = cell_energy_j(
        use=np.array([1.0, 0.0, 0.0]),
        idle=np.array([0.0, 1.0, 1.0]),
        power_share=np.ones(3),
        sleep=np.zeros(3),
        off=np.array([False, False, True]),
        switched=np.zeros(3, dtype=bool),
        model=model,
    )
    assert 3 * values / STEP_S == pytest.approx([1344.0, 780.0, 450.0])


@given(
    use=st.floats(0, 1), power_db=st.floats(-10, 0), sleep=st.floats(0, 0.89), off=st.booleans(), switched=st.booleans()
)
def test_energy_lies_between_sleep_and_full_power(use, power_db, sleep, off, switched):
    model = reference().energy
    used = 0.0 if off else use
    arrays = [np.array([v]) for v in (used, 1.0 - used, 10 ** (power_db / 10), 0.0 if off else sleep)]
    energy = cell_energy_j(*arrays, np.array([off]), np.array([switched]), model)[0]
    transition = model.transceivers * model.idle_w * model.switch_ms / 1e3 * switched
    full = model.transceivers * (model.idle_w + model.slope * model.maximum_w) * STEP_S
    assert model.transceivers * model.sleep_w * STEP_S - 1e-9 <= energy - transition <= full + 1e-9
    awake = model.transceivers * model.idle_w * STEP_S
    assert off or sleep > 0 or energy - transition >= awake - 1e-9


def test_reference_numbers_that_follow_from_the_standards():
    ref = reference()
    # -174 + 10 log10(18.36e6) + 9 = -92.36 dBm; L3: (1 - share)^2 = 1 - 1/2 for two 100 ms samples instead of one.
    assert 10 * math.log10(ref.radio.noise_mw) == pytest.approx(-92.36, abs=0.01)
    assert (1 - ref.handover.filter_share) ** 2 == pytest.approx(0.5)
