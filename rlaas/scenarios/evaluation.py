"""Evaluating controllers on common seeds: sums of parts first, objectives last."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, CandidateKind
from rlaas.scenarios.base import Scenario
from rlaas.scenarios.checks import check_count, check_seeds
from rlaas.scenarios.controllers import Controller

__all__ = ["Evaluation", "SideBySide", "check_counts", "evaluate", "roll_out"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a controller reached on each seed.

    Attributes:
        seeds: evaluation seeds.
        values: objective values [n_seeds, n_objectives] in their units.
        numerators, denominators: summed parts [n_seeds, n_parts].
        seconds: wall time.
    """

    seeds: tuple[int, ...]
    values: FloatArray
    numerators: FloatArray
    denominators: FloatArray
    seconds: float = field(compare=False)

    def mean(self) -> FloatArray:
        """Mean over seeds [n_objectives]."""
        return np.asarray(self.values.mean(axis=0))

    def half_width(self, confidence: float = 0.95) -> FloatArray:
        """Half width of the Student interval of the mean [n_objectives]; infinite for one seed."""
        n = len(self.seeds)
        if n < 2:
            return np.full(self.values.shape[1], np.inf)
        # scipy.stats takes most of a second to import, and every command and worker imports this module.
        from scipy.special import stdtrit

        spread = self.values.std(axis=0, ddof=1) / np.sqrt(n)
        return np.asarray(stdtrit(n - 1, 0.5 + confidence / 2) * spread)

    def on_seeds(self, seeds: Sequence[int]) -> Evaluation:
        """The part of this evaluation that belongs to ``seeds``, in their order.

        Raises:
            InvalidInputError: a seed that was not evaluated.
        """
        missing = set(seeds) - set(self.seeds)
        if missing:
            raise InvalidInputError(f"seeds {sorted(missing)} were not evaluated", field="seeds")
        index = [self.seeds.index(seed) for seed in seeds]
        return Evaluation(
            seeds=tuple(seeds),
            values=self.values[index],
            numerators=self.numerators[index],
            denominators=self.denominators[index],
            seconds=self.seconds,
        )

    def candidate(self, name: str, kind: CandidateKind, parameters: Mapping[str, Any]) -> Candidate:
        """The evaluated controller as a candidate of a front."""
        return Candidate(
            name=name,
            kind=kind,
            mean=tuple(self.mean().tolist()),
            half_width=tuple(self.half_width().tolist()),
            seeds=self.seeds,
            parameters=parameters,
        )


class SideBySide(Controller):
    """Several controllers in one rollout, each in charge of an equal run of adjoining rows.

    Args:
        controllers: in the order of their rows.
        seeds: of each; None for that of the rollout.
    """

    def __init__(self, controllers: Sequence[Controller], seeds: Sequence[int] | None = None) -> None:
        self._controllers, self._seeds = controllers, seeds

    def reset(self, num_rows: int, seed: int) -> None:
        """Give each controller its share of the rows."""
        for controller, own in zip(self._controllers, self._seeds or [seed] * len(self._controllers), strict=True):
            controller.reset(num_rows // len(self._controllers), own)

    def act(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Each controller's actions for its own rows."""
        return np.concatenate(
            [controller.act(rows) for controller, rows in zip(self._controllers, self._split(observation), strict=True)]
        )

    def begin(self, first: NDArray[np.bool_]) -> None:
        """Each forgets in its own rows."""
        for controller, rows in zip(self._controllers, self._split(first), strict=True):
            controller.begin(rows)

    def learn(self, observation: NDArray[Any], action: NDArray[Any], reward: NDArray[Any]) -> None:
        """Each controller sees its own rows only."""
        shares = zip(*(self._split(array) for array in (observation, action, reward)), strict=True)
        for controller, share in zip(self._controllers, shares, strict=True):
            controller.learn(*share)

    def _split(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        return np.split(array, len(self._controllers))


def evaluate(
    scenario: Scenario,
    controller: Controller,
    seeds: Sequence[int],
    *,
    steps: int,
    warmup: int = 0,
    replicas: int = 1,
) -> Evaluation:
    """Run ``controller`` on every seed at once and sum the additive parts of the counted steps.

    Args:
        scenario: what is controlled.
        controller: who controls it. One that learns is copied for each seed: learning from one another, seeds would not
            be independent, and an interval over them would be too narrow.
        seeds: one environment (times ``replicas``) each; the same seeds give every controller the same world.
        steps: counted steps.
        warmup: steps run first and left out of the sums.
        replicas: environments per seed, pooled before the ratio is taken.

    Raises:
        InvalidInputError: no seed, the same seed twice, anything but whole numbers, or a count below its minimum.
    """
    check_counts(steps, warmup, replicas)
    chosen = check_seeds(seeds)
    if type(controller).learn is not Controller.learn:
        controller = SideBySide([copy.deepcopy(controller) for _ in chosen], chosen)
    return roll_out(scenario, controller, chosen, steps=steps, warmup=warmup, replicas=replicas)


def check_counts(steps: Any, warmup: Any, replicas: Any) -> None:
    """Refuse what cannot say how much is simulated.

    Raises:
        InvalidInputError: names the argument.
    """
    for name, value, least in (("steps", steps, 1), ("warmup", warmup, 0), ("replicas", replicas, 1)):
        check_count(name, value, least)


def roll_out(
    scenario: Scenario, controller: Controller, seeds: Sequence[int], *, steps: int, warmup: int, replicas: int
) -> Evaluation:
    """:func:`evaluate` without its checks: a seed may come twice, once for each of several controllers."""
    started = time.perf_counter()
    spread = [
        int(child.generate_state(1)[0]) if replicas > 1 else int(seed)
        for seed in seeds
        for child in np.random.SeedSequence(seed).spawn(replicas)
    ]
    env = scenario.vector_env(len(spread), seed=spread)
    try:
        observation, _ = env.reset(seed=spread)
        controller.reset(env.num_envs, int(seeds[0]))
        shape = (env.num_envs, len(scenario.part_names))
        numerators, denominators = np.zeros(shape), np.zeros(shape)
        same_step = env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        ended = np.zeros(env.num_envs, dtype=bool)
        for step in range(warmup + steps):
            action = controller.act(observation)
            following, reward, terminated, truncated, infos = env.step(action)
            controller.learn(observation, action, reward)
            observation, over = following, terminated | truncated
            # With next-step autoreset the observation after an end is still the old episode's last.
            first = over if same_step else ended
            if first.any():
                controller.begin(first)
            ended = over
            if step >= warmup:
                numerators += infos["numerators"]
                denominators += infos["denominators"]
    finally:
        env.close()
    per_seed = (len(seeds), -1, len(scenario.part_names))
    numerators = numerators.reshape(per_seed).sum(axis=1)
    denominators = denominators.reshape(per_seed).sum(axis=1)
    return Evaluation(
        seeds=tuple(int(seed) for seed in seeds),
        values=np.asarray(scenario.objective_values(numerators, denominators), dtype=np.float64),
        numerators=numerators,
        denominators=denominators,
        seconds=time.perf_counter() - started,
    )
