"""Learners of MORL-Baselines on both scenarios, beside rlaas's own after as many environment steps.

    python -m benchmarks.morl [--quick] [--json]

The rivals see one network, or one stream of sessions, as an ordinary MO-Gymnasium environment through the ids
registered with Gymnasium: CAPQL (continuous, one policy for all preferences) on network5g with central control,
Envelope (discrete, likewise) on recsys. Both learners are evaluated in the same worlds at the same preferences; the
hypervolume is that of the objectives normalised by the scenario's frozen ranges, on seeds that neither has seen.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import CONFIGS, Row, parse_arguments, report
from rlaas.bundles import load_bundle
from rlaas.objectives import Preference
from rlaas.optimization import front_hypervolume
from rlaas.scenarios import Controller, Scenario, evaluate, load
from rlaas.training import PolicyController, TrainingConfig, load_config, train

SEEDS = (501, 502, 503, 504, 505)
"""Evaluation seeds; neither learner trains on them."""


class FromAgent(Controller):
    """A MORL-Baselines agent at one preference."""

    def __init__(self, agent: Any, weights: NDArray[np.float64]) -> None:
        self._agent, self._weights = agent, weights.astype(np.float32)

    def act(self, observation: NDArray[Any]) -> NDArray[Any]:
        """One action per row; the agent takes rows one by one."""
        return np.stack([np.asarray(self._agent.eval(row, self._weights)) for row in observation])


def preferences(scenario: Scenario, count: int) -> list[Preference]:
    """The corners, the middle, and points drawn between them."""
    n = len(scenario.objectives)
    rng = np.random.default_rng(7)
    weights = [*np.eye(n), np.full(n, 1 / n), *rng.dirichlet(np.ones(n), size=max(count - n - 1, 0))]
    return [Preference.of(scenario.objectives, tuple(float(x) for x in w)) for w in weights[:count]]


def volume(scenario: Scenario, controllers: Sequence[Controller], steps: int) -> float:
    """Hypervolume of what the controllers reach on fresh seeds."""
    points = [evaluate(scenario, c, SEEDS, steps=steps, warmup=20).mean() for c in controllers]
    return float(front_hypervolume(np.stack(points), scenario.objectives))


def theirs(name: str, environment: str, steps: int) -> tuple[Any, float]:
    """A trained rival and its training steps per second."""
    module = importlib.import_module(f"morl_baselines.multi_policy.{name.lower()}.{name.lower()}")
    env = gymnasium.make(environment, disable_env_checker=True)
    agent = getattr(module, name)(env, net_arch=[64, 64], log=False, seed=1, device="cpu")
    started = time.perf_counter()
    extra = {"eval_freq": 10 * steps} if name == "CAPQL" else {"eval_freq": 10 * steps, "verbose": False}
    evaluation = gymnasium.make(environment, disable_env_checker=True)
    agent.train(total_timesteps=steps, eval_env=evaluation, ref_point=np.zeros(4), **extra)
    return agent, steps / (time.perf_counter() - started)


def ours(scenario: str, steps: int, rows_per_env: int) -> tuple[Any, float]:
    """Our trained policy and its environment steps per second; a step of a network is one decision of every cell."""
    # The learner for few decisions, as the rivals' are.
    file = "network5g-sac.yaml" if scenario == "network5g" else "recsys-ppo.yaml"
    defaults = load_config(CONFIGS / file).model_dump(exclude_unset=True) | {"evaluation_seeds": ()}
    defaults.update(scenario=scenario, steps=steps * rows_per_env, seed=1, num_envs=16)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = train(TrainingConfig(**defaults), output=Path(folder))
        return load_bundle(run.bundle), steps / (time.perf_counter() - started)


def compare(scenario: str, rival: str, environment: str, steps: int, points: int, evaluated: int) -> list[Row]:
    """Hypervolume and speed of both learners after ``steps`` environment steps."""
    cells = load(scenario)
    central = load(scenario, control="central") if scenario == "network5g" else cells
    rows_per_env = cells.vector_env(1).rows_per_env
    agent, their_rate = theirs(rival, environment, steps)
    bundle, our_rate = ours(scenario, steps, rows_per_env)
    wanted = preferences(cells, points)
    their_volume = volume(central, [FromAgent(agent, p.array()) for p in wanted], evaluated)
    our_volume = volume(cells, [PolicyController(bundle, p) for p in wanted], evaluated)
    name = f"MORL-Baselines {version('morl-baselines')} {rival}"
    what = f"{scenario}, {steps:,} environment steps"
    return [
        Row(f"{what}: hypervolume of {points} preferences", "share of the ranges", our_volume, name, their_volume),
        Row(f"{what}: training", "env steps/s", our_rate, name, their_rate),
    ]


def main() -> None:
    arguments = parse_arguments("morl")
    steps, points, evaluated = (1_500, 5, 40) if arguments.quick else (20_000, 12, 200)
    started = time.perf_counter()
    rows: list[Row] = []
    studies: tuple[Callable[[], list[Row]], ...] = (
        lambda: compare("network5g", "CAPQL", "rlaas/Network5G-v0", steps, points, evaluated),
        lambda: compare("recsys", "Envelope", "rlaas/Recommender-v0", steps, points, evaluated),
    )
    for study in studies:
        rows += study()
    report("morl", rows, arguments.json)
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
