"""Layouts, wrap-around, mobility, fading and arrivals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.scenarios.network5g.layout import layout
from rlaas.scenarios.network5g.reference import STEP_S, reference
from rlaas.scenarios.network5g.world import World

ISD = reference().radio.inter_site_m


def make(size="small", envs=4, hour=None, users=(9, 3, 3)):
    generators = [np.random.default_rng(seed) for seed in range(envs)]
    world = World(layout(size, ISD), users, 1.0, hour, reference(), generators)
    world.reset()
    return world


@pytest.mark.parametrize(("size", "cells", "sites"), [("small", 3, 3), ("medium", 7, 7), ("large", 21, 7)])
def test_layout_sizes_and_spacing(size, cells, sites):
    grid = layout(size, ISD)
    assert grid.cells == cells
    assert len(grid.sites) == sites
    gaps = np.linalg.norm(grid.sites[:, None] - grid.sites[None], axis=-1)[~np.eye(sites, dtype=bool)]
    assert gaps.min() == pytest.approx(ISD)
    for cell, neighbours in enumerate(grid.neighbours):
        assert cell not in neighbours
        assert len(set(neighbours)) == len(neighbours)


def test_wrapped_sites_are_all_alike():
    grid = layout("medium", ISD)
    d = grid.sites[:, None] - grid.sites[None]
    wrapped = np.hypot(*grid.nearest_image(d[..., 0], d[..., 1]))
    assert wrapped[~np.eye(7, dtype=bool)] == pytest.approx(ISD)


@given(x=st.floats(-4000, 4000), y=st.floats(-4000, 4000))
def test_nearest_image_is_the_shortest_of_all(x, y):
    grid = layout("medium", ISD)
    steps = np.arange(-8, 9)
    images = steps[:, None, None] * grid.periods[0] + steps[None, :, None] * grid.periods[1] + np.array([x, y])
    shortest = np.linalg.norm(images, axis=-1).min()
    dx, dy = grid.nearest_image(np.array([x]), np.array([y]))
    assert np.hypot(dx, dy)[0] == pytest.approx(shortest, abs=1e-6)


def test_small_cells_face_the_centre():
    grid = layout("small", ISD)
    toward = np.rad2deg(np.arctan2(-grid.sites[:, 1], -grid.sites[:, 0]))
    assert (toward - grid.azimuth_deg + 180) % 360 - 180 == pytest.approx(np.zeros(3), abs=1e-9)


@pytest.mark.parametrize("size", ["small", "large"])
def test_users_walk_at_their_speed_and_stay_inside(size):
    world = make(size)
    slow, fast = reference().traffic.speed_m_s
    before = world.state.position.copy()
    for step in range(200):
        world.move(world.draw(step))
        walked = np.linalg.norm(world.state.position - before, axis=-1)
        before = world.state.position.copy()
        assert walked.max() <= fast * STEP_S + 1e-9
        assert (walked[:, 12:] == 0).all()  # sensors stand still
        assert world.state.speed[:, :12].min() >= slow
        if size == "small":
            assert np.linalg.norm(before, axis=-1).max() <= ISD / 2 + 1e-6


def test_shadowing_keeps_unit_variance():
    world = make("medium", envs=8, users=(40, 10, 10))
    moments = []
    for step in range(120):
        world.move(world.draw(step))
        moments.append((world.state.shadow.mean(), world.state.shadow.var()))
    mean, variance = np.mean(moments, axis=0)
    assert abs(mean) < 0.08
    assert variance == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("hour", [5.0, 17.0])
def test_arrivals_are_poisson_with_the_hours_mean(hour):
    world = make(envs=32, hour=hour)
    counts = [[], [], []]
    for step in range(300):
        for kept, new in zip(counts, world.arrivals(world.draw(step)), strict=True):
            kept.append(new)
    for s, kept in enumerate(counts):
        found = np.array(kept)
        wanted = reference().traffic.rates_per_s[s] * STEP_S * reference().traffic.demand(hour)
        spread = 5 * np.sqrt(wanted / found.size)
        assert found.mean() == pytest.approx(wanted, abs=spread)
        assert found.var() == pytest.approx(wanted, rel=0.1)


def test_hours_are_weighted_by_demand():
    hours = make(envs=200, users=(1, 0, 0)).state.hour
    demand = np.array([reference().traffic.demand(h) for h in reference().traffic.demand_hours])
    assert demand.mean() == pytest.approx(1.0, abs=1e-9)
    wanted = (demand * demand).sum() / demand.sum()
    assert demand[hours].mean() == pytest.approx(wanted, abs=0.07)
