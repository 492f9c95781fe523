"""Contracts over real Delta tables: what breaks which rule, what is listed, and what a report says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lake_records import START_US, decision, outcome
from support.processes import RLAAS, environment

from rlaas import scenarios
from rlaas.errors import ConfigurationError
from rlaas.lake import DecisionRecord, Lake, OutcomeRecord, update_transitions
from rlaas.lake.ingestion.events import EventRecord, event_rows
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.lake.schemas import table_spec
from rlaas.lake.validation import (
    ContractConfig,
    TableContract,
    TableReport,
    ValidationConfig,
    check_transitions,
    load_validation_config,
    newest_reports,
    validate,
)
from rlaas.lake.validation.rules import findings
from rlaas.lake.validation.tables import Worlds, rules_of

NOW_US = START_US + 7200 * 1_000_000
SCENARIO = scenarios.load("recsys")
FEATURES = len(SCENARIO.observation_names)
_LOW, _HIGH = SCENARIO.single_observation_space.low, SCENARIO.single_observation_space.high
MIDDLE = np.where(np.isfinite(_LOW + _HIGH), 0.5 * (_LOW + _HIGH), np.where(np.isfinite(_LOW), _LOW, 0.0)).tolist()
GOOD_OUTCOME = {objective.name: 1.0 for objective in SCENARIO.objectives}


def decided(name: str, **changes: Any) -> DecisionRecord:
    return decision(name, **{"scenario": "recsys", "observation": MIDDLE, "action": [0.0], **changes})


def observed(name: str, of: str, **changes: Any) -> OutcomeRecord:
    return outcome(name, of, **{"outcome": GOOD_OUTCOME, "truncated": True, **changes})


def event(name: str, **changes: Any) -> EventRecord:
    values: dict[str, Any] = {
        "receipt_id": name,
        "tenant": "default",
        "source": "topic",
        "kind": "load",
        "time_us": START_US,
        "received_us": START_US,
        "values": {"load": 0.5},
        "producer": "test",
    }
    return EventRecord(**{**values, **changes})


def append(lake: Lake, table: str, rows: pa.Table, name: str = "a") -> None:
    lake.append_once(table, {name: [(1, lambda: rows)]})


def checked(lake: Lake, table: str, config: ValidationConfig | None = None, **options: Any) -> TableReport:
    (report,) = validate(lake, config, tables=[table], now_us=NOW_US, **options)
    return report


def broken(report: TableReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


def listed(lake: Lake, table: str) -> dict[str, str]:
    rows = lake.read(table, ["receipt_id", "reason", "stage"]).to_pylist()
    assert {row["stage"] for row in rows} <= {"validate"}
    assert len({row["receipt_id"] for row in rows}) == len(rows)
    return {row["receipt_id"]: row["reason"] for row in rows}


ZEROS = [0.0] * FEATURES


@pytest.mark.parametrize(
    ("changes", "rule", "reason"),
    [
        ({"observation": MIDDLE[1:]}, "observation", f"observation is not {FEATURES} finite numbers"),
        ({"action": [0.5]}, "action", "action 0 is 0.5, outside the scenario's space"),
        ({"action": [1e6]}, "action", "action 0 is 1e+06, outside the scenario's space"),
        ({"scenario": "nowhere"}, "scenario", "unknown scenario nowhere"),
        ({"time_us": NOW_US + 400_000_000}, "time", f"time_us is {NOW_US + 400_000_000}"),
        ({"preference": {"nothing": 1.0}}, "preference", "preference names nothing, which is no objective"),
        (
            {"preference": {SCENARIO.objectives[0].name: 0.5}},
            "preference",
            "preference sums to 0.5, or has a negative weight",
        ),
    ],
    ids=["length", "fraction", "choice", "scenario", "future", "objective", "sum"],
)
def test_a_decision_that_breaks_a_rule_is_listed_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], rule: str, reason: str
) -> None:
    lake = Lake(tmp_path / "lake")
    append(lake, "bronze.decisions", decision_rows([decided("good"), decided("bad", **changes)]))
    report = checked(lake, "bronze.decisions")
    assert broken(report) == {rule}
    assert (report.rows, report.quarantined, report.passed) == (2, 1, False)
    assert listed(lake, "quarantine.decisions") == {"bad": reason}
    assert lake.count("bronze.decisions") == 2


def test_a_row_is_listed_once_with_all_its_reasons(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    bad = decided("bad", observation=[1.0], action=[0.5])
    append(lake, "bronze.decisions", decision_rows([bad, bad, decided("good")]))
    report = checked(lake, "bronze.decisions")
    assert broken(report) == {"observation", "action", "unique"}
    rows = lake.read("quarantine.decisions").to_pylist()
    first = f"observation is not {FEATURES} finite numbers; action 0 is 0.5, outside the scenario's space"
    assert sorted(row["reason"] for row in rows) == sorted([f"decision_id bad occurs before; {first}", first])
    assert json.loads(rows[0]["payload"])["observation"] == [1.0]


def test_outcomes_refer_to_decisions_and_to_objectives(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append(lake, "bronze.decisions", decision_rows([decided("d1"), decided("d2")]))
    rows = [
        observed("r1", "d1"),
        observed("r2", "d2", outcome={"something": 1.0}),
        observed("r3", "nobody"),
        observed("r4", "not-yet", received_us=NOW_US - 1),
    ]
    append(lake, "bronze.outcomes", outcome_rows(rows))
    report = checked(lake, "bronze.outcomes")
    assert broken(report) == {"referential", "outcome"}
    missing = SCENARIO.objectives[0].name
    assert listed(lake, "quarantine.outcomes") == {
        "r2": f"outcome lacks a finite {missing}",
        "r3": "no decision nobody",
    }


def test_a_second_run_doubles_nothing_and_a_row_that_came_right_leaves_the_list(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append(lake, "bronze.decisions", decision_rows([decided("d1", observation=[1.0])]))
    append(lake, "bronze.outcomes", outcome_rows([observed("r1", "d1"), observed("r2", "d2")]))
    first = validate(lake, now_us=NOW_US)
    before = {name: lake.version(name) for name in ("quarantine.decisions", "quarantine.outcomes")}
    again = validate(lake, now_us=NOW_US)
    assert {name: lake.version(name) for name in before} == before
    assert [report.quarantined for report in first] == [report.quarantined for report in again] == [1, 1]
    assert set(listed(lake, "quarantine.outcomes")) == {"r2"}
    append(lake, "bronze.decisions", decision_rows([decided("d2")]), "b")
    assert broken(checked(lake, "bronze.outcomes")) == set()
    assert listed(lake, "quarantine.outcomes") == {}
    assert set(listed(lake, "quarantine.decisions")) == {"d1"}


def test_what_other_stages_refused_stays(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append(lake, "bronze.outcomes", outcome_rows([observed("r1", "nobody")]))
    update_transitions(lake, now_us=NOW_US)
    checked(lake, "bronze.outcomes")
    stages = lake.read("quarantine.outcomes", ["stage"]).column("stage").to_pylist()
    assert sorted(stages) == ["join", "validate"]


def test_transitions_are_checked_with_their_successors(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    steps = [decided(f"d{i}", session="s", step=i, time_us=START_US + i) for i in range(3)]
    steps[1] = decided("d1", session="s", step=1, time_us=START_US + 1, observation=[0.0])
    append(lake, "bronze.decisions", decision_rows(steps))
    append(lake, "bronze.outcomes", outcome_rows([observed(f"r{i}", f"d{i}", truncated=i == 2) for i in range(3)]))
    update_transitions(lake)
    report = checked(lake, "silver.transitions")
    assert broken(report) == {"observation", "next_observation"}
    assert set(listed(lake, "quarantine.transitions")) == {"d0", "d1"}


def test_values_of_events_have_ranges(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [event("e1"), event("e2", values={"load": 1.5, "x": 9.0}), event("e3", values={}), event("e3")]
    append(lake, "bronze.events", event_rows(rows))
    config = ValidationConfig(tables={"bronze.events": TableContract(ranges={"load": (0.0, 1.0)})})
    report = checked(lake, "bronze.events", config)
    assert broken(report) == {"range.load", "unique"}
    assert listed(lake, "quarantine.events") == {"e2": "load is 1.5", "e3": "receipt_id e3 occurs before"}


def test_clauses_about_the_table_as_a_whole(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [decided("d1", session="s"), decided("d2")]
    append(lake, "bronze.decisions", decision_rows(rows))
    contract = TableContract(min_rows=3, complete={"session": 0.6, "unit": 0.0}, max_age_s=7199)
    report = checked(lake, "bronze.decisions", ValidationConfig(tables={"bronze.decisions": contract}))
    found = {check.name: check for check in report.checks}
    assert broken(report) == {"rows", "complete.session", "fresh"}
    assert (found["complete.session"].measured, found["fresh"].measured) == (0.5, 7200.0)
    easier = contract.model_copy(update={"max_age_s": 7200.0, "min_rows": 2, "complete": {"session": 0.5}})
    assert checked(lake, "bronze.decisions", ValidationConfig(tables={"bronze.decisions": easier})).passed
    assert lake.version("quarantine.decisions") is None


def test_only_the_newest_days_are_checked_and_older_listings_stay(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    day = 86_400_000_000
    rows = [decided(f"d{i}", time_us=START_US - i * day, observation=[1.0]) for i in range(4)]
    append(lake, "bronze.decisions", decision_rows(rows))
    assert checked(lake, "bronze.decisions", ValidationConfig(last_days=None)).quarantined == 4
    assert checked(lake, "bronze.decisions", ValidationConfig(last_days=2)).quarantined == 2
    assert len(listed(lake, "quarantine.decisions")) == 4


def test_a_share_of_bad_rows_may_be_allowed(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [decided(f"d{i}", observation=[1.0] if i == 0 else MIDDLE) for i in range(4)]
    append(lake, "bronze.decisions", decision_rows(rows))
    for allowed, passes in ((0.25, True), (0.24, False)):
        config = ValidationConfig(tables={"bronze.decisions": TableContract(max_bad=allowed)})
        report = checked(lake, "bronze.decisions", config)
        assert (report.passed, report.quarantined) == (passes, 1)


def test_pandera_finds_nulls_types_and_bounds_row_by_row() -> None:
    spec = table_spec("bronze.decisions")
    rows = decision_rows([decided("d1"), decided("d2")])
    nulls = rows.set_column(4, "time_us", pa.array([1, None], type=pa.int64()))
    ages = rows.set_column(4, "time_us", pa.array(["1", "2"]))
    worlds, lake, contract = Worlds(), Lake("unused"), TableContract()
    rules = rules_of("bronze.decisions", rows, lake, worlds, contract, ValidationConfig(), NOW_US)
    for changed, name, bad in ((nulls, "time_us.null", [False, True]), (ages, "time_us.type", [True, True])):
        (found,) = [f for f in findings(spec, changed, rules if changed is nulls else []) if f.offence.bad.any()]
        assert (found.name, found.offence.bad.tolist()) == (name, bad)
        assert found.offence.text(1).startswith("time_us is ")
    wrong = rows.set_column(10, "variant_propensity", pa.array([0.0, float("nan")]))
    (found,) = [f for f in findings(spec, wrong, rules) if f.offence.bad.any()]
    assert (found.name, found.offence.bad.tolist()) == ("variant_propensity", [True, True])


@settings(max_examples=15)
@given(st.data())
def test_rows_outside_a_space_are_those_that_gymnasium_says_it_does_not_contain(data: st.DataObject) -> None:
    scenario = scenarios.load("network5g", size="small")
    observation, action = scenario.single_observation_space, scenario.single_action_space
    assert isinstance(observation, spaces.Box)
    assert isinstance(action, spaces.Box)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def drawn(space: spaces.Box) -> list[float]:
        low, high = np.maximum(space.low, -10.0).reshape(-1), np.minimum(space.high, 10.0).reshape(-1)
        values = rng.uniform(low, high)
        for _ in range(data.draw(st.integers(0, 2))):
            values[rng.integers(len(values))] += data.draw(st.sampled_from([-1e3, 1e3, np.nan, np.inf]))
        return [float(v) for v in values[: len(values) - data.draw(st.integers(0, 1))]]

    rows = [
        decided(f"d{i}", scenario="network5g", observation=drawn(observation), action=drawn(action)) for i in range(12)
    ]
    table = decision_rows(rows)
    worlds = Worlds(known={"network5g": scenario})
    rules = rules_of("bronze.decisions", table, Lake("unused"), worlds, TableContract(), ValidationConfig(), NOW_US)
    found = {f.name: f.offence.bad for f in findings(table_spec("bronze.decisions"), table, rules)}
    for name, space in (("observation", observation), ("action", action)):
        for row, record in enumerate(rows):
            values = np.array(getattr(record, name), dtype=np.float64)
            fits = values.shape == (int(np.prod(space.shape)),) and bool(np.isfinite(values).all())
            slack = 1e-5 * np.maximum(1.0, np.abs(values))
            wide = fits and spaces.Box(
                (space.low.reshape(-1) - slack).astype(np.float64),
                (space.high.reshape(-1) + slack).astype(np.float64),
                dtype=np.float64,
            ).contains(values)
            assert found[name][row] == (not wide)


def test_reports_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append(lake, "bronze.decisions", decision_rows([decided("d1", observation=[1.0]), decided("d2", scenario="other")]))
    checked(lake, "bronze.decisions")
    (report,) = validate(lake, tables=["bronze.decisions"], now_us=NOW_US + 1)
    assert len(lake.read("quality.reports", ["run_id"]).column("run_id").unique()) == 2
    stored = newest_reports(lake, ["bronze.decisions", "bronze.outcomes"])
    assert sorted(map(str, stored["bronze.decisions"])) == sorted(map(str, report.checks))
    assert "bronze.outcomes" not in stored
    mine = newest_reports(lake, ["bronze.decisions"], "recsys")["bronze.decisions"]
    assert {c.name for c in mine if not c.passed} == {"observation"}
    other = newest_reports(lake, ["bronze.decisions"], "other")["bronze.decisions"]
    assert {c.name for c in other if not c.passed} == {"scenario"}


def test_the_contract_of_a_pipeline_is_the_same_code() -> None:
    from rlaas.pipeline.continuous import config, validation

    assert config.ContractConfig is ContractConfig
    assert validation.check_transitions is check_transitions


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("tables: {bronze.nothing: {}}", "unknown table 'bronze.nothing'; allowed: bronze.decisions"),
        ("tables: {bronze.decisions: {complete: {colour: 1}}}", "bronze.decisions has no column 'colour'; allowed:"),
        ("tables: {bronze.decisions: {complete: {unit: 2}}}", "unit must be between 0 and 1, got 2"),
        ("tables: {bronze.events: {ranges: {load: [2, 1]}}}", "load must be the lowest and the highest value"),
        ("tables: {bronze.decisions: {ranges: {load: [1, 2]}}}", "only values of bronze.events have them"),
        ("tables: {bronze.events: {volume: {days: 1}}}", "must be >= 3, got 1"),
        ("colour: red", "unknown key 'colour'; allowed:"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(tmp_path: Path, document: str, message: str) -> None:
    file = tmp_path / "validation.yaml"
    file.write_text(document)
    with pytest.raises(ConfigurationError) as refused:
        load_validation_config(file)
    assert message in refused.value.message


def test_options_that_a_scenario_does_not_have_are_the_configurations_fault(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append(lake, "bronze.decisions", decision_rows([decided("d1")]))
    with pytest.raises(ConfigurationError, match="colour"):
        checked(lake, "bronze.decisions", ValidationConfig(scenarios={"recsys": {"colour": "red"}}))
    with pytest.raises(ConfigurationError, match=r"unknown table 'gold\.x'; allowed: bronze\.decisions"):
        validate(lake, tables=["gold.x"])
    assert lake.version("quality.reports") is None


def test_the_command_says_what_is_broken_and_fails(tmp_path: Path) -> None:
    home = tmp_path / "home"
    lake = Lake(home / "lake")
    append(lake, "bronze.decisions", decision_rows([decided("d1", observation=[1.0])]))
    command = [RLAAS, "lake", "validate", "--table", "bronze.decisions", "--json"]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert document["passed"] is False
    (table,) = document["tables"]
    assert [c["name"] for c in table["checks"] if not c["passed"]] == ["observation"]
    assert set(listed(lake, "quarantine.decisions")) == {"d1"}
