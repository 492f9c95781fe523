from __future__ import annotations

from pathlib import Path

from support.lake_records import decision, outcome

from rlaas.lake import Lake, verify
from rlaas.lake.rows import decision_rows, outcome_rows


def test_what_is_missing_and_what_is_there_too_often(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    stored = [decision(name) for name in ("a", "b", "b", "b", "unasked", "unasked")]
    lake.append_once("bronze.decisions", {"app": [(1, lambda: decision_rows(stored))]})
    lake.append_once("bronze.outcomes", {"app": [(1, lambda: outcome_rows([outcome("r", "a")]))]})
    found = verify(lake, decisions=["a", "b", "lost", "a"], outcomes=["r"])
    assert (found.decisions.acknowledged, found.decisions.in_bronze, found.decisions.duplicates) == (3, 2, 2)
    assert found.decisions.missing == ("lost",)
    assert not found.decisions.exactly_once
    assert found.outcomes.exactly_once
    assert not found.exactly_once
    assert verify(lake, decisions=["a"], outcomes=["r"]).exactly_once


def test_a_duplicate_alone_is_not_exactly_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append_once("bronze.decisions", {"app": [(1, lambda: decision_rows([decision("a"), decision("a")]))]})
    found = verify(lake, decisions=["a"])
    assert not found.decisions.missing
    assert not found.exactly_once


def test_nothing_acknowledged_is_nothing_to_miss(tmp_path: Path) -> None:
    found = verify(Lake(tmp_path))
    assert found.exactly_once
    assert found.decisions.acknowledged == found.outcomes.acknowledged == 0
    assert verify(Lake(tmp_path), outcomes=["r"]).outcomes.missing == ("r",)
