"""The fit of power models: planted coefficients come back, and the shipped file is what the data gives."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g.measured.base_stations import DBM_PER_POWER_UNIT
from rlaas.scenarios.network5g.power import POWER_MODELS, fitting

PLANTED = {
    # constant, per antenna, per W, shutdown, symbol
    "Type4": (8.0, 4.0, 0.7, -6.0, 0.0),
    "Type9": (20.0, 2.0, 0.2, 0.0, -10.0),
    "Type5": (5.0, 0.0, 0.3, 0.0, 0.0),
}
STATIONS = {"Type4": 40, "Type9": 25, "Type5": 4}


@pytest.fixture
def data_dir(repository: Path) -> Path:
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data"))
    if not (root / "base_station_energy").is_dir():
        pytest.skip(f"{root}/base_station_energy is missing; set RLAAS_DATA_DIR to the folder of measured data")
    return root


def write(folder: Path, name: str, columns: dict) -> None:
    parquet.write_table(pa.table(columns), folder / f"{name}.parquet")


def plant(root: Path, *, noise: float = 0.1, lost_load: bool = False, stray: bool = False) -> Path:
    """Base stations of known coefficients: 48 hours each, two carriers at some, in files like the real ones."""
    rng = np.random.default_rng(5)
    cells, loads, energy = [], [], []
    start = np.datetime64("2023-01-01T00", "us")
    for kind, (constant, antenna, slope, shutdown, symbol) in PLANTED.items():
        for number in range(STATIONS[kind]):
            name, antennas = f"{kind}_{number}", [2, 2, 4][number % 3]
            carriers = 1 + (kind == "Type9" and number % 2)
            rest = (kind, "Mode2", 300.0, 20, antennas, 46.0 / DBM_PER_POWER_UNIT)
            cells += [(name, f"Cell{carrier}", *rest) for carrier in range(carriers)]
            for hour in range(48):
                night = float(hour % 24 < 6) * rng.random() if shutdown else 0.0
                load = rng.random(carriers)
                sleeping = rng.random() if symbol else 0.0
                for carrier in range(carriers):
                    if lost_load and carrier and hour % 3:
                        continue
                    loads.append(
                        (
                            start + np.timedelta64(hour, "h"),
                            name,
                            f"Cell{carrier}",
                            load[carrier],
                            night,
                            night,
                            sleeping,
                        )
                    )
                watts = 10**4.6 / 1e3 * load.sum()
                total = constant + antenna * antennas + slope * watts + shutdown * night + symbol * sleeping
                energy.append((start + np.timedelta64(hour, "h"), name, total + noise * rng.standard_normal()))
    if stray:
        energy.append((start, "unheard of", 1.0))
    folder = root / "base_station_energy"
    folder.mkdir()
    names = ["bs", "cell", "ru_type", "mode", "frequency_mhz", "bandwidth_mhz", "antennas", "tx_power"]
    write(folder, "cells", dict(zip(names, map(list, zip(*cells, strict=True)), strict=True)))
    time, bs, cell, load, one, two, six = map(list, zip(*loads, strict=True))
    rest = dict.fromkeys(("ESMode3", "ESMode4", "ESMode5"), [0.0] * len(time))
    modes = {"ESMode1": one, "ESMode2": two, "ESMode6": six, **rest}
    write(folder, "load", {"time": time, "bs": bs, "cell": cell, "load": load, **modes})
    write(folder, "energy", dict(zip(("time", "bs", "energy"), map(list, zip(*energy, strict=True)), strict=True)))
    return root


def by_type(report: fitting.FitReport) -> dict[str, fitting.TypeFit]:
    return {row.ru_type: row for row in report.rows}


def test_planted_coefficients_come_back(tmp_path):
    rows = by_type(fitting.fit_power_models(plant(tmp_path)))
    assert set(rows) == {"Type4", "Type9"}, "four base stations are too few to say anything"
    four, nine = rows["Type4"], rows["Type9"]
    assert (four.constant, four.antenna, four.slope) == pytest.approx((8.0, 4.0, 0.7), abs=0.02)
    assert four.shutdown == pytest.approx(-6.0, abs=0.05)
    assert nine.symbol == pytest.approx(-10.0, abs=0.05)
    assert four.symbol is None
    assert nine.shutdown is None
    assert (four.stations, four.hours, four.usable) == (40, 40 * 48, True)
    # The usual unit: two antennas, 39.8 W; Type9's median has two carriers or one.
    assert (four.idle, four.full) == pytest.approx((16.0, 16.0 + 0.7 * 39.81), abs=0.1)
    assert four.sleep == pytest.approx(10.0, abs=0.1)
    # What a type does not show is borrowed in proportion from those that do.
    assert four.borrowed == ("micro",)
    assert four.micro == pytest.approx(max(10.0, 16.0 * (1 - 10 / 24)), abs=0.1)
    assert nine.borrowed == ("sleep",)
    assert nine.sleep == pytest.approx(min(nine.micro, nine.idle * 10 / 16), abs=0.1)


def test_held_out_errors_are_the_noise_and_beat_the_rivals(tmp_path):
    row = by_type(fitting.fit_power_models(plant(tmp_path, noise=0.5)))["Type4"]
    # Mean absolute value of a normal deviate of 0.5: 0.5 sqrt(2 / pi).
    assert row.held_out.mae == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=0.1)
    assert row.held_out.r2 > max(row.mean_rival.r2, row.earth_rival.r2)
    assert row.mean_rival.r2 < 0.01


def test_hours_with_a_missing_carrier_are_left_out(tmp_path):
    row = by_type(fitting.fit_power_models(plant(tmp_path, lost_load=True)))["Type9"]
    assert row.hours == 13 * 48 + 12 * 16
    assert row.slope == pytest.approx(0.2, abs=0.01)


def test_a_station_without_cells_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"bs of energy.parquet holds .*'unheard of'"):
        fitting.fit_power_models(plant(tmp_path, stray=True))


def test_missing_data_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.delenv("RLAAS_DATA_DIR", raising=False)
    with pytest.raises(ConfigurationError, match="RLAAS_DATA_DIR"):
        fitting.fit_power_models()
    with pytest.raises(ConfigurationError, match=r"no file .*cells.parquet"):
        fitting.fit_power_models(tmp_path)


def test_the_command_writes_models(tmp_path, capsys):
    output = tmp_path / "models.json"
    assert fitting.main(["--data-dir", str(plant(tmp_path)), "--output", str(output)]) == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    assert [row["name"] for row in document["types"]] == ["type4", "type9"]
    assert document["watts_per_unit"] * document["types"][0]["full"] == pytest.approx(448.0, rel=1e-5)
    assert "Type9" in capsys.readouterr().out


def test_stations_are_dealt_evenly_and_for_good():
    parts = [fitting.part_of(f"B_{number}") for number in range(1000)]
    assert set(np.bincount(parts) // 40) <= {4, 5}
    assert parts[:5] == [fitting.part_of(f"B_{number}") for number in range(5)]


def test_shipped_models_are_the_fit_of_the_data(data_dir):
    shipped = json.loads(files("rlaas.scenarios.network5g.power").joinpath("models.json").read_text(encoding="utf-8"))
    found = fitting.to_document(fitting.fit_power_models(data_dir))
    assert [row["name"] for row in found["types"]] == [row["name"] for row in shipped["types"]]
    assert found["watts_per_unit"] == pytest.approx(shipped["watts_per_unit"], rel=1e-4)
    for ours, theirs in zip(found["types"], shipped["types"], strict=True):
        for key in ("idle", "full", "micro", "sleep"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-3), (ours["name"], key)
        assert ours["held_out"] == pytest.approx(theirs["held_out"], rel=1e-3)


def test_the_fit_beats_both_rivals_on_unseen_base_stations(data_dir):
    for row in fitting.fit_power_models(data_dir).rows:
        assert row.held_out.mae < row.mean_rival.mae, row.name
        assert row.held_out.mae < row.earth_rival.mae, row.name
        assert row.held_out.r2 > 0.3, row.name


def test_fitted_models_ship_for_types_with_enough_stations():
    fitted = {name for name in POWER_MODELS if name.startswith("type")}
    assert fitted == {"type1", "type2", "type3", "type4", "type6", "type7", "type9"}
    assert POWER_MODELS["type4"].full_w == pytest.approx(POWER_MODELS["earth_macro"].full_w, rel=1e-4)
