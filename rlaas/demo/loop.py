"""The main job: the whole loop on one local Ray, stage by stage."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from rlaas.bundles import load_bundle
from rlaas.client import Client
from rlaas.control import start_platform, stop_platform
from rlaas.demo.options import DemoOptions
from rlaas.demo.progress import Stages
from rlaas.demo.results import LoopResult, ServedExperiment
from rlaas.demo.traffic import Traffic, drive
from rlaas.errors import ConfigurationError, LakeError, NotReadyError
from rlaas.fronts import Candidate, Front
from rlaas.interrupts import check_interrupt
from rlaas.lake import Lake, update_transitions, verify
from rlaas.objectives import Preference
from rlaas.optimization import OptimizationConfig, SearchResult
from rlaas.pipeline import (
    EvaluatedCandidates,
    Hypervolumes,
    RacePlan,
    analyse_experiment,
    best_configuration,
    config_parameters,
    evaluate_baselines,
    evaluate_candidates,
    evaluate_controller,
    hypervolumes,
    judge_targets,
    resolve_modes,
    search_configurations,
    seeds_for,
    with_default,
)
from rlaas.registry import PolicyVersion, Registry, git_commit
from rlaas.scenarios import ConstantController, Evaluation, load
from rlaas.serving import ServingConfig
from rlaas.settings import Settings
from rlaas.training import (
    FitSettings,
    PolicyController,
    TrainingRun,
    export_constant,
    fit_offline,
    recommended_config,
    train,
)

__all__ = ["Loop"]

CHAMPION, CHALLENGER = "champion", "challenger"
# A backlog that one arm leaves behind is worked off within some twenty steps of the other.
SWITCHBACK_BLOCK_STEPS = 50
SWITCHBACK_WASHOUT_STEPS = 20
CORE_FAMILY = "static"
PATIENCE_S = 60.0


class Loop:
    """Runs the stages in order; each method is one stage and leaves something real behind."""

    def __init__(self, options: DemoOptions, settings: Settings, console: Console) -> None:
        self.options = options
        self.settings = settings
        self.scenario = load(options.scenario)
        self.protocol = self.scenario.protocols["short"]
        self.stages = Stages(console)
        self.registry = Registry(settings)
        self.lake = Lake(settings.lake_root, settings.tenant)
        self.base_url = ""
        self._deployment = ""
        if CORE_FAMILY not in self.scenario.tunables:
            raise ConfigurationError(
                f"scenario {self.scenario.name} has no tunable {CORE_FAMILY!r} to compare its policy with",
                field="tunables",
            )
        if options.traffic_steps and self.scenario.experiment_design == "switchback":
            least = 4 * SWITCHBACK_BLOCK_STEPS
            if options.traffic_steps < least:
                raise ConfigurationError(
                    f"--traffic-steps must be at least {least}: two pairs of switchback blocks", field="traffic-steps"
                )
        changes = {} if options.steps is None else {"steps": options.steps}
        self._training = recommended_config(options.scenario, seed=options.seed, **changes)
        self._front_seeds = seeds_for("front", options.seed, self.protocol.seeds)
        self._table_seeds = seeds_for("table", options.seed, self.protocol.seeds)
        self._work = settings.home / "runs" / f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"

    def run(self) -> LoopResult:
        """All stages.

        Raises:
            RlaasError: a stage failed; its message says what to do.
        """
        scenario, options = self.scenario, self.options
        self._work.mkdir(parents=True)
        algorithm = str(self._training.algorithm)
        with self.stages as stages:
            with stages.stage("baselines", f"baselines of {scenario.name}") as advance:
                seeds = (*self._front_seeds, *self._table_seeds)
                baselines = evaluate_baselines(scenario, seeds, self.protocol, advance)
            with stages.stage("train", f"train {algorithm.upper()}, preference-conditioned") as advance:
                training = self._train(advance)
            searches: dict[str, SearchResult] = {}
            for tunable in scenario.tunables:
                with stages.stage(f"search_{tunable}", f"NSGA-III over {tunable} configurations") as advance:
                    searches[tunable] = self._search(tunable, advance)
            with stages.stage("front", "one front of policies and configurations") as advance:
                race = RacePlan.of(self.protocol, options.seed, budget=options.race_budget)
                evaluated = evaluate_candidates(
                    scenario, training.bundle, searches, self._front_seeds, self.protocol, race=race, progress=advance
                )
                front = with_default(scenario, evaluated.front(), self.protocol)
                on_front_seeds = {name: e.on_seeds(self._front_seeds) for name, e in baselines.items()}
                volumes = hypervolumes(scenario, evaluated.candidates, on_front_seeds)
            with stages.stage("resolve", "resolve the front for each mode"):
                choices = resolve_modes(scenario, front)
            with stages.stage("columns", "table columns on fresh seeds") as advance:
                columns, ours = self._columns(baselines, training, evaluated, advance)
            with stages.stage("register", "register in MLflow"):
                champion, policy = self._register(training, evaluated, front, volumes)
            with stages.stage("serve", "deploy on Ray Serve"):
                self._serve(champion, policy)
            with stages.stage("experiment", f"A/B by {scenario.experiment_design} through HTTP") as advance:
                traffic = self._drive(advance)
            with stages.stage("lake", "exactly once in the lake"):
                served = self._verify(traffic, champion, policy)
            with stages.stage("offline", "fit a policy from the table alone") as advance:
                offline, offline_version = self._offline(served, advance)
                name = "from the table"
                columns[name] = self._evaluate_policy(offline.bundle)
            default = columns[scenario.default_baseline]
            verdicts = {
                name: judge_targets(scenario, default, [evaluation], seed=options.seed)
                for name, evaluation in columns.items()
                if name != scenario.default_baseline
            }
        return LoopResult(
            scenario=scenario,
            protocol=self.protocol,
            baselines={name: e.on_seeds(self._table_seeds) for name, e in baselines.items()},
            training=training,
            algorithm=algorithm,
            searches=searches,
            evaluated=evaluated,
            front=front,
            volumes=volumes,
            choices=choices,
            champion=champion,
            policy=policy,
            served=served,
            offline=offline,
            offline_version=offline_version,
            columns=columns,
            verdicts=verdicts,
            ours=ours,
            seconds=self.stages.seconds,
        )

    def close(self) -> None:
        """Stop the platform, if this run started one."""
        if self.base_url:
            stop_platform()

    @property
    def _primary(self) -> Preference:
        return self.scenario.modes[self.scenario.primary_mode].preference

    def _train(self, advance: Callable[[int, int], None]) -> TrainingRun:

        def report(done: int, total: int, metrics: Mapping[str, float]) -> None:
            advance(done, total)
            self.stages.note(f"{done:,} steps, reward {metrics.get('reward', float('nan')):.3f}")

        return train(self._training, output=self._work / "train", progress=report)

    def _search(self, tunable: str, advance: Callable[[int, int], None]) -> SearchResult:
        config = OptimizationConfig(
            scenario=self.options.scenario,
            tunable=tunable,
            generations=self.options.generations,
            population=self.options.population,
            seeds=seeds_for("search", self.options.seed, self.options.search_seeds),
            steps=self.protocol.steps,
            warmup=self.protocol.warmup,
            replicas=self.protocol.replicas,
            workers=self.options.workers,
            seed=self.options.seed,
        )
        return search_configurations(config, progress=advance).found

    def _best(self, evaluated: EvaluatedCandidates, tunable: str) -> Candidate:
        return best_configuration(self.scenario, evaluated.candidates, tunable, self._primary)

    def _evaluate_policy(self, bundle: Path) -> Evaluation:
        controller = PolicyController(load_bundle(bundle), self._primary)
        return evaluate_controller(self.scenario, controller, self._table_seeds, self.protocol)

    def _columns(
        self,
        baselines: Mapping[str, Evaluation],
        training: TrainingRun,
        evaluated: EvaluatedCandidates,
        advance: Callable[[int, int], None],
    ) -> tuple[dict[str, Evaluation], str]:
        """Baselines, the best of each family and the policy, on seeds that chose none of them."""
        columns = {name: e.on_seeds(self._table_seeds) for name, e in baselines.items()}
        total = len(self.scenario.tunables) + 1
        for done, tunable in enumerate(self.scenario.tunables, 1):
            best = self._best(evaluated, tunable)
            controller = self.scenario.tunables[tunable].controller(list(best.parameters["values"].values()))
            columns[f"best {tunable}"] = evaluate_controller(
                self.scenario, controller, self._table_seeds, self.protocol
            )
            advance(done, total)
        ours = f"policy@{self.scenario.primary_mode}"
        columns[ours] = self._evaluate_policy(training.bundle)
        advance(total, total)
        return columns, ours

    def _lineage(self) -> dict[str, Any]:
        return {
            "git_commit": git_commit(Path(__file__).parent),
            "lake_versions": self.lake.versions(),
            "reference_hash": self.scenario.reference_hash,
            "seed": self.options.seed,
            "protocol": self.protocol.describe(),
        }

    def _register(
        self, training: TrainingRun, evaluated: EvaluatedCandidates, front: Front, volumes: Hypervolumes
    ) -> tuple[PolicyVersion, PolicyVersion]:
        """The best static configuration becomes the champion in place; the trained policy is its candidate."""
        scenario = self.scenario
        best = self._best(evaluated, CORE_FAMILY)
        controller = scenario.tunables[CORE_FAMILY].controller(list(best.parameters["values"].values()))
        if not isinstance(controller, ConstantController):
            raise ConfigurationError(
                f"tunable {CORE_FAMILY!r} of {scenario.name} makes a {type(controller).__name__}; "
                "expected a ConstantController",
                field="tunables.static",
            )
        action = controller.action
        lineage = self._lineage()
        bundle = export_constant(scenario, action, self._work / "static", lineage=lineage)
        champion = self.registry.register(
            scenario.name,
            bundle,
            params={"kind": "static configuration", **best.parameters["values"]},
            metrics=best.objectives(front.names),
            tags=lineage,
            alias=CORE_FAMILY,
        )
        policy_at_primary = next(c for c in evaluated.candidates if c.name == f"policy@{scenario.primary_mode}")
        policy = self.registry.register(
            scenario.name,
            training.bundle,
            params={"kind": "policy", **config_parameters(self._training)},
            metrics={
                **training.metrics,
                **policy_at_primary.objectives(front.names),
                "hypervolume": volumes.union,
                "baseline_hypervolume": volumes.baselines,
            },
            tags=lineage,
            documents={"front.json": front.to_dict()},
            curve=training.curve,
            alias="candidate",
        )
        return champion, policy

    def _serve(self, champion: PolicyVersion, policy: PolicyVersion) -> None:
        self.base_url = start_platform(ServingConfig(), self.settings, port=self.options.port)
        with Client(self.base_url) as client:
            deployment = client.create_deployment(
                policy=self.scenario.name,
                variants=[
                    {"name": CHAMPION, "version": champion.version, "weight": 0.5},
                    {"name": CHALLENGER, "version": policy.version, "weight": 0.5},
                ],
                experiment={
                    "name": f"{self.scenario.name}-demo",
                    "design": self.scenario.experiment_design,
                    "salt": self._work.name,
                    **(
                        {"block_steps": SWITCHBACK_BLOCK_STEPS}
                        if self.scenario.experiment_design == "switchback"
                        else {}
                    ),
                },
            )
            self._await_live(client, deployment["id"])
            self._deployment = str(deployment["id"])

    def _await_live(self, client: Client, deployment: str) -> None:
        """Wait until every replica has loaded the newest generation."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            check_interrupt()
            if client.deployment_status(deployment)["ready"]:
                return
            time.sleep(0.2)
        raise NotReadyError(f"deployment {deployment} is not live after {PATIENCE_S:.0f} s; see the Serve log")

    def _drive(self, advance: Callable[[int, int], None]) -> Traffic:
        interfering = self.scenario.experiment_design == "switchback"
        steps = self.options.traffic_steps or (3000 if interfering else 800)
        with Client(self.base_url) as client:
            return drive(
                client,
                self.scenario,
                self.scenario.name,
                mode=self.scenario.primary_mode,
                steps=steps,
                num_envs=1 if interfering else 48,
                seed=seeds_for("traffic", self.options.seed, 1)[0],
                run=self._work.name,
                progress=advance,
            )

    def _verify(self, traffic: Traffic, champion: PolicyVersion, policy: PolicyVersion) -> ServedExperiment:
        """Wait for the committer, prove that nothing was lost or doubled, join, analyse, and act on the verdict."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            decisions, outcomes = verify(self.lake, decisions=traffic.decision_ids, outcomes=traffic.receipt_ids)
            if not decisions.missing and not outcomes.missing:
                break
            check_interrupt()
            if time.monotonic() > deadline:
                raise LakeError(
                    f"after {PATIENCE_S:.0f} s {len(decisions.missing)} decisions and "
                    f"{len(outcomes.missing)} outcomes are not in bronze; stop the platform and run `rlaas lake commit`"
                )
            time.sleep(0.5)
        if decisions.duplicates or outcomes.duplicates:
            raise LakeError(f"bronze repeats {decisions.duplicates} decisions and {outcomes.duplicates} outcomes")
        update_transitions(self.lake)
        silver = self.lake.read("silver.transitions")
        own = np.array([str(s).startswith(self._work.name) for s in silver.column("session").to_pylist()])
        transitions = silver.filter(pa.array(own))
        comparison = analyse_experiment(
            self.scenario,
            transitions,
            control=CHAMPION,
            treatment=CHALLENGER,
            preference=self._primary,
            block_steps=SWITCHBACK_BLOCK_STEPS,
            washout_steps=SWITCHBACK_WASHOUT_STEPS,
        )
        better = bool(comparison.interval[0] > 0)
        # The experiment ends either way: the winner alone is served from now on.
        with Client(self.base_url) as client:
            client.promote(self.scenario.name, (policy if better else champion).version)
            self._await_live(client, self._deployment)
        return ServedExperiment(
            traffic=traffic,
            decisions=decisions,
            outcomes=outcomes,
            transitions=transitions,
            comparison=comparison,
            promoted=better,
        )

    def _offline(
        self, served: ServedExperiment, advance: Callable[[int, int], None]
    ) -> tuple[TrainingRun, PolicyVersion]:
        run = fit_offline(
            served.transitions,
            self.scenario,
            preference=self._primary,
            output=self._work / "offline",
            settings=FitSettings(
                method="advantage_weighted", epochs=self.options.offline_epochs, seed=self.options.seed
            ),
            progress=lambda done, total, _: advance(done, total),
        )
        version = self.registry.register(
            self.scenario.name,
            run.bundle,
            params={"kind": "policy", "algorithm": "advantage_weighted", "seed": self.options.seed},
            metrics=run.metrics,
            tags=self._lineage(),
            curve=run.curve,
            alias="offline",
        )
        return run, version
