"""PPO as an RLlib algorithm; what it learns stands in :mod:`rlaas.training.ppo_learner`."""

from __future__ import annotations

from typing import Any

import ray

from rlaas.training.algorithm import PackedAlgorithm
from rlaas.training.packed_config import PackedConfig
from rlaas.training.packed_learner import PackedLearner
from rlaas.training.packed_module import PackedModule
from rlaas.training.ppo_learner import PPOLearner, PPOModule
from rlaas.training.ppo_recurrent import RecurrentPPOLearner, RecurrentPPOModule

__all__ = ["PPOAlgorithm", "PPOConfig"]


class PPOConfig(PackedConfig):
    """RLlib configuration of :class:`PPOAlgorithm`."""

    algorithm_name = "ppo"
    activation = "tanh"

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PPOAlgorithm)

    def module_class(self) -> type[PackedModule]:
        """With or without a memory."""
        return RecurrentPPOModule if self.training_config.ppo.memory else PPOModule

    def get_default_learner_class(self) -> type[PackedLearner]:
        """With or without a memory."""
        return RecurrentPPOLearner if self.training_config.ppo.memory else PPOLearner


class PPOAlgorithm(PackedAlgorithm):
    """PPO with the packed runner."""

    config_class = PPOConfig

    def iterate(self) -> dict[str, float]:
        """One rollout and the epochs over it."""
        progress = self.steps_done / self.training.steps
        self.renormalise()
        rollout = self.sample(self.training.ppo.rollout_length)
        given: Any = rollout if self.learner is not None else ray.put(rollout.arrays())
        return self.learners.learn("update_from_rollout", rollout=given, progress=progress)
