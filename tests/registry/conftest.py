"""A registry in the test's own folder, and bundles to put into it."""

from __future__ import annotations

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


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings)
