"""The registry of policies on MLflow."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaas.bundles import MANIFEST, load_bundle
from rlaas.errors import BundleError, ConflictError, NotFoundError, OperatorError
from rlaas.files import sha256_of
from rlaas.names import check_name
from rlaas.registry.registration import DOCUMENTS, OWN_RUN_TAG, Registration
from rlaas.registry.runs import BUNDLE, MISSING, LiveRun
from rlaas.registry.store import Store, local_folder
from rlaas.registry.versions import (
    DIGEST_TAG,
    TENANT_TAG,
    PolicyVersion,
    check_alias,
    check_document_name,
    newest_first,
)
from rlaas.settings import Settings

__all__ = ["CHAMPION", "Registry"]

CHAMPION = "champion"
FRONT = "front.json"

_PAGE = 1000


class Registry:
    """Policies of one tenant: names, versions, aliases, and the bundles behind them.

    A version is a bundle plus what is known about it. Versions never change; aliases move. Every process that
    registers, resolves or serves builds its own from the same settings; it may cross process boundaries.

    Args:
        settings: names the MLflow store, the artifact root, the tenant and the folder for downloads.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._store = Store(settings)

    def names(self) -> list[str]:
        """Sorted names of the policies that have at least one version."""
        models = self._pages("search_registered_models", f"tags.`{TENANT_TAG}` = '{self.settings.tenant}'")
        # A registered model without a version is the trace of a registration that failed at its last step.
        return sorted(self._short(model.name) for model in models if model.latest_versions)

    def versions(self, name: str) -> list[PolicyVersion]:
        """All versions of a policy, newest first.

        Raises:
            NotFoundError: no such policy; names the existing ones.
        """
        return self._versions(name)[0]

    def get(self, name: str, ref: int | str) -> PolicyVersion:
        """One version.

        Args:
            name: the policy.
            ref: a version number (also as digits) or an alias.

        Raises:
            NotFoundError: no such policy, version or alias; names the existing ones.
        """
        versions, aliases = self._versions(name)
        wanted: object = ref
        if isinstance(ref, str):
            wanted = int(ref) if ref.isascii() and ref.isdigit() else int(aliases.get(ref, 0))
        for version in versions:
            if version.version == wanted and not isinstance(wanted, bool):
                return version
        numbers = ", ".join(str(v.version) for v in reversed(versions))
        raise NotFoundError(
            f"policy {name!r} has no version {str(ref)[:80]!r}; versions: {numbers}; "
            f"aliases: {', '.join(sorted(aliases)) or '(none)'}",
            field="version",
        )

    def path(self, name: str, version: int | str) -> Path:
        """Local folder with the bundle of a version (or alias).

        From a remote artifact store it is downloaded once into ``home/cache/bundles`` and checked.

        Raises:
            NotFoundError: no such version.
            BundleError: the bundle is gone, or is not the one that was registered.
        """
        found = self.get(name, version)
        source = f"{self._store.artifact_root(found.run_id)}/{BUNDLE}"
        folder = local_folder(source)
        if folder is None:
            folder = self._downloaded(found, source)
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise BundleError(f"policy {name!r} version {found.version}: no bundle at {folder}", field=MANIFEST)
        if sha256_of(manifest) != found.digest:
            raise BundleError(
                f"policy {name!r} version {found.version}: {MANIFEST} is not the registered one", field=MANIFEST
            )
        return folder

    def document(self, name: str, version: int | str, document: str) -> dict[str, Any] | None:
        """A JSON document that was registered with a version; None if there is none of this name.

        Raises:
            NotFoundError: no such version.
            OperatorError: the document is there but cannot be read.
        """
        check_document_name(document)
        found = self.get(name, version)
        path = f"{DOCUMENTS}/{document}"
        if path not in {entry.path for entry in self._store.call("list_artifacts", found.run_id, DOCUMENTS)}:
            return None
        with tempfile.TemporaryDirectory(prefix="rlaas-") as scratch:
            local = self._store.download(f"{self._store.artifact_root(found.run_id)}/{path}", Path(scratch))
            try:
                content: dict[str, Any] = json.loads(local.read_text())
            except ValueError as problem:
                raise OperatorError(f"policy {name!r}: {document} is not JSON: {problem}", field=document) from problem
        return content

    def front(self, name: str, version: int | str) -> dict[str, Any] | None:
        """The front that a version was chosen from (``front.json``), or None."""
        return self.document(name, version, FRONT)

    def check_reachable(self) -> None:
        """Ask once whether an MLflow server answers; a database is not asked.

        Raises:
            RetryableError: it does not.
            OperatorError: its address is none.
        """
        self._store.check_reachable()

    def open_run(
        self,
        name: str,
        *,
        scenario: str,
        algorithm: str,
        params: Mapping[str, object] | None = None,
        parent: str | None = None,
    ) -> LiveRun:
        """Begin a run of MLflow that can be logged to while the work goes on.

        Args:
            name: as MLflow's pages show it.
            scenario: what is trained on.
            algorithm: what trains.
            params: what it is done with.
            parent: id of the run that it is nested in, if there is one.

        Raises:
            InvalidInputError: a parameter is not acceptable; nothing was stored.
            RetryableError: the MLflow server does not answer.
            OperatorError: MLflow refused.
        """
        return LiveRun.begin(
            self._store,
            name,
            tenant=self.settings.tenant,
            scenario=scenario,
            algorithm=algorithm,
            params=params,
            parent=parent,
        )

    def resume_run(self, run_id: str, *, parent: str | None = None) -> LiveRun | None:
        """Go on with a run of :meth:`open_run` that another process has begun; it counts as running again.

        Args:
            run_id: of the run.
            parent: the run that it is nested in from now on; None leaves it where it is.

        Returns:
            The run, or None where it is gone, deleted, or holds a bundle already.

        Raises:
            RetryableError: the MLflow server does not answer.
            OperatorError: MLflow refused.
        """
        return LiveRun.again(self._store, run_id, parent=parent)

    def register(
        self,
        name: str,
        bundle: Path | str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, object] | None = None,
        documents: Mapping[str, Mapping[str, Any]] | None = None,
        curve: Sequence[Mapping[str, float]] | None = None,
        run_id: str | None = None,
        alias: str | None = "candidate",
    ) -> PolicyVersion:
        """Register a bundle as the next version of a policy.

        The bundle is loaded first. Only the files that its manifest names are stored. If a later step fails, the
        version and the run that were begun are removed again.

        Args:
            name: the policy; created with its first version.
            bundle: folder of the bundle.
            params: what it was made with.
            metrics: what it achieved; finite numbers.
            tags: further facts, for example the versions of the lake tables (``{"lake": {"silver.transitions": 7}}``).
            documents: JSON documents by file name (``{"front.json": ...}``).
            curve: rows of a learning curve, each with its ``step``; rows without one are numbered.
            run_id: an MLflow run (the training, see :meth:`open_run`) that shall hold the bundle; by default a new
                one. It may still be open, and stays so; parameters and metrics that it has are not logged again.
            alias: moved to the new version at the end; None leaves the aliases alone.

        Raises:
            BundleError: the bundle is damaged.
            InvalidInputError: a name, tag, metric or document is not acceptable; nothing was stored.
            NotFoundError: no such run.
            ConflictError: the run already holds a bundle, or the name belongs to something else on the MLflow server.
        """
        qualified = self._qualified(name)
        registration = Registration.checked(
            qualified,
            Path(bundle),
            tenant=self.settings.tenant,
            params=params,
            metrics=metrics,
            tags=tags,
            documents=documents,
            curve=curve,
            run_id=run_id,
            alias=alias,
        )
        model = self._store.call("get_registered_model", qualified, expected=MISSING)
        if model is not None and not self._owns(model):
            raise ConflictError(f"policy {name!r} is taken by something else on this MLflow server", field="policy")
        return self.get(name, registration.write(self._store))

    def set_alias(self, name: str, alias: str, version: int | str) -> PolicyVersion:
        """Point an alias at a version (or at what another alias points to).

        Raises:
            NotFoundError: no such version.
            InvalidInputError: not a usable alias.
        """
        check_alias(alias)
        found = self.get(name, version)
        self._store.call("set_registered_model_alias", self._qualified(name), alias, str(found.version))
        return self.get(name, found.version)

    def delete(self, name: str, version: int | str) -> None:
        """Remove a version; its number is not used again.

        The run is marked as deleted where it existed only for the registration: ``mlflow gc`` then frees its files.

        Raises:
            NotFoundError: no such version.
            ConflictError: it is the champion.
        """
        found = self.get(name, version)
        if CHAMPION in found.aliases:
            raise ConflictError(
                f"policy {name!r} version {found.version} is the {CHAMPION}; promote another version first",
                field="version",
            )
        self._store.call("delete_model_version", self._qualified(name), str(found.version))
        run = self._store.call("get_run", found.run_id, expected=MISSING)
        if run is not None and OWN_RUN_TAG in run.data.tags and run.info.lifecycle_stage == "active":
            self._store.call("delete_run", found.run_id)
        if self._cache(found).exists():
            shutil.rmtree(self._cache(found))

    def _qualified(self, name: str) -> str:
        check_name(name, field="policy")
        return name if self.settings.tenant == "default" else f"{self.settings.tenant}.{name}"

    def _short(self, qualified: str) -> str:
        return qualified if self.settings.tenant == "default" else qualified.removeprefix(f"{self.settings.tenant}.")

    def _owns(self, model: Any) -> bool:
        # Names may hold dots, so the tag and not the prefix says whose a registered model is.
        return bool(model.tags.get(TENANT_TAG) == self.settings.tenant)

    def _versions(self, name: str) -> tuple[list[PolicyVersion], dict[str, Any]]:
        qualified = self._qualified(name)
        model = self._store.call("get_registered_model", qualified, expected=MISSING)
        versions: list[PolicyVersion] = []
        aliases: dict[str, Any] = {}
        if model is not None and self._owns(model):
            aliases = dict(model.aliases)
            entities = self._pages("search_model_versions", f"name = '{qualified}'")
            versions = [PolicyVersion.from_mlflow(name, e, aliases) for e in entities if DIGEST_TAG in e.tags]
        if not versions:
            raise NotFoundError(
                f"no policy {name!r} is registered; policies: {', '.join(self.names()) or '(none)'}", field="policy"
            )
        return newest_first(versions), aliases

    def _pages(self, method: str, filter_string: str) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._store.call(method, filter_string=filter_string, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _cache(self, version: PolicyVersion) -> Path:
        # The digest is part of the path: a version of another MLflow server must not be taken for this one.
        folder = self.settings.home / "cache" / "bundles" / self.settings.tenant / version.name
        return folder / f"{version.version}-{version.digest[:16]}"

    def _downloaded(self, version: PolicyVersion, source: str) -> Path:
        target = self._cache(version)
        if (target / MANIFEST).is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as scratch:
            folder = self._store.download(source, Path(scratch))
            load_bundle(folder)
            try:
                folder.rename(target)
            except OSError:
                # Another process was quicker: what it put there has passed the same checks.
                if not (target / MANIFEST).is_file():
                    raise
        return target
