"""Ready-to-train rows: whatever happens to silver, gold says what a naive recomputation says."""

from __future__ import annotations

import datetime
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lake_records import START_US, decision, outcome

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.lake import Lake, gold, update_transitions
from rlaas.lake.gold import training_rows, update_training
from rlaas.lake.lifecycle import Ages, RetentionPlan
from rlaas.lake.retention import retain
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.lake.schemas import table_spec, training_table

TABLE = "gold.network5g_training"
ORDER = ("latency", "energy")
DAY_US = 86_400_000_000


def naive(rows: pa.Table, scenario: str, order: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """One row after the other, as the documentation says it."""
    found = {}
    for row in rows.to_pylist():
        values = [dict(row["outcome"]).get(name) for name in order]
        ready = row["next_observation"] is not None or row["terminated"] or row["truncated"]
        if row["scenario"] == scenario and ready and all(v is not None and math.isfinite(v) for v in values):
            found[row["decision_id"]] = {**row, "objectives": list(order), "reward": values}
    return found


def stored(lake: Lake, table: str = TABLE) -> dict[str, dict[str, Any]]:
    rows = lake.read(table).to_pylist()
    found = {row["decision_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


class Site:
    """Decisions and outcomes that arrive."""

    def __init__(self, root: Path) -> None:
        self.lake = Lake(root)
        self._part = 0

    def decide(self, *names: str, **changes: Any) -> None:
        self._part += 1
        records = [decision(name, **{"time_us": START_US + int(name[1:]), **changes}) for name in names]
        self.lake.append_once("bronze.decisions", {"d": [(self._part, lambda: decision_rows(records))]})

    def observe(self, *names: str, **changes: Any) -> None:
        self._part += 1
        records = [outcome(f"r{self._part}-{name}", name, **changes) for name in names]
        self.lake.append_once("bronze.outcomes", {"o": [(self._part, lambda: outcome_rows(records))]})

    def update(self, order: tuple[str, ...] = ORDER) -> gold.TrainingUpdate:
        update_transitions(self.lake)
        return update_training(self.lake, "network5g", order)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "lake")


def test_a_row_comes_when_it_is_ready(site: Site) -> None:
    site.decide("d0", session="s", step=0)
    site.decide("d1", session="s", step=1)
    site.observe("d0")
    assert (site.update().how, site.update().how) == ("rebuild", "nothing")
    assert stored(site.lake)["d0"]["reward"] == [12.5, 3.0]
    site.observe("d1")
    assert site.update().rows == 1  # nobody knows what follows
    site.decide("d2", session="s", step=2)
    done = site.update()
    assert (done.how, done.written, done.removed, done.rows) == ("append", 1, 0, 2)
    assert stored(site.lake)["d1"]["next_observation"] == [0.25, -1.0]
    site.observe("d1", revision=1, outcome={"latency": 1.0, "energy": 2.0})
    done = site.update(ORDER)
    assert (done.how, done.written, done.removed, done.rows) == ("merge", 1, 0, 2)
    assert stored(site.lake)["d1"]["reward"] == [1.0, 2.0]
    site.observe("d1", revision=2, outcome={"latency": 1.0})
    done = site.update()
    assert (done.how, done.written, done.removed, done.rows) == ("merge", 0, 1, 1)
    assert site.lake.read(TABLE).schema == table_spec(TABLE).schema


def test_another_order_makes_all_rows_anew(site: Site) -> None:
    site.decide("d0")
    site.observe("d0", terminated=True)
    site.update()
    assert site.update(("energy", "latency")).how == "rebuild"
    row = stored(site.lake)["d0"]
    assert (row["objectives"], row["reward"]) == (["energy", "latency"], [3.0, 12.5])


_STEP = st.one_of(
    st.tuples(st.just("decide"), st.integers(0, 11), st.sampled_from(["network5g", "recsys"])),
    st.tuples(st.just("observe"), st.integers(0, 11), st.integers(0, 3)),
    st.tuples(st.just("update"), st.just(0), st.just(0)),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(_STEP, min_size=4, max_size=16))
def test_gold_is_the_naive_recomputation(steps: list[tuple[str, int, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        for what, number, detail in [*steps, ("update", 0, 0)]:
            if what == "decide":
                # Two days, sessions of three steps; the same id may come twice, even at another time.
                time_us = START_US + (number % 2) * DAY_US + number
                place = {"session": f"s{number // 3}", "step": number % 3}
                site.decide(f"d{number}", time_us=time_us, scenario=detail, **place)
            elif what == "observe":
                values = ({"latency": 1.0, "energy": 2.0}, {"latency": 3.0}, {"latency": 1.0, "energy": 5.0})
                site.observe(f"d{number}", revision=detail, outcome=values[detail % 3], terminated=detail == 2)
            else:
                site.update()
                source = site.lake.read("silver.transitions")
                assert stored(site.lake) == naive(source, "network5g", ORDER)


def test_a_silver_without_a_feed_is_read_whole_once(site: Site) -> None:
    spec = table_spec("silver.transitions")
    DeltaTable.create(site.lake.location(spec.name), schema=spec.schema, partition_by=list(spec.partition_by))
    site.decide("d0")
    site.observe("d0", terminated=True)
    assert site.update().how == "rebuild"
    site.decide("d1")
    site.observe("d1", terminated=True)
    assert site.update().how == "append"
    assert set(stored(site.lake)) == {"d0", "d1"}


def test_rows_whose_source_was_archived_stay(site: Site) -> None:
    site.decide("d0", time_us=START_US - 90 * DAY_US)
    site.decide("d1")
    site.observe("d0", "d1", terminated=True)
    site.update()
    wanted = stored(site.lake)
    day = datetime.datetime.fromtimestamp(START_US / 1e6, datetime.UTC).date()
    plan = RetentionPlan(tables={TABLE: Ages(hot_days=300)})
    retain(site.lake, plan, today=day)
    assert site.lake.count("silver.transitions") == 1
    assert site.update().written == 0
    assert stored(site.lake) == wanted
    site.update(("energy", "latency"))  # made anew, and still all there
    assert {name: row["reward"] for name, row in stored(site.lake).items()} == {"d0": [3.0, 12.5], "d1": [3.0, 12.5]}


def test_of_two_updates_at_once_one_starts_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.decide("d0", "d1")
    site.observe("d0", terminated=True)
    site.update()
    site.observe("d1", terminated=True)
    real, tries = gold._apply, []

    def overtaken(*args: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            assert update_training(Lake(site.lake.root), "network5g", ORDER).written == 1
            with pytest.raises(CommitFailedError):
                real(*args)
            raise CommitFailedError("overtaken")
        return real(*args)

    monkeypatch.setattr(gold, "_apply", overtaken)
    site.update()
    assert set(stored(site.lake)) == {"d0", "d1"}


def test_the_mark_and_the_rows_are_one_commit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.decide("d0", "d1")
    site.observe("d0", terminated=True)
    site.update()
    site.observe("d1", terminated=True)
    update_transitions(site.lake)

    def die(*args: Any, **options: Any) -> None:
        write_deltalake(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(gold, "write_deltalake", die)
    with pytest.raises(KeyboardInterrupt):
        update_training(site.lake, "network5g", ORDER)
    monkeypatch.undo()
    assert update_training(site.lake, "network5g", ORDER).how == "nothing"
    assert set(stored(site.lake)) == {"d0", "d1"}


def test_tenants_and_scenarios_are_apart(tmp_path: Path) -> None:
    one, other = Site(tmp_path), Site(tmp_path)
    other.lake = Lake(tmp_path, "other")
    one.decide("d0")
    one.observe("d0", terminated=True)
    other.lake.append_once("bronze.decisions", {"x": [(1, lambda: decision_rows([decision("d5", tenant="other")]))]})
    row = outcome("r", "d5", tenant="other", terminated=True)
    other.lake.append_once("bronze.outcomes", {"x": [(1, lambda: outcome_rows([row]))]})
    one.update()
    other.update()
    assert (set(stored(one.lake)), set(stored(other.lake))) == ({"d0"}, {"d5"})
    assert update_training(one.lake, "it's/another one", ORDER).rows == 0
    assert "gold.it_s_another_one_training" in one.lake.versions()


def test_names_and_orders() -> None:
    assert training_table("heatpump:HeatPump-2") == "gold.heatpump_heatpump_2_training"
    with pytest.raises(ConfigurationError, match=r"gold\.<scenario>_training"):
        table_spec("gold.Network5G_training")
    lake = Lake("/nowhere")
    for order in ((), ("latency", "latency")):
        with pytest.raises(InvalidInputError, match="one or more, each once"):
            update_training(lake, "network5g", order)
    empty = table_spec("silver.transitions").schema.empty_table()
    assert training_rows(empty, "network5g", ORDER).num_rows == 0
