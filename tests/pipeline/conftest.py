"""A local Ray for the folder, and stores that its tests share: opening an MLflow database takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.local_ray import started_ray

from rlaas.settings import Settings, load_settings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray whose workers find the toys of this folder."""
    with started_ray(HERE, HERE.parent):
        yield


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One home for the folder; its tests keep apart by the name of their scenario."""
    return load_settings(home=tmp_path_factory.mktemp("pipeline") / "home")
