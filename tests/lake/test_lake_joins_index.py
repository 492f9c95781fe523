"""The index of the join: a cache that may be ahead, behind, gone or broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from naive_join import Writer
from support.lake_records import START_US, decision, outcome

from rlaas.errors import LakeError
from rlaas.lake import Lake, update_transitions
from rlaas.lake.joining.index import KeyIndex, row_keys
from rlaas.lake.rows import decision_rows, outcome_rows


def test_it_finds_what_it_was_given_and_says_how_far_it_came(tmp_path: Path) -> None:
    made = decision_rows([decision("a", session="s", step=3), decision("b", time_us=START_US + 1)])
    seen = outcome_rows([outcome("r", "a", outcome_id="o", revision=2), outcome("q", "x", received_us=START_US + 5)])
    with KeyIndex(tmp_path / "new" / "index.sqlite") as index:
        assert index.position("decisions", "table") == -1
        for _ in range(2):  # again makes no difference
            index.add({"decisions": made, "outcomes": seen}, {"decisions": ("table", 7), "outcomes": ("other", 4)})
        first, second = row_keys(made)
        assert index.decisions(["a", "b", "nobody"]) == {(START_US, first), (START_US + 1, second)}
        assert index.steps([("network5g", "s", 3), ("network5g", "s", 4)]) == {(START_US, first)}
        assert index.revisions([("o", 2), ("o", 1)]) == {(START_US, row_keys(seen)[0])}
        assert index.outcomes(["a"]) == {(START_US, row_keys(seen)[0])}
        assert index.waiting(START_US, START_US + 5) == set()
        assert index.waiting(START_US, START_US + 6) == {(START_US + 5, row_keys(seen)[1])}
        index.add({"decisions": decision_rows([decision("x")])}, {"decisions": ("table", 5)})
        assert index.waiting(0, START_US + 6) == set()
        assert index.position("decisions", "table") == 7  # never back
        assert index.position("decisions", "a table made anew") == -1
    with KeyIndex(tmp_path / "new" / "index.sqlite") as index:
        assert index.position("outcomes", "other") == 4
        index.clear()
        assert index.position("outcomes", "other") == -1
        assert index.decisions(["a"]) == set()


def test_one_of_another_version_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with KeyIndex(path) as index:
        index.add({"decisions": decision_rows([decision("a")])}, {"decisions": ("table", 1)})
        index._db.execute("PRAGMA user_version = 77")
    with KeyIndex(path) as index:
        assert index.position("decisions", "table") == -1
        assert index.decisions(["a"]) == set()


def test_one_that_cannot_be_read_is_named_and_may_be_deleted(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = Writer(lake)
    writer.add([decision("a")], [outcome("r", "a")])
    assert update_transitions(lake) == 1
    (path,) = (tmp_path / ".index").iterdir()
    content = path.read_bytes()
    writer.add([decision("b")], [outcome("q", "b")])
    for broken in (b"no database" * 1000, content[:4096] + b"\xff" * (len(content) - 4096)):
        path.write_bytes(broken)
        with pytest.raises(LakeError, match="it is a cache and may be deleted"):
            update_transitions(lake)
    path.unlink()
    assert update_transitions(lake) == 2


def test_one_that_is_ahead_of_the_tables_does_no_harm(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    writer = Writer(lake)
    writer.add([decision("a", session="s", step=0)], [outcome("r", "a")])
    update_transitions(lake)
    writer.add([decision("b", session="s", step=1)], [outcome("q", "b")])
    later = lake.open("bronze.decisions")
    assert later is not None
    with KeyIndex(tmp_path / ".index" / "join-default.sqlite") as index:
        index.add({"decisions": lake.read("bronze.decisions")}, {"decisions": (str(later.metadata().id), 99)})
    assert update_transitions(lake) == 2
    rows = {row["decision_id"]: row["next_observation"] for row in lake.read("silver.transitions").to_pylist()}
    assert rows == {"a": [0.25, -1.0], "b": None}


def test_it_lies_where_it_is_told_to(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    Writer(lake).add([decision("a")], [outcome("r", "a")])
    assert update_transitions(lake, index=tmp_path / "elsewhere.sqlite") == 1
    assert (tmp_path / "elsewhere.sqlite").exists()
    assert not (tmp_path / "lake" / ".index").exists()
