"""What SAC and PPO share as RLlib configurations: from a training configuration to runners, learners and a module."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from gymnasium import spaces
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rlaas.scenarios import Scenario
from rlaas.training import config as training_config
from rlaas.training.actions import ActionSpec
from rlaas.training.packed_learner import PackedLearner
from rlaas.training.packed_module import PackedModule
from rlaas.training.packed_runner import PackedRunner
from rlaas.training.problems import check_problem, constant_of, problem_of
from rlaas.training.tensor_runner import TensorRunner

__all__ = ["PackedConfig"]


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
        runner = PackedRunner if training.device is None else TensorRunner
        config.env_runners(env_runner_cls=runner, num_env_runners=training.num_env_runners)
        gpus = training.num_gpus_per_learner if training.device != "cuda" else 1
        config.learners(num_learners=training.num_learners, num_gpus_per_learner=gpus)
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
                "num_gpus_per_learner": self.num_gpus_per_learner if given.get("device") is None else 0,
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

    @abstractmethod
    def get_default_learner_class(self) -> type[PackedLearner]:
        """The learner that goes with the algorithm and the actions."""

    @abstractmethod
    def module_class(self) -> type[PackedModule]:
        """The module that goes with the algorithm and the actions."""

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
            "first_action": first_action(scenario, training.start),
        }


def first_action(scenario: Scenario, start: str | None = None) -> list[float] | None:
    """A constant baseline, by default the default one, in the normalised box [n_actions]; None where there is none.

    A policy that starts where operators already are has only improvements to learn; one that starts in the middle of
    the box first has to find the way back.
    """
    action = scenario.single_action_space
    controller = constant_of(scenario, start or scenario.default_baseline)
    if controller is None or not isinstance(action, spaces.Box):
        return None
    share = 2.0 * (controller.action - action.low) / (action.high - action.low) - 1.0
    return [float(value) for value in share]
