"""The data and validate stages on real Delta tables: what is pinned, and what a contract refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_logs import log_traffic
from pipeline_toys import Named, pipeline_config

from rlaas.errors import NotFoundError
from rlaas.lake import Lake
from rlaas.pipeline.continuous.artefacts import Artefact
from rlaas.pipeline.continuous.config import ContractConfig
from rlaas.pipeline.continuous.data import DataStage, pinned_rows, pinned_versions
from rlaas.pipeline.continuous.stage import Context
from rlaas.pipeline.continuous.validation import ValidateStage, check_transitions, contract_of
from rlaas.scenarios.recsys import Recommender
from rlaas.settings import Settings, load_settings

TABLES = ["silver.transitions", "bronze.decisions"]


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def context_of(settings: Settings, **fields: Any) -> Context:
    return Context(config=pipeline_config("shop", **fields), settings=settings, scenario=Named("shop"))


def result(context: Context, stage: Any, folder: Path) -> Artefact:
    folder.mkdir()
    metrics = stage.run(context, folder)
    return Artefact(
        stage=stage.name, key="", folder=folder, inputs={}, digest="", metrics=metrics, seconds=0.0, finished_us=0
    )


def checked(context: Context, tmp_path: Path) -> Artefact:
    context.artefacts["data"] = result(context, DataStage(), tmp_path / "data")
    return result(context, ValidateStage(), tmp_path / "validate")


def test_versions_are_pinned_and_rows_are_those_of_the_scenario(home: Settings, tmp_path: Path) -> None:
    lake = Lake(home.lake_root)
    log_traffic(lake, "shop", 25)
    log_traffic(lake, "elsewhere", 7)
    context = context_of(home, data={"tables": TABLES})
    versions = {table: lake.version(table) for table in sorted(TABLES)}
    assert DataStage().inputs(context)["lake"] == versions
    data = result(context, DataStage(), tmp_path / "data")
    entries = {entry["table"]: entry for entry in data.read("data.json")["tables"]}
    assert entries["silver.transitions"] == {
        "table": "silver.transitions",
        "version": versions["silver.transitions"],
        "rows": 25,
        "since": None,
        "first_date": "2023-11-14",
        "last_date": "2023-11-17",
        "policies": {"shop/1": 10, "shop/2": 10, "shop/3": 5},
    }
    assert pinned_versions(data) == versions
    # What arrives later has another version, and is not read.
    log_traffic(lake, "shop", 5, first=25)
    assert pinned_rows(lake, data, "silver.transitions").num_rows == 25
    assert pinned_rows(lake, data, "bronze.outcomes") is None
    assert DataStage().inputs(context)["lake"] != versions
    pinned = context_of(
        home, data={"tables": TABLES, "versions": {"silver.transitions": versions["silver.transitions"]}}
    )
    assert DataStage().inputs(pinned)["lake"]["silver.transitions"] == versions["silver.transitions"]


def test_only_the_newest_days_are_read(home: Settings, tmp_path: Path) -> None:
    lake = Lake(home.lake_root)
    log_traffic(lake, "shop", 25)
    context = context_of(home, data={"tables": TABLES, "last_days": 2})
    data = result(context, DataStage(), tmp_path / "data")
    (entry,) = [e for e in data.read("data.json")["tables"] if e["table"] == "silver.transitions"]
    assert (entry["since"], entry["first_date"], entry["last_date"]) == ("2023-11-16", "2023-11-16", "2023-11-17")
    rows = pinned_rows(lake, data, "silver.transitions", ["date"])
    assert set(rows.column("date").to_pylist()) == {"2023-11-16", "2023-11-17"}
    assert rows.num_rows == entry["rows"] < 25


def test_a_pipeline_that_only_simulates_says_so(home: Settings, tmp_path: Path) -> None:
    context = context_of(home)
    contract = checked(context, tmp_path)
    assert context.artefacts["data"].read("data.json") == {
        "scenario": "shop",
        "tables": [],
        "note": "no table is read: everything comes from the simulator",
    }
    assert contract.read("contract.json")["note"] == "nothing to check: silver.transitions is not read"
    assert contract_of(contract) == (True, [])


def test_an_empty_table_is_refused_by_name(home: Settings) -> None:
    with pytest.raises(NotFoundError, match=r"names silver\.transitions, which holds nothing yet in .*home/lake"):
        DataStage().inputs(context_of(home, data={"tables": ["silver.transitions"]}))


def test_good_traffic_keeps_the_contract(home: Settings, tmp_path: Path) -> None:
    log_traffic(Lake(home.lake_root), "shop", 20, observed=lambda i: {"truncated": i == 19})
    contract = checked(context_of(home, data={"tables": TABLES}), tmp_path)
    assert contract_of(contract) == (True, [])
    measured = {check["name"]: check["measured"] for check in contract.read("contract.json")["checks"]}
    assert measured == {
        "rows": 20,
        "schema": 0,
        "out_of_range": 0,
        "outcomes": 0,
        "complete": 1,
        "outcome_coverage": 1,
        "duplicates": 0,
    }


@pytest.mark.parametrize(
    ("traffic", "contract", "said"),
    [
        ({}, {"min_rows": 21}, "rows: 20, required at least 21"),
        (
            {"decided": lambda i: {"observation": [0.5]} if i == 3 else {}},
            {},
            (
                "schema: 0.05, required 2 finite observations and 1 finite action values in every row "
                "(decision shop-3: observation has another length or a number that is not finite)"
            ),
        ),
        (
            {"decided": lambda i: {"observation": [2.5, 1.0]} if i == 3 else {}},
            {},
            (
                "out_of_range: 0.05, required at most 0 of the rows outside the scenario's spaces "
                "(decision shop-3: demand is 2.5)"
            ),
        ),
        (
            {"decided": lambda i: {"action": [-0.5]} if i == 1 else {}},
            {"max_out_of_range": 0.04},
            (
                "out_of_range: 0.05, required at most 0.04 of the rows outside the scenario's spaces "
                "(decision shop-1: action 0 is -0.5)"
            ),
        ),
        (
            {"observed": lambda i: {"outcome": {"cost": 1.0}} if i == 4 else {}},
            {},
            (
                "outcomes: 0.05, required every objective, or every part of them, in every outcome "
                "(decision shop-4 lacks a finite quality)"
            ),
        ),
        (
            {"decided": lambda i: {"session": None} if i < 4 else {}},
            {},
            "complete: 0.75, required a successor or an end in at least 0.9 of the rows",
        ),
        (
            {"without_outcome": range(12)},
            {"min_complete": 0},
            "outcome_coverage: 0.4, required an outcome for at least 0.5 of the decisions",
        ),
        (
            {"decided": lambda i: {"decision_id": "shop-0"} if i == 1 else {}, "without_outcome": [1]},
            {"min_complete": 0.8},
            "duplicates: 0.05, required at most 0 of the rows",
        ),
    ],
    ids=["rows", "schema", "observation", "action", "outcomes", "complete", "coverage", "duplicates"],
)
def test_what_breaks_the_contract_is_named(
    home: Settings, tmp_path: Path, traffic: dict[str, Callable[[int], Any]], contract: dict[str, float], said: str
) -> None:
    log_traffic(Lake(home.lake_root), "shop", 20, **traffic)
    found = checked(context_of(home, data={"tables": TABLES}, contract=contract), tmp_path)
    passed, broken = contract_of(found)
    assert not passed
    assert broken == [said]


def test_no_rows_are_judged_by_their_number_alone(home: Settings, tmp_path: Path) -> None:
    log_traffic(Lake(home.lake_root), "elsewhere", 3)
    contract = checked(context_of(home, data={"tables": TABLES}), tmp_path)
    assert contract_of(contract) == (False, ["rows: 0, required at least 1"])


def test_choices_out_of_range_and_null_successors_are_counted() -> None:
    import pyarrow as pa

    scenario = Recommender()
    n = len(scenario.observation_names)
    low, high = scenario.single_observation_space.low, scenario.single_observation_space.high
    middle = np.where(np.isfinite(low + high), 0.5 * (low + high), np.where(np.isfinite(low), low, 0.0)).tolist()
    choices = int(scenario.single_action_space.n)
    outcome = dict.fromkeys(scenario.measures, 1.0)
    rows = pa.Table.from_pylist(
        [
            {
                "decision_id": f"d{i}",
                "observation": middle,
                "action": [float(choice)],
                "outcome": list(outcome.items()),
                "next_observation": None if i else middle,
                "terminated": False,
                "truncated": i == 1,
            }
            for i, choice in enumerate((0, choices - 1, choices, 0.5))
        ],
        schema=pa.schema(
            [
                ("decision_id", pa.string()),
                ("observation", pa.list_(pa.float64())),
                ("action", pa.list_(pa.float64())),
                ("outcome", pa.map_(pa.string(), pa.float64())),
                ("next_observation", pa.list_(pa.float64())),
                ("terminated", pa.bool_()),
                ("truncated", pa.bool_()),
            ]
        ),
    )
    assert len(middle) == n
    checks = {check.name: check for check in check_transitions(rows, scenario, ContractConfig())}
    assert (checks["out_of_range"].measured, checks["out_of_range"].detail) == (
        0.5,
        f"decision d2: action 0 is {choices}",
    )
    assert (checks["complete"].measured, checks["complete"].passed) == (0.5, False)
    assert replace(checks["rows"], measured=None).sentence() == "rows: required at least 1"
