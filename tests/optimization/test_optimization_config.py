from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rlaas.errors import ConfigurationError
from rlaas.optimization import OptimizationConfig, load_optimization_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["network5g", "recsys"])
def test_shipped_files_load(name: str) -> None:
    config = load_optimization_config(ROOT / "configs" / "optimization" / f"{name}.yaml")
    assert config.scenario == name
    assert config.tunable == "static"
    assert len(set(config.seeds)) == len(config.seeds) >= 3


def test_every_shipped_file_is_known_to_the_test_above() -> None:
    assert {p.stem for p in (ROOT / "configs" / "optimization").iterdir()} == {"network5g", "recsys"}


def test_is_frozen() -> None:
    config = OptimizationConfig(scenario="toy")
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "scenario: x\ngeneration: 3\n",
            "unknown key 'generation'; allowed: algorithm, deadline_seconds, directions, generations, options",
        ),
        ("scenario: x\ngenerations: 0\n", "generations: must be >= 1"),
        ("scenario: x\nseeds: [1, -2]\n", "seeds.1: must be >= 0"),
        ("scenario: x\nseeds: []\n", "seeds: must have at least 1 item"),
        ("generations: 3\n", "scenario: is missing"),
        ("- a\n", "expected a mapping with keys algorithm"),
        ("a: [", "not YAML"),
    ],
)
def test_errors_name_file_key_and_what_is_allowed(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_optimization_config(file)
    assert str(file) in caught.value.message
    assert expected in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.yaml: cannot be read"):
        load_optimization_config(tmp_path / "absent.yaml")
