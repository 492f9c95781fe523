"""Long files first, so that no process is left alone with one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support.order import SECONDS, longest_first


@dataclass
class _Test:
    nodeid: str
    ray: bool = False

    def get_closest_marker(self, name: str) -> object | None:
        return "here" if self.ray and name == "ray" else None


def test_the_longest_file_comes_first_and_its_tests_stay_in_order() -> None:
    names = ["a.py::x", "a.py::y", "b.py::x", "tests/demo/test_demo_loop.py::z", "tests/demo/test_demo_loop.py::a"]
    found = longest_first([_Test(name, ray=name.startswith("b")) for name in names])
    assert [test.nodeid for test in found] == [names[3], names[4], names[2], names[0], names[1]]


def test_files_that_are_called_long_are_there(repository: Path) -> None:
    assert [name for name in SECONDS if not (repository / "tests" / name).is_file()] == []
