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


@pytest.fixture(scope="package")
def tuning_ray() -> Iterator[None]:
    import ray

    # Another folder's would not find the toys in its workers, which take over the environment of their raylet.
    ray.shutdown()
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (TOYS, str(Path(__file__).parent), before)))
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
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
