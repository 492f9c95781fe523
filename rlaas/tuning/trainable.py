"""One trial: a packed RLlib algorithm as a Ray Tune ``Trainable`` that reports, checkpoints and can be taken over."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID
from ray.tune import Trainable

from rlaas.errors import ConfigurationError, TrainingError
from rlaas.files import write_text
from rlaas.training import TrainingConfig, build_algorithm
from rlaas.training.problems import algorithm_of, problem_of
from rlaas.tuning import figures
from rlaas.tuning.contenders import policy_folder
from rlaas.tuning.space import values_of, with_values

__all__ = ["PolicyTrainable", "trial_config"]

_CLOCK, _ALGORITHM, _LAST = "clock.json", "algorithm", "last-report.json"


def trial_config(
    training: TrainingConfig, *, metrics: tuple[str, ...], interval: int, keep_policy: bool = False
) -> dict[str, Any]:
    """What every trial of a search shares; its own values are added under ``point``.

    Args:
        training: the base.
        metrics: what has to be reported.
        interval: decisions between two reports.
        keep_policy: leave the policy of a trial that takes all its steps in its folder, as a bundle.
    """
    return {
        "training": training.model_dump(mode="json", exclude_unset=True),
        "metrics": list(metrics),
        "interval": interval,
        "keep_policy": keep_policy,
        "point": {},
    }


class PolicyTrainable(Trainable):
    """Trains one configuration; a step is one report.

    A configuration that cannot work, or whose losses become NaN, ends with a report that holds the reason under
    ``failure``: it would fail again. Everything else is raised, and Tune continues from the last checkpoint.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the algorithm."""
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)
        self._metrics: list[str] = config["metrics"]
        self._interval: int = config["interval"]
        # Trials of a search that began before policies were kept do not say.
        self._keeps_policy = bool(config.get("keep_policy"))
        self._seconds = 0.0
        self._rewards: dict[str, float] = {}
        self._algorithm: Any = None
        self._failure: str | None = None
        try:
            self._build(with_values(TrainingConfig(**config["training"]), values_of(config["point"])))
        except ConfigurationError as problem:
            self._failure = problem.message

    def _build(self, training: TrainingConfig) -> None:
        import torch

        self._training = training
        torch.set_num_threads(training.threads)
        self._scenario = problem_of(training)
        self._kind = algorithm_of(training, self._scenario)
        self._algorithm = build_algorithm(training, self._kind)
        self._rates = self._learning_rates()

    def step(self) -> dict[str, Any]:
        """Train until the next report is due.

        The last report is kept next to the checkpoints. Should the driver die before it has noted that the trial is
        over, the trial is resumed from an earlier checkpoint and says the same again, without repeating the work.
        """
        kept = None if self._storage is None else Path(self._storage.trial_fs_path) / _LAST
        if kept is not None and kept.exists():
            report: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
            return report
        report = self._next_report()
        if kept is not None and report["done"]:
            kept.parent.mkdir(parents=True, exist_ok=True)
            if self._keeps_policy and report[figures.FINISHED]:
                self._export(policy_folder(kept.parent))
            # Python's JSON, which knows NaN: it is read by nobody else.
            write_text(kept, json.dumps({**report, "training_iteration": self._iteration + 1}))
        return report

    def _export(self, folder: Path) -> None:
        """Write the policy as it is, before the last report says that the trial is over."""
        from rlaas.training.export import export_bundle

        lineage = {"seed": self._training.seed, "steps": int(self._algorithm.steps_done)}
        export_bundle(self._algorithm.policy, self._scenario, folder, algorithm=self._kind, lineage=lineage)

    def _next_report(self) -> dict[str, Any]:
        if self._failure is None:
            try:
                return self._report()
            except (ConfigurationError, TrainingError) as problem:
                self._failure = problem.message
        return {
            **dict.fromkeys(self._metrics, math.nan),
            figures.STEPS: 0 if self._algorithm is None else int(self._algorithm.steps_done),
            figures.FAILURE: self._failure,
            figures.FINISHED: False,
            "done": True,
        }

    def _report(self) -> dict[str, Any]:
        algorithm, training = self._algorithm, self._training
        started = time.perf_counter()
        found = self._train(min((algorithm.steps_done // self._interval + 1) * self._interval, training.steps))
        self._seconds += time.perf_counter() - started
        found |= {figures.STEPS: int(algorithm.steps_done), figures.SECONDS: self._seconds}
        if any(figures.is_evaluated(metric) for metric in self._metrics):
            found |= figures.evaluated_figures(algorithm, self._kind, self._scenario, training)
        finished = algorithm.steps_done >= training.steps
        return {**found, figures.FINISHED: finished, "done": finished}

    def _train(self, until: int) -> dict[str, float]:
        """Train to ``until`` decisions; the mean rewards on the way, or those before if there is nothing to train."""
        algorithm, names = self._algorithm, [o.name for o in self._scenario.objectives]
        rows, scalar, vector = 0, 0.0, [0.0] * len(names)
        returns: list[float] = []
        while algorithm.steps_done < until:
            algorithm.train()
            sampled = algorithm.sampled
            rows, scalar, returns = rows + sampled.rows, scalar + sampled.scalar, [*returns, *sampled.returns]
            vector = [total + float(new) for total, new in zip(vector, sampled.vector, strict=True)]
        if rows:
            self._rewards = {figures.TRAINING_REWARD: scalar / rows}
            self._rewards |= {
                f"{figures.TRAINING_REWARD}_{n}": total / rows for n, total in zip(names, vector, strict=True)
            }
            if len(names) == 1:
                self._rewards[figures.TRAINING_RETURN] = sum(returns) / len(returns) if returns else math.nan
        return dict(self._rewards)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Networks, optimizer, replay, environments and generators, and this trial's clock."""
        folder = Path(checkpoint_dir)
        if self._failure is None:
            self._algorithm.save_to_path(str(folder / _ALGORITHM))
        clock = {"seconds": self._seconds, "failure": self._failure, "rewards": self._rewards}
        (folder / _CLOCK).write_text(json.dumps(clock))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Take over a checkpoint of this trial, or (population based training) of another one.

        RLlib stores an optimizer's learning rates with its moments: they are the other trial's, or from before this one
        was changed. What this trial's configuration says holds.
        """
        folder = Path(checkpoint)
        clock = json.loads((folder / _CLOCK).read_text())
        self._seconds, self._rewards = clock["seconds"], clock["rewards"]
        self._failure = self._failure or clock["failure"]
        if self._failure is None:
            self._algorithm.restore_from_path(str(folder / _ALGORITHM))
            self._set_learning_rates()

    def _learning_rates(self) -> list[float]:
        """Learning rate of each group of each optimizer."""
        rates: list[float] = next(iter(self._algorithm.learner_group.foreach_learner(_rates_of))).get()
        return rates

    def _set_learning_rates(self) -> None:
        rates = self._rates

        def set_rates(learner: Any) -> None:
            for group, rate in zip(_groups(learner), rates, strict=True):
                group["lr"] = rate

        for answer in self._algorithm.learner_group.foreach_learner(set_rates):
            answer.get()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: Tune reuses the process, whose imports take longer than a short trial."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Stop the algorithm."""
        if self._algorithm is not None:
            self._algorithm.stop()
            self._algorithm = None


def _groups(learner: Any) -> list[dict[str, Any]]:
    """Parameter groups of every optimizer of a learner, in order of registration."""
    optimizers = learner.get_optimizers_for_module(DEFAULT_MODULE_ID)
    return [group for _, optimizer in optimizers for group in optimizer.param_groups]


def _rates_of(learner: Any) -> list[float]:
    return [float(group["lr"]) for group in _groups(learner)]
