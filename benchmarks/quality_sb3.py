"""Final returns beside Stable-Baselines3's, at equal steps and from its own tuned settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Row
from benchmarks.quality_kit import (
    Cache,
    Findings,
    Summary,
    simulator,
    summary,
    trained,
    trainer,
    training_seeds,
    versions,
)
from benchmarks.quality_specialists import Weighted, WeightedEnv
from rlaas.scenarios import Controller, ScalarisedVectorEnv, evaluate, load
from rlaas.training import GymnasiumScenario, PolicyController, TrainingConfig, episode_returns

__all__ = ["compare"]

EVALUATION_SEEDS = tuple(range(90_001, 90_021))
"""Neither learner trains on them."""
CELLS = 3
EQUAL = (0.25, 0.25, 0.25, 0.25)

# rl-baselines3-zoo, hyperparams/ppo.yml: CartPole-v1 (n_envs 8; learning rate and clip range fall linearly to 0); one
# norm bounds the gradients of policy and critic, as Stable-Baselines3 always does.
CARTPOLE = {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0}
CARTPOLE_ENVS, CARTPOLE_RATE, CARTPOLE_CLIP = 8, 1e-3, 0.2
# rl-baselines3-zoo, hyperparams/sac.yml: Pendulum-v1 has learning_rate 1e-3; all else is Stable-Baselines3's default.
PENDULUM = {"learning_rate": 1e-3}

OURS: Mapping[str, Mapping[str, Any]] = {
    "CartPole-v1": {
        "algorithm": "ppo",
        "num_envs": CARTPOLE_ENVS,
        "learning_rate": CARTPOLE_RATE,
        "gamma": 0.98,
        "ppo": {
            "rollout_length": 32,
            "minibatch": 256,
            "epochs": 20,
            "gae_lambda": 0.8,
            "entropy": 0.0,
            "clip": CARTPOLE_CLIP,
            "final_rate": 0.0,
            "final_clip": 0.0,
            "clip_jointly": True,
        },
    },
    "Pendulum-v1": {
        "algorithm": "sac",
        "num_envs": 1,
        "hidden": (256, 256),
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "sac": {
            "updates_per_step": 1.0,
            "tau": 0.005,
            "learning_starts": 200,
            "head_start": 0,
            "actor_learning_rate": 1e-3,
        },
    },
}
NETWORK: Mapping[str, Any] = {
    "algorithm": "sac",
    "num_envs": 8,
    "hidden": (64, 64),
    "learning_rate": 1e-3,
    "gamma": 0.95,
    "batch_size": 256,
    "sac": {"updates_per_step": 1 / (8 * CELLS), "tau": 0.005, "learning_starts": 1_200},
}
SHOP: Mapping[str, Any] = {
    "algorithm": "ppo",
    "num_envs": 16,
    "hidden": (64, 64),
    "learning_rate": 1e-3,
    "gamma": 0.95,
    "ppo": {
        "rollout_length": 64,
        "minibatch": 256,
        "epochs": 4,
        "gae_lambda": 0.95,
        "entropy": 0.003,
        "final_rate": 0.1,
        # As Stable-Baselines3 has it: one norm bounds all gradients, and half of the squared error is minimised.
        "clip_jointly": True,
        "value_coefficient": 1.0,
    },
}
SHOP_STEPS = 166_500
"""Rows times steps: some 150,000 decisions, which is what Stable-Baselines3 counts, and the resets between sessions."""
SHOP_OPTIONS: Mapping[str, Any] = {"reward": "expected"}
# The same for Stable-Baselines3; the learning rate of its PPO falls as ours does.
SB3_NETWORK: Mapping[str, Any] = {
    **{name: NETWORK[name] for name in ("learning_rate", "gamma", "batch_size")},
    **{name: NETWORK["sac"][name] for name in ("tau", "learning_starts")},
    "train_freq": 1,
    "gradient_steps": 1,
    "policy_kwargs": {"net_arch": list(NETWORK["hidden"])},
}
SB3_SHOP: Mapping[str, Any] = {
    "gamma": SHOP["gamma"],
    "n_steps": SHOP["ppo"]["rollout_length"],
    "batch_size": SHOP["ppo"]["minibatch"],
    "n_epochs": SHOP["ppo"]["epochs"],
    "gae_lambda": SHOP["ppo"]["gae_lambda"],
    "ent_coef": SHOP["ppo"]["entropy"],
    "policy_kwargs": {"net_arch": list(SHOP["hidden"])},
}


class FromModel(Controller):
    """A Stable-Baselines3 model without its exploration."""

    def __init__(self, model: Any, normalise: Callable[[Any], Any] = lambda rows: rows) -> None:
        self._model, self._normalise = model, normalise

    def act(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Its actions for rows of observations."""
        rows = np.asarray(observation, dtype=np.float32)
        actions, _ = self._model.predict(self._normalise(rows), deterministic=True)
        return np.asarray(actions)


def compare(cache: Cache, *, quick: bool, only: Sequence[int] | None = None) -> Findings:
    """All problems of this part."""
    found = Findings()
    seeds = training_seeds(2 if quick else 5, only)
    for environment, steps, learn in (
        ("CartPole-v1", 4_096 if quick else 50_000, _sb3_cartpole),
        ("Pendulum-v1", 600 if quick else 5_000, _sb3_pendulum),
    ):
        ours = [_ours(cache, environment, steps, seed) for seed in seeds]
        theirs = [_theirs(cache, environment, steps, seed, learn) for seed in seeds]
        _enter(found, f"{environment}, {steps:,} steps", "return", ours, theirs)
    steps = 2_400 if quick else 30_000
    own, _ = zip(*(_ours_scenario(cache, "network5g", NETWORK, steps, seed, quick) for seed in seeds), strict=True)
    other = [_theirs_scenario(cache, "network5g", _sb3_network, SB3_NETWORK, steps, seed, quick) for seed in seeds]
    _enter(found, f"network5g small, equal weights, {steps:,} decisions, SAC", "mean goodness", own, other)
    steps = 4_096 if quick else 150_000
    given = {**SB3_SHOP, "rates": (SHOP["learning_rate"], SHOP["ppo"]["final_rate"])}
    rows = steps if quick else SHOP_STEPS
    own, had = zip(
        *(_ours_scenario(cache, "recsys", SHOP, rows, seed, quick, **SHOP_OPTIONS) for seed in seeds), strict=True
    )
    other = [_theirs_scenario(cache, "recsys", _sb3_shop, given, steps, seed, quick, **SHOP_OPTIONS) for seed in seeds]
    _enter(found, f"recsys, equal weights, {steps:,} decisions, PPO", "mean goodness", own, other)
    found.notes.append(f"recsys: ours had {np.mean(had):,.0f} decisions on average")
    return found


def _enter(found: Findings, what: str, unit: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    """A row and a note; returns below 0 stand as costs, so that the ratio says who is better."""
    mine, rival = summary(ours), summary(theirs)
    name = f"Stable-Baselines3 {versions('stable-baselines3')['stable-baselines3']}"
    cost = rival.value < 0
    sign = -1.0 if cost else 1.0
    found.rows.append(
        Row(
            f"{what}: interquartile mean of {len(ours)} seeds",
            f"minus {unit}" if cost else unit,
            sign * mine.value,
            name,
            sign * rival.value,
            better="lower" if cost else "higher",
        )
    )
    found.notes.append(f"{what}: ours {mine}; {name} {rival}; {_verdict(mine, rival)}")


def _verdict(mine: Summary, rival: Summary) -> str:
    if mine.value > rival.high:
        return "ours is above its interval"
    if mine.value >= rival.low:
        return "ours is within its interval"
    if mine.high >= rival.low:
        return "ours is below its interval, and the intervals overlap"
    return "ours is below its interval"


def _returns(environment: str, controller: Controller) -> float:
    scenario = GymnasiumScenario(environment)
    return float(episode_returns(scenario, [controller], EVALUATION_SEEDS, steps=1_000).values.mean())


def _ours(cache: Cache, environment: str, steps: int, seed: int) -> float:
    config = TrainingConfig(environment=environment, steps=steps, seed=seed, **OURS[environment])

    def work() -> dict[str, Any]:
        _, policy = trained(config)
        return {"return": _returns(environment, PolicyController(policy))}

    settings = {"config": config.model_dump(mode="json"), "seeds": EVALUATION_SEEDS}
    settings |= trainer() | versions("gymnasium")
    return float(cache.result(f"sb3-ours-{environment}-{seed}", settings, work)["return"])


def _theirs(cache: Cache, environment: str, steps: int, seed: int, learn: Callable[[int, int], Any]) -> float:
    def work() -> dict[str, Any]:
        return {"return": _returns(environment, FromModel(learn(steps, seed)))}

    settings = {
        "environment": environment,
        "steps": steps,
        "seed": seed,
        "zoo": CARTPOLE if environment == "CartPole-v1" else PENDULUM,
        "seeds": EVALUATION_SEEDS,
        **versions("torch", "gymnasium", "stable-baselines3"),
    }
    return float(cache.result(f"sb3-theirs-{environment}-{seed}", settings, work)["return"])


def _sb3_cartpole(steps: int, seed: int) -> Any:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("CartPole-v1", n_envs=CARTPOLE_ENVS, seed=seed)
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: left * CARTPOLE_RATE,
        clip_range=lambda left: left * CARTPOLE_CLIP,
        seed=seed,
        device="cpu",
        **CARTPOLE,
    )
    return model.learn(steps)


def _sb3_pendulum(steps: int, seed: int) -> Any:
    from stable_baselines3 import SAC

    return SAC("MlpPolicy", "Pendulum-v1", seed=seed, device="cpu", **PENDULUM).learn(steps)


def _protocol(quick: bool) -> dict[str, int]:
    return {"steps": 40, "warmup": 20} if quick else {"steps": 200, "warmup": 50}


def _utility(controller: Controller, quick: bool, scenario: str, **options: Any) -> float:
    """Goodness at equal weights on the evaluation seeds."""
    return float(
        evaluate(Weighted(scenario, EQUAL, **options), controller, EVALUATION_SEEDS, **_protocol(quick)).mean()[0]
    )


def _ours_scenario(
    cache: Cache, scenario: str, learner: Mapping[str, Any], steps: int, seed: int, quick: bool, **options: Any
) -> tuple[float, int]:
    """Utility of our learner after ``steps`` of its rows in a scenario, and how many of these were decisions."""
    config = TrainingConfig(
        scenario="benchmarks.quality_specialists:Weighted",
        options={"scenario": scenario, "weights": list(EQUAL), **options},
        steps=steps,
        seed=seed,
        **learner,
    )

    def work() -> dict[str, Any]:
        before = WeightedEnv.ends
        run, policy = trained(config)
        decisions = int(run.metrics["steps"]) - (WeightedEnv.ends - before)
        return {"utility": _utility(PolicyController(policy), quick, scenario, **options), "decisions": decisions}

    settings = {"config": config.model_dump(mode="json"), "seeds": EVALUATION_SEEDS, **_protocol(quick)}
    settings |= trainer() | {"reference": load(scenario).reference_hash}
    found = cache.result(f"sb3-ours-{scenario}-{seed}", settings, work)
    return float(found["utility"]), int(found["decisions"])


def _theirs_scenario(
    cache: Cache,
    scenario: str,
    learn: Callable[[int, int], Controller],
    chosen: Mapping[str, Any],
    steps: int,
    seed: int,
    quick: bool,
    **options: Any,
) -> float:
    """Utility of what ``learn`` gives for (decisions, seed); ``chosen`` are all of its settings."""

    def work() -> dict[str, Any]:
        return {"utility": _utility(learn(steps, seed), quick, scenario, **options)}

    settings = {"decisions": steps, "seed": seed, "seeds": EVALUATION_SEEDS, **chosen, **options, **_protocol(quick)}
    settings |= versions("torch", "stable-baselines3") | simulator() | {"reference": load(scenario).reference_hash}
    return float(cache.result(f"sb3-theirs-{scenario}-{seed}", settings, work)["utility"])


def _sb3_network(steps: int, seed: int) -> Controller:
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import VecNormalize

    from benchmarks.quality_vecenv import Lockstep

    worlds = load("network5g").vector_env(NETWORK["num_envs"], seed=seed)
    # Observations are normalised as ours are: without, it would learn from loads beside decibels.
    env = VecNormalize(Lockstep(ScalarisedVectorEnv(worlds, EQUAL), seed), norm_reward=False, clip_obs=5.0)
    model = SAC("MlpPolicy", env, seed=seed, device="cpu", **SB3_NETWORK)
    return FromModel(model.learn(steps), env.normalize_obs)


def _sb3_shop(steps: int, seed: int) -> Controller:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from benchmarks.quality_vecenv import Alone

    scenario = load("recsys", **SHOP_OPTIONS)

    def alone(number: int) -> Any:
        worlds = scenario.vector_env(1, seed=1_000 * seed + number)
        return lambda: Alone(ScalarisedVectorEnv(worlds, EQUAL), 1_000 * seed + number)

    # Sessions end one by one; rewards are scaled by the spread of their returns, as ours are.
    env = VecNormalize(
        DummyVecEnv([alone(number) for number in range(SHOP["num_envs"])]), gamma=SHOP["gamma"], clip_obs=5.0
    )
    first, last = SHOP["learning_rate"], SHOP["ppo"]["final_rate"]
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: first * (last + (1.0 - last) * left),
        seed=seed,
        device="cpu",
        **SB3_SHOP,
    )
    return FromModel(model.learn(steps), env.normalize_obs)
