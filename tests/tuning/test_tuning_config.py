"""What a search refuses before anything starts, and how it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning_kit import JUDGED, searched

from rlaas.errors import ConfigurationError
from rlaas.tuning import Asha, load_tuning_config
from rlaas.tuning.checks import check_tuning

GAMMA = {"gamma": {"kind": "uniform", "low": 0.1, "high": 0.9}}
SEVERAL = ["near@follow", "mirror@follow"]


def test_short_forms_and_defaults() -> None:
    plain = searched(trials=None, report_every=None)
    assert (plain.searcher, plain.number_of_trials, plain.interval, plain.reports) == ("tpe", 20, 300, 10)
    assert searched(objectives=SEVERAL).searcher == "nsga3"
    # What asha stops is unknown to nsga3.
    halving = {"kind": "asha", "metric": "hypervolume"}
    assert searched(objectives=SEVERAL, scheduler=halving).searcher == "nsga2"
    assert searched(scheduler="pbt").searcher == "random"
    halving = searched(scheduler={"kind": "asha", "grace": 2})
    assert isinstance(halving.scheduler, Asha)
    assert halving.scheduler.grace == 2
    grid = searched(
        search="grid",
        trials=None,
        space={
            "gamma": {"kind": "choice", "values": [0.1, 0.2, 0.3]},
            "hidden": {"kind": "choice", "values": [[8], [16]]},
        },
    )
    assert grid.number_of_trials == 6


@pytest.mark.parametrize(
    ("changes", "field", "complaint"),
    [
        ({"serach": "tpe"}, "serach", "unknown key 'serach'; allowed: concurrency, confirmation"),
        ({"search": "tpee"}, "search", "unknown search 'tpee'; allowed: grid, nsga2, nsga3, random, tpe"),
        ({"search": "nsga3"}, "search", "needs at least 2 objectives, but 1 is given"),
        ({"trials": 0}, "trials", "must be >= 1, got 0"),
        ({"scheduler": "hyperband"}, "scheduler", "unknown kind 'hyperband'; allowed: none, asha, pbt"),
        ({"scheduler": {"kind": "asha", "grace": 4}}, "scheduler.grace", "exceeds the 3 reports"),
        ({"scheduler": {"kind": "asha", "grade": 4}}, "scheduler.grade", "unknown key 'scheduler.grade'"),
        ({"scheduler": "pbt", "search": "tpe"}, "search", "leave search out"),
        ({"scheduler": "pbt", "search": "grid", "space": GAMMA}, "search", "leave search out"),
        ({"scheduler": "pbt", "objectives": SEVERAL}, "scheduler", "2 objectives are given"),
        ({"scheduler": "pbt", "trials": 1}, "trials", "a population"),
        (
            {"scheduler": "pbt", "space": {"hidden": {"kind": "choice", "values": [[8], [16]]}}},
            "space.hidden",
            "hands checkpoints on",
        ),
        ({"scheduler": "asha", "objectives": SEVERAL}, "scheduler.metric", "which figure to stop trials by"),
        ({"search": "grid"}, "space.learning_rate", "of kind choice, not loguniform"),
        ({"objectives": ["seconds", "seconds"]}, "objectives", "twice"),
        (
            {"objectives": [{"metric": "seconds", "direction": "down"}]},
            "objectives.0.direction",
            "'maximize' or 'minim",
        ),
        ({"report_every": 5_000}, "report_every", "exceeds training.steps 3000"),
        ({"space": {"gamma": {"kind": "uniform", "low": 0.5, "high": 2}}}, "space.gamma", "less than 1"),
        ({"space": {"gamma": {"kind": "uniform", "low": 5, "high": 2}}}, "space.gamma", "low 5 must be below high 2"),
        ({"space": {}}, "space", "must have at least 1 items, got {}"),
        ({"training": {"stepz": 1}}, "training.stepz", "training: unknown key 'stepz'"),
        ({"confirmation": {"training_seeds": [4]}}, "confirmation.training_seeds", "it has seen 4"),
        ({"confirmation": {"evaluation_seeds": [9, 9]}}, "confirmation.evaluation_seeds", "given once"),
    ],
)
def test_impossible_searches_are_refused_by_name(changes: dict[str, Any], field: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        searched(**changes)
    assert complaint in caught.value.message
    assert caught.value.field == field
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("changes", "field", "complaint"),
    [
        (
            {"objectives": ["hypervolum"]},
            "objectives",
            "unknown metric 'hypervolum' for toy; allowed: hypervolume, mirr",
        ),
        (
            {"objectives": [{"metric": "latency", "direction": "minimize"}]},
            "objectives",
            "unknown metric 'latency' for toy",
        ),
        ({"scheduler": {"kind": "asha", "metric": "speed"}}, "scheduler.metric", "unknown metric 'speed' for toy"),
        ({"objectives": ["utility"]}, "training.evaluation_seeds", "utility is measured on them"),
        ({"training": {"scenario": "training_toys:Nothing"}}, None, "Nothing"),
        ({"training": {"algorithm": "ppo", "ppo": {"minibatch": 4_096}}}, "ppo.minibatch", "exceeds a rollout"),
        (
            {"training": {"algorithm": "ppo"}, "space": {"ppo.minibatch": {"kind": "int", "low": 8, "high": 4_096}}},
            "space.ppo.minibatch",
            "space.ppo.minibatch 4096: ppo.minibatch 4096 exceeds",
        ),
    ],
)
def test_what_only_the_problem_can_tell_is_refused_as_well(
    changes: dict[str, Any], field: str | None, complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_tuning(searched(**changes))
    assert complaint in caught.value.message
    assert field in (None, caught.value.field)


def test_an_objectives_direction_is_the_scenarios_unless_it_is_given() -> None:
    _, aim = check_tuning(
        searched(
            training=JUDGED,
            objectives=["seconds", "near@follow", {"metric": "hypervolume", "direction": "minimize"}],
            scheduler={"kind": "asha", "metric": "hypervolume"},
        )
    )
    assert aim.directions == ("minimize", "maximize", "minimize")
    assert (aim.ranked_by, aim.ranked) == ("hypervolume", "min")


def test_more_cpus_than_the_machine_has_are_refused_before_anything_starts(tmp_path: Path) -> None:
    from rlaas.tuning import tune

    with pytest.raises(ConfigurationError, match="cpus_per_trial 512 exceeds the"):
        tune(searched(cpus_per_trial=512), output=tmp_path / "search")
    with pytest.raises(ConfigurationError, match=r"num_env_runners 511, num_learners 0, .* reserves 512 CPUs, and"):
        tune(searched(training={"num_env_runners": 511, "num_envs": 511}), output=tmp_path / "search")
    with pytest.raises(ConfigurationError, match=r"num_learners 2, .* reserves 128 GPUs, and"):
        tune(searched(training={"num_learners": 2, "num_gpus_per_learner": 64}), output=tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "training: {scenario: 'training_toys:Toy'}\n"
        "space:\n  learning_rate: {kind: loguniform, low: 1e-4, high: 1e-2}\n"
        "objectives: training_reward\n"
    )
    assert load_tuning_config(file).objectives[0].metric == "training_reward"
    file.write_text(file.read_text() + "trails: 3\n")
    with pytest.raises(ConfigurationError, match=r"search.yaml: unknown key 'trails'; allowed: "):
        load_tuning_config(file)
