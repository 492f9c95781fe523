"""What a choice says about itself: why it was made, and when it stops being right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlaas.decisions.explanation import listed
from rlaas.decisions.region import Region
from rlaas.decisions.reversal import Reversal
from rlaas.decisions.rule_changes import RuleChange

__all__ = ["Certificate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Why a candidate was chosen.

    Attributes:
        mode: name of the mode.
        method: name of the choosing method, one of :data:`rlaas.decisions.METHODS`.
        candidate: name of the winner.
        feasible: whether the winner keeps every rule; if not, no candidate does.
        score: of the winner on the scale of the method, larger is better.
        runner_up: the next best that competed, None if the winner was alone.
        margin: score ahead of the runner-up, None without one; negative where the winner breaks rules by less.
        considered: candidates that competed: the feasible ones, or all where none is.
        excluded: candidates left out for breaking a rule.
        rules_kept, rules_violated: of the mode, then prepared ones, as text, judged by the winner's means.
        rules_uncertain: of ``rules_kept``, those that the winner's means keep but its confidence intervals as a whole
            do not. Of prepared ones only those of a rule book can be judged so.
        doubts: why, a sentence for each of ``rules_uncertain``.
        why: two sentences for an operator.
        holds_while: by objective, the range (low, high) in which its weight may move, the others keeping their
            proportions and the sum staying 1, before another candidate wins.
        weights: by objective, summing to 1.
        distances: the figures of the method behind the winner's score, by name (TOPSIS: ``to_ideal``, ``to_worst``;
            VIKOR: ``S``, ``R``, ``Q``).
        runner_up_distances: those of the runner-up, empty without one.
        region: of weights in which the choice stays.
        rule_changes: what moving or dropping each rule does.
        rank_reversals: changes of the competing field that would reverse the choice; empty where none does.
        notes: what the method wants known beside the score.
        front_version: of the front that was chosen from.
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
    doubts: tuple[str, ...]
    why: str
    holds_while: Mapping[str, tuple[float, float]]
    weights: Mapping[str, float]
    distances: Mapping[str, float]
    runner_up_distances: Mapping[str, float]
    region: Region
    rule_changes: tuple[RuleChange, ...]
    rank_reversals: tuple[Reversal, ...]
    notes: tuple[str, ...]
    front_version: str

    def to_dict(self) -> dict[str, Any]:
        """The certificate as plain JSON types."""
        document: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("rules_kept", "rules_violated", "rules_uncertain", "doubts", "notes"):
            document[name] = list(document[name])
        for name in ("weights", "distances", "runner_up_distances"):
            document[name] = dict(document[name])
        document["holds_while"] = {name: list(ends) for name, ends in self.holds_while.items()}
        document["region"] = self.region.to_dict()
        document["rule_changes"] = [change.to_dict() for change in self.rule_changes]
        document["rank_reversals"] = [reversal.to_dict() for reversal in self.rank_reversals]
        return document

    def lines(self) -> tuple[str, ...]:
        """The certificate as sentences, one thought each: why, the figures, the weights, the rules, the field."""
        return (
            self.why,
            self._figures(),
            *(f"{note[0].upper()}{note[1:]}." for note in self.notes),
            self._weights(),
            *self.doubts,
            *(self._rule(change) for change in self.rule_changes),
            self._reversals(),
            f"Front version {self.front_version}.",
        )

    def _figures(self) -> str:
        own = listed(f"{name} {value:.4g}" for name, value in self.distances.items())
        text = f"By {self.method}, {self.candidate} scores {self.score:.4g} ({own})"
        if self.runner_up is None:
            return f"{text}."
        other = listed(f"{name} {value:.4g}" for name, value in self.runner_up_distances.items())
        return f"{text}; the runner-up is {self.runner_up} ({other})."

    def _weights(self) -> str:
        ranges = listed(
            f"{name} {self.weights[name]:.3g} (from {low:.3g} to {high:.3g})"
            for name, (low, high) in self.holds_while.items()
        )
        low, high = self.region.share_interval
        share = f"under {100 * self.region.share:.3g} % of all weights ({100 * low:.3g} to {100 * high:.3g} %)"
        if self.region.radius is None:
            move = "no move of weight between objectives that was tried changes it"
            if self.region.radius_exact:
                move = "no move of weight between objectives changes it"
        else:
            sureness = "" if self.region.radius_exact else "about "
            move = f"the least move that changes it is {sureness}{self.region.radius:.3g} of the weight"
        return f"Weights, each with the range in which the choice stays: {ranges}; {move}; it is the choice {share}."

    def _rule(self, change: RuleChange) -> str:
        without = "the choice stays" if change.without == self.candidate else f"it would be {change.without}"
        parts = [f"without the rule {without}"]
        if change.plain:
            tightened = "how far it can be tightened is not known"
            if change.slack_known:
                tightened = _moved("tightened", change.tighten, change.tighten_bound, change.tightened, self.candidate)
            loosened = _moved("loosened", change.loosen, change.loosen_bound, change.loosened, self.candidate)
            parts = [tightened, loosened, *parts]
        return f"Rule {change.rule}: {'; '.join(parts)}."

    def _reversals(self) -> str:
        if not self.rank_reversals:
            return "No rank reversal: removing any other candidate or repeating one leaves the choice as it is."
        return f"Rank reversal: {'; '.join(map(str, self.rank_reversals))}."


def _moved(how: str, by: float | None, bound: float | None, beyond: str | None, own: str) -> str:
    if by is None:
        return f"it can be {how} without end"
    limit = f"to {bound:.4g}" if bound is not None else f"by {by:.3g} of the range"
    after = "nobody keeps the rules and it misses them least" if beyond == own else f"{beyond} follows"
    return f"it can be {how} {limit}, beyond which {after}"
