"""Training speed: PPO environment steps/s and SAC updates/s against RLlib stock, Stable-Baselines3 and a bare loop.

PPO: 64 environments that cost nothing, 64x64 tanh, batch 4,096, minibatch 512, 4 epochs. SAC: Pendulum, 64x64, batch
256, one update per step. Every trainer runs on one torch thread. Contestants take turns in short windows, so that a
slow minute of the machine falls on all of them: ratios within one run are what counts.

    python benchmarks/training.py [--quick] [--json]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import importlib.util
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks.harness import Row, interleaved_rates, parse_arguments, report
from rlaas.objectives import Objective
from rlaas.scenarios import Scenario, VectorScenarioEnv
from rlaas.training import TrainingConfig, build_algorithm

FEATURES, CHOICES, ENVS, STEPS, LENGTH = 16, 4, 64, 64, 200
BATCH, MINIBATCH, EPOCHS = ENVS * STEPS, 512, 4
MANY_ENVS, LARGE_MINIBATCH = 1_024, 8_192


class FreeEnv(gymnasium.Env[np.ndarray, int]):
    """One environment that costs nothing: for the rivals that build their own vectors."""

    observation_space = spaces.Box(-1, 1, (FEATURES,), dtype=np.float32)
    action_space = spaces.Discrete(CHOICES)

    def __init__(self, config: Any = None) -> None:
        self._observation, self._clock = np.zeros(FEATURES, dtype=np.float32), 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start over."""
        self._clock = 0
        return self._observation, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step that pays for choice 0."""
        self._clock += 1
        return self._observation, float(action == 0), False, self._clock >= LENGTH, {}


class FreeVectorEnv(VectorScenarioEnv):
    """All of them as one vector environment."""

    rows_per_env = 1

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = FreeEnv.observation_space, FreeEnv.action_space
        self.observation_space = spaces.Box(-1, 1, (num_envs, FEATURES), dtype=np.float32)
        self.action_space = spaces.MultiDiscrete([CHOICES] * num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._observation = np.zeros((num_envs, FEATURES), dtype=np.float32)
        self._none = np.zeros(num_envs, dtype=bool)
        self._clock = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start over."""
        self._clock = 0
        return self._observation, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step that pays for choice 0."""
        self._clock = 0 if self._clock >= LENGTH else self._clock + 1
        over = np.full(self.num_envs, self._clock >= LENGTH)
        parts = {"numerators": (actions == 0)[:, None] * 1.0, "denominators": np.ones((self.num_envs, 1))}
        return self._observation, parts["numerators"], self._none, over, parts

    def get_state(self) -> dict[str, Any]:
        """The clock."""
        return {"clock": self._clock}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Set the clock."""
        self._clock = state["clock"]


class Free(Scenario):
    """The scenario of :class:`FreeVectorEnv`."""

    name, algorithm, experiment_design = "free", "ppo", "user"

    def __init__(self) -> None:
        self.objectives = (Objective(name="first", unit="", direction="maximize", low=0.0, high=1.0),)
        self.modes, self.baselines, self.tunables, self.targets, self.options = {}, {}, {}, {}, {}
        self.default_baseline = self.primary_mode = self.reference_hash = ""
        self.part_names = ("first",)
        self.observation_names = tuple(f"x{i}" for i in range(FEATURES))
        self.single_observation_space, self.single_action_space = FreeEnv.observation_space, FreeEnv.action_space

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        """``num_envs`` of them."""
        return FreeVectorEnv(num_envs)

    def objective_values(self, numerators: Any, denominators: Any) -> Any:
        """The share of steps that took choice 0."""
        return numerators / denominators


Steps = Iterator[Callable[[], float]]
"""A contestant: a function that trains a little and returns how much that was, for as long as the block lasts."""


@contextmanager
def ours_ppo(envs: int = ENVS, minibatch: int = MINIBATCH) -> Steps:
    config = TrainingConfig(
        scenario=f"{Path(__file__).stem}:Free" if __name__ != "__main__" else "__main__:Free",
        steps=10**9,
        num_envs=envs,
        learning_rate=3e-4,
        gamma=0.99,
        ppo={"rollout_length": STEPS, "minibatch": minibatch, "epochs": EPOCHS},
    )
    algo = build_algorithm(config, "ppo")

    def step() -> float:
        before = algo.steps_done
        algo.train()
        return float(algo.steps_done - before)

    try:
        yield step
    finally:
        algo.stop()


@contextmanager
def rllib_ppo() -> Steps:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    model = DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False)
    config = (
        PPOConfig()
        .environment(FreeEnv)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=STEPS)
        .learners(num_learners=0)
        .training(train_batch_size=BATCH, minibatch_size=MINIBATCH, num_epochs=EPOCHS, lr=3e-4)
        .rl_module(model_config=model)
    )
    algo = config.build_algo()

    def step() -> float:
        algo.train()
        return float(BATCH)

    try:
        yield step
    finally:
        algo.stop()


def sb3_steps(model: Any, chunk: int, count: Callable[[], float]) -> Callable[[], float]:
    def step() -> float:
        before = count()
        model.learn(chunk, reset_num_timesteps=False)
        return count() - before

    return step


@contextmanager
def sb3_ppo() -> Steps:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = PPO(
        "MlpPolicy",
        DummyVecEnv([FreeEnv] * ENVS),
        n_steps=STEPS,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
        device="cpu",
    )
    yield sb3_steps(model, BATCH, lambda: float(model.num_timesteps))


@contextmanager
def bare_ppo(envs: int = ENVS, minibatch: int = MINIBATCH) -> Steps:
    """The same arithmetic with nothing around it: no normaliser, no preference, no bookkeeping."""

    def network(n_out: int) -> torch.nn.Sequential:
        return torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, 64),
            torch.nn.Tanh(),
            torch.nn.Linear(64, n_out),
        )

    actor, critic = network(CHOICES), network(1)
    params = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(params, lr=3e-4, fused=True)
    env = FreeVectorEnv(envs)
    state = torch.from_numpy(env.reset()[0])

    def step() -> float:
        nonlocal state
        observations, actions, log_probs, values, rewards = [], [], [], [], []
        with torch.no_grad():
            for _ in range(STEPS):
                logits = actor(state).log_softmax(-1)
                action = torch.multinomial(logits.exp(), 1).squeeze(1)
                observations.append(state)
                actions.append(action)
                log_probs.append(logits.gather(1, action[:, None]).squeeze(1))
                values.append(critic(state).squeeze(1))
                following, reward, *_ = env.step(action.numpy())
                rewards.append(torch.from_numpy(reward[:, 0]).float())
                state = torch.from_numpy(following)
            values.append(critic(state).squeeze(1))
            value, reward_tn = torch.stack(values), torch.stack(rewards)
            delta = reward_tn + 0.99 * value[1:] - value[:-1]
            advantage, running = torch.empty_like(delta), torch.zeros(envs)
            for t in range(STEPS - 1, -1, -1):
                running = delta[t] + 0.99 * 0.95 * running
                advantage[t] = running
        x, a = torch.cat(observations), torch.cat(actions)
        old, wanted = torch.cat(log_probs), (advantage + value[:-1]).flatten()
        flat = (advantage.flatten() - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(EPOCHS):
            for index in torch.split(torch.randperm(envs * STEPS), minibatch):
                log_p = actor(x[index]).log_softmax(-1)
                ratio = (log_p.gather(1, a[index, None]).squeeze(1) - old[index]).exp()
                gain = flat[index]
                loss = -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
                loss = loss + 0.5 * (critic(x[index]).squeeze(1) - wanted[index]).square().mean()
                loss = loss + 0.01 * (log_p.exp() * log_p).sum(1).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(params, 0.5)
                optimizer.step()
        return float(envs * STEPS)

    yield step


@contextmanager
def ours_sac() -> Steps:
    config = TrainingConfig(
        environment="Pendulum-v1",
        steps=10**6,
        num_envs=1,
        gamma=0.99,
        sac={"updates_per_step": 1.0, "learning_starts": 300},
    )
    algo = build_algorithm(config, "sac")

    def step() -> float:
        before = algo.learner.updates
        algo.train()
        return float(algo.learner.updates - before)

    try:
        yield step
    finally:
        algo.stop()


@contextmanager
def rllib_sac() -> Steps:
    from ray.rllib.algorithms.sac import SACConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    config = (
        SACConfig()
        .environment("Pendulum-v1")
        .env_runners(num_env_runners=0, rollout_fragment_length=1)
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=256,
            num_steps_sampled_before_learning_starts=256,
            actor_lr=3e-4,
            critic_lr=3e-4,
            alpha_lr=3e-4,
            lr=None,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu"))
        .reporting(min_sample_timesteps_per_iteration=20, min_time_s_per_iteration=0)
    )
    algo = config.build_algo()
    path = ("env_runners", "num_env_steps_sampled_lifetime")

    def step() -> float:
        before = float(algo.metrics.peek(path, default=0))
        algo.train()
        return float(algo.metrics.peek(path, default=0)) - before

    try:
        while float(algo.metrics.peek(path, default=0)) < 300:
            algo.train()
        # One update per sampled step: SACConfig's natural training intensity at this batch and fragment length.
        yield step
    finally:
        algo.stop()


@contextmanager
def sb3_sac() -> Steps:
    from stable_baselines3 import SAC

    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        batch_size=256,
        learning_starts=300,
        policy_kwargs={"net_arch": [64, 64]},
        device="cpu",
    )
    model.learn(310)
    yield sb3_steps(model, 500, lambda: float(model._n_updates))


def main() -> None:
    arguments = parse_arguments("training")
    seconds, rounds = (1.0, 1) if arguments.quick else (20.0, 11)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="ray|gymnasium|stable_baselines3")
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    ppo = f"PPO env steps/s, {ENVS} free envs, 64x64, batch {BATCH}, minibatch {MINIBATCH}, {EPOCHS} epochs"
    many = f"PPO env steps/s, {MANY_ENVS} free envs, batch {MANY_ENVS * STEPS}, minibatch {LARGE_MINIBATCH}"
    sac = "SAC updates/s, Pendulum, 64x64, batch 256, 1 update per step"
    Contestant = Callable[[], AbstractContextManager[Callable[[], float]]]
    contests: list[tuple[str, str, Contestant, list[tuple[str, Contestant]]]] = [
        (ppo, "steps/s", ours_ppo, [(f"RLlib {ray.__version__} stock", rllib_ppo), ("bare torch loop", bare_ppo)]),
        (
            many,
            "steps/s",
            partial(ours_ppo, MANY_ENVS, LARGE_MINIBATCH),
            [("bare torch loop", partial(bare_ppo, MANY_ENVS, LARGE_MINIBATCH))],
        ),
        (sac, "updates/s", ours_sac, [(f"RLlib {ray.__version__} stock", rllib_sac)]),
    ]
    if importlib.util.find_spec("stable_baselines3") is None:
        print("stable_baselines3 is not installed (pip install -e '.[bench]'): its rows are left out", file=sys.stderr)
    else:
        import stable_baselines3

        name = f"Stable-Baselines3 {stable_baselines3.__version__}"
        contests[0][3].append((name, sb3_ppo))
        contests[2][3].append((name, sb3_sac))
    rows = []
    for what, unit, ours, rivals in contests:
        with ExitStack() as stack:
            works = [stack.enter_context(make()) for make in (ours, *(rival for _, rival in rivals))]
            mine, *others = interleaved_rates(works, seconds=seconds, rounds=rounds)
        rows += [Row(what, unit, mine, name, other) for (name, _), other in zip(rivals, others, strict=True)]
        assert all(math.isfinite(row.ours) for row in rows)
    ray.shutdown()
    report("training", rows, arguments.json)


if __name__ == "__main__":
    main()
