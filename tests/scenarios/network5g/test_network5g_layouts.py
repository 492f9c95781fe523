"""Hexagonal layouts: spacing, wrap-around, neighbours, colours."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.geography import hexagonal, layout_of_size

ISD = 500.0


def gaps(grid):
    d = grid.sites[:, None] - grid.sites[None]
    distance = np.hypot(*grid.nearest_image(d[..., 0], d[..., 1]))
    return distance[~np.eye(len(grid.sites), dtype=bool)]


@pytest.mark.parametrize(("size", "cells", "sites"), [("small", 3, 3), ("medium", 7, 7), ("large", 21, 7)])
def test_sizes(size, cells, sites):
    grid = layout_of_size(size, ISD)
    assert (grid.name, grid.cells, len(grid.sites), grid.wraps) == (size, cells, sites, size != "small")
    assert gaps(grid).min() == pytest.approx(ISD)


def test_small_faces_its_centre():
    grid = layout_of_size("small", ISD)
    toward = np.rad2deg(np.arctan2(-grid.sites[:, 1], -grid.sites[:, 0]))
    assert grid.azimuth_deg == pytest.approx(toward)
    assert grid.sites.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert grid.radius_m == pytest.approx(ISD / 2)
    assert grid.neighbours.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert sorted(grid.colour) == [0, 1, 2]


def test_periods_of_seven_sites():
    # The cluster of seven: (2, 1) and (-1, 3) on the hexagonal grid, 60 degrees apart and sqrt(7) long.
    grid = layout_of_size("medium", ISD)
    first, second = grid.periods
    assert np.hypot(*grid.periods.T) == pytest.approx([7**0.5 * ISD] * 2)
    assert first @ second / 7 / ISD**2 == pytest.approx(0.5)
    assert gaps(grid) == pytest.approx(ISD)


@pytest.mark.parametrize("sites", [7, 19, 37, 61])
def test_full_rings_tile_the_plane(sites):
    grid = hexagonal(sites, inter_site_m=ISD)
    assert grid.wraps
    # The torus has exactly the area of its cells, and seen from every site the others lie alike.
    assert abs(np.linalg.det(grid.periods)) == pytest.approx(sites * ISD**2 * 3**0.5 / 2)
    rows = np.sort(gaps(grid).reshape(sites, sites - 1), axis=1)
    assert rows == pytest.approx(np.tile(rows[0], (sites, 1)))
    assert rows[0, :6] == pytest.approx(ISD)


@given(x=st.floats(-9000, 9000), y=st.floats(-9000, 9000), sites=st.sampled_from([7, 19, 37]))
def test_nearest_image_is_the_shortest_of_all(x, y, sites):
    grid = hexagonal(sites, inter_site_m=ISD)
    steps = np.arange(-16, 17)
    images = steps[:, None, None] * grid.periods[0] + steps[None, :, None] * grid.periods[1] + np.array([x, y])
    dx, dy = grid.nearest_image(np.array([x]), np.array([y]))
    assert np.hypot(dx, dy)[0] == pytest.approx(np.linalg.norm(images, axis=-1).min(), abs=1e-6)


@given(sites=st.integers(1, 60), sectors=st.sampled_from([1, 3]), isd=st.floats(50, 3000))
def test_any_number_of_cells(sites, sectors, isd):
    grid = hexagonal(sites * sectors, sectors=sectors, inter_site_m=isd)
    assert grid.cells == sites * sectors
    assert len(np.unique(np.round(grid.sites, 3), axis=0)) == len(grid.sites) == sites
    assert grid.neighbours.shape == (grid.cells, min(6, grid.cells - 1))
    for cell, near in enumerate(grid.neighbours.tolist()):
        assert cell not in near
        assert len(set(near)) == len(near)
    if sites > 1:
        assert gaps(grid).min() == pytest.approx(isd)
    if not grid.wraps:
        assert np.hypot(*grid.centres.T).max() < grid.radius_m
        assert np.hypot(*grid.sites.T).max() < grid.radius_m
    assert (grid.azimuth_deg is None) == (sectors == 1)


@pytest.mark.parametrize("grid", [layout_of_size("large", ISD), hexagonal(30, sectors=3, inter_site_m=ISD)])
def test_sectors_of_a_site_differ_in_colour(grid):
    assert grid.colour.reshape(-1, 3).tolist() == [[0, 1, 2]] * len(grid.sites)


def test_neighbouring_sites_of_a_grid_differ_in_colour():
    grid = hexagonal(30, inter_site_m=ISD)
    d = np.linalg.norm(grid.sites[:, None] - grid.sites[None], axis=-1)
    assert (grid.colour[:, None] != grid.colour[None])[np.isclose(d, ISD)].all()


def test_one_cell_has_no_neighbours():
    grid = hexagonal(1, inter_site_m=ISD)
    assert grid.neighbours.shape == (1, 0)
    assert grid.radius_m == pytest.approx(ISD / 3**0.5)


@pytest.mark.parametrize("cells", [2, 4, 6])
def test_ring_of_facing_cells(cells):
    grid = hexagonal(cells, inter_site_m=ISD, facing=True)
    assert gaps(grid).min() == pytest.approx(ISD)
    ahead = np.stack([np.cos(np.deg2rad(grid.azimuth_deg)), np.sin(np.deg2rad(grid.azimuth_deg))], axis=1)
    assert ahead == pytest.approx(-grid.sites / np.linalg.norm(grid.sites, axis=1)[:, None])


def test_equal_layouts_are_equal_and_hash_alike():
    one, same, other = (hexagonal(7, inter_site_m=d) for d in (500.0, 500.0, 501.0))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(ValueError, match="read-only"):
        one.sites[0, 0] = 1.0
    assert one.powers_dbm(46.0).tolist() == [46.0] * 7


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cells": 0}, "cells"),
        ({"cells": 1001}, "cells"),
        ({"cells": 7, "sectors": 3}, "cells"),
        ({"cells": 6, "sectors": 2}, "sectors"),
        ({"cells": 7, "inter_site_m": 0.0}, "inter_site_m"),
        ({"cells": 7, "inter_site_m": float("nan")}, "inter_site_m"),
        ({"cells": 7, "facing": True}, "facing"),
        ({"cells": 1, "facing": True}, "facing"),
        ({"cells": 3, "sectors": 3, "facing": True}, "facing"),
    ],
)
def test_impossible_layouts_are_refused(arguments, field):
    with pytest.raises(ConfigurationError, match=field) as caught:
        hexagonal(**arguments)
    assert caught.value.field == field


def test_unknown_size_is_refused():
    with pytest.raises(ConfigurationError, match="large, medium, small"):
        layout_of_size("huge", ISD)
