"""The event log: exact floats, torn ends, damage, other runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from spread_kit import sphere_problem

from rlaas.errors import ConflictError, NotFoundError, OperatorError
from rlaas.optimization.spread.events import Asked, EventLog, Told, read_events
from rlaas.optimization.spread.recipe import Recipe, Shape, packed, unpacked

HEADER = {"recipe": {"seed": 1}, "name": "größe"}


def _written(path: Path) -> bytes:
    with EventLog(path, HEADER) as log:
        log.asked(3, np.array([[0.1, 0.2], [0.3, 0.4]]))
        log.told([1, 0], np.array([[np.pi, np.nan], [-0.0, 5e-324]]), 1.25)
        log.ended("2 generations")
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    _written(tmp_path / "log")
    events = read_events(tmp_path / "log")
    assert events.header == {"schema_version": 1, **HEADER}
    asked, told = events.entries
    assert isinstance(asked, Asked)
    assert (asked.wanted, asked.given) == (3, 2)
    assert isinstance(told, Told)
    assert told.numbers == (1, 0)
    assert told.seconds == 1.25
    assert told.values.tobytes() == np.array([[np.pi, np.nan], [-0.0, 5e-324]]).tobytes()
    assert events.ended == "2 generations"


@given(arrays(np.float64, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5), elements=st.floats(width=64)))
def test_floats_come_back_to_the_last_bit(array: np.ndarray) -> None:
    back = unpacked(packed(array))
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_log_cut_anywhere_is_read_up_to_its_last_whole_line(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "log").unlink(missing_ok=True)
    content = _written(tmp_path / "log")
    header = content.index(b"\n") + 1
    cut = data.draw(st.integers(header, len(content)))
    (tmp_path / "log").write_bytes(content[:cut])
    events = read_events(tmp_path / "log")
    whole = content[:cut].rfind(b"\n") + 1
    assert events.size == whole
    assert len(events.entries) == min(2, content[:whole].count(b"\n") - 1)
    with EventLog(tmp_path / "log", HEADER, resume=True) as log:  # the torn end is gone, what follows is whole
        log.asked(1, np.array([[0.5, 0.5]]))
    again = read_events(tmp_path / "log")
    assert len(again.entries) == len(events.entries) + 1
    assert again.ended is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_before_the_end_is_never_read_over(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "log").unlink(missing_ok=True)
    content = bytearray(_written(tmp_path / "log"))
    last = content[:-1].rfind(b"\n")
    place = data.draw(st.integers(0, last - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(OperatorError, match=r"event log .*: line \d+ of \d+ is damaged"):
        read_events(tmp_path / "log")


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    content = _written(tmp_path / "log")
    with pytest.raises(ConflictError, match="holds a run already; resume it"):
        EventLog(tmp_path / "log", HEADER)
    with pytest.raises(ConflictError, match="it differs in recipe"):
        EventLog(tmp_path / "log", {**HEADER, "recipe": {"seed": 2}}, resume=True)
    assert (tmp_path / "log").read_bytes() == content


def test_what_is_no_log_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no event log"):
        read_events(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(OperatorError, match="does not begin with a header"):
        read_events(tmp_path / "empty")
    (tmp_path / "text").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(OperatorError, match="line 1 of 3 is damaged"):
        read_events(tmp_path / "text")


def test_a_log_of_another_version_is_refused(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", {"schema_version": 2}):
        pass
    with pytest.raises(OperatorError, match="schema version 2; this rlaas reads 1"):
        read_events(tmp_path / "log")


def test_a_disk_that_takes_no_more_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"cannot be written: .*No space left"):
        EventLog("/dev/full", HEADER)


def test_a_recipe_and_a_shape_come_back() -> None:
    directions = np.array([[1.0, 0, 0], [0, 1, 0], [0.1, 0.2, 0.7]])
    recipe = Recipe(
        seed=7, population=4, initial=np.full((2, 6), 1 / 3), directions=directions, options={"eta_mutation": 15.0}
    )
    back = Recipe.from_dict(recipe.to_dict())
    assert back.to_dict() == recipe.to_dict()
    assert back.initial.tobytes() == recipe.initial.tobytes()
    shape = Shape.of(sphere_problem())
    assert Shape.from_dict(shape.to_dict()).to_dict() == shape.to_dict()
    with pytest.raises(OperatorError, match="no function to evaluate"):
        shape.evaluate(np.zeros((1, 6)))
