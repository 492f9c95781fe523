"""Trials end with policies, which become candidates of one front beside every other kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_toys import Toy
from tuning_kit import JUDGED, searched

from rlaas.bundles import load_bundle
from rlaas.objectives import normalise
from rlaas.pipeline import RacePlan, evaluate_candidates, seeds_for
from rlaas.scenarios import EvaluationProtocol, evaluate
from rlaas.training import PolicyController
from rlaas.tuning import TuningResult, tune
from rlaas.tuning.book import TrialRecord
from rlaas.tuning.results import ranked, select


@pytest.mark.ray
@pytest.mark.usefixtures("tuning_ray")
def test_the_policy_of_a_trial_is_the_one_it_was_judged_by_and_is_raced_against_others(tmp_path: Path) -> None:
    config = searched(
        training={**JUDGED, "steps": 2_000},
        space={"learning_rate": {"kind": "choice", "values": [1e-6, 3e-3, 1e30]}},
        search="grid",
        trials=None,
        objectives=["utility@follow"],
        concurrency=2,
    )
    output = tmp_path / "search"
    result = tune(config, output=output)
    policies = result.policies()
    ends = {trial.number: trial for trial in result.trials}
    assert sorted(policy.trial for policy in policies) == [n for n, t in ends.items() if t.status == "finished"]
    assert len(policies) == 2, "a trial that failed left none"
    assert policies[0].trial == result.found[0].trial
    scenario, training = Toy(), config.training
    mode = scenario.modes["follow"].preference
    for policy in policies:
        bundle = load_bundle(policy.bundle)
        assert bundle.manifest.lineage["steps"] >= 2_000
        assert bundle.manifest.lineage["seed"] == training.seed
        assert policy.values == ends[policy.trial].values
        again = evaluate(
            scenario,
            PolicyController(bundle, mode),
            training.evaluation_seeds,
            steps=training.evaluation_steps,
            warmup=training.evaluation_warmup,
            replicas=training.evaluation_replicas,
        ).mean()
        reported = ends[policy.trial].figures["utility@follow"]
        assert float(normalise(scenario.objectives, again) @ mode.array()) == pytest.approx(reported, abs=1e-12)

    # The better trial's policy stands for the trained one, which has the same names in the archive as ever.
    protocol = EvaluationProtocol(name="short", seeds=6, warmup=0, steps=40)
    seeds = seeds_for("front", 1, protocol.seeds)
    evaluated = evaluate_candidates(
        scenario, policies[0].bundle, {}, seeds, protocol, trials=policies, race=RacePlan.of(protocol, 1)
    )
    best, worst = (f"trial-{policy.trial}@follow" for policy in policies)
    candidates = {c.name: c for c in evaluated.candidates}
    assert candidates[best].kind == "hyperparameters"
    assert candidates[best].parameters["values"] == {"learning_rate": 3e-3}
    assert candidates[best].mean == candidates["policy@follow"].mean, "the same network at the same preference"
    utility = {n: float(normalise(scenario.objectives, np.array(c.mean)) @ mode.array()) for n, c in candidates.items()}
    assert utility[best] > utility[worst]
    assert {one.name for one in evaluated.standings} == set(candidates)
    assert {c.kind for c in evaluated.front().candidates} <= {"policy", "hyperparameters"}

    resumed = tune(config, output=output, resume=True)
    assert resumed.policies() == policies, "what has ended keeps its policy"
    elsewhere = TuningResult(**{**_fields(result), "output": tmp_path / "another machine"})
    assert elsewhere.policies() == ()


def _fields(result: TuningResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__slots__}


def _record(number: int, figures: dict[str, float], status: str = "finished") -> TrialRecord:
    return TrialRecord(number=number, id=f"t{number}", status=status, figures=figures)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_trials_are_ranked_by_layers(points: list[tuple[int, int]]) -> None:
    records = [_record(i, {"u": float(-u), "s": float(s)}) for i, (u, s) in enumerate(points)]
    records += [_record(90, {"u": 9.0, "s": -9.0}, "stopped"), _record(91, {"u": np.nan, "s": 0.0})]
    order = ranked(records, ["u", "s"], ["maximize", "minimize"])
    assert sorted(record.number for record in order) == list(range(len(points)))
    layers = _peeled(points)
    assert [layers[record.number] for record in order] == sorted(layers.values())
    chosen = [record.number for _, record in select(records, ["u", "s"], ["maximize", "minimize"])]
    assert {points[n] for n in chosen} == {points[n] for n, layer in layers.items() if layer == 0}


def _peeled(points: list[tuple[int, int]]) -> dict[int, int]:
    """Layer of each point: take away what nothing that is left dominates, again and again."""
    rest, layers, layer = set(range(len(points))), dict[int, int](), 0
    while rest:
        mask = moocore.is_nondominated(np.array([points[n] for n in sorted(rest)], dtype=float), keep_weakly=True)
        peeled = {n for n, kept in zip(sorted(rest), mask, strict=True) if kept}
        layers |= dict.fromkeys(peeled, layer)
        rest, layer = rest - peeled, layer + 1
    return layers


def test_trials_of_one_objective_are_ranked_by_it() -> None:
    records = [_record(i, {"u": u}) for i, u in enumerate([0.5, 0.9, 0.1, 0.9])]
    assert [r.number for r in ranked(records, ["u"], ["maximize"])] == [1, 3, 0, 2]
    assert [r.number for r in ranked(records, ["u"], ["minimize"])] == [2, 0, 1, 3]
    assert ranked([], ["u"], ["maximize"]) == []
