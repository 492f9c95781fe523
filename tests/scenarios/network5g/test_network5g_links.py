"""Rate tables, block errors and carriers against the standards' figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.propagation import links

# Efficiencies as printed in TS 38.214 tables 5.2.2.1-2, 5.2.2.1-3 and 5.2.2.1-4 (the code multiplies order and rate).
PRINTED = {
    "64qam": ".1523 .2344 .3770 .6016 .8770 1.1758 1.4766 1.9141 2.4063 2.7305 3.3223 3.9023 4.5234 5.1152 5.5547",
    "256qam": ".1523 .3770 .8770 1.4766 1.9141 2.4063 2.7305 3.3223 3.9023 4.5234 5.1152 5.5547 6.2266 6.9141 7.4063",
    "low_rate": ".0586 .0977 .1523 .2344 .3770 .6016 .8770 1.1758 1.4766 1.9141 2.4063 2.7305 3.3223 3.9023 4.5234",
}


@pytest.mark.parametrize("name", PRINTED)
def test_cqi_efficiencies_as_printed(name):
    table = links.CQI_TABLES[name]
    assert table[0] == 0
    assert table[1:] == pytest.approx([float(value) for value in PRINTED[name].split()], abs=6e-5)


def test_thresholds_by_hand():
    # 10 log10(2^(0.1523 / 0.75) - 1), 10 log10(2^(5.5547 / 0.75) - 1), 10 log10(2^(7.4063 / 0.75) - 1)
    low, high = links.thresholds_db(links.CQI_64QAM)[[0, -1]]
    assert (low, high) == pytest.approx((-8.20, 22.27), abs=0.01)
    assert links.thresholds_db(links.CQI_256QAM)[-1] == pytest.approx(29.72, abs=0.01)


def test_block_error_passes_one_in_ten_and_falls_by_ten_in_a_decibel():
    assert links.block_error(np.array([0.0, 1.0, 300.0, -300.0])) == pytest.approx([0.1, 0.01, 0, 1], abs=2e-4)
    curve = links.block_error(np.linspace(-10, 10, 201))
    assert (np.diff(curve) < 0).all()
    lost = links.block_error(np.linspace(-4, 4, 9))
    assert np.log(1 / lost - 1) == pytest.approx(math.log(9) + links.BLOCK_ERROR_SLOPE * np.linspace(-4, 4, 9))


def brute_force(sinr, table, layers, share=0.75):
    best = (0.0, 0, 0)
    for rank in range(1, layers + 1):
        for cqi, efficiency in enumerate(table):
            needed = 10 * math.log10(2 ** (efficiency / share) - 1) if cqi else math.inf
            if sinr - 10 * math.log10(rank) >= needed and rank * efficiency > best[0]:
                best = (rank * efficiency, rank, cqi)
    return best


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("layers", [1, 2, 4, 8])
def test_every_bin_holds_the_best_entry_of_its_lower_edge(name, layers):
    table = links.CQI_TABLES[name]
    rates = links.rate_table(table, layers=layers)
    assert len(rates.index) == 260
    assert len(rates.efficiency) == len(rates.threshold_db) == 1 + 15 * layers
    for position, entry in enumerate(rates.index.tolist()):
        efficiency, rank, cqi = brute_force(-20 + position / 4, table, layers)
        assert rates.efficiency[entry] == pytest.approx(efficiency)
        assert (rates.layers[entry], rates.cqi[entry]) == (rank, cqi)
    assert rates.index[0] == 0
    assert rates.efficiency[rates.index[-1]] == pytest.approx(layers * table[-1])


@given(sinr=st.floats(-60, 60), layers=st.integers(1, 4))
def test_a_choice_is_never_optimistic_and_never_far_off(sinr, layers):
    rates = links.rate_table(links.CQI_256QAM, layers=layers)
    entry = int(rates.lookup(np.array([sinr]))[0])
    assert entry == rates.index[min(max(int((sinr + 20) * 4), 0), 259)]
    assert entry == 0 or rates.threshold_db[entry] <= sinr + 1e-4
    assert rates.efficiency[entry] >= brute_force(sinr - 0.25, links.CQI_256QAM, layers)[0] - 1e-5


# Published figures of TS 38.101-1 table 5.3.2-1 at the corners, and the guard bands that must remain.
@pytest.mark.parametrize(
    ("bandwidth", "spacing", "blocks"),
    [(5, 15, 25), (50, 15, 270), (20, 30, 51), (40, 30, 106), (100, 30, 273), (10, 60, 11), (100, 60, 135)],
)
def test_resource_blocks_as_published(bandwidth, spacing, blocks):
    assert links.resource_blocks(bandwidth, spacing) == blocks
    assert links.resource_blocks(float(bandwidth), spacing) == blocks


def test_every_carrier_leaves_guard_bands():
    for spacing, row in links.RESOURCE_BLOCKS.items():
        used = [12 * spacing * blocks / (1e3 * bandwidth) for bandwidth, blocks in row.items()]
        assert max(used) < 0.985
        assert min(used) > 0.78
        assert list(row.values()) == sorted(row.values())


def test_slots():
    assert [links.slot_ms(spacing) for spacing in (15, 30, 60, 120)] == [1.0, 0.5, 0.25, 0.125]


def test_peak_rate_of_a_full_carrier():
    # TS 38.306 section 4.1.2 for 100 MHz, 30 kHz, 4 layers, 256QAM: the 2.34 Gbit/s quoted for devices of that class.
    rate = links.peak_rate_mbit_s(bandwidth_mhz=100, subcarrier_khz=30, layers=4)
    assert rate == pytest.approx(4 * 8 * (948 / 1024) * 273 * 12 * 14 * 2000 * 0.86 / 1e6, rel=1e-12)
    assert rate == pytest.approx(2337, abs=1)
    assert rate > 1000


@pytest.mark.parametrize(
    ("call", "field", "shown"),
    [
        (lambda: links.resource_blocks(60, 15), "bandwidth_mhz", "45, 50"),
        (lambda: links.resource_blocks(5, 60), "bandwidth_mhz", "10, 15"),
        (lambda: links.resource_blocks(12.5, 30), "bandwidth_mhz", "5, 10"),
        (lambda: links.resource_blocks(100, 120), "subcarrier_khz", "15, 30, 60"),
        (lambda: links.slot_ms(45), "subcarrier_khz", "15, 30, 60, 120"),
        (lambda: links.rate_table(links.CQI_64QAM, layers=0), "layers", "1..8"),
        (lambda: links.rate_table(links.CQI_64QAM, shannon_share=0.0), "shannon_share", "(0, 1]"),
        (
            lambda: links.peak_rate_mbit_s(bandwidth_mhz=100, subcarrier_khz=30, table="1024qam"),
            "table",
            "256qam, 64qam, low_rate",
        ),
        (lambda: links.peak_rate_mbit_s(bandwidth_mhz=100, subcarrier_khz=30, overhead=1.0), "overhead", "[0, 1)"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(call, field, shown):
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert caught.value.field == field
    assert shown in caught.value.message
