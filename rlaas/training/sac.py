"""SAC as an RLlib algorithm: what is replayed, and how many updates the decisions pay for.

What it learns, and how it differs from the textbook, stands in :mod:`rlaas.training.sac_learner`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import ray
import torch

from rlaas.training.actions import ActionSpec
from rlaas.training.algorithm import PackedAlgorithm
from rlaas.training.packed_config import PackedConfig
from rlaas.training.packed_learner import PackedLearner
from rlaas.training.packed_module import PackedModule
from rlaas.training.problems import problem_of
from rlaas.training.replay import ReplayBuffer, Transitions
from rlaas.training.rollouts import Rollout
from rlaas.training.sac_discrete import DiscreteSACLearner, DiscreteSACModule
from rlaas.training.sac_learner import SACLearner, SACModule, widths_of

__all__ = ["SACAlgorithm", "SACConfig", "transitions_of"]

ROWS_PER_ITERATION = 1_024
REMOTE_ORDERS = 4


def transitions_of(rollout: Rollout, *, with_context: bool = False) -> Transitions:
    """The valid steps of a rollout as rows; the step of an automatic reset is no experience."""
    rows, none = rollout.rows, rollout.observation.new_empty(*rollout.valid.shape, 0)
    return Transitions(
        observation=rows(rollout.observation[:-1]),
        action=rows(rollout.action).float(),
        reward=rows(rollout.reward).float(),
        preference=rows(rollout.preference[:-1]),
        terminated=rows(rollout.terminated).float()[:, None],
        next_observation=rows(rollout.following),
        context=rows(rollout.context()[:-1] if with_context else none),
        next_context=rows(rollout.following_context() if with_context else none),
    )


class SACConfig(PackedConfig):
    """RLlib configuration of :class:`SACAlgorithm`."""

    algorithm_name = "sac"
    activation = "relu"

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or SACAlgorithm)

    def module_class(self) -> type[PackedModule]:
        """For a box, or for one choice."""
        return DiscreteSACModule if self._makes_choices() else SACModule

    def get_default_learner_class(self) -> type[PackedLearner]:
        """For a box, or for one choice."""
        return DiscreteSACLearner if self._makes_choices() else SACLearner

    def _makes_choices(self) -> bool:
        return bool(ActionSpec.of(problem_of(self.training_config).single_action_space).sizes)


class SACAlgorithm(PackedAlgorithm):
    """SAC with the packed runner; the replay buffer is part of the checkpoint."""

    config_class = SACConfig

    def setup(self, config: Any) -> None:
        """Build everything, the buffer included."""
        super().setup(config)
        net = self.net
        assert isinstance(net, SACModule)
        self._rows = self.training.num_envs * self.runner.rows_per_env
        capacity = min(self.training.sac.buffer_size, self.training.steps + self._rows)
        place = self.training.device or "cpu"
        self.replay = ReplayBuffer(max(capacity, self.training.batch_size), widths_of(net), device=place)
        # Set by whoever saves the replay by itself, as checkpoints that only add what is new do.
        self.replay_apart = False
        self._generator = torch.Generator().manual_seed(self.training.seed + 2)
        self._warm_up = self.training.resolved_learning_starts()
        self._calibrated = False
        self._owed = 0.0

    @property
    def calibrated(self) -> bool:
        """Whether the warm-up, or somebody else, has set the rewards' scales."""
        return self._calibrated

    def keep_scales(self) -> None:
        """Take the scales that the module has now for set: the warm-up will not change them."""
        self._calibrated = True

    def keep_critics(self) -> None:
        """The critics know something already: neither calibrate them nor keep the actor waiting for them."""
        self._calibrated = True
        self.learners.tell("end_head_start")

    def iterate(self) -> dict[str, float]:
        """About a thousand decisions and the gradient updates they pay for."""
        losses: dict[str, float] = {}
        wanted = min(ROWS_PER_ITERATION, max(1, self.training.steps - self.steps_done))
        steps = -(-wanted // self._rows)
        # Where runners are elsewhere an order takes a while to arrive: a few large ones, instead of one a step.
        orders = min(REMOTE_ORDERS, steps) if self.remote else steps
        length = -(-steps // orders)
        for order in range(orders):
            warming_up = self.steps_done < self._warm_up
            # Moments hardly move once there are some: the next iteration takes them in.
            if warming_up or order == 0:
                self.renormalise()
            self.replay.add(transitions_of(self._experience(length, warming_up), with_context=self.net.n_context > 0))
            if warming_up or len(self.replay) < 2:
                continue
            if not self._calibrated:
                self.learners.tell("calibrate", stored=self.replay.stored())
                self._calibrated = True
            self._owed += length * self._rows * self.training.sac.updates_per_step
            if self._owed >= 1:
                losses = self._update(int(self._owed))
                self._owed -= int(self._owed)
        return losses

    def _experience(self, steps: int, warming_up: bool) -> Rollout:
        # Warming up alternates between the untrained policy, around the default, and the whole box. A policy that was
        # taken over knows better.
        at_random = warming_up and self.taken_over is None and (self.steps_done // (self._rows * steps)) % 2 == 0
        return self.sample(steps, at_random=at_random)

    def _update(self, updates: int) -> dict[str, float]:
        if self.learner is not None:
            return self.learners.learn("update_from_replay", replay=self.replay, updates=updates)
        batches = [self.replay.rows(self.training.batch_size, self._generator) for _ in range(updates)]
        return self.learners.learn("update_from_batches", rows=ray.put(torch.stack(batches).numpy()))

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The base's state with the replay buffer, which the new API stack leaves out."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if not self.replay_apart:
            state["replay"] = self.replay.get_state()
        state["clock"] = {
            "calibrated": self._calibrated,
            "owed": self._owed,
            "generator": self._generator.get_state().numpy().copy(),
        }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        super().set_state(state)
        if "replay" in state:
            self.replay.set_state(state["replay"])
        if "clock" in state:
            clock = state["clock"]
            self._calibrated, self._owed = clock["calibrated"], clock["owed"]
            self._generator.set_state(torch.from_numpy(clock["generator"]))
