"""Two sentences for an operator: what a choice is best at, and what it gave up for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rlaas.fronts import Candidate
from rlaas.objectives import Mode, Objective, normalise

__all__ = ["explain", "listed"]


def explain(
    objectives: Sequence[Objective],
    mode: Mode,
    rivals: Sequence[Candidate],
    winner: Candidate,
    runner_up: Candidate | None,
    *,
    margin: float | None,
    excluded: int,
    breaches: Sequence[tuple[str, str]],
) -> str:
    """Two sentences: what the winner is best at, and what it gave up for that.

    Args:
        objectives: of the front.
        mode: that was resolved.
        rivals: candidates that competed, the winner included.
        winner: the choice.
        runner_up: the next best.
        margin: score ahead of the runner-up.
        excluded: candidates left out for breaking a rule.
        breaches: rules that the winner breaks and by how much, empty for one that no amount measures (only where every
            candidate breaks some).
    """
    values = np.array([c.mean for c in rivals])
    goodness = normalise(objectives, values)
    own_values, own = np.array(winner.mean), normalise(objectives, winner.mean)
    best = goodness.argmax(axis=0)
    regret = goodness[best, np.arange(len(objectives))] - own
    strong = [i for i in range(len(objectives)) if regret[i] <= 0]
    if strong:
        merit = "it is best at " + listed(_value(objectives[i], own_values[i]) for i in strong)
    else:
        i = int(regret.argmin())
        merit = (
            f"it is best at no single objective but comes close in all, closest in "
            f"{_value(objectives[i], own_values[i])} against the best {_amount(objectives[i], values[best[i], i])}"
        )
    if breaches:
        broken = listed(f"{rule} by {amount}" if amount else rule for rule, amount in breaches)
        opening = f"No candidate keeps every rule of mode {mode.name}: {winner.name} misses least, breaking {broken}"
    else:
        field = "the only candidate" if runner_up is None else f"first of {len(rivals)} candidates"
        left_out = f" ({excluded} more broke a rule)" if excluded else ""
        opening = f"{winner.name} is {field} for mode {mode.name}{left_out}"
    if runner_up is None:
        has = listed(_value(o, v) for o, v in zip(objectives, own_values, strict=True))
        return f"{opening}; it has {has}. There was nothing to weigh it against, so the mode's weights decided nothing."
    losses = [
        f"{_value(objectives[i], own_values[i])} against {_amount(objectives[i], values[best[i], i])} "
        f"of {rivals[int(best[i])].name}"
        for i in range(len(objectives))
        if regret[i] > 0
    ]
    given_up = f"For that it gives up {listed(losses)}" if losses else "It gives up nothing against any rival"
    return f"{opening}; {merit}. {given_up}; {_against(objectives, winner, runner_up, margin)}."


def _against(objectives: Sequence[Objective], winner: Candidate, other: Candidate, margin: float | None) -> str:
    difference = normalise(objectives, winner.mean) - normalise(objectives, other.mean)
    gains = [o.name for o, d in zip(objectives, difference, strict=True) if d > 0]
    costs = [o.name for o, d in zip(objectives, difference, strict=True) if d < 0]
    lead = "" if margin is None else f" with a score {margin:.3g} lower"
    if margin is not None and margin < 0:  # the winner was picked for its lesser violation
        lead = f", which misses the rules by more and has a score {-margin:.3g} higher,"
    said = f"the runner-up {other.name}{lead} is worse in {listed(gains) or 'nothing'}"
    return f"{said} and better in {listed(costs) or 'nothing'}"


def _value(objective: Objective, value: float) -> str:
    return f"{objective.name} ({_amount(objective, value)})"


def _amount(objective: Objective, value: float) -> str:
    return f"{value:.4g} {objective.unit}".rstrip()


def listed(parts: Iterable[str]) -> str:
    """The parts as an enumeration: ``a, b and c``."""
    words = list(parts)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
