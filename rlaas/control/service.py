"""The control plane as plain Python: versions, promotion, deployments, and what the Gateways have loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from rlaas.control.drift.service import DriftService
from rlaas.control.features_routes import FeatureService
from rlaas.control.gating.devices import DeviceGate
from rlaas.control.gating.judgements import Judgements
from rlaas.control.gating.override import NO_OVERRIDE, Override
from rlaas.control.gating.service import GateService
from rlaas.control.live_records import LiveRecords
from rlaas.control.records import champion, check_match, version_document, versions_of
from rlaas.control.replicas import ReplicaBoard
from rlaas.control.rollouts.plan import ReplicaBounds
from rlaas.control.rollouts.service import RolloutService
from rlaas.control.served_fronts import ServedFronts
from rlaas.control.state import StateDatabase, StoredDeployment
from rlaas.control.variant_names import check_variant_names
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError, RlaasError
from rlaas.files import folder_below
from rlaas.lake import Lake
from rlaas.names import check_name
from rlaas.registry import CHAMPION, FrontStore, Registry
from rlaas.serving.live import DeploymentRecord, LiveAnswer
from rlaas.serving.tally import VersionTally
from rlaas.settings import Settings

__all__ = ["ControlService"]


class ControlService:
    """Everything that Control does, without Ray and without HTTP.

    Thread-safe: changes are serialised here and compared-and-set in the database, so that a second Control (two
    clusters overlap during an upgrade) loses cleanly. What a gate has to judge is judged before a change has its turn.

    Args:
        settings: names the state database, the registry and the tenant.
        stale_s: a Gateway that has been silent for so long counts as gone.

    Attributes:
        rollouts: how new versions take over.
        gates: what new versions have to pass.
        devices: the same before a version goes to devices.
        drift: how policies are watched.
        features: of entities, that observations are filled from.
    """

    def __init__(self, settings: Settings, *, stale_s: float = 15.0) -> None:
        self._tenant = settings.tenant
        self._home = settings.home
        self._database = StateDatabase(settings.state_database)
        given = settings.secret.get_secret_value().encode() if settings.secret else None
        self._secret = self._database.secret(given)
        self._registry = Registry(settings)
        self._replicas = ReplicaBoard(stale_s)
        self.rollouts = RolloutService(self._database, self._tenant, admit=self._admit, stale_s=stale_s)
        lake = Lake(settings.lake_root, self._tenant)
        self.gates = GateService(self._database, self._tenant, lake, self._registry, self.rollouts)
        self.devices = DeviceGate(self.gates, self._registry)
        self.drift = DriftService(self._database, self._tenant, self._registry.versions)
        self.features = FeatureService(settings)
        self._records = LiveRecords(self._database, self._tenant, self._registry, self.gates)
        self._fronts = ServedFronts(FrontStore(self._registry), settings.home / "cache" / "fronts")
        self._paths: dict[tuple[str, int], str] = {}
        self._changing = threading.RLock()
        self._events = structlog.get_logger().bind(tenant=self._tenant)

    @property
    def database(self) -> StateDatabase:
        """The state database."""
        return self._database

    @property
    def registry(self) -> Registry:
        """The registry, which takes seconds to open: who needs one beside this service shares it."""
        return self._registry

    def adopt_champions(self) -> list[DeploymentRecord]:
        """Give every policy that has a champion and never had a deployment one; the new records.

        Called on start, so that a fresh platform serves whatever the registry's champions are. A deployment that was
        deleted stays deleted.
        """
        adopted: list[DeploymentRecord] = []
        for name in self._registry.names():
            try:
                record = self.gates.judged_first(partial(self._adopt, name))
            except RlaasError as problem:  # one damaged bundle must not keep the others from being served
                self._events.error("champion_not_adopted", policy=name, error=problem.message)
            else:
                adopted += [] if record is None else [record]
        return adopted

    def _adopt(self, name: str, judged: Judgements) -> DeploymentRecord | None:
        with self._changing:
            found = next((v for v in self._registry.versions(name) if CHAMPION in v.aliases), None)
            if found is None or self._database.of_policy(self._tenant, name) is not None:
                return None
            return self._records.write(name, [champion(found.version)], judged=judged)

    def live(
        self,
        replica: str,
        generations: Mapping[str, int] | None = None,
        failures: Mapping[str, str] | None = None,
        tallies: Sequence[VersionTally] = (),
        producer: str = "",
    ) -> LiveAnswer:
        """What a Gateway should serve; its own report is noted.

        Args:
            replica: id of the asking replica.
            generations: loaded generation by deployment id.
            failures: reason by deployment id where loading failed.
            tallies: what its process has counted by version since it began.
            producer: names its process; empty: the replica does.
        """
        self._replicas.report(replica, generations or {}, failures or {})
        self.rollouts.reports.note(replica, producer, generations or {}, failures or {}, tallies)
        records = tuple(self._database.deployments(self._tenant))
        wanted = {(record.policy, version): record for record in records for version in versions_of(record)}
        for key in wanted.keys() - self._paths.keys():
            try:
                self._paths[key] = str(self._registry.path(*key))
            except RlaasError as problem:  # the Gateway reports the missing bundle and serves on with the old one
                self._events.error("bundle_unavailable", policy=key[0], version=key[1], error=problem.message)
        paths = {key: self._paths[key] for key in wanted if key in self._paths}
        return LiveAnswer(self._secret, records, {**paths, **self._fronts.paths(wanted, paths)})

    def policies(self) -> list[str]:
        """Names of the registered policies."""
        return self._registry.names()

    def versions(self, name: str) -> list[dict[str, Any]]:
        """Every version of a policy, newest first, as JSON types.

        Raises:
            NotFoundError: no such policy.
        """
        return [version_document(version) for version in self._registry.versions(name)]

    def register(
        self,
        name: str,
        path: str,
        *,
        alias: str | None = "candidate",
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Register a bundle that lies in a folder under the installation's home.

        Raises:
            InvalidInputError: the folder lies elsewhere, or does not exist.
            BundleError: the bundle is damaged.
        """
        folder = folder_below(self._home, path)
        if folder is None:
            raise InvalidInputError("path must name a bundle folder under the installation's home", field="path")
        if alias == CHAMPION:
            raise InvalidInputError("alias 'champion' is given by promote; allowed: any other", field="alias")
        with self._changing:
            version = self._registry.register(name, folder, params=params, metrics=metrics, tags=tags, alias=alias)
        self._events.info("policy_registered", policy=name, version=version.version)
        return version_document(version)

    def delete_version(self, name: str, version: int) -> None:
        """Delete a version that nothing serves.

        Raises:
            NotFoundError: no such version.
            ConflictError: it is live, it is the champion, or a rollout of the policy is running.
        """
        with self._changing:
            self._registry.get(name, version)
            self.rollouts.refuse_while_running(name)  # a rollback may need it again
            stored = self._database.of_policy(self._tenant, name)
            live = stored.record.variants if stored and stored.record else ()
            if any(variant.version == version for variant in live):
                raise ConflictError(
                    f"version {version} of {name!r} is live in deployment {stored.id if stored else ''!r}; "
                    "take it out of the deployment first",
                    field="version",
                )
            if stored and stored.record and stored.record.fallback == version:
                changes = {"fallback": None, "generation": stored.generation + 1, "updated_us": time.time_ns() // 1000}
                self._database.write(stored.record.model_copy(update=changes))
            self._registry.delete(name, version)
            self._paths.pop((name, version), None)

    def promote(
        self,
        name: str,
        version: int | str,
        *,
        alias: str = CHAMPION,
        if_match: str | None = None,
        override: Override = NO_OVERRIDE,
    ) -> tuple[dict[str, Any], DeploymentRecord | None]:
        """Point an alias at a version; as ``champion`` it is also the only one live from now on.

        The database is written first: it is the truth, the alias its mirror. Repeating the call mends a mirror that
        could not be written.

        Returns:
            The version, and the deployment if that is what changed.

        Raises:
            NotFoundError: no such policy or version.
            BundleError: the bundle cannot be served.
            ConflictError: ``if_match`` names another generation, a rollout or an experiment of the policy is running,
                or the version does not pass the policy's gate and there is no override.
        """

        def change(judged: Judgements) -> tuple[dict[str, Any], DeploymentRecord | None]:
            with self._changing:
                found = self._registry.get(name, version)
                record = None
                if alias == CHAMPION:
                    self.rollouts.refuse_while_running(name)
                    self.gates.refuse_during_experiment(name)
                    only = [champion(found.version)]
                    record = self._records.write(name, only, if_match=if_match, override=override, judged=judged)
                mirrored = self._registry.set_alias(name, alias, found.version)
            self._events.info("version_promoted", policy=name, version=found.version, alias=alias)
            return version_document(mirrored), record

        return self.gates.judged_first(change)

    def create_deployment(
        self,
        policy: str,
        variants: Sequence[Any],
        experiment: Any = None,
        *,
        strategy: Any = None,
        fallback: int | None = None,
        safety: Mapping[str, Any] | None = None,
        scaling: ReplicaBounds | None = None,
        if_match: str | None = None,
        override: Override = NO_OVERRIDE,
        judged: Judgements | None = None,
        trusted: bool = False,
    ) -> tuple[DeploymentRecord, bool]:
        """Serve a policy from several versions; an existing deployment of the policy gets its next generation.

        Args:
            policy: name in the registry.
            variants: documents of :class:`rlaas.serving.live.Variant`.
            experiment: document of :class:`rlaas.serving.live.ExperimentSpec`, or None for a plain split.
            strategy: document of a :data:`rlaas.control.rollouts.Strategy` by which the one variant comes in beside
                what is live; None: at once.
            fallback: version that answers while another keeps failing; None: the one that served before.
            safety: documents of ``shield``, ``safe_action`` and ``features``, None for none; what is left out stays as
                it was.
            scaling: bounds of the pool; None: as before.
            if_match: entity tag of the generation to replace.
            override: lets versions through that do not pass the policy's gate.
            judged: of a caller that holds a lock and judges itself, see
                :meth:`~rlaas.control.gating.GateService.judged_first`; None: judged here.
            trusted: the platform itself names the variants, and may give reserved names.

        Returns:
            The record, and whether the deployment is new.

        Raises:
            InvalidInputError: an impossible variant, weight or experiment, a reserved name, or versions that do not fit
                together.
            NotFoundError: no such policy or version.
            BundleError: a bundle is damaged.
            ConflictError: ``if_match`` names another generation, a rollout of the policy is running, a strategy has
                nothing to begin from or an experiment is running, or a version does not pass the gate.
        """
        check_name(policy, field="policy")
        if not trusted:
            check_variant_names([one.get("name") if isinstance(one, Mapping) else None for one in variants])
        if strategy is not None:
            for name, value in (("experiment", experiment), ("fallback", fallback), *(safety or {}).items()):
                if value is not None:
                    raise InvalidInputError(f"{name} cannot be given with a strategy; leave it out", field=name)

        def change(judged: Judgements) -> tuple[DeploymentRecord, bool]:
            with self._changing:
                self.rollouts.refuse_while_running(policy)
                before = self._database.of_policy(self._tenant, policy)
                if strategy is None:
                    record = self._records.write(
                        policy,
                        variants,
                        experiment,
                        if_match=if_match,
                        fallback=fallback,
                        safety=safety,
                        override=override,
                        judged=judged,
                    )
                else:
                    self.gates.refuse_during_experiment(policy)
                    live = before.record if before else None
                    check_match(live, if_match)

                    def check(record: DeploymentRecord) -> None:
                        self._records.check_bundles(record)
                        self.gates.ask(live, record, override, judged, warm=True)

                    record = self.rollouts.start(live, variants, strategy, check=check)
                if scaling is not None:
                    self.rollouts.set_scaling(policy, scaling)
            return record, before is None or before.record is None

        return self.gates.judged_first(change) if judged is None else change(judged)

    def deployments(self) -> list[DeploymentRecord]:
        """Every live deployment, by policy."""
        return self._database.deployments(self._tenant)

    def status(self, deployment: str) -> tuple[DeploymentRecord, dict[str, Any]]:
        """A deployment by its id or its policy, and what the Gateways have loaded of it (generation 0: nothing yet).

        Raises:
            NotFoundError: no such deployment.
        """
        _, record = self._find(deployment)
        replicas = self._replicas.of(record.id)
        ready = bool(replicas) and all(r["generation"] == record.generation and not r["error"] for r in replicas)
        document = record.model_dump(mode="json")
        rollout = self.rollouts.status(record.policy)
        return record, {**document, "weights": record.weights(), "ready": ready, "replicas": replicas, **rollout}

    def policy_of(self, deployment: str) -> str:
        """Name of the policy that a deployment, by its id or its policy, serves.

        Raises:
            NotFoundError: no such deployment.
        """
        return self._find(deployment)[1].policy

    def delete_deployment(self, deployment: str, *, if_match: str | None = None) -> None:
        """Serve the policy no longer.

        Raises:
            NotFoundError: no such deployment.
            ConflictError: ``if_match`` names another generation, or a rollout of the policy is running.
        """
        with self._changing:
            stored, record = self._find(deployment)
            self.rollouts.refuse_while_running(record.policy)
            check_match(record, if_match)
            self.gates.note_served(record)
            self._database.delete(self._tenant, stored)
        self._events.info("deployment_deleted", deployment=deployment, policy=record.policy)

    def _find(self, deployment: str) -> tuple[StoredDeployment, DeploymentRecord]:
        check_name(deployment, field="deployment")
        stored = self._database.of_id(self._tenant, deployment) or self._database.of_policy(self._tenant, deployment)
        if stored is None or stored.record is None:
            allowed = ", ".join(f"{record.id} ({record.policy})" for record in self.deployments()) or "(none)"
            raise NotFoundError(f"no deployment {deployment!r}; allowed: {allowed}", field="deployment")
        return stored, stored.record

    def _admit(self, before: DeploymentRecord, record: DeploymentRecord, actor: str) -> None:
        """Ask the gate about what a rollout makes live without having been asked about it, such as a shadow."""
        self.gates.judged_first(lambda judged: self.gates.ask(before, record, Override(actor=actor), judged))

    def mirror_champion(self, policy: str, version: int) -> None:
        """Make the registry's champion what a rollout has made live."""
        self._registry.set_alias(policy, CHAMPION, version)
