"""What a choice says about itself: why it was made, and when it stops being right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.fronts import Candidate
from rlaas.objectives import Mode, Objective, Rule, normalise

__all__ = ["Certificate", "explain"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Why a candidate was chosen.

    Attributes:
        mode: name of the mode.
        method: ``topsis`` or ``weighted_sum``.
        candidate: name of the winner.
        feasible: whether the winner keeps every rule of the mode; if not, no candidate does.
        score: of the winner, in [0, 1] for ``topsis``, mean goodness for ``weighted_sum``.
        runner_up: the next best that competed, None if the winner was alone.
        margin: score ahead of the runner-up, None without one; negative where the winner breaks rules by less.
        considered: candidates that competed: the feasible ones, or all where none is.
        excluded: candidates left out for breaking a rule.
        rules_kept, rules_violated: of the mode, as text, judged by the winner's means.
        rules_uncertain: of the kept ones, those whose bound lies within the winner's confidence interval.
        why: two sentences for an operator.
        holds_while: by objective, the range (low, high) in which its weight may move, the others keeping their
            proportions and the sum staying 1, before another candidate wins.
    """

    mode: str
    method: str
    candidate: str
    feasible: bool
    score: float
    runner_up: str | None
    margin: float | None
    considered: int
    excluded: int
    rules_kept: tuple[str, ...]
    rules_violated: tuple[str, ...]
    rules_uncertain: tuple[str, ...]
    why: str
    holds_while: Mapping[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """The certificate as plain JSON types."""
        document: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("rules_kept", "rules_violated", "rules_uncertain"):
            document[name] = list(document[name])
        document["holds_while"] = {name: list(ends) for name, ends in self.holds_while.items()}
        return document


def explain(
    objectives: Sequence[Objective],
    mode: Mode,
    rivals: Sequence[Candidate],
    winner: Candidate,
    runner_up: Candidate | None,
    *,
    margin: float | None,
    excluded: int,
    violated: Sequence[Rule],
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
        violated: rules that the winner breaks (only where every candidate breaks some).
    """
    values = np.array([c.mean for c in rivals])
    goodness = normalise(objectives, values)
    own_values, own = np.array(winner.mean), normalise(objectives, winner.mean)
    best = goodness.argmax(axis=0)
    regret = goodness[best, np.arange(len(objectives))] - own
    strong = [i for i in range(len(objectives)) if regret[i] <= 0]
    if strong:
        merit = "it is best at " + _listed(_value(objectives[i], own_values[i]) for i in strong)
    else:
        i = int(regret.argmin())
        merit = (
            f"it is best at no single objective but comes close in all, closest in "
            f"{_value(objectives[i], own_values[i])} against the best {_amount(objectives[i], values[best[i], i])}"
        )
    if violated:
        breaches = _listed(f"{rule} by {rule.violation(_of(objectives, winner, rule)):.3g}" for rule in violated)
        opening = f"No candidate keeps every rule of mode {mode.name}: {winner.name} misses least, breaking {breaches}"
    else:
        field = "the only candidate" if runner_up is None else f"first of {len(rivals)} candidates"
        left_out = f" ({excluded} more broke a rule)" if excluded else ""
        opening = f"{winner.name} is {field} for mode {mode.name}{left_out}"
    if runner_up is None:
        has = _listed(_value(o, v) for o, v in zip(objectives, own_values, strict=True))
        return f"{opening}; it has {has}. There was nothing to weigh it against, so the mode's weights decided nothing."
    losses = [
        f"{_value(objectives[i], own_values[i])} against {_amount(objectives[i], values[best[i], i])} "
        f"of {rivals[int(best[i])].name}"
        for i in range(len(objectives))
        if regret[i] > 0
    ]
    given_up = f"For that it gives up {_listed(losses)}" if losses else "It gives up nothing against any rival"
    return f"{opening}; {merit}. {given_up}; {_against(objectives, winner, runner_up, margin)}."


def _against(objectives: Sequence[Objective], winner: Candidate, other: Candidate, margin: float | None) -> str:
    difference = normalise(objectives, winner.mean) - normalise(objectives, other.mean)
    gains = [o.name for o, d in zip(objectives, difference, strict=True) if d > 0]
    costs = [o.name for o, d in zip(objectives, difference, strict=True) if d < 0]
    lead = "" if margin is None else f" with a score {margin:.3g} lower"
    if margin is not None and margin < 0:  # the winner was picked for its lesser violation
        lead = f", which misses the rules by more and has a score {-margin:.3g} higher,"
    said = f"the runner-up {other.name}{lead} is worse in {_listed(gains) or 'nothing'}"
    return f"{said} and better in {_listed(costs) or 'nothing'}"


def _of(objectives: Sequence[Objective], candidate: Candidate, rule: Rule) -> float:
    return candidate.objectives([o.name for o in objectives])[rule.objective]


def _value(objective: Objective, value: float) -> str:
    return f"{objective.name} ({_amount(objective, value)})"


def _amount(objective: Objective, value: float) -> str:
    return f"{value:.4g} {objective.unit}".rstrip()


def _listed(parts: Any) -> str:
    words = list(parts)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
