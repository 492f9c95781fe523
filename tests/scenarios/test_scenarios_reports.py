"""Reports as pages and as JSON; what a scenario without measurements or pictures says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support.toy import ToyScenario

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.data import data_directory
from rlaas.scenarios.reports import Report, Section


def _report() -> Report:
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([1, 2], [3, 4])
    return Report(
        title="A page",
        summary=("First.", "Second."),
        sections=(
            Section(
                title="Numbers",
                text=("Before.",),
                header=("what", "value"),
                rows=[("a", 1.23456789), ("b", 2.0)],
                figures={"two_lines": figure},
                notes=("After.",),
            ),
            Section(title="Words only", text=("Nothing to count.",)),
        ),
    )


def test_a_page_has_headings_tables_and_pictures_in_order(tmp_path: Path) -> None:
    page = _report().write(tmp_path / "new" / "folder", "name")
    text = page.read_text(encoding="utf-8")
    wanted = [
        "# A page",
        "First.",
        "## Numbers",
        "Before.",
        "| a | 1.235 |",
        "![two lines](name-two_lines.png)",
        "After.",
    ]
    places = [text.index(part) for part in wanted]
    assert places == sorted(places)
    assert "| --- | ---: |" in text
    assert (page.parent / "name-two_lines.png").read_bytes().startswith(b"\x89PNG")


def test_json_holds_everything_but_the_pixels() -> None:
    document = json.loads(json.dumps(_report().to_dict()))
    assert document["sections"][0]["rows"][0] == {"what": "a", "value": 1.23456789}
    assert document["sections"][0]["figures"] == ["two_lines"]
    assert document["sections"][1]["rows"] == []


def test_a_scenario_without_measurements_says_so() -> None:
    scenario = ToyScenario()
    with pytest.raises(InvalidInputError, match="toy has no measurements"):
        scenario.calibration()
    with pytest.raises(InvalidInputError, match="toy draws no pictures"):
        scenario.picture(scenario.vector_env(1))
    assert tuple(scenario.capabilities()) == ()
    assert tuple(scenario.logs()) == ()


def test_the_data_folder_is_named_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLAAS_DATA_DIR", raising=False)
    with pytest.raises(ConfigurationError, match="set RLAAS_DATA_DIR"):
        data_directory()
    with pytest.raises(ConfigurationError, match="does not exist"):
        data_directory(tmp_path / "missing")
    monkeypatch.setenv("RLAAS_DATA_DIR", str(tmp_path))
    assert data_directory() == tmp_path
