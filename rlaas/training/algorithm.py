"""What SAC and PPO share as RLlib algorithms: configuration, the ways between runners and learners, bookkeeping.

They stay RLlib ``Algorithm``s of the new API stack: ``train()``, ``save_to_path``, ``restore_from_path``, ``evaluate``,
``config`` and Tune work as for any other. With runner and learner in the calling process both use one module, so no
weights are copied between them; with actors on either side the algorithm carries policies and rollouts across.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import ray
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
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

from rlaas.errors import TrainingError
from rlaas.scenarios import ConstantController, Scenario
from rlaas.training import config as training_config
from rlaas.training.actions import ActionSpec
from rlaas.training.conditioning import Focus, RunningMoments
from rlaas.training.networks import PolicyNetwork
from rlaas.training.packed_learner import PackedLearner
from rlaas.training.packed_module import PackedModule
from rlaas.training.packed_runner import PackedRunner
from rlaas.training.problems import check_problem, problem_of
from rlaas.training.rollouts import Rollout, SampledRewards
from rlaas.training.timing import ENVIRONMENT, LEARN, SAMPLE, SYNC, Stopwatch

__all__ = ["LostLearnerError", "PackedAlgorithm", "PackedConfig"]


RUNNER_PATIENCE_S = 60.0
EVALUATION_SEED = 500_009
LONGEST_EVALUATION = 1_000
# RLlib's own places for the seconds of an iteration.
_TIMERS: dict[str, tuple[str, ...]] = {
    SAMPLE: (TIMERS, ENV_RUNNER_SAMPLING_TIMER),
    ENVIRONMENT: (ENV_RUNNER_RESULTS, ENV_STEP_TIMER),
    LEARN: (TIMERS, LEARNER_UPDATE_TIMER),
    SYNC: (TIMERS, SYNCH_WORKER_WEIGHTS_TIMER),
}


class LostLearnerError(TrainingError):
    """A learner's process has died; its parameters are those of the last checkpoint."""


class PackedConfig(AlgorithmConfig):
    """RLlib configuration of a packed algorithm; built from a :class:`TrainingConfig` by :meth:`of`."""

    algorithm_name: training_config.Algorithm
    activation: str

    @classmethod
    def of(cls, training: training_config.TrainingConfig) -> PackedConfig:
        """The RLlib configuration of ``training``."""
        config = cls()
        config.environment(env="rlaas", env_config={"training": training.model_dump(mode="json")})
        config.framework("torch")
        config.env_runners(env_runner_cls=PackedRunner, num_env_runners=training.num_env_runners)
        config.learners(num_learners=training.num_learners, num_gpus_per_learner=training.num_gpus_per_learner)
        # A runner that died is replaced, and what the others bring is learned from meanwhile.
        config.fault_tolerance(restart_failed_env_runners=True)
        config.training(
            lr=training.resolved_learning_rate(cls.algorithm_name),
            gamma=training.resolved_gamma(cls.algorithm_name),
        )
        config.debugging(seed=training.seed, log_level="ERROR")
        return config

    @property
    def training_config(self) -> training_config.TrainingConfig:
        """What is trained; runners and learners as this configuration has them."""
        given = dict(self.env_config["training"])
        return training_config.TrainingConfig(
            **{
                **given,
                "num_env_runners": self.num_env_runners,
                "num_learners": self.num_learners,
                "num_gpus_per_learner": self.num_gpus_per_learner,
            }
        )

    def validate(self) -> None:
        """RLlib's checks, and ours.

        Raises:
            ConfigurationError: a combination that cannot work, naming the field.
        """
        super().validate()
        training = self.training_config
        check_problem(training, self.algorithm_name, problem_of(training))

    def get_default_learner_class(self) -> type[PackedLearner]:
        """The learner that goes with the algorithm and the actions."""
        raise NotImplementedError

    def module_class(self) -> type[PackedModule]:
        """The module that goes with the algorithm and the actions."""
        raise NotImplementedError

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module's class and shape, as the problem has it."""
        return RLModuleSpec(module_class=self.module_class(), model_config=self.shape())

    def build_module(self) -> PackedModule:
        """A module with first parameters of its own."""
        return self.module_class()(
            observation_space=None, action_space=None, inference_only=False, model_config=self.shape()
        )

    def shape(self) -> dict[str, Any]:
        """What a module has to know about the problem."""
        training = self.training_config
        scenario = problem_of(training)
        actions = ActionSpec.of(scenario.single_action_space)
        several = len(scenario.objectives) > 1
        return {
            "n_features": len(scenario.observation_names),
            # A single objective has nothing to prefer: its policy takes no preference.
            "n_preferences": len(scenario.objectives) if several else 0,
            "n_objectives": len(scenario.objectives),
            "n_constraints": len(training.constraints),
            "n_actions": actions.n,
            "sizes": actions.sizes,
            "masked": scenario.masked_actions,
            "memory": training.ppo.memory if self.algorithm_name == "ppo" else 0,
            "centralised": training.centralised_critic,
            "scalarisation": training.scalarisation if several else "linear",
            "models_returns": several and training.preference_sampling == "hypervolume",
            "hidden": training.hidden,
            "activation": self.activation,
            "first_action": first_action(scenario),
        }


def first_action(scenario: Scenario) -> list[float] | None:
    """The scenario's default configuration in the normalised box [n_actions], or None where it has no such thing.

    A policy that starts where operators already are has only improvements to learn; one that starts in the middle of
    the box first has to find the way back.
    """
    action = scenario.single_action_space
    baseline = scenario.baselines.get(scenario.default_baseline)
    if baseline is None or not isinstance(action, spaces.Box):
        return None
    controller = baseline.make()
    if not isinstance(controller, ConstantController):
        return None
    share = 2.0 * (controller.action - action.low) / (action.high - action.low) - 1.0
    return [float(value) for value in share]


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
        self._remote_environment = 0.0
        self._evaluator: PackedRunner | None = None
        super().setup(config)
        self.training = cast(PackedConfig, self.config).training_config
        scenario = self.scenario
        # Learners elsewhere, or on another device, are followed by a copy here.
        self._shares_module = self.learner_group.is_local and self.learner.device.type == "cpu"
        self.net: PackedModule = self.learner.net if self._shares_module else self._copy_of_module()
        self.runner.module = self.net
        # Looking it up through the group for every update would take as long as some updates do.
        self._learner_here: Any = self.learner if self._shares_module else None
        self.moments = RunningMoments(len(scenario.observation_names))
        # With remote runners their first rollouts bring the first observations too.
        self._unseen: list[NDArray[np.float32]] = [] if self.num_runners else [self.runner.first_observation]
        self._steps = 0
        self.updates = 0
        self.multipliers = np.zeros(len(self.training.constraints))
        self.focus: Focus | None = None
        self.last_losses: dict[str, float] = {}
        self.sampled = SampledRewards.none(len(scenario.objectives), len(self.training.constraints))

    @property
    def scenario(self) -> Scenario:
        """What is learned."""
        return self.runner.scenario

    @property
    def runner(self) -> PackedRunner:
        """The runner in this process; it steps nothing where there are others."""
        return cast(PackedRunner, self.env_runner)

    @property
    def learner(self) -> Any:
        """The learner in this process."""
        return next(iter(self.learner_group.foreach_learner(lambda learner: learner))).get()

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
        environment = self.runner.stopwatch.seconds[ENVIRONMENT] + self._remote_environment
        return {**self.stopwatch.seconds, ENVIRONMENT: environment}

    @property
    def calibrated(self) -> bool:
        """Whether the rewards' scales are set; they are set once, at the start of a training."""
        return float(self.net.reward_scale[0]) != 0.0

    def keep_scales(self) -> None:
        """Take the scales that the module has now for set."""

    def observed(self) -> dict[str, Any]:
        """State of the moments of every observation so far, the latest included."""
        if self._unseen:
            self.moments.update(np.concatenate(self._unseen))
            self._unseen = []
        return self.moments.get_state()

    @property
    def num_runners(self) -> int:
        """Remote runners; 0 where this process steps the environments."""
        return int(self.config.num_env_runners)

    def on_learners(self, method: str, **arguments: Any) -> Any:
        """Call a method of every learner and return the first one's answer.

        Raises:
            TrainingError: what a learner says is wrong with the data, or that one of them has died.
        """
        return self._answers(method, arguments)[0]

    def learn(self, method: str, **arguments: Any) -> dict[str, float]:
        """Call an updating method of every learner: its losses, averaged, and this process's copy brought up to date.

        Raises:
            TrainingError: see :meth:`on_learners`.
        """
        if self._learner_here is not None:
            with self.stopwatch.measure(LEARN):
                own: dict[str, float] = getattr(self._learner_here, method)(**arguments)
            self.updates = int(self._learner_here.updates)
            return own
        with self.stopwatch.measure(LEARN):
            answers = self._answers(method, arguments)
        with self.stopwatch.measure(SYNC):
            self.updates = int(self.on_learners("count_updates"))
            self.follow_learners()
        return {name: float(np.mean([losses[name] for losses in answers])) for name in answers[0]}

    def _answers(self, method: str, arguments: Mapping[str, Any]) -> list[Any]:
        answers = [result.get() for result in self.learner_group.foreach_learner(partial(_call, method, arguments))]
        problem = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if isinstance(problem, TrainingError):
            raise problem
        if problem is not None or len(answers) < max(1, int(self.config.num_learners)):
            raise LostLearnerError("a learner's process has died", field="num_learners") from problem
        return answers

    def follow_learners(self) -> None:
        """Bring this process's module up to date with the learners, where it is a copy."""
        if self._shares_module:
            return
        state = self.on_learners("module_arrays")
        self.net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})

    def lead_learners(self) -> None:
        """Bring the learners up to date with this process's module, where it is a copy: after it was changed here."""
        if self._shares_module:
            return
        arrays = {name: value.detach().numpy() for name, value in self.net.state_dict().items()}
        self.on_learners("take_over", arrays=arrays)

    def renormalise(self) -> None:
        """Let policies normalise by all observations so far."""
        self.observed()
        statistics = {"mean": self.moments.mean, "deviation": self.moments.deviation()}
        self.on_learners("normalise_by", **statistics)
        seen = self.net.policy.n_seen
        self.net.policy.normaliser.freeze(statistics["mean"][:seen], statistics["deviation"][:seen])

    def sample(self, steps: int, *, at_random: bool = False) -> Rollout:
        """``steps`` steps of all runners' environments, side by side; runners that died meanwhile are left out.

        Raises:
            TrainingError: no runner has been alive for a minute.
        """
        with self.stopwatch.measure(SAMPLE):
            if self.num_runners:
                rollout = self._gather(steps, at_random)
            else:
                rollout = self.runner.sample(num_timesteps=steps, random_actions=at_random)
                self.sampled.add(self.runner.pop_rewards())
            self._take_in(rollout)
        return rollout

    def _gather(self, steps: int, at_random: bool) -> Rollout:
        """Send the present policy to the remote runners, let them take ``steps`` steps, and join what they bring."""
        arrays = {name: value.detach().cpu().numpy() for name, value in self.net.policy.state_dict().items()}
        group = self.env_runner_group
        assert group is not None
        order = partial(_sample_remotely, ray.put((arrays, self.focus)), steps, at_random)
        patience = time.monotonic() + RUNNER_PATIENCE_S
        answers: list[Any] = group.foreach_env_runner(order, local_env_runner=False)
        while not answers:
            if time.monotonic() > patience:
                raise TrainingError(
                    f"no environment runner has been alive for {RUNNER_PATIENCE_S:.0f} s; see their logs",
                    field="num_env_runners",
                )
            time.sleep(0.5)
            self.restore_env_runners(group)
            answers = group.foreach_env_runner(order, local_env_runner=False)
        for _, sums, _ in answers:
            self.sampled.add(sums)
        self._remote_environment += sum(seconds for *_, seconds in answers) / len(answers)
        return Rollout.joined([Rollout.of_arrays(found) for found, *_ in answers])

    def _take_in(self, rollout: Rollout) -> None:
        seen = rollout.observation if self.num_runners and self._steps == 0 else rollout.observation[1:]
        self._unseen.append(seen.flatten(0, 1).numpy())
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
            self.on_learners("set_multipliers", values=self.multipliers)
        if self.training.preference_sampling == "hypervolume":
            self.focus = self.on_learners("focus")
            self.runner.draw_preferences_by(self.focus)

    def training_step(self) -> None:
        """One iteration; the books are begun anew before it."""
        scenario = self.scenario
        self.sampled = SampledRewards.none(len(scenario.objectives), len(self.training.constraints))
        before = self.steps_done
        losses = self.iterate()
        self.adapt()
        self.log_progress(self.steps_done - before, losses)

    def iterate(self) -> dict[str, float]:
        """Sample and learn; returns the losses, none while there is nothing to learn from."""
        raise NotImplementedError

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
        """Roll out the policy without exploration, on environments of its own, under freshly drawn preferences.

        RLlib's settings say how long: ``evaluation_duration`` in ``evaluation_duration_unit`` (``episodes`` or
        ``timesteps``; ``auto`` counts as 10). Episodes are counted up to a thousand steps of each environment.

        Returns:
            ``env_runners``: RLlib's names for episodes, and ``reward`` with ``reward_<objective>``, means per decision.
        """
        if self._evaluator is None:
            seed = {**self.config.env_config["training"], "seed": self.training.seed + EVALUATION_SEED}
            config = self.config.copy(copy_frozen=False).environment(env_config={"training": seed})
            self._evaluator = PackedRunner(config=config.env_runners(num_env_runners=0), worker_index=0)
            self._evaluator.module = self.net
        duration = self.config.evaluation_duration
        wanted = 10 if duration == "auto" else int(duration)
        sampled, steps = self._evaluator.pop_rewards(), 0
        in_episodes = self.config.evaluation_duration_unit == "episodes"
        while (len(sampled.returns) if in_episodes else sampled.rows) < wanted and steps < LONGEST_EVALUATION:
            self._evaluator.sample(num_timesteps=20, explore=False)
            sampled.add(self._evaluator.pop_rewards())
            steps += 20
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

    def _copy_of_module(self) -> PackedModule:
        module = cast(PackedConfig, self.config).build_module()
        state = self.on_learners("module_arrays")
        module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
        return module

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
            "runners": self._runner_states(),
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
        self._steps, self.updates = int(packed["steps"]), int(packed["updates"])
        self.multipliers, self.focus = packed["multipliers"].copy(), packed["focus"]
        if self.training.constraints:
            self.on_learners("set_multipliers", values=self.multipliers)
        self.follow_learners()
        # Other numbers of runners have other environments: those begin anew.
        if self.num_runners and len(packed["runners"]) == self.num_runners:
            group = self.env_runner_group
            assert group is not None
            group.foreach_env_runner(
                [partial(_set_remote_state, ray.put(one)) for one in packed["runners"]], local_env_runner=False
            )

    def _runner_states(self) -> list[dict[str, Any]]:
        if not self.num_runners:
            return []
        group = self.env_runner_group
        assert group is not None
        return list(group.foreach_env_runner(_state_of, local_env_runner=False))


def _call(method: str, arguments: Mapping[str, Any], learner: Any) -> Any:
    """Call a method in the learner's process; what is wrong with the data is an answer, what kills it is not."""
    given = {name: ray.get(value) if isinstance(value, ray.ObjectRef) else value for name, value in arguments.items()}
    try:
        return getattr(learner, method)(**given)
    except TrainingError as problem:
        return problem


def _sample_remotely(
    message: Any, steps: int, at_random: bool, runner: PackedRunner
) -> tuple[dict[str, Any], SampledRewards, float]:
    """A rollout's arrays, the sums since the last one, and the seconds that the environment took of it."""
    runner.receive(*ray.get(message))
    before = runner.stopwatch.seconds[ENVIRONMENT]
    rollout = runner.sample(num_timesteps=steps, random_actions=at_random)
    return rollout.arrays(), runner.pop_rewards(), runner.stopwatch.seconds[ENVIRONMENT] - before


def _state_of(runner: PackedRunner) -> dict[str, Any]:
    return runner.get_state()


def _set_remote_state(state: Any, runner: PackedRunner) -> None:
    runner.set_state(ray.get(state))


def _moved(multiplier: float, constraint: training_config.Constraint, top: float, bottom: float) -> float:
    """A multiplier after one step of dual ascent: up while its bound is broken, down while there is room."""
    if bottom == 0:
        return multiplier
    room = constraint.sign * (top / bottom - constraint.bound) / max(abs(constraint.bound), 1e-12)
    return float(np.clip(multiplier - constraint.learning_rate * room, 0.0, constraint.largest))


def _log_each(logger: Any, prefix: tuple[str, ...], values: Iterable[tuple[str, float]]) -> None:
    for name, value in values:
        logger.log_value((*prefix, name), value, window=1)
