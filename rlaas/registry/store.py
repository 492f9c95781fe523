"""The connection to MLflow: quiet, without telemetry, and patient where another process writes at the same moment."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import time
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from rlaas.errors import OperatorError, RetryableError
from rlaas.settings import Settings

__all__ = ["Store", "import_mlflow", "local_folder"]

_PATIENCE_S = 60.0
_REACHABLE_S = 10.0
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def import_mlflow() -> Any:
    """Import MLflow (seconds, the first time) without its telemetry and its chatter; returns the module.

    The variables are read by MLflow at import, hence set here; one that the process already has stays as it is.
    """
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    import mlflow
    import mlflow.artifacts  # the attribute exists only once the submodule is imported

    # Prints a traceback for every locked database although it raises as well: `Store.call` tries again, or raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


def local_folder(uri: str) -> Path | None:
    """The folder behind a plain path or a ``file:`` URI; None for anything remote."""
    parts = urlsplit(uri)
    if parts.scheme == "":
        return Path(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None


class Store:
    """An MLflow client that starts at the first call.

    Args:
        settings: names the tracking URI and the artifact root.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._embedded = settings.tracking_uri.startswith("sqlite:")

    def __reduce__(self) -> tuple[object, ...]:
        # A client holds a connection pool, which must not cross a process boundary.
        return (Store, (self.settings,))

    @cached_property
    def mlflow(self) -> Any:
        """The module."""
        return import_mlflow()

    @cached_property
    def _client(self) -> Any:
        database = make_url(self.settings.tracking_uri).database if self._embedded else None
        if not database:
            return self._connected()
        file = Path(f"{database}.lock")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise OperatorError(
                f"the registry's database {database} cannot be opened: {reason}", field="mlflow_url"
            ) from problem
        # MLflow creates its tables when it first opens a database; two processes that do so at once break each other.
        with file.open("w") as lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its migrations complain about its own tables
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = self._connected()
            client.search_registered_models(max_results=1)  # opens the other half of the database
            return client

    def _connected(self) -> Any:
        uri = self.settings.tracking_uri
        return self.mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)

    def check_reachable(self) -> None:
        """Ask an MLflow server for any answer at all, once: its client would go on asking for minutes.

        Raises:
            RetryableError: there is none.
            OperatorError: the address is no address.
        """
        uri = self.settings.tracking_uri
        if not uri.startswith(("http:", "https:")):
            return
        try:
            httpx.get(uri, timeout=_REACHABLE_S)
        except httpx.InvalidURL as problem:
            raise OperatorError(
                f"{uri!r} is no address of an MLflow server: {problem}", field="mlflow_url"
            ) from problem
        except httpx.TransportError as problem:
            raise RetryableError(f"no MLflow server answers at {uri}: {problem}", field="mlflow_url") from problem

    def call(self, method: str, *args: Any, expected: tuple[str, ...] = (), **kwargs: Any) -> Any:
        """Call a method of ``mlflow.MlflowClient``.

        Args:
            method: name of the method.
            args: passed on.
            expected: error codes of MLflow that are an answer: they give None.
            kwargs: passed on.

        Raises:
            RetryableError: the database stayed locked for a minute, or the server cannot be reached.
            OperatorError: MLflow refused for a reason that the caller did not expect.
        """
        return self._patiently(lambda: getattr(self._client, method)(*args, **kwargs), expected)

    def download(self, uri: str, folder: Path) -> Path:
        """Download an artifact (a file or a folder) into ``folder``; returns where it lies.

        Raises:
            OperatorError: it is not there, or the store refused.
        """
        return Path(
            self._patiently(
                lambda: self.mlflow.artifacts.download_artifacts(
                    artifact_uri=uri, dst_path=str(folder), tracking_uri=self.settings.tracking_uri
                )
            )
        )

    def delete_artifacts(self, run_id: str, path: str) -> None:
        """Remove the artifacts of a run under ``path``.

        Raises:
            OperatorError: the store refused.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        uri = self.artifact_root(run_id)
        self._patiently(
            lambda: get_artifact_repository(uri, tracking_uri=self.settings.tracking_uri).delete_artifacts(path)
        )

    def artifact_root(self, run_id: str) -> str:
        """URI under which the artifacts of a run lie."""
        return str(self.call("get_run", run_id).info.artifact_uri).rstrip("/")

    def experiment(self) -> str:
        """Id of the MLflow experiment that holds this tenant's runs, created where it is missing."""
        name = f"rlaas-{self.settings.tenant}"
        found = self.call("get_experiment_by_name", name)
        if found is None:
            created = self.call("create_experiment", name, self._location(), expected=("RESOURCE_ALREADY_EXISTS",))
            if created is not None:
                return str(created)
            found = self.call("get_experiment_by_name", name)
        return str(found.experiment_id)

    def _location(self) -> str | None:
        """Where the runs of a new experiment keep artifacts; None leaves it to a tracking server."""
        if self.settings.artifact_url is None and self.settings.tracking_uri.startswith(("http:", "https:")):
            return None
        folder = local_folder(self.settings.artifact_root)
        return self.settings.artifact_root if folder is None else folder.absolute().as_uri()

    def _patiently(self, attempt: Callable[[], Any], expected: tuple[str, ...] = ()) -> Any:
        mlflow = self.mlflow
        give_up = time.monotonic() + _PATIENCE_S
        pause = 0.05
        while True:
            try:
                return attempt()
            except mlflow.exceptions.MlflowException as problem:
                if problem.error_code in expected:
                    return None
                reason = str(problem.message).strip().splitlines()[0][:300]
                busy = problem.error_code == "TEMPORARILY_UNAVAILABLE" or "Giving up after" in reason
                cause: Exception = problem
            except SQLAlchemyError as problem:  # opening a store is not within MLflow's own wrapper
                reason = str(problem).strip().splitlines()[0][:300]
                # A database that is not there, or not to be written, will not be so in a minute either.
                busy = isinstance(problem, OperationalError) and not (self._embedded and "locked" not in reason)
                cause = problem
            except OSError as problem:
                raise OperatorError(f"the registry's artifacts: {problem}", field="artifact_url") from problem
            # SQLite answers "locked" at once when two readers both want to write: MLflow has rolled back, so the same
            # call may be made again. The client of a server has retries of its own.
            if busy and self._embedded and time.monotonic() < give_up:
                time.sleep(pause * random.uniform(0.5, 1.5))  # apart from the process it collided with
                pause = min(2 * pause, 1.0)
            elif busy:
                raise RetryableError(f"the registry is busy: {reason}", field="mlflow_url") from cause
            else:
                raise OperatorError(f"the registry refused: {reason}", field="mlflow_url") from cause
