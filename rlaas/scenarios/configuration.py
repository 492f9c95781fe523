"""A scenario's tunables as a search problem: which configuration takes which trade-off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import check_choice
from rlaas.fronts import Candidate
from rlaas.objectives import to_minimisation
from rlaas.scenarios.base import Scenario
from rlaas.scenarios.checks import check_seeds
from rlaas.scenarios.controllers import Controller, Tunable
from rlaas.scenarios.evaluation import Evaluation, SideBySide, check_counts, roll_out

__all__ = ["ConfigurationProblem"]

FloatArray = NDArray[np.float64]

ROWS_PER_BATCH = 512
"""Decision makers stepped together: enough to amortise a step's fixed cost, small enough to stay in the cache."""


class ConfigurationProblem:
    """The parameters of one tunable as variables, the scenario's objectives as values to minimise.

    All candidates face the same seeds (common random numbers) and many are stepped together in one vector
    environment; the result does not depend on how many. As picklable as its scenario.

    Attributes:
        n_var, n_obj: parameters and objectives.
        n_constraints: 0; rules belong to the choice from the front.
        xl, xu: bounds of the parameters [n_var].
        integer: true where a parameter takes whole numbers only [n_var].
        names: of the parameters [n_var].

    Args:
        scenario: what is configured.
        tunable: name of the family of controllers.
        seeds: worlds of each evaluation.
        steps: counted steps.
        warmup: steps run first and left out.
        replicas: environments per seed, pooled before ratios are taken.

    Raises:
        ConfigurationError: an unknown tunable, naming the choices.
        InvalidInputError: no seed, the same seed twice, anything but whole numbers, or a count below its minimum.
    """

    n_constraints = 0

    def __init__(
        self,
        scenario: Scenario,
        tunable: str,
        seeds: Sequence[int],
        steps: int,
        *,
        warmup: int = 0,
        replicas: int = 1,
    ) -> None:
        check_choice(tunable, scenario.tunables, field="tunable")
        check_counts(steps, warmup, replicas)
        self.scenario = scenario
        self.tunable = tunable
        self.seeds = check_seeds(seeds)
        self.steps = steps
        self.warmup = warmup
        self.replicas = replicas
        family = self._family
        self.n_var = len(family.parameters)
        self.n_obj = len(scenario.objectives)
        self.xl = np.array(family.low, dtype=np.float64)
        self.xu = np.array(family.high, dtype=np.float64)
        self.integer = np.array(family.integer, dtype=bool)
        self.names = tuple(family.parameters)

    @property
    def _family(self) -> Tunable:
        # Looked up rather than kept: its ``make`` is often a lambda, which would make this object unpicklable.
        return self.scenario.tunables[self.tunable]

    def evaluate(self, X: FloatArray) -> FloatArray:
        """Objectives [n, n_obj] of the configurations X [n, n_var], averaged over seeds, smaller is better.

        A configuration with an undefined objective (a ratio whose denominator is 0) gets NaN there.

        Raises:
            InvalidInputError: a row of the wrong length or out of bounds, naming the parameter.
        """
        means = [evaluation.values.mean(axis=0) for evaluation in self.evaluations(X)]
        return to_minimisation(self.scenario.objectives, np.array(means).reshape(-1, self.n_obj))

    def evaluations(self, X: Sequence[Sequence[float]] | FloatArray) -> list[Evaluation]:
        """What each of the configurations X [n, n_var] reached on each seed, in the objectives' units.

        Raises:
            InvalidInputError: a row of the wrong length or out of bounds, naming the parameter.
        """
        X = np.atleast_2d(np.asarray(X, dtype=np.float64))
        controllers = [self._family.controller(x) for x in X]
        at_once = max(1, ROWS_PER_BATCH // (len(self.seeds) * self.replicas))
        return [
            one
            for i in range(0, len(controllers), at_once)
            for one in self._apart(self._run(controllers[i : i + at_once]))
        ]

    def evaluation(self, x: Sequence[float] | FloatArray) -> Evaluation:
        """What the configuration x [n_var] reached on each seed, in the objectives' units."""
        return self._run([self._family.controller(x)])

    def parameters(self, x: Sequence[float] | FloatArray) -> dict[str, Any]:
        """What reproduces the configuration x [n_var]: the tunable and its values by name, integers rounded."""
        values = np.where(self.integer, np.round(x), x)
        return {"tunable": self.tunable, "values": dict(zip(self.names, values.tolist(), strict=True))}

    def candidate(self, x: Sequence[float] | FloatArray, name: str) -> Candidate:
        """The configuration x [n_var], evaluated, as a member of a front."""
        return self.evaluation(x).candidate(name, "configuration", self.parameters(x))

    def _apart(self, together: Evaluation) -> list[Evaluation]:
        """One evaluation per controller of a common rollout, each with an equal part of its wall time."""
        count = len(together.seeds) // len(self.seeds)
        arrays = (together.values, together.numerators, together.denominators)
        return [
            Evaluation(
                seeds=self.seeds,
                values=values,
                numerators=numerators,
                denominators=denominators,
                seconds=together.seconds / count,
            )
            for values, numerators, denominators in zip(*(np.split(array, count) for array in arrays), strict=True)
        ]

    def _run(self, controllers: Sequence[Controller]) -> Evaluation:
        return roll_out(
            self.scenario,
            SideBySide(controllers),
            self.seeds * len(controllers),
            steps=self.steps,
            warmup=self.warmup,
            replicas=self.replicas,
        )
