"""All of the housekeeping in one call, and kept apart from whoever must not be disturbed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.lake_records import START_US, decision, outcome

from rlaas.lake import Lake, LakePlan, create_dataset, keep_up, read_across, update_training, update_transitions
from rlaas.lake.rows import decision_rows, outcome_rows

DAY_S = 86_400
DAY_US = DAY_S * 10**6


class Watched(Lake):
    """Says when files may be exchanged."""

    held = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        self.held += 1
        yield


def fill(lake: Lake) -> None:
    for number in range(1, 4):
        for age in (0, 40):
            name = f"d{number}-{age}"
            made = decision_rows([decision(name, time_us=START_US - age * DAY_US)])
            seen = outcome_rows([outcome(f"r{name}", name, received_us=START_US - age * DAY_US, terminated=True)])
            lake.append_once("bronze.decisions", {f"d{age}": [(number, lambda made=made: made)]})
            lake.append_once("bronze.outcomes", {f"o{age}": [(number, lambda seen=seen: seen)]})
    update_transitions(lake)


def test_one_call_keeps_a_lake_in_order(tmp_path: Path) -> None:
    lake, plan = Lake(tmp_path), LakePlan()
    fill(lake)
    done, moved = keep_up(lake, plan, now_s=START_US / 1e6)
    assert {one.table: one.to_warm for one in moved if one.to_warm} == {
        "bronze.decisions": 3,
        "bronze.outcomes": 3,
        "silver.transitions": 3,
    }
    assert {one.table: one.files for one in done}["bronze.decisions"] == 1
    versions = lake.versions()
    again, moved = keep_up(Lake(tmp_path), plan, now_s=START_US / 1e6 + 60)
    assert not any(one.merged or one.sorted_days or one.deleted or one.checkpoint for one in again)
    assert not any(one.to_warm or one.to_cold for one in moved)
    assert lake.versions() == versions
    # The join goes on as if nothing had happened, and nothing of what was moved comes back.
    late = outcome_rows([outcome("late", "d1-0", revision=1, received_us=START_US + 1, terminated=True)])
    lake.append_once("bronze.outcomes", {"late": [(1, lambda: late)]})
    update_transitions(lake)
    assert lake.count("silver.transitions") == 3
    assert read_across(lake, plan.retention, "silver.transitions").num_rows == 6


@pytest.mark.parametrize(
    "work",
    [
        lambda lake: keep_up(lake, LakePlan(), now_s=START_US / 1e6),
        lambda lake: lake.compact("bronze.decisions"),
        lambda lake: update_training(lake, "network5g", ["latency"]),
        lambda lake: create_dataset(lake, "name", "silver.transitions"),
    ],
)
def test_whoever_exchanges_files_says_so(tmp_path: Path, work: Callable[[Lake], object]) -> None:
    lake = Watched(tmp_path)
    fill(lake)
    lake.held = 0
    work(lake)
    assert lake.held


def test_several_may_keep_a_lake_in_order_at_once(tmp_path: Path) -> None:
    lake, plan = Lake(tmp_path), LakePlan()
    fill(lake)
    before = {
        table: sorted(map(str, lake.read(table).to_pylist())) for table in ("bronze.decisions", "bronze.outcomes")
    }
    ready = threading.Barrier(3)
    failures: list[Exception] = []

    def work() -> None:
        ready.wait()
        try:
            keep_up(Lake(tmp_path), plan, now_s=START_US / 1e6)
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for table, rows in before.items():
        assert sorted(map(str, read_across(lake, plan.retention, table).to_pylist())) == rows
        assert lake.count(table) == 3
