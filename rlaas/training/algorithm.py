"""What SAC and PPO share as RLlib algorithms: who samples and learns when, what has been seen, and the books.

They stay RLlib ``Algorithm``s of the new API stack: ``train()``, ``save_to_path``, ``restore_from_path``, ``evaluate``,
``config`` and Tune work as for any other. With runner and learner in the calling process both use one module, so no
weights are copied between them; with actors on either side the algorithm carries policies and rollouts across.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    ENV_STEP_TIMER,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from torch import Tensor

from rlaas.scenarios import Scenario
from rlaas.training import config as training_config
from rlaas.training.conditioning import Focus, RunningMoments
from rlaas.training.networks import PolicyNetwork
from rlaas.training.packed_config import PackedConfig
from rlaas.training.packed_links import Learners, RemoteRunners
from rlaas.training.packed_module import PackedModule
from rlaas.training.rollouts import Rollout, SampledRewards
from rlaas.training.runner import Runner
from rlaas.training.timing import ENVIRONMENT, LEARN, SAMPLE, SYNC, Stopwatch

__all__ = ["PackedAlgorithm"]


EVALUATION_SEED = 500_009
LONGEST_EVALUATION = 1_000
# RLlib's own places for the seconds of an iteration.
_TIMERS: dict[str, tuple[str, ...]] = {
    SAMPLE: (TIMERS, ENV_RUNNER_SAMPLING_TIMER),
    ENVIRONMENT: (ENV_RUNNER_RESULTS, ENV_STEP_TIMER),
    LEARN: (TIMERS, LEARNER_UPDATE_TIMER),
    SYNC: (TIMERS, SYNCH_WORKER_WEIGHTS_TIMER),
}


class PackedAlgorithm(Algorithm):
    """Base of the packed algorithms: who has which parameters, what has been seen, and the books."""

    config_class: type[PackedConfig]
    taken_over: dict[str, Any] | None = None
    """What a warm start brought; see :func:`~rlaas.training.warm_start.apply_warm_start`."""

    @classmethod
    def get_default_config(cls) -> PackedConfig:
        """An empty configuration of the right class."""
        return cls.config_class()

    def _setup_logdir(self) -> None:
        # Outside Tune an Algorithm makes an empty folder under ~/ray_results for each run; nothing is written there.
        if self._storage:
            super()._setup_logdir()

    def setup(self, config: Any) -> None:
        """RLlib's setup, then one module for all that happens in this process."""
        self.stopwatch = Stopwatch(SAMPLE, LEARN, SYNC)
        self._timed: dict[str, float] = {}
        super().setup(config)
        config = cast(PackedConfig, self.config)
        self.training = config.training_config
        scenario = self.scenario
        self.learners = Learners(self.learner_group, config.build_module, self.stopwatch)
        self.remote = RemoteRunners(self.env_runner_group, self.stopwatch) if config.num_env_runners else None
        self.runner.module = self.net
        self.moments = RunningMoments(len(scenario.observation_names))
        # With remote runners their first rollouts bring the first observations too.
        self._unseen: list[Tensor] = [] if self.remote else [self.runner.first_observation]
        self._steps = 0
        self.multipliers = np.zeros(len(self.training.constraints))
        self.focus: Focus | None = None
        self.last_losses: dict[str, float] = {}
        self.sampled = SampledRewards.none(len(scenario.objectives), len(self.training.constraints))

    @property
    def scenario(self) -> Scenario:
        """What is learned."""
        return self.runner.scenario

    @property
    def runner(self) -> Runner:
        """The runner in this process; it steps nothing where there are others."""
        return cast(Runner, self.env_runner)

    @property
    def learner(self) -> Any:
        """The learner in this process; None where there are others."""
        return self.learners.here

    @property
    def net(self) -> PackedModule:
        """The module as this process has it."""
        return self.learners.net

    @property
    def updates(self) -> int:
        """Gradient updates so far."""
        return self.learners.updates

    @property
    def policy(self) -> PolicyNetwork:
        """The network that is trained."""
        return self.net.policy

    @property
    def steps_done(self) -> int:
        """Decisions taken so far."""
        return self._steps

    @property
    def time_spent(self) -> dict[str, float]:
        """Seconds so far in this process by ``sample``, ``learn``, ``sync`` and, a part of ``sample``, ``environment``.

        ``sync`` is the exchange of parameters with learners and runners elsewhere: none where they share one module.
        With remote runners ``environment`` is their mean.
        """
        elsewhere = self.remote.environment_seconds if self.remote else 0.0
        return {**self.stopwatch.seconds, ENVIRONMENT: self.runner.stopwatch.seconds[ENVIRONMENT] + elsewhere}

    @property
    def calibrated(self) -> bool:
        """Whether the rewards' scales are set; they are set once, at the start of a training."""
        return float(self.net.reward_scale[0]) != 0.0

    def keep_scales(self) -> None:
        """Take the scales that the module has now for set."""

    def observed(self) -> dict[str, Any]:
        """State of the moments of every observation so far, the latest included."""
        if self._unseen:
            self.moments.update(torch.cat(self._unseen))
            self._unseen = []
        return self.moments.get_state()

    def renormalise(self) -> None:
        """Let policies normalise by all observations so far."""
        self.observed()
        mean, deviation = self.moments.mean, self.moments.deviation()
        self.learners.tell("normalise_by", mean=mean, deviation=deviation)
        if not self.learners.shared:
            seen = self.policy.n_seen
            self.policy.normaliser.freeze(mean[:seen], deviation[:seen])

    def sample(self, steps: int, *, at_random: bool = False) -> Rollout:
        """``steps`` steps of all runners' environments, side by side; runners that died meanwhile are left out.

        Raises:
            TrainingError: no runner has been alive for a minute.
        """
        order = self.remote.order(self.policy, self.focus, steps, at_random) if self.remote else None
        with self.stopwatch.measure(SAMPLE):
            if self.remote:
                rollout, sums = self.remote.gather(order)
            else:
                rollout = self.runner.sample(num_timesteps=steps, random_actions=at_random)
                sums = [self.runner.pop_rewards()]
            for one in sums:
                self.sampled.add(one)
            self._take_in(rollout)
        return rollout

    def _take_in(self, rollout: Rollout) -> None:
        seen = rollout.observation if self.remote and self._steps == 0 else rollout.observation[1:]
        self._unseen.append(seen.flatten(0, 1))
        self._steps += rollout.valid.numel()

    def adapt(self) -> None:
        """Once an iteration: move the multipliers, and ask the learners where preferences may yet add to the front."""
        if self.training.constraints:
            self.multipliers = np.array(
                [
                    _moved(multiplier, constraint, *sums)
                    for multiplier, constraint, sums in zip(
                        self.multipliers, self.training.constraints, self.sampled.parts.tolist(), strict=True
                    )
                ]
            )
            self.learners.tell("set_multipliers", values=self.multipliers)
        if self.training.preference_sampling == "hypervolume":
            self.focus = self.learners.tell("focus")
            self.runner.draw_preferences_by(self.focus)

    def training_step(self) -> None:
        """One iteration; the books are begun anew before it."""
        scenario = self.scenario
        self.sampled = SampledRewards.none(len(scenario.objectives), len(self.training.constraints))
        before = self.steps_done
        losses = self.iterate()
        self.adapt()
        self.log_progress(self.steps_done - before, losses)

    @abstractmethod
    def iterate(self) -> dict[str, float]:
        """Sample and learn; returns the losses, none while there is nothing to learn from."""

    def keep_critics(self) -> None:
        """The critics come from a warm start; an algorithm that would calibrate its own first leaves that out."""

    def log_progress(self, steps: int, losses: dict[str, float]) -> None:
        """Enter ``steps`` decisions, the episodes that ended and the last losses into RLlib's metrics."""
        self.last_losses = losses or self.last_losses
        for name in (NUM_ENV_STEPS_SAMPLED, NUM_ENV_STEPS_SAMPLED_LIFETIME):
            self.metrics.log_value((ENV_RUNNER_RESULTS, name), steps, reduce="lifetime_sum")
        _log_each(self.metrics, (LEARNER_RESULTS, DEFAULT_MODULE_ID), losses.items())
        spent, before = self.time_spent, self._timed
        for phase, place in _TIMERS.items():
            _log_each(self.metrics, place[:-1], [(place[-1], spent[phase] - before.get(phase, 0.0))])
        self._timed = spent
        if self.sampled.returns:
            figures = {
                EPISODE_RETURN_MEAN: float(np.mean(self.sampled.returns)),
                EPISODE_LEN_MEAN: float(np.mean(self.sampled.lengths)),
                NUM_EPISODES: float(len(self.sampled.returns)),
            }
            _log_each(self.metrics, (ENV_RUNNER_RESULTS,), figures.items())

    @classmethod
    def _should_create_evaluation_env_runners(cls, _: AlgorithmConfig) -> bool:
        # RLlib's own evaluation counts episode objects; see evaluate().
        return False

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Roll out the policy without exploration, on environments of its own: the same ones and preferences each time.

        RLlib's settings say how long: ``evaluation_duration`` in ``evaluation_duration_unit`` (``episodes`` or
        ``timesteps``; ``auto`` counts as 10). Episodes are counted up to a thousand steps of each environment.

        Returns:
            ``env_runners``: RLlib's names for episodes, and ``reward`` with ``reward_<objective>``, means per decision.
        """
        seed = {**self.config.env_config["training"], "seed": self.training.seed + EVALUATION_SEED}
        config = self.config.copy(copy_frozen=False).environment(env_config={"training": seed})
        evaluator = type(self.runner)(config=config.env_runners(num_env_runners=0), worker_index=0)
        evaluator.module = self.net
        duration = self.config.evaluation_duration
        wanted = 10 if duration == "auto" else int(duration)
        sampled, steps = evaluator.pop_rewards(), 0
        in_episodes = self.config.evaluation_duration_unit == "episodes"
        while (len(sampled.returns) if in_episodes else sampled.rows) < wanted and steps < LONGEST_EVALUATION:
            evaluator.sample(num_timesteps=20, explore=False)
            sampled.add(evaluator.pop_rewards())
            steps += 20
        evaluator.stop()
        rows = max(1, sampled.rows)
        figures: dict[str, Any] = {"reward": sampled.scalar / rows, NUM_ENV_STEPS_SAMPLED: sampled.rows}
        figures |= {
            f"reward_{objective.name}": float(value)
            for objective, value in zip(self.scenario.objectives, sampled.vector / rows, strict=True)
        }
        if sampled.returns:
            figures |= {
                EPISODE_RETURN_MEAN: float(np.mean(sampled.returns)),
                EPISODE_LEN_MEAN: float(np.mean(sampled.lengths)),
                NUM_EPISODES: len(sampled.returns),
            }
        return {ENV_RUNNER_RESULTS: figures}

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Runners that came back; each is sent the policy with its next order, so nothing else has to be."""
        return list(env_runner_group.probe_unhealthy_env_runners())

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """RLlib's state with what has been seen, the multipliers, and the remote runners' environments."""
        state = dict(super().get_state(components, not_components=not_components, **kwargs))
        state["packed"] = {
            "moments": self.observed(),
            "steps": self._steps,
            "updates": self.updates,
            "multipliers": self.multipliers.copy(),
            "focus": self.focus,
            "runners": self.remote.states() if self.remote else [],
        }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        super().set_state(state)
        if "packed" not in state:
            return
        packed: Mapping[str, Any] = state["packed"]
        self.moments.set_state(packed["moments"])
        self._unseen = []
        self._steps, self.learners.updates = int(packed["steps"]), int(packed["updates"])
        self.multipliers, self.focus = packed["multipliers"].copy(), packed["focus"]
        if self.training.constraints:
            self.learners.tell("set_multipliers", values=self.multipliers)
        self.learners.follow()
        if self.remote:
            self.remote.continue_from(packed["runners"])


def _moved(multiplier: float, constraint: training_config.Constraint, top: float, bottom: float) -> float:
    """A multiplier after one step of dual ascent: up while its bound is broken, down while there is room."""
    if bottom == 0:
        return multiplier
    room = constraint.sign * (top / bottom - constraint.bound) / max(abs(constraint.bound), 1e-12)
    return float(np.clip(multiplier - constraint.learning_rate * room, 0.0, constraint.largest))


def _log_each(logger: Any, prefix: tuple[str, ...], values: Iterable[tuple[str, float]]) -> None:
    for name, value in values:
        logger.log_value((*prefix, name), value, window=1)
