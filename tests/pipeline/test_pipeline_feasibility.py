"""Feasibility: a problem whose answer is known in closed form, honest seeds, guards that bind, and the page."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.toy import ToyScenario

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.pipeline import Budget, FeasibilityReport, feasibility, feasibility_page
from rlaas.pipeline.feasibility_search import GuardedProblem, penalty, pooled, target_slack
from rlaas.scenarios import EvaluationProtocol, Target, load

SHORT = EvaluationProtocol(name="short", seeds=6, warmup=0, steps=40)


class Easy(ToyScenario):
    """Cost is 4 effort; quality is best at the mean demand of 0.5, where the default stands. Targets leave room."""

    def __init__(self, cost: float = -0.2, quality: float = 6.0) -> None:
        super().__init__()
        self.targets = {
            "cost": Target(objective="cost", relative=cost),
            "quality": Target(objective="quality", absolute=quality),
        }
        self.guard_shares = {"quality": 0.8}


def budget(**changes: Any) -> Budget:
    protocols = {"search": SHORT, "look": SHORT, "judge": SHORT}
    return Budget(**{"generations": 6, "population": 12, "finalists": 8, **protocols, **changes})


@pytest.fixture(scope="module")
def easy() -> FeasibilityReport:
    return feasibility(Easy(), budget())


@pytest.fixture(scope="module")
def hard() -> FeasibilityReport:
    # 10 (1 - E|d - e|) is at most 7.5, at e = 1/2: 9 is out of reach.
    return feasibility(Easy(cost=-0.3, quality=9.0), budget())


def test_targets_within_reach_are_met_together(easy: FeasibilityReport) -> None:
    assert easy.together
    assert set(easy.closest.met) == {"cost", "quality"}
    assert "All 2 targets are met together" in easy.verdict()
    assert easy.sets[0].targets == ("cost", "quality")
    assert all(chosen.met for chosen in easy.sets)


def test_each_objective_alone_reaches_what_the_guard_allows(easy: FeasibilityReport) -> None:
    """With quality 10 (3/4 - (e - 1/2)^2), 80 % of the default's 7.5 is kept down to e = 1/2 - sqrt(0.15) = 0.113."""
    cheapest = easy.finalists[easy.alone["cost"]]
    assert cheapest.parameters["values"]["effort"] == pytest.approx(0.5 - np.sqrt(0.15), abs=0.05)
    best = easy.finalists[easy.alone["quality"]]
    assert best.parameters["values"]["effort"] == pytest.approx(0.5, abs=0.12)
    assert best.evaluation.mean()[1] >= cheapest.evaluation.mean()[1]


def test_a_target_out_of_reach_is_called_so(hard: FeasibilityReport) -> None:
    assert not hard.together
    text = hard.verdict()
    assert "No controller found meets all 2 targets together" in text
    assert "Not even by itself: quality at 7." in text
    assert "The most that is met at once: cost." in text
    assert "quality at" in text
    assert (hard.front_slack().min(axis=1) < 0).all()
    assert hard.reached["static"] is not None
    assert hard.reached["static"] < 0


def test_seeds_of_search_choice_and_judgement_never_meet(easy: FeasibilityReport) -> None:
    assert easy.front is not None
    chosen = {seed for candidate in easy.front.candidates for seed in candidate.seeds}
    assert not chosen & set(easy.default.seeds)
    assert all(finalist.evaluation.seeds == easy.default.seeds for finalist in easy.finalists.values())


def test_the_same_seed_gives_the_same_answer(easy: FeasibilityReport) -> None:
    again, other = feasibility(Easy(), budget()), feasibility(Easy(), budget(), seed=1)
    assert again.to_dict() == easy.to_dict()
    assert other.default.seeds != easy.default.seeds


def test_a_guard_nobody_keeps_leaves_no_front() -> None:
    scenario = Easy()
    scenario.guard_shares = {"quality": 5.0}
    report = feasibility(scenario, budget(generations=1))
    assert report.front is None
    assert report.reached == {"static": None}
    assert not any(chosen.met for chosen in report.sets)
    assert "breaks quality" in report.verdict()
    assert "No target is met at all." in report.verdict()
    assert feasibility_page(report).sections[2].rows == ()


def test_constraints_of_the_search_are_the_guards_of_the_target_table() -> None:
    problem = GuardedProblem(Easy(), "static", (1, 2, 3), SHORT)
    F = problem.evaluate(np.array([[0.5], [0.0], [1.0]]))
    assert F.shape == (3, 3)
    # The default is the configuration 0.5 itself: ratio 1 against a share of 0.8.
    assert F[0, 2] == pytest.approx(1 - 1 / 0.8)
    assert (F[1:, 2] > 0).all()
    assert F[0, :2] * [1, -1] == pytest.approx(pooled(problem.scenario, problem.default))


def test_a_controller_is_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load("recsys", strategies="core")
    problem = GuardedProblem(scenario, "static", (1, 2), EvaluationProtocol(name="search", seeds=2, warmup=1, steps=5))
    X = np.array([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.2, 1.3, 0.4, 0.0]])
    first = problem.evaluations(X)
    assert first[0] is first[2]

    def refuse(*_arguments: object) -> None:
        raise AssertionError("simulated again")

    monkeypatch.setattr(problem, "_run", refuse)
    again = problem.evaluations(X[::-1])
    assert [a is b for a, b in zip(again, first[::-1], strict=True)] == [True] * 3


def test_batched_configurations_are_what_they_are_alone() -> None:
    problem = GuardedProblem(Easy(), "static", (4, 5), SHORT)
    X = np.array([[0.1], [0.9], [0.4]])
    for x, batched in zip(X, problem.evaluations(X), strict=True):
        alone = problem.evaluation(x)
        assert alone.seeds == batched.seeds
        np.testing.assert_array_equal(alone.values, batched.values)
        np.testing.assert_array_equal(alone.numerators, batched.numerators)


@given(value=st.floats(0.0, 10.0), default=st.floats(0.5, 10.0))
def test_slack_is_0_at_the_target_and_minus_1_at_the_default(value: float, default: float) -> None:
    scenario = Easy(quality=12.0)
    now = np.array([default, default])
    at_default, at_target, anywhere = target_slack(
        scenario, np.array([now, [0.8 * default, 12.0], [value, value]]), now
    )
    assert at_default == pytest.approx([-1.0, -1.0], abs=1e-6) or 0.2 * default < 0.04
    assert at_target == pytest.approx([0.0, 0.0], abs=1e-6)
    assert (anywhere[0] >= -1e-9) == (value <= 0.8 * default + 1e-9)
    assert (anywhere[1] >= -1e-9) == (value >= 12.0)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-1, 1)), min_size=1, max_size=8))
def test_no_score_makes_up_for_a_missed_guard(rows: list[tuple[float, float]]) -> None:
    scores, missed = np.array(rows).T
    found = penalty(scores, missed[:, None])
    kept = missed <= 0
    if kept.any() and (missed > 1e-4).any():
        assert found[kept].min() > found[missed > 1e-4].max()
    assert penalty(np.array([np.nan, -9.0]), np.array([[0.0], [1.0]])).argmax() == 1


def test_what_cannot_be_asked_is_refused() -> None:
    scenario = Easy()
    with pytest.raises(ConfigurationError, match="unknown tunable 'magic'; allowed: static"):
        feasibility(scenario, budget(), tunables=["magic"])
    with pytest.raises(ConfigurationError, match="population must be at least 8, got 3"):
        budget(population=3)
    for name in ("worlds", "steps"):
        with pytest.raises(ConfigurationError, match=f"{name} must be at least 1, got 0"):
            Budget.of(Easy(), **{name: 0})
    with pytest.raises(ConfigurationError, match="judge needs at least 2 seeds"):
        budget(judge=EvaluationProtocol(name="one", seeds=1, warmup=0, steps=10))
    with pytest.raises(InvalidInputError, match="at least one family"):
        feasibility(scenario, budget(), tunables=[])
    scenario.targets = {}
    with pytest.raises(InvalidInputError, match="toy has no targets"):
        feasibility(scenario, budget())


def test_progress_ends_where_it_said_it_would() -> None:
    seen: list[tuple[int, int]] = []
    feasibility(Easy(), budget(generations=2), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == (1 * (2 + 2) + 1) * 2
    assert all(a[0] <= b[0] for a, b in pairwise(seen))


def test_the_page_holds_tables_figures_and_the_verdict(hard: FeasibilityReport, tmp_path: Path) -> None:
    page = feasibility_page(hard).write(tmp_path, "page")
    text = page.read_text(encoding="utf-8")
    assert hard.verdict() in text
    assert hard.closest.name in text
    for figure in ("parallel", "pairs"):
        assert (tmp_path / f"page-{figure}.png").stat().st_size > 5_000
    document = json.loads(json.dumps(hard.to_dict(), allow_nan=False))
    assert document["together"] is False
    assert {s["targets"][0] for s in document["sets"]} == {"cost", "quality"}


def test_a_shipped_scenario_gets_an_answer() -> None:
    from rlaas.scenarios import load

    scenario = load("network5g", load="low")
    tiny = EvaluationProtocol(name="tiny", seeds=2, warmup=5, steps=20)
    report = feasibility(
        scenario,
        budget(generations=1, population=8, search=tiny, look=tiny, judge=tiny, finalists=3),
        options={"load": "low"},
    )
    assert report.families == ("static", "reactive")
    assert set(report.alone) == {"latency", "throughput", "energy", "satisfaction"}
    assert len(report.sets) == 15
    assert "(load=low)" in feasibility_page(report).title
