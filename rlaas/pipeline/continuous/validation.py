"""The validate stage: whether the transitions are what a policy of this scenario may be judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlaas.lake.validation import Check, check_transitions, newest_reports
from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.config import DECISIONS, TRANSITIONS
from rlaas.pipeline.continuous.data import pinned_rows
from rlaas.pipeline.continuous.fingerprints import Room, room_of
from rlaas.pipeline.continuous.stage import PROBLEM_ROOMS, Context, Stage

__all__ = ["Check", "ValidateStage", "check_transitions", "contract_of"]

DOCUMENT = "contract.json"


class ValidateStage(Stage):
    """Holds the pinned transitions against the contract. What fails refuses promotion, with its reasons."""

    name = "validate"
    needs = ("data",)

    def inputs(self, context: Context) -> dict[str, Any]:
        """The thresholds, which world the scenario is, and what the lake's own validation found last."""
        inputs: dict[str, Any] = {
            "config": {"contract": context.config.contract.model_dump(mode="json")},
            "scenario": {"options": dict(context.scenario.options), "reference": context.scenario.reference_hash},
        }
        reported = _reported(context)
        if reported:
            inputs["quality"] = {check.name: check.sentence() for check in reported}
        return inputs

    def rooms(self, context: Context) -> Iterable[Room]:
        """The scenario's, which says what is in range."""
        return (*PROBLEM_ROOMS, room_of(context.scenario), Room("rlaas.lake.validation"), Room(__name__))

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``contract.json``: whether it holds, and every clause."""
        data = context.artefacts["data"]
        rows = pinned_rows(context.lake, data, TRANSITIONS)
        checks, note = _reported(context), ""
        if rows is None:
            note = f"nothing to check: {TRANSITIONS} is not read"
        else:
            decisions = pinned_rows(context.lake, data, DECISIONS, ["decision_id"])
            checks = check_transitions(rows, context.scenario, context.config.contract, decisions) + checks
        passed = all(check.passed for check in checks)
        write_json(folder / DOCUMENT, {"passed": passed, "note": note, "checks": [asdict(check) for check in checks]})
        measured = {f"contract.{check.name}": check.measured for check in checks if check.measured is not None}
        return {"contract_passed": float(passed), **measured}


def contract_of(artefact: Artefact) -> tuple[bool, list[str]]:
    """Whether the contract holds, and a sentence for each clause that does not."""
    document = artefact.read(DOCUMENT)
    broken = [Check(**check).sentence() for check in document["checks"] if not check["passed"]]
    return bool(document["passed"]), broken


def _reported(context: Context) -> list[Check]:
    """Clauses that the newest reports of the pinned tables (``rlaas lake validate``) say are broken."""
    reports = newest_reports(context.lake, context.config.data.tables, context.scenario.name)
    return [
        replace(check, name=f"report.{table}.{check.name}")
        for table, checks in sorted(reports.items())
        for check in checks
        if not check.passed
    ]
