"""Experiments as plain Python: declared, served, analysed, stopped; what they are is in the state database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

import structlog

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.control.experiments.analysis import Analyst
from rlaas.control.experiments.batches import BatchBook
from rlaas.control.experiments.completion import check_values, completed
from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.control.experiments.layer_book import LayerBook
from rlaas.control.experiments.reallocation import Reallocation
from rlaas.control.experiments.store import ACTIVE, Event, ExperimentStore, State, StoredExperiment
from rlaas.control.gating.judgements import Judgements
from rlaas.control.service import ControlService
from rlaas.errors import ConflictError, InvalidInputError, RlaasError, check_choice
from rlaas.lake import Lake
from rlaas.serving.live import DeploymentRecord

__all__ = ["DECISIONS", "Decision", "ExperimentService"]

Decision = Literal["ship", "keep", "none"]
DECISIONS: tuple[Decision, ...] = ("ship", "keep", "none")
_LAST_RUNS_US = 3600 * 1_000_000
"""After the last window a stopped experiment is analysed for an hour more."""


class ExperimentService:
    """Declares, analyses and stops the experiments of a tenant.

    Args:
        control: writes the deployments.
        tenant: whose experiments.
        lake: where the decisions and outcomes are.
        analyst: analyses; default one with its usual patience.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        control: ControlService,
        tenant: str,
        lake: Lake,
        *,
        analyst: Analyst | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.store = ExperimentStore(control.database, tenant)
        self._layers = LayerBook(control.database, tenant, self._active)
        self._batches = BatchBook(control.database, tenant)
        self._reallocation = Reallocation(control, self.store, self._batches)
        self._control, self._tenant, self._clock = control, tenant, clock
        self._analyst = analyst or Analyst(self.store, lake, clock=clock)
        self._changing = threading.RLock()
        self._analysing = threading.Lock()
        self._events = structlog.get_logger().bind(tenant=tenant)

    def create(
        self, document: ExperimentDocument, *, actor: str = "operator", if_match: str | None = None
    ) -> dict[str, Any]:
        """Begin an experiment: its variants are the deployment's next generation.

        Args:
            document: what is declared.
            actor: who wants it.
            if_match: entity tag of the generation of the deployment to replace.

        Returns:
            The experiment, as JSON types.

        Raises:
            InvalidInputError: a metric of a value that outcomes of the policy do not carry.
            NotFoundError: no such policy or version.
            BundleError: a bundle is damaged.
            ConflictError: another experiment has the id, the policy or the layer, less of the layer is free than is
                asked for, a rollout of the policy is running, a version does not pass the policy's gate, or
                ``if_match`` names another generation.
        """
        return self._control.gates.judged_first(lambda judged: self._create(document, actor, if_match, judged))

    def _create(
        self, document: ExperimentDocument, actor: str, if_match: str | None, judged: Judgements
    ) -> dict[str, Any]:
        with self._changing:
            policies = self._policies(document)
            check_values(document, policies)
            document = self._layers.completed(completed(document, policies))
            before = self._live(document.policy)
            if before is not None and before.experiment is not None and not self._ours(before.experiment.name):
                raise ConflictError(
                    f"the deployment of {document.policy!r} has experiment {before.experiment.name!r}, which was not "
                    "declared here; create the deployment without it first",
                    field="policy",
                )
            stored = StoredExperiment(
                document=document,
                state="starting",
                revision=1,
                created_us=self._clock(),
                before=None if before is None else before.model_dump(mode="json"),
            )
            self.store.insert(stored, self._event(actor, "created", document.description))
            try:
                placement = self._layers.take(document)
                record, _ = self._control.create_deployment(
                    document.policy,
                    document.live_variants(),
                    document.live_spec(placement),
                    if_match=if_match,
                    judged=judged,
                    trusted=True,
                )
            except RlaasError:
                self.store.discard(document.id)
                raise
            stored = self._change(stored, "running", actor, f"generation {record.generation} serves it")
        self._events.info("experiment_started", experiment=document.id, policy=document.policy)
        return self.describe(stored)

    def all(self) -> list[dict[str, Any]]:
        """Every experiment, newest first, as JSON types."""
        return [_summary(stored) for stored in self.store.all()]

    def get(self, id_: str) -> dict[str, Any]:
        """One experiment with its history, as JSON types.

        Raises:
            NotFoundError: no such experiment.
        """
        return self.describe(self.store.get(id_))

    def describe(self, stored: StoredExperiment) -> dict[str, Any]:
        """An experiment with its history, as JSON types."""
        history = [asdict(event) for event in self.store.events(stored.document.id)]
        return {**_summary(stored), "document": stored.document.model_dump(mode="json"), "history": history}

    def result(self, id_: str) -> dict[str, Any]:
        """The latest result page; the first time it is made at once.

        Raises:
            NotFoundError: no such experiment.
            LakeError: the lake cannot be read.
        """
        stored = self.store.get(id_)
        found = self.store.analysis(id_)
        if found is None:
            return self.analyse(id_)
        return {**found.result, "state": stored.state}

    def audit(self, id_: str) -> list[dict[str, Any]]:
        """What came too late, or contradicts itself, and so changed nothing.

        Raises:
            NotFoundError: no such experiment.
        """
        self.store.get(id_)
        return self.store.audit(id_)

    def analyse(self, id_: str, *, now_us: int | None = None) -> dict[str, Any]:
        """Take in what is new in the lake, and return the result page.

        Raises:
            NotFoundError: no such experiment.
            LakeError: the lake cannot be read.
            ConflictError: another run was faster.
        """
        # One at a time: the loop and a request would otherwise overtake each other.
        with self._analysing:
            disturbed = self._disturbed(self.store.get(id_))
            return self._analyst.run(id_, now_us=now_us, disturbed=disturbed, batches=lambda: self._batches.of(id_))

    def reallocate(self, id_: str) -> bool:
        """Give a running experiment with an adaptive allocation its next batch, if it is time; whether it got one.

        Raises:
            NotFoundError: no such experiment.
            ConflictError: another Control, or an operator, was faster, or a rollout of the policy is running.
        """
        with self._changing:
            stored = self.store.get(id_)
            live = self._live(stored.document.policy)
            if stored.state != "running" or live is None:
                return False
            return self._reallocation.advance(stored.document, live, self._clock(), stored.created_us)

    def due(self) -> list[str]:
        """Ids of the experiments whose analysis may have something new."""
        now = self._clock()
        return [
            stored.document.id
            for stored in self.store.all()
            if stored.state in ("running", "stopping")
            or (stored.stopped_us is not None and now < stored.stopped_us + stored.document.wait_us + _LAST_RUNS_US)
        ]

    def stop(
        self, id_: str, decision: str, *, variant: str | None = None, reason: str, actor: str = "operator"
    ) -> dict[str, Any]:
        """End an experiment, and serve what was decided.

        Args:
            id_: of the experiment.
            decision: ``ship`` a variant: it alone is live and the champion; ``keep``: the control is; ``none``: what
                was live before the experiment is again.
            variant: to ship; needed where there are several treatments.
            reason: why; kept in the history.
            actor: who.

        Returns:
            The experiment, as JSON types.

        Raises:
            NotFoundError: no such experiment.
            InvalidInputError: an unknown decision or variant.
            ConflictError: it has ended already, or the deployment was changed meanwhile.
        """
        check_choice(decision, DECISIONS, field="decision", error=InvalidInputError)
        with self._changing:
            stored = self.store.get(id_)
            if stored.state not in ("running", "stopping"):
                raise ConflictError(f"experiment {id_!r} is {stored.state}; it cannot be stopped", field="state")
            chosen = _chosen(stored.document, decision, variant)
            verdict = {"decision": decision, "variant": chosen, "reason": reason, "actor": actor}
            stored = self._change(replace(stored, verdict=verdict), "stopping", actor, reason)
            return self.describe(self._end(stored))

    def recover(self) -> list[str]:
        """Finish what a Control that has ended left half done; ids of the experiments concerned."""
        found = []
        with self._changing:
            for stored in self.store.all():
                if stored.state == "starting":
                    live = self._live(stored.document.policy)
                    serves = live is not None and live.experiment is not None
                    if serves and live is not None and live.experiment is not None:
                        serves = live.experiment.name == stored.document.id
                    state: State = "running" if serves else "failed"
                    why = "taken up again" if serves else "Control ended before the deployment was written"
                    self._change(stored, state, "controller", why)
                elif stored.state == "stopping":
                    try:
                        self._end(stored)
                    except RlaasError as problem:  # an operator can stop it again
                        self._events.error("experiment_not_ended", experiment=stored.document.id, error=problem.message)
                else:
                    continue
                found.append(stored.document.id)
        return found

    def _end(self, stored: StoredExperiment) -> StoredExperiment:
        """Write the deployment that the verdict asks for; done twice it does no more."""
        document, verdict = stored.document, stored.verdict or {}
        if verdict["variant"] is not None:
            self._control.promote(document.policy, document.version_of(verdict["variant"]))
        elif not self._disturbed(stored):  # otherwise it is somebody else's by now
            before = stored.before
            if before is None:
                alone = {**document.live_variants()[0], "weight": 1.0}
                self._control.create_deployment(document.policy, [alone], trusted=True)
            else:
                self._control.create_deployment(
                    document.policy,
                    before["variants"],
                    before["experiment"],
                    fallback=before["fallback"],
                    trusted=True,
                )
        done = replace(stored, stopped_us=self._clock())
        self._events.info("experiment_stopped", experiment=document.id, **verdict)
        return self._change(done, "stopped", verdict["actor"], verdict["reason"])

    def _change(self, stored: StoredExperiment, state: State, actor: str, reason: str) -> StoredExperiment:
        kind = {"running": "started"}.get(state, state)
        changed = replace(stored, state=state, revision=stored.revision + 1)
        self.store.change(changed, self._event(actor, kind, reason))
        return changed

    def _event(self, actor: str, kind: str, reason: str) -> Event:
        return Event(self._clock(), actor, kind, reason)

    def _live(self, policy: str) -> DeploymentRecord | None:
        found = self._control.database.of_policy(self._tenant, policy)
        return None if found is None else found.record

    def _active(self) -> set[str]:
        """Ids of the experiments that hold what they have claimed."""
        return {stored.document.id for stored in self.store.all() if stored.state in ACTIVE}

    def _ours(self, name: str) -> bool:
        """Whether a live experiment was declared here; its claim on the policy says the rest."""
        return any(stored.document.id == name for stored in self.store.all())

    def _disturbed(self, stored: StoredExperiment) -> str:
        """What somebody else has done to the deployment of an experiment that is running."""
        if stored.state not in ("running", "stopping"):
            return ""
        live, document = self._live(stored.document.policy), stored.document
        if live is None:
            return f"the deployment of {document.policy} was deleted"
        if not self._reallocation.serves(document, live):
            return f"the deployment of {document.policy} was changed by hand; generation {live.generation} is another"
        return ""

    def _policies(self, document: ExperimentDocument) -> list[BundlePolicy]:
        """Of the variants, in their order."""
        registry = self._control.registry
        versions = [registry.get(document.policy, variant.version).version for variant in document.variants]
        return [load_bundle(registry.path(document.policy, version)) for version in versions]


def _chosen(document: ExperimentDocument, decision: str, variant: str | None) -> str | None:
    """The variant that will serve; None: what was before."""
    if decision != "ship":
        if variant is not None:
            raise InvalidInputError(f"variant goes with decision 'ship', not with {decision!r}", field="variant")
        return document.control if decision == "keep" else None
    if variant is None:
        if len(document.treatments) > 1:
            raise InvalidInputError(
                f"variant is needed: which one to ship; allowed: {', '.join(document.treatments)}", field="variant"
            )
        return document.treatments[0]
    return check_choice(variant, document.treatments, field="variant", error=InvalidInputError)


def _summary(stored: StoredExperiment) -> dict[str, Any]:
    document = stored.document
    verdict: Mapping[str, Any] | None = stored.verdict
    return {
        "id": document.id,
        "policy": document.policy,
        "state": stored.state,
        "design": document.design,
        "layer": document.layer,
        "placement": None if document.placement is None else document.placement.model_dump(mode="json"),
        "variants": [{"name": v.name, "version": v.version, "weight": v.weight} for v in document.variants],
        "primary": document.primary.name,
        "start_us": stored.start_us,
        "created_us": stored.created_us,
        "stopped_us": stored.stopped_us,
        "verdict": None if verdict is None else dict(verdict),
    }
