"""Running a training configuration from start to finish: train, export, evaluate, log."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.fronts import Front
from rlaas.objectives import Preference
from rlaas.registry import git_commit
from rlaas.scenarios import Scenario
from rlaas.training.conditioning import spread_preferences
from rlaas.training.config import Algorithm, TrainingConfig
from rlaas.training.evaluation import evaluate_policy, preference_label
from rlaas.training.problems import algorithm_of, problem_of
from rlaas.training.results import TrainingRun
from rlaas.training.warm_start import apply_warm_start, check_warm_start

__all__ = ["build_algorithm", "train"]

Progress = Callable[[int, int, dict[str, float]], None]

FINAL_SHARE = 0.1


def train(config: TrainingConfig, *, output: Path, progress: Progress | None = None) -> TrainingRun:
    """Train one preference-conditioned policy in this process.

    A local Ray is started if none is running (and stopped again); ``RAY_ADDRESS`` is honoured.

    Args:
        config: what to train.
        output: folder for ``bundle/`` and ``checkpoint/``; made if missing.
        progress: called after every iteration with the decisions taken, those wanted, and the curve's last row.

    Raises:
        ConfigurationError: the configuration cannot work; raised before anything starts.
        TrainingError: a loss became infinite or NaN.
    """
    scenario = problem_of(config)
    algorithm = algorithm_of(config, scenario)
    _check_rows(config, algorithm, scenario)
    check_warm_start(config, algorithm, scenario)
    output = Path(output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with _ray(), _threads(config.threads):
        algo = build_algorithm(config, algorithm)
        try:
            curve = _run(algo, config, progress)
            seconds = time.perf_counter() - started
            checkpoint = Path(algo.save_to_path(str(output / "checkpoint")))
            bundle = _export(algo, config, scenario, algorithm, output / "bundle")
            metrics = _final(curve, int(algo.steps_done), int(algo.learner.updates), seconds)
        finally:
            algo.stop()
    front = evaluate_front(scenario, bundle, config) if config.evaluation_seeds else None
    return TrainingRun(
        bundle=bundle, checkpoint=checkpoint, metrics=metrics, curve=curve, front=front, mlflow_run_id=None
    )


def build_algorithm(config: TrainingConfig, algorithm: Algorithm) -> Any:
    """The RLlib ``Algorithm`` of ``config``; Ray has to be running.

    Args:
        config: what to train.
        algorithm: ``sac`` or ``ppo``.
    """
    from rlaas.training.algorithm import PackedConfig

    kind: type[PackedConfig]
    if algorithm == "sac":
        from rlaas.training.sac import SACConfig as kind  # noqa: N813
    else:
        from rlaas.training.ppo import PPOConfig as kind  # noqa: N813
    # RLlib warns about its own defaults and deprecations on every build; its errors still show.
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    rllib = kind.of(config, algorithm)
    algo = rllib.algo_class(config=rllib)
    if config.warm_start is not None:
        algo.taken_over = apply_warm_start(algo, config.warm_start)
    return algo


def evaluate_front(scenario: Scenario, bundle: Path, config: TrainingConfig) -> Front:
    """The policy at the modes' preferences, then at points spread over the simplex, on the evaluation seeds."""
    asked: dict[str, Preference] = {name: mode.preference for name, mode in scenario.modes.items()}
    names = [o.name for o in scenario.objectives]
    taken = {preference.weights for preference in asked.values()}
    for preference in spread_preferences(names, config.evaluation_preferences + len(asked)):
        if len(asked) < config.evaluation_preferences and preference.weights not in taken:
            asked[preference_label(preference)] = preference
    candidates = evaluate_policy(
        scenario,
        bundle,
        dict(list(asked.items())[: config.evaluation_preferences]),
        config.evaluation_seeds,
        steps=config.evaluation_steps,
        warmup=config.evaluation_warmup,
        replicas=config.evaluation_replicas,
    )
    return Front.of(scenario.name, scenario.objectives, candidates, scenario.reference_hash)


def _check_rows(config: TrainingConfig, algorithm: Algorithm, scenario: Scenario) -> None:
    """Refuse a PPO rollout that does not fill a minibatch before anything is built."""
    if algorithm != "ppo":
        return
    from rlaas.errors import ConfigurationError

    env = scenario.vector_env(1, seed=0)
    rows = config.num_envs * env.rows_per_env
    env.close()
    if config.ppo.rollout_length * rows < config.ppo.minibatch:
        raise ConfigurationError(
            f"ppo.minibatch {config.ppo.minibatch} exceeds a rollout of {config.ppo.rollout_length * rows} decisions "
            "(ppo.rollout_length times num_envs); lower it or raise num_envs",
            field="ppo.minibatch",
        )


def _run(algo: Any, config: TrainingConfig, progress: Progress | None) -> list[dict[str, float]]:
    names = [o.name for o in algo.runner.scenario.objectives]
    curve: list[dict[str, float]] = []
    while algo.steps_done < config.steps:
        algo.train()
        sampled = algo.sampled
        rows = max(sampled.rows, 1)
        row = {"step": float(algo.steps_done), "reward": sampled.scalar / rows}
        row |= {f"reward_{name}": float(v) for name, v in zip(names, sampled.vector / rows, strict=True)}
        if sampled.returns:
            row["return"] = float(np.mean(sampled.returns))
        row |= algo.last_losses
        curve.append(row)
        if progress is not None:
            progress(min(algo.steps_done, config.steps), config.steps, dict(row))
    return curve


def _final(curve: list[dict[str, float]], steps: int, updates: int, seconds: float) -> dict[str, float]:
    """Figures of the whole run; reward and return are means over its last tenth."""
    last = curve[-max(1, int(len(curve) * FINAL_SHARE)) :]
    metrics = {
        "steps": float(steps),
        "updates": float(updates),
        "seconds": seconds,
        "steps_per_second": steps / seconds,
        "reward": float(np.mean([row["reward"] for row in last])),
        "first_reward": curve[0]["reward"],
    }
    returns = [row["return"] for row in last if "return" in row]
    if returns:
        metrics["return"] = float(np.mean(returns))
    return metrics


def _export(algo: Any, config: TrainingConfig, scenario: Scenario, algorithm: Algorithm, folder: Path) -> Path:
    from rlaas import __version__
    from rlaas.training.export import export_bundle

    lineage = {
        "seed": config.seed,
        "steps": int(algo.steps_done),
        "git_commit": git_commit(Path(__file__).parent),
        "rlaas": __version__,
        "config": config.model_dump(mode="json"),
        **({"warm_start": algo.taken_over} if algo.taken_over else {}),
    }
    return export_bundle(algo.policy, scenario, folder, algorithm=algorithm, lineage=lineage)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run torch on ``count`` threads; the caller's setting comes back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _ray() -> Iterator[None]:
    """A running Ray: the caller's, that of ``RAY_ADDRESS``, or a minimal local one that ends with the block."""
    import ray

    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            object_store_memory=100 * 1024 * 1024,
        )
    try:
        yield
    finally:
        ray.shutdown()
