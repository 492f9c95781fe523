"""Fronts of policies and how good they are, against known fronts and other people's indicators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import moocore
import numpy as np
import pytest
import torch
from training_toys import Toy

from rlaas.bundles import load_bundle
from rlaas.decisions import resolve
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.fronts import Front
from rlaas.objectives import Mode, Preference, normalise
from rlaas.scenarios import Controller, evaluate
from rlaas.training import (
    FrontEvaluation,
    GymnasiumScenario,
    PolicyController,
    TrainingConfig,
    episode_returns,
    evaluate_front,
    export_bundle,
    export_constant,
    front_quality,
    train,
)
from rlaas.training.evaluation import named_preferences
from rlaas.training.front_evaluation import configured_preferences, with_default
from rlaas.training.networks import PolicyNetwork

TREASURE = "mo_gymnasium:deep-sea-treasure-v0"
UP, DOWN, RIGHT = 0, 1, 3
REACHABLE = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
"""Columns of the ten treasures, in the order of the front."""


class Dive(Controller):
    """Goes right so many times, then down: the shortest way to a treasure."""

    def __init__(self, column: int) -> None:
        self.column = column

    def act(self, observation: np.ndarray) -> np.ndarray:
        return np.where(observation[:, 1] < self.column, RIGHT, DOWN)


class Rise(Controller):
    """Bumps against the surface for ever."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        return np.full(len(observation), UP)


@pytest.fixture(scope="module")
def treasure() -> GymnasiumScenario:
    return GymnasiumScenario(TREASURE)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_returns_of_whole_episodes_are_the_known_front(gamma: float, treasure: GymnasiumScenario) -> None:
    exact = np.array(gymnasium.make("deep-sea-treasure-v0").unwrapped.pareto_front(gamma))
    # Three episodes on each of two seeds: the second and third begin by an automatic reset.
    found = episode_returns(treasure, [Dive(c) for c in REACHABLE], (1, 2), steps=100, episodes=3, gamma=gamma)
    assert found.cut == 0
    assert found.values.shape == (10, 2, 2)
    np.testing.assert_allclose(found.values, np.repeat(exact[:, None], 2, axis=1), rtol=1e-6)


def test_episodes_that_do_not_end_count_as_they_stand(treasure: GymnasiumScenario) -> None:
    found = episode_returns(treasure, [Rise(), Dive(0)], (1, 2, 3), steps=7, episodes=2)
    # The time limit of 100 steps would have come later.
    assert found.cut == 3
    np.testing.assert_allclose(found.values[:, 0], [[0.0, -7.0], [0.7, -1.0]], rtol=1e-6)
    assert episode_returns(treasure, [Rise()], (1,), steps=100, episodes=2).cut == 0


def test_whole_episodes_are_played_by_one(treasure: GymnasiumScenario) -> None:
    for values, field in (
        ({"gamma": 0.0}, "gamma"),
        ({"gamma": 1.5}, "gamma"),
        ({"steps": 0}, "steps"),
        ({"episodes": 0}, "episodes"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            episode_returns(treasure, [Rise()], (1,), **{"steps": 5, **values})  # type: ignore[arg-type]
        assert caught.value.field == field
    with pytest.raises(InvalidInputError, match="at least one controller"):
        episode_returns(treasure, [], (1,), steps=5)
    with pytest.raises(InvalidInputError, match="has 2 decision makers per environment"):
        episode_returns(Toy(rows=2), [Rise()], (1,), steps=5)


def test_the_known_front_has_the_figures_that_everyone_quotes(treasure: GymnasiumScenario) -> None:
    returns = episode_returns(treasure, [Dive(c) for c in REACHABLE], (1, 2), steps=100).values
    candidates = {f"dive{c}": {"return_0": 0.5, "return_1": 0.5} for c in REACHABLE}
    # Undiscounted and from (0, -25); other discounts and reference points give other figures.
    found = front_quality(treasure, candidates, returns, (1, 2), reference={"return_0": 0.0, "return_1": -25.0})
    assert found.unit == "return"
    assert found.hypervolume is not None
    assert found.hypervolume.value == pytest.approx(401.8)
    # Nothing is random here, so the interval is a point.
    assert found.hypervolume.low == pytest.approx(401.8)
    assert found.hypervolume.high == pytest.approx(401.8)
    assert len(found.front.candidates) == 10
    gaps = np.diff(np.array(gymnasium.make("deep-sea-treasure-v0").unwrapped.pareto_front(1.0)), axis=0)
    assert found.sparsity.value == pytest.approx((gaps**2).sum() / 9)
    # One candidate: no gap, and the utility is that of its own mean weights.
    alone = front_quality(treasure, {"dive0": candidates["dive0"]}, returns[:1], (1, 2))
    assert alone.hypervolume is None
    assert alone.metrics() == pytest.approx({"expected_utility": -0.15, "sparsity": 0.0})


def _bundle(folder: Path) -> Path:
    torch.manual_seed(3)
    network = PolicyNetwork(2, 2, 1, (16, 8), discrete=False, activation="relu")
    with torch.no_grad():
        for parameter in network.body.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return export_bundle(network, Toy(), folder, algorithm="sac")


def test_a_scenarios_front_is_judged_in_goodness(tmp_path: Path) -> None:
    scenario, bundle = Toy(), _bundle(tmp_path / "b")
    asked = {name: Preference.of(scenario.objectives, w) for name, w in (("a", [1, 0]), ("b", [0, 1]), ("c", [1, 1]))}
    seeds = (11, 12, 13, 14)
    found = evaluate_front(scenario, bundle, asked, seeds, steps=30, warmup=5, replicas=2)
    policy = load_bundle(bundle)
    for name, values in zip(asked, found.values, strict=True):
        alone = evaluate(scenario, PolicyController(policy, asked[name]), seeds, steps=30, warmup=5, replicas=2)
        np.testing.assert_array_equal(values, alone.values)
    assert found.names == ("policy@a", "policy@b", "policy@c")
    assert found.unit == "goodness"
    goodness = normalise(scenario.objectives, found.values)
    expected = moocore.hypervolume(-goodness.mean(axis=1), ref=np.zeros(2))
    assert found.hypervolume is not None
    assert found.hypervolume.value == pytest.approx(expected)
    assert found.hypervolume.low < found.hypervolume.value < found.hypervolume.high
    # The bootstrap's interval against the classical one, which holds for a single candidate's single objective.
    one = front_quality(scenario, {"a": {}}, found.values[:1], seeds)
    side = goodness[0].mean(axis=1)
    classical = 1.96 * side.std(ddof=1) / 2.0
    width = (one.expected_utility.high - one.expected_utility.low) / 2.0
    assert 0.6 * classical < width < 1.2 * classical
    # The same once more, and from the other forms of the same arguments.
    again = evaluate_front(scenario, policy, asked, np.array(seeds), steps=30, warmup=5, replicas=2)
    assert again.to_dict() == found.to_dict()
    config = TrainingConfig(
        scenario="training_toys:Toy",
        evaluation_seeds=seeds,
        evaluation_preferences=3,
        evaluation_steps=30,
        evaluation_warmup=5,
        evaluation_replicas=2,
    )
    configured = evaluate_front(scenario, bundle, config)
    assert configured.names == ("policy@follow", "policy@near=0.50,mirror=0.50", "policy@near=1.00")
    np.testing.assert_array_equal(configured.values[2], found.values[0])
    fresh = evaluate_front(scenario, bundle, config, (21, 22))
    assert fresh.seeds == (21, 22)
    assert fresh.values.shape == (3, 2, 2)


def test_one_seed_has_no_interval_and_stays_json(tmp_path: Path) -> None:
    scenario = Toy()
    found = evaluate_front(scenario, _bundle(tmp_path / "b"), [Preference.uniform(scenario.objectives)], (1,), steps=20)
    assert found.hypervolume is not None
    assert str(found.hypervolume) == f"{found.hypervolume.value:.4g}"
    document = found.to_dict()
    document.pop("front")
    assert json.loads(json.dumps(document, allow_nan=False))["hypervolume"]["low"] is None
    assert found.reference == {"near": 0.0, "mirror": 0.0}


@pytest.mark.parametrize(
    ("values", "field", "fragment"),
    [
        ({"seeds": None}, "seeds", "needs seeds"),
        ({"seeds": ()}, "seeds", "seed"),
        ({"preferences": []}, "preferences", "at least one preference"),
        ({"steps": 0}, "steps", ">= 1"),
        ({"gamma": 0.9}, "gamma", "averages over steps"),
        ({"reference": {"near": 0.0}}, "reference", "a finite value for each of near, mirror"),
        ({"reference": {"near": 0.0, "mirror": float("nan")}}, "reference", "a finite value for each"),
    ],
)
def test_bad_input_names_the_field(values: dict[str, Any], field: str, fragment: str, tmp_path: Path) -> None:
    scenario = Toy()
    given: dict[str, Any] = {"preferences": [Preference.uniform(scenario.objectives)], "seeds": (1, 2), **values}
    with pytest.raises(InvalidInputError) as caught:
        evaluate_front(scenario, _bundle(tmp_path / "b"), given.pop("preferences"), given.pop("seeds"), **given)
    assert caught.value.field == field
    assert fragment in caught.value.message


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"environment": TREASURE, "evaluation_reference": {"return_0": 0.0}}, "evaluation_reference"),
        (
            {"environment": TREASURE, "evaluation_reference": {"return_0": 0.0, "return_1": float("inf")}},
            "evaluation_reference",
        ),
        ({"scenario": "training_toys:Toy", "evaluation_gamma": 0.9}, "evaluation_gamma"),
        ({"environment": TREASURE, "evaluation_gamma": 1.5}, "evaluation_gamma"),
    ],
)
def test_evaluations_that_cannot_work_are_refused_before_training(
    values: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        train(TrainingConfig(**values), output=tmp_path / "run")
    assert caught.value.field == field
    assert not (tmp_path / "run").exists()


@pytest.mark.ray
def test_a_training_ends_with_the_figures_of_its_front(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(
        environment=TREASURE,
        steps=2_048,
        num_envs=16,
        seed=3,
        ppo={"rollout_length": 32, "minibatch": 128},
        evaluation_seeds=(5, 6),
        evaluation_preferences=5,
        evaluation_steps=40,
        evaluation_gamma=0.99,
        evaluation_reference={"return_0": 0.0, "return_1": -50.0},
    )
    seen: dict[str, float] = {}

    class Listener:
        name = "listener"

        def started(self, config: Any, scenario: Any) -> None: ...
        def iteration(self, row: Any) -> None: ...
        def failed(self, problem: BaseException) -> None: ...
        def close(self) -> None: ...
        def finished(self, metrics: Any) -> None:
            seen.update(metrics)

    run = train(config, output=tmp_path / "run", reporter=Listener())
    found = run.evaluation
    assert isinstance(found, FrontEvaluation)
    assert run.front is found.front
    # What MLflow is told.
    assert {name: seen[name] for name in found.metrics()} == found.metrics()
    assert set(found.metrics()) == {"hypervolume", "expected_utility", "sparsity"}
    assert found.gamma == 0.99
    # No path through the sea earns more in its first step than 0.7.
    assert (found.values[:, :, 0] <= 23.7).all()
    assert (found.values[:, :, 1] <= -1.0).all()
    assert Front.from_dict(found.to_dict()["front"]).names == ("return_0", "return_1")


def test_a_trainings_front_knows_what_the_default_reaches(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(
        scenario="training_toys:Toy",
        algorithm="ppo",
        steps=512,
        num_envs=8,
        ppo={"rollout_length": 16, "minibatch": 64},
        evaluation_seeds=(5, 6, 7),
        evaluation_preferences=3,
        evaluation_steps=20,
        evaluation_warmup=3,
        evaluation_replicas=2,
    )
    run = train(config, output=tmp_path / "run")
    scenario = Toy()
    default = scenario.baselines[scenario.default_baseline].make()
    alone = evaluate(scenario, default, (5, 6, 7), steps=20, warmup=3, replicas=2)
    assert run.front is not None
    assert run.front.default == pytest.approx(alone.values.mean(axis=0))
    assert Front.from_dict(json.loads(json.dumps(run.front.to_dict()))) == run.front
    # Where bargaining ends without an agreement.
    mode = Mode(name="even", preference=Preference.uniform(scenario.objectives))
    assert "default" in str(resolve(run.front, mode=mode, method="nash").certificate.to_dict()["notes"])


def test_a_front_without_a_default_stays_as_it_is(treasure: GymnasiumScenario, tmp_path: Path) -> None:
    config = TrainingConfig(environment=TREASURE, steps=1, evaluation_seeds=(5,), evaluation_steps=5)
    values = np.array([[[1.0, -2.0]]])
    found = front_quality(treasure, {"a": {"return_0": 0.5, "return_1": 0.5}}, values, (5,))
    assert with_default(treasure, found, config) is found
    assert found.front.default is None


def test_a_constant_policy_needs_no_preference(tmp_path: Path) -> None:
    scenario = Toy()
    bundle = export_constant(scenario, np.zeros(1), tmp_path / "b")
    found = evaluate_front(scenario, bundle, [Preference.uniform(scenario.objectives)], (1, 2), steps=10)
    assert found.expected_utility.value == pytest.approx(float(normalise(scenario.objectives, found.values).mean()))


def test_preferences_that_look_alike_keep_names_of_their_own(treasure: GymnasiumScenario) -> None:
    close = [Preference.of(treasure.objectives, [share, 1.0 - share]) for share in (0.5, 0.501, 0.5011, 0.5)]
    named = named_preferences(close)
    assert list(named) == [
        "return_0=0.50,return_1=0.50",
        "return_0=0.501,return_1=0.499",
        "return_0=0.5011,return_1=0.4989",
    ]
    config = TrainingConfig(environment=TREASURE, evaluation_preferences=101)
    asked = configured_preferences(treasure, config)
    assert len(asked) == 101
    assert len({preference.weights for preference in asked.values()}) == 101
