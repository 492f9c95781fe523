"""The target table: what the shipped training configurations reach against each scenario's published targets.

    python -m benchmarks.targets [--scenario network5g|recsys] [--regime NAME ...] [--seed N ...] [--cache FOLDER]
        [--quick] [--json]

One policy at one preference (``normal`` of network5g, equal weights of recsys) has to meet all targets, in each load
regime. Five trainings, each evaluated on 30 seeds that neither training nor any search has seen, the same for every
column; "met" is the one-sided Bonferroni bound of a paired hierarchical bootstrap beyond the target, the guards
holding. The columns beside ours cannot learn (the tuned static configuration) or only react (the tuned rules; LinUCB).
Below the table stands what the same policies do at the scenario's other modes, and the worst of the seeds in each; then
the front of all of them: its hypervolume for policies alone, for the other columns alone and for both, and where no
column meets all targets, its points.

With ``--cache`` each training's result is kept; several shells with other seeds and the same folder share the work.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import CONFIGS, Row, parse_arguments, report
from benchmarks.quality_kit import Cache, Findings, one_ray, simulator, trained, trainer, training_seeds
from rlaas.fronts import non_dominated
from rlaas.objectives import to_minimisation
from rlaas.optimization import front_hypervolume
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import evaluate_controller
from rlaas.pipeline.targets import judge_targets
from rlaas.scenarios import Evaluation, Scenario, load
from rlaas.training import PolicyController, TrainingConfig, load_config

SHIPPED = {"network5g": ("network5g-ppo.yaml", "network5g-sac.yaml"), "recsys": ("recsys-ppo.yaml",)}
REGIMES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "network5g": {name: {"load": name} for name in ("low", "mid", "high")},
    "recsys": {"demonstration": {}},
}
OPPONENTS = {"network5g": ("tuned_static", "tuned_reactive"), "recsys": ("tuned_static", "tuned_reactive", "linucb")}


def options(parser: argparse.ArgumentParser) -> None:
    """What this benchmark asks for beside the common options."""
    parser.add_argument("--scenario", choices=sorted(SHIPPED), help="only this one")
    files = sorted(file for shipped in SHIPPED.values() for file in shipped)
    parser.add_argument("--config", action="append", choices=files, help="only this file's trainings; may be repeated")
    regimes = sorted(regime for known in REGIMES.values() for regime in known)
    parser.add_argument("--regime", action="append", choices=regimes, help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="only this training seed; may be repeated")
    parser.add_argument("--cache", type=Path, help="folder in which results are kept")


def judged(
    cache: Cache, name: str, regime: str, seeds: Sequence[int], files: Sequence[str], *, quick: bool
) -> Findings:
    """All columns of one regime."""
    changes = REGIMES[name][regime]
    scenario = load(name, **changes)
    protocol = scenario.protocols["short" if quick else "full"]
    worlds = seeds_for("table", 0, protocol.seeds)
    common = {"options": dict(changes), "protocol": protocol.describe(), "reference": scenario.reference_hash}
    common |= simulator()

    def fixed(baseline: str) -> Evaluation:
        def work() -> dict[str, Any]:
            return _stored(evaluate_controller(scenario, scenario.baselines[baseline].make(), worlds, protocol))

        return _evaluation(scenario, worlds, cache.result(f"{name}-{regime}-{baseline}", common, work))

    def ours(file: str, seed: int) -> dict[str, Evaluation]:
        config = load_config(CONFIGS / file)
        document = config.model_dump(exclude_unset=True) | {"seed": seed, "options": {**config.options, **changes}}
        # The policy is judged here: the front that a training ends with is not.
        document |= {"evaluation_seeds": ()} | ({"steps": 8_000} if quick else {})
        config = TrainingConfig(**document)

        def work() -> dict[str, Any]:
            run, policy = trained(config)
            found = {
                mode: _stored(
                    evaluate_controller(scenario, PolicyController(policy, wanted.preference), worlds, protocol)
                )
                for mode, wanted in scenario.modes.items()
            }
            return {"modes": found, "train_seconds": run.metrics["seconds"]}

        asked = {mode: found.preference.weights for mode, found in scenario.modes.items()}
        settings = {**common, "config": config.model_dump(mode="json"), "modes": asked, **trainer()}
        stored = cache.result(f"{name}-{regime}-{file}-{seed}", settings, work)
        return {mode: _evaluation(scenario, worlds, found) for mode, found in stored["modes"].items()}

    default = fixed(scenario.default_baseline)
    columns = {opponent: [fixed(opponent)] for opponent in OPPONENTS[name]}
    learned = {file: [ours(file, seed) for seed in seeds] for file in files}
    columns |= {file: [modes[scenario.primary_mode] for modes in each] for file, each in learned.items()}
    verdicts = {column: judge_targets(scenario, default, found) for column, found in columns.items()}
    columns = {scenario.default_baseline: [default], **columns}
    values = {column: _pooled(scenario, evaluations) for column, evaluations in columns.items()}
    found = Findings()
    for k, objective in enumerate(scenario.objectives):
        better = "higher" if objective.direction == "maximize" else "lower"
        unit = objective.unit or ("share" if better == "higher" else "default's")
        for file in files:
            for opponent in (scenario.default_baseline, *OPPONENTS[name]):
                what = f"{name} {regime}, {file}: {objective.name}"
                found.rows.append(Row(what, unit, values[file][k], opponent, values[opponent][k], better=better))
    for column, verdict in verdicts.items():
        rows = ", ".join(
            f"{row.objective} {row.value:+.3f} (bound {row.bound:+.3f}, target {row.target}, "
            f"{'met' if row.met else 'missed'})"
            for row in verdict.rows
        )
        guards = ", ".join(f"{guard} {ratio:.3f}" for guard, (ratio, _) in verdict.guards.items())
        broken = "" if verdict.guards_hold else ": broken, so nothing counts as met"
        found.notes.append(f"{name} {regime}, {column}: {rows}; guards {guards}{broken}")
    for file, each in learned.items():
        for mode in scenario.modes:
            shown = _shown(scenario, [modes[mode] for modes in each])
            found.notes.append(f"{name} {regime}, {file} at {mode}: {shown}")
    policies = {
        f"{file} {seed} at {mode}": _pooled(scenario, [evaluation])
        for file, each in learned.items()
        for seed, modes in zip(seeds, each, strict=True)
        for mode, evaluation in modes.items()
    }
    others = {column: value for column, value in values.items() if column not in learned}
    show = not any(all(row.met for row in verdict.rows) and verdict.guards_hold for verdict in verdicts.values())
    found.notes += [f"{name} {regime}, {line}" for line in _front(scenario, policies, others, show=show)]
    return found


def _front(
    scenario: Scenario, policies: Mapping[str, Sequence[float]], others: Mapping[str, Sequence[float]], *, show: bool
) -> Iterator[str]:
    """What policies and the other columns reach together; with ``show`` also the non-dominated of them."""
    objectives = scenario.objectives
    origin = np.array(others[scenario.default_baseline])
    union = {**policies, **others}
    volumes = ", ".join(
        f"{who} {front_hypervolume(np.array(list(points.values())), objectives, origin):.4f}"
        for who, points in (("policies alone", policies), ("the others alone", others), ("both", union))
    )
    values = np.array(list(union.values()))
    kept = non_dominated(to_minimisation(objectives, values))
    yield f"front of {len(union)}: hypervolume from the default's vector, share of the ranges: {volumes}"
    for index in np.flatnonzero(kept) if show else ():
        what = ", ".join(f"{o.name} {value:.4g}" for o, value in zip(objectives, values[index], strict=True))
        yield f"on the front: {list(union)[index]}: {what}"


def _shown(scenario: Scenario, evaluations: Sequence[Evaluation]) -> str:
    """Each objective over all trainings and seeds, and in the worst seed: a mean hides what went wrong."""
    texts = []
    for k, (objective, value) in enumerate(zip(scenario.objectives, _pooled(scenario, evaluations), strict=True)):
        single = np.array([e.values[:, k] for e in evaluations])
        worst = np.nanmin(single) if objective.direction == "maximize" else np.nanmax(single)
        texts.append(f"{objective.name} {value:.4g} (worst {worst:.4g})")
    return ", ".join(texts)


def _pooled(scenario: Scenario, evaluations: Sequence[Evaluation]) -> list[float]:
    """Objectives over all trainings and seeds: ratios of sums, as the verdict takes them."""
    parts = [
        np.sum([getattr(e, part).sum(axis=0) for e in evaluations], axis=0) for part in ("numerators", "denominators")
    ]
    return [float(value) for value in np.asarray(scenario.objective_values(*parts))]


def _stored(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "numerators": evaluation.numerators.tolist(),
        "denominators": evaluation.denominators.tolist(),
        "seconds": evaluation.seconds,
    }


def _evaluation(scenario: Scenario, worlds: tuple[int, ...], stored: Mapping[str, Any]) -> Evaluation:
    numerators, denominators = np.array(stored["numerators"]), np.array(stored["denominators"])
    values = np.asarray(scenario.objective_values(numerators, denominators))
    return Evaluation(
        seeds=worlds, values=values, numerators=numerators, denominators=denominators, seconds=stored["seconds"]
    )


def main() -> None:
    arguments = parse_arguments("targets", options)
    torch.set_num_threads(1)
    started = time.perf_counter()
    cache, total = Cache(arguments.cache), Findings()
    seeds = training_seeds(2 if arguments.quick else 5, arguments.seed)
    with one_ray():
        for name in [arguments.scenario] if arguments.scenario else sorted(SHIPPED):
            for regime in REGIMES[name]:
                if arguments.regime and regime not in arguments.regime:
                    continue
                files = [file for file in SHIPPED[name] if file in (arguments.config or SHIPPED[name])]
                found = judged(cache, name, regime, seeds, files, quick=arguments.quick)
                total.rows += found.rows
                total.notes += found.notes
    if not total.rows:
        sys.exit("targets: nothing to measure: the chosen scenario has no such regime or configuration file")
    report("targets", total.rows, arguments.json, total.notes)
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
