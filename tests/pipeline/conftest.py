"""A local Ray for the folder, and stores that its tests share: opening an MLflow database takes seconds."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaas.settings import Settings, load_settings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray whose workers find the toys of this folder."""
    import ray

    # Unix sockets allow some 100 characters: a short folder of our own.
    folder = tempfile.mkdtemp(prefix="rp", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 1024 * 1024,
            _temp_dir=folder,
        )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One home for the folder; its tests keep apart by the name of their scenario."""
    return load_settings(home=tmp_path_factory.mktemp("pipeline") / "home")
