"""One Ray for the folder, whose workers find the toys."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tuning_kit import TOYS

sys.path.insert(0, TOYS)

NICENESS = "RAY_worker_niceness"


@pytest.fixture(scope="package")
def tuning_ray() -> Iterator[None]:
    import ray

    # Another folder's would not find the toys in its workers, which take over the environment of their raylet.
    ray.shutdown()
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", NICENESS)}
    # Ray's workers yield to everything else, which on a busy machine means that a test hardly moves.
    os.environ[NICENESS] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (TOYS, str(Path(__file__).parent), before["PYTHONPATH"])))
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
    shutil.rmtree(folder, ignore_errors=True)
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
