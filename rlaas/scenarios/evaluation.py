"""Evaluating controllers on common seeds: sums of parts first, objectives last."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, CandidateKind
from rlaas.scenarios.base import Controller, Scenario

__all__ = ["Evaluation", "evaluate"]

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
        spread = self.values.std(axis=0, ddof=1) / np.sqrt(n)
        return np.asarray(stats.t.ppf(0.5 + confidence / 2, n - 1) * spread)

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
        controller: who controls it.
        seeds: one environment (times ``replicas``) each; the same seeds give every controller the same world.
        steps: counted steps.
        warmup: steps run first and left out of the sums.
        replicas: environments per seed, pooled before the ratio is taken.

    Raises:
        InvalidInputError: no seed, or no counted step.
    """
    if not seeds:
        raise InvalidInputError("evaluate needs at least one seed", field="seeds")
    if steps < 1 or warmup < 0 or replicas < 1:
        raise InvalidInputError(
            f"evaluate needs steps >= 1, warmup >= 0 and replicas >= 1; got {steps}, {warmup}, {replicas}",
            field="steps",
        )
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
        for step in range(warmup + steps):
            action = controller.act(observation)
            following, reward, _, _, infos = env.step(action)
            controller.learn(observation, action, reward)
            observation = following
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
