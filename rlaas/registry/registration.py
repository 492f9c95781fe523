"""One registration: everything checked before the first write, then a run, its files, a version; or nothing at all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaas.bundles import MANIFEST, load_bundle
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.files import sha256_of
from rlaas.registry.lineage import lineage_tags
from rlaas.registry.runs import BUNDLE, METRICS_PER_BATCH, MISSING, chunks, log_params
from rlaas.registry.store import Store
from rlaas.registry.versions import (
    ALGORITHM_TAG,
    DIGEST_TAG,
    METRICS_TAG,
    PARAMS_TAG,
    SCENARIO_TAG,
    TENANT_TAG,
    check_alias,
    check_document_name,
    check_metrics,
    check_params,
    check_tags,
)

__all__ = ["DOCUMENTS", "OWN_RUN_TAG", "Registration"]

DOCUMENTS = "documents"
OWN_RUN_TAG = "rlaas.registration"  # marks runs that exist only for a registration

_TAGS_PER_BATCH = 100  # MLflow's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is about to be registered, checked.

    Attributes:
        name: the registered model's name in MLflow.
        tenant: whose it is.
        folder: of the bundle.
        files: of the bundle, the manifest last.
        tags: of the version; they hold metrics and parameters too.
        metrics: by key.
        params: by key.
        points: key, value and step of every point of the learning curve.
        documents: JSON text by file name.
        run_id: the run to use, or None for one of its own.
        alias: moved to the version at the end.
    """

    name: str
    tenant: str
    folder: Path
    files: tuple[str, ...]
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]
    points: list[tuple[str, float, int]]
    documents: dict[str, str]
    run_id: str | None
    alias: str | None

    @classmethod
    def checked(
        cls,
        name: str,
        bundle: Path,
        *,
        tenant: str,
        params: Mapping[str, object] | None,
        metrics: Mapping[str, float] | None,
        tags: Mapping[str, object] | None,
        documents: Mapping[str, Mapping[str, Any]] | None,
        curve: Sequence[Mapping[str, float]] | None,
        run_id: str | None,
        alias: str | None,
    ) -> Registration:
        """Check everything that can be checked without a write; arguments as in ``Registry.register``.

        Raises:
            BundleError: the bundle is damaged.
            InvalidInputError: a tag, metric, parameter, document or alias is not acceptable.
        """
        numbers, texts, own_tags = check_metrics(metrics), check_params(params), check_tags(tags)
        contents = {check_document_name(key): _json_text(key, value) for key, value in (documents or {}).items()}
        points = _curve_points(curve or ())
        manifest = load_bundle(bundle).manifest
        return cls(
            name=name,
            tenant=tenant,
            folder=bundle,
            files=(*manifest.files, MANIFEST),
            tags={
                **own_tags,
                **lineage_tags(manifest.lineage),
                DIGEST_TAG: sha256_of(bundle / MANIFEST),
                METRICS_TAG: json.dumps(numbers, sort_keys=True),
                PARAMS_TAG: json.dumps(texts, sort_keys=True),
                TENANT_TAG: tenant,
                SCENARIO_TAG: manifest.scenario,
                ALGORITHM_TAG: manifest.algorithm,
            },
            metrics=numbers,
            params=texts,
            points=points,
            documents=contents,
            run_id=run_id,
            alias=None if alias is None else check_alias(alias),
        )

    def write(self, store: Store) -> int:
        """Store it; returns the version number. A failure on the way leaves nothing behind.

        Raises:
            NotFoundError: no such run.
            ConflictError: the run already holds a bundle.
            OperatorError: MLflow or its artifact store refused.
        """
        run_id = self._open_run(store)
        version: int | None = None
        try:
            self._log(store, run_id)
            for file in self.files:
                store.call("log_artifact", run_id, str(self.folder / file), BUNDLE)
            for key, text in self.documents.items():
                store.call("log_text", run_id, text, f"{DOCUMENTS}/{key}")
            version = self._create_version(store, run_id)
            if self.run_id is None:
                store.call("set_terminated", run_id, "FINISHED")
            # Last: an alias that has moved could not be moved back if another process moved it as well.
            if self.alias is not None:
                store.call("set_registered_model_alias", self.name, self.alias, str(version))
        except BaseException as problem:
            self._undo(store, run_id, version, problem)
            raise
        return version

    def _open_run(self, store: Store) -> str:
        if self.run_id is None:
            tags = {OWN_RUN_TAG: self.name, "mlflow.runName": self.name}
            return str(store.call("create_run", store.experiment(), tags=tags).info.run_id)
        if store.call("get_run", self.run_id, expected=(*MISSING, "INVALID_PARAMETER_VALUE")) is None:
            raise NotFoundError(f"no MLflow run {self.run_id[:80]!r}", field="run_id")
        if store.call("list_artifacts", self.run_id, BUNDLE):
            raise ConflictError(
                f"run {self.run_id} already holds a bundle; register without run_id to get a run of its own",
                field="run_id",
            )
        return self.run_id

    def _log(self, store: Store, run_id: str) -> None:
        """Parameters, metrics, curve and tags for MLflow's own pages."""
        entities = store.mlflow.entities
        now_ms = int(time.time() * 1000)
        log_params(store, run_id, self.params)
        # What the training has logged itself is not logged twice.
        known = store.call("get_run", run_id).data.metrics
        points = [(key, value, 0) for key, value in self.metrics.items() if known.get(key) != value] + self.points
        metrics = [entities.Metric(key, value, now_ms, step) for key, value, step in points]
        tags = [entities.RunTag(k, v) for k, v in self.tags.items() if k not in (METRICS_TAG, PARAMS_TAG)]
        for chunk in chunks(metrics, METRICS_PER_BATCH):
            store.call("log_batch", run_id, metrics=chunk)
        for chunk in chunks(tags, _TAGS_PER_BATCH):
            store.call("log_batch", run_id, tags=chunk)

    def _create_version(self, store: Store, run_id: str) -> int:
        model_tags = {TENANT_TAG: self.tenant, SCENARIO_TAG: self.tags[SCENARIO_TAG]}
        store.call("create_registered_model", self.name, model_tags, expected=("RESOURCE_ALREADY_EXISTS",))
        source = f"{store.artifact_root(run_id)}/{BUNDLE}"
        created = store.call("create_model_version", self.name, source=source, run_id=run_id, tags=self.tags)
        return int(created.version)

    def _undo(self, store: Store, run_id: str, version: int | None, problem: BaseException) -> None:
        """Remove what has been begun; what cannot be removed is noted on the error that is on its way."""
        try:
            if version is not None:
                store.call("delete_model_version", self.name, str(version), expected=MISSING)
            for path in (BUNDLE, DOCUMENTS):
                store.delete_artifacts(run_id, path)
            if self.run_id is None:
                store.call("delete_run", run_id)
        except Exception as second:  # whatever it is, the first error is the one to report
            problem.add_note(f"clearing up run {run_id} failed as well: {second}")


def _json_text(name: str, content: Mapping[str, Any]) -> str:
    if not isinstance(content, Mapping):
        raise InvalidInputError(f"documents.{name} must be a JSON object", field=f"documents.{name}")
    try:
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as problem:
        raise InvalidInputError(f"documents.{name} is not JSON: {problem}", field=f"documents.{name}") from problem


def _curve_points(curve: Sequence[Mapping[str, float]]) -> list[tuple[str, float, int]]:
    points = []
    for row, values in enumerate(curve):
        checked = check_metrics(values, field=f"curve[{row}]")
        step = int(checked.pop("step", row))
        points += [(f"curve/{key}", value, step) for key, value in checked.items()]
    return points
