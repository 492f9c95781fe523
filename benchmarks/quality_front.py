"""Fronts whose best is known, and fronts beside MORL-Baselines' CAPQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Row
from benchmarks.quality_kit import Cache, Findings, summary, trained, trainer, training_seeds, versions
from rlaas.objectives import Preference
from rlaas.scenarios import Controller
from rlaas.training import (
    FrontEvaluation,
    GymnasiumScenario,
    PolicyController,
    TrainingConfig,
    episode_returns,
    front_quality,
    load_config,
)

__all__ = ["capql", "treasure"]

CONFIG = Path(__file__).parent.parent / "configs" / "training" / "deep-sea-treasure.yaml"
TREASURE_REFERENCE = {"return_0": 0.0, "return_1": -25.0}
"""With no discount the exact convex front has hypervolume 401.8 from here, the concave one 1,155."""
WITHIN = 0.02

# Before the far treasures are known the near one looks best under almost every preference of Chebyshev's utility, and a
# policy that has settled there sees no other: an entropy bonus and small steps keep it looking. The utility's weights
# move with what has been reached, and never settle where the best is a mixture of two points: it ends in time.
HOLLOW: Mapping[str, Any] = {
    "scalarisation": "chebyshev",
    "steps": 140_000,
    "ppo": {"entropy": 0.1, "clip": 0.05, "max_grad_norm": 0.2},
}
CHOICES_SAC: Mapping[str, Any] = {
    "algorithm": "sac",
    "steps": 60_000,
    "num_envs": 16,
    "sac": {"updates_per_step": 0.25, "target_entropy": 0.1},
}

GAMMA = 0.99
CAPQL_PROBLEMS: Mapping[str, Mapping[str, Any]] = {
    # Backwards at one metre a second, and six motors at full force, over 100 discounted steps. The first is what
    # MORL-Baselines' example takes for both, where version 4 weighed force by a tenth.
    "mo-halfcheetah-v5": {"options": {}, "reference": (-100.0, -600.0)},
    # The worse ends that its authors give per step (DamEnv.antiutopia), over 100 discounted steps.
    # A release of water takes less noise than the usual entropy of -1 for one action; found on seed 11.
    "water-reservoir-v0": {
        "options": {"normalized_action": True},
        "reference": (-158.5, -697.4),
        "sac": {"target_entropy": -2.0},
    },
}
OURS: Mapping[str, Any] = {
    "algorithm": "sac",
    "num_envs": 4,
    "hidden": (64, 64),
    "gamma": GAMMA,
    "learning_rate": 1e-3,
    "batch_size": 256,
    "sac": {"updates_per_step": 1.0, "tau": 0.005, "learning_starts": 1_000},
}
SIMULATORS = ("mo-gymnasium", "gymnasium", "mujoco")
CAPQL_SEEDS = (70_001, 70_002, 70_003, 70_004, 70_005)
"""Evaluation seeds; nobody trains on them."""


def spread(scenario: GymnasiumScenario, count: int) -> list[Preference]:
    """``count`` preferences over two objectives at equal distances."""
    shares = np.linspace(0.0, 1.0, count)
    return [Preference.of(scenario.objectives, [float(share), float(1.0 - share)]) for share in shares]


def judged(
    scenario: GymnasiumScenario,
    controllers: Sequence[Controller],
    asked: Sequence[Preference],
    seeds: Sequence[int],
    *,
    steps: int,
    gamma: float,
    reference: Mapping[str, float],
) -> FrontEvaluation:
    """The front of controllers that were asked for these preferences."""
    played = episode_returns(scenario, controllers, seeds, steps=steps, gamma=gamma)
    candidates = {f"{index}": preference.to_dict() for index, preference in enumerate(asked)}
    return front_quality(scenario, candidates, played.values, seeds, gamma=gamma, reference=reference)


def treasure(cache: Cache, *, quick: bool, only: Sequence[int] | None = None) -> Findings:
    """Deep-sea-treasure: convex by weighted sums, concave by Chebyshev's utility, beside the exact fronts."""
    seeds = training_seeds(2 if quick else 5, only)
    shipped = load_config(CONFIG)
    concave = "mo_gymnasium:deep-sea-treasure-concave-v0"
    hollow = {**shipped.model_dump(exclude_unset=True), **HOLLOW, "environment": concave}
    hollow["ppo"] = {**shipped.ppo.model_dump(exclude_unset=True), **HOLLOW["ppo"]}
    choices = {"environment": shipped.environment, "gamma": shipped.gamma, **CHOICES_SAC}
    found = Findings()
    for what, full in (
        (f"convex, PPO by {CONFIG.name}", shipped),
        ("concave, PPO, Chebyshev", TrainingConfig(**hollow)),
        ("convex, discrete SAC", TrainingConfig(**choices)),
    ):
        config = full.model_copy(update={"steps": 6_000}) if quick else full
        results = [_dive(cache, config, seed) for seed in seeds]
        exact = results[0]["exact"]
        volumes = summary([r["hypervolume"] for r in results])
        near = sum(r["hypervolume"] >= (1.0 - WITHIN) * exact for r in results)
        name = f"deep-sea-treasure, {what}, {config.steps:,} steps"
        rival = f"exact front, MO-Gymnasium {versions('mo-gymnasium')['mo-gymnasium']}"
        found.rows.append(
            Row(f"{name}: hypervolume, interquartile mean of {len(seeds)} seeds", "return", volumes.value, rival, exact)
        )
        points = ", ".join(str(r["found"]) for r in results)
        found.notes.append(
            f"{name}: {volumes} of {exact:g} from (0, -25), undiscounted; within {WITHIN:.0%} on {near} of "
            f"{len(seeds)} seeds; points of the exact front found: {points} of {results[0]['points']}"
        )
    return found


def _dive(cache: Cache, config: TrainingConfig, seed: int) -> dict[str, Any]:
    config = config.model_copy(update={"seed": seed, "evaluation_seeds": ()})

    def work() -> dict[str, Any]:
        scenario = GymnasiumScenario(str(config.environment))
        _, policy = trained(config)
        asked = spread(scenario, 101)
        controllers = [PolicyController(policy, preference) for preference in asked]
        known: Any = gymnasium.make(str(config.environment)).unwrapped
        exact = np.array(known.pareto_front(1.0))
        best = front_quality(scenario, _named(len(exact)), exact[:, None], (1,), reference=TREASURE_REFERENCE)
        front = judged(scenario, controllers, asked, (1,), steps=100, gamma=1.0, reference=TREASURE_REFERENCE)
        reached = np.round(front.front.values(), 3)
        assert front.hypervolume is not None
        assert best.hypervolume is not None
        return {
            "hypervolume": front.hypervolume.value,
            "expected_utility": front.expected_utility.value,
            "exact": best.hypervolume.value,
            "exact_expected_utility": best.expected_utility.value,
            "points": len(exact),
            "found": int(sum((np.abs(reached - point) < 1e-3).all(axis=1).any() for point in exact)),
        }

    settings = {"config": config.model_dump(mode="json"), **trainer(), **versions("gymnasium", "mo-gymnasium")}
    kind = "concave" if "concave" in str(config.environment) else "convex"
    return cache.result(f"treasure-{kind}-{config.algorithm}-{seed}", settings, work)


def _named(count: int) -> dict[str, dict[str, float]]:
    return {f"exact{index}": {} for index in range(count)}


class FromAgent(Controller):
    """A MORL-Baselines agent at one preference, without its exploration."""

    def __init__(self, agent: Any, preference: Preference) -> None:
        self._agent, self._weights = agent, preference.array().astype(np.float32)

    def act(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Its actions for rows of observations."""
        rows = np.asarray(observation, dtype=np.float32)
        return np.asarray(self._agent.eval(rows, np.repeat(self._weights[None], len(rows), axis=0)))


def capql(cache: Cache, *, quick: bool, only: Sequence[int] | None = None) -> Findings:
    """Two continuous problems, one of MuJoCo and one without a physics engine, beside CAPQL with its own defaults."""
    seeds, steps = training_seeds(1 if quick else 3, only), 1_500 if quick else 30_000
    found = Findings()
    used = versions("morl-baselines", *SIMULATORS)
    rival = f"MORL-Baselines {used['morl-baselines']} CAPQL"
    for environment, given in CAPQL_PROBLEMS.items():
        both = {
            who: [_continuous(cache, who, environment, given, steps, seed, quick) for seed in seeds]
            for who in ("ours", "capql")
        }
        what = f"{environment}, {steps:,} steps, {len(seeds)} seeds"
        for figure in ("hypervolume", "expected_utility"):
            mine, other = (summary([r[figure] for r in both[who]]) for who in ("ours", "capql"))
            cost = other.value < 0
            sign = -1.0 if cost else 1.0
            label = figure.replace("_", " ")
            found.rows.append(
                Row(
                    f"{what}: {label}",
                    f"{'minus ' if cost else ''}return, discounted by {GAMMA}",
                    sign * mine.value,
                    rival,
                    sign * other.value,
                    better="lower" if cost else "higher",
                )
            )
            found.notes.append(f"{what}: {label}: ours {mine}; {rival} {other}; from {given['reference']}")
    found.notes.append(
        f"both learners: gamma {GAMMA}, the same {_asked(quick)} preferences and {len(CAPQL_SEEDS)} evaluation seeds, "
        + ", ".join(f"{name} {number}" for name, number in used.items())
    )
    return found


def _asked(quick: bool) -> int:
    return 5 if quick else 21


def _continuous(
    cache: Cache, who: str, environment: str, given: Mapping[str, Any], steps: int, seed: int, quick: bool
) -> dict[str, Any]:
    name, options = f"mo_gymnasium:{environment}", dict(given["options"])
    reference = dict(zip(("return_0", "return_1"), given["reference"], strict=True))
    ours = {**OURS, "sac": {**OURS["sac"], **given.get("sac", {})}}
    config = TrainingConfig(environment=name, options=options, steps=steps, seed=seed, **ours)

    def work() -> dict[str, Any]:
        scenario = GymnasiumScenario(name, **options)
        asked = spread(scenario, _asked(quick))
        controllers: list[Controller]
        if who == "ours":
            _, policy = trained(config)
            controllers = [PolicyController(policy, preference) for preference in asked]
        else:
            agent = _capql(name, options, steps, seed)
            controllers = [FromAgent(agent, preference) for preference in asked]
        longest = 200 if quick else 1_000
        front = judged(scenario, controllers, asked, CAPQL_SEEDS, steps=longest, gamma=GAMMA, reference=reference)
        assert front.hypervolume is not None
        return {
            "hypervolume": front.hypervolume.value,
            "expected_utility": front.expected_utility.value,
            "sparsity": front.sparsity.value,
            "front": front.front.values().tolist(),
        }

    own = config.model_dump(mode="json") if who == "ours" else {"learner": "CAPQL, defaults", "gamma": GAMMA}
    settings = {"learner": own, "steps": steps, "seed": seed, "options": options, "reference": reference}
    settings |= {"preferences": _asked(quick), "seeds": CAPQL_SEEDS, "environment": name}
    settings |= trainer() if who == "ours" else versions("torch", "morl-baselines")
    settings |= versions(*SIMULATORS)
    return cache.result(f"capql-{who}-{environment}-{seed}", settings, work)


def _capql(name: str, options: Mapping[str, Any], steps: int, seed: int) -> Any:
    from morl_baselines.multi_policy.capql.capql import CAPQL

    env, evaluation = (gymnasium.make(name, disable_env_checker=True, **options) for _ in range(2))
    env.reset(seed=seed)
    env.action_space.seed(seed)
    agent = CAPQL(env, gamma=GAMMA, log=False, seed=seed, device="cpu")
    agent.train(total_timesteps=steps, eval_env=evaluation, ref_point=np.zeros(2), eval_freq=10 * steps)
    return agent
