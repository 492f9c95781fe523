"""The ways between an algorithm and its learners and runners, in this process or in others.

With a learner in this process nothing is sent: its module is the algorithm's. Learners elsewhere are followed by a
copy, as is one on a GPU beside runners on the CPU. Runners in actors are sent the policy with each order, so one that
has died or come back needs no state of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from rlaas.errors import TrainingError
from rlaas.training.conditioning import Focus
from rlaas.training.packed_module import PackedModule
from rlaas.training.rollouts import Rollout, SampledRewards
from rlaas.training.runner import Runner
from rlaas.training.timing import ENVIRONMENT, LEARN, SYNC, Stopwatch

__all__ = ["Learners", "LostLearnerError", "RemoteRunners"]

RUNNER_PATIENCE_S = 60.0


class LostLearnerError(TrainingError):
    """A learner's process has died; its parameters are those of the last checkpoint."""


class Learners:
    """An algorithm's learners, wherever they are.

    Args:
        group: RLlib's.
        build_module: makes a module of the learners' shape.
        stopwatch: told of the time that learning and following take.

    Attributes:
        here: the learner in this process, or None.
        net: this process's module: the learner's own, or a copy that :meth:`learn` keeps up to date.
        shared: whether it is the learner's own.
        updates: gradient updates so far.
    """

    def __init__(self, group: Any, build_module: Callable[[], PackedModule], stopwatch: Stopwatch) -> None:
        self._group, self._stopwatch = group, stopwatch
        # Looking it up through the group for every update would take as long as some updates do.
        here: Any = next(iter(group.foreach_learner(lambda one: one))).get() if group.is_local else None
        # Where the runner is too: on the CPU, or on the device that the whole training stays on.
        shared = here is not None and (here.device.type == "cpu" or here.training.device is not None)
        self.here, self.shared = here, shared
        self.net: PackedModule = here.net if self.shared else build_module()
        self.updates = 0
        self.follow()

    def tell(self, method: str, **arguments: Any) -> Any:
        """Call a method of every learner and return the first one's answer.

        Raises:
            TrainingError: what a learner says is wrong with the data, or that one of them has died.
        """
        return self._answers(method, arguments)[0]

    def learn(self, method: str, **arguments: Any) -> dict[str, float]:
        """Call an updating method of every learner: its losses, averaged, and this process's copy brought up to date.

        Raises:
            TrainingError: see :meth:`tell`.
        """
        with self._stopwatch.measure(LEARN):
            answers = self._answers(method, arguments)
            self.updates = int(self.tell("count_updates"))
        self.follow()
        return {name: float(np.mean([losses[name] for losses in answers])) for name in answers[0]}

    def follow(self) -> None:
        """Bring this process's module up to date with the learners, where it is a copy."""
        if self.shared:
            return
        with self._stopwatch.measure(SYNC):
            state = self.tell("module_arrays")
            self.net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})

    def lead(self) -> None:
        """Bring the learners up to date with this process's module, where it is a copy: after it was changed here."""
        if not self.shared:
            arrays = {name: value.detach().numpy() for name, value in self.net.state_dict().items()}
            self.tell("take_over", arrays=arrays)

    def _answers(self, method: str, arguments: Mapping[str, Any]) -> list[Any]:
        if self.here is not None:
            return [getattr(self.here, method)(**arguments)]
        answers = [result.get() for result in self._group.foreach_learner(partial(_call, method, arguments))]
        problem = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if isinstance(problem, TrainingError):
            raise problem
        if problem is not None or len(answers) < len(self._group):
            raise LostLearnerError("a learner's process has died", field="num_learners") from problem
        return answers


def _call(method: str, arguments: Mapping[str, Any], learner: Any) -> Any:
    """Call a method in the learner's process; what is wrong with the data is an answer, what kills it is not."""
    given = {name: ray.get(value) if isinstance(value, ray.ObjectRef) else value for name, value in arguments.items()}
    try:
        return getattr(learner, method)(**given)
    except TrainingError as problem:
        return problem


class RemoteRunners:
    """Runners in other processes.

    Args:
        group: RLlib's.
        stopwatch: told of the time that handing out the policy takes.

    Attributes:
        environment_seconds: mean over the runners of the time that their environments took.
    """

    def __init__(self, group: Any, stopwatch: Stopwatch) -> None:
        self._group, self._stopwatch = group, stopwatch
        self.environment_seconds = 0.0

    def order(self, policy: torch.nn.Module, focus: Focus | None, steps: int, at_random: bool) -> Any:
        """What makes a runner take ``steps`` steps with the present policy and draw preferences by ``focus``."""
        with self._stopwatch.measure(SYNC):
            arrays = {name: value.detach().cpu().numpy() for name, value in policy.state_dict().items()}
            return partial(_sample, ray.put((arrays, focus)), steps, at_random)

    def gather(self, order: Any) -> tuple[Rollout, list[SampledRewards]]:
        """The rollouts that an order brings, side by side, and the sums; runners that died meanwhile are left out.

        Raises:
            TrainingError: no runner has been alive for a minute.
        """
        patience = time.monotonic() + RUNNER_PATIENCE_S
        answers: list[Any] = self._group.foreach_env_runner(order, local_env_runner=False)
        while not answers:
            if time.monotonic() > patience:
                raise TrainingError(
                    f"no environment runner has been alive for {RUNNER_PATIENCE_S:.0f} s; see their logs",
                    field="num_env_runners",
                )
            time.sleep(0.5)
            self._group.probe_unhealthy_env_runners()
            answers = self._group.foreach_env_runner(order, local_env_runner=False)
        self.environment_seconds += sum(seconds for *_, seconds in answers) / len(answers)
        return Rollout.joined([Rollout.of_arrays(found) for found, *_ in answers]), [sums for _, sums, _ in answers]

    def states(self) -> list[dict[str, Any]]:
        """State of each runner that is alive."""
        return list(self._group.foreach_env_runner(_state_of, local_env_runner=False))

    def continue_from(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Set the runners' states; other numbers of runners have other environments, and those begin anew."""
        if len(states) == self._group.num_remote_env_runners():
            orders = [partial(_set_state, ray.put(state)) for state in states]
            self._group.foreach_env_runner(orders, local_env_runner=False)


def _sample(message: Any, steps: int, at_random: bool, runner: Runner) -> tuple[dict[str, Any], SampledRewards, float]:
    """A rollout's arrays, the sums since the last one, and the seconds that the environment took of it."""
    policy: dict[str, NDArray[Any]]
    policy, focus = ray.get(message)
    runner.receive(policy, focus)
    before = runner.stopwatch.seconds[ENVIRONMENT]
    rollout = runner.sample(num_timesteps=steps, random_actions=at_random)
    return rollout.arrays(), runner.pop_rewards(), runner.stopwatch.seconds[ENVIRONMENT] - before


def _state_of(runner: Runner) -> dict[str, Any]:
    return runner.get_state()


def _set_state(state: Any, runner: Runner) -> None:
    runner.set_state(ray.get(state))
