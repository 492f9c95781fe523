"""Which buckets of which layer an experiment has: a page for each layer in the state database.

A layer lies across policies: two experiments that have a share of it each have no unit in common, so that a person whom
one of them treats is left alone by the other. Who has ended gives its buckets back by having ended: a page is read
beside the states of the experiments, and nothing has to be undone after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from rlaas.control.experiments.documents import ExperimentDocument, LayerShare
from rlaas.control.state import StateDatabase
from rlaas.control.tables import TenantStore, tenant_table
from rlaas.errors import ConflictError, InvalidInputError
from rlaas.experiments.layers import BUCKETS, Layer, LayeredExperiment, WeightedVariant, place
from rlaas.serving.live import Placement

__all__ = ["LayerBook"]

_TRIES = 20

_metadata = sa.MetaData()

_layers = tenant_table(
    _metadata,
    "experiment_layers",
    sa.Column("layer", sa.String(128), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)


class LayerBook(TenantStore):
    """The layers of a tenant. Safe for several processes: a page is written only over the one it was made from.

    Args:
        database: the state database; the table is made where it is missing.
        tenant: whose layers.
        active: ids of the experiments that have not ended; one must be among them before it takes anything.
    """

    def __init__(self, database: StateDatabase, tenant: str, active: Callable[[], Collection[str]]) -> None:
        super().__init__(database, tenant, _metadata)
        self._active = active

    def layer(self, name: str) -> Layer:
        """A layer with the experiments that have not ended."""
        return self._read(name)[1]

    def completed(self, document: ExperimentDocument) -> ExperimentDocument:
        """The document with the holdout of its layer.

        A layer gets its holdout from the experiment that is the first there, and keeps it for as long as any runs. An
        experiment that holds a layer with a holdout as a whole has the rest of it.

        Raises:
            ConflictError: it wants another holdout than those that run there.
        """
        if document.layer is not None:
            layer = self.layer(document.layer)
            if not layer.holdout:
                return document
            share = LayerShare(layer=layer.name, share=layer.usable / BUCKETS, holdout=layer.holdout)
            return document.model_copy(update={"layer": None, "placement": share})
        wanted = document.placement
        if wanted is None:
            return document
        layer = self.layer(wanted.layer)
        if wanted.holdout is None:
            return document.model_copy(update={"placement": wanted.model_copy(update={"holdout": layer.holdout})})
        _check_holdout(layer, wanted.holdout)
        return document

    def take(self, document: ExperimentDocument) -> dict[str, Any] | None:
        """Give an experiment the buckets that it asks for; asked again it has the same.

        Returns:
            Document of the :class:`rlaas.serving.live.Placement`; None: it takes in every unit.

        Raises:
            ConflictError: less of the layer is free, or it has got another holdout.
        """
        holdout = 0.0
        if document.placement is not None:
            name, share, field = document.placement.layer, document.placement.share, "placement"
            holdout = document.placement.holdout or 0.0
        elif document.layer is not None:
            name, share, field = document.layer, 1.0, "layer"
        else:
            return None
        mine = LayeredExperiment(
            name=document.id,
            salt=document.salt or document.id,
            variants=tuple(WeightedVariant(name=one.name, weight=one.weight) for one in document.variants),
        )
        for _ in range(_TRIES):
            revision, layer = self._read(name)
            _check_holdout(layer, holdout, besides=mine.name)
            try:
                placed = place(layer.model_copy(update={"holdout": holdout}), mine, share)
            except InvalidInputError as problem:
                others = ", ".join(f"{one.name} {one.share:g}" for one in layer.experiments)
                raise ConflictError(f"{problem.message}; running there: {others}", field=field) from problem
            if self._write(placed, revision):
                if document.placement is None:
                    return None
                spans = next(one.buckets for one in placed.experiments if one.name == mine.name)
                held = ((placed.usable, BUCKETS),) if holdout else ()
                made = Placement(layer=name, salt=layer.salt, buckets=spans, holdout=held)
                return made.model_dump(mode="json")
        raise ConflictError(f"layer {name!r} keeps being changed by others; try again", field=field)

    def _read(self, name: str) -> tuple[int, Layer]:
        """Revision of a page, 0 where there is none, and the layer without those that have ended."""
        query = sa.select(_layers).where(*self._mine(_layers, layer=name))
        row = self._row(query)
        if row is None:
            return 0, Layer(name=name, salt=name)
        # After the page: whoever is on it was active before it was written.
        active = self._active()
        layer = Layer.model_validate_json(row.document)
        kept = tuple(one for one in layer.experiments if one.name in active)
        return row.revision, layer.model_copy(update={"experiments": kept})

    def _write(self, layer: Layer, revision: int) -> bool:
        """Whether the page was still at the revision."""
        values = {"revision": revision + 1, "document": layer.model_dump_json()}
        try:
            with self._engine.begin() as connection:
                if revision == 0:
                    row = {"tenant": self._tenant, "layer": layer.name, **values}
                    connection.execute(_layers.insert().values(**row))
                    return True
                changed = connection.execute(
                    _layers.update().where(*self._mine(_layers, layer=layer.name, revision=revision)).values(**values)
                )
                return changed.rowcount == 1
        except IntegrityError:  # another was the first to write it
            return False


def _check_holdout(layer: Layer, wanted: float, besides: str = "") -> None:
    others = [one.name for one in layer.experiments if one.name != besides]
    if others and wanted != layer.holdout:
        raise ConflictError(
            f"layer {layer.name!r} has a holdout of {layer.holdout:g} for as long as {', '.join(others)} runs there; "
            f"{wanted:g} is another",
            field="placement.holdout",
        )
