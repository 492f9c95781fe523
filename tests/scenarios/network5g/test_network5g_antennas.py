"""Element pattern, tilted column and horizontal beams against the sums they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.propagation import antennas


def test_element_pattern():
    # TR 38.901 table 7.3-1: 8 dBi, half power at 65/2 degrees, never more than 30 dB down.
    cut = antennas.azimuth_attenuation_db(np.array([0.0, 32.5, 180.0, -180.0]))
    assert antennas.element_gain_db(cut) == pytest.approx([8.0, 5.0, -22.0, -22.0])
    assert antennas.elevation_attenuation_db(np.array([65.0])) == pytest.approx([12.0])
    both = antennas.azimuth_attenuation_db(np.array([100.0])) + antennas.elevation_attenuation_db(np.array([40.0]))
    assert antennas.element_gain_db(both)[0] == pytest.approx(8.0 - 30.0)


def direct_gain(sine, steered, count):
    """|a^H w|^2 with the vectors written out."""
    a = np.exp(1j * np.pi * np.arange(count) * sine)
    w = np.exp(1j * np.pi * np.arange(count) * steered) / math.sqrt(count)
    return abs(np.vdot(a, w)) ** 2


@pytest.mark.parametrize("elements", antennas.ELEMENTS)
@given(angle=st.floats(-90, 90), tilt=st.floats(-20, 20))
def test_tilted_column_is_the_steered_sum(elements, angle, tilt):
    sine, steered = math.sin(math.radians(angle)), math.sin(math.radians(tilt))
    wanted = max(direct_gain(sine, steered, elements), 10**-1.1)
    ours = antennas.tilt_gain_db(np.array([sine - steered]), elements=elements, floor_db=-11.0)
    assert ours[0] == pytest.approx(10 * math.log10(wanted), abs=1e-6)


@pytest.mark.parametrize("elements", antennas.ELEMENTS)
def test_column_of_unit_norm_makes_no_power(elements):
    # Over one period of the sine the mean of |a^H w|^2 is |w|^2 = 1.
    offset = (np.arange(4096) + 0.5) / 2048 - 1
    power = 10 ** (antennas.tilt_gain_db(offset, elements=elements, floor_db=-300.0) / 10)
    assert power.mean() == pytest.approx(1.0, abs=1e-9)
    assert antennas.tilt_gain_db(np.zeros(1), elements=elements)[0] == pytest.approx(10 * math.log10(elements))


@pytest.mark.parametrize("elements", [1, 2, 4, 8])
def test_tilt_table_stays_near_the_formula(elements):
    table = antennas.tilt_table(elements=elements, floor_db=-11.0)
    offset = np.random.default_rng(1).uniform(-2, 2, 100_000)
    exact = antennas.tilt_gain_db(offset, elements=elements, floor_db=-11.0)
    assert np.abs(table(offset) - exact).max() < 0.1
    assert table.gain_db.dtype == np.float32
    assert table(np.array([-2.0, 0.0, 2.0])) == pytest.approx([10 * math.log10(elements)] * 3, abs=1e-5)


@pytest.mark.parametrize("columns", antennas.COLUMNS)
def test_codebook_spreads_its_power_evenly(columns):
    book = antennas.codebook(columns)
    assert np.linalg.norm(book, axis=1) == pytest.approx(np.ones(len(book)))
    # As interference the beams average to 0 dB in every direction.
    towards = np.linspace(-1, 1, 501)
    assert antennas.beam_gains(towards, columns).mean(axis=-1) == pytest.approx(np.ones(501))


@pytest.mark.parametrize("columns", antennas.COLUMNS)
@given(azimuth=st.floats(-180, 180), elevation=st.floats(0, 89))
def test_best_beam_is_the_best_direct_sum(columns, azimuth, elevation):
    cosine = math.sin(math.radians(azimuth)) * math.cos(math.radians(elevation))
    beams = len(antennas.codebook(columns))
    wanted = 10 * math.log10(max(direct_gain(cosine, 2 * k / beams, columns) for k in range(beams)))
    ours = antennas.best_beam_db(np.array([cosine]), columns)[0]
    assert ours == pytest.approx(wanted, abs=1e-9)
    assert ours == pytest.approx(10 * math.log10(antennas.beam_gains(np.array(cosine), columns).max()), abs=1e-9)
    assert 10 * math.log10(columns) - 0.3 < ours <= 10 * math.log10(columns) + 1e-9


def test_what_is_not_offered_is_refused():
    with pytest.raises(ConfigurationError, match="elements"):
        antennas.tilt_gain_db(np.zeros(1), elements=6)
    for function in (antennas.codebook, lambda columns: antennas.best_beam_db(np.zeros(1), columns)):
        with pytest.raises(ConfigurationError, match="1, 2, 4, 8"):
            function(3)
    with pytest.raises(ConfigurationError, match="entries"):
        antennas.tilt_table(entries=1)
