"""Power models: published figures, and what must hold for any of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.power import (
    POWER_MODELS,
    ROW_COLUMNS,
    PowerModel,
    energy_j,
    power_model,
    sleep_shares,
    switch_j,
)

models = st.sampled_from(sorted(POWER_MODELS)).map(POWER_MODELS.__getitem__)
shares = st.floats(0.0, 1.0)

SLOW = PowerModel(
    name="slow",
    description="a cell that falls asleep in steps",
    source="this test",
    idle_w=200.0,
    full_w=400.0,
    micro_w=120.0,
    light_w=60.0,
    deep_w=10.0,
    light_switch_j=3.0,
    deep_switch_j=20.0,
    light_after_ms=250.0,
    deep_after_ms=2000.0,
)


def spent(model, *, use=0.0, idle=0.0, power_share=1.0, micro_share=0.0, off=False, off_ms=0.0, duration_s=0.1):
    return energy_j(
        model,
        use=use,
        idle=idle,
        power_share=power_share,
        micro_share=micro_share,
        off=off,
        off_ms=off_ms,
        duration_s=duration_s,
    )


# Auer et al. 2011, table 2 and equation 1: N_TRX (P0 + dp P_max) and N_TRX P_sleep, worked by hand. A macro and a radio
# head of six transceivers are sites of three cells.
@pytest.mark.parametrize(
    ("name", "cells", "full_w", "idle_w", "asleep_w"),
    [
        ("earth_macro", 3, 1344.0, 780.0, 450.0),
        ("earth_rrh", 3, 840.0, 504.0, 336.0),
        ("earth_micro", 1, 144.76, 112.0, 78.0),
        ("earth_pico", 1, 14.64, 13.6, 8.6),
    ],
)
def test_earth_sites_draw_what_the_paper_says(name, cells, full_w, idle_w, asleep_w):
    model = POWER_MODELS[name]
    one_second = {"duration_s": 1.0}
    assert cells * spent(model, use=1.0, **one_second) == pytest.approx(full_w)
    assert cells * spent(model, idle=1.0, **one_second) == pytest.approx(idle_w)
    assert cells * spent(model, off=True, off_ms=60_000.0, **one_second) == pytest.approx(asleep_w)


# TR 38.864 base station power model, category 1: deep, light, micro sleep, uplink and downlink over the downlink.
@pytest.mark.parametrize(
    ("name", "relative"), [("tr38864_set1", (1, 25, 55, 110, 280)), ("tr38864_set2", (1, 25, 50, 90, 200))]
)
def test_tr38864_keeps_the_relative_powers(name, relative):
    model = POWER_MODELS[name]
    watts = [model.deep_w, model.light_w, model.micro_w, model.idle_w, model.full_w]
    assert np.divide(watts, model.full_w) == pytest.approx(np.divide(relative, relative[-1]))
    assert model.full_w == POWER_MODELS["earth_macro"].full_w
    # 1000 units * ms in deep sleep's transition, 90 in light sleep's: seconds of full power.
    assert model.deep_switch_j / model.full_w == pytest.approx(1.0 / relative[-1])
    assert model.light_switch_j / model.full_w == pytest.approx(0.09 / relative[-1])


@given(model=models, use=shares, rest=shares, power=shares, micro=shares, off=st.booleans(), off_ms=st.floats(0, 1e5))
def test_no_cell_draws_less_than_asleep_or_more_than_full(model, use, rest, power, micro, off, off_ms):
    joules = spent(model, use=use, idle=rest * (1 - use), power_share=power, micro_share=micro, off=off, off_ms=off_ms)
    assert joules >= 0.1 * model.deep_w * (1 - 1e-12)
    assert joules <= 0.1 * model.full_w * (1 + 1e-12) + (model.deep_switch_j if off else 0.0)


@given(model=models, use=shares, more=shares, power=shares, louder=shares)
def test_an_awake_cell_draws_at_least_idle_power_and_more_with_use_and_power(model, use, more, power, louder):
    low, high = sorted((use, more))
    quiet, loud = sorted((power, louder))
    least = spent(model, use=low, idle=1 - low, power_share=quiet)
    assert least >= 0.1 * model.idle_w * (1 - 1e-12)
    assert spent(model, use=high, idle=1 - high, power_share=quiet) >= least
    assert spent(model, use=low, idle=1 - low, power_share=loud) >= least


@given(model=models, idle=shares, micro=shares, deeper=shares)
def test_micro_sleep_saves_only_past_the_ramp(model, idle, micro, deeper):
    awake = spent(model, idle=idle)
    ramp = model.ramp_ms / model.cycle_ms
    assert spent(model, idle=idle, micro_share=ramp * micro) == pytest.approx(float(awake))
    low, high = sorted((micro, deeper))
    assert spent(model, idle=idle, micro_share=high) <= spent(model, idle=idle, micro_share=low)
    full_sleep = 0.1 * idle * (model.idle_w - model.micro_w) * (1 - ramp)
    assert spent(model, idle=idle, micro_share=1.0) == pytest.approx(awake - full_sleep)


def test_an_off_cell_falls_asleep_in_steps():
    # Off for 100 ms already; in the next 400 ms: 150 ms idle, 250 ms light. Reaching light sleep costs 3 J.
    awake, light, deep = sleep_shares(SLOW, 100.0, 400.0)
    assert (awake, light, deep) == (pytest.approx(0.375), pytest.approx(0.625), 0.0)
    assert spent(SLOW, off=True, off_ms=100.0, duration_s=0.4) == pytest.approx(0.15 * 200 + 0.25 * 60 + 3.0)
    assert spent(SLOW, off=True, off_ms=60_000.0, duration_s=0.4) == pytest.approx(0.4 * 10)


@given(
    model=st.one_of(models, st.just(SLOW)),
    start=st.integers(0, 200).map(lambda k: 15.625 * k),
    first=st.integers(1, 200).map(lambda k: k / 64),
    second=st.integers(1, 200).map(lambda k: k / 64),
)
def test_how_an_off_period_is_cut_does_not_change_its_energy(model, start, first, second):
    parts = spent(model, off=True, off_ms=start, duration_s=first)
    parts += spent(model, off=True, off_ms=start + 1e3 * first, duration_s=second)
    # Multiples of 1/64 s: exact in binary, so that the cut may fall right on a threshold.
    assert spent(model, off=True, off_ms=start, duration_s=first + second) == pytest.approx(float(parts), rel=1e-9)


@given(model=st.one_of(models, st.just(SLOW)), steps=st.integers(1, 60))
def test_an_off_period_pays_the_transition_of_the_deepest_sleep_once(model, steps):
    paid = sum(float(switch_j(model, 100.0 * step, 100.0)) for step in range(steps))
    if model.deep_after_ms < 100.0 * steps:
        assert paid == pytest.approx(model.deep_switch_j)
    elif model.light_after_ms < 100.0 * steps:
        assert paid == pytest.approx(model.light_switch_j)
    else:
        assert paid == 0.0


@given(model=models)
def test_the_row_holds_the_named_columns(model):
    row = dict(zip(ROW_COLUMNS, model.as_row().tolist(), strict=True))
    assert model.as_row().shape == (13,)
    assert row.pop("slope_w") == pytest.approx(model.full_w - model.idle_w)
    assert row.pop("ramp_share") == pytest.approx(model.ramp_ms / model.cycle_ms)
    assert row == {name: getattr(model, name) for name in row}


def test_the_arguments_broadcast():
    joules = spent(SLOW, use=np.zeros((4, 1)), off=np.array([False, True, True]), off_ms=np.array([0.0, 0.0, 9e3]))
    assert joules == pytest.approx(np.tile([20.0, 20.0, 1.0], (4, 1)))


def test_unknown_model_names_those_that_exist():
    with pytest.raises(ConfigurationError, match=r"unknown power_model 'diesel'; allowed: earth_macro, .*type4"):
        power_model("diesel")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("idle_w", -1.0),
        ("full_w", float("nan")),
        ("deep_w", 61.0),
        ("micro_w", 201.0),
        ("light_switch_j", 21.0),
        ("light_after_ms", 2001.0),
        ("ramp_ms", 1.0),
    ],
)
def test_impossible_models_are_refused_by_field(field, value):
    numbers = {name: getattr(SLOW, name) for name in (*ROW_COLUMNS[:-2], "name", "description", "source")}
    with pytest.raises(ConfigurationError) as caught:
        PowerModel(**(numbers | {field: value}))
    assert caught.value.field == field
