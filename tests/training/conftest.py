"""A local Ray for each file, and the toys on the import path."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    import ray

    # Workers find the toys as this process does.
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    # Unix sockets allow some 100 characters: a short folder of our own.
    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 1024 * 1024,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    patch.undo()
    shutil.rmtree(folder, ignore_errors=True)
