"""Running a training configuration from start to finish: train, export, evaluate, log."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.errors import ConfigurationError, TrainingError
from rlaas.files import write_text
from rlaas.registry import git_commit
from rlaas.scenarios import Scenario
from rlaas.training.checkpoints import Checkpoint, CheckpointStore
from rlaas.training.config import Algorithm, TrainingConfig, load_config
from rlaas.training.front_evaluation import evaluate_front, with_default
from rlaas.training.problems import algorithm_of, problem_of
from rlaas.training.resources import running_ray
from rlaas.training.results import TrainingRun
from rlaas.training.telemetry import Reporter, Telemetry
from rlaas.training.timing import breakdown
from rlaas.training.warm_start import apply_warm_start, check_warm_start

__all__ = ["build_algorithm", "check_training", "load_run_config", "train"]

Progress = Callable[[int, int, dict[str, float]], None]

CONFIG = "config.json"
FINAL_SHARE = 0.1
LOSSES_BORNE = 3
"""Times that a learner may be lost between two checkpoints."""

log = logging.getLogger(__name__)


def train(
    config: TrainingConfig,
    *,
    output: Path,
    progress: Progress | None = None,
    reporter: Reporter | None = None,
    resume: bool = False,
) -> TrainingRun:
    """Train one preference-conditioned policy in this process.

    A local Ray is started if none is running (and stopped again); ``RAY_ADDRESS`` is honoured. A learner's process that
    dies costs what was learned since the last checkpoint, and no more.

    Args:
        config: what to train.
        output: folder for ``bundle/``, ``checkpoints/`` and ``config.json``; made if missing.
        progress: called after every iteration with the decisions taken, those wanted, and the curve's last row.
        reporter: told how the training goes; whoever made it closes it.
        resume: continue from the newest whole checkpoint in ``output``, or begin where there is none yet. On one
            runner on the CPU, and where the environment can be copied, what comes out is what would have without the
            interruption, bit for bit.

    Raises:
        ConfigurationError: the configuration cannot work, is not that of the run to resume, or the reporter cannot
            start; raised before anything starts. Also: ``output`` holds checkpoints and ``resume`` is false.
        TrainingError: a loss became infinite or NaN, or a checkpoint could not be written; names the last good one.
    """
    scenario, algorithm = check_training(config)
    output = Path(output).absolute()
    store = CheckpointStore(output / "checkpoints")
    first = _resumable(config, output, store, resume)
    output.mkdir(parents=True, exist_ok=True)
    _remember(config, output)
    if not isinstance(reporter, Telemetry):
        # What it raises later on is then said, and does not end the training.
        reporter = Telemetry([reporter] if reporter is not None else [])
    reporter.started(config, scenario)
    try:
        started = time.perf_counter()
        with running_ray(config), _threads(config.threads):
            algo, curve, checkpoint = _trained(config, algorithm, store, first, progress, reporter, started)
            try:
                seconds = time.perf_counter() - started
                bundle = _export(algo, config, scenario, algorithm, output / "bundle")
                metrics = _final(curve, int(algo.steps_done), int(algo.updates), seconds)
                metrics |= breakdown(algo.time_spent, seconds)
            finally:
                algo.stop()
        evaluation = evaluate_front(scenario, bundle, config) if config.evaluation_seeds else None
        if evaluation is not None:
            evaluation = with_default(scenario, evaluation, config)
            metrics |= evaluation.metrics()
    except BaseException as problem:
        reporter.failed(problem)
        raise
    reporter.finished(metrics)
    return TrainingRun(
        bundle=bundle,
        checkpoint=checkpoint,
        metrics=metrics,
        curve=curve,
        front=None if evaluation is None else evaluation.front,
        mlflow_run_id=None,
        evaluation=evaluation,
    )


def load_run_config(output: Path) -> TrainingConfig:
    """The configuration of the run in ``output``.

    Raises:
        ConfigurationError: there is no run, or its configuration cannot be read.
    """
    if not (Path(output) / CONFIG).is_file():
        raise ConfigurationError(f"{output} holds no run to resume: it has no {CONFIG}", field="resume")
    # JSON is YAML.
    return load_config(Path(output) / CONFIG)


def check_training(config: TrainingConfig) -> tuple[Scenario, Algorithm]:
    """The problem of ``config`` and the algorithm for it, after refusing what cannot work; nothing is built.

    Raises:
        ConfigurationError: naming the field and what to change.
    """
    scenario = problem_of(config)
    algorithm = algorithm_of(config, scenario)
    check_warm_start(config, algorithm, scenario)
    return scenario, algorithm


def _resumable(config: TrainingConfig, output: Path, store: CheckpointStore, resume: bool) -> Checkpoint | None:
    """The checkpoint to continue from, if any.

    Raises:
        ConfigurationError: there is one and nobody wants to continue, or it is another configuration's.
    """
    newest = store.newest()
    if newest is not None and not resume:
        raise ConfigurationError(
            f"{output} holds the checkpoints of a run that reached {newest.steps} steps; resume it, or choose another "
            "folder",
            field="output",
        )
    known = output / CONFIG
    if not resume or not known.is_file():
        return newest
    there, here = json.loads(known.read_text()), config.model_dump(mode="json")
    changed = [name for name in here if there.get(name) != here[name]]
    if changed:
        name = changed[0]
        raise ConfigurationError(
            f"{output} was begun with {name} {json.dumps(there.get(name))}, not {json.dumps(here[name])}; "
            "resume with the configuration it was begun with",
            field=name,
        )
    return newest


def _remember(config: TrainingConfig, output: Path) -> None:
    write_text(output / CONFIG, config.model_dump_json(indent=1))


def _trained(
    config: TrainingConfig,
    algorithm: Algorithm,
    store: CheckpointStore,
    first: Checkpoint | None,
    progress: Progress | None,
    reporter: Reporter,
    started: float,
) -> tuple[Any, list[dict[str, float]], Path]:
    """The algorithm after its last step, its curve and last checkpoint; begun anew where a learner is lost."""
    from rlaas.training.packed_links import LostLearnerError

    lost = 0
    while True:
        algo = build_algorithm(config, algorithm)
        try:
            curve: list[dict[str, float]] = []
            if first is not None:
                store.restore(algo, first)
                curve = list(first.curve)
            return algo, curve, _run(algo, config, store, curve, progress, reporter, started)
        except LostLearnerError as problem:
            algo.stop()
            before, first = first, store.newest()
            lost = 1 if first is not None and (before is None or first.steps > before.steps) else lost + 1
            if lost > LOSSES_BORNE:
                raise
            log.warning("%s; going on from %s", problem.message, f"{first.steps} steps" if first else "the start")
        except TrainingError as problem:
            algo.stop()
            last = store.newest()
            if last is None or str(last.folder) in problem.message:
                raise
            raise TrainingError(
                f"{problem.message}; the last good checkpoint is {last.folder}", field=problem.field
            ) from problem
        except BaseException:
            algo.stop()
            raise


def build_algorithm(config: TrainingConfig, algorithm: Algorithm) -> Any:
    """The RLlib ``Algorithm`` of ``config``; Ray has to be running.

    Args:
        config: what to train.
        algorithm: ``sac`` or ``ppo``.
    """
    from rlaas.training.packed_config import PackedConfig

    kind: type[PackedConfig]
    if algorithm == "sac":
        from rlaas.training.sac import SACConfig as kind  # noqa: N813
    else:
        from rlaas.training.ppo import PPOConfig as kind  # noqa: N813
    # RLlib warns about its own defaults and deprecations on every build; its errors still show.
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    rllib = kind.of(config)
    algo = rllib.algo_class(config=rllib)
    if config.warm_start is not None:
        algo.taken_over = apply_warm_start(algo, config.warm_start)
    return algo


def _run(
    algo: Any,
    config: TrainingConfig,
    store: CheckpointStore,
    curve: list[dict[str, float]],
    progress: Progress | None,
    reporter: Reporter,
    started: float,
) -> Path:
    """Train to the end, adding to ``curve``, with a checkpoint every so many iterations; returns the last one."""
    names = [o.name for o in algo.scenario.objectives]
    saved: Path | None = None
    while algo.steps_done < config.steps:
        before, steps_before = time.perf_counter(), algo.steps_done
        algo.train()
        sampled = algo.sampled
        rows = max(sampled.rows, 1)
        row = {"step": float(algo.steps_done), "reward": sampled.scalar / rows}
        row |= {f"reward_{name}": float(v) for name, v in zip(names, sampled.vector / rows, strict=True)}
        if sampled.returns:
            row["return"] = float(np.mean(sampled.returns))
        for constraint, multiplier, (top, bottom) in zip(
            config.constraints, algo.multipliers, sampled.parts, strict=True
        ):
            row[f"constraint_{constraint.part}"] = float(top / bottom) if bottom else math.nan
            row[f"multiplier_{constraint.part}"] = float(multiplier)
        row |= algo.last_losses
        curve.append(row)
        # The curve itself holds no times: the same seed gives the same curve.
        now = time.perf_counter()
        speed = {"seconds": now - started, "steps_per_second": (algo.steps_done - steps_before) / (now - before)}
        reporter.iteration({**row, **speed, **breakdown(algo.time_spent, now - started)})
        saved = None
        if config.checkpoint_interval and len(curve) % config.checkpoint_interval == 0:
            saved = store.save(algo, curve, now - started)
        if progress is not None:
            progress(min(algo.steps_done, config.steps), config.steps, dict(row))
    return saved or store.save(algo, curve, time.perf_counter() - started)


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
