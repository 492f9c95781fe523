"""One archive for candidates of every kind: what is evaluated, who is raced, and what stands beside the front."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import policy_bundle
from support.toy import ToyEnv, ToyScenario

from rlaas.bundles import load_bundle
from rlaas.errors import BundleError, InvalidInputError
from rlaas.objectives import Preference
from rlaas.optimization import Contender
from rlaas.pipeline import (
    ContenderEvaluator,
    RacePlan,
    build_front,
    evaluate_candidates,
    evaluate_controller,
    policy_contenders,
    policy_preferences,
    seeds_for,
)
from rlaas.scenarios import ConstantController, EvaluationProtocol, load
from rlaas.training import PolicyController, export_bundle, export_constant
from rlaas.training.networks import PolicyNetwork
from rlaas.tuning import TrialPolicy

PROTOCOL = EvaluationProtocol(name="short", seeds=6, warmup=2, steps=60, replicas=2)
SEEDS = (11, 12, 13, 14, 15, 16)


@dataclass
class Found:
    """What counts of a search over the toy's one parameter."""

    efforts: Sequence[float]
    F: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.F = np.array([[e, -e] for e in self.efforts])

    @property
    def X(self) -> np.ndarray:
        return np.array(self.efforts)[:, None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that makes something else of each preference."""
    torch.manual_seed(5)
    network = PolicyNetwork(2, 2, 1, (8,), discrete=False, activation="relu")
    with torch.no_grad():
        for parameter in network.body.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return export_bundle(network, ToyScenario(), tmp_path_factory.mktemp("policy") / "bundle", algorithm="sac")


def trial(number: int, effort: float, folder: Path) -> TrialPolicy:
    """A trial whose policy spends the same effort always."""
    bundle = export_constant(ToyScenario(), [effort], folder / f"trial-{number}")
    return TrialPolicy(trial=number, values={"learning_rate": 0.01 * number, "hidden": [8, number]}, bundle=bundle)


def static(effort: float) -> Contender:
    return Contender(
        name=f"effort {effort}",
        kind="configuration",
        parameters={"tunable": "static", "values": {"effort": effort}},
    )


def test_every_kind_reaches_the_same_alone_and_in_company(bundle: Path, tmp_path: Path) -> None:
    scenario = ToyScenario()
    still = trial(3, 0.4, tmp_path)
    preferences = policy_preferences(scenario)
    contenders = [
        *(static(effort) for effort in np.linspace(0, 1, 11)),
        *policy_contenders("policy", bundle, preferences),
        *policy_contenders("trial-3", still.bundle, preferences, kind="hyperparameters", parameters=still.parameters()),
    ]
    evaluator = ContenderEvaluator(scenario, PROTOCOL, [bundle, still.bundle])
    together = evaluator.evaluations(contenders, SEEDS)
    assert (evaluator(contenders, SEEDS) == np.array([one.values for one in together])).all()
    for contender, evaluation in zip(contenders, together, strict=True):
        assert evaluation.seeds == SEEDS
        (alone,) = evaluator([contender], SEEDS[4:])
        assert (alone == evaluation.values[4:]).all(), contender.name
    # The oracle: a controller of the scenario's own, evaluated by itself.
    for effort, evaluation in zip(np.linspace(0, 1, 11), together, strict=False):
        plain = evaluate_controller(scenario, ConstantController(np.array([effort])), SEEDS, PROTOCOL)
        assert (plain.values == evaluation.values).all()
    values = {c.name: e.values for c, e in zip(contenders, together, strict=True)}
    assert not np.allclose(values["policy@cheap"], values["policy@balanced"])
    # A policy that always does what a configuration does reaches what that does, but for float32.
    np.testing.assert_allclose(values["trial-3@balanced"], values["effort 0.4"], rtol=1e-5)
    assert values["trial-3@cheap"].tolist() == values["trial-3@balanced"].tolist()
    assert evaluator([], SEEDS).shape == (0, 6, 2)


@pytest.mark.parametrize("name", ["network5g", "recsys"])
def test_configurations_side_by_side_are_what_they_are_one_by_one(name: str) -> None:
    scenario = load(name)
    protocol = EvaluationProtocol(name="short", seeds=2, warmup=1, steps=4)
    rng = np.random.default_rng(2)
    rows = {
        f"{tunable}-{i}": (tunable, family.controller(x), dict(zip(family.parameters, x.tolist(), strict=True)))
        for tunable, family in scenario.tunables.items()
        for i, x in enumerate(rng.uniform(family.low, family.high, (3, len(family.low))))
    }
    contenders = [
        Contender(name=key, kind="configuration", parameters={"tunable": tunable, "values": values})
        for key, (tunable, _, values) in rows.items()
    ]
    rng.shuffle(contenders)
    values = ContenderEvaluator(scenario, protocol)(contenders, (5, 9))
    for contender, reached in zip(contenders, values, strict=True):
        alone = evaluate_controller(scenario, rows[contender.name][1], (5, 9), protocol)
        np.testing.assert_array_equal(alone.values, reached, err_msg=contender.name)  # NaN where nothing was counted


def test_without_a_race_the_common_seeds_judge_and_figures_are_theirs(bundle: Path) -> None:
    scenario = ToyScenario()
    searches = {"static": Found([0.0, 0.2, 0.5, 0.9])}
    plan = RacePlan(tolerance=0.0)
    evaluated = evaluate_candidates(scenario, bundle, searches, SEEDS, PROTOCOL, race=plan)
    names = [f"policy@{label}" for label in policy_preferences(scenario)] + [f"static-{i}" for i in range(4)]
    assert [c.name for c in evaluated.candidates] == names == [one.name for one in evaluated.standings]
    for candidate in evaluated.candidates:
        evaluation = evaluated.evaluations[candidate.name]
        assert candidate == evaluation.candidate(candidate.name, candidate.kind, candidate.parameters)
    controllers = {
        "static-2": ConstantController(np.array([0.5])),
        "policy@cheap": PolicyController(load_bundle(bundle), scenario.modes["cheap"].preference),
    }
    for name, controller in controllers.items():
        alone = evaluate_controller(scenario, controller, SEEDS, PROTOCOL)
        assert (alone.values == evaluated.evaluations[name].values).all()
    # By means, as ever: at tolerance 0 what is shown to be dominated is dominated by its mean as well.
    front, by_means = evaluated.front(), build_front(scenario, evaluated.candidates)
    assert [(c.name, c.mean, c.seeds) for c in front.candidates] == [
        (c.name, c.mean, c.seeds) for c in by_means.candidates
    ]
    assert front.reference_hash == "toy"
    assert evaluated.race.evaluations == 0
    assert all(one.samples == len(SEEDS) for one in evaluated.standings)
    standing = {one.name: one for one in evaluated.standings}
    # More effort than half costs more and brings less.
    assert standing["static-3"].status == "dominated"
    assert standing["static-3"].confidence is not None
    assert standing["static-3"].confidence >= 0.95
    assert {one.name for one in evaluated.standings if one.status == "undecided"} >= set(evaluated.undecided())
    assert json.loads(json.dumps(evaluated.race.to_dict())) == evaluated.race.to_dict()


def test_kinds_are_raced_against_each_other_where_it_is_undecided(bundle: Path, tmp_path: Path) -> None:
    scenario = ToyScenario()
    searches = {"static": Found([0.0, 0.48, 0.9])}
    trials = [trial(2, 0.95, tmp_path), trial(7, 0.25, tmp_path)]
    seen: list[tuple[int, int]] = []
    arguments: Any = (scenario, bundle, searches, SEEDS, PROTOCOL)
    plan = RacePlan(seeds=seeds_for("race", 0, 30), budget=150, tolerance=0.02)
    raced = evaluate_candidates(*arguments, trials=trials, race=plan, progress=lambda *at: seen.append(at))
    looked = evaluate_candidates(*arguments, trials=trials, race=RacePlan(tolerance=0.02))
    standing = {one.name: one for one in raced.standings}
    candidates = {c.name: c for c in raced.candidates}

    assert {c.kind for c in raced.candidates} == {"policy", "configuration", "hyperparameters"}
    assert candidates["trial-7@cheap"].parameters == {
        "trial": 7,
        "values": {"learning_rate": 0.07, "hidden": [8, 7]},
        "preference": scenario.modes["cheap"].preference.to_dict(),
        "weights_sha256": candidates["trial-7@balanced"].parameters["weights_sha256"],
    }
    # A trial that learned to spend is beaten by whoever spends half, of whatever kind; one that saves is not.
    assert standing["trial-2@balanced"].status == "dominated"
    assert standing[str(standing["trial-2@balanced"].dominated_by)].status != "undecided"
    assert standing["trial-7@balanced"].status != "dominated"
    # Figures on the common seeds are what they are without a race.
    assert raced.candidates == looked.candidates
    assert {name: e.seeds for name, e in raced.evaluations.items()} == dict.fromkeys(candidates, SEEDS)

    # What the first look decides costs nothing further; who survives stands on every seed that was used.
    fresh = {name: set(raced.archive.samples(name)[0]) - set(SEEDS) for name in candidates}
    used = set(raced.race.seeds) - set(SEEDS)
    assert used
    assert used <= set(plan.seeds)
    assert not fresh["trial-2@balanced"]
    assert all(fresh[name] == used for name in raced.race.survivors)
    assert {c.seeds for c in raced.front().candidates} == {raced.race.seeds}
    assert set(raced.undecided()) <= {c.name for c in raced.front().candidates}
    open_before = sum(one.status == "undecided" for one in looked.standings)
    open_after = sum(one.status == "undecided" for one in raced.standings)
    assert open_after < open_before
    done = [at for at, _ in seen]
    assert done == sorted(done)
    assert {total for _, total in seen} == {len(candidates) * len(SEEDS) + 150}

    again = evaluate_candidates(*arguments, trials=trials, race=plan)
    assert again.race.to_dict() == raced.race.to_dict()
    assert again.front() == raced.front()


def test_a_race_in_worlds_of_its_own_takes_as_many_evaluations_as_the_common_ones() -> None:
    plan = RacePlan.of(PROTOCOL, 4)
    assert plan.seeds == seeds_for("race", 4, 12)
    assert plan.evaluations(common=60) == 60
    assert RacePlan.of(PROTOCOL, 4, budget=7).evaluations(common=60) == 7
    assert RacePlan.of(PROTOCOL, 4, budget=0).evaluations(common=60) == 0
    assert RacePlan().evaluations(common=60) == 0, "without fresh worlds there is nothing to spend it on"
    others = {s for purpose in ("search", "front", "table", "selection", "verdict") for s in seeds_for(purpose, 4, 50)}  # type: ignore[arg-type]
    assert not others & set(plan.seeds)


def test_a_bad_race_is_refused(bundle: Path) -> None:
    for plan, said in (
        (RacePlan(confidence=0.4), "confidence must be a number in"),
        (RacePlan(seeds=(1, 2), tolerance=-1.0), "tolerance must be a finite number >= 0"),
        (RacePlan(seeds=(1, 2), budget=-5), "budget must be a whole number >= 0, got -5"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            evaluate_candidates(ToyScenario(), bundle, {}, SEEDS, PROTOCOL, race=plan)


class Counted(ToyScenario):
    """The toy, which counts the environments that are asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def vector_env(self, num_envs: int, seed: Any = 0) -> ToyEnv:
        self.asked += 1
        return super().vector_env(num_envs, seed)


@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("configuration", {}, "unknown tunable of contender 'odd' 'None'; allowed: static"),
        ("configuration", {"tunable": ["static"], "values": {}}, "unknown tunable of contender 'odd'"),
        ("configuration", {"tunable": "static"}, "values of contender 'odd' must be numbers for effort, got None"),
        ("configuration", {"tunable": "static", "values": {"zeal": 1.0}}, "must be numbers for effort, got"),
        ("configuration", {"tunable": "static", "values": {"effort": 1.5}}, r"effort must be in \[0, 1\], got 1.5"),
        ("configuration", {"tunable": "static", "values": {"effort": float("nan")}}, "effort"),
        ("configuration", {"tunable": "static", "values": {"effort": "much"}}, "static"),
        ("policy", {"preference": {"cost": 1.0}}, "unknown weights_sha256 of contender 'odd' 'None'; allowed: "),
        ("hyperparameters", {"weights_sha256": "0" * 64}, "unknown weights_sha256 of contender 'odd' '0000"),
        ("policy", {"weights_sha256": "here"}, "needs a preference over cost, quality"),
        ("policy", {"weights_sha256": "here", "preference": {"joy": 1.0}}, "preference of contender 'odd'"),
    ],
)
def test_what_names_nothing_at_hand_is_refused_before_anything_is_simulated(
    kind: Any, parameters: dict[str, Any], said: str, bundle: Path
) -> None:
    if parameters.get("weights_sha256") == "here":
        (known,) = policy_contenders("p", bundle, {"any": Preference.uniform(["cost", "quality"])})
        parameters = {**parameters, "weights_sha256": known.parameters["weights_sha256"]}
    scenario = Counted()
    evaluator = ContenderEvaluator(scenario, PROTOCOL, [bundle])
    with pytest.raises(InvalidInputError, match=said):
        evaluator([static(0.5), Contender(name="odd", kind=kind, parameters=parameters)], SEEDS)
    assert scenario.asked == 0
    with pytest.raises(InvalidInputError, match="more than once"):
        evaluator([static(0.5)], (1, 1))
    assert scenario.asked == 0


def test_a_policy_of_another_scenario_is_refused(tmp_path: Path) -> None:
    stranger = policy_bundle(tmp_path / "stranger", kind="box", features=2, actions=1)
    with pytest.raises(InvalidInputError, match=r"the policy in stranger observes x0, x1; toy .* has demand, bias"):
        ContenderEvaluator(ToyScenario(), PROTOCOL, [stranger])
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BundleError, match=f"{folder.name}: policy.safetensors cannot be read: No such file"):
            ContenderEvaluator(ToyScenario(), PROTOCOL, [folder])
        with pytest.raises(BundleError, match="cannot be read"):
            policy_contenders("policy", folder, {})


class Unlucky(ToyScenario):
    """In some worlds nothing is counted for an objective."""

    def objective_values(self, numerators: Any, denominators: Any) -> np.ndarray:
        values = super().objective_values(numerators, denominators)
        return np.where(values > 3.8, np.nan, values)


def test_an_undefined_objective_is_an_error_with_the_candidates_name(bundle: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"candidate '.*' has a non-finite objective"):
        evaluate_candidates(Unlucky(), bundle, {"static": Found([1.0])}, SEEDS, PROTOCOL)


def test_a_trial_is_written_and_read_where_the_folder_has_moved_to(tmp_path: Path) -> None:
    one = trial(4, 0.5, tmp_path / "before")
    document = json.loads(json.dumps(one.to_dict(tmp_path / "before")))
    assert document["bundle"] == "trial-4"
    (tmp_path / "before").rename(tmp_path / "after")
    moved = TrialPolicy.from_dict(document, tmp_path / "after")
    assert (moved.trial, moved.values, moved.kept, one.kept) == (4, one.values, True, False)
    for damaged, said in (
        ({}, "lacks 'trial'"),
        ({**document, "trial": "x"}, "malformed"),
        ({**document, "bundle": 3}, "malformed"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            TrialPolicy.from_dict(damaged, tmp_path)
