"""The evaluate stage: one front, and the candidate against the champion in worlds that neither has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.bundles import WEIGHTS, BundlePolicy, load_bundle
from rlaas.errors import ConfigurationError
from rlaas.files import sha256_of
from rlaas.optimization import front_hypervolume
from rlaas.pipeline.candidates import hypervolumes, utility
from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.champion import described, opponent_of
from rlaas.pipeline.continuous.fingerprints import Room, key_of, libraries, room_of
from rlaas.pipeline.continuous.searching import searched
from rlaas.pipeline.continuous.stage import PROBLEM_ROOMS, Context, Stage
from rlaas.pipeline.continuous.training import trained_bundle
from rlaas.pipeline.continuous.tuning import POLICY, trial_policies
from rlaas.pipeline.continuous.verdict import judge
from rlaas.pipeline.evidence import RacePlan
from rlaas.pipeline.seeds import seeds_for
from rlaas.pipeline.stages import (
    evaluate_baselines,
    evaluate_candidates,
    evaluate_controller,
    policy_preferences,
    resolve_modes,
    with_default,
)
from rlaas.registry import PolicyVersion
from rlaas.scenarios import Evaluation, Scenario
from rlaas.training import PolicyController
from rlaas.tuning import TrialPolicy

__all__ = ["DOCUMENT", "FRONT", "EvaluateStage", "candidate_id", "candidates_of"]

DOCUMENT = "evaluation.json"
FRONT = "front.json"

# Shares of the progress: choosing among candidates, the baselines, the front, the opponent.
PARTS = 100


class EvaluateStage(Stage):
    """Chooses the candidate, builds the front, and reaches a verdict."""

    name = "evaluate"
    needs = ("train", "tune", "search")

    def inputs(self, context: Context) -> dict[str, Any]:
        """The protocol, the rules of the verdict, and the opponent."""
        return {
            "config": {
                "protocol": context.scenario.protocols[context.config.protocol].describe(),
                "evaluation": context.config.evaluation.model_dump(mode="json"),
            },
            "champion": described(opponent_of(context, candidate_id(context))),
            "libraries": libraries("numpy", "onnxruntime"),
        }

    def rooms(self, context: Context) -> Iterable[Room]:
        """What evaluates, decides and judges."""
        pipeline = ("candidates", "evidence", "experiment", "seeds", "stages", "targets", "continuous.verdict")
        return (
            *PROBLEM_ROOMS,
            room_of(context.scenario),
            *(Room(f"rlaas.{name}") for name in ("bundles", "fronts", "decisions", "training.evaluation")),
            Room("rlaas.optimization.indicators"),
            Room("rlaas.optimization.archive"),
            *(Room(f"rlaas.pipeline.{name}") for name in pipeline),
            Room(__name__),
        )

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``front.json``, and ``evaluation.json`` with the verdict and the standing of every candidate."""
        scenario, config = context.scenario, context.config
        protocol = scenario.protocols[config.protocol]
        candidate = candidate_id(context)
        # Worlds of its own for each candidate: on fixed ones every new champion would be better fitted to them.
        entropy = int(candidate[:8], 16)
        chosen, scores = self._choose(context, seeds_for("selection", entropy, protocol.seeds))
        bundle, training = candidates_of(context)[chosen]
        seeds = seeds_for("verdict", entropy, protocol.seeds)
        baselines = evaluate_baselines(scenario, seeds, protocol, context.scaled(10, 20, PARTS))
        searches = searched(context.artefacts["search"]) if "search" in context.artefacts else {}
        evaluated = evaluate_candidates(
            scenario,
            bundle,
            searches,
            seeds,
            protocol,
            trials=self._trials(context),
            race=RacePlan.of(protocol, entropy, **config.evaluation.race.model_dump()),
            progress=context.scaled(20, 70, PARTS),
        )
        front = with_default(scenario, evaluated.front(), protocol)
        volumes = hypervolumes(scenario, evaluated.candidates, baselines)
        opponent = opponent_of(context, candidate)
        default = baselines[scenario.default_baseline]
        theirs = self._opponent(context, opponent, default, seeds)
        ours = {mode: evaluated.evaluations[f"policy@{mode}"] for mode in scenario.modes}
        judgement = judge(scenario, ours, theirs, default, config.evaluation)
        choices = resolve_modes(scenario, front)
        name = f"baseline {scenario.default_baseline}" if opponent is None else f"version {opponent.version}"
        document = {
            "candidate": candidate,
            "chosen": chosen,
            "scores": scores,
            "training": training["config"],
            "protocol": protocol.describe(),
            "opponent": (
                {"kind": "baseline", "name": scenario.default_baseline, "version": None}
                if opponent is None
                else {"kind": "champion", "name": opponent.name, "version": opponent.version, "digest": opponent.digest}
            ),
            "judgement": judgement.to_dict(),
            "sentence": judgement.sentence(name),
            "front": {
                "size": len(front.candidates),
                "undecided": len(evaluated.undecided()),
                "hypervolume": volumes.union,
                "policies_hypervolume": volumes.policies,
                "configurations_hypervolume": volumes.configurations,
                "baseline_hypervolume": volumes.baselines,
                "opponent_hypervolume": front_hypervolume(
                    [e.mean().tolist() for e in theirs.values()], scenario.objectives
                ),
            },
            "race": evaluated.race.to_dict(),
            "primary": dict(zip(front.names, ours[scenario.primary_mode].mean().tolist(), strict=True)),
            "resolved": {
                mode: {"candidate": choice.candidate.name, "objectives": choice.candidate.objectives(front.names)}
                for mode, choice in choices.items()
            },
        }
        write_json(folder / FRONT, front.to_dict())
        write_json(folder / DOCUMENT, document)
        decided = judgement.differences[judgement.mode]
        return {
            "difference": decided.mean,
            "difference_low": decided.low,
            "difference_high": decided.high,
            "promote": float(judgement.promote),
            "hypervolume": volumes.union,
            "policies_hypervolume": volumes.policies,
            "undecided": float(len(evaluated.undecided())),
            "race_evaluations": float(evaluated.race.evaluations),
        }

    def lineage(self, context: Context, artefact: Artefact | None) -> dict[str, Any]:
        """Whom the candidate was held against, and the verdict."""
        if artefact is None:
            return {}
        document = artefact.read(DOCUMENT)
        opponent = document["opponent"]
        return {
            "parent_policy": f"{opponent['name']}/{opponent['version']}" if opponent["version"] else None,
            "verdict": document["judgement"]["verdict"],
        }

    def _choose(self, context: Context, seeds: tuple[int, ...]) -> tuple[str, dict[str, float]]:
        """The better of several candidates in the primary mode, on seeds that the verdict does not see."""
        bundles = candidates_of(context)
        if len(bundles) == 1:
            return next(iter(bundles)), {}
        scenario, config = context.scenario, context.config
        preference = scenario.modes[config.evaluation.mode or scenario.primary_mode].preference
        protocol = scenario.protocols[config.protocol]
        scores: dict[str, float] = {}
        for name, (bundle, _) in bundles.items():
            controller = PolicyController(load_bundle(bundle), preference)
            values = evaluate_controller(scenario, controller, seeds, protocol).mean()
            scores[name] = float(utility(scenario, np.asarray(values), preference))
        return max(scores, key=lambda name: scores[name]), scores

    def _trials(self, context: Context) -> list[TrialPolicy]:
        """Tuning trials whose policies become candidates of the front."""
        tuned = context.artefacts.get("tune")
        return [] if tuned is None else trial_policies(tuned)[: context.config.evaluation.trials]

    def _opponent(
        self, context: Context, opponent: PolicyVersion | None, default: Evaluation, seeds: tuple[int, ...]
    ) -> dict[str, Evaluation]:
        """The opponent's evaluation by mode, and at every other preference that policies are evaluated at."""
        scenario = context.scenario
        if opponent is None:
            return dict.fromkeys(scenario.modes, default)
        policy = load_bundle(context.registry.path(opponent.name, opponent.version))
        _check_fits(policy, scenario, opponent)
        protocol = scenario.protocols[context.config.protocol]
        preferences = policy_preferences(scenario)
        advance = context.scaled(70, PARTS, PARTS)
        found: dict[str, Evaluation] = {}
        for name, preference in preferences.items():
            found[name] = evaluate_controller(scenario, PolicyController(policy, preference), seeds, protocol)
            advance(len(found), len(preferences))
        return found


def candidates_of(context: Context) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Bundle and training document of each candidate, by the stage that made it."""
    found = {"train": trained_bundle(context.artefacts["train"])}
    tuned = context.artefacts.get("tune")
    if tuned is not None and (tuned.folder / POLICY).is_dir():
        found["tune"] = trained_bundle(tuned, POLICY)
    return found


def candidate_id(context: Context) -> str:
    """Digest of the candidates' weights: the same networks are the same candidate, whenever they were trained."""
    return key_of({name: sha256_of(bundle / WEIGHTS) for name, (bundle, _) in candidates_of(context).items()})


def _check_fits(policy: BundlePolicy, scenario: Scenario, version: PolicyVersion) -> None:
    """Refuse a champion of another form of the scenario.

    Raises:
        ConfigurationError: it observes other features or pursues other objectives.
    """
    for what, theirs, ours in (
        ("observes", policy.manifest.observation.names, scenario.observation_names),
        ("pursues", tuple(o.name for o in policy.objectives), tuple(o.name for o in scenario.objectives)),
    ):
        if tuple(theirs) != tuple(ours):
            raise ConfigurationError(
                f"champion {version.name} version {version.version} {what} {len(theirs)} other things than the "
                f"{len(ours)} of this scenario under these options; give training the options that the champion was "
                "trained under, or promote a version that fits",
                field="training.options",
            )
