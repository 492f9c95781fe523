"""What is live as one record: made from a description, checked against the bundles, judged, and written."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from rlaas.bundles import load_bundle
from rlaas.control.gating.judgements import Judgements
from rlaas.control.gating.override import NO_OVERRIDE, Override
from rlaas.control.gating.service import GateService
from rlaas.control.records import check_match, versions_of
from rlaas.control.requests import called
from rlaas.control.state import StateDatabase
from rlaas.errors import RlaasError
from rlaas.registry import Registry
from rlaas.serving.live import DeploymentRecord, validation_error
from rlaas.serving.loading import check_record

__all__ = ["LiveRecords"]

_SAFETY = ("shield", "safe_action", "features")


class LiveRecords:
    """Writes the deployment records of one tenant; whoever changes one holds Control's lock.

    Args:
        database: the state database.
        tenant: owner.
        registry: of the versions.
        gates: what new versions have to pass.
    """

    def __init__(self, database: StateDatabase, tenant: str, registry: Registry, gates: GateService) -> None:
        self._database, self._tenant, self._registry, self._gates = database, tenant, registry, gates
        self._events = structlog.get_logger().bind(tenant=tenant)

    def write(
        self,
        policy: str,
        variants: Sequence[Any],
        experiment: Any = None,
        *,
        if_match: str | None = None,
        fallback: int | None = None,
        safety: Mapping[str, Any] | None = None,
        override: Override = NO_OVERRIDE,
        judged: Judgements,
    ) -> DeploymentRecord:
        """Make what is described live; what is live already stays as it is.

        Args:
            policy, variants, experiment, if_match, fallback, safety, override, judged: as of
                :meth:`rlaas.control.service.ControlService.create_deployment`.

        Raises:
            InvalidInputError: an impossible record, or versions that do not fit together.
            NotFoundError: no such policy or version.
            BundleError: a bundle is damaged.
            ConflictError: ``if_match`` names another generation, or a version does not pass the gate.
        """
        stored = self._database.of_policy(self._tenant, policy)
        before = stored.record if stored else None
        check_match(before, if_match)
        document = {
            "id": stored.id if stored else f"dep-{uuid.uuid4().hex[:16]}",
            "tenant": self._tenant,
            "policy": policy,
            "generation": stored.generation + 1 if stored else 1,
            "variants": variants,
            "experiment": experiment,
            "fallback": fallback,
            "updated_us": time.time_ns() // 1000,
            **{name: getattr(before, name, None) for name in _SAFETY},  # a promotion must not take a shield away
            **(safety or {}),
        }
        try:
            record = DeploymentRecord.model_validate(document)
        except ValidationError as problem:
            raise validation_error(problem) from problem
        self.check_bundles(record)
        if fallback is None:
            record = record.model_copy(update={"fallback": self._fallback(before, record)})
        compared = ("variants", "experiment", "fallback", *_SAFETY)
        if before is not None and all(getattr(before, name) == getattr(record, name) for name in compared):
            return before
        self._gates.ask(before, record, override, judged)
        self._database.write(record)
        self._events.info("deployment_written", deployment=record.id, policy=policy, generation=record.generation)
        return record

    def check_bundles(self, record: DeploymentRecord) -> None:
        """Raise where a record could not be served.

        Raises:
            NotFoundError: a version is not registered.
            BundleError: a bundle is damaged.
            InvalidInputError: its versions do not fit together, or not with what every answer shall keep.
        """
        # Loaded here too, so that a damaged bundle is refused now and not by every Gateway later.
        bundles = {}
        for version in versions_of(record):
            of_a_variant = any(variant.version == version for variant in record.variants)
            with called(version="version" if of_a_variant else "fallback"):
                folder = self._bundle(record.policy, version)
            bundles[version] = load_bundle(folder)
        check_record(record, bundles)

    def _bundle(self, policy: str, version: int) -> Path:
        return Path(self._registry.path(policy, self._registry.get(policy, version).version))

    def _fallback(self, before: DeploymentRecord | None, record: DeploymentRecord) -> int | None:
        """What served before ``record``, if it still can; None if there is no such version."""
        if before is None:
            return None
        served = max(before.variants, key=lambda variant: variant.weight).version
        mine = {variant.version for variant in record.variants}
        found = next((version for version in (served, before.fallback) if version and version not in mine), None)
        if found is not None:
            try:
                self.check_bundles(record.model_copy(update={"fallback": found}))
            except RlaasError as problem:  # a change that breaks with the past is no reason to refuse it
                self._events.warning("no_fallback", policy=record.policy, version=found, error=problem.message)
                return None
        return found
