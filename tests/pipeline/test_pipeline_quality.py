"""What ``rlaas lake validate`` found stops promotion, until a later run finds nothing."""

from __future__ import annotations

from pathlib import Path

from pipeline_logs import log_traffic
from pipeline_toys import Named
from test_pipeline_data import TABLES, checked, context_of

from rlaas.lake import Lake
from rlaas.lake.validation import TableContract, ValidationConfig, validate
from rlaas.pipeline.continuous.registration import RegisterStage
from rlaas.pipeline.continuous.validation import ValidateStage, contract_of
from rlaas.settings import load_settings

JUDGED = {"opponent": {"version": None}, "sentence": "better", "judgement": {"promote": True, "broken": []}}


def decided(lake: Lake, contract: TableContract) -> None:
    config = ValidationConfig(last_days=None, tables={"bronze.decisions": contract})
    validate(lake, config, tables=["bronze.decisions"], scenarios={"shop": Named("shop"), "other": Named("other")})


def test_a_broken_report_refuses_registration_and_a_mended_one_allows_it(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    lake = Lake(settings.lake_root)
    log_traffic(lake, "shop", 20, observed=lambda i: {"truncated": i == 19})
    context = context_of(settings, data={"tables": TABLES})
    before = ValidateStage().inputs(context)
    decided(lake, TableContract(min_rows=21))
    assert set(ValidateStage().inputs(context)) - set(before) == {"quality"}
    context.artefacts["validate"] = checked(context, tmp_path)
    assert contract_of(context.artefacts["validate"]) == (
        False,
        ["report.bronze.decisions.rows: 20, required at least 21"],
    )
    allowed, reasons = RegisterStage(tmp_path)._decide(context, JUDGED)
    assert (allowed, reasons) == (
        False,
        ["the data contract is broken: report.bronze.decisions.rows: 20, required at least 21"],
    )
    decided(lake, TableContract())
    assert ValidateStage().inputs(context) == before
    (tmp_path / "again").mkdir()
    context.artefacts["validate"] = checked(context, tmp_path / "again")
    assert RegisterStage(tmp_path)._decide(context, JUDGED)[0]


def test_rows_of_another_scenario_stop_nobody_else(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    lake = Lake(settings.lake_root)
    log_traffic(lake, "shop", 20, observed=lambda i: {"truncated": i == 19})
    log_traffic(lake, "other", 5, decided=lambda i: {"observation": [9.0, 9.0]})
    decided(lake, TableContract())
    contract = checked(context_of(settings, data={"tables": TABLES}), tmp_path)
    assert contract_of(contract) == (True, [])
    theirs = context_of(settings, data={"tables": TABLES})
    theirs.scenario = Named("other")
    (broken,) = list(ValidateStage().inputs(theirs)["quality"])
    assert broken == "report.bronze.decisions.observation"
