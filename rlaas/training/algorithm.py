"""What SAC and PPO share as RLlib algorithms: configuration, module, learner and bookkeeping.

They stay RLlib ``Algorithm``s of the new API stack: ``train()``, ``save_to_path``, ``restore_from_path`` and ``config``
work as for any other. Learner and runner live in the calling process and share one module, so no weights are copied
between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from gymnasium import spaces
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from torch import Tensor

from rlaas.errors import ConfigurationError, TrainingError
from rlaas.scenarios import ConstantController, Scenario
from rlaas.training import config as training_config
from rlaas.training.backprop import FlatAdam, FlatParameters
from rlaas.training.networks import PolicyNetwork
from rlaas.training.packed_runner import PackedRunner
from rlaas.training.problems import problem_of

__all__ = ["PackedAlgorithm", "PackedConfig", "PackedLearner", "PackedModule"]


class PackedModule(TorchRLModule):
    """An RLModule around a :class:`PolicyNetwork`; ``model_config`` holds the network's shape."""

    policy: PolicyNetwork

    def setup(self) -> None:
        """Build the policy network; subclasses add their critics."""
        shape = dict(self.model_config)
        self.policy = PolicyNetwork(
            shape["n_features"],
            shape["n_objectives"],
            shape["n_actions"],
            shape["hidden"],
            discrete=shape["discrete"],
            activation=shape["activation"],
        )
        if shape["first_action"] is not None:
            self.policy.start_at(shape["first_action"])

    def explore_at_random(self, rows: int, generator: torch.Generator) -> Tensor:
        """Uniform actions: [rows, n_actions] in [-1, 1), or [rows] choices."""
        if self.policy.discrete:
            return torch.randint(self.policy.n_actions, (rows,), generator=generator)
        return torch.rand(rows, self.policy.n_actions, generator=generator) * 2.0 - 1.0

    def noise(self, steps: int, rows: int, generator: torch.Generator) -> Tensor:
        """What :meth:`explore` draws from, for a whole rollout [steps, rows, n_actions]: a normal number each."""
        return torch.randn(steps, rows, self.policy.n_actions, generator=generator)

    def explore(self, observation: Tensor, preference: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sampled actions of a box [rows, n_actions] in (-1, 1), and what :meth:`complete` wants to know of them."""
        heads = self.policy.heads(self.policy.features(observation, preference))
        return torch.tanh(heads["mean"] + heads["log_std"].exp() * noise), {}

    def complete(
        self, observation: Tensor, preference: Tensor, later: Tensor, extras: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The extras of a rollout, given those of its steps.

        Args:
            observation: [steps + 1, rows, n_features].
            preference: [steps, rows, n_objectives].
            later: preference in force after the last step [rows, n_objectives].
            extras: of all steps [steps, ...].
        """
        return extras

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return dict(self.policy(batch["observation"], batch.get("preference")))


class PackedLearner(TorchLearner):
    """A learner with its own update loop and generator, both part of its checkpoint."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.training = training_config.TrainingConfig(**self.config.env_config["training"])
        self.generator = torch.Generator().manual_seed(self.training.seed + 1)
        self.updates = 0

    @property
    def net(self) -> Any:
        """The one module that is trained."""
        return self.module[DEFAULT_MODULE_ID]

    @property
    def optimizer(self) -> FlatAdam:
        """The one optimizer of all trained parameters."""
        return cast(FlatAdam, self.get_optimizer(DEFAULT_MODULE_ID))

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One fused Adam over one vector of everything that is trained: one call an update, whatever the layers."""
        self.flat = FlatParameters(p for p in self.module[module_id].parameters() if p.requires_grad)
        optimizer = FlatAdam([self.flat.value], lr=float(config.lr), eps=1e-7, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=[self.flat.value])

    def check_losses(self, losses: dict[str, float]) -> dict[str, float]:
        """Return ``losses`` if they are finite.

        Raises:
            TrainingError: naming the loss that is not.
        """
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} became {value} after {self.updates} updates; lower learning_rate or check the rewards",
                    field=name,
                )
        return losses

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state with the generator and the update counter."""
        state = dict(super().get_state(*args, **kwargs))
        state["packed"] = {"generator": self.generator.get_state().numpy().copy(), "updates": self.updates}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        super().set_state(state)
        if "packed" in state:
            self.generator.set_state(torch.from_numpy(state["packed"]["generator"]))
            self.updates = int(state["packed"]["updates"])


class PackedConfig(AlgorithmConfig):
    """RLlib configuration of a packed algorithm; built from a :class:`TrainingConfig` by :meth:`of`."""

    module_class: type[PackedModule]
    learner_type: type[PackedLearner]
    activation: str

    @classmethod
    def of(cls, training: training_config.TrainingConfig, algorithm: training_config.Algorithm) -> PackedConfig:
        """The RLlib configuration of ``training``."""
        config = cls()
        config.environment(env="rlaas", env_config={"training": training.model_dump(mode="json")})
        config.framework("torch")
        config.env_runners(env_runner_cls=PackedRunner, num_env_runners=0)
        config.learners(num_learners=0, num_gpus_per_learner=0)
        config.training(
            lr=training.resolved_learning_rate(algorithm),
            gamma=training.resolved_gamma(algorithm),
        )
        config.debugging(seed=training.seed, log_level="ERROR")
        return config

    def validate(self) -> None:
        """RLlib's checks, and ours.

        Raises:
            ConfigurationError: remote runners or learners were asked for.
        """
        super().validate()
        for field in ("num_env_runners", "num_learners"):
            if getattr(self, field):
                raise ConfigurationError(
                    f"{field} must be 0: the packed loop shares one module in one process", field=field
                )

    def get_default_learner_class(self) -> type[PackedLearner]:
        """The learner that goes with the algorithm."""
        return self.learner_type

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module's class; its shape is filled in from the problem."""
        return RLModuleSpec(module_class=self.module_class, model_config=self._shape())

    def _shape(self) -> dict[str, Any]:
        training = training_config.TrainingConfig(**self.env_config["training"])
        scenario = problem_of(training)
        action = scenario.single_action_space
        discrete = isinstance(action, spaces.Discrete)
        return {
            "n_features": len(scenario.observation_names),
            # A single objective has nothing to prefer: its policy takes no preference.
            "n_objectives": len(scenario.objectives) if len(scenario.objectives) > 1 else 0,
            "n_rewards": len(scenario.objectives),
            "n_actions": int(action.n) if isinstance(action, spaces.Discrete) else int(action.shape[0]),
            "hidden": training.hidden,
            "discrete": discrete,
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
    """Base of the packed algorithms: shares the module and keeps the books."""

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
        """RLlib's setup, then hand the learner's module to the runner."""
        super().setup(config)
        self.training = training_config.TrainingConfig(**self.config.env_config["training"])
        self.runner.module = self.learner.net
        self.last_losses: dict[str, float] = {}

    @property
    def runner(self) -> PackedRunner:
        """The runner in this process."""
        return cast(PackedRunner, self.env_runner)

    @property
    def learner(self) -> Any:
        """The learner in this process."""
        return next(iter(self.learner_group.foreach_learner(lambda learner: learner))).get()

    @property
    def policy(self) -> PolicyNetwork:
        """The network that is trained."""
        return cast(PolicyNetwork, self.learner.net.policy)

    @property
    def steps_done(self) -> int:
        """Decisions taken so far."""
        return int(self.runner.num_env_steps_sampled_lifetime)

    def keep_critics(self) -> None:
        """The critics come from a warm start; an algorithm that would calibrate its own first leaves that out."""

    def log_progress(self, steps: int, losses: dict[str, float]) -> None:
        """Enter ``steps`` decisions and the last losses into RLlib's metrics."""
        self.last_losses = losses or self.last_losses
        self.metrics.log_value((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), steps, reduce="lifetime_sum")
        _log_each(self.metrics, (LEARNER_RESULTS, DEFAULT_MODULE_ID), losses.items())
        self.sampled = self.runner.pop_rewards()
        if self.sampled.returns:
            mean = sum(self.sampled.returns) / len(self.sampled.returns)
            _log_each(self.metrics, (ENV_RUNNER_RESULTS,), [(EPISODE_RETURN_MEAN, mean)])


def _log_each(logger: Any, prefix: tuple[str, ...], values: Iterable[tuple[str, float]]) -> None:
    for name, value in values:
        logger.log_value((*prefix, name), value, window=1)
