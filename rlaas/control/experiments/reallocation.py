"""Gives an experiment with an adaptive allocation its next batch: new weights, as the deployment's next generation."""

from __future__ import annotations

import structlog

from rlaas.control.experiments.adaptive import next_batch
from rlaas.control.experiments.batches import Batch, BatchBook, batch_at
from rlaas.control.experiments.documents import ExperimentDocument
from rlaas.control.experiments.store import ExperimentStore
from rlaas.control.service import ControlService
from rlaas.errors import ConflictError
from rlaas.experiments.conditional import ConditionalSpec
from rlaas.serving.live import DeploymentRecord

__all__ = ["Reallocation"]


class Reallocation:
    """Writes batches.

    Args:
        control: writes the deployments.
        store: of the experiments.
        batches: of the same tenant.
    """

    def __init__(self, control: ControlService, store: ExperimentStore, batches: BatchBook) -> None:
        self._control, self._store, self._batches = control, store, batches
        self._events = structlog.get_logger()

    def serves(self, document: ExperimentDocument, live: DeploymentRecord) -> bool:
        """Whether a deployment divides the units as the experiment says, in the batch of its generation."""
        batches = self._batches.of(document.id) if document.allocation is not None else []
        number = batch_at(batches, live.generation)
        shares, conditional = (batches[number - 1].shares, batches[number - 1].conditional) if number else (None, None)
        spec = conditional or document.conditional_spec()
        wanted = {(one["name"], one["version"], one["weight"]) for one in document.live_variants(shares)}
        return (
            live.experiment is not None
            and live.experiment.name == document.id
            and live.experiment.salt == document.live_salt(number)
            and live.experiment.targeting == document.targeting
            and live.experiment.conditional == (None if spec is None else ConditionalSpec.model_validate(spec))
            and (live.experiment.placement is None) is (document.placement is None)
            and {(one.name, one.version, one.weight) for one in live.variants} == wanted
        )

    def advance(self, document: ExperimentDocument, live: DeploymentRecord, now_us: int, began_us: int) -> bool:
        """Begin the next batch, if it is time and units have become complete since the last; whether it was begun.

        Args:
            document: the experiment, which is running.
            live: the deployment as it is now.
            now_us: UTC microseconds.
            began_us: when the experiment did.

        Raises:
            ConflictError: another Control, or an operator, was faster.
        """
        if document.allocation is None:
            return False
        batches = self._batches.of(document.id)
        if batches and batch_at(batches, live.generation) < len(batches):  # whoever wrote it was killed before serving
            return self._serve(document, live, batches[-1])
        if not self.serves(document, live):
            return False
        last_us, known = (batches[-1].time_us, batches[-1].units) if batches else (began_us, 0)
        if now_us < last_us + document.allocation.batch_s * 1e6:
            return False
        entries = self._store.entries(document.id, document.learnt_from)
        if len(entries) <= known:
            return False
        number = len(batches) + 1
        shares, conditional = next_batch(document, entries, number)
        batch = Batch(number, live.generation + 1, now_us, len(entries), shares, conditional)
        self._batches.add(document.id, batch)
        return self._serve(document, live, batch)

    def _serve(self, document: ExperimentDocument, live: DeploymentRecord, batch: Batch) -> bool:
        spec = live.experiment
        if batch.generation != live.generation + 1 or spec is None:
            self._drop(document, live, batch)
            return False
        placement = None if spec.placement is None else spec.placement.model_dump(mode="json")
        try:
            self._control.create_deployment(
                document.policy,
                document.live_variants(batch.shares),
                document.live_spec(placement, batch.batch, batch.conditional),
                fallback=live.fallback,
                if_match=live.etag,
                trusted=True,
            )
        except ConflictError:
            self._drop(document, live, batch)
            raise
        self._events.info("experiment_reallocated", experiment=document.id, batch=batch.batch, shares=batch.shares)
        return True

    def _drop(self, document: ExperimentDocument, live: DeploymentRecord, batch: Batch) -> None:
        """Forget a batch whose generation is somebody else's; not one that another Control serves, or is about to."""
        if any(one.batch > batch.batch for one in self._batches.of(document.id)):  # made only after it was served
            return
        now = self._control.database.of_policy(live.tenant, document.policy)
        record = None if now is None else now.record
        if record is not None:
            spec = record.experiment
            salt = document.live_salt(batch.batch)
            served = spec is not None and (spec.name, spec.salt) == (document.id, salt)
            if served or record.generation < batch.generation:
                return
        self._batches.drop(document.id, batch)
