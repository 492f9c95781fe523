"""Searches that go generation by generation, in this process or with a pool that evaluates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlaas.errors import OperatorError
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.population import Engine
from rlaas.optimization.problems import Evaluator, Problem, check_values, known_rows

__all__ = ["run_generation", "run_generations"]


EXHAUSTED = "every candidate of the finite space was tried"


def run_generation(problem: Problem, engine: Engine, ledger: Ledger, evaluate: Evaluator) -> bool:
    """Breed, evaluate, select; false where a finite space holds no candidate that was not tried.

    Args:
        problem: what is searched; only its counts are used.
        engine: who breeds and selects. When an evaluation raises, it is as before the generation was asked for: to go
            on from there is to repeat it.
        ledger: the run's account.
        evaluate: columns [n, n_obj + n_constraints] of candidates [n, n_var].

    Raises:
        InvalidInputError: an evaluation of the wrong shape.
        OperatorError: the whole first generation is unknown.
        Exception: the evaluation's own.
    """
    before = engine.state()
    X = engine.ask()
    if not len(X):
        return False
    try:
        values = check_values(problem, X, evaluate(X))
        missing = len(X) - int(np.count_nonzero(known_rows(values)))
        if missing == len(X) and not ledger.history:
            raise OperatorError(f"none of the {len(X)} candidates of the first generation could be evaluated")
    except BaseException:
        engine.restore(before)
        raise
    engine.tell(X, values)
    ledger.add(len(X), missing)
    ledger.enter(engine.population, ledger.history[-1].number + 1 if ledger.history else 1, engine.front())
    return True


def run_generations(
    problem: Problem, engine: Engine, ledger: Ledger, evaluate: Evaluator, after_generation: Callable[[], None]
) -> str:
    """Search until a stop holds, and say which.

    Args:
        problem, engine, ledger, evaluate: see :func:`run_generation`.
        after_generation: called after each.

    Raises:
        Exception: see :func:`run_generation`.
    """
    while (reason := ledger.stopped_by()) is None:
        if not run_generation(problem, engine, ledger, evaluate):
            return EXHAUSTED
        after_generation()
    return reason
