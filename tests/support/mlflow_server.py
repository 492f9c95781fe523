"""A real MLflow server in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.processes import free_port


class MlflowServer:
    """Where it is, and how it ends.

    Args:
        folder: of its database, artifacts and log.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "server.log"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
        command += ["--artifacts-destination", str(folder / "server"), "--serve-artifacts"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(600):
            assert self._process.poll() is None, self._log.read_text()
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        pytest.fail("the MLflow server did not start")

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it is still there."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, with_signal)
            self._process.wait(timeout=30)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """A server that answers, for the length of the block."""
    server = MlflowServer(folder)
    try:
        server.wait()
        yield server
    finally:
        server.end()
