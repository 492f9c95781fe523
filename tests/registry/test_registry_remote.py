"""The registry against a real MLflow server that keeps the artifacts to itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mlflow_server import mlflow_server
from support.registry_bundles import MakeBundle

from rlaas.bundles import MODEL, load_bundle
from rlaas.errors import BundleError
from rlaas.registry import Registry
from rlaas.settings import load_settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with mlflow_server(tmp_path) as running:
        yield running.url


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
