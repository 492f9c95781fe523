"""The documentation says what is true: links lead somewhere, commands exist, examples run."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from rlaas import scenarios
from rlaas.cli.main import app

LINK = re.compile(r"\[[^\]]*\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"^(?:PYTHONPATH=\S+ )?rlaas (\w[\w-]*)", re.MULTILINE)


def _documents(repository: Path) -> list[Path]:
    return [*repository.glob("*.md"), *repository.glob("docs/**/*.md"), *repository.glob("clusters/**/*.md")]


def test_links_lead_somewhere(repository: Path) -> None:
    broken = [
        f"{document.relative_to(repository)}: {target}"
        for document in _documents(repository)
        for target in LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert not broken


def test_commands_of_the_readme_exist(repository: Path) -> None:
    named = set(COMMAND.findall((repository / "README.md").read_text()))
    known = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    assert named
    assert named <= known


def test_make_targets_of_the_readme_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"(?:`|^ *)make ([a-z-]+)", (repository / document).read_text(), re.MULTILINE))
        assert named
        assert named <= targets, document


def test_python_example_of_the_readme_runs(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(blocks[0])
    runpy.run_path(str(script))
    assert "latency" in capsys.readouterr().out


def test_the_example_scenario_is_complete_and_short(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = repository / "docs" / "examples"
    assert len((folder / "heatpump.py").read_text().splitlines()) <= 60
    monkeypatch.syspath_prepend(str(folder))
    scenario = scenarios.load("heatpump:HeatPump")
    low = scenarios.evaluate(scenario, scenario.tunables["static"].controller([0.5]), [1, 2], steps=90)
    high = scenarios.evaluate(scenario, scenario.tunables["static"].controller([2.0]), [1, 2], steps=90)
    assert low.mean()[1] < high.mean()[1]
    assert low.mean()[0] > high.mean()[0]
    problem = scenarios.ConfigurationProblem(scenario, "static", seeds=[1], steps=10)
    assert problem.evaluate([[1.0], [2.0]]).shape == (2, 2)
    sys.modules.pop("heatpump", None)


def test_every_rlaas_setting_in_the_documentation_exists(repository: Path) -> None:
    from rlaas.settings import Settings

    known = {f"RLAAS_{name.upper()}" for name in Settings.model_fields} | {"RLAAS_DATA_DIR", "RLAAS_KUBERAY_SCHEMAS"}
    for document in _documents(repository):
        named = set(re.findall(r"\bRLAAS_[A-Z_]*[A-Z]\b", document.read_text()))
        assert named <= known, document
