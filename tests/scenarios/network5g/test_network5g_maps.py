"""Maps: geometry of the grid, statistics of the fields, and the formulas at the nodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.geography import build_maps, fitting_resolution, hexagonal, layout_of_size, map_bytes
from rlaas.scenarios.network5g.geography.fields import FieldSampler, interpolated_variance
from rlaas.scenarios.network5g.geography.maps import INDOOR, MAXIMUM_BYTES, OUTDOOR, PADDING_DB
from rlaas.scenarios.network5g.propagation import antennas, pathloss

OPTIONS = {"carrier_ghz": 3.5, "site_height_m": 25.0}
SKEW = np.array([[10.0, 5.0], [0.0, 10.0 * 3**0.5 / 2]])


def maps_of(size, **options):
    return build_maps(layout_of_size(size, 500.0), **{**OPTIONS, "realisations": 4, **options})


def distances(grid, maps, cell):
    site = grid.sites[grid.site_of_cell[cell]]
    dx, dy = grid.nearest_image(*(maps.nodes() - site).T)
    return dx, dy, np.maximum(np.hypot(dx, dy), 10.0)


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("decorrelation", [13.0, 50.0])
def test_fields_have_unit_variance_and_decay_exponentially(wraps, decorrelation):
    shape = (128, 128)
    sampler = FieldSampler(SKEW, shape, decorrelation_m=decorrelation, wraps=wraps)
    fields = sampler.draw(41, np.random.default_rng(3))
    assert fields.shape == (41, *shape)
    # Each field holds several hundred to several thousand independent patches: the mean over 41 is good to 2 %.
    assert fields.mean() == pytest.approx(0.0, abs=0.04)
    assert (fields.astype(float) ** 2).mean() == pytest.approx(1.0, abs=0.04)
    for f, g in ((1, 0), (0, 1), (1, 1), (3, 0), (0, 5), (1, -1)):
        lag = float(np.hypot(*(SKEW @ (f, g))))
        first = fields[:, max(0, -f) : 128 - max(0, f), max(0, -g) : 128 - max(0, g)]
        second = fields[:, max(0, f) : 128 + min(0, f), max(0, g) : 128 + min(0, g)]
        assert (first * second).mean() == pytest.approx(np.exp(-lag / decorrelation), abs=0.05)
    # The two fields of one transform are independent.
    assert (fields[0::2][:20] * fields[1::2]).mean() == pytest.approx(0.0, abs=0.03)


def test_wrapped_fields_are_periodic():
    fields = FieldSampler(SKEW, (64, 96), decorrelation_m=50.0, wraps=True).draw(400, np.random.default_rng(1))
    across = (fields[:, 0] * fields[:, -1]).mean(), (fields[:, :, 0] * fields[:, :, -1]).mean()
    assert across == pytest.approx([np.exp(-0.2)] * 2, abs=0.05)
    cut = FieldSampler(SKEW, (64, 96), decorrelation_m=50.0, wraps=False).draw(400, np.random.default_rng(1))
    assert (cut[:, 0] * cut[:, -1]).mean() == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("decorrelation", [7.0, 37.0])
def test_interpolated_variance_by_integration(decorrelation):
    # Independent: the quadratic form w' R w of the four corner weights, integrated on a fine midpoint grid.
    t = (np.arange(200) + 0.5) / 200
    u, v = np.meshgrid(t, t)
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ SKEW.T
    correlation = np.exp(-np.linalg.norm(corners[:, None] - corners[None], axis=-1) / decorrelation)
    wanted = np.einsum("iuv,ij,juv->uv", weights, correlation, weights).mean()
    assert interpolated_variance(SKEW, decorrelation) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_contents_and_memory(size):
    grid, maps = layout_of_size(size, 500.0), maps_of(size)
    nodes, padded = maps.shape[0] * maps.shape[1], {"small": 8, "medium": 8, "large": 24}[size]
    assert maps.link_db.shape == (4, 2, nodes, padded)
    assert maps.nbytes == map_bytes(grid, spacing_m=10.0, realisations=4) == 4 * (2 * 4 + 3) * nodes * padded
    for values, filling in ((maps.link_db, PADDING_DB), (maps.mean_db, PADDING_DB), (maps.sine_below, 0.0)):
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        assert np.isfinite(values).all()
        assert (values[..., grid.cells :] == filling).all()
    assert (maps.beam_db == 0).all()
    assert maps.wraps == grid.wraps
    assert np.linalg.norm(maps.basis, axis=0) == pytest.approx(10.0, rel=0.03)
    assert maps.penetration == pytest.approx((12.6975, 0.5, 4.4), abs=1e-3)


@pytest.mark.parametrize("size", ["small", "large"])
def test_nodes_hold_the_formulas(size):
    grid, maps = layout_of_size(size, 500.0), maps_of(size)
    for cell in range(0, grid.cells, 2):
        dx, dy, distance = distances(grid, maps, cell)
        los, nlos = pathloss.uma_path_loss_db(distance, carrier_ghz=3.5)
        chance = pathloss.los_probability(distance)
        off = (np.rad2deg(np.arctan2(dy, dx)) - grid.azimuth_deg[cell] + 180) % 360 - 180
        below = np.rad2deg(np.arctan2(23.5, distance))
        gain = 8 - np.minimum(np.minimum(12 * (off / 65) ** 2, 30) + np.minimum(12 * (below / 65) ** 2, 30), 30)
        assert maps.mean_db[:, cell] == pytest.approx(gain - chance * los - (1 - chance) * nlos, abs=1e-3)
        assert maps.sine_below[:, cell] == pytest.approx(np.sin(np.deg2rad(below)), abs=1e-6)


def test_sectors_share_line_of_sight_and_shadowing():
    grid, maps = layout_of_size("large", 500.0), maps_of("large")
    extra = []
    for cell in range(3):
        _, _, distance = distances(grid, maps, cell)
        los, nlos = pathloss.uma_path_loss_db(distance, carrier_ghz=3.5)
        chance = pathloss.los_probability(distance)
        expected = maps.mean_db[:, cell] + chance * los + (1 - chance) * nlos  # the element's gain
        extra.append(maps.link_db[:, :, :, cell] - expected)
    assert extra[1] == pytest.approx(extra[0], abs=1e-3)
    assert extra[2] == pytest.approx(extra[0], abs=1e-3)


def test_share_in_sight_and_shadowing_as_the_standard_says():
    # A node's link is a mixture of two normals, one with line of sight and one without: its mean tells the share in
    # sight, its variance the shadowing of both.
    grid = layout_of_size("medium", 500.0)
    maps = maps_of("medium", realisations=40)
    gain_los, gain_nlos, chance, link, inside = [], [], [], [], []
    for cell in range(7):
        _, _, distance = distances(grid, maps, cell)
        los, nlos = pathloss.uma_path_loss_db(distance, carrier_ghz=3.5)
        peak = antennas.omnidirectional_gain_db()
        gain = antennas.element_gain_db(antennas.elevation_attenuation_db(np.rad2deg(np.arctan2(23.5, distance))), peak)
        gain_los.append(gain - los)
        gain_nlos.append(gain - nlos)
        chance.append(pathloss.los_probability(distance))
        link.append(maps.link_db[:, OUTDOOR, :, cell].T)
        inside.append(maps.link_db[:, INDOOR, :, cell].T)
    gain_los, gain_nlos, chance = map(np.concatenate, (gain_los, gain_nlos, chance))
    link, inside = np.concatenate(link).astype(float), np.concatenate(inside).astype(float)
    uma = pathloss.environment("uma")
    node = {
        name: sigma**2 / interpolated_variance(maps.basis, correlation)
        for name, sigma, correlation in (
            ("los", uma.shadow_los_db, uma.correlation_los_m),
            ("nlos", uma.shadow_nlos_db, uma.correlation_nlos_m),
            ("indoor", uma.shadow_indoor_db, uma.correlation_indoor_m),
        )
    }
    spread = gain_los - gain_nlos
    for low, high in ((0.95, 1.1), (0.5, 0.9), (0.25, 0.5), (0.1, 0.25), (0.03, 0.1)):
        rows = (chance >= low) & (chance < high)
        p, step = chance[rows, None], spread[rows, None]
        share = ((link[rows] - gain_nlos[rows, None]) / step).mean()
        assert share == pytest.approx(p.mean(), abs=0.03)
        # Var = p s_los^2 + (1 - p) s_nlos^2 + p (1 - p) step^2 around the mean.
        for values, in_sight, out_of_sight in ((link, "los", "nlos"), (inside, "indoor", "indoor")):
            centred = values[rows] - gain_nlos[rows, None] - p * step
            wanted = p * node[in_sight] + (1 - p) * node[out_of_sight] + p * (1 - p) * step**2
            assert (centred**2).mean() == pytest.approx(wanted.mean(), rel=0.08)


@pytest.mark.parametrize(("where", "sigma"), [(OUTDOOR, 4.0), (INDOOR, 7.0)])
def test_interpolated_shadowing_has_the_standards_spread(where, sigma):
    # Close to a site everyone is in sight, so what is left after the path loss is shadowing alone.
    grid = hexagonal(19, inter_site_m=200.0)
    maps = build_maps(grid, **OPTIONS, realisations=60, spacing_m=10.0, minimum_distance_m=18.0)
    angle, radius = np.random.default_rng(2).uniform(0, [[2 * np.pi], [1.0]], (2, 400))
    near = 12.0 * np.sqrt(radius)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    los, _ = pathloss.uma_path_loss_db(np.array([18.0]), carrier_ghz=3.5)
    below = antennas.elevation_attenuation_db(np.rad2deg(np.arctan2(23.5, np.array([18.0]))))
    gain = antennas.element_gain_db(below, antennas.omnidirectional_gain_db())
    shadow = []
    for cell in range(19):
        for realisation in range(60):
            values = maps.sample(maps.link_db[realisation, where], grid.sites[cell] + near)
            shadow.append(gain[0] - los[0] - values[:, cell])
    shadow = np.array(shadow, dtype=float)
    assert shadow.mean() == pytest.approx(0.0, abs=0.4)
    assert shadow.std() == pytest.approx(sigma, rel=0.05)


@given(x=st.floats(-4000, 4000), y=st.floats(-4000, 4000), i=st.integers(-3, 3), j=st.integers(-3, 3))
def test_wrapped_maps_repeat(x, y, i, j):
    grid, maps = layout_of_size("medium", 500.0), maps_of("medium")
    here = np.array([[x, y]])
    there = here + i * grid.periods[0] + j * grid.periods[1]
    values = maps.link_db[0, OUTDOOR]
    assert maps.sample(values, there) == pytest.approx(maps.sample(values, here), abs=0.02)


@pytest.mark.parametrize("size", ["small", "large"])
def test_interpolation_meets_the_nodes_and_stays_between_them(size):
    maps = maps_of(size)
    values = maps.link_db[1, INDOOR]
    nodes = np.random.default_rng(0).choice(len(values), 200, replace=False)
    inner = nodes[(nodes // maps.shape[1] < maps.shape[0] - 1) & (nodes % maps.shape[1] < maps.shape[1] - 1)]
    assert maps.sample(values, maps.nodes()[inner]) == pytest.approx(values[inner], abs=1e-3)
    corners = np.stack([values[inner + step] for step in (0, 1, maps.shape[1], maps.shape[1] + 1)])
    middle = maps.sample(values, maps.nodes()[inner] + 0.5 * maps.basis.sum(axis=1))
    assert middle == pytest.approx(corners.mean(axis=0), abs=1e-3)


@given(angle=st.floats(0, 6.3), share=st.floats(0, 1))
def test_positions_in_the_disc_never_leave_the_grid(angle, share):
    grid, maps = layout_of_size("small", 500.0), maps_of("small")
    position = share * grid.radius_m * np.array([np.cos(angle), np.sin(angle)])
    f, g = maps.coordinates(position)
    assert 0 <= np.floor(f) < maps.shape[0] - 1
    assert 0 <= np.floor(g) < maps.shape[1] - 1


def test_beams_of_a_sector():
    grid, maps = layout_of_size("large", 500.0), maps_of("large", columns=8)
    dx, dy, distance = distances(grid, maps, 4)
    off = np.arctan2(dy, dx) - np.deg2rad(grid.azimuth_deg[4])
    wanted = antennas.best_beam_db(np.sin(off) * distance / np.hypot(distance, 23.5), 8)
    assert maps.beam_db[:, 4] == pytest.approx(wanted, abs=1e-4)
    assert (maps.beam_db[:, 21:] == 0).all()


def test_same_arguments_same_object_and_realisations_do_not_depend_on_their_number():
    few, many = maps_of("small", realisations=2), maps_of("small", realisations=5)
    assert maps_of("small", realisations=2) is few
    assert (few.link_db == many.link_db[:2]).all()
    assert not np.array_equal(many.link_db[0], many.link_db[1])
    other = maps_of("small", realisations=2, seed=5)
    assert not np.array_equal(other.link_db, few.link_db)
    assert (other.mean_db == few.mean_db).all()


def test_shadowing_is_normal():
    fields = FieldSampler(SKEW, (96, 96), decorrelation_m=7.0, wraps=True).draw(20, np.random.default_rng(9))
    shares = [(fields < q).mean() for q in (-2, -1, 0, 1, 2)]
    assert shares == pytest.approx(norm.cdf([-2, -1, 0, 1, 2]), abs=0.01)


@pytest.mark.parametrize("cells", [1, 2, 40])
def test_maps_of_any_number_of_cells(cells):
    maps = build_maps(hexagonal(cells, inter_site_m=300.0), **OPTIONS, realisations=1, spacing_m=40.0)
    assert maps.cells == cells
    assert maps.cells_padded % 8 == 0
    assert np.isfinite(maps.link_db).all()


def test_street_canyon_loses_more():
    grid = layout_of_size("medium", 200.0)
    uma = build_maps(grid, carrier_ghz=3.5, site_height_m=25.0, realisations=1)
    umi = build_maps(grid, carrier_ghz=3.5, site_height_m=10.0, propagation="umi", realisations=1)
    assert umi.shape[0] > 1.8 * uma.shape[0]
    assert umi.mean_db[:, :7].mean() < uma.mean_db[:, :7].mean()


@pytest.mark.parametrize(
    ("size", "options", "field"),
    [
        ("small", {"propagation": "rma"}, "propagation"),
        ("small", {"carrier_ghz": 0.1}, "carrier_ghz"),
        ("small", {"site_height_m": 1.0}, "site_height_m"),
        ("small", {"user_height_m": 20.0}, "user_height_m"),
        ("small", {"spacing_m": 0.0}, "spacing_m"),
        ("small", {"los_correlation_m": float("nan")}, "los_correlation_m"),
        ("small", {"minimum_distance_m": -1.0}, "minimum_distance_m"),
        ("small", {"realisations": 0}, "realisations"),
        ("small", {"columns": 3}, "columns"),
        ("small", {"building": "wood"}, "building"),
        ("small", {"seed": -1}, "seed"),
        ("medium", {"columns": 4}, "columns"),
        ("large", {"spacing_m": 0.5, "realisations": 64}, "cells"),
    ],
)
def test_impossible_maps_are_refused(size, options, field):
    with pytest.raises(ConfigurationError, match=field) as caught:
        maps_of(size, **options)
    assert caught.value.field == field


@pytest.mark.parametrize(("cells", "wanted"), [(21, (10.0, 16)), (100, (10.0, 8)), (300, (20.0, 2)), (1000, (80.0, 2))])
def test_maps_of_large_networks_are_coarser(cells, wanted):
    layout = hexagonal(cells, inter_site_m=500.0)
    spacing_m, realisations = fitting_resolution(layout, spacing_m=10.0, realisations=16)
    assert map_bytes(layout, spacing_m=spacing_m, realisations=realisations) <= MAXIMUM_BYTES
    assert (spacing_m, realisations) == wanted


def test_a_cell_in_all_directions_radiates_what_a_sector_does():
    rng = np.random.default_rng(2)
    below = np.rad2deg(np.arcsin(rng.uniform(-1, 1, 400_000)))
    around = rng.uniform(-180, 180, 400_000)
    vertical = antennas.elevation_attenuation_db(below)
    sector = antennas.element_gain_db(vertical + antennas.azimuth_attenuation_db(around))
    everywhere = antennas.element_gain_db(vertical, antennas.omnidirectional_gain_db())
    assert np.mean(10 ** (everywhere / 10)) == pytest.approx(np.mean(10 ** (sector / 10)), rel=0.01)
    assert np.mean(10 ** (everywhere / 10)) < 1.0
