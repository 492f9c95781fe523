"""Searchers by name: what they propose, what they are told, and that they remember it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from tuning_kit import searched

from rlaas.tuning.figures import FAILURE, FINISHED
from rlaas.tuning.searchers import SEARCHERS, Question
from rlaas.tuning.space import values_of

SPACE: dict[str, Any] = {
    "learning_rate": {"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    "sac.tau": {"kind": "uniform", "low": 0.001, "high": 0.1},
    "hidden": {"kind": "choice", "values": [[8], [16], [16, 16]]},
}
GRID: dict[str, Any] = {
    "gamma": {"kind": "choice", "values": [0.1, 0.5]},
    "hidden": {"kind": "choice", "values": [[8], [16], [16, 16]]},
}


def build(name: str, metrics: dict[str, str], space: dict[str, Any] | None = None, seed: int = 3) -> Any:
    parameters = searched(space=space or SPACE).space
    question = Question(space=parameters, metrics=tuple(metrics), modes=tuple(metrics.values()), seed=seed)
    return SEARCHERS[name].build(question)


def ended(**figures: float) -> dict[str, Any]:
    return {**figures, FINISHED: True, "training_iteration": 3}


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("metrics", [{"reward": "max"}, {"reward": "max", "seconds": "min"}], ids=["one", "two"])
def test_proposals_are_points_that_a_seed_repeats_and_a_file_continues(
    name: str, metrics: dict[str, str], tmp_path: Path
) -> None:
    first, second = build(name, metrics), build(name, metrics)
    for number in range(6):
        point = first.suggest(f"t{number}")["point"]
        assert point == second.suggest(f"t{number}")["point"]
        values = values_of(point)
        assert values.keys() == SPACE.keys()
        assert values["hidden"] in ([8], [16], [16, 16])
        for one in (first, second):
            one.on_trial_complete(f"t{number}", ended(reward=values["sac.tau"], seconds=number))
    first.save(str(tmp_path / "state.pkl"))
    other = build(name, metrics, seed=99)
    other.restore(str(tmp_path / "state.pkl"))
    assert other.suggest("next") == first.suggest("next")


def test_tpe_follows_the_metric() -> None:
    searcher = build("tpe", {"reward": "min"})
    proposals = []
    for number in range(40):
        tau = searcher.suggest(f"t{number}")["point"]["sac.tau"]
        proposals.append(tau)
        searcher.on_trial_complete(f"t{number}", ended(reward=(tau - 0.02) ** 2))
    early, late = proposals[:5], proposals[-10:]
    assert sum(abs(t - 0.02) for t in late) / 10 < sum(abs(t - 0.02) for t in early) / 5


@pytest.mark.parametrize("metrics", [{"reward": "max"}, {"reward": "max", "seconds": "min"}], ids=["one", "two"])
def test_a_grid_proposes_every_combination_once(metrics: dict[str, str]) -> None:
    searcher = build("grid", metrics, GRID)
    seen = []
    for number in range(6):
        seen.append(values_of(searcher.suggest(f"t{number}")["point"]))
        searcher.on_trial_complete(f"t{number}", ended(reward=0.5, seconds=1.0))
    assert len({(v["gamma"], tuple(v["hidden"])) for v in seen}) == 6
    assert [t.state for t in searcher._ot_study.trials] == [TrialState.COMPLETE] * 6


def test_optuna_is_told_how_a_trial_ended() -> None:
    searcher = build("tpe", {"reward": "max"})
    for trial in ("whole", "stopped", "broken", "crashed", "resting"):
        searcher.suggest(trial)
    searcher.on_trial_complete("whole", ended(reward=0.7))
    searcher.on_trial_result("stopped", {"reward": 0.1, "training_iteration": 1})
    searcher.on_trial_complete("stopped", {"reward": 0.2, "training_iteration": 2, FINISHED: False})
    searcher.on_trial_complete("broken", {"reward": float("nan"), FAILURE: "a loss became nan", FINISHED: False})
    searcher.on_trial_complete("crashed", None, error=True)
    trials = searcher._ot_study.trials
    assert [t.state for t in trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert trials[0].value == 0.7
    assert trials[1].intermediate_values == {1: 0.1, 2: 0.2}


def test_a_stopped_trial_is_no_member_of_the_front() -> None:
    searcher = build("nsga2", {"reward": "max", "seconds": "min"})
    searcher.suggest("whole")
    searcher.suggest("stopped")
    searcher.on_trial_complete("whole", ended(reward=0.7, seconds=9.0))
    searcher.on_trial_complete("stopped", {"reward": 0.2, "seconds": 1.0, "training_iteration": 1, FINISHED: False})
    assert [t.number for t in searcher._ot_study.best_trials] == [0]
