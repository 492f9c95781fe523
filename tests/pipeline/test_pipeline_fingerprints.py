"""Keys: the same for the same content, another for anything that matters, and a sentence for each difference."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from rlaas.errors import ConfigurationError
from rlaas.pipeline.continuous.fingerprints import Room, code_fingerprint, differences, key_of, room_of

SOURCE = '''"""A room."""

LIMIT = 3


def double(x):
    """Twice as much."""
    return 2 * x
'''


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own on the path, with a package inside and a table."""
    folder = tmp_path / "some_room"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE)
    (folder / "inner" / "__init__.py").write_text("VALUE = 1\n")
    (folder / "table.json").write_text("[1]")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "some_room"]:
        del sys.modules[name]


def test_keys_do_not_depend_on_the_order_or_on_how_sequences_are_held() -> None:
    assert key_of({"a": (1, 2), "b": {"c": None, "d": 0.1}}) == key_of({"b": {"d": 0.1, "c": None}, "a": [1, 2]})
    assert key_of({"a": 1}) != key_of({"a": 1.5})
    with pytest.raises(TypeError):
        key_of({"a": object()})
    with pytest.raises(ValueError, match="JSON"):
        key_of({"a": float("nan")})


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("return 2 * x", "return 2 * x  # twice", True),
        ("return 2 * x", "\n    return (2 * x)", True),
        ("Twice as much.", "Two times.", True),
        ("return 2 * x", "return 3 * x", False),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("LIMIT = 3", 'LIMIT = "3"', False),
    ],
)
def test_only_code_that_does_something_counts(room: Path, before: str, after: str, same: bool) -> None:
    fingerprint = code_fingerprint(Room("some_room"))
    (room / "__init__.py").write_text(SOURCE.replace(before, after))
    assert (code_fingerprint(Room("some_room")) == fingerprint) is same


def test_tables_and_inner_packages_count_too(room: Path) -> None:
    deep, shallow = code_fingerprint(Room("some_room")), code_fingerprint(Room("some_room", deep=False))
    (room / "inner" / "__init__.py").write_text("VALUE = 2\n")
    assert code_fingerprint(Room("some_room")) != deep
    assert code_fingerprint(Room("some_room", deep=False)) == shallow
    (room / "table.json").write_text("[2]")
    assert code_fingerprint(Room("some_room", deep=False)) != shallow


def test_a_room_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="code of no_such_room cannot be found"):
        code_fingerprint(Room("no_such_room"))


def test_the_room_of_a_scenario_is_its_package_or_its_module() -> None:
    from pipeline_toys import Named

    from rlaas.scenarios import load

    assert room_of(load("recsys")).name == "rlaas.scenarios.recsys"
    assert room_of(Named()).name == "pipeline_toys"


def test_differences_are_sentences() -> None:
    before = {
        "config": {"training": {"steps": 100, "hidden": [64, 64], "sac": {"tau": 0.01}}},
        "lake": {"silver.transitions": 3},
        "code": {"rlaas.training": "aa", "rlaas.lake": "bb"},
        "libraries": {"torch": "2.12.0"},
        "stages": {"data": "xx"},
        "champion": "version 1",
    }
    after = {
        "config": {"training": {"steps": 200, "hidden": [64], "sac": {"tau": 0.01}}},
        "lake": {"silver.transitions": 4, "bronze.decisions": 1},
        "code": {"rlaas.training": "cc", "rlaas.lake": "bb"},
        "libraries": {"torch": "2.13.0"},
        "stages": {"data": "yy"},
        "champion": "none",
    }
    assert differences(before, after) == [
        "training.steps changed (100 -> 200)",
        "training.hidden changed ([64, 64] -> [64])",
        "silver.transitions version 3 -> 4",
        "bronze.decisions version none -> 1",
        "code of rlaas.training changed",
        "torch 2.12.0 -> 2.13.0",
        "the result of data changed",
        "champion changed (version 1 -> none)",
    ]
    assert differences(before, before) == []
