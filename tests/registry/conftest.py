"""A registry in the test's own folder, and bundles to put into it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.registry_bundles import MakeBundle, build_bundle

from rlaas.registry import Registry
from rlaas.settings import Settings, load_settings


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Builds ``make_bundle("name", seed=..., lineage=...)`` under the test's folder."""
    return lambda name="bundle", **options: build_bundle(tmp_path / name, **options)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "a home")


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with nothing in it; making one takes more than a second."""
    settings = load_settings(home=tmp_path_factory.mktemp("blank"))
    assert Registry(settings).names() == []
    return settings.home / "mlflow.db"


@pytest.fixture
def registry(settings: Settings, blank: Path) -> Registry:
    settings.home.mkdir(parents=True)
    shutil.copy(blank, settings.home)
    return Registry(settings)


@pytest.fixture
def unopened(settings: Settings) -> Registry:
    """A registry whose home is not there yet."""
    return Registry(settings)
