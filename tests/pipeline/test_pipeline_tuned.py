"""Tuned baselines: what the search writes, what a scenario makes of it, and that the shipped ones are current."""

from __future__ import annotations

import json
import pickle

import pytest

from rlaas.pipeline.candidates import utility
from rlaas.pipeline.feasibility_search import Budget
from rlaas.pipeline.tuned import main, tune_baselines
from rlaas.scenarios import evaluate, load
from rlaas.scenarios.tuned import load_tuned, tuned_baselines

SHIPPED = [
    ("network5g", {"size": size, "load": at}) for size in ("small", "medium", "large") for at in ("low", "mid", "high")
]
SHIPPED += [("recsys", {"level": level}) for level in ("demonstration", "open_bandit")]


@pytest.mark.parametrize(("name", "options"), SHIPPED)
def test_every_regime_ships_its_tuned_baselines_for_the_present_reference(name, options):
    scenario = load(name, **options)
    entry = load_tuned(f"rlaas.scenarios.{name}")[scenario.regime]
    assert entry["reference"] == scenario.reference_hash, "the reference changed: run python -m rlaas.pipeline.tuned"
    for family in ("static", "reactive"):
        assert scenario.regime in scenario.baselines[f"tuned_{family}"].description


@pytest.mark.parametrize("name", ["network5g", "recsys"])
def test_a_tuned_baseline_is_better_than_the_default(name):
    scenario = pickle.loads(pickle.dumps(load(name)))
    preference, protocol = scenario.modes[scenario.primary_mode].preference, scenario.protocols["short"]

    def score(baseline):
        controller = scenario.baselines[baseline].make()
        found = evaluate(scenario, controller, range(70, 78), steps=protocol.steps, warmup=protocol.warmup, replicas=4)
        return float(utility(scenario, found.mean(), preference))

    default = score(scenario.default_baseline)
    assert score("tuned_static") > default
    assert score("tuned_reactive") > default


def test_a_search_finds_bounds_kept_values_that_the_scenario_accepts():
    scenario = load("recsys", strategies="core")
    budget = Budget.of(scenario, quick=True, generations=1, population=8)
    made = tune_baselines(scenario, budget, restarts=1)
    assert made["reference"] == scenario.reference_hash
    for family, values in made["families"].items():
        tunable = scenario.tunables[family]
        assert tuple(values) == tunable.parameters
        tunable.controller(tuple(values.values()))
    assert set(made["utility"]) == set(made["families"])


def test_searching_on_keeps_what_was_found_before():
    scenario = load("recsys", strategies="core")
    budget = Budget.of(scenario, quick=True, generations=1, population=8)
    good = dict(zip(scenario.tunables["static"].parameters, (1.0, 2.0, 2.0, 1.0), strict=True))
    fresh = tune_baselines(scenario, budget, restarts=1)
    on = tune_baselines(scenario, budget, restarts=1, known={"static": good, "reactive": {"gone": 1.0}})
    again = tune_baselines(scenario, budget, restarts=1, known=on["families"])
    assert on["utility"]["reactive"] >= on["utility"]["static"]
    for family in ("static", "reactive"):
        assert again["utility"][family] >= on["utility"][family]
    assert fresh["utility"] != on["utility"]


def test_no_search_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["recsys", "--option", "strategies=core", "--quick", "--restarts", "0"])
    assert ended.value.code == 2
    assert "--restarts must be at least 1, got 0" in capsys.readouterr().err


def test_the_command_writes_one_regime_beside_the_others(tmp_path):
    path, said = tmp_path / "tuned.json", []
    path.write_text('{"other/regime": {}}', encoding="utf-8")
    options = ["--option", "strategies=core", "--quick", "--generations", "1", "--population", "8"]
    main(["recsys", *options, "--output", str(path)], said.append)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert set(document) == {"other/regime", "demonstration/core"}
    assert "utility" in said[0]


def test_what_no_longer_fits_a_family_is_left_out():
    scenario = load("recsys", strategies="core")
    assert tuned_baselines("rlaas.scenarios.recsys", "nowhere", scenario.tunables) == {}
    assert tuned_baselines("rlaas.lake", "small/low", scenario.tunables) == {}
    fewer = {"static": scenario.tunables["reactive"]}
    assert tuned_baselines("rlaas.scenarios.recsys", "demonstration/all", fewer) == {}
