"""Site files of real networks: what they give, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.geography import build_maps, read_sites
from rlaas.scenarios.network5g.geography.sites import tangent_plane_m

PLANE = """name,x_m,y_m,azimuth_deg,height_m,power_dbm,operator
A1,1000,2000,0,30,46,x
A2,1000.5,2000,120,30,46,x
A3,1000,2000,240,30,46,x
B1,1600,2000,,20,40,x
"""


def write(tmp_path, text, name="city.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_plane_coordinates(tmp_path):
    grid = read_sites(write(tmp_path, PLANE))
    assert (grid.name, grid.cells, grid.wraps) == ("city", 4, False)
    assert grid.site_of_cell.tolist() == [0, 0, 0, 1]
    assert grid.sites == pytest.approx(np.array([[-300.0, 0.0], [300.0, 0.0]]))
    assert grid.anchor == (1300.0, 2000.0)
    # Compass bearings 0, 120 and 240 are 90, -30 and -150 counter-clockwise from east.
    assert grid.azimuth_deg[:3] == pytest.approx([90.0, -30.0, -150.0])
    assert math.isnan(grid.azimuth_deg[3])
    assert grid.height_m.tolist() == [30, 30, 30, 20]
    assert grid.powers_dbm(43.0).tolist() == [46, 46, 46, 40]
    assert grid.cell_names == ("A1", "A2", "A3", "B1")
    assert grid.neighbours.shape == (4, 3)
    assert grid.neighbours[3, 0] == 1  # the sector that looks most nearly at B1
    assert grid.radius_m == pytest.approx(300 + 2 / 3 * 600)


def test_degree_lengths_of_the_ellipsoid():
    # Published lengths of a degree on WGS 84 at 45 degrees: 111,131.75 m of latitude and 78,846.81 m of longitude.
    up, down = tangent_plane_m(np.array([45.005, 44.995]), np.array([10.0, 10.0]), latitude=45.0, longitude=10.0)
    assert 100 * (up[1] - down[1]) == pytest.approx(111_131.75, abs=1)
    east, west = tangent_plane_m(np.array([45.0, 45.0]), np.array([10.005, 9.995]), latitude=45.0, longitude=10.0)
    assert 100 * (east[0] - west[0]) == pytest.approx(78_846.81, abs=1)


def test_geographic_coordinates(tmp_path):
    grid = read_sites(write(tmp_path, "latitude,longitude,azimuth_deg\n51.9,-8.48,90\n51.9,-8.48,270\n51.91,-8.46,\n"))
    assert len(grid.sites) == 2
    assert grid.anchor == pytest.approx((51.905, -8.47))
    east, north = grid.sites[1] - grid.sites[0]
    # 0.01 degree of latitude is 1,112.6 m and 0.02 degree of longitude 1,376 m at 51.9 degrees north.
    assert (east, north) == pytest.approx((1376, 1112.6), abs=1.5)
    assert grid.azimuth_deg[:2] == pytest.approx([0.0, -180.0])


def test_a_network_across_the_date_line_keeps_together(tmp_path):
    grid = read_sites(write(tmp_path, "latitude,longitude,azimuth_deg\n-17,179.999,\n-17,-179.999,\n"))
    assert np.ptp(grid.sites[:, 0]) == pytest.approx(0.002 * 111_320 * math.cos(math.radians(17)), rel=1e-2)
    assert abs(grid.anchor[1]) == pytest.approx(180.0)
    assert grid.azimuth_deg is None


def test_one_cell_and_a_radius_of_ones_own(tmp_path):
    grid = read_sites(write(tmp_path, "x_m,y_m,azimuth_deg\n5,5,\n"), radius_m=120.0)
    assert grid.neighbours.shape == (1, 0)
    assert grid.radius_m == 120.0
    assert grid.sites.tolist() == [[0.0, 0.0]]


def test_maps_of_a_real_network_use_its_heights(tmp_path):
    grid = read_sites(write(tmp_path, PLANE))
    maps = build_maps(grid, carrier_ghz=3.5, site_height_m=99.0, realisations=1, spacing_m=50.0)
    place = np.array([[0.0, 0.0]])
    node = np.argmin(np.linalg.norm(maps.nodes() - place, axis=1))
    for cell in range(4):
        height = grid.height_m[cell] - 1.5
        distance = np.linalg.norm(maps.nodes()[node] - grid.sites[grid.site_of_cell[cell]])
        assert maps.sine_below[node, cell] == pytest.approx(height / math.hypot(height, distance), rel=1e-5)


BAD = [
    ("x_m,azimuth_deg\n1,0\n", "sites", "x_m and y_m, or latitude and longitude"),
    ("x_m,y_m,latitude,longitude,azimuth_deg\n1,1,1,1,0\n", "sites", "both are there"),
    ("x_m,y_m\n1,1\n", "azimuth_deg", "azimuth_deg is missing"),
    ("x_m,y_m,azimuth_deg,azimuth_deg\n1,1,0,0\n", "azimuth_deg", "more than once"),
    ("x_m,y_m,azimuth_deg\n", "sites", "no cells"),
    ("", "sites", "no cells"),
    ("x_m,y_m,azimuth_deg\n1,1,0\n1,1,0,9\n", "sites", "line 3"),
    ("x_m,y_m,azimuth_deg\n1,1,0\n1,,0\n", "y_m", "line 3, column y_m"),
    ("x_m,y_m,azimuth_deg\n1,nan,0\n", "y_m", "line 2, column y_m: 'nan'"),
    ("x_m,y_m,azimuth_deg\ninf,1,0\n", "x_m", "line 2"),
    ("x_m,y_m,azimuth_deg\n1,1,360\n", "azimuth_deg", "[0, 360)"),
    ("x_m,y_m,azimuth_deg\n1,1,-1\n", "azimuth_deg", "[0, 360)"),
    ("x_m,y_m,azimuth_deg\n1,1,north\n", "azimuth_deg", "'north'"),
    ("x_m,y_m,azimuth_deg\n1,1,0\n1,1.5,0\n", "azimuth_deg", "line 3 repeats the cell of line 2"),
    ("x_m,y_m,azimuth_deg\n1,1,\n1,1,\n", "azimuth_deg", "repeats"),
    ("x_m,y_m,azimuth_deg,name\n1,1,0,a\n1,1,90,a\n", "name", "also on line 2"),
    ("x_m,y_m,azimuth_deg,height_m\n1,1,0,30\n1,1,90,\n", "height_m", "for all cells or for none"),
    ("x_m,y_m,azimuth_deg,height_m\n1,1,0,1\n", "height_m", "[2, 500]"),
    ("x_m,y_m,azimuth_deg,power_dbm\n1,1,0,100\n", "power_dbm", "[0, 60]"),
    ("x_m,y_m,azimuth_deg,power_dbm\n1,1,0,-1\n", "power_dbm", "[0, 60]"),
    ("x_m,y_m,azimuth_deg\n1,1,0\n1,2\n", "azimuth_deg", "line 3, column azimuth_deg is missing: 2 values"),
    ("x_m,y_m,azimuth_deg\n1\n", "y_m", "line 2, column y_m is missing: 1 values, the header has 3"),
    ("x_m,y_m,azimuth_deg\n1_0,1,0\n", "x_m", "line 2, column x_m: '1_0'"),
    ("x_m,y_m,azimuth_deg\n\u0661,1,0\n", "x_m", "line 2, column x_m"),
    ("latitude,longitude,azimuth_deg\n95,1,0\n", "latitude", "[-89, 89]"),
    ("x_m,y_m,azimuth_deg\n" + "".join(f"{i * 10},0,0\n" for i in range(1001)), "sites", "at most 1000"),
    ('x_m,y_m,azimuth_deg\n1,1,"0\n', "sites", "not a CSV file"),
]


@pytest.mark.parametrize(("text", "field", "shown"), BAD)
def test_bad_files_are_refused_by_place(tmp_path, text, field, shown):
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        read_sites(path)
    assert caught.value.field == field
    assert shown in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"sites: .*nowhere.csv cannot be read"):
        read_sites(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_sites(tmp_path)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"x_m,y_m,azimuth_deg\n\xff\xfe\x00,1,0\n")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        read_sites(binary)
    with pytest.raises(ConfigurationError, match="radius_m"):
        read_sites(write(tmp_path, PLANE), radius_m=-1.0)
