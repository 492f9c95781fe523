"""The register stage: what the verdict says, done once, with where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlaas.errors import ConflictError, NotFoundError
from rlaas.pipeline.continuous.artefacts import Artefact, write_json
from rlaas.pipeline.continuous.champion import CANDIDATE_TAG, PARENT_TAG, opponent_of, registered_as
from rlaas.pipeline.continuous.data import DOCUMENT as DATA
from rlaas.pipeline.continuous.data import pinned_versions
from rlaas.pipeline.continuous.evaluation import DOCUMENT as EVALUATION
from rlaas.pipeline.continuous.evaluation import FRONT, candidates_of
from rlaas.pipeline.continuous.fingerprints import Room
from rlaas.pipeline.continuous.locks import exclusive
from rlaas.pipeline.continuous.stage import Context, Stage
from rlaas.pipeline.continuous.validation import contract_of
from rlaas.pipeline.jobs import config_parameters
from rlaas.registry import PolicyVersion, git_commit
from rlaas.training import TrainingConfig

__all__ = ["DOCUMENT", "RegisterStage"]

DOCUMENT = "registration.json"


class RegisterStage(Stage):
    """Registers the candidate if it may be.

    Args:
        root: folder of the scenario's pipeline: only one registers at a time.
    """

    name = "register"
    needs = ("validate", "evaluate")

    def __init__(self, root: Path) -> None:
        self._root = root

    def inputs(self, context: Context) -> dict[str, Any]:
        """Alias and force."""
        config = context.config
        return {"config": {"alias": config.alias, "force": config.force}}

    def rooms(self, context: Context) -> Iterable[Room]:
        """Its own alone: how the registry stores a version does not make it another."""
        return (Room(__name__),)

    def outdated(self, context: Context, artefact: Artefact) -> str | None:
        """A version that has been deleted since."""
        policy = artefact.read(DOCUMENT)["policy"]
        if policy is None:
            return None
        try:
            context.registry.get(policy["name"], int(policy["version"]))
        except NotFoundError:
            return f"version {policy['version']} is no longer registered"
        return None

    def run(self, context: Context, folder: Path) -> Mapping[str, float]:
        """Write ``registration.json``: the version, or why there is none."""
        evaluation = context.artefacts["evaluate"].read(EVALUATION)
        with exclusive(self._root / "registration.lock"):
            allowed, reasons = self._decide(context, evaluation)
            version = self._register(context, evaluation) if allowed else None
        policy = None
        if version is not None:
            policy = {"name": version.name, "version": version.version, "alias": context.config.alias}
        write_json(folder / DOCUMENT, {"policy": policy, "reasons": reasons})
        return {"registered": float(version is not None)}

    def lineage(self, context: Context, artefact: Artefact | None) -> dict[str, Any]:
        """The registered version."""
        policy = None if artefact is None else artefact.read(DOCUMENT)["policy"]
        return {"policy": None if policy is None else f"{policy['name']}/{policy['version']}"}

    def _decide(self, context: Context, evaluation: Mapping[str, Any]) -> tuple[bool, list[str]]:
        """Whether to register, and every reason for or against it."""
        config, judgement = context.config, evaluation["judgement"]
        passed, broken = contract_of(context.artefacts["validate"])
        if not passed:
            return False, [f"the data contract is broken: {sentence}" for sentence in broken]
        reasons = [evaluation["sentence"], *judgement["broken"]]
        if judgement["promote"]:
            return True, reasons
        if config.force == "always":
            return True, [*reasons, "registered all the same: force is always"]
        if evaluation["opponent"]["version"] is None and not config.promotes:
            return True, [*reasons, f"registered as {config.alias}: there is no champion yet"]
        return False, reasons

    def _register(self, context: Context, evaluation: Mapping[str, Any]) -> PolicyVersion:
        """The version of this candidate, with its alias; made unless it is there."""
        candidate, wanted = str(evaluation["candidate"]), evaluation["opponent"]["version"]
        opponent = opponent_of(context, candidate)
        present = None if opponent is None else opponent.version
        if present != wanted:
            raise ConflictError(
                f"the champion changed from version {wanted} to {present} while the candidate was evaluated; run the "
                "pipeline again to hold it against the new one",
                field="champion",
            )
        config, name = context.config, context.scenario.name
        version = registered_as(context, candidate)
        if version is None:
            # A promotion goes through the state database, which says what is live; the alias follows.
            alias = None if config.promotes else config.alias
            version = self._new_version(context, evaluation, alias)
        elif not config.promotes:
            version = context.registry.set_alias(name, config.alias, version.version)
        if config.promotes and config.alias not in version.aliases:
            from rlaas.control import ControlService

            ControlService(context.settings).promote(name, version.version)
            version = context.registry.get(name, version.version)
        return version

    def _new_version(self, context: Context, evaluation: Mapping[str, Any], alias: str | None) -> PolicyVersion:
        bundle, training = candidates_of(context)[evaluation["chosen"]]
        trained = TrainingConfig(**evaluation["training"])
        front = evaluation["front"]
        keys = {name: artefact.key for name, artefact in context.artefacts.items()}
        return context.registry.register(
            context.scenario.name,
            bundle,
            params={"kind": "policy", **config_parameters(trained)},
            metrics={
                **training["metrics"],
                **evaluation["primary"],
                "hypervolume": front["hypervolume"],
                "baseline_hypervolume": front["baseline_hypervolume"],
            },
            tags={
                "git_commit": git_commit(Path(__file__).parent),
                "lake_versions": pinned_versions(context.artefacts["data"]),
                "datasets": _datasets(context.artefacts["data"]),
                "reference_hash": context.scenario.reference_hash,
                "seed": trained.seed,
                CANDIDATE_TAG: evaluation["candidate"],
                PARENT_TAG: evaluation["opponent"]["version"],
                "pipeline_run": context.run_id or None,
                "training_run": training["mlflow_run"],
                "stage_keys": keys,
            },
            documents={FRONT: context.artefacts["evaluate"].read(FRONT), EVALUATION: dict(evaluation)},
            curve=training["curve"],
            alias=alias,
        )


def _datasets(data: Artefact) -> list[str] | None:
    """Names of the datasets that stood in for tables."""
    return sorted(entry["dataset"]["name"] for entry in data.read(DATA)["tables"] if entry.get("dataset")) or None
