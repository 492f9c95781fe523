"""The registry against a real MLflow server that keeps the artifacts to itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.registry_bundles import MakeBundle

from rlaas.bundles import MODEL, load_bundle
from rlaas.errors import BundleError
from rlaas.registry import Registry
from rlaas.settings import load_settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "server"), "--serve-artifacts"]
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    try:
        for _ in range(600):
            if process.poll() is not None:
                break
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        else:
            pytest.fail("the MLflow server did not start")
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        log.close()


def test_a_bundle_on_a_server_is_downloaded_once_and_checked(
    server: str, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    registry = Registry(load_settings(home=tmp_path / "home", mlflow_url=server))
    bundle = make_bundle()
    made = registry.register("toy", bundle, metrics={"gain": 1.0}, documents={"front.json": {"size": 3}})
    assert (made.version, made.aliases, made.metrics) == (1, ("candidate",), {"gain": 1.0})
    assert not (tmp_path / "home" / "artifacts").exists()
    assert registry.front("toy", "candidate") == {"size": 3}

    folder = registry.path("toy", 1)
    assert folder.is_relative_to(tmp_path / "home" / "cache" / "bundles")
    assert load_bundle(folder).manifest == load_bundle(bundle).manifest
    inode = (folder / MODEL).stat().st_ino
    assert (registry.path("toy", 1) / MODEL).stat().st_ino == inode
    assert [f.name for f in folder.parent.iterdir()] == [folder.name], "nothing partial is left"

    stored = next((tmp_path / "server").rglob(MODEL))
    stored.write_bytes(b"damaged")
    elsewhere = Registry(load_settings(home=tmp_path / "other", mlflow_url=server))
    with pytest.raises(BundleError, match="does not match its sha256"):
        elsewhere.path("toy", 1)
    assert [*(tmp_path / "other").rglob(MODEL)] == []

    registry.delete("toy", 1)
    assert not folder.exists()
    assert registry.names() == []
