"""What is wrong with rules taken together, found before they are ever used.

Rules that fire together are taken by priority, and one that cannot hold together with those before it *yields*. That
is an answer as long as the priorities say which one it is: of rules that fire together and cannot all hold, but could
if any one was left out (a minimal contradiction), a single one must have the lowest priority. Otherwise they are in
conflict. All minimal contradictions are found at load time, so that applying rules needs no search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from rlaas.decisions.rules.compilation import CompiledRule
from rlaas.decisions.rules.expressions import And, Comparison, Expression, fields_of, joined, negated, quantity
from rlaas.decisions.rules.satisfy import Budget, satisfy
from rlaas.decisions.rules.schema import Field, Value
from rlaas.objectives import Objective

__all__ = ["STEPS", "Conflict", "Findings", "Yielding", "check_rules"]

STEPS = 1_000_000
"""Steps of one check, some ten seconds: more than two hundred rules with contexts of their own take."""

ConflictKind = Literal["identical", "never_fires", "never_kept", "modes", "contradiction"]
Rules = tuple[CompiledRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Rules that cannot be used as they stand.

    Attributes:
        kind: ``identical`` rules, one that ``never_fires`` or can be ``never_kept``, two that set different ``modes``
            at once, or a ``contradiction`` between requirements.
        rules: names of those involved.
        witness: a context in which they fire together; None where there is none.
        message: one line: which rules, where, what to do.
    """

    kind: ConflictKind
    rules: tuple[str, ...]
    witness: Mapping[str, Value] | None
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The conflict as plain JSON types."""
        witness = None if self.witness is None else dict(self.witness)
        return {"kind": self.kind, "rules": list(self.rules), "witness": witness, "message": self.message}


@dataclass(frozen=True, slots=True, kw_only=True)
class Yielding:
    """A rule that is dropped where it fires together with certain others, which have higher priorities."""

    rule: str
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a check found.

    Attributes:
        conflicts: why the rules cannot be used; empty for a sound book.
        yielding: which rules are dropped beside which.
        warnings: what is allowed but hardly meant.
    """

    conflicts: tuple[Conflict, ...]
    yielding: tuple[Yielding, ...]
    warnings: tuple[str, ...]


def check_rules(rules: Sequence[CompiledRule], objectives: Sequence[Objective], *, steps: int = STEPS) -> Findings:
    """Find conflicts, yielding rules and doubtful ones.

    Exact over every context that the declared fields allow, also those in which some are unknown: an unknown field
    makes fewer rules fire, never more.

    Args:
        rules: with different names.
        objectives: of the scenario, for warnings about bounds outside of their ranges.
        steps: that the search may take.

    Raises:
        ConfigurationError: the rules are too entangled to be checked in that many steps.
    """
    budget = Budget(steps)
    conflicts = [*_identical(rules), *_impossible(rules, budget)]
    if conflicts:  # what follows would only report the consequences
        return Findings(conflicts=tuple(conflicts), yielding=(), warnings=())
    conflicts = list(_modes(rules, budget))
    yielding: list[Yielding] = []
    for group, witness in _contradictions(tuple(rule for rule in rules if rule.requirement is not None), budget):
        lowest = [rule for rule in group if rule.priority == min(other.priority for other in group)]
        if len(lowest) == 1:
            others = tuple(rule.name for rule in group if rule is not lowest[0])
            yielding.append(Yielding(rule=lowest[0].name, to=others))
        else:
            conflicts.append(_contradiction(group, lowest, witness))
    warnings = [*_overruled(rules, budget), *_doubtful(rules, objectives, budget)]
    return Findings(conflicts=tuple(conflicts), yielding=tuple(yielding), warnings=tuple(warnings))


def _identical(rules: Sequence[CompiledRule]) -> Iterable[Conflict]:
    seen: dict[Any, CompiledRule] = {}
    for rule in rules:
        key = (rule.condition, rule.mode, rule.requirement and rule.requirement.keeps)
        first = seen.setdefault(key, rule)
        if first is not rule:
            message = f"rules {first.name!r} and {rule.name!r} say the same ({rule.effect}); leave one out"
            yield Conflict(kind="identical", rules=(first.name, rule.name), witness=None, message=message)


def _impossible(rules: Sequence[CompiledRule], budget: Budget) -> Iterable[Conflict]:
    for rule in rules:
        witness = satisfy(rule.condition, budget)
        if witness is None:
            message = f"rule {rule.name!r} can never fire: no context fulfils its when ({rule.when})"
            yield Conflict(kind="never_fires", rules=(rule.name,), witness=None, message=message)
        elif rule.requirement is not None and satisfy([rule.requirement.keeps], budget) is None:
            message = f"rule {rule.name!r} can never be kept: no candidate fulfils it ({rule.effect})"
            yield Conflict(kind="never_kept", rules=(rule.name,), witness=witness, message=message)


def _modes(rules: Sequence[CompiledRule], budget: Budget) -> Iterable[Conflict]:
    setting = [rule for rule in rules if rule.mode is not None]
    for one, other in combinations(setting, 2):
        if one.priority != other.priority or one.mode == other.mode:
            continue
        witness = satisfy(one.condition + other.condition, budget)
        if witness is not None:
            message = (
                f"rules {one.name!r} (mode {one.mode}) and {other.name!r} (mode {other.mode}) both have priority "
                f"{one.priority} and fire together, for example {_example(witness, (one, other))}; give one a higher "
                "priority"
            )
            yield Conflict(kind="modes", rules=(one.name, other.name), witness=witness, message=message)


def _contradiction(group: Rules, lowest: Sequence[CompiledRule], witness: Mapping[str, Value]) -> Conflict:
    said = "; ".join(f"{rule.name!r}: {rule.effect}" for rule in group)
    tied = " and ".join(repr(rule.name) for rule in lowest)
    message = (
        f"rules contradict one another ({said}), {tied} all at priority {lowest[0].priority}, and fire together, for "
        f"example {_example(witness, group)}; give them different priorities: the lowest yields"
    )
    return Conflict(kind="contradiction", rules=tuple(r.name for r in group), witness=witness, message=message)


def _example(witness: Mapping[str, Value], rules: Iterable[CompiledRule]) -> str:
    fields: dict[str, Field] = {}
    for rule in rules:
        for condition in rule.condition:
            fields.update(fields_of(condition))
    parts = [f"{name} = {quantity(fields[name], value)}" for name, value in witness.items()]
    return f"where {', '.join(parts)}" if parts else "always"


def _contradictions(rules: Rules, budget: Budget) -> Iterable[tuple[Rules, Mapping[str, Value]]]:
    """Every minimal set of rules that can fire together and whose requirements cannot all hold, with such a context.

    A search like Reiter's hitting-set tree (1987): a contradiction other than the one found must lack one of its rules.
    The branch for the i-th lacks that one and has those before it, so that no set is met twice, and rules that cannot
    fire together with those that a branch has are left out of it.
    """
    position = {rule.name: i for i, rule in enumerate(rules)}
    states: list[tuple[Rules, Rules]] = [((), rules)]
    while states:
        taken, pool = states.pop()
        together = _conditions(taken)
        if satisfy(together, budget) is None:
            continue
        names = {rule.name for rule in taken}
        if taken:
            pool = tuple(r for r in pool if r.name in names or satisfy([*together, *r.condition], budget) is not None)
        if _keepable(pool, budget):
            continue
        group = _minimal(pool, budget)
        ordered = tuple(sorted(group, key=lambda rule: (-rule.priority, position[rule.name])))
        witness = satisfy(_conditions(ordered), budget)
        if witness is not None:
            yield ordered, witness
        for i, left_out in enumerate(group):
            if left_out.name not in names:
                has = taken + tuple(rule for rule in group[:i] if rule.name not in names)
                states.append((has, tuple(rule for rule in pool if rule is not left_out)))


def _conditions(rules: Iterable[CompiledRule]) -> list[Expression]:
    return [part for rule in rules for part in rule.condition]


def _keepable(rules: Iterable[CompiledRule], budget: Budget) -> bool:
    return satisfy([rule.requirement.keeps for rule in rules if rule.requirement], budget) is not None


def _minimal(rules: Rules, budget: Budget) -> Rules:
    """Of rules that cannot all be kept, some that cannot either and of which none can be left out."""
    core: Rules = ()
    rest = rules
    while _keepable(core, budget):
        # The shortest start of the rest that contradicts the core ends with a rule that is needed.
        low, high = 1, len(rest)
        while low < high:
            middle = (low + high) // 2
            if _keepable(core + rest[:middle], budget):
                low = middle + 1
            else:
                high = middle
        core, rest = (*core, rest[high - 1]), rest[: high - 1]
    return core


def _overruled(rules: Sequence[CompiledRule], budget: Budget) -> Iterable[str]:
    setting = [rule for rule in rules if rule.mode is not None]
    for rule in setting:
        for other in setting:
            if other.priority <= rule.priority:
                continue
            outside = [negated(condition) for condition in other.condition]
            if not outside or satisfy([*rule.condition, *outside], budget) is None:
                yield (
                    f"rule {rule.name!r} never sets the mode: wherever it fires, {other.name!r} fires too and has "
                    f"priority {other.priority}"
                )
                break


def _doubtful(rules: Sequence[CompiledRule], objectives: Sequence[Objective], budget: Budget) -> Iterable[str]:
    ends = {o.name: (o.low, o.high) for o in objectives}
    for rule in rules:
        if rule.requirement is None:
            continue
        keeps = rule.requirement.keeps
        within: list[Expression] = []
        for name, field in fields_of(keeps).items():
            if name in ends:
                low, high = ends[name]
                within.append(joined(And, Comparison(field, ">=", low), Comparison(field, "<=", high)))
        if satisfy([keeps, *within], budget) is None:
            yield f"rule {rule.name!r} ({rule.effect}) excludes every candidate within the objectives' ranges"
        elif satisfy([negated(keeps)], budget) is None:
            yield f"rule {rule.name!r} ({rule.effect}) excludes nothing"
