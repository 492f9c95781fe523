"""Selecting, confirming and writing back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tuning_kit import searched

from rlaas.errors import OperatorError
from rlaas.training import load_config
from rlaas.tuning.book import Book, TrialRecord
from rlaas.tuning.files import write_json
from rlaas.tuning.results import confirmed, select, write_config


def record(number: int, status: str = "finished", **figures: float) -> TrialRecord:
    reports = [{"report": 1, "steps": 100, **figures}]
    return TrialRecord(number=number, id=f"t{number}", status=status, figures=figures, reports=reports)  # type: ignore[arg-type]


def test_the_best_ran_to_its_end_and_has_a_figure() -> None:
    records = [
        record(1, u=0.5),
        record(2, "stopped", u=0.9),
        record(3, "failed", u=math.nan),
        record(4, u=math.nan),
        record(5, u=0.6),
    ]
    assert [(n, r.number) for n, r in select(records, ["u"], ["maximize"])] == [("best", 5)]
    assert [(n, r.number) for n, r in select(records, ["u"], ["minimize"])] == [("best", 1)]
    assert select(records[1:4], ["u"], ["maximize"]) == []


def test_a_front_holds_what_no_other_dominates_best_first() -> None:
    records = [
        record(1, u=0.5, s=10.0),
        record(2, u=0.9, s=30.0),
        record(3, u=0.4, s=20.0),
        record(4, "stopped", u=0.1, s=1.0),
        record(5, u=0.5, s=10.0),
    ]
    assert [(n, r.number) for n, r in select(records, ["u", "s"], ["maximize", "minimize"])] == [
        ("pareto-1", 2),
        ("pareto-2", 1),
    ]


def test_confirmation_counts_the_seeds_that_went_well() -> None:
    runs = {8: record(2, u=0.6), 7: record(1, u=0.4), 9: record(3, "failed", u=math.nan)}
    runs[9].failure = "critic_loss became nan"
    one = confirmed("best", runs, ["u"])
    assert one.seeds == (7, 8)
    assert one.failures == {9: "critic_loss became nan"}
    assert one.mean("u") == pytest.approx(0.5)
    # Student's 95 % quantile with one degree of freedom, times the standard error of two values .2 apart.
    assert one.half_width("u") == pytest.approx(12.7062 * 0.1, rel=1e-4)
    none = confirmed("best", {9: runs[9]}, ["u"])
    assert math.isnan(none.mean("u"))
    assert math.isinf(none.half_width("u"))


def test_what_is_written_is_what_train_takes(tmp_path: Path) -> None:
    base = searched().training
    values = {"learning_rate": 0.00123, "sac.tau": 0.02, "hidden": [8, 8], "sac.target_entropy": None}
    file = write_config(tmp_path / "best.yaml", base, values, ["Found by a search.", "Figures: u 0.5."])
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# Found by a search.", "# Figures: u 0.5."]
    loaded = load_config(file)
    assert (loaded.learning_rate, loaded.hidden, loaded.sac.tau) == (0.00123, (8, 8), 0.02)
    assert loaded.sac.learning_starts == base.sac.learning_starts, "fields next to a searched one stay"
    assert loaded.model_dump(exclude={"learning_rate", "hidden", "sac"}) == base.model_dump(
        exclude={"learning_rate", "hidden", "sac"}
    )


class Trial:
    """What the book reads of a Tune trial."""

    def __init__(self, name: str, **point: Any) -> None:
        self.trial_id, self.config = name, {"point": point}


def report(trial: Trial, age: int, *, finished: bool = False, **figures: float) -> dict[str, Any]:
    return {"training_iteration": age, "steps": 100 * age, "finished": finished, "config": trial.config, **figures}


def test_the_book_keeps_what_a_resumed_trial_says_again_once(tmp_path: Path) -> None:
    book, trial = Book(tmp_path / "trials.json", ["u"]), Trial("a", gamma=0.5)
    book.on_trial_start(0, [], trial)
    for age, u in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.25), (3, 0.35)):
        book.on_trial_result(0, [], trial, report(trial, age, u=u))
    one = book.record(trial)
    assert [(row["report"], row["u"]) for row in one.reports] == [(1, 0.1), (2, 0.25), (3, 0.35)]
    assert (one.status, one.steps, one.figures) == ("running", 300, {"u": 0.35})


def test_the_book_notes_the_values_that_a_report_was_made_with(tmp_path: Path) -> None:
    book, trial = Book(tmp_path / "trials.json", ["u"]), Trial("a", gamma=0.5)
    first, second = report(trial, 1, u=0.1), report(trial, 2, u=0.2)
    trial.config = {"point": {"gamma": 0.7}}  # a scheduler changes it before the callbacks hear of the report
    book.on_trial_result(0, [], trial, first)
    book.on_trial_result(0, [], trial, second)
    assert book.record(trial).values == {"gamma": 0.5}
    book.on_trial_result(0, [], trial, report(trial, 3, u=0.3))
    assert [row.get("values") for row in book.record(trial).reports] == [{"gamma": 0.5}, None, {"gamma": 0.7}]


def test_the_book_is_read_back(tmp_path: Path) -> None:
    book, trial = Book(tmp_path / "trials.json", ["u"]), Trial("a", gamma=0.5)
    book.on_trial_result(0, [], trial, {**report(trial, 1, u=math.nan), "failure": "a loss became nan"})
    book.on_trial_complete(0, [], trial)
    assert json.loads(book.path.read_text())["trials"][0]["figures"] == {"u": None}, "JSON has no NaN"
    again = Book(tmp_path / "other.json", ["u"])
    again.read(book.path)
    one = again.records["a"]
    assert (one.status, one.failure, one.number) == ("failed", "a loss became nan", 1)
    assert math.isnan(one.figures["u"])
    write_json(book.path, {"schema_version": 9, "trials": []})
    with pytest.raises(OperatorError, match="schema_version 9 is not 1"):
        again.read(book.path)
    book.path.write_text("{")
    with pytest.raises(OperatorError, match="damaged"):
        again.read(book.path)
