from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.decisions.rules import RuleBook, RuleFile, check_rules, objective_scope
from rlaas.decisions.rules.compilation import CompiledRule, RuleConfig, compile_rule
from rlaas.decisions.rules.expressions import evaluate
from rlaas.decisions.rules.schema import Scope
from rlaas.errors import ConfigurationError
from rlaas.objectives import Objective

OBJECTIVES = (
    Objective(name="latency_p95", unit="ms", direction="minimize", low=0, high=10),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0, high=20),
)
MODES = ("emergency", "normal", "saving")
CONTEXT = {"load": {"type": "number", "range": [0, 1]}, "alarm": {"type": "flag"}}

# Small worlds in which everything can be tried: three values per field of the context and per objective.
WHENS = [None, "alarm", "not alarm", "load < 0.5", "load >= 0.5", "load < 0.5 or alarm", "load != 0.5 and not alarm"]
DEMANDS = ["latency_p95 < 5", "latency_p95 >= 5", "throughput > 5", "throughput <= 5", "latency_p95 != 5"]
DEMANDS += ["latency_p95 < 5 or throughput > 5", "latency_p95 > 5 or throughput < 5", "throughput == 5"]
WORLDS: list[dict[str, Any]] = [{"load": load, "alarm": a} for load in (0.0, 0.5, 1.0) for a in (True, False)]
PARTIAL: list[dict[str, Any]] = [
    *WORLDS,
    {},
    {"load": 0.0},
    {"load": 0.5},
    {"load": 1.0},
    {"alarm": True},
    {"alarm": False},
]
POINTS = [{"latency_p95": x, "throughput": y} for x in (4.0, 5.0, 6.0) for y in (4.0, 5.0, 6.0)]


def _compiled(rules: Iterable[dict[str, Any]]) -> list[CompiledRule]:
    """Rules one by one, not yet checked together."""
    declared = RuleFile.model_validate({"version": 1, "context": CONTEXT, "rules": []}).context
    context = Scope(field.named(name) for name, field in declared.items())
    candidates = objective_scope(OBJECTIVES)
    configs = [RuleConfig.model_validate(rule) for rule in rules]
    return [compile_rule(config, context=context, candidates=candidates, modes=MODES) for config in configs]


@st.composite
def _rules(draw: st.DrawFn) -> list[CompiledRule]:
    rules = []
    for i in range(draw(st.integers(2, 5))):
        if draw(st.integers(0, 3)) == 0:
            effect: dict[str, Any] = {"then": {"mode": draw(st.sampled_from(MODES))}}
        else:
            effect = {draw(st.sampled_from(["require", "forbid"])): draw(st.sampled_from(DEMANDS))}
        when = draw(st.sampled_from(WHENS))
        rules.append({"name": f"r{i}", "priority": draw(st.integers(0, 2)), "when": when, **effect})
    return _compiled(rules)


def _fires(rule: CompiledRule, world: Mapping[str, Any]) -> bool:
    return rule.when is None or evaluate(rule.when, world) is True


def _keepable(rules: list[CompiledRule]) -> bool:
    return any(all(r.requirement and evaluate(r.requirement.keeps, point) for r in rules) for point in POINTS)


def _by_hand(rules: list[CompiledRule], world: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Names of the requirements that stay in a world, and whether priorities alone decide which."""
    kept: list[CompiledRule] = []
    decided = True
    firing = [r for r in rules if r.requirement and _fires(r, world)]
    for priority in sorted({r.priority for r in firing}, reverse=True):
        level = [r for r in firing if r.priority == priority and _keepable([*kept, r])]
        decided &= _keepable([*kept, *level])
        kept += level
    return [r.name for r in kept], decided


@settings(max_examples=400)
@given(_rules())
def test_conflicts_are_what_trying_every_world_finds(rules: list[CompiledRule]) -> None:
    findings = check_rules(rules, OBJECTIVES)
    for conflict in findings.conflicts:
        json.dumps(conflict.to_dict())
        involved = [r for r in rules if r.name in conflict.rules]
        if conflict.witness is not None:
            assert all(_fires(r, conflict.witness) for r in involved)
        if conflict.kind == "contradiction":
            assert not _keepable(involved)
            assert all(_keepable([o for o in involved if o is not r]) for r in involved)
            lowest = min(r.priority for r in involved)
            assert sum(r.priority == lowest for r in involved) > 1
        if conflict.kind == "modes":
            assert len({r.mode for r in involved}) == 2
            assert len({r.priority for r in involved}) == 1
    kinds = {conflict.kind for conflict in findings.conflicts}
    if "identical" in kinds:
        return
    book = RuleBook({}, rules, findings.yielding)
    for world in PARTIAL:
        setting = [r for r in rules if r.mode and _fires(r, world)]
        best = [r for r in setting if r.priority == max(o.priority for o in setting)]
        names, decided = _by_hand(rules, world)
        if "modes" not in kinds:
            pairs = itertools.combinations(setting, 2)
            assert not any(a.priority == b.priority and a.mode != b.mode for a, b in pairs)
        if "contradiction" not in kinds:
            assert decided
        if not kinds:
            kept, yielded = book._kept([r for r in book.rules if r.requirement and _fires(r, world)])
            assert sorted(r.name for r in kept) == sorted(names)
            assert set(yielded) == {r.name for r in rules if r.requirement and _fires(r, world)} - set(names)
            assert not best or next(r.mode for r in book.rules if r in setting) == best[0].mode


def test_entangled_rules_are_refused_rather_than_half_checked() -> None:
    # Any two of forty contradict: 780 minimal contradictions.
    rules = _compiled(
        {"name": f"r{i}", "priority": i, "require": f"{i} < throughput < {i + 1} or seeds == {i + 1}"}
        for i in range(40)
    )
    with pytest.raises(ConfigurationError, match=r"too entangled to be checked for conflicts in 20,000 steps; split"):
        check_rules(rules, OBJECTIVES, steps=20_000)


def test_many_contexts_are_fine() -> None:
    rules = _compiled(
        {"name": f"r{i}", "when": f"{i / 100} < load < {(i + 1) / 100}", "require": f"throughput == {i}"}
        for i in range(100)
    )
    findings = check_rules(rules, OBJECTIVES)
    assert (findings.conflicts, findings.yielding) == ((), ())
