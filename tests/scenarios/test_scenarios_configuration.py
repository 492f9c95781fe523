"""A scenario's tunables as a search problem, on a scenario small enough to know the answer."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Mode, Objective, Preference
from rlaas.scenarios import (
    Baseline,
    ConstantController,
    Controller,
    Scenario,
    Tunable,
    VectorScenarioEnv,
    evaluate,
    load,
)
from rlaas.scenarios.configuration import ROWS_PER_BATCH, ConfigurationProblem

FloatArray = NDArray[np.float64]


class NoisyLineEnv(VectorScenarioEnv):
    """Costs the first action's square, yields the second, plus noise that only the seed decides."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, seeds: Sequence[int]) -> None:
        self.num_envs = num_envs
        self.rows_per_env = 1
        self.single_observation_space = spaces.Box(-1, 1, (1,), dtype=np.float32)
        self.single_action_space = spaces.Box(0, 10, (2,), dtype=np.float64)
        self.reward_space = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64)
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self._rngs = [np.random.default_rng(one) for one in seed]
        return np.zeros((self.num_envs, 1), dtype=np.float32), {}

    def step(self, actions: NDArray[Any]) -> Any:
        noise = np.array([rng.normal(size=2) for rng in self._rngs])
        cost, gain = actions[:, 0] ** 2 + noise[:, 0], actions[:, 1] + noise[:, 1]
        # Nothing is offered while the second action is exactly 0: the gain is undefined there.
        offered = (actions[:, 1] > 0).astype(np.float64)
        parts = {
            "numerators": np.stack([cost, gain * offered], axis=1),
            "denominators": np.stack([np.ones(self.num_envs), offered], axis=1),
        }
        flags = np.zeros(self.num_envs, dtype=bool)
        observation = np.zeros((self.num_envs, 1), dtype=np.float32)
        return observation, np.stack([-cost, gain], axis=1), flags, flags.copy(), parts

    def get_state(self) -> dict[str, Any]:
        return {"rngs": [rng.bit_generator.state for rng in self._rngs]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        for rng, saved in zip(self._rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved


class Creeping(Controller):
    """Raises its second action every step: remembers, so that mixing rows up would show."""

    def __init__(self, first: float) -> None:
        self.first = first
        self.rows = 0
        self.rewards = 0.0

    def reset(self, num_rows: int, seed: int) -> None:
        self.rows, self.rewards = num_rows, 0.0

    def act(self, observation: NDArray[Any]) -> NDArray[Any]:
        assert len(observation) == self.rows
        return np.tile([self.first, 1.0 + abs(np.tanh(self.rewards))], (self.rows, 1))

    def learn(self, observation: NDArray[Any], action: NDArray[Any], reward: NDArray[Any]) -> None:
        assert (action[:, 0] == self.first).all()
        self.rewards += float(reward.mean())


class NoisyLine(Scenario):
    name = "noisy-line"
    algorithm = "sac"
    experiment_design = "user"

    def __init__(self) -> None:
        self.objectives = (
            Objective(name="cost", unit="W", direction="minimize", low=0, high=100),
            Objective(name="gain", unit="Mbit/s", direction="maximize", low=0, high=10),
        )
        self.modes = {"normal": Mode(name="normal", preference=Preference.uniform(self.objectives))}
        self.baselines = {
            "zero": Baseline(name="zero", description="none", make=lambda: ConstantController(np.ones(2)))
        }
        self.tunables = {
            "static": Tunable(
                name="static",
                parameters=("spend", "ask"),
                low=(0.0, 0.0),
                high=(10.0, 10.0),
                integer=(True, False),
                make=ConstantController,
            ),
            "creeping": Tunable(
                name="creeping", parameters=("first",), low=(0.0,), high=(9.0,), integer=(False,), make=_creeping
            ),
        }
        self.default_baseline = "zero"
        self.primary_mode = "normal"
        self.part_names = ("cost", "gain")
        self.options = {}
        self.reference_hash = "0" * 16

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> NoisyLineEnv:
        seeds = [seed + i for i in range(num_envs)] if isinstance(seed, int) else list(seed)
        return NoisyLineEnv(num_envs, seeds)

    def objective_values(self, numerators: FloatArray, denominators: FloatArray) -> FloatArray:
        return np.divide(numerators, denominators, out=np.full_like(numerators, np.nan), where=denominators > 0)


def _creeping(values: FloatArray) -> Controller:
    return Creeping(float(values[0]))


@pytest.fixture
def problem() -> ConfigurationProblem:
    return ConfigurationProblem(NoisyLine(), "static", seeds=[3, 4, 5], steps=20, warmup=2)


def test_describes_the_tunable(problem: ConfigurationProblem) -> None:
    assert (problem.n_var, problem.n_obj, problem.n_constraints) == (2, 2, 0)
    assert problem.names == ("spend", "ask")
    assert problem.xl.tolist() == [0, 0]
    assert problem.xu.tolist() == [10, 10]
    assert problem.integer.tolist() == [True, False]


def test_objectives_are_minimised_and_noise_is_common(problem: ConfigurationProblem) -> None:
    F = problem.evaluate(np.array([[2.0, 3.0], [5.0, 3.0], [2.0, 7.0]]))
    # Common random numbers: differences between configurations are exact, whatever the noise.
    assert F[1, 0] - F[0, 0] == pytest.approx(21.0)
    assert F[2, 1] - F[0, 1] == pytest.approx(-4.0)
    assert F[0, 0] == pytest.approx(4.0, abs=0.5)
    assert F[0, 1] == pytest.approx(-3.0, abs=0.5)


def test_agrees_with_evaluating_one_by_one(problem: ConfigurationProblem) -> None:
    scenario = problem.scenario
    X = np.array([[1.0, 2.0], [7.0, 3.5]])
    alone = [evaluate(scenario, ConstantController(x), problem.seeds, steps=20, warmup=2).mean() * [1, -1] for x in X]
    np.testing.assert_array_equal(problem.evaluate(X), alone)


def test_result_does_not_depend_on_how_many_are_stepped_together(problem: ConfigurationProblem) -> None:
    rows = ROWS_PER_BATCH // len(problem.seeds) + 7  # more than fit in one batch
    X = np.column_stack([np.arange(rows) % 11, 1.0 + np.arange(rows) % 9])
    together = problem.evaluate(X)
    np.testing.assert_array_equal(together[-3:], problem.evaluate(X[-3:]))


@pytest.mark.parametrize("replicas", [1, 2])
def test_controllers_with_memory_see_their_own_rows_only(replicas: int) -> None:
    problem = ConfigurationProblem(NoisyLine(), "creeping", seeds=[1, 2], steps=10, replicas=replicas)
    X = np.array([[0.5], [2.0], [8.0]])
    together = problem.evaluate(X)
    alone = np.concatenate([problem.evaluate(x[None]) for x in X])
    np.testing.assert_array_equal(together, alone)


def test_undefined_objective_is_unknown(problem: ConfigurationProblem) -> None:
    F = problem.evaluate(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(F[0, 1])
    assert np.isfinite(F[1]).all()


def test_evaluation_keeps_seeds_and_units(problem: ConfigurationProblem) -> None:
    evaluation = problem.evaluation([2.2, 3.0])  # spend is a whole number
    assert evaluation.seeds == (3, 4, 5)
    np.testing.assert_allclose(evaluation.mean() * [1, -1], problem.evaluate(np.array([[2.0, 3.0]]))[0])
    candidate = problem.candidate([2.2, 3.0], "c")
    assert candidate.kind == "configuration"
    assert candidate.parameters == {"tunable": "static", "values": {"spend": 2.0, "ask": 3.0}}
    assert candidate.mean[1] > 0


def test_is_empty_for_no_candidate(problem: ConfigurationProblem) -> None:
    assert problem.evaluate(np.empty((0, 2))).shape == (0, 2)


def test_survives_pickling() -> None:
    scenario = NoisyLine()
    scenario.baselines = {}  # its lambda is the scenario's own affair
    problem = ConfigurationProblem(scenario, "static", seeds=[1], steps=3)
    X = np.array([[1.0, 2.0]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(problem)).evaluate(X), problem.evaluate(X))


def test_bad_requests_name_the_field(problem: ConfigurationProblem) -> None:
    scenario = problem.scenario
    with pytest.raises(ConfigurationError, match="unknown tunable 'nope'; allowed: creeping, static"):
        ConfigurationProblem(scenario, "nope", seeds=[1], steps=3)
    with pytest.raises(InvalidInputError, match="at least one seed"):
        ConfigurationProblem(scenario, "static", seeds=[], steps=3)
    with pytest.raises(InvalidInputError, match="steps must be a whole number >= 1, got 0"):
        ConfigurationProblem(scenario, "static", seeds=[1], steps=0)
    with pytest.raises(InvalidInputError, match=r"static.ask must be in \[0, 10\], got 11"):
        problem.evaluate(np.array([[1.0, 11.0]]))
    with pytest.raises(InvalidInputError, match=r"shape \(3,\); expected \(2,\)"):
        problem.evaluate(np.zeros((1, 3)))


@pytest.mark.parametrize("name", ["network5g", "recsys"])
def test_the_reactive_family_contains_the_static_one(name):
    scenario = load(name)
    static, reactive = scenario.tunables["static"], scenario.tunables["reactive"]
    rng = np.random.default_rng(5)
    low, high = np.array(static.low), np.array(static.high)
    # Below the sleep at which cells are off: a rule never switches all of them off at once.
    x = low + 0.85 * (high - low) * rng.random(len(low))
    x = np.where(static.integer, np.round(x), x)
    same = reactive.from_static(dict(zip(static.parameters, x.tolist(), strict=True)))
    assert same is not None
    found = [
        evaluate(scenario, family.controller(v), [3, 4], steps=30) for family, v in ((static, x), (reactive, same))
    ]
    np.testing.assert_allclose(found[0].values, found[1].values, rtol=1e-4)


def test_a_family_without_static_members_says_so():
    scenario = load("network5g")
    assert scenario.tunables["static"].from_static({}) is None
